package h2

import (
	"errors"
	"net/http"
	"strconv"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2/flow"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// stream is a request and its answer: two halves, between the client and a
// server.
type stream struct {
	id     uint32 // as the client knows it
	far    uint32 // as the server knows it: in this process the same
	c      *client
	origin *origin // nil when the switch answers itself
	wait   *ticket // for a connection upstream; nil if it does not wait

	admission *admission // while guards decide
	up        half       // from the client to the server
	down      half       // from the server to the client
	length    int64      // content-length of the request; -1 if unknown
	grpc      bool
	bare      bool // HEAD: the answer has no content
	gone      bool // not in the tables any more
	parted    bool // the server upstream has done with it; see part
	tell      bool // with the answer's end the client is told to stop sending

	taken   bool            // the handler has call
	call    *protocols.Call // for backends that take calls
	status  int             // of call
	started bool            // the answer's final head has come
	interim int8            // 1xx answers
	quiet   int             // ticks since the request's body has moved
	moved   int64           // how far it had by then
	slow    int             // ticks while the client might have sent more of it
	mark    int64           // how far it had when those were counted from
	pool    *Upstream       // for streams that go upstream, or wait for that
	relay   *Relay          // for those that it sends there
	member  Member          // of it
	tried   []Member        // those that could not be reached
	fault   Fault           // of the member
	noted   string          // what Relay.Prepare has returned
	age     int             // ticks, if it has a Relay.Timeout
	x       *Exchange       // while a Handler's function serves the stream
	handled bool            // one does, or did
}

// half is one direction of a stream.
type half struct {
	flow.Half
	s        *stream
	from, to *link  // to is nil while the stream waits for a connection
	queue    []byte // received, and not sent on for want of credit
	tail     tail   // what comes behind the queue
	trailers []hpack.HeaderField
	waits    bool // among to.halves
	cut      bool // nobody wants the rest: what comes is thrown away
	ended    bool // the sender has said END_STREAM
	closed   bool // END_STREAM was sent on
}

// tail is what follows the last byte of a half. It must not overtake data that
// waits for credit.
type tail uint8

const (
	tailNone tail = iota
	tailEnd       // END_STREAM
	tailTrailers
)

// data takes bytes from the sender.
func (h *half) data(p []byte, end bool) {
	if end {
		h.ended, h.tail = true, tailEnd
	}
	switch {
	case h.cut:
		h.from.release(len(p))
		h.closed = h.closed || end
		h.over()
		return
	case len(p) == 0 && !end:
		h.regrant() // it may have been all padding
		return
	case len(h.queue) == 0 && h.to != nil:
		h.to.lock()
		n := h.room(len(p))
		if n > 0 || len(p) == 0 {
			h.send(p[:n], end && n == len(p))
		}
		h.to.unlock(h.s.c)
		if n == len(p) { // the way of almost every frame
			h.regrant()
			h.over()
			return
		}
		p = p[n:]
	}
	h.queue = append(h.queue, p...)
	h.s.c.hold(len(p))
	h.pump(len(h.queue))
}

// upstream reports whether the half comes from or goes to an upstream
// connection. Its data waits in the half's queue while the other side does not
// read: whoever serves many cannot wait for one.
func (h *half) upstream() bool { return h.to.trunk != nil || h.from != nil && h.from.trunk != nil }

// room is how much of n bytes may be sent on now. The link is locked.
func (h *half) room(n int) int {
	room := min(int64(n), h.Room(), h.to.send.Room())
	if h.upstream() {
		room = min(room, int64(highWater-len(h.to.out)))
	}
	return int(max(0, room))
}

// dest is the id of the stream where h leads to.
func (h *half) dest() uint32 {
	if h == &h.s.up {
		return h.s.far
	}
	return h.s.id
}

// source is the id of the stream where h comes from.
func (h *half) source() uint32 {
	if h == &h.s.up {
		return h.s.id
	}
	return h.s.far
}

// send sends a frame's worth on. The link is locked.
func (h *half) send(p []byte, end bool) {
	h.to.out = frame.AppendData(h.to.out, h.dest(), p, end)
	h.Send(len(p))
	h.to.send.Send(len(p))
	if h == &h.s.down && (h.from == nil || !h.from.policy) {
		h.s.c.sent()
	}
	if h.from != nil {
		h.from.release(len(p))
		if h.from.trunk != nil {
			h.s.c.lent -= int64(len(p))
		}
	}
	if end {
		h.closed = true
	}
}

// finish takes the end of the sender's half: trailers, or nothing.
func (h *half) finish(trailers []hpack.HeaderField) {
	h.ended, h.tail = true, tailEnd
	if h.cut {
		h.closed = true
		h.over()
		return
	}
	if trailers != nil {
		h.tail = tailTrailers
		if len(h.queue) > 0 || h.to == nil {
			trailers = append([]hpack.HeaderField(nil), trailers...) // the caller's are reused
		}
		h.trailers = trailers
	}
	h.pump(0)
}

// pump sends on what it may: at most budget bytes, and the tail.
func (h *half) pump(budget int) {
	h.s.wake() // it waits until its lock is free
	if h.s.gone || h.closed || h.to == nil {
		return
	}
	h.to.lock()
	before := len(h.queue)
	for len(h.queue) > 0 {
		n := h.room(min(len(h.queue), frame.MaxLen, budget))
		if n == 0 {
			if h.Room() > 0 {
				h.to.wait(h)
			}
			break
		}
		h.send(h.queue[:n], n == len(h.queue) && h.tail == tailEnd)
		if h == &h.s.down {
			h.s.c.sent() // whoever has sent it: that was before
		}
		h.queue = h.queue[n:]
		budget -= n
	}
	long := false
	if len(h.queue) == 0 {
		h.queue = nil
		long = !h.sendTail()
	}
	h.to.unlock(h.s.c)
	h.s.c.hold(len(h.queue) - before)
	if long {
		h.s.giveUp(frame.Cancel, headersTooLarge)
		return
	}
	h.regrant()
	h.over()
}

// sendTail sends what comes behind the queue, which is empty, unless it reports that
// these are trailers which the receiver does not take. The link is locked.
func (h *half) sendTail() bool {
	if h.closed {
		return true
	}
	switch h.tail {
	case tailNone:
	case tailEnd:
		h.to.out = frame.AppendData(h.to.out, h.dest(), nil, true)
		h.closed = true
	case tailTrailers:
		list := h.s.passed(h)
		switch {
		case len(list) == 0:
			h.to.out = frame.AppendData(h.to.out, h.dest(), nil, true)
		case h == &h.s.up && h.to.tooLarge(list):
			return false
		default:
			h.to.head(h.dest(), list, true, 0)
		}
		h.trailers, h.closed = nil, true
	}
	return true
}

// regrant gives the sender credit again, if it needs some and still has
// something to send.
func (h *half) regrant() {
	if h.ended || h.cut || h.s.gone || h.from == nil {
		return
	}
	var n int64
	if h.from.trunk == nil {
		n = h.Grant()
	} else {
		n = h.GrantWithin(h.s.c.depth())
		h.s.c.lent += n
	}
	if n > 0 {
		h.from.lock()
		h.from.out = frame.AppendWindowUpdate(h.from.out, h.source(), uint32(n))
		h.from.unlock(h.s.c)
	}
}

// allow takes note of credit from the receiver.
func (h *half) allow(n int64) bool {
	if !h.Allow(n) {
		return false
	}
	h.pump(len(h.queue))
	return true
}

// over ends the stream when both of its halves are.
func (h *half) over() {
	s := h.s
	if s.down.closed && s.tell && !s.gone && !s.up.ended {
		s.reset(frame.NoError, sideClient)
	}
	switch {
	case s.down.closed && s.up.closed:
		s.end(nil)
	case s.down.ended && s.up.closed:
		s.part()
	}
}

// part leaves a server upstream that has done with the stream: another may take
// its place there, while what the server has sent waits for the client.
func (s *stream) part() {
	if s.gone || s.parted || s.origin == nil || s.origin.conn.trunk == nil {
		return
	}
	s.parted = true
	if s.up.to != nil {
		s.up.to.leave(&s.up)
	}
	s.origin.left(s)
	if s.pool.waiters.Load() > 0 {
		s.c.freeLater(s.pool)
	}
}

// drop throws away what waits and what is still to come, and gives connection
// credit back for it.
func (h *half) drop() {
	if h.from != nil {
		h.from.release(len(h.queue))
	}
	h.s.c.hold(-len(h.queue))
	h.queue, h.trailers, h.cut = nil, nil, true
	if h.ended {
		h.closed = true
	}
}

// stop says that the server wants nothing more of the request. Its answer is
// still sent to its end.
func (s *stream) stop() {
	s.up.drop()
	s.tell = true
	s.wake()
	s.down.over()
}

// side is who is told of a reset.
type side uint8

const (
	sideClient side = 1 << iota
	sideServer
)

// reset ends a stream before its time.
func (s *stream) reset(code frame.Code, tell side) {
	if s.gone {
		return
	}
	if tell&sideServer != 0 {
		if s.pool != nil && !s.down.ended {
			s.c.cancels++
		}
		if s.origin != nil && !s.parted && !(s.up.closed && s.down.ended) {
			s.tellServer(code)
		}
	}
	if tell&sideClient != 0 {
		s.c.out = frame.AppendReset(s.c.out, s.id, code)
		credit := int64(0)
		if !s.up.ended {
			credit = s.up.Credit()
		}
		s.c.closed.add(s.id, credit)
	}
	if s.down.closed && (s.up.closed || code == frame.NoError) {
		s.end(nil)
		return
	}
	s.end(&resetError{code, tell&sideClient == 0})
}

// tellServer resets the stream at its server.
func (s *stream) tellServer(code frame.Code) {
	k := s.origin.conn
	k.lock()
	k.out = frame.AppendReset(k.out, s.far, code)
	k.unlock(s.c)
}

// malformed ends a stream whose server does not send an answer that may be
// passed on.
func (s *stream) malformed() { s.giveUp(frame.ProtocolError, broken) }

// giveUp ends a stream for what its client or its server does, or does not do.
// An answer that is whole is still sent.
func (s *stream) giveUp(code frame.Code, why *refusal) {
	if s.origin != nil && !s.parted {
		s.tellServer(code)
	}
	if s.down.ended {
		s.stop()
	} else {
		if s.x != nil {
			s.x.dropped = true // its function need not go on
		}
		s.reply(why)
	}
	s.part()
}

// resetError is how a call ended that was reset.
type resetError struct {
	code     frame.Code
	byClient bool
}

func (e *resetError) Error() string {
	if e.byClient {
		return "reset by the client: " + e.code.String()
	}
	return "reset: " + e.code.String()
}

// end takes the stream off the tables.
func (s *stream) end(err error) {
	if s.gone {
		return
	}
	s.gone = true
	c := s.c
	delete(c.streams, s.id)
	s.up.drop()
	s.down.drop()
	if s.up.to != nil {
		s.up.to.leave(&s.up)
	}
	s.down.to.leave(&s.down)
	s.stopWaiting()
	if s.origin != nil && !s.parted {
		s.origin.left(s)
	}
	if s.down.from != nil && s.down.from.trunk != nil {
		c.lent -= s.down.Lent()
	}
	if s.pool != nil {
		c.leavePool(s.pool)
	}
	s.leaveMember(Outcome{Status: s.status, GRPC: s.grpc, Fault: s.fault})
	if s.call != nil {
		s.finishCall(err)
	}
	if s.x != nil {
		s.x.leaveLocked(err != nil)
	}
	if err == nil && (s.origin != nil || s.handled) {
		c.please(forAnswer)
		c.ramp = min(c.ramp+1, c.sw.limits.Streams)
	}
	// Whoever has called still sees that it is gone: only the next stream of
	// this client takes its place.
	if len(c.free) < mostFree {
		c.free = append(c.free, s)
	}
	if len(c.streams) == 0 {
		c.bare = 0
		if c.conn != nil {
			c.conn.Step(protocols.StateIdle)
		}
		c.maybeDone()
	}
}

// finishCall ends the call: with the status of the trailers, or for want of
// one with what a reset means in gRPC.
func (s *stream) finishCall(err error) {
	res := protocols.Result{Status: s.status, Sent: s.down.Sent(), Err: err}
	switch {
	case s.status >= 0:
	case !s.grpc: // reset before an answer
		res.Status = http.StatusBadGateway
		var reset *resetError
		if errors.As(err, &reset) && reset.byClient {
			res.Status = statusClientClosed
		}
	case err == nil:
		res.Status = codeUnknown // a server that sends none
	default:
		res.Status = codeUnavailable
		var reset *resetError
		if errors.As(err, &reset) && reset.byClient {
			res.Status = codeCanceled
		}
	}
	if s.c.ended == nil {
		s.c.ended, _ = endedPool.Get().(*[]endedCall)
	}
	*s.c.ended = append(*s.c.ended, endedCall{s.call, res})
}

// stopWaiting takes the stream off whatever it waits for.
func (s *stream) stopWaiting() {
	if s.wait != nil {
		s.wait.leave()
	}
	if s.admission != nil {
		s.admission.cancel()
		s.admission = nil
	}
}

// reply answers in the server's place, in the words of the request's protocol.
func (s *stream) reply(r *refusal) {
	if s.gone || s.down.ended {
		return
	}
	s.stopWaiting()
	s.fault = r.fault
	if !s.grpc && !s.started {
		s.status = r.http
	}
	switch {
	case s.grpc && s.started: // trailers, behind what was sent before
		s.status = r.grpc
		s.down.finish(r.grpcFields()[2:])
	case s.grpc:
		s.status = r.grpc
		s.down.ended, s.down.closed = true, true
		s.c.head(s.id, r.grpcFields(), true, 0)
	case s.started:
		s.reset(frame.InternalError, sideClient)
		return
	case s.bare:
		s.started, s.down.ended, s.down.closed = true, true, true
		s.c.head(s.id, r.httpFields(), true, 0)
	default:
		s.started = true
		s.c.head(s.id, r.httpFields(), false, 0)
		s.down.data([]byte(r.text+"\n"), true)
	}
	if !s.gone {
		s.stop()
	}
}

// refusal is an answer of the switch itself.
type refusal struct {
	http, grpc int
	text       string
	more       []hpack.HeaderField // of HTTP
	details    string              // of gRPC: grpc-status-details-bin; "" for none
	fault      Fault
}

// statusClientClosed is nginx's code for a client that left before the answer.
const statusClientClosed = 499

// gRPC's status codes.
const (
	codeCanceled          = 1
	codeUnknown           = 2
	codeDeadlineExceeded  = 4
	codeResourceExhausted = 8
	codeUnimplemented     = 12
	codeUnavailable       = 14
)

var (
	headersTooLarge = &refusal{http: 431, grpc: codeResourceExhausted, text: "request header fields too large"}
	bodyTooLarge    = &refusal{http: 413, grpc: codeResourceExhausted, text: "the request's body is too large"}
	noRoute         = &refusal{http: 404, grpc: codeUnimplemented, text: "no route for this request"}
	unavailable     = later("the server is not available")
	goingAway       = later("the server is going away")
	overloaded      = later("too many requests wait for the server")
	tooLong         = later("the request has waited too long for the server")
	answerTooLarge  = &refusal{http: 502, grpc: codeResourceExhausted, text: "the answer's header fields are larger than the client takes"}
	unreachable     = &refusal{http: 502, grpc: codeUnavailable, text: "the server cannot be reached", fault: Unreachable}
	bodyIdle        = &refusal{http: 408, grpc: codeUnavailable, text: "the request's body stands still"}
	noAnswer        = &refusal{http: 504, grpc: codeDeadlineExceeded, text: "the server takes too long", fault: Slow}
	pastDeadline    = &refusal{http: 504, grpc: codeDeadlineExceeded, text: "the call takes too long"}
	broken          = &refusal{http: 502, grpc: codeUnavailable, text: "the server ended the connection", fault: Broken}
)

// later refuses what may well be served a moment later: its client is told when.
func later(text string) *refusal {
	return refused(&protocols.Refusal{Reason: protocols.ReasonOverloaded, Text: text, RetryAfter: protocols.RetryLater})
}

func (r *refusal) grpcFields() []hpack.HeaderField {
	fields := []hpack.HeaderField{
		{Name: fieldStatus, Value: "200"},
		{Name: fieldType, Value: "application/grpc"},
		{Name: "grpc-status", Value: strconv.Itoa(r.grpc)},
		{Name: fieldMessage, Value: grpcMessage(r.text)},
	}
	if r.details != "" {
		fields = append(fields, hpack.HeaderField{Name: "grpc-status-details-bin", Value: r.details})
	}
	return fields
}

func (r *refusal) httpFields() []hpack.HeaderField {
	return append([]hpack.HeaderField{
		{Name: fieldStatus, Value: strconv.Itoa(r.http)},
		{Name: fieldType, Value: "text/plain; charset=utf-8"},
		{Name: "x-content-type-options", Value: "nosniff"},
		{Name: fieldLength, Value: strconv.Itoa(len(r.text) + 1)},
	}, r.more...)
}
