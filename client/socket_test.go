package client

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
)

// After each close code, the state that follows and the most that the wait may be.
func TestCloseCodes(t *testing.T) {
	const back = "connecting connected 1s connecting connected"
	const failed = "connecting connected failed"
	const closed = "connecting connected disconnected"
	for _, tc := range []struct {
		code   int
		reason string
		want   string
	}{
		{1000, "", closed},
		{1001, "", back},
		{1002, "", failed},
		{1003, "", failed},
		{1005, "", closed},
		{1007, "", failed},
		{1008, "", failed},
		{1008, "forbidden", failed},
		{1008, "token-expired", failed}, // this client has no token to fetch
		{1009, "", failed},
		{1010, "", failed},
		{1011, "", back},
		{1012, "", back},
		{1013, "slow", back},
		{3000, "", back},
		{3499, "", back},
		{3500, "", failed},
		{3999, "", failed},
		{4000, "", back},
		{4499, "", back},
		{4500, "", failed},
		{4999, "", failed},
	} {
		t.Run(fmt.Sprint(tc.code, tc.reason), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				srv := newScript(t, closes(tc.code, tc.reason, 0), upgraded(stays))
				s := srv.client(Options{}).WebSocket("/ws", SocketOptions{})
				st, ended := running(t, s)
				time.Sleep(time.Minute)
				if got := st.String(); got != tc.want {
					t.Errorf("got %s\nwant %s", got, tc.want)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				var ce *CloseError
				switch err := <-ended; {
				case tc.want != failed && err != nil:
					t.Errorf("Run: %v", err)
				case tc.want == failed && (!errors.As(err, &ce) || ce.Code != tc.code || ce.Reason != tc.reason):
					t.Errorf("Run: %v, want close %d", err, tc.code)
				}
			})
		})
	}
}

// What happens without a close frame.
func TestWithoutCloseFrame(t *testing.T) {
	write := func(b ...byte) step {
		return upgraded(func(_ *script, c *websocket.Conn) { _, _ = c.NetConn().Write(b) })
	}
	for name, tc := range map[string]struct {
		first step
		want  string
	}{
		"reset":                {write(), "connecting connected 1s connecting connected"},
		"reset within a frame": {write(0x81, 100, 'h', 'i'), "connecting connected 1s connecting connected"},
		"reset within a head":  {write(0x82), "connecting connected 1s connecting connected"},
		"refused":              {refused, "connecting 1s connecting connected"},
		"hangs":                {hangs, "connecting 1s connecting connected"},
		"a masked frame":       {write(0x81, 0x81, 1, 2, 3, 4, 'a'), "connecting connected failed"},
		"not UTF-8":            {write(0x81, 1, 0xff), "connecting connected failed"},
		"too large":            {write(0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0), "connecting connected failed"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				srv := newScript(t, tc.first, upgraded(stays))
				s := srv.client(Options{}).WebSocket("/ws", SocketOptions{})
				st, ended := running(t, s)
				time.Sleep(20 * time.Second)
				if got := st.String(); got != tc.want {
					t.Errorf("got %s\nwant %s", got, tc.want)
				}
				s.Close()
				<-ended
				synctest.Wait()
			})
		})
	}
}

