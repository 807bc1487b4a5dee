package h2

import (
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
)

// socket is a connection to a peer, and how it is written to.
type socket struct {
	link
	nc    net.Conn
	keep  keeper         // lets writes not wait; nil if nc cannot
	owner owner          // of all of it
	work  sync.WaitGroup // writers, and what else the owner starts
	wrote atomic.Uint64  // pieces written so far

	mu      sync.Mutex // guards the link, all below, and what the owner says
	spare   []byte     // the buffer that out takes turns with
	taken   int        // bytes of out that are being written
	writing bool       // somebody writes
	err     error      // the connection is over
}

// owner is a client or a trunk.
type owner interface {
	// written takes note that bytes have left; err is not nil if none ever
	// will again. The socket is locked.
	written(err error)
	// unlock frees the socket's lock, and does what had to wait for that.
	unlock()
}

// keeper is a socket whose writes need not wait (nbio).
type keeper interface {
	Keep() bool // from now on; false if it cannot
	Kept() bool
	Flush() error
}

// attach takes the connection.
func (k *socket) attach(nc net.Conn, o owner) {
	k.nc, k.owner = nc, o
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	if kp, ok := nc.(keeper); ok && kp.Keep() {
		k.keep = kp
	}
}

// beginLocked reports whether there is something to be written, by the caller:
// it must call write then.
func (k *socket) beginLocked() bool {
	if k.writing || len(k.out) == 0 || k.err != nil {
		return false
	}
	k.writing = true
	return true
}

// flush writes what is to be written, unless somebody else does. It waits for
// the peer.
func (k *socket) flush() {
	k.mu.Lock()
	begin := k.beginLocked()
	k.mu.Unlock()
	if begin {
		k.write(true)
	}
}

// kick does the same without waiting.
func (k *socket) kick() {
	k.mu.Lock()
	begin := k.beginLocked()
	k.mu.Unlock()
	switch {
	case !begin:
	case k.keep != nil:
		k.write(false)
	default:
		k.later(func() { k.write(true) })
	}
}

// kickLater leaves it all to a goroutine, which lets whoever is about to
// append something come first.
func (k *socket) kickLater() {
	k.mu.Lock()
	begin := k.beginLocked()
	k.mu.Unlock()
	if begin {
		k.later(func() {
			runtime.Gosched()
			k.write(true)
		})
	}
}

// write writes until there is nothing more. Before, beginLocked was true. What
// is appended meanwhile leaves with the next write. Without wait, which takes a
// keeper, a goroutine does what would have to wait.
func (k *socket) write(wait bool) {
	for more := true; more; {
		k.mu.Lock()
		if k.err != nil || len(k.out) == 0 {
			k.done(nil, k.err)
			return
		}
		p := k.out
		k.out, k.spare, k.taken = k.spare[:0], nil, len(p)
		k.mu.Unlock()
		var err error
		if wait {
			err = k.writePieces(p)
		} else {
			var n int
			n, err = k.nc.Write(p[:min(len(p), piece)])
			k.wrote.Add(1)
			if err == nil && (n < len(p) || k.keep.Kept()) {
				k.later(func() { k.rest(p, n) })
				return
			}
		}
		k.mu.Lock()
		more = k.done(p, err)
	}
}

// later has a goroutine go on with the writing, unless the connection is over.
func (k *socket) later(f func()) {
	k.mu.Lock()
	if k.err != nil {
		k.done(nil, k.err)
		return
	}
	k.work.Add(1)
	k.mu.Unlock()
	go func() {
		defer k.work.Done()
		f()
	}()
}

// rest writes what is left of p when n bytes were taken, and goes on.
func (k *socket) rest(p []byte, n int) {
	err := k.keep.Flush()
	if err == nil {
		k.wrote.Add(1)
		err = k.writePieces(p[n:])
	}
	k.mu.Lock()
	if k.done(p, err) {
		k.write(true)
	}
}

// done takes note that p was written, and unlocks the socket. It reports
// whether there is more.
func (k *socket) done(p []byte, err error) (more bool) {
	if cap(p) <= highWater { // not grown for once
		k.spare = p[:0]
	}
	k.taken = 0
	k.owner.written(err)
	more = len(k.out) > 0 && k.err == nil
	k.writing = more
	k.owner.unlock()
	return more
}

// piece is what a peer must take within Limits.Write.
const piece = 64 << 10

func (k *socket) writePieces(p []byte) error {
	for len(p) > 0 {
		n, err := k.nc.Write(p[:min(len(p), piece)])
		if err == nil && k.keep != nil {
			err = k.keep.Flush()
		}
		k.wrote.Add(1)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}
