package conn_test

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
)

// told counts how often a socket is told a deadline.
type told struct {
	net.Conn
	n atomic.Int32
}

func (s *told) SetReadDeadline(t time.Time) error {
	s.n.Add(1)
	return s.Conn.SetReadDeadline(t)
}

func (s *told) SetWriteDeadline(t time.Time) error {
	s.n.Add(1)
	return s.Conn.SetWriteDeadline(t)
}

// routed gives a connection that is routed, its socket, and the client's end.
func routed(t *testing.T) (*conn.Conn, *told, net.Conn) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	socket := &told{Conn: a}
	c, why := conn.NewRegistry(conn.Options{}).Add(socket, conn.Origin{})
	if c == nil || !c.Routed(protocols.StateIdle) {
		t.Fatal(why)
	}
	socket.n.Store(0)
	return c, socket, b
}

var aLongTimeAgo = time.Unix(1, 0)

// Whatever happens to a deadline while a Read or a Write waits, it ends when
// the last one that was wanted passes, and never before.
func TestDeadlineWhileWaiting(t *testing.T) {
	const s = time.Second
	at := func(d time.Duration) time.Time { return time.Now().Add(d) }
	for _, tc := range []struct {
		name   string
		before func() time.Time // nil for none
		during func() time.Time // set 1 s later; nil for nothing
		want   time.Duration    // when it ends; 0 for never
	}{
		{"reached", func() time.Time { return at(5 * s) }, nil, 5 * s},
		{"set", nil, func() time.Time { return at(2 * s) }, 3 * s},
		{"brought nearer", func() time.Time { return at(9 * s) }, func() time.Time { return at(2 * s) }, 3 * s},
		{"put off", func() time.Time { return at(2 * s) }, func() time.Time { return at(9 * s) }, 10 * s},
		{"lifted", func() time.Time { return at(2 * s) }, func() time.Time { return time.Time{} }, 0},
		{"in the past", nil, func() time.Time { return aLongTimeAgo }, 1 * s},
		{"in the past before", func() time.Time { return aLongTimeAgo }, nil, 1}, // at once
		{"none, beyond the time to be routed", nil, nil, 0},
	} {
		for _, direction := range []string{"read", "write"} {
			t.Run(tc.name+"/"+direction, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, _, client := routed(t)
					set, wait := c.SetReadDeadline, c.Read
					if direction == "write" {
						set, wait = c.SetWriteDeadline, c.Write
					}
					if tc.before != nil {
						set(tc.before())
					}
					start := time.Now()
					done := make(chan error, 1)
					go func() {
						_, err := wait(make([]byte, 8))
						done <- err
					}()
					time.Sleep(s)
					if tc.during != nil {
						set(tc.during())
					}
					select {
					case err := <-done:
						if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || took != max(tc.want, s) {
							t.Errorf("%v after %v, want a timeout after %v", err, took, tc.want)
						}
					case <-time.After(time.Hour):
						if tc.want != 0 {
							t.Errorf("still waiting, want a timeout after %v", tc.want)
						}
						client.Close()
						if err := <-done; err == nil {
							t.Error("no error after the close")
						}
					}
				})
			})
		}
	}
}

// A write that wakes too early goes on where it was.
func TestWriteGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, client := routed(t)
		c.SetWriteDeadline(time.Now().Add(time.Second))
		done := make(chan error, 1)
		go func() {
			n, err := c.Write([]byte("hello, world"))
			if n != 12 {
				err = errors.Join(err, io.ErrShortWrite)
			}
			done <- err
		}()
		buf := make([]byte, 12)
		io.ReadFull(client, buf[:5])
		c.SetWriteDeadline(time.Time{})
		time.Sleep(time.Minute)
		io.ReadFull(client, buf[5:])
		if err := <-done; err != nil || string(buf) != "hello, world" {
			t.Errorf("%v, and the client has %q", err, buf)
		}
	})
}

// After a deadline has passed, the connection is of use again with another.
func TestDeadlineAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, client := routed(t)
		go func() {
			time.Sleep(time.Minute)
			client.Write([]byte("late"))
		}()
		buf := make([]byte, 8)
		for range 3 {
			c.SetReadDeadline(aLongTimeAgo)
			if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
		}
		c.SetReadDeadline(time.Time{})
		if n, err := c.Read(buf); err != nil || string(buf[:n]) != "late" {
			t.Errorf("got %q, %v", buf[:n], err)
		}
	})
}

// What a server does for each request costs the socket nothing.
func TestSocketIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, socket, client := routed(t)
		buf := make([]byte, 8)
		for range 100 {
			go client.Write([]byte("x"))
			c.SetReadDeadline(time.Now().Add(2 * time.Minute))
			if _, err := c.Read(buf); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			c.SetReadDeadline(time.Time{})
			c.SetWriteDeadline(time.Now().Add(time.Minute))
			go client.Read(make([]byte, 8))
			if _, err := c.Write([]byte("y")); err != nil {
				t.Fatal(err)
			}
			c.SetWriteDeadline(time.Time{})
		}
		if n := socket.n.Load(); n > 2 {
			t.Errorf("the socket was told %d deadlines", n)
		}
	})
}
