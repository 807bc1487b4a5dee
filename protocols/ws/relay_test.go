package ws

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// between starts a tunnel whose handshakes are done, and returns its ends.
func between(s *Server) (client, upstream net.Conn) {
	client, c := net.Pipe()
	upstream, u := net.Pipe()
	t := &tunnel{server: s, client: c, up: u}
	s.admit()
	s.tunnels.Add(1)
	s.add(t)
	go t.run(nil)
	return client, upstream
}

// drained drains s and checks how long that takes and what the tunnel's code is.
func drained(t *testing.T, s *Server, code int, most time.Duration) <-chan struct{} {
	t.Helper()
	done := make(chan struct{})
	start := time.Now()
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := s.Drain(ctx, 0)
		if took := time.Since(start); err != nil || took > most {
			t.Errorf("drain: %v after %v, want at most %v", err, took, most)
		}
		if st := s.Stats(); st.Closed[code] != 1 || st.Tunnels != 0 {
			t.Errorf("closed: %v, want %d; %d tunnels are left", st.Closed, code, st.Tunnels)
		}
	}()
	synctest.Wait()
	return done
}

func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

// The close frame waits for the frame on its way to end, and nothing follows it.
func TestTunnelDrainAtBoundary(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		client, up := between(s)
		go io.WriteString(up, "\x82\x06abc")
		expect(t, client, "\x82\x06abc")
		done := drained(t, s, CloseGoingAway, time.Second)
		go io.WriteString(up, "def\x81\x03not\x81\x04this")
		expect(t, client, "def"+goingAway)
		go io.WriteString(client, "\x88\x80....")
		expect(t, up, "\x88\x80....")
		up.Close()
		if got, err := io.ReadAll(client); len(got) != 0 || err != nil {
			t.Errorf("behind the close frame: %q, %v", got, err)
		}
		<-done
	})
}

// goingAway is the close frame of a drain.
const goingAway = "\x88\x16\x03\xe9server is going away"

// A frame that does not end holds up no drain.
func TestTunnelDrainWithinFrame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		client, up := between(s)
		go io.WriteString(up, "\x82\x06abc")
		expect(t, client, "\x82\x06abc")
		<-drained(t, s, CloseAbnormal, boundaryWait)
	})
}

// Nor does a client that does not read, nor one that does not answer.
func TestTunnelDrainSilentClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		between(s)
		<-drained(t, s, CloseAbnormal, closeWait)

		s = NewServer(nil)
		client, _ := between(s)
		done := drained(t, s, CloseGoingAway, closeWait)
		expect(t, client, goingAway)
		<-done
	})
}

// A session that the upstream has closed gets no second close frame.
func TestTunnelDrainAfterClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		client, up := between(s)
		go io.WriteString(up, "\x88\x02\x03\xf3")
		expect(t, client, "\x88\x02\x03\xf3")
		done := drained(t, s, CloseInternal, closeWait)
		if got, err := io.ReadAll(client); len(got) != 0 || err != nil {
			t.Errorf("behind the close frame: %q, %v", got, err)
		}
		<-done
	})
}

// A client that ended its side does not keep the upstream for ever.
func TestTunnelLingers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		c, u := newHalf(), newHalf()
		tn := &tunnel{server: s, client: c, up: u}
		s.admit()
		s.tunnels.Add(1)
		s.add(tn)
		start := time.Now()
		c.end() // the upstream does not mind
		tn.run(nil)
		if took := time.Since(start); took != lingerWait {
			t.Errorf("ended after %v, want %v", took, lingerWait)
		}
	})
}

// half is a silent connection that can be half-closed.
type half struct {
	net.Conn
	peer net.Conn
}

func newHalf() half {
	a, b := net.Pipe()
	return half{a, b}
}

func (h half) end()              { h.peer.Close() }
func (h half) CloseWrite() error { return nil }
