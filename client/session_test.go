package client

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A server that has gone silent is noticed 10 s after a ping; one that says anything is not.
func TestSilence(t *testing.T) {
	silent := upgraded(func(s *script, _ *websocket.Conn) { <-s.over })
	talks := upgraded(func(_ *script, c *websocket.Conn) { // and does not answer pings
		for c.WriteMessage(websocket.TextMessage, []byte("x")) == nil {
			time.Sleep(9 * time.Second)
		}
	})
	trickles := upgraded(func(_ *script, c *websocket.Conn) { // one message of 60 bytes
		_, err := c.NetConn().Write([]byte{0x82, 60})
		for i := 0; i < 60 && err == nil; i++ {
			time.Sleep(5 * time.Second)
			_, err = c.NetConn().Write([]byte{0})
		}
		time.Sleep(time.Second)
	})
	for name, tc := range map[string]struct {
		first step
		opts  SocketOptions
		want  string
		after time.Duration // of the first connection, if it ends
	}{
		"silent":       {silent, SocketOptions{}, "connecting connected 1s connecting connected", 35 * time.Second},
		"own times":    {silent, SocketOptions{Ping: 3 * time.Second, Pong: time.Second}, "connecting connected 1s connecting connected", 4 * time.Second},
		"no pings":     {silent, SocketOptions{Ping: -1}, "connecting connected", 0},
		"answers":      {upgraded(stays), SocketOptions{}, "connecting connected", 0},
		"talks":        {talks, SocketOptions{Queue: 100}, "connecting connected", 0},
		"queue full":   {talks, SocketOptions{Queue: 1}, "connecting connected", 0}, // it is the application that does not read
		"slow message": {trickles, SocketOptions{}, "connecting connected 1s connecting connected", 301 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				srv := newScript(t, tc.first, upgraded(stays))
				s := srv.client(Options{}).WebSocket("/ws", tc.opts)
				var ended []time.Duration
				var why error
				s.OnState(func(e Event) {
					if e.State == Disconnected && !e.Final {
						ended, why = append(ended, time.Since(srv.begun)), e.Err
					}
				})
				st, done := running(t, s)
				time.Sleep(8 * time.Minute)
				if got := st.String(); got != tc.want {
					t.Errorf("got %s\nwant %s", got, tc.want)
				}
				if tc.after > 0 && (len(ended) != 1 || ended[0] != tc.after) {
					t.Errorf("ended after %v, want %v", ended, tc.after)
				}
				if name == "silent" && !errors.Is(why, ErrSilent) {
					t.Errorf("ended for %v", why)
				}
				s.Close()
				<-done
			})
		})
	}
}

// Close from each state: what is said, and how long it takes at most.
func TestClose(t *testing.T) {
	deaf := upgraded(func(s *script, _ *websocket.Conn) { <-s.over })
	for name, tc := range map[string]struct {
		first step
		want  string
		takes time.Duration
	}{
		"connected":                     {upgraded(stays), "connecting connected closing disconnected", 0},
		"connected, and no close frame": {deaf, "connecting connected closing disconnected", closeWithin},
		"connecting":                    {hangs, "connecting disconnected", 0},
		"waiting":                       {answers(503, "Retry-After: 60"), "connecting 1m1s disconnected", 0},
		"failed":                        {answers(404), "connecting failed", 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				srv := newScript(t, tc.first)
				s := srv.client(Options{}).WebSocket("/ws", SocketOptions{})
				st, ended := running(t, s)
				time.Sleep(3 * time.Second)
				begun := time.Now()
				s.Close()
				s.Close()
				if took := time.Since(begun); took != tc.takes {
					t.Errorf("took %v, want %v", took, tc.takes)
				}
				if got := st.String(); got != tc.want {
					t.Errorf("got %s, want %s", got, tc.want)
				}
				if err := <-ended; err != nil && name != "failed" {
					t.Errorf("Run: %v", err)
				}
				if name == "connected" && srv.heard() != "close 1000" {
					t.Errorf("the server heard %v", srv.heard())
				}
				if _, err := s.Read(t.Context()); err == nil {
					t.Error("Read gave no error")
				}
				if err := s.Write(t.Context(), Text, nil); err == nil {
					t.Error("Write gave no error")
				}
				if err := s.Run(t.Context()); !errors.Is(err, ErrClosed) {
					t.Errorf("a second Run gave %v", err)
				}
			})
		})
	}
	bubble(t, func(t *testing.T) { // a context's end is one too
		srv := newScript(t, upgraded(stays))
		s := srv.client(Options{}).WebSocket("/ws", SocketOptions{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Run(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(srv.begun) != time.Minute {
			t.Errorf("Run: %v after %v", err, time.Since(srv.begun))
		}
	})
	s := &Client{} // never run
	if err := s.WebSocket("/", SocketOptions{}).Close(); err != nil {
		t.Error(err)
	}
}

// Write waits for a connection as long as it may, and is done once.
func TestWriteWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		srv := newScript(t, refused, refused, upgraded(stays))
		s := srv.client(Options{}).WebSocket("/ws", SocketOptions{})
		_, ended := running(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Write(ctx, Text, []byte("too early")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write: %v", err)
		}
		if err := s.Write(t.Context(), Text, []byte("hello")); err != nil {
			t.Error(err)
		}
		if err := s.Write(t.Context(), Text, []byte("\xff")); err == nil {
			t.Error("what is not UTF-8 was sent as text")
		}
		s.Close()
		<-ended
		if got := srv.heard(); got != "hello,close 1000" {
			t.Errorf("the server heard %s", got)
		}
	})
}

