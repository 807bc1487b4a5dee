package nbio

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
)

// Keeper stands before a socket's Write, which so never waits. The zero value
// has no socket: see [Keeper.Init]. It is safe for concurrent use.
type Keeper struct {
	raw syscall.RawConn

	mu    sync.Mutex // guards all below; not held while anything waits
	busy  bool       // Flush is writing: what comes must wait behind it
	kept  []byte
	spare []byte
}

// Init names the socket. It reports false if writes to it cannot but wait.
func (k *Keeper) Init(nc net.Conn) bool {
	sc, ok := nc.(syscall.Conn)
	if !ok || !supported {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	k.raw = raw
	return true
}

// ErrTooMuch is returned by a Write that would make a Keeper keep more than 1 MiB:
// nobody calls Flush.
var ErrTooMuch = errors.New("nbio: too much is kept")

const most = 1 << 20

// Write takes p: what the socket does not take at once waits for Flush.
func (k *Keeper) Write(p []byte) (n int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.busy && len(k.kept) == 0 {
		if n, err = try(k.raw, p); n == len(p) || err != nil {
			return n, err
		}
	}
	if len(k.kept)+len(p)-n > most {
		return n, ErrTooMuch
	}
	k.kept = append(k.kept, p[n:]...)
	return len(p), nil
}

// Kept reports whether something waits for Flush.
func (k *Keeper) Kept() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.kept) > 0
}

// Flush hands what is kept to write, which may wait, until nothing is. One
// Flush runs at a time.
func (k *Keeper) Flush(write func([]byte) (int, error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.kept) > 0 {
		p := k.kept
		k.kept, k.busy = k.spare[:0], true
		k.mu.Unlock()
		_, err := write(p)
		k.mu.Lock()
		k.busy = false
		if k.spare = p[:0]; cap(p) > mostSpare {
			k.spare = nil
		}
		if err != nil {
			k.kept = nil
			return err
		}
	}
	k.kept, k.spare = nil, nil // it is needed rarely
	return nil
}

// mostSpare bounds the buffer that Flush holds on to between two writes.
const mostSpare = 64 << 10

// errNoSocket is returned by a Keeper without a socket.
var errNoSocket = errors.New("nbio: no socket")

// try writes once, without waiting.
func try(raw syscall.RawConn, p []byte) (n int, err error) {
	if raw == nil {
		return 0, errNoSocket
	}
	a := attempts.Get().(*attempt) //nolint:forcetypeassert // the pool has nothing else
	a.p = p
	failed := raw.Write(a.run)
	n, err = a.n, a.err
	a.p, a.n, a.err = nil, 0, nil
	attempts.Put(a)
	if errors.Is(failed, os.ErrDeadlineExceeded) {
		return 0, nil // whoever waits finds out whether anybody still wants that deadline
	}
	return n, errors.Join(failed, err)
}

// attempt is one write. Its function is made once: one for each write would be
// garbage.
type attempt struct {
	p   []byte
	n   int
	err error
	run func(fd uintptr) bool
}

var attempts = sync.Pool{New: func() any {
	a := new(attempt)
	a.run = func(fd uintptr) bool {
		a.n, a.err = write(fd, a.p)
		return true
	}
	return a
}}

// Conn is a net.Conn whose Write does not wait.
type Conn struct {
	net.Conn

	keeper Keeper
}

// Wrap makes a connection's writes not wait; nc itself if they cannot but do.
func Wrap(nc net.Conn) net.Conn {
	c := &Conn{Conn: nc}
	if !c.keeper.Init(nc) {
		return nc
	}
	return c
}

// Write writes p, or keeps what the socket does not take.
func (c *Conn) Write(p []byte) (int, error) { return c.keeper.Write(p) }

// Keep reports true: Write does not wait.
func (c *Conn) Keep() bool { return true }

// Kept reports whether something waits for Flush.
func (c *Conn) Kept() bool { return c.keeper.Kept() }

// Flush writes what was kept. It waits for the socket.
func (c *Conn) Flush() error { return c.keeper.Flush(c.Conn.Write) }

// CloseWrite sends a FIN and leaves the reading side open.
func (c *Conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}