// After each answer to a handshake, the state that follows, and when.
func TestHandshakeAnswers(t *testing.T) {
	const failed = "connecting failed"
	back := func(d string) string { return "connecting " + d + " connecting connected" }
	for _, tc := range []struct {
		status int
		field  string
		want   string
	}{
		{200, "", failed},
		{204, "", failed},
		{301, "Location: /elsewhere", failed},
		{400, "", failed},
		{401, "", failed}, // this client has no token to fetch
		{403, "", failed},
		{404, "", failed},
		{408, "", failed},
		{421, "", failed},
		{426, "", failed},
		{429, "", back("1s")},
		{429, "Retry-After: 7", back("8s")}, // and the whole of a second's jitter
		{500, "", back("1s")},
		{502, "", back("1s")},
		{503, "", back("1s")},
		{503, "Retry-After: 0", back("1s")},
		{503, "Retry-After: 120", back("2m1s")},
		{503, "Retry-After: 86400", back("5m1s")}, // bounded
		{503, "Retry-After: 99999999999999999999", back("5m1s")},
		{503, "Retry-After: -5", back("1s")},
		{503, "Retry-After: soon", back("1s")},
		{503, "Retry-After: Sat, 01 Jan 2000 00:00:30 GMT", back("31s")}, // a bubble's time begins at 00:00:00
		{503, "Retry-After: Fri, 31 Dec 1999 00:00:00 GMT", back("1s")},
		{504, "", back("1s")},
	} {
		t.Run(fmt.Sprint(tc.status, tc.field), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				first := answers(tc.status)
				if tc.field != "" {
					first = answers(tc.status, tc.field)
				}
				srv := newScript(t, first, upgraded(stays))
				s := srv.client(Options{}).WebSocket("/ws", SocketOptions{})
				st, ended := running(t, s)
				time.Sleep(10 * time.Minute)
				if got := st.String(); got != tc.want {
					t.Errorf("got %s\nwant %s", got, tc.want)
				}
				s.Close()
				he, ok := errors.AsType[*HandshakeError](<-ended)
				if tc.want == failed && (!ok || he.Status != tc.status) {
					t.Errorf("Run gave %v, want the answer's status", he)
				}
			})
		})
	}
}

// The window doubles up to its bound; ten tries are all there are, unless options say otherwise.
func TestBackoffGrowsAndEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		srv := newScript(t, refused)
		s := srv.client(Options{}).WebSocket("/ws", SocketOptions{})
		st, ended := running(t, s)
		err := <-ended
		if !errors.Is(err, ErrGaveUp) || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Run: %v", err)
		}
		const want = "connecting 1s connecting 2s connecting 4s connecting 8s connecting 16s connecting 30s connecting 30s connecting 30s connecting 30s connecting failed"
		if got := st.String(); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	})
	bubble(t, func(t *testing.T) {
		srv := newScript(t, refused)
		s := srv.client(Options{}).WebSocket("/ws", SocketOptions{Backoff: Backoff{Base: 100 * time.Millisecond, Max: time.Second, Tries: -1}})
		_, ended := running(t, s)
		time.Sleep(time.Hour)
		if s.State() == Failed || len(srv.tries) < 3600 {
			t.Errorf("%v after %d tries, want no end", s.State(), len(srv.tries))
		}
		s.Close()
		<-ended
	})
}

// A connection that lasts begins the count again, one that does not does not.
func TestHealthyConnectionBeginsAgain(t *testing.T) {
	for _, tc := range []struct {
		last time.Duration
		want string
	}{
		{time.Minute, "connecting 1s connecting 2s connecting connected 1s connecting connected"},
		{time.Second, "connecting 1s connecting 2s connecting connected 4s connecting connected"},
	} {
		bubble(t, func(t *testing.T) {
			srv := newScript(t, refused, refused, closes(1012, "", tc.last), upgraded(stays))
			s := srv.client(Options{}).WebSocket("/ws", SocketOptions{})
			st, ended := running(t, s)
			time.Sleep(2 * time.Minute)
			if got := st.String(); got != tc.want {
				t.Errorf("after %v: got %s\nwant %s", tc.last, got, tc.want)
			}
			s.Close()
			<-ended
		})
	}
}

// With Again, 1000 is a close like others.
func TestAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		srv := newScript(t, closes(1000, "", 0), upgraded(stays))
		s := srv.client(Options{}).WebSocket("/ws", SocketOptions{Again: true})
		st, ended := running(t, s)
		time.Sleep(time.Minute)
		if got := st.String(); got != "connecting connected 1s connecting connected" {
			t.Error(got)
		}
		s.Close()
		<-ended
	})
}
