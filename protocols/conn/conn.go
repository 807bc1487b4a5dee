package conn

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/nbio"
)

// ErrReadBudget is returned by Read when a connection that is not routed yet
// sends more than it may.
var ErrReadBudget = errors.New("conn: more bytes than this phase allows")

// Conn is the raw side of one client connection. It is a net.Conn with the
// concurrency guarantees of one; the methods that only the multiplexer calls
// (Learn, Routed, and those from Unread to Unmute) belong to the goroutine that brings the connection
// up, until it is routed.
type Conn struct {
	raw   net.Conn
	sock  nbio.Socket // of raw
	reg   *Registry
	facts atomic.Pointer[protocols.Conn]
	ip    netip.Addr // what it counts as in the per-IP bound; invalid if exempt

	state   atomic.Uint32
	since   atomic.Int64 // of state, in nanoseconds since the registry's epoch
	in, out atomic.Int64

	reading, writing deadline
	keeper           atomic.Pointer[nbio.Keeper] // once Keep was called

	// Set before the connection is routed and only read afterwards; the
	// hand-over through a channel orders the two.
	deadline time.Time // absolute, for everything before routing
	budget   int       // bytes that may still be read in this phase; negative once routed
	head     []byte    // read ahead, to be read again
	record   []byte    // what was read since Record, if recording
	flags    flags
	onWrite  func() // runs once, before the next write

	once    sync.Once
	onClose atomic.Pointer[func()]
	err     error
}

type flags uint8

const (
	flagRecording flags = 1 << iota
	flagMuted
)

// Facts is what is known of the connection now.
func (c *Conn) Facts() *protocols.Conn { return c.facts.Load() }

// State is where the connection stands.
func (c *Conn) State() protocols.State { return protocols.State(c.state.Load()) }

// Since is when the connection came to its state.
func (c *Conn) Since() time.Time { return c.reg.epoch.Add(time.Duration(c.since.Load())) }

// Bytes counts what was read from and written to the socket.
func (c *Conn) Bytes() (in, out int64) { return c.in.Load(), c.out.Load() }

// Step moves the connection to the next state and reports whether that step
// is legal. An illegal one changes nothing.
func (c *Conn) Step(next protocols.State) bool {
	for {
		from := protocols.State(c.state.Load())
		if !from.To(next) {
			return false
		}
		if !c.state.CompareAndSwap(uint32(from), uint32(next)) {
			continue
		}
		c.since.Store(int64(time.Since(c.reg.epoch)))
		c.reg.stepped(c, from, next)
		return true
	}
}

// Learn replaces the facts of a connection that is not routed yet.
func (c *Conn) Learn(change func(*protocols.Conn)) {
	next := *c.facts.Load()
	change(&next)
	c.facts.Store(&next)
}

// Routed ends the pre-route phase: the connection becomes next, the absolute
// deadline and the read budget fall away. It fails when the connection was
// closed meanwhile.
func (c *Conn) Routed(next protocols.State) bool {
	if !c.Step(next) {
		return false
	}
	c.deadline, c.budget, c.record = time.Time{}, -1, nil
	c.flags, c.onWrite = 0, nil
	if next == protocols.StateTunnel { // bytes will move past Read and Write
		return c.raw.SetDeadline(time.Time{}) == nil
	}
	return c.SetDeadline(time.Time{}) == nil
}

// Deadline is the absolute end of the pre-route phase; zero once routed.
func (c *Conn) Deadline() time.Time { return c.deadline }

// Read reads first what was given back by Unread, then from the socket.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		if c.head = c.head[n:]; len(c.head) == 0 {
			c.head = nil
		}
		return n, nil
	}
	if c.budget < 0 {
		return c.readRaw(p)
	}
	return c.readBounded(p)
}

// readBounded is Read before routing.
func (c *Conn) readBounded(p []byte) (int, error) {
	if c.budget == 0 {
		return 0, ErrReadBudget
	}
	n, err := c.readRaw(p[:min(len(p), c.budget)])
	c.budget -= n
	if c.flags&flagRecording != 0 {
		c.record = append(c.record, p[:n]...)
	}
	return n, err
}

// Unread gives bytes back, to be read again before any others.
func (c *Conn) Unread(p []byte) {
	if len(p) == 0 {
		return
	}
	head := make([]byte, 0, len(p)+len(c.head))
	c.head = append(append(head, p...), c.head...)
}

// Budget sets how many more bytes may be read from the socket in this phase.
func (c *Conn) Budget(n int) { c.budget = n }

// Record starts to keep what is read, Unread bytes included.
func (c *Conn) Record() {
	c.flags |= flagRecording
	c.record = append(c.record[:0], c.head...)
}

