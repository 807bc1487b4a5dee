package nbio

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// Keeper stands before a socket's Write, which so never waits. The zero value
// has no socket: see [Keeper.Init]. It is safe for concurrent use.
type Keeper struct {
	socket *Socket

	mu    sync.Mutex // guards all below; not held while anything waits
	busy  bool       // Flush is writing: what comes must wait behind it
	kept  []byte
	spare []byte
}

// Init names the socket. It reports false if writes to it cannot but wait.
func (k *Keeper) Init(s *Socket) bool {
	k.socket = s
	return s.raw != nil
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
		if n, err = k.socket.try(p); n == len(p) || err != nil {
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

// Conn is a connection whose socket's calls are [Socket]'s, and whose Write does not
// wait once Keep was called.
type Conn struct {
	net.Conn

	socket Socket
	keeper atomic.Pointer[Keeper]
}

// Wrap makes the system calls of a connection's socket this package's.
func Wrap(nc net.Conn) *Conn {
	c := &Conn{Conn: nc}
	c.socket.Init(nc)
	return c
}

// Read reads from the socket. It waits.
func (c *Conn) Read(p []byte) (int, error) { return c.socket.Read(p) }

// Write writes p, or, after Keep, keeps what the socket does not take.
func (c *Conn) Write(p []byte) (int, error) {
	if k := c.keeper.Load(); k != nil {
		return k.Write(p)
	}
	return c.socket.Write(p)
}

// Keep makes Write not wait: from now on what the socket does not take is kept,
// and leaves with Flush. It reports false if Write can but wait. It must not
// be called while something is written.
func (c *Conn) Keep() bool {
	k := new(Keeper)
	if !k.Init(&c.socket) {
		return false
	}
	c.keeper.Store(k)
	return true
}

// Kept reports whether something waits for Flush.
func (c *Conn) Kept() bool {
	k := c.keeper.Load()
	return k != nil && k.Kept()
}

// Flush writes what was kept. It waits for the socket.
func (c *Conn) Flush() error {
	if k := c.keeper.Load(); k != nil {
		return k.Flush(c.socket.Write)
	}
	return nil
}

// CloseWrite sends a FIN and leaves the reading side open.
func (c *Conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SyscallConn gives access to the socket, for socket options.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}
