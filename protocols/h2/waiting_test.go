package h2

import (
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// A client that leaves its connection's window shut, opens streams and resets
// them leaves nothing behind.
func TestResetStreamsDoNotWait(t *testing.T) {
	server := NewServer(&net.TCPAddr{}, ServerOptions{})
	defer server.Close()
	sw := New(Config{Route: func(*Request, *protocols.Conn) Backend { return server }})
	defer sw.Close()
	here, there := net.Pipe()
	defer here.Close()
	sw.Serve(there)
	go io.Copy(io.Discard, here)
	send := func(nc net.Conn, b []byte) {
		t.Helper()
		if _, err := nc.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	send(here, frame.AppendSettings([]byte(frame.Preface)))
	k := newLink(&Limits{}, 0, false)
	var back net.Conn
	const rounds = 5000
	for id := uint32(1); id < 2*rounds; id += 2 {
		k.out = k.out[:0]
		k.head(id, getFields(), true, 0)
		send(here, k.out)
		if back == nil {
			var err error
			if back, err = server.Accept(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(back, make([]byte, len(frame.Preface))); err != nil {
				t.Fatal(err)
			}
			send(back, frame.AppendSettings(nil))
		}
		for h := (frame.Header{}); h.Type != frame.Headers || h.Stream != id; {
			head := make([]byte, frame.HeaderLen)
			if _, err := io.ReadFull(back, head); err != nil {
				t.Fatal(err)
			}
			h = frame.Parse(head)
			if _, err := io.ReadFull(back, make([]byte, h.Length)); err != nil {
				t.Fatal(err)
			}
		}
		enc := newLink(&Limits{}, 0, false)
		enc.enc.SetTableSize(0)
		enc.head(id, []hpack.HeaderField{{Name: ":status", Value: "200"}}, false, 0)
		send(back, frame.AppendData(enc.out, id, make([]byte, frame.MaxLen), true))
		send(here, frame.AppendReset(nil, id, frame.Cancel))
	}
	sw.mu.Lock()
	defer sw.mu.Unlock()
	for c := range sw.clients {
		c.mu.Lock()
		if n := len(c.halves); n > 2*c.sw.limits.Streams {
			t.Errorf("%d halves wait for the connection's window, of %d streams", n, len(c.streams))
		}
		if c.err != nil {
			t.Errorf("the connection has ended: %v", c.err)
		}
		c.mu.Unlock()
	}
	if len(sw.clients) != 1 {
		t.Error("the connection has ended")
	}
}
