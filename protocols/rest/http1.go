package rest

import (
	"crypto/tls"
	"net"
	"os"
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// http1Listener gives net/http the HTTP/1 connections among those of ln as
// http1Conns. HTTP/2 needs the *tls.Conn itself (net/http, server.go).
type http1Listener struct{ net.Listener }

func (l http1Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tc, ok := c.(*tls.Conn); ok {
		if t := track(c); t != nil && t.Facts().Kind == protocols.KindHTTP1 {
			return &http1Conn{Conn: tc, tracked: t}, nil
		}
	}
	return c, err
}

// patience is how long a handler runs before its client is watched.
const patience = 20 * time.Millisecond

// http1Conn makes the watch over the client cheap that net/http keeps while a
// handler runs: a goroutine that reads one byte, to learn of a client that
// leaves, and that is called off when the handler returns. Most handlers return
// at once, and this read, which never finds anything, costs as much as
// everything else that a port adds. So it only begins after a while.
type http1Conn struct {
	*tls.Conn
	tracked

	mu      sync.Mutex // guards the fields below
	changed sync.Cond  // on mu: waits became false
	waits   bool       // the watch waits until patience has passed
	off     bool       // it was called off: the read deadline is in the past
	timer   *time.Timer
}

// ConnectionState is the state of the handshake that has been done.
func (c *http1Conn) ConnectionState() tls.ConnectionState { return *c.Facts().TLS }

// Read reads one byte for the watch (net/http, connReader.backgroundRead), and
// more for everything else.
func (c *http1Conn) Read(p []byte) (int, error) {
	if len(p) == 1 && !c.wait() {
		return 0, os.ErrDeadlineExceeded
	}
	return c.Conn.Read(p)
}

// wait waits until the watch may begin, and reports false when it was called off.
func (c *http1Conn) wait() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off {
		return false // the handler was faster than this goroutine
	}
	c.waits = true
	if c.timer == nil {
		c.changed.L = &c.mu
		c.timer = time.AfterFunc(patience, c.begin)
	} else {
		c.timer.Reset(patience)
	}
	for c.waits && !c.off {
		c.changed.Wait()
	}
	c.waits = false
	c.timer.Stop()
	return !c.off
}

// begin ends the wait when patience has passed.
func (c *http1Conn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waits {
		c.waits = false
		c.changed.Signal()
	}
}

// SetReadDeadline calls the watch off with a deadline in the past, as net/http does.
func (c *http1Conn) SetReadDeadline(t time.Time) error {
	off := !t.IsZero() && t.Before(c.Facts().Accepted)
	c.mu.Lock()
	if c.off = off; off && c.waits {
		c.changed.Signal()
	}
	c.mu.Unlock()
	return c.tracked.SetReadDeadline(t)
}

// SetWriteDeadline goes past crypto/tls, which would only hand it on.
func (c *http1Conn) SetWriteDeadline(t time.Time) error { return c.tracked.SetWriteDeadline(t) }
