package h2

import (
	"slices"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2/flow"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// Backend is where a stream goes: a [*Server] or a [*Handler] in this process, or
// an [*Upstream].
type Backend interface {
	// take sends a new stream there. The client's lock is held.
	take(s *stream, r *Request, end bool)
	// tells reports whether streams that go there are calls of the switch's.
	tells() bool
}

// route sends a new stream to its server.
func (c *client) route(s *stream, r *Request, end bool) {
	if r.marked {
		r.Drop(func(name string) bool { return name == StreamField })
	}
	to := c.sw.Route(r, c.facts)
	if to != nil && to.tells() {
		s.status = -1
		s.call = c.sw.begin(r, c.facts)
	}
	guards := c.sw.Guards
	switch b := to.(type) {
	case refusing:
		guards = nil
	case *guarded:
		to, guards = b.Backend, b.guards
		if s.call != nil {
			s.call.Goes(b.goes)
		}
	}
	switch {
	case to == nil:
		s.reply(noRoute)
	case s.call != nil && len(guards) > 0:
		c.guard(s, r, end, to, guards)
	default:
		to.take(s, r, end)
	}
	c.in.fields = r.Fields[:0] // it may have grown
}

// back is a client's connection to a server in this process. The client's lock
// guards it, but for the pipe, which has its own.
type back struct {
	link // to the server
	origin
	c      *client
	server *Server
	pipe   *pipe
	last   uint32             // id of the last stream
	moved  map[uint32]*stream // those with another id than the client's: guards let them go late
	count  int                // streams
	most   uint32             // of them, as the server has it
	told   int64              // the INITIAL_WINDOW_SIZE that the server was told
	away   bool               // the server has sent GOAWAY
	dead   bool
	idle   int                        // ticks without a stream
	acks   int                        // bytes at the beginning of out that are in no hurry
	pinged bool                       // it has seen a PING of the client's
	pings  int                        // the client's that the server has not answered
	calls  map[uint32]*protocols.Call // of streams that were reset before their handler began
}

// usable reports whether b takes new streams.
func (b *back) usable() bool { return !b.away && !b.dead && b.last < lastID }

// number gives a stream its id. Ids only grow (RFC 9113, 5.1.1).
func (b *back) number(s *stream) {
	if s.far = s.id; s.id <= b.last {
		s.far = b.last + 2
		if b.moved == nil {
			b.moved = make(map[uint32]*stream)
		}
		b.moved[s.far] = s
	}
	b.last = s.far
}

// StreamField is the field that tells a server's own code which stream a call
// is. A client's is taken out.
const StreamField = "oneport-stream"

func (s *Server) tells() bool { return s.calls }

// take sends a stream to the server.
func (s *Server) take(st *stream, r *Request, end bool) {
	c := st.c
	b := c.backTo(s)
	if b == nil || b.pipe.waiting() > backMost+c.sw.limits.ConnWindow {
		st.reply(unavailable)
		return
	}
	if uint32(b.count) >= b.most { // which the client could not know
		st.reset(frame.RefusedStream, sideClient)
		return
	}
	st.origin = &b.origin
	b.number(st)
	b.count++
	b.idle = 0
	st.up.to, st.up.cut = &b.link, false
	st.up.Allow(b.window)
	st.down.from = &b.link
	st.down.Half = flow.New(st.down.Room(), b.told, int64(c.sw.limits.Window))
	mark := uint32(0)
	if s.calls {
		mark = st.far
	}
	if r.grpc {
		r.Drop(unread)
	}
	b.head(st.far, r.Fields, end, mark)
	st.up.pump(len(st.up.queue)) // what came while guards decided
}

// unread are fields that a gRPC server gets and does not look at: te is for
// proxies, and the length was checked here.
func unread(name string) bool { return name == "te" || name == fieldLength }

// backTo returns the connection to a server, a new one if need be, or nil if
// the server takes none.
func (c *client) backTo(server *Server) *back {
	for _, b := range c.backs {
		if b.server == server && b.usable() {
			return b
		}
	}
	if server.isClosed() {
		return nil
	}
	l := &c.sw.backLimits
	b := &back{c: c, server: server, most: frame.MaxStream}
	b.link = newLink(l, int64(c.sw.limits.ConnWindow), false)
	b.policy = b.server.pings
	b.origin = origin{conn: &b.link, server: b}
	b.pipe = newPipe(b)
	b.told = min(c.window, int64(c.sw.limits.Window))
	b.out = append(b.out, frame.Preface...)
	b.open(frame.Setting{ID: frame.EnablePush, Value: 0}, frame.Setting{ID: frame.InitialWindowSize, Value: uint32(b.told)})
	c.backs = append(c.backs, b)
	c.sw.backs.Add(1)
	c.work.Go(func() { // the server may be slow to accept
		if !server.deliver(b.pipe) {
			_ = b.pipe.Close()
		}
	})
	return b
}

// mirrorLocked tells the server of the client's new window.
func (b *back) mirrorLocked() {
	told := min(b.c.window, int64(b.c.sw.limits.Window))
	delta := told - b.told
	if delta == 0 {
		return
	}
	b.told = told
	b.out = frame.AppendSettings(b.out, frame.Setting{ID: frame.InitialWindowSize, Value: uint32(told)})
	for _, s := range b.c.streams {
		if s.origin == &b.origin {
			s.down.Shift(delta)
		}
	}
}

// left takes note that a stream has ended.
func (b *back) left(s *stream) {
	b.count--
	b.idle = 0
	delete(b.moved, s.far)
	if s.call == nil {
		return
	}
	if s.down.ended || s.taken {
		return
	}
	// The handler of a stream that was reset may not have begun yet.
	if b.calls == nil {
		b.calls = make(map[uint32]*protocols.Call)
	}
	b.calls[s.far] = s.call
	for id := range b.calls { // any will do
		if len(b.calls) <= mostCalls {
			break
		}
		delete(b.calls, id)
	}
}

// mostCalls bounds back.calls.
const mostCalls = 256

// takeCall returns the call of a stream, once.
func (b *back) takeCall(id uint32) *protocols.Call {
	if s := b.stream(id); s != nil && !s.taken {
		s.taken = true
		return s.call
	}
	call := b.calls[id]
	delete(b.calls, id)
	return call
}

// publish makes what was appended readable for the server.
func (b *back) publish() {
	if len(b.out) > 0 {
		b.out, b.acks = b.pipe.put(b.out), 0
	}
}

// stream returns the stream of that id, if it still is this server's.
func (b *back) stream(id uint32) *stream {
	if s := b.moved[id]; s != nil {
		return s
	}
	if s := b.c.streams[id]; s != nil && s.origin == &b.origin && s.far == id {
		return s
	}
	return nil
}

// heard takes note that the server has sent something for the client.
func (b *back) heard(*stream) {
	if b.server.pings {
		b.c.pingsInRow, b.c.pingTo = 0, b
		return
	}
	b.c.sent()
}

func (b *back) ping(ack bool, data [8]byte) {
	if ack { // to the client's, which was answered when it came
		b.pings = max(0, b.pings-1)
		return
	}
	if len(b.out) == b.acks {
		b.acks += frame.HeaderLen + len(data)
	}
	// It is read with what comes next, or at the sweeper's next round: a
	// server that measures round trips would measure its own scheduler.
	b.out = frame.AppendPing(b.out, true, data)
}

func (b *back) credit(n int64) error {
	if !b.allow(n) {
		return errOrigin
	}
	return nil
}

func (b *back) settings(p []byte) error {
	for ; len(p) > 0; p = p[6:] {
		switch set := frame.ParseSetting(p); set.ID {
		case frame.HeaderTableSize:
			b.enc.SetTableSize(set.Value)
		case frame.MaxConcurrentStreams:
			b.most = set.Value
		case frame.InitialWindowSize:
			delta := int64(set.Value) - b.window
			b.window += delta
			for _, s := range b.c.streams {
				if s.origin == &b.origin {
					s.up.allow(delta)
				}
			}
		}
	}
	b.out = frame.AppendSettingsAck(b.out)
	return nil
}

// goAway takes the server's GOAWAY: streams that it did not take are refused,
// which tells clients that they may be tried again.
func (b *back) goAway(last uint32, code frame.Code, why string) {
	b.away = true
	if code == frame.EnhanceYourCalm && b.pinged { // the client's PINGs, which it got to see
		b.c.dieLocked(&frame.Error{Code: code, Why: why})
		return
	}
	for _, s := range b.c.streams {
		if s.origin == &b.origin && s.far > last {
			s.reset(frame.RefusedStream, sideClient)
		}
	}
	if b.count == 0 {
		b.closeLocked()
	}
}

// failLocked ends a connection that the server has ended: its streams are
// answered, and the client may go on.
func (b *back) failLocked() {
	if b.dead {
		return
	}
	b.closeLocked()
	for _, s := range b.c.streams {
		switch {
		case s.origin != &b.origin:
		case s.down.ended:
			s.stop() // the answer is whole; the rest of the request goes nowhere
		default:
			s.reply(broken)
		}
	}
}

// closeLocked lets the server go.
func (b *back) closeLocked() {
	if b.dead {
		return
	}
	b.publish()
	b.dead = true
	b.c.sw.backs.Add(-1)
	b.pipe.end()
	b.c.drained.Broadcast() // a Write that waits for the client
	b.c.backs = slices.DeleteFunc(slices.Clone(b.c.backs), func(o *back) bool { return o == b })
}
