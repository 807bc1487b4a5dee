package oneporttest

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// window is how many bytes a connection in memory holds in each direction
// before a writer waits, as a socket buffer does.
const window = 64 << 10

// Listener is a net.Listener in memory.
type Listener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	port  atomic.Uint32
}

// NewListener returns a listener that only its own Dial reaches.
func NewListener() *Listener {
	return &Listener{conns: make(chan net.Conn), done: make(chan struct{})}
}

// serverAddr is what clients dial: TEST-NET-1 (RFC 5737).
var serverAddr = net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}

// Accept waits for a connection.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Dial.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr is 192.0.2.1:443.
func (l *Listener) Addr() net.Addr { a := serverAddr; return &a }

// Dial connects from 192.0.2.2.
func (l *Listener) Dial(ctx context.Context) (net.Conn, error) {
	return l.DialFrom(ctx, net.IPv4(192, 0, 2, 2))
}

// DialFrom connects from a client address of the caller's choice.
func (l *Listener) DialFrom(ctx context.Context, ip net.IP) (net.Conn, error) {
	client := &net.TCPAddr{IP: ip, Port: 1024 + int(l.port.Add(1)%60_000)}
	up, down := newHalf(), newHalf()
	server := serverAddr
	select {
	case l.conns <- &memConn{r: up, w: down, local: &server, remote: client}:
		return &memConn{r: down, w: up, local: client, remote: &server}, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Net: "memory", Addr: &server, Err: os.ErrClosed}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// memConn is one end of a connection.
type memConn struct {
	r, w          *half
	local, remote *net.TCPAddr
}

func (c *memConn) Read(p []byte) (int, error)  { return c.r.read(p) }
func (c *memConn) Write(p []byte) (int, error) { return c.w.write(p) }
func (c *memConn) LocalAddr() net.Addr         { return c.local }
func (c *memConn) RemoteAddr() net.Addr        { return c.remote }

func (c *memConn) Close() error {
	c.w.closeWrite(true)
	c.r.closeRead()
	return nil
}

func (c *memConn) CloseWrite() error {
	c.w.closeWrite(false)
	return nil
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.r.setDeadline(&c.r.readBy, t)
	return nil
}

func (c *memConn) SetWriteDeadline(t time.Time) error {
	c.w.setDeadline(&c.w.writeBy, t)
	return nil
}

func (c *memConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// half is one direction.
type half struct {
	mu      sync.Mutex // guards the fields below
	changed sync.Cond
	buf     []byte
	ended   bool // the writer has closed: EOF behind buf
	wClosed bool // the writing end is closed for its own user, too
	rClosed bool // the reader has closed: writes fail
	readBy  deadline
	writeBy deadline
}

type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func newHalf() *half {
	h := new(half)
	h.changed.L = &h.mu
	return h
}

func (h *half) setDeadline(d *deadline, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	// One that has passed needs no timer. In a synctest bubble that would run at
	// once, on a stack that the race detector does not know and crashes on (Go
	// 1.26.8, timer.modify; seen 2026-11-24).
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.changed.Broadcast()
		})
	}
	h.changed.Broadcast()
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.rClosed:
			return 0, net.ErrClosed
		case h.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(h.buf) > 0:
			n := copy(p, h.buf)
			h.buf = h.buf[n:]
			h.changed.Broadcast()
			return n, nil
		case h.ended:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.wClosed, h.ended:
			return n, net.ErrClosed
		case h.rClosed:
			return n, io.ErrClosedPipe
		case h.writeBy.passed():
			return n, os.ErrDeadlineExceeded
		case len(p) == 0:
			return n, nil
		}
		if room := window - len(h.buf); room > 0 {
			k := min(room, len(p))
			h.buf = append(h.buf, p[:k]...)
			p, n = p[k:], n+k
			h.changed.Broadcast()
			continue
		}
		h.changed.Wait()
	}
}

func (h *half) closeWrite(whole bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	h.wClosed = h.wClosed || whole
	h.stop(&h.writeBy)
	h.changed.Broadcast()
}

func (h *half) closeRead() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rClosed = true
	h.buf = nil
	h.stop(&h.readBy)
	h.changed.Broadcast()
}

func (h *half) stop(d *deadline) {
	if d.timer != nil {
		d.timer.Stop()
	}
}