// Forget stops recording and drops the record.
func (c *Conn) Forget() {
	c.flags &^= flagRecording
	c.record = nil
}

// Replay returns what was recorded and stops recording: every byte the client
// has sent so far, so that nothing is left to be read again.
func (c *Conn) Replay() []byte {
	p := c.record
	c.head = nil
	c.Forget()
	return p
}

// OnWrite runs f once, before the next byte is written.
func (c *Conn) OnWrite(f func()) { c.onWrite = f }

// Settle runs what OnWrite registered if nothing was written since.
func (c *Conn) Settle() {
	if f := c.onWrite; f != nil {
		c.onWrite = nil
		f()
	}
}

// Mute swallows writes until Unmute: crypto/tls sends an alert when a
// callback ends its handshake, and a connection that is passed through must
// not see it.
func (c *Conn) Mute() { c.flags |= flagMuted }

// Unmute ends Mute.
func (c *Conn) Unmute() { c.flags &^= flagMuted }

// Write writes to the socket.
func (c *Conn) Write(p []byte) (int, error) {
	if c.onWrite != nil {
		c.Settle()
	}
	if c.flags&flagMuted != 0 {
		return len(p), nil
	}
	if k := c.keeper.Load(); k != nil {
		n, err := k.Write(p)
		c.out.Add(int64(n))
		return n, err
	}
	return c.writeRaw(p)
}

// Keep makes Write not wait: from now on what the socket does not take is kept,
// and leaves with Flush. It reports false if Write can but wait. It must not
// be called while something is written.
func (c *Conn) Keep() bool {
	k := new(nbio.Keeper)
	if !k.Init(&c.sock) {
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

// Flush writes what was kept. It waits for the socket, within the write deadline.
func (c *Conn) Flush() error {
	if k := c.keeper.Load(); k != nil {
		return k.Flush(c.writeKept)
	}
	return nil
}

// ReadFrom lets the kernel copy from r where it can (sendfile, splice).
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	rf, ok := c.raw.(io.ReaderFrom)
	if !ok || c.flags != 0 || c.onWrite != nil {
		return io.Copy(writerOnly{c}, r)
	}
	// What was read from r cannot be written again after waking too early.
	c.begin(&c.writing, true)
	n, err := rf.ReadFrom(r)
	c.end(&c.writing)
	c.out.Add(n)
	return n, err
}

// writerOnly hides ReadFrom from io.Copy.
type writerOnly struct{ io.Writer }

// CloseWrite sends a FIN and leaves the reading side open.
func (c *Conn) CloseWrite() error {
	if cw, ok := c.raw.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SyscallConn gives access to the socket, for socket options.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.raw.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// Raw is the socket itself, for splicing. What is read from it must be free
// of read-ahead, and whoever copies reports the bytes with Count.
func (c *Conn) Raw() net.Conn { return c.raw }

// Count adds bytes that were moved past Read and Write.
func (c *Conn) Count(in, out int64) {
	c.in.Add(in)
	c.out.Add(out)
}

// LocalAddr is the address the client connected to.
func (c *Conn) LocalAddr() net.Addr { return addr(c.facts.Load().Local, c.raw.LocalAddr()) }

// RemoteAddr is the client's address: what a trusted PROXY header says, or else the peer's.
func (c *Conn) RemoteAddr() net.Addr { return addr(c.facts.Load().Remote, c.raw.RemoteAddr()) }

func addr(ap netip.AddrPort, raw net.Addr) net.Addr {
	if !ap.IsValid() || AddrPort(raw) == ap {
		return raw
	}
	return net.TCPAddrFromAddrPort(ap)
}

// AddrPort gives the IP address and port of a; zero if it has none. IPv4
// addresses in IPv6 form are unmapped.
func AddrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case nil:
	case interface{ AddrPort() netip.AddrPort }:
		ap = a.AddrPort()
	default:
		ap, _ = netip.ParseAddrPort(a.String())
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// OnClose runs f when the connection is closed, at once if it is already. f may
// run twice. A second OnClose replaces the first.
func (c *Conn) OnClose(f func()) {
	c.onClose.Store(&f)
	if c.State() == protocols.StateClosed {
		f()
	}
}

// Close closes the socket and takes the connection out of the registry.
func (c *Conn) Close() error { return c.CloseFor(ReasonDone) }

// CloseFor closes with a reason. The first close counts.
func (c *Conn) CloseFor(why Reason) error {
	c.once.Do(func() {
		c.err = c.raw.Close()
		c.Step(protocols.StateClosed)
		if f := c.onClose.Load(); f != nil {
			(*f)()
		}
		c.reg.remove(c, why)
	})
	return c.err
}
