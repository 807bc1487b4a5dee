package ws_test

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols/ws"
)

// keeping is a pipe whose writes need not wait once Keep was called, as a socket's: all that
// is written is kept for Flush.
type keeping struct {
	net.Conn
	gate chan struct{} // Write waits for it; nil for none

	mu   sync.Mutex
	on   bool
	kept []byte
}

func (k *keeping) Keep() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.on = true
	return true
}

func (k *keeping) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.on {
		return k.Conn.Write(p)
	}
	if k.gate != nil {
		<-k.gate
	}
	k.kept = append(k.kept, p...)
	return len(p), nil
}

func (k *keeping) Kept() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.kept) > 0
}

func (k *keeping) Flush() error {
	for {
		k.mu.Lock()
		p := k.kept
		k.kept = nil
		k.mu.Unlock()
		if len(p) == 0 {
			return nil
		}
		if _, err := k.Conn.Write(p); err != nil {
			return err
		}
	}
}

// keep opens a session over such a pipe.
func (e *endpoint) keep(t *testing.T, gate chan struct{}) (net.Conn, *bufio.Reader) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close() })
	e.queue.conns <- &keeping{Conn: b, gate: gate}
	go a.Write([]byte("GET / HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
	br := bufio.NewReader(a)
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", err, res)
	}
	return a, br
}

func wantFrame(t *testing.T, br *bufio.Reader, b0 byte, payload string) {
	t.Helper()
	got, p, err := readFrame(br)
	if err != nil || got != b0 || string(p) != payload {
		t.Fatalf("frame %#x of %d bytes, %v, want %#x of %d", got, len(p), err, b0, len(payload))
	}
}

// The last piece of a large message may look like a close frame: it is none.
func TestLargeMessageIsNoClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := strings.Repeat("x", 4<<10+16<<10+50)
		e := serve(t, ws.Options{}, func(ctx context.Context, c *ws.Conn) error {
			if err := c.Write(ws.Text, []byte(large)); err != nil {
				return err
			}
			if err := c.Write(ws.Text, []byte("next")); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		c, br := e.raw(t, "", nil)
		wantFrame(t, br, 0x81, large)
		wantFrame(t, br, 0x81, "next")
		_ = c.Close()
	})
}

// A peer that is found slow before its turn came gets one close frame, and nothing behind it.
func TestSlowIsClosedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns := make(chan *ws.Conn, 1)
		e := serve(t, ws.Options{}, func(ctx context.Context, c *ws.Conn) error {
			c.CloseRead()
			conns <- c
			<-ctx.Done()
			return nil
		})
		gate := make(chan struct{})
		ahead, _ := e.keep(t, gate)
		first := <-conns
		slow, br := e.keep(t, nil)
		second := <-conns
		_ = first.Send(ws.Text, []byte("the worker is busy"))
		synctest.Wait()
		_ = second.Send(ws.Text, []byte("waits for the worker"))
		second.CloseSlow()
		close(gate)

		b0, p, err := readFrame(br)
		if err != nil || b0 != 0x88 || !bytes.HasPrefix(p, []byte{0x03, 0xf5}) {
			t.Fatalf("frame %#x %q, %v, want a close with 1013", b0, p, err)
		}
		go slow.Write(frame(0x88, []byte{0x03, 0xf5}))
		if b0, p, err := readFrame(br); err == nil {
			t.Errorf("frame %#x %q behind the close frame", b0, p)
		}
		_ = ahead.Close()
	})
}

// A pong has a second, but not what waits before it.
func TestPongLeavesTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := serve(t, ws.Options{WriteTimeout: 10 * time.Second}, func(_ context.Context, c *ws.Conn) error {
			_ = c.Send(ws.Text, []byte("hello"))
			_, _, err := c.Read()
			return err
		})
		c, br := e.keep(t, nil)
		synctest.Wait()
		_, _ = c.Write(frame(0x89, []byte("p")))
		time.Sleep(5 * time.Second)
		wantFrame(t, br, 0x81, "hello")
		wantFrame(t, br, 0x8a, "p")
		_ = c.Close()
	})
}

// A ping that the peer does not take ends the session: it is gone, or half of it, and what
// comes next would be read as its rest.
func TestPingThatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns := make(chan *ws.Conn, 1)
		opts := ws.Options{WriteTimeout: 2 * time.Second, PingEvery: time.Second, PongWait: 2 * time.Second}
		e := serve(t, opts, func(_ context.Context, c *ws.Conn) error {
			conns <- c
			_, _, err := c.Read()
			return err
		})
		_, br := e.keep(t, nil)
		s := <-conns
		time.Sleep(4 * time.Second) // it is pinged at 1 s; at 5 s it would be found dead
		_ = s.Send(ws.Text, []byte("behind a gap"))
		if b0, p, err := readFrame(br); err == nil {
			t.Errorf("frame %#x %q behind a ping that was lost", b0, p)
		}
	})
}

// Pings of a peer that reads nothing do not put off its end.
func TestPongsDoNotMoveTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan time.Time, 1)
		e := serve(t, ws.Options{WriteTimeout: time.Second}, func(_ context.Context, c *ws.Conn) error {
			_ = c.Send(ws.Text, []byte("hello"))
			_, _, err := c.Read()
			ended <- time.Now()
			return err
		})
		c, _ := e.keep(t, nil)
		start := time.Now()
		go func() {
			for range 20 {
				time.Sleep(300 * time.Millisecond)
				_, _ = c.Write(frame(0x89, nil))
			}
		}()
		if d := (<-ended).Sub(start); d > 1500*time.Millisecond {
			t.Errorf("it has ended after %v, want about 1 s", d)
		}
		_ = c.Close()
		time.Sleep(10 * time.Second)
	})
}

// Who writes waits for the peer, also while a pong that the peer has asked for waits for it:
// short messages are not left in the socket's buffer, compressed or not.
func TestShortMessageWaitsBehindAPong(t *testing.T) {
	for name, compress := range map[string]bool{"plain": false, "compressed": true} {
		t.Run(name, func(t *testing.T) {
			var wrote atomic.Int64
			e := serve(t, ws.Options{Compression: compress}, func(ctx context.Context, c *ws.Conn) error {
				c.CloseRead()
				time.Sleep(20 * time.Millisecond) // the pong comes to wait first, or there would be nothing to see
				for range 1000 {
					if err := c.Write(ws.Text, []byte("short")); err != nil {
						return err
					}
					wrote.Add(1)
				}
				<-ctx.Done()
				return nil
			})
			c, _ := e.keep(t, nil)
			_, _ = c.Write(frame(0x89, []byte("p"))) // and reads nothing
			time.Sleep(100 * time.Millisecond)       // whoever does not wait has time to write
			if n := wrote.Load(); n > 0 {
				t.Errorf("%d messages were written that the peer has not taken", n)
			}
			_ = c.Close()
		})
	}
}
