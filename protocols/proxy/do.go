package proxy

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

const (
	// smallBody is how long a body may be that is read before its request is
	// sent: it leaves with the head, and can be sent again.
	smallBody = 16 << 10
	// smallBuffer is what an answer is read into at first: most fit in.
	smallBuffer = 4 << 10
	// bigBuffer is what bodies are copied through that do not.
	bigBuffer = 32 << 10
	// mostOut bounds the buffer for heads that is kept for the next request.
	mostOut = 64 << 10
)

// exchange is the state of one Do.
type exchange struct {
	c   *Client
	ctx context.Context //nolint:containedctx // of Do
	x   Exchange
	cn  *conn

	head     protocols.Head
	te       bool   // the client takes trailers, and said so
	trailer  string // those that it announces
	expects  bool   // it holds the body back
	chunking bool   // the body is sent in chunks
	out      []byte // the request's head, and a small body
	body     int    // where that begins

	small [smallBuffer]byte
	big   *[bigBuffer]byte
	in    []byte // small, big, or larger for a large head
	r, w  int    // what was read of it, and not taken

	answer  answer
	chunks  chunked
	trail   []protocols.Field
	sent    bool // some of the request has been written
	heard   bool // something of the answer has come
	begun   bool // the client has its head
	whole   bool // the client has all of it
	faulty  bool // the client is what has failed
	sending upload
}

var (
	exchanges  = sync.Pool{New: func() any { return new(exchange) }}
	bigBuffers = sync.Pool{New: func() any { return new([bigBuffer]byte) }}
)

// Do sends the request, and gives the client the server's answer. The error is
// an [*Error], or nil when the answer is whole. ctx ends with the client: what waits
// then ends within a tenth of a second.
func (c *Client) Do(ctx context.Context, x Exchange) error {
	e := exchanges.Get().(*exchange) //nolint:forcetypeassert // the pool has nothing else
	e.c, e.ctx, e.x = c, ctx, x
	fail := e.do()
	e.release()
	if fail == nil {
		return nil
	}
	return fail
}

// release makes the state ready for the next Do.
func (e *exchange) release() {
	if e.big != nil {
		bigBuffers.Put(e.big)
	}
	fields, out, got, trail, chunks := e.head.Fields, e.out, e.answer.fields, e.trail, e.chunks.trailer
	if cap(out) > mostOut {
		out = nil
	}
	clear(fields[:cap(fields)])
	clear(got[:cap(got)])
	clear(trail)
	e.c, e.ctx, e.x, e.cn, e.big, e.in = nil, nil, nil, nil, nil, nil
	e.te, e.trailer, e.expects, e.chunking, e.body, e.r, e.w = false, "", false, false, 0, 0, 0
	e.sent, e.heard, e.begun, e.whole, e.faulty = false, false, false, false, false
	e.head = protocols.Head{Fields: fields[:0]}
	e.answer = answer{fields: got[:0]}
	e.out, e.trail = out[:0], trail[:0]
	e.chunks, e.sending = chunked{trailer: chunks[:0]}, upload{}
	exchanges.Put(e)
}

func (e *exchange) do() *Error {
	e.x.Head(&e.head)
	e.strip()
	if e.c.Prepare != nil {
		e.c.Prepare(e.ctx, &e.head)
	}
	answer := e.c.Answer
	if r, ok := e.x.(Ruled); ok {
		r.Prepare(&e.head)
		answer = cmp.Or(r.AnswerTimeout(), answer)
	}
	if err := e.compose(); err != nil {
		return &Error{Client: true, Err: err}
	}
	e.body = len(e.out)
	if n := e.head.Length; n > 0 && n <= smallBody && !e.expects && !e.chunking {
		if err := e.readSmall(int(n)); err != nil {
			return &Error{Client: true, Timeout: isTimeout(err), Err: err}
		}
	}
	for fresh := false; ; fresh = true {
		cn, err := e.c.get(e.ctx, fresh)
		if err != nil {
			return e.unreached(err)
		}
		e.cn = cn
		cn.answer.Store(int64(answer))
		if l, ok := e.x.(leaver); ok {
			c, ctx := e.c, e.ctx
			l.OnLeave(func() { c.leave(ctx, cn) })
		}
		fail, again := e.on()
		if !again {
			if fail != nil && !fail.Sent {
				e.giveBack()
			}
			return fail
		}
		e.r, e.w = 0, 0
		e.c.Log.Debug("a connection was closed before its request", "upstream", e.c.Name, "err", fail.Err)
	}
}

