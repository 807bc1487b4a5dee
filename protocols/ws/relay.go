package ws

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws/frame"
)

const (
	// smallRead is what a direction waits with. One that fills it gets a
	// buffer of bigRead from the pool, until one is not filled: no more than
	// 36 KiB for a tunnel at any time, and 4 while it is idle. A TLS record
	// has at most 16 KiB, so larger reads would bring nothing.
	smallRead = 2 << 10
	bigRead   = 16 << 10

	// tunnelWrite bounds how long a buffer may take to write.
	tunnelWrite = 30 * time.Second
	// boundaryWait is how long a drain waits for a frame from the upstream to end.
	boundaryWait = time.Second
	// lingerWait is how long a server may go on once its client has ended.
	// Afterwards a WebSocket has nothing to say.
	lingerWait = 30 * time.Second
)

// tunnel is a session with a server elsewhere, behind the handshake. Two
// goroutines copy; one at a time writes to the client.
type tunnel struct {
	server *Server
	client net.Conn
	up     net.Conn
	call   *protocols.Call // nil outside of a port
	frames frames          // towards the client; belongs to who writes there
	sent   int64           // bytes towards the client; the same
	work   sync.WaitGroup  // the goroutine that writes our close frame
	moved  atomic.Int64    // when bytes have gone either way, on the Server's clock

	mu      sync.Mutex // guards the fields below
	writing bool       // somebody writes to the client
	silent  bool       // nothing of the upstream's goes to the client any more
	closing bool       // Close was called
	code    int        // with it
	reason  string
	said    bool        // our close frame was written
	ended   bool        // both directions have ended
	err     error       // what broke the tunnel
	broken  bool        // a direction broke, or both were cut off
	limit   *time.Timer // cuts off what does not end by itself
}

// newTunnel makes a tunnel whose handshakes are done. early is what the upstream has
// sent, and the client got, behind them.
func newTunnel(s *Server, client, up net.Conn, early []byte) *tunnel {
	t := &tunnel{server: s, client: client, up: up, sent: int64(len(early))}
	t.frames.skip(early)
	t.moved.Store(s.now())
	return t
}

// run is a tunnel from the upgrade to its end. ahead is what the client had sent
// behind its request.
func (t *tunnel) run(ahead []byte) {
	var other sync.WaitGroup
	other.Go(t.downward)
	t.upward(ahead)
	other.Wait()

	t.mu.Lock()
	t.ended = true // no close frame from now on
	if t.limit != nil {
		t.limit.Stop()
	}
	t.mu.Unlock()
	t.work.Wait()
	_ = t.client.Close()
	_ = t.up.Close()
	code, err := t.outcome()
	how := endLost
	switch {
	case t.said:
		how = endDrain
	case t.frames.closed:
		how = endClosed
	}
	t.server.endTunnel(t, code, how)
	if t.call != nil {
		t.call.Finish(protocols.Result{Status: code, Sent: t.sent, Err: err})
	}
}

// outcome is how the tunnel ended. Without a close frame it broke, as far as a
// WebSocket is concerned, even if the connections ended well.
func (t *tunnel) outcome() (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.said:
		return t.code, nil
	case t.frames.closed:
		return int(t.frames.code), nil
	}
	return CloseAbnormal, t.err
}

// upward moves what the client sends.
func (t *tunnel) upward(ahead []byte) {
	toUpstream := timed{Conn: t.up}
	var err error
	if len(ahead) > 0 {
		err = toUpstream.write(ahead)
	}
	if err == nil {
		err = pump(t.client, func(p []byte) error {
			t.moved.Store(t.server.now())
			return toUpstream.write(p)
		})
	}
	if err == nil {
		err = closeWrite(t.up)
	}
	t.over(err, lingerWait)
}

// downward moves what the upstream sends.
func (t *tunnel) downward() {
	toClient := timed{Conn: t.client}
	err := pump(t.up, func(p []byte) error { return t.deliver(&toClient, p) })
	if err == nil {
		t.mu.Lock()
		t.silent = true // our close frame would come behind the end
		t.mu.Unlock()
		t.work.Wait()
		err = closeWrite(t.client)
	}
	t.over(err, closeWait)
}

