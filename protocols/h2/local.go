package h2

import (
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// Server is an HTTP/2 server in this process, as the listener that it accepts
// the switch's connections from: grpc.Server.Serve and http.Server.Serve take
// it. They read plaintext HTTP/2; what the client's connection really is, the
// connections say (Facts).
type Server struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once

	calls, batches, pings bool
}

// ServerOptions say what a server wants to know.
type ServerOptions struct {
	// Calls makes the switch begin a [protocols.Call] for each stream, and
	// tell the server by a header field which one is which (StreamField).
	Calls bool
	// Batches says that the server writes at once what belongs together, as
	// grpc-go does. What others write, net/http for one, waits for a moment, so
	// that one system call takes it all to the client.
	Batches bool
	// Pings hands the client's PINGs on: for a server that enforces a policy on them.
	Pings bool
}

// NewServer returns a server that calls itself addr.
func NewServer(addr net.Addr, opts ServerOptions) *Server {
	return &Server{addr: addr, conns: make(chan net.Conn), done: make(chan struct{}), calls: opts.Calls, batches: opts.Batches, pings: opts.Pings}
}

// Accept waits for the next connection.
func (s *Server) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept. Streams for a closed server are answered with 503, or UNAVAILABLE.
func (s *Server) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// Addr is the address the server was given.
func (s *Server) Addr() net.Addr { return s.addr }

func (s *Server) isClosed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *Server) deliver(c *pipe) bool {
	select {
	case s.conns <- c:
		return true
	case <-s.done:
	case <-c.gone:
	}
	return false
}

// pipe is the server's end of a back: what it reads is what the switch has
// appended, and what it writes is switched by whoever writes it.
type pipe struct {
	b      *back
	local  *localAddr
	remote net.Addr
	gone   chan struct{} // closed when the connection is

	mu       sync.Mutex // guards all below; taken after the client's
	come     sync.Cond  // on mu: there is something to read, or nothing will come
	in       []byte     // to be read, after cur
	cur      []byte     // to be read, by one reader at a time
	buf      []byte     // what cur is a part of
	ended    bool
	deadline time.Time
	timer    *time.Timer
}

func newPipe(b *back) *pipe {
	p := &pipe{b: b, remote: b.c.nc.RemoteAddr(), gone: make(chan struct{})}
	p.local = &localAddr{b.c.nc.LocalAddr(), b}
	p.come.L = &p.mu
	return p
}

// put makes out readable, and returns an empty buffer for what comes next.
func (p *pipe) put(out []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return out[:0]
	}
	if len(p.in) == 0 {
		p.in, out = out, p.in[:0]
	} else {
		p.in, out = append(p.in, out...), out[:0]
	}
	p.come.Signal()
	return out
}

// waiting is how much the server has not read.
func (p *pipe) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.in) + len(p.cur)
}

// Read reads what the switch has for the server.
func (p *pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.cur) == 0 {
		if len(p.in) > 0 {
			p.buf = p.buf[:0]
			p.cur, p.in, p.buf = p.in, p.buf, p.in
			break
		}
		if p.ended {
			return 0, io.EOF
		}
		if !p.deadline.IsZero() && !time.Now().Before(p.deadline) {
			return 0, os.ErrDeadlineExceeded
		}
		p.come.Wait()
	}
	n := copy(b, p.cur)
	p.cur = p.cur[n:]
	return n, nil
}

// Write switches what the server sends, and writes it to the client unless
// somebody else does. It waits while a client does not read; how long that
// may take is the switch's business, and write deadlines are none.
func (p *pipe) Write(b []byte) (int, error) {
	c := p.b.c
	c.mu.Lock()
	for len(c.out) > highWater && c.err == nil && !p.b.dead {
		c.drained.Wait()
	}
	if p.b.dead || c.err != nil {
		c.mu.Unlock()
		return 0, net.ErrClosed
	}
	err := p.b.take(b)
	if err != nil {
		p.b.failLocked()
		c.sw.log.Error("a server in this process broke the protocol", "server", p.b.server.addr, "err", err)
	}
	if len(p.b.out) > p.b.acks {
		p.b.publish()
	}
	c.unlock()
	if p.b.server.batches {
		c.flush()
	} else {
		c.kickLater()
	}
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close is called by the server.
func (p *pipe) Close() error {
	c := p.b.c
	c.mu.Lock()
	p.b.failLocked()
	c.unlock()
	c.kickLater()
	return nil
}

// end ends the pipe from the switch's side.
func (p *pipe) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	p.ended = true
	close(p.gone)
	if p.timer != nil {
		p.timer.Stop()
	}
	p.come.Broadcast()
}

// Facts is what is known of the client's connection.
func (p *pipe) Facts() *protocols.Conn { return p.b.c.facts }

// LocalAddr is where the client connected to. It also finds calls.
func (p *pipe) LocalAddr() net.Addr { return p.local }

// RemoteAddr is the client.
func (p *pipe) RemoteAddr() net.Addr { return p.remote }

// SetDeadline sets the read deadline.
func (p *pipe) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetReadDeadline ends reads that wait beyond t.
func (p *pipe) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return net.ErrClosed
	}
	p.deadline = t
	if p.timer != nil {
		p.timer.Stop()
	}
	left := time.Until(t)
	if left <= 0 { // or there is none
		p.come.Broadcast()
		return nil
	}
	wake := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.come.Broadcast()
	}
	if p.timer == nil {
		p.timer = time.AfterFunc(left, wake)
	} else {
		p.timer.Reset(left)
	}
	return nil
}

// SetWriteDeadline does nothing: see Write.
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }

// localAddr is a connection's local address, which servers hand to their
// handlers, and with it the way to what the switch knows.
type localAddr struct {
	net.Addr
	b *back
}

// Facts is what is known of the client's connection.
func (a *localAddr) Facts() *protocols.Conn { return a.b.c.facts }

// TakeCall returns the call of the stream that a StreamField names; nil the
// second time.
func (a *localAddr) TakeCall(stream string) *protocols.Call {
	id, err := strconv.ParseUint(stream, 10, 32)
	if err != nil {
		return nil
	}
	a.b.c.mu.Lock()
	defer a.b.c.mu.Unlock()
	return a.b.takeCall(uint32(id))
}