// What came before the end can be read after it, and the bound holds.
func TestReadAfterTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		srv := newScript(t, upgraded(func(_ *script, c *websocket.Conn) {
			for i := range 3 {
				_ = c.WriteMessage(websocket.BinaryMessage, []byte{byte(i)})
			}
			_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4500, "enough"), time.Now().Add(time.Second))
			_, _, _ = c.ReadMessage()
		}))
		s := srv.client(Options{}).WebSocket("/ws", SocketOptions{Queue: 1})
		_, ended := running(t, s)
		for i := range 3 {
			time.Sleep(time.Minute) // the connection waits
			m, err := s.Read(t.Context())
			if err != nil || m.Kind != Binary || m.Data[0] != byte(i) {
				t.Fatalf("message %d: %v, %v", i, m, err)
			}
		}
		_, err := s.Read(t.Context())
		if ce, ok := errors.AsType[*CloseError](err); !ok || ce.Code != 4500 || ce.Reason != "enough" {
			t.Errorf("Read: %v", err)
		}
		if err := <-ended; err == nil {
			t.Error("Run: no error")
		}
	})
}

// OnConnect speaks first on each connection, and its error is a failed try.
func TestOnConnect(t *testing.T) {
	bubble(t, func(t *testing.T) {
		srv := newScript(t, upgraded(stays), upgraded(func(_ *script, c *websocket.Conn) {
			_, _, _ = c.ReadMessage()
			time.Sleep(time.Second)
		}), upgraded(stays))
		n := 0
		s := srv.client(Options{}).WebSocket("/ws", SocketOptions{OnConnect: func(_ context.Context, write func(Kind, []byte) error) error {
			if n++; n == 1 {
				return errors.New("not yet")
			}
			return write(Text, fmt.Append(nil, "subscribe ", n))
		}})
		st, ended := running(t, s)
		time.Sleep(time.Minute)
		if err := s.Write(t.Context(), Text, []byte("after it")); err != nil {
			t.Error(err)
		}
		s.Close()
		<-ended
		if got := st.String(); got != "connecting 1s connecting connected 2s connecting connected closing disconnected" {
			t.Error(got)
		}
		if got := srv.heard(); got != "close 1006,subscribe 3,after it,close 1000" {
			t.Errorf("the server heard %s", got)
		}
	})
}

// A server that takes nothing loses the connection after 10 s; who waits for their turn may go earlier.
func TestWriteToDeafServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		deaf := upgraded(func(s *script, _ *websocket.Conn) { <-s.over })
		srv := newScript(t, deaf, upgraded(stays))
		s := srv.client(Options{}).WebSocket("/ws", SocketOptions{Ping: -1})
		st, ended := running(t, s)
		time.Sleep(time.Second)
		large := make(chan error, 1)
		go func() { large <- s.Write(t.Context(), Binary, make([]byte, 1<<20)) }()
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Write(ctx, Text, []byte("hello")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the second: %v", err)
		}
		begun := time.Now()
		if err := <-large; err == nil || time.Since(begun) != 8*time.Second {
			t.Errorf("the first: %v after %v more", err, time.Since(begun))
		}
		if err := s.Write(t.Context(), Text, []byte("again")); err != nil {
			t.Error(err)
		}
		s.Close()
		<-ended
		if got := st.String(); got != "connecting connected 1s connecting connected closing disconnected" {
			t.Error(got)
		}
		if got := srv.heard(); got != "again,close 1000" {
			t.Errorf("the server heard %s", got)
		}
	})
}