// over takes note of a direction's end: of one that broke, which breaks the
// other, or else the other has some time.
func (t *tunnel) over(err error, wait time.Duration) {
	t.mu.Lock()
	if err == nil {
		t.boundLocked(wait)
		t.mu.Unlock()
		return
	}
	if !t.broken {
		t.broken, t.err = true, err
	}
	t.mu.Unlock()
	t.abort()
}

// boundLocked cuts the tunnel off after wait, unless that is to happen already.
func (t *tunnel) boundLocked(wait time.Duration) {
	if t.limit == nil && !t.ended {
		t.limit = time.AfterFunc(wait, t.abort)
	}
}

// abort cuts the tunnel off.
func (t *tunnel) abort() {
	t.mu.Lock()
	t.broken = true
	t.mu.Unlock()
	_ = t.up.Close() // everybody who reads or writes now gets an error
	_ = t.client.Close()
}

// Close ends the tunnel with a close frame to the client, where a frame of the
// upstream's ends. Its answer goes to the upstream, like everything that it
// sends, so that both see a session that was closed.
func (t *tunnel) Close(code int, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing || t.ended {
		return
	}
	t.closing, t.code, t.reason = true, code, reason
	if t.limit != nil {
		t.limit.Stop()
	}
	t.limit = time.AfterFunc(boundaryWait, t.abort)
	if !t.writing && !t.silent && t.frames.between() {
		t.sayLocked()
	}
}

// sayLocked writes our close frame, unless the upstream has sent one.
func (t *tunnel) sayLocked() {
	t.silent = true
	t.limit.Reset(closeWait)
	if t.frames.closed {
		return
	}
	t.work.Go(func() { // a client that does not read must not hold up a drain
		w := timed{Conn: t.client}
		err := w.write(frame.Append(nil, frame.Close, frame.ClosePayload(t.code, t.reason), nil))
		t.mu.Lock()
		t.said = err == nil
		t.mu.Unlock()
	})
}

// deliver writes what the upstream has sent to the client, up to the end of a
// frame when the tunnel is closing.
func (t *tunnel) deliver(client *timed, p []byte) error {
	t.moved.Store(t.server.now())
	t.mu.Lock()
	if t.silent {
		t.mu.Unlock()
		return nil
	}
	t.writing = true
	closing := t.closing
	t.mu.Unlock()

	if closing {
		p = p[:t.frames.rest(p)]
	} else {
		t.frames.skip(p)
	}
	err := client.write(p)

	t.mu.Lock()
	defer t.mu.Unlock()
	t.writing = false
	t.sent += int64(len(p))
	if err == nil && t.closing && t.frames.between() {
		t.sayLocked()
	}
	return err
}

// timed writes with a deadline.
type timed struct {
	net.Conn
	until time.Time // the deadline that is set
}

// write writes p within tunnelWrite, more or less: a deadline that leaves most
// of that is not set anew, which would be the dearest part of a small write.
func (w *timed) write(p []byte) error {
	if now := time.Now(); w.until.Sub(now) < tunnelWrite*3/4 {
		w.until = now.Add(tunnelWrite)
		if err := w.SetWriteDeadline(w.until); err != nil {
			return err
		}
	}
	_, err := w.Write(p)
	return err
}

var bigBuffers = sync.Pool{New: func() any { return new([bigRead]byte) }}

// pump hands what src sends to write, until src ends.
func pump(src io.Reader, write func([]byte) error) error {
	small := make([]byte, smallRead)
	for {
		n, err := src.Read(small)
		if n > 0 {
			if err := write(small[:n]); err != nil {
				return err
			}
		}
		if err == nil && n == len(small) {
			err = burst(src, write)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// burst is pump with a large buffer, as long as reads fill it.
func burst(src io.Reader, write func([]byte) error) error {
	big, _ := bigBuffers.Get().(*[bigRead]byte)
	defer bigBuffers.Put(big)
	for {
		n, err := src.Read(big[:])
		if n > 0 {
			if err := write(big[:n]); err != nil {
				return err
			}
		}
		if err != nil || n < len(big) {
			return err
		}
	}
}

// closeWrite hands an end on: as a half-close where there is one.
func closeWrite(c net.Conn) error {
	if cw, ok := c.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return c.Close()
}