// readSmall puts the body behind the head.
func (e *exchange) readSmall(n int) error {
	need := e.body + n
	if cap(e.out) < need {
		e.out = append(make([]byte, 0, max(need, 2*cap(e.out))), e.out...)
	}
	for len(e.out) < need {
		n, err := e.x.Read(e.out[len(e.out):need])
		e.out = e.out[:len(e.out)+n]
		if err != nil && len(e.out) < need {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// giveBack gives a small body back that was read and not sent: another server may
// have it.
func (e *exchange) giveBack() {
	if len(e.out) > e.body {
		e.x.Unread(e.out[e.body:])
	}
}

// unreached is for a request that has found no connection. Its body goes back.
func (e *exchange) unreached(err error) *Error {
	e.giveBack()
	gone := errors.Is(err, errLeft) || e.ctx.Err() != nil
	return &Error{Sent: e.sent, Client: gone, Busy: errors.Is(err, errBusy), Timeout: !gone && isTimeout(err), Err: err}
}

// streams reports whether there is a body that was not read yet.
func (e *exchange) streams() bool { return e.head.Length != 0 && len(e.out) == e.body }

// on has the request sent and answered on a connection. again says that the
// server had closed it before, and that another will do.
func (e *exchange) on() (fail *Error, again bool) {
	cn := e.cn
	n, err := cn.write(e.out)
	e.sent = e.sent || n > 0
	if err == nil && e.streams() && !e.expects {
		e.startUpload()
	}
	keep := false
	if err == nil {
		keep, err = e.receive()
	} else if n > 0 { // it may have answered before it closed
		if _, bad := e.receive(); bad == nil || e.begun {
			err = bad
		}
	}
	if err != nil {
		fail = e.failure(err)
		if e.begun && !e.whole {
			e.x.Abort()
		}
	}
	switch {
	case e.sending.done != nil:
		keep = e.endUpload(fail == nil) && keep
		e.blame(fail)
	case fail == nil && e.streams(): // the client holds back what nobody wants
		e.x.StopReading()
		keep = false
	}
	again = fail != nil && cn.used && !e.heard && e.sending.done == nil && !fail.Client && !fail.Timeout &&
		cn.end.Load() == endNone && (n == 0 || e.replayable())
	e.c.put(cn, keep && fail == nil)
	return fail, again
}

// failure says what has gone wrong.
func (e *exchange) failure(err error) *Error {
	fail := &Error{Sent: e.sent, Answered: e.begun, Client: e.faulty, Err: err}
	switch e.cn.end.Load() {
	case endLeft:
		fail.Client, fail.Err = true, errLeft
	case endStopped: // by the upload: see blame
		fail.Client, fail.Err = true, errUpload
	case endAnswer:
		fail.Timeout, fail.Err = true, errNoAnswer
	case endBody:
		fail.Timeout, fail.Err = true, errAnswerIdle
	case endSend:
		fail.Timeout, fail.Err = true, errSendIdle
	case endClosed:
		fail.Err = ErrClosed
	default:
		fail.Timeout = isTimeout(err)
	}
	if e.ctx.Err() != nil {
		fail.Client = true
	}
	return fail
}

// isTimeout reports whether somebody has waited too long.
func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// fill reads more of the answer.
func (e *exchange) fill(phase uint32) error {
	if e.in == nil {
		e.in = e.small[:]
	}
	if e.r == e.w {
		e.r, e.w = 0, 0
	}
	n, err := e.cn.read(e.in[e.w:], phase)
	e.w += n
	if n > 0 {
		e.heard = true
		return nil
	}
	if errors.Is(err, io.EOF) {
		return ErrCut
	}
	return err
}

// room makes room for more of a head.
func (e *exchange) room() error {
	if e.r > 0 {
		e.w = copy(e.in, e.in[e.r:e.w])
		e.r = 0
	}
	switch n := len(e.in); {
	case e.w < n:
	case n >= e.c.HeaderBytes:
		return ErrTooLarge
	case n < bigBuffer && e.big == nil:
		e.grow()
	default:
		e.in = append(make([]byte, 0, 2*n), e.in...)[:2*n]
	}
	return nil
}

// grow takes a buffer for a body that is not small.
func (e *exchange) grow() {
	if e.big == nil {
		e.big, _ = bigBuffers.Get().(*[bigBuffer]byte)
		e.w = copy(e.big[:], e.in[e.r:e.w])
		e.r = 0
		e.in = e.big[:]
	}
}

// clearDeadline lifts a read deadline, but not the sweeper's.
func (e *exchange) clearDeadline() {
	_ = e.cn.nc.SetReadDeadline(time.Time{})
	if e.cn.end.Load() != endNone {
		_ = e.cn.nc.SetReadDeadline(time.Unix(1, 0))
	}
}
