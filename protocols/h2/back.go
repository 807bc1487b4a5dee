package h2

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2/flow"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// back is a client's connection to a server in this process. The client's lock
// guards it, but for the pipe, which has its own.
type back struct {
	link   // to the server
	c      *client
	server *Server
	pipe   *pipe
	part   []byte // the beginning of a frame
	count  int    // streams
	most   uint32 // of them, as the server has it
	told   int64  // the INITIAL_WINDOW_SIZE that the server was told
	away   bool   // the server has sent GOAWAY
	dead   bool
	idle   int                        // ticks without a stream
	acks   int                        // bytes at the beginning of out that are in no hurry
	pinged bool                       // it has seen a PING of the client's
	pings  [][8]byte                  // the client's that the server has not answered
	calls  map[uint32]*protocols.Call // of streams that were reset before their handler began
}

// usable reports whether b takes new streams.
func (b *back) usable() bool { return !b.away && !b.dead }

// StreamField is the field that tells a server's own code which stream a call
// is. A client's is taken out.
const StreamField = "oneport-stream"

// route sends a new stream to its server.
func (c *client) route(s *stream, r *Request, end bool) {
	if r.marked {
		r.Remove(func(name string) bool { return name == StreamField })
	}
	server := c.sw.Route(r, c.facts)
	if server == nil {
		s.reply(noRoute)
		return
	}
	b := c.backTo(server)
	if b == nil {
		s.reply(unavailable)
		return
	}
	if b.pipe.waiting() > backMost+c.sw.limits.ConnWindow {
		s.reply(unavailable)
		return
	}
	if uint32(b.count) >= b.most {
		c.nuisance++
		s.reset(frame.RefusedStream, sideClient)
		return
	}
	depth := int64(c.sw.limits.Window)
	s.back = b
	b.count++
	b.idle = 0
	s.up.to, s.up.cut = &b.link, false
	s.up.Half = flow.New(b.window, depth, depth)
	s.down.from = &b.link
	s.down.Half = flow.New(c.window, b.told, depth)
	mark := uint32(0)
	if server.calls {
		s.status = -1
		s.call = c.sw.begin(r, c.facts)
		mark = s.id
	}
	if r.grpc {
		r.Remove(unread)
	}
	b.head(s.id, r.Fields, end, mark)
	c.in.fields = r.Fields[:0] // it may have grown
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
	b := &back{c: c, server: server, most: frame.MaxStream, link: newLink(l, int64(c.sw.limits.ConnWindow), false)}
	b.pipe = newPipe(b)
	b.told = min(c.window, int64(c.sw.limits.Window))
	b.out = append(b.out, frame.Preface...)
	b.open(frame.Setting{ID: frame.EnablePush, Value: 0}, frame.Setting{ID: frame.InitialWindowSize, Value: uint32(b.told)})
	c.backs = append(c.backs, b)
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
		if s.back == b {
			s.down.Shift(delta)
		}
	}
}

