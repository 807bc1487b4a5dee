package ws

import (
	"testing"
	"testing/synctest"
	"time"
)

// Pings and pongs are no messages; who is closing is not closed again.
func TestCloseIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		var clients, ups []*peer
		for range 5 {
			c, u := relayed(s, Relay{PingEvery: -1}, deflated{})
			clients, ups = append(clients, c), append(ups, u)
			time.Sleep(time.Second)
		}
		clients[0].send(t, client(0x81, "x"))
		ups[1].send(t, server(0x01, "x")) // a fragment
		clients[2].send(t, client(0x89, ""))
		ups[3].send(t, server(0x8a, ""))
		time.Sleep(4500 * time.Millisecond) // 2 has 7.5 s, 3 6.5 s, 4 5.5 s, 0 and 1 4.5 s
		synctest.Wait()
		if n := s.CloseIdle(0, 0, ""); n != 0 {
			t.Errorf("closed %d of none", n)
		}
		if n := s.CloseIdle(1, 6*time.Second, "why"); n != 1 {
			t.Errorf("closed %d, want 1", n)
		}
		if n := s.CloseIdle(9, 6*time.Second, "why"); n != 1 {
			t.Errorf("then %d, want 1", n)
		}
		if n := s.CloseIdle(9, 5*time.Second, "why"); n != 1 {
			t.Errorf("then %d, want 1", n)
		}
		if n := s.CloseIdle(9, 5*time.Second, "why"); n != 0 {
			t.Errorf("then %d, want 0", n)
		}
		clients[2].want(t, closing(1013, "why"))
		clients[3].want(t, "\x8a", closing(1013, "why"))
		clients[0].want(t)
		for i := range clients {
			clients[i].Close()
			ups[i].Close()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := s.Stats().Open; n != 0 {
			t.Errorf("%d are left", n)
		}
	})
}
