package h2

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// Exchange is a stream as a Handler's function has it: a request and its answer.
// It is valid until the function returns. Reading and writing may go on at once,
// by a goroutine each.
type Exchange struct {
	handler *Handler
	c       *client
	of      *protocols.Call
	head    protocols.Head

	serve func(*Exchange)

	// Guarded by the client's lock.
	s        *stream   // nil once it has ended
	come     sync.Cond // something has changed
	back     []byte    // to be read again
	trailers []protocols.Field
	left     int64  // of the answer's body; -1 if nobody knows
	leave    func() // see OnLeave
	finished bool
	dropped  bool // the switch has answered in the function's place

	mu   sync.Mutex // guards the fields below; after the client's
	gone bool       // the stream has ended before its time
	done chan struct{}
}

func newExchange(h *Handler, s *stream, r *Request, end bool) *Exchange {
	x := &Exchange{handler: h, c: s.c, of: s.call, s: s}
	x.come.L = &s.c.mu
	x.head = protocols.Head{Method: r.Method, Authority: r.Authority, Path: r.Path, Length: r.length}
	if end {
		x.head.Length = 0
	}
	x.head.Fields = make([]protocols.Field, 0, len(r.Fields)+8)
	for i := range r.Fields {
		if f := &r.Fields[i]; !f.IsPseudo() {
			x.head.Fields = append(x.head.Fields, protocols.Field{Name: f.Name, Value: f.Value})
		}
	}
	return x
}

// Call is the stream's call.
func (x *Exchange) Call() *protocols.Call { return x.of }

// Context ends when the stream does before its time: when its client resets it,
// or leaves. It has the call, the connection, and what guards have added.
func (x *Exchange) Context() context.Context { return x.of.In((*exchangeContext)(x)) }

// OnLeave has f called when Context ends, at once if it has. A later f takes the place of
// an earlier one. It may be called by any goroutine, and must not wait.
func (x *Exchange) OnLeave(f func()) {
	x.c.mu.Lock()
	gone := x.s == nil
	if !gone {
		x.leave = f
	}
	x.c.mu.Unlock()
	if gone && (*exchangeContext)(x).Err() != nil {
		f()
	}
}

// Head gives the request's head.
func (x *Exchange) Head(h *protocols.Head) {
	list := h.Fields[:0]
	list = append(list, x.head.Fields...)
	*h = x.head
	h.Fields = list
}

// Read reads the request's body. It waits for the client, who may send more of it
// for what was read.
func (x *Exchange) Read(p []byte) (n int, err error) {
	c := x.c
	c.mu.Lock()
	before := len(c.out)
	for {
		if len(x.back) > 0 {
			n = copy(p, x.back)
			x.back = x.back[n:]
			break
		}
		if x.s == nil || x.s.up.cut {
			err = errGone
			break
		}
		if h := &x.s.up; len(h.queue) > 0 {
			n = h.read(p)
			break
		} else if h.ended {
			for _, f := range h.trailers {
				x.trailers = append(x.trailers, protocols.Field{Name: f.Name, Value: f.Value})
			}
			h.trailers, h.closed = nil, true
			h.over()
			err = io.EOF
			break
		}
		x.come.Wait()
	}
	kick := len(c.out) > before
	c.unlock()
	if kick {
		c.kick()
	}
	return n, err
}

// read takes what waits for a Handler's function.
func (h *half) read(p []byte) int {
	n := copy(p, h.queue)
	switch {
	case n < len(h.queue):
		h.queue = h.queue[n:]
	case cap(h.queue) <= 2*frame.MaxLen: // for what comes next
		h.queue = h.queue[:0]
	default:
		h.queue = nil
	}
	h.Send(n)
	h.from.release(n)
	h.s.c.hold(-n)
	h.regrant()
	return n
}

// Unread gives back what was read: it is read again next.
func (x *Exchange) Unread(p []byte) {
	x.c.mu.Lock()
	defer x.c.mu.Unlock()
	x.back = append(append([]byte(nil), p...), x.back...)
}

// Trailers appends the request's trailers to list, once Read has returned io.EOF.
func (x *Exchange) Trailers(list []protocols.Field) []protocols.Field {
	x.c.mu.Lock()
	defer x.c.mu.Unlock()
	return append(list, x.trailers...)
}

// StopReading ends Read, now and later. The client is told behind its answer that
// nothing more of the body is wanted.
func (x *Exchange) StopReading() {
	x.c.mu.Lock()
	if s := x.s; s != nil && !s.up.closed && !s.up.cut {
		s.stop()
	}
	x.come.Broadcast()
	x.c.unlock()
	x.c.kick()
}

// Inform sends an interim answer (1xx).
func (x *Exchange) Inform(status int, fields []protocols.Field) error {
	x.c.mu.Lock()
	s := x.s
	switch {
	case s == nil || s.started:
		x.c.unlock()
		return errGone
	case x.c.answerTooLarge(fields): // it may do without
	case len(x.c.out) < outMost: // else the client does not read
		x.c.sent()
		x.c.answer(s.id, status, fields, false)
	}
	x.c.unlock()
	x.c.kickLater()
	return nil
}

// Respond begins the answer. length is how long its body is: 0 without one, -1
// if nobody knows. Names of fields may be in any case; values must be such that
// HTTP/1.1 may have them, and there must be none of a connection.
func (x *Exchange) Respond(status int, fields []protocols.Field, length int64) error {
	x.c.mu.Lock()
	defer x.c.unlock()
	s := x.s
	if s == nil || s.started {
		return errGone
	}
	if x.c.answerTooLarge(fields) {
		s.giveUp(frame.Cancel, answerTooLarge)
		return errGone
	}
	s.started, x.left = true, length
	if s.call != nil && !s.grpc {
		s.status = status
	}
	end := length == 0 || s.bare
	if end {
		s.down.ended, s.down.closed = true, true
	}
	x.c.sent()
	x.c.answer(s.id, status, fields, end)
	if end {
		x.finished = true
		s.down.over()
	}
	return nil
}

