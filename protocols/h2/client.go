package h2

import (
	"encoding/binary"
	"errors"
	"net/http"
	"slices"
	"sync"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2/flow"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// client is a client's connection, with its streams and the connections to
// servers in this process. One lock guards all of it: its streams share a socket.
type client struct {
	socket // its lock guards all below, and everything that hangs on it
	sw     *Switch
	conn   tracked // what is below nc; nil outside of a port
	facts  *protocols.Conn
	small  [512]byte // what is read into while nothing happens

	drained sync.Cond // on mu: out was written, or the connection is over
	streams map[uint32]*stream
	backs   []*back
	serving int         // functions of Handlers that run
	parked  []*Exchange // streams that wait for one to return
	held    int         // bytes that wait in the queues of streams
	lent    int64       // what upstream connections may make of that, for all streams
	due     *trunk      // and those behind it are to be written to, once mu is free
	freed   []*Upstream // have room for streams that wait, once mu is free
	left    []func()    // of Exchanges that have ended, to be called once mu is free
	shares  []share     // of upstreams
	cancels int         // answers from upstream that the client did not wait for; forgotten with time
	last    uint32      // the highest stream id that a client has used
	state   state
	ended   *[]endedCall // to be finished once mu is free
	free    []*stream    // that have ended, to be used again while there are streams
	closed  ring         // streams that were reset here a while ago

	request    Request // that is being opened
	haste      int     // what makes the reader wait, see mostHaste
	ramp       int     // streams that the client may have without that
	nuisance   int     // frames that brought nothing forward
	pingsInRow int     // PINGs since a server has sent something
	pingTo     *back   // the server with a policy on PINGs that has sent something last
	pingHere   bool    // the client has got something since its last PING that pingTo has not just sent
	served     uint32  // the last stream that the last GOAWAY named
	prefaced   bool    // the preface has come
	acked      bool    // our SETTINGS have been acknowledged
	settled    bool    // SETTINGS have come
	pinged     bool    // a PING of ours is not answered yet
	goneAway   bool    // the last GOAWAY was sent
	fatal      error   // what a server or the sweeper ends the connection for

	// For the sweeper, in ticks.
	heard     int  // since something was heard
	bare      int  // since there was a stream
	blockOpen int  // since a header block began, or its first frame
	partial   bool // a part of a HEADERS or CONTINUATION frame has come
	stuck     int  // since the last write made progress
	leaving   int  // since the first GOAWAY
	seen      uint64
}

// state is how far a connection has come.
type state uint8

const (
	stateOpen  state = iota
	stateDrain       // the first GOAWAY was sent
	stateClose       // nothing more is to be read
)

// tracked is what a connection offers that came through protocols/mux.
type tracked interface {
	Facts() *protocols.Conn
	Step(next protocols.State) bool
}

// errDone ends a connection that has nothing more to do.
var errDone = errors.New("h2: connection is done")

// feed takes one frame, or nothing if it is not whole yet.
func (c *client) feed(p []byte) (int, error) {
	if c.state == stateClose || c.err != nil {
		return 0, errDone
	}
	if !c.prefaced {
		n := min(len(p), len(frame.Preface))
		if string(p[:n]) != frame.Preface[:n] {
			return 0, frame.Err(frame.ProtocolError, "bad preface")
		}
		if n < len(frame.Preface) {
			return 0, nil
		}
		c.prefaced = true
		return n, nil
	}
	if len(p) < frame.HeaderLen {
		return 0, nil
	}
	h := frame.Parse(p)
	if h.Length > frame.MaxLen {
		return 0, frame.Err(frame.FrameSizeError, "frame too large")
	}
	if len(p) < frame.HeaderLen+h.Length {
		return 0, nil
	}
	n := frame.HeaderLen + h.Length
	return n, c.frame(h, p[frame.HeaderLen:n])
}

// frame takes one frame.
func (c *client) frame(h frame.Header, p []byte) error {
	if !c.settled && h.Type != frame.Settings {
		return frame.Err(frame.ProtocolError, "SETTINGS must come first")
	}
	if c.in.stream != 0 && (h.Type != frame.Continuation || h.Stream != c.in.stream) {
		return frame.Err(frame.ProtocolError, "a header block was interrupted")
	}
	switch h.Type {
	case frame.Data:
		return c.data(h, p)
	case frame.Headers:
		return c.headers(h, p)
	case frame.Continuation:
		if c.in.stream == 0 {
			return frame.Err(frame.ProtocolError, "CONTINUATION without HEADERS")
		}
		return c.fragment(h, p)
	case frame.Priority:
		if h.Stream == 0 {
			return frame.Err(frame.ProtocolError, "PRIORITY on stream 0")
		}
		code := frame.NoError
		if h.Length != 5 {
			code = frame.FrameSizeError
		} else if binary.BigEndian.Uint32(p)&frame.MaxStream == h.Stream {
			code = frame.ProtocolError
		}
		if code == frame.NoError {
			return c.annoy(1)
		}
		if c.idle(h.Stream) { // which must not be reset (RFC 9113, 6.4)
			return frame.Err(code, "a bad PRIORITY on an idle stream")
		}
		return c.streamError(h.Stream, code)
	case frame.RSTStream:
		return c.reset(h, p)
	case frame.Settings:
		return c.settings(h, p)
	case frame.Ping:
		return c.ping(h, p)
	case frame.GoAway:
		if h.Stream != 0 {
			return frame.Err(frame.ProtocolError, "GOAWAY on a stream")
		}
		if h.Length < 8 {
			return frame.Err(frame.FrameSizeError, "GOAWAY too short")
		}
		return c.annoy(1) // it will not open streams; those it has go on
	case frame.WindowUpdate:
		return c.windowUpdate(h, p)
	case frame.PushPromise:
		return frame.Err(frame.ProtocolError, "PUSH_PROMISE from a client")
	default: // unknown types are ignored (RFC 9113, 4.1)
		return c.annoy(1)
	}
}

// annoy counts a frame that brings nothing forward.
func (c *client) annoy(n int) error {
	l := &c.sw.limits
	if c.nuisance += n; c.nuisance > l.Nuisance {
		return frame.Err(frame.EnhanceYourCalm, "too many frames that bring nothing forward")
	}
	if c.nuisance > l.Nuisance/20 {
		c.haste += 2 * n
	}
	return nil
}

// please forgives n for something that was brought forward.
func (c *client) please(n int) { c.nuisance = max(0, c.nuisance-n) }

const (
	// forAnswer is what a whole answer of a server forgives: what clients send
	// behind one, such as window updates for its last bytes.
	forAnswer = 4
	// forData is what so many bytes of an answer in one frame forgive.
	forData      = 1
	forDataBytes = 1 << 10
	// longBlock is what a header list that is too long counts, beside a KiB of
	// its block each: decoded it may be a thousand times that (HPACK bombs).
	longBlock = 4
)

func (c *client) data(h frame.Header, p []byte) error {
	if h.Stream == 0 {
		return frame.Err(frame.ProtocolError, "DATA on stream 0")
	}
	p, pad, err := frame.Unpad(h, p)
	if err != nil {
		return err
	}
	if !c.recv.Receive(len(p), pad) {
		return frame.Err(frame.FlowControlError, "more DATA than the connection's window")
	}
	if pad > 0 {
		c.release(0)
	}
	end := h.Flags.Has(frame.EndStream)
	if len(p) == 0 && !end {
		if err := c.annoy(1); err != nil {
			return err
		}
	}
	s := c.streams[h.Stream]
	if s == nil {
		c.release(len(p))
		return c.stray(h)
	}
	if s.up.ended {
		c.release(len(p))
		return c.streamError(h.Stream, frame.StreamClosed)
	}
	if !s.up.Receive(len(p), pad) && (c.acked || s.up.Overrun() > frame.DefaultWindow-int64(c.sw.limits.Window)) {
		c.release(len(p))
		return c.streamError(h.Stream, frame.FlowControlError)
	}
	if s.length >= 0 && (s.up.Received() > s.length || end && s.up.Received() < s.length) {
		c.release(len(p))
		return c.streamError(h.Stream, frame.ProtocolError)
	}
	if s.relay != nil && s.relay.MaxBody > 0 && s.up.Received() > s.relay.MaxBody && !s.up.cut {
		c.release(len(p))
		s.giveUp(frame.Cancel, bodyTooLarge)
		return nil
	}
	s.up.data(p, end)
	return nil
}

// idle reports whether no stream of that id has ever been.
func (c *client) idle(id uint32) bool { return id > c.last || id&1 == 0 }

// unserved reports whether a stream came behind those of the last GOAWAY: its
// frames are ignored (RFC 9113, 6.8).
func (c *client) unserved(id uint32) bool { return c.goneAway && id > c.served }

// stray answers DATA or HEADERS on a stream that is not open (RFC 9113, 5.1).
func (c *client) stray(h frame.Header) error {
	if c.idle(h.Stream) {
		return frame.Err(frame.ProtocolError, "a frame on an idle stream")
	}
	if h.Type == frame.Data && c.closed.rest(h) {
		return nil
	}
	if err := c.annoy(1 + h.Length>>12); err != nil { // a whole connection window of it: 320
		return err
	}
	if c.unserved(h.Stream) {
		return nil
	}
	if !c.closed.has(h.Stream) {
		// Closed by both sides, or by the client: it knows.
		c.out = frame.AppendReset(c.out, h.Stream, frame.StreamClosed)
		c.closed.add(h.Stream, 0)
	}
	return nil
}

func (c *client) headers(h frame.Header, p []byte) error {
	if h.Stream&1 == 0 {
		return frame.Err(frame.ProtocolError, "HEADERS on a stream that no client may open")
	}
	p, _, err := frame.Unpad(h, p)
	if err != nil {
		return err
	}
	if h.Stream <= c.last && c.streams[h.Stream] == nil && !c.unserved(h.Stream) && !c.closed.has(h.Stream) {
		return frame.Err(frame.StreamClosed, "HEADERS on a closed stream")
	}
	c.in.begin(h.Stream, h.Flags.Has(frame.EndStream))
	return c.fragment(h, p)
}

func (c *client) fragment(h frame.Header, p []byte) error {
	last := h.Flags.Has(frame.EndHeaders)
	if err := c.in.add(p, last); err != nil || !last {
		return err
	}
	s := c.streams[h.Stream]
	switch {
	case s != nil:
		return c.trailers(s)
	case h.Stream <= c.last:
		return c.stray(frame.Header{Type: frame.Headers, Stream: h.Stream})
	}
	c.last = h.Stream
	if c.in.over { // it has cost more than its answer will
		if err := c.annoy(longBlock + c.in.raw>>10); err != nil {
			return err
		}
	}
	if c.goneAway {
		return c.annoy(1) // it will learn from the GOAWAY that this was not served
	}
	return c.open(h.Stream)
}

func (c *client) trailers(s *stream) error {
	switch {
	case s.up.ended:
		return c.streamError(s.id, frame.StreamClosed)
	case !c.in.end || checkTrailers(c.in.fields) != "":
		return c.streamError(s.id, frame.ProtocolError)
	case c.in.over:
		return c.streamError(s.id, frame.EnhanceYourCalm)
	case s.length >= 0 && s.up.Received() < s.length:
		return c.streamError(s.id, frame.ProtocolError)
	}
	s.up.finish(c.in.fields)
	return nil
}

// open takes a new stream: the block in c.in is its request.
func (c *client) open(id uint32) error {
	if len(c.streams) >= c.sw.limits.Streams {
		return c.streamError(id, frame.RefusedStream)
	}
	r := &c.request
	why := parseRequest(r, c.in.fields)
	if why != "" && !c.in.over {
		return c.streamError(id, frame.ProtocolError)
	}
	end := c.in.end
	if r.length > 0 && end {
		return c.streamError(id, frame.ProtocolError)
	}
	s := c.newStream()
	s.id, s.c, s.length, s.grpc, s.bare = id, c, r.length, r.GRPC(), r.Method == http.MethodHead
	s.down = half{s: s, to: &c.link}
	s.up = half{s: s, from: &c.link, ended: end, closed: end, cut: true}
	s.up.Half = flow.New(0, int64(c.sw.limits.Window), int64(c.sw.limits.Window))
	s.down.Half = flow.New(c.window, flow.Unlimited, flow.Unlimited)
	if c.streams[id] = s; len(c.streams) == 1 && c.conn != nil {
		c.conn.Step(protocols.StateActive)
	}
	c.bare = 0
	if len(c.streams) > c.ramp {
		c.haste++
	}
	if c.in.over {
		s.reply(headersTooLarge)
		return nil
	}
	c.route(s, r, end)
	return nil
}

// mostFree bounds client.free.
const mostFree = 16

// newStream returns a zero stream.
func (c *client) newStream() *stream {
	n := len(c.free)
	if n == 0 {
		return new(stream)
	}
	s := c.free[n-1]
	c.free = c.free[:n-1]
	*s = stream{}
	return s
}

// streamError resets a stream, open or not.
func (c *client) streamError(id uint32, code frame.Code) error {
	s := c.streams[id]
	if err := c.annoy(s.price()); err != nil { // made-you-reset: it costs what a reset of the client's costs
		return err
	}
	if s != nil {
		s.reset(code, sideClient|sideServer)
		return nil
	}
	c.out = frame.AppendReset(c.out, id, code)
	c.closed.add(id, int64(c.sw.limits.Window))
	return nil
}

// price is what the reset of a stream counts, open or not.
func (s *stream) price() int {
	if s != nil && !s.started {
		return 2 // its server has begun to work for nothing (CVE-2023-44487)
	}
	return 1
}

// ring remembers the last streams that were reset here: their clients may not
// know yet.
type ring struct {
	list []closed
	next int
}

// closed is a stream that was reset here, and what its client may send of it before
// it knows: it has the credit.
type closed struct {
	id     uint32
	credit int64
}

const ringSize = 128

func (r *ring) add(id uint32, credit int64) {
	s := closed{id, credit}
	if len(r.list) < ringSize {
		r.list = append(r.list, s)
		return
	}
	r.list[r.next] = s
	r.next = (r.next + 1) % ringSize
}

func (r *ring) index(id uint32) int {
	return slices.IndexFunc(r.list, func(s closed) bool { return s.id == id })
}

func (r *ring) has(id uint32) bool { return r.index(id) >= 0 }

// rest reports whether DATA is the rest of what a client has sent before it knew.
func (r *ring) rest(h frame.Header) bool {
	i := r.index(h.Stream)
	if i < 0 || int64(h.Length) > r.list[i].credit {
		return false
	}
	if h.Flags.Has(frame.EndStream) {
		r.list[i] = closed{} // nothing more comes
		return true
	}
	r.list[i].credit -= int64(h.Length)
	return h.Length > 0
}

// remove forgets a stream that its client has reset, too, and reports whether it was known.
func (r *ring) remove(id uint32) bool {
	i := r.index(id)
	if i >= 0 {
		r.list[i] = closed{}
	}
	return i >= 0
}