// left takes note that a stream has ended.
func (b *back) left(s *stream) {
	b.count--
	b.idle = 0
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
	b.calls[s.id] = s.call
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

// errBack ends a connection to a server that breaks the protocol.
var errBack = errors.New("h2: the server broke the protocol")

// take feeds what the server sends to the state machine.
func (b *back) take(p []byte) error {
	if len(b.part) > 0 {
		// Complete the frame that has begun.
		for len(b.part) > 0 {
			want := frame.HeaderLen
			if len(b.part) >= want {
				want += frame.Parse(b.part).Length
			}
			if want > frame.HeaderLen+frame.MaxLen {
				return errBack
			}
			n := min(want-len(b.part), len(p))
			b.part = append(b.part, p[:n]...)
			p = p[n:]
			if len(b.part) < want {
				return nil
			}
			if want > frame.HeaderLen || frame.Parse(b.part).Length == 0 {
				if err := b.frame(frame.Parse(b.part), b.part[frame.HeaderLen:]); err != nil {
					return err
				}
				b.part = b.part[:0]
			}
		}
	}
	for len(p) >= frame.HeaderLen {
		h := frame.Parse(p)
		if h.Length > frame.MaxLen {
			return errBack
		}
		n := frame.HeaderLen + h.Length
		if len(p) < n {
			break
		}
		if err := b.frame(h, p[frame.HeaderLen:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	b.part = append(b.part, p...)
	return nil
}

// stream returns the stream of that id, if it still is this server's.
func (b *back) stream(id uint32) *stream {
	if s := b.c.streams[id]; s != nil && s.back == b {
		return s
	}
	return nil
}

func (b *back) frame(h frame.Header, p []byte) error {
	if (b.in.stream != 0) != (h.Type == frame.Continuation) || h.Type == frame.Continuation && h.Stream != b.in.stream {
		return errBack // an interrupted header block, or the middle of none
	}
	switch h.Type {
	case frame.Data:
		return b.data(h, p)
	case frame.Headers:
		p, _, err := frame.Unpad(h, p)
		if err != nil {
			return err
		}
		b.in.begin(h.Stream, h.Flags.Has(frame.EndStream))
		return b.fragment(h, p)
	case frame.Continuation:
		return b.fragment(h, p)
	case frame.RSTStream:
		if h.Length != 4 {
			return errBack
		}
		s, code := b.stream(h.Stream), frame.Code(binary.BigEndian.Uint32(p))
		switch {
		case s == nil:
		case code == frame.NoError && s.down.ended:
			s.stop()
		default:
			s.reset(code, sideClient)
		}
	case frame.Settings:
		if h.Flags.Has(frame.Ack) {
			return nil
		}
		return b.settings(p)
	case frame.Ping:
		if h.Length != 8 {
			return errBack
		}
		if h.Flags.Has(frame.Ack) { // the client's, whose PING was passed on
			if i := slices.Index(b.pings, [8]byte(p)); i >= 0 {
				b.pings = slices.Delete(b.pings, i, i+1)
				b.c.out = frame.AppendPing(b.c.out, true, [8]byte(p))
			}
			return nil
		}
		if len(b.out) == b.acks {
			b.acks += frame.HeaderLen + len(p)
		}
		// It is read with what comes next, or at the sweeper's next round: a
		// server that measures round trips would measure its own scheduler.
		b.out = frame.AppendPing(b.out, true, [8]byte(p))
	case frame.GoAway:
		if h.Length < 8 {
			return errBack
		}
		b.goAway(binary.BigEndian.Uint32(p)&frame.MaxStream, frame.Code(binary.BigEndian.Uint32(p[4:])), string(p[8:]))
	case frame.WindowUpdate:
		if h.Length != 4 {
			return errBack
		}
		n := int64(binary.BigEndian.Uint32(p) & frame.MaxStream)
		if h.Stream == 0 {
			b.allow(n)
		} else if s := b.stream(h.Stream); s != nil {
			s.up.allow(n)
		}
	case frame.PushPromise:
		return errBack
	case frame.Priority: // nobody's business
	}
	return nil
}

func (b *back) data(h frame.Header, p []byte) error {
	p, pad, err := frame.Unpad(h, p)
	if err != nil {
		return err
	}
	if !b.recv.Receive(len(p), pad) {
		return errBack
	}
	if pad > 0 {
		b.release(0)
	}
	s := b.stream(h.Stream)
	if s == nil || s.down.ended {
		b.release(len(p))
		return nil
	}
	if !s.started {
		b.release(len(p))
		s.malformed()
		return nil
	}
	s.down.Receive(len(p), pad) // more than its window is bounded by the connection's
	b.forward()
	if len(p) >= forDataBytes {
		b.c.please(forData)
	}
	s.down.data(p, h.Flags.Has(frame.EndStream))
	return nil
}

func (b *back) fragment(h frame.Header, p []byte) error {
	last := h.Flags.Has(frame.EndHeaders)
	if err := b.in.add(p, last); err != nil || !last {
		return err
	}
	s, fields := b.stream(h.Stream), b.in.fields
	if s == nil || s.down.ended {
		return nil
	}
	if b.in.over {
		return errBack
	}
	b.forward()
	if s.started { // trailers
		if !b.in.end || checkTrailers(fields) != "" {
			s.malformed()
			return nil
		}
		s.note(fields)
		s.down.finish(fields)
		return nil
	}
	switch status := checkResponse(fields); {
	case status == "" || status[0] == '1' && b.in.end:
		s.malformed()
		return nil
	case status[0] == '1':
		b.c.head(s.id, fields, false, 0)
		return nil
	}
	s.started = true
	if b.in.end {
		s.note(fields)
		s.down.ended, s.down.closed = true, true
	}
	b.c.head(s.id, fields, b.in.end, 0)
	if b.in.end {
		s.down.over()
	}
	return nil
}

// forward takes note that the server has sent something for the client.
func (b *back) forward() {
	b.c.pingsInRow = 0
	if b.server.pings {
		b.c.pingTo = b
	}
}

// note takes the call's status out of the last fields.
func (s *stream) note(fields []hpack.HeaderField) {
	if s.call == nil {
		return
	}
	for i := range fields {
		if fields[i].Name == "grpc-status" {
			if n, err := strconv.Atoi(fields[i].Value); err == nil {
				s.status = n
			}
			return
		}
	}
}

func (b *back) settings(p []byte) error {
	if len(p)%6 != 0 {
		return errBack
	}
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
				if s.back == b {
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
		if s.back == b && s.id > last {
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
		case s.back != b:
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
	b.pipe.end()
	b.c.drained.Broadcast() // a Write that waits for the client
	for _, data := range b.pings {
		b.c.out = frame.AppendPing(b.c.out, true, data)
	}
	b.c.backs = slices.DeleteFunc(slices.Clone(b.c.backs), func(o *back) bool { return o == b })
}