// Write sends some of the body. It waits for credit, and for the client to read. What
// is written leaves with Flush or Finish, or when there is much of it.
func (x *Exchange) Write(p []byte) (n int, err error) {
	c := x.c
	c.mu.Lock()
	for len(p) > 0 {
		s := x.s
		if s == nil || s.down.ended || c.err != nil {
			c.unlock()
			return n, errGone
		}
		room := 0
		if len(c.out) <= lowWater && len(s.down.queue) == 0 {
			// What the connection has no credit for yet waits in the half's queue, a frame
			// at most: whose turn it is, credit finds there, and who comes by later finds none.
			room = int(min(int64(len(p)), frame.MaxLen, s.down.Room()))
		}
		if room <= 0 {
			c.hold(len(p)) // which is nobody's memory but this stream's
			x.waitLocked(s)
			c.hold(-len(p))
			continue
		}
		part := p[:room]
		p = p[room:]
		n += room
		end := false
		if x.left > 0 {
			x.left -= int64(len(part))
			end = x.left == 0
		}
		if len(part) >= forDataBytes {
			c.please(forData)
		}
		x.finished = end
		s.down.data(part, end)
	}
	c.unlock()
	return n, nil
}

// lowWater is how much may wait to be written before functions wait. It is so little
// that buffers stay small enough to be kept (socket.done).
const lowWater = 96 << 10

// waitLocked waits until the client has read something, or has given credit. What it
// is to read leaves before.
func (x *Exchange) waitLocked(s *stream) {
	c := x.c
	switch {
	case c.beginLocked():
		c.unlock()
		c.write(true)
		c.mu.Lock()
	case len(c.out) > lowWater:
		c.drained.Wait()
	default:
		if s.down.Room() > 0 {
			c.wait(&s.down) // for the connection's
		}
		x.come.Wait()
	}
}

// Flush sends what was written.
func (x *Exchange) Flush() error {
	x.c.kickLater()
	return nil
}

// Finish ends an answer that is whole.
func (x *Exchange) Finish(trailers []protocols.Field) error {
	c := x.c
	c.mu.Lock()
	s := x.s
	if done := x.finished; done || s == nil || s.down.ended || !s.started {
		begin := c.beginLocked()
		c.unlock()
		if begin {
			x.flush()
		}
		if done {
			return nil
		}
		return errGone
	}
	switch {
	case len(trailers) == 0:
		x.finished = true
		s.down.finish(nil)
	case c.answerTooLarge(trailers):
		s.giveUp(frame.Cancel, answerTooLarge)
		c.unlock()
		c.kick()
		return errGone
	default:
		x.finished = true
		fields := make([]hpack.HeaderField, 0, len(trailers))
		for i := range trailers {
			fields = append(fields, hpack.HeaderField{Name: lowered(trailers[i].Name), Value: trailers[i].Value})
		}
		s.note(fields)
		s.down.finish(fields)
	}
	begin := c.beginLocked()
	c.unlock()
	if begin {
		x.flush()
	}
	return nil
}

// flush writes, now that beginLocked was true: answers of others that can be had
// at once leave with this one. A goroutine waits for a client that does not read,
// and not the function.
func (x *Exchange) flush() {
	runtime.Gosched()
	x.c.write(x.c.keep == nil)
}

// Abort ends an answer that is not whole: the stream is reset.
func (x *Exchange) Abort() {
	x.c.mu.Lock()
	if s := x.s; s != nil && !s.down.ended {
		s.reset(frame.InternalError, sideClient)
	}
	x.c.unlock()
	x.c.kick()
}

// Reply answers in the switch's words, if nothing was answered: with that status
// and text, or in a gRPC call with UNAVAILABLE. With a 503 it says when to try again.
func (x *Exchange) Reply(status int, text string) {
	x.c.mu.Lock()
	if s := x.s; s != nil && !s.started {
		why := &refusal{http: status, grpc: codeUnavailable, text: text}
		if status == http.StatusServiceUnavailable {
			why = later(text)
		}
		s.reply(why)
	}
	x.c.unlock()
	x.c.kick()
}

// wake lets go on who waits for the stream.
func (s *stream) wake() {
	if s.x != nil {
		s.x.come.Broadcast()
	}
}

// leaveLocked takes note that the stream has ended. early says that it should not have.
func (x *Exchange) leaveLocked(early bool) {
	x.s.x, x.s = nil, nil
	x.come.Broadcast()
	x.c.drained.Broadcast()
	if len(x.c.parked) > 0 {
		x.c.parked = slices.DeleteFunc(x.c.parked, func(o *Exchange) bool { return o == x })
	}
	if !early && !x.dropped {
		return
	}
	if x.leave != nil {
		x.c.left = append(x.c.left, x.leave)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gone = true
	if x.done != nil {
		close(x.done)
	}
}

// exchangeContext is an Exchange as a context.
type exchangeContext Exchange

func (x *exchangeContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (x *exchangeContext) Value(any) any               { return nil }

func (x *exchangeContext) Done() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done == nil {
		if x.done = make(chan struct{}); x.gone {
			close(x.done)
		}
	}
	return x.done
}

func (x *exchangeContext) Err() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.gone {
		return context.Canceled
	}
	return nil
}
