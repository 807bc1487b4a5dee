package h2

import (
	"errors"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/oneport-edge/oneport/protocols/h2/flow"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// Handler is a Backend that is a function: it gets streams as they are, without
// another HTTP/2 connection between. It is safe for concurrent use.
type Handler struct {
	serve func(*Exchange)
	next  chan *Exchange // for a worker that has nothing to do
	idle  atomic.Int32   // of those

	mu     sync.Mutex // guards closed; the last lock of all
	closed bool
	done   chan struct{}
	work   sync.WaitGroup
}

// NewHandler returns a handler; serve may be nil if streams go to what With returns
// alone. serve runs on a goroutine of its own for each
// stream, which its client's end waits for: once the exchange's context has ended,
// it must return. A stream that it has not answered by then is answered 502.
func NewHandler(serve func(*Exchange)) *Handler {
	return &Handler{serve: serve, next: make(chan *Exchange), done: make(chan struct{})}
}

// Close ends goroutines that are kept for the next stream, and waits for the others.
// Streams for a closed handler are answered 503.
func (h *Handler) Close() {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.done)
	}
	h.mu.Unlock()
	h.work.Wait()
}

// With is a Backend that has another function serve, on the same goroutines.
func (h *Handler) With(serve func(*Exchange)) Backend { return &otherHandler{h, serve} }

type otherHandler struct {
	h     *Handler
	serve func(*Exchange)
}

func (o *otherHandler) tells() bool                          { return true }
func (o *otherHandler) take(s *stream, r *Request, end bool) { o.h.begin(s, r, end, o.serve) }

func (h *Handler) tells() bool { return true }

func (h *Handler) take(s *stream, r *Request, end bool) { h.begin(s, r, end, h.serve) }

// begin gives a stream to a worker. Its client is locked.
func (h *Handler) begin(s *stream, r *Request, end bool, serve func(*Exchange)) {
	c := s.c
	if c.sw.held.Load() > c.sw.limits.Memory {
		s.reply(overloaded)
		return
	}
	x := newExchange(h, s, r, end)
	x.serve = serve
	s.x, s.handled, s.up.cut = x, true, false
	s.up.Allow(flow.Unlimited)            // what it takes, it reads
	if c.serving >= c.sw.limits.Streams { // functions of streams that were reset have not returned
		c.parked = append(c.parked, x)
		return
	}
	h.startLocked(x)
}

// startLocked has a worker serve a stream. Its client is locked.
func (h *Handler) startLocked(x *Exchange) {
	c := x.c
	select {
	case h.next <- x: // its stack is deep enough
	default:
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			x.s.reply(unavailable)
			return
		}
		h.work.Add(1)
		h.mu.Unlock()
		go h.worker(x)
	}
	c.serving++
	c.work.Add(1)
}

// mostWorkers is how many goroutines are kept: a new one copies its stack a few
// times before it is deep enough.
const mostWorkers = 64

func (h *Handler) worker(x *Exchange) {
	defer h.work.Done()
	for {
		x.run()
		if h.idle.Add(1) > mostWorkers {
			h.idle.Add(-1)
			return
		}
		select {
		case x = <-h.next:
			h.idle.Add(-1)
		case <-h.done:
			return
		}
	}
}

// run has the function serve the stream, and sees to it that the stream ends.
func (x *Exchange) run() {
	c := x.c
	defer c.work.Done()
	panicked := x.call()
	c.mu.Lock()
	if s := x.s; s != nil {
		switch {
		case !s.started && panicked:
			s.reply(internal)
		case !s.started:
			s.reply(broken)
		case !s.down.ended:
			s.reset(frame.InternalError, sideClient)
		case !s.up.closed:
			s.stop()
		}
		s.x, x.s = nil, nil
	}
	c.serving--
	for len(c.parked) > 0 && c.serving < c.sw.limits.Streams {
		next := c.parked[0]
		c.parked = slices.Delete(c.parked, 0, 1)
		next.handler.startLocked(next)
	}
	c.unlock()
	c.kick()
}

// call calls the function. Its panic ends its stream.
func (x *Exchange) call() (panicked bool) {
	defer func() {
		if p := recover(); p != nil {
			panicked = true
			x.c.sw.log.Error("handler panicked", "request", x.Call().RequestID(), "path", x.Call().Path, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	x.serve(x)
	return false
}

// errGone is returned by the methods of an Exchange whose stream has ended, or was
// answered by the switch.
var errGone = errors.New("h2: the stream has ended")

var internal = &refusal{http: 500, grpc: codeUnknown, text: "internal error"}
