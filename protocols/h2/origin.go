package h2

import (
	"encoding/binary"
	"errors"
	"strconv"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// origin is a connection to a server as far as its streams go: to one in this
// process (back), or upstream (trunk). What a server sends on a stream means
// the same in both.
type origin struct {
	server

	conn *link
	part []byte // the beginning of a frame
}

// server is where the two differ.
type server interface {
	// stream returns the stream that the server knows by that id, or nil if it
	// has ended. The stream's client is locked until the next call.
	stream(id uint32) *stream
	// left takes note that a stream has ended.
	left(s *stream)
	// heard takes note that the server has sent something for a client.
	heard(s *stream)
	ping(ack bool, data [8]byte)
	settings(p []byte) error
	goAway(last uint32, code frame.Code, why string)
	// credit takes note of connection credit.
	credit(n int64) error
}

// errOrigin ends a connection to a server that breaks the protocol.
var errOrigin = errors.New("h2: the server broke the protocol")

// take feeds what the server sends to the state machine, one frame after the
// other; what is not whole yet it keeps.
func (o *origin) take(p []byte) error {
	for len(o.part) > 0 { // complete the frame that has begun
		want := frame.HeaderLen
		if len(o.part) >= want {
			want += frame.Parse(o.part).Length
		}
		if want > frame.HeaderLen+frame.MaxLen {
			return errOrigin
		}
		n := min(want-len(o.part), len(p))
		o.part = append(o.part, p[:n]...)
		p = p[n:]
		if len(o.part) < want {
			return nil
		}
		if want > frame.HeaderLen || frame.Parse(o.part).Length == 0 {
			if err := o.frame(frame.Parse(o.part), o.part[frame.HeaderLen:]); err != nil {
				return err
			}
			o.part = o.part[:0]
		}
	}
	for len(p) >= frame.HeaderLen {
		h := frame.Parse(p)
		if h.Length > frame.MaxLen {
			return errOrigin
		}
		n := frame.HeaderLen + h.Length
		if len(p) < n {
			break
		}
		if err := o.frame(h, p[frame.HeaderLen:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	o.part = append(o.part, p...)
	return nil
}

func (o *origin) frame(h frame.Header, p []byte) error {
	if (o.conn.in.stream != 0) != (h.Type == frame.Continuation) || h.Type == frame.Continuation && h.Stream != o.conn.in.stream {
		return errOrigin // an interrupted header block, or the middle of none
	}
	switch h.Type {
	case frame.Data:
		return o.data(h, p)
	case frame.Headers:
		p, _, err := frame.Unpad(h, p)
		if err != nil {
			return err
		}
		if h.Stream&1 == 0 {
			return errOrigin
		}
		o.conn.in.begin(h.Stream, h.Flags.Has(frame.EndStream))
		return o.fragment(h, p)
	case frame.Continuation:
		return o.fragment(h, p)
	case frame.RSTStream:
		return o.reset(h, p)
	case frame.Settings:
		if h.Stream != 0 {
			return errOrigin
		}
		if !h.Flags.Has(frame.Ack) {
			if len(p)%6 != 0 {
				return errOrigin
			}
			return o.settings(p)
		}
	case frame.Ping:
		if h.Length != 8 {
			return errOrigin
		}
		o.ping(h.Flags.Has(frame.Ack), [8]byte(p))
	case frame.GoAway:
		if h.Length < 8 {
			return errOrigin
		}
		o.goAway(binary.BigEndian.Uint32(p)&frame.MaxStream, frame.Code(binary.BigEndian.Uint32(p[4:])), string(p[8:]))
	case frame.WindowUpdate:
		if h.Length != 4 {
			return errOrigin
		}
		n := int64(binary.BigEndian.Uint32(p) & frame.MaxStream)
		if h.Stream == 0 {
			return o.credit(n)
		}
		if s := o.stream(h.Stream); s != nil && !s.up.allow(n) {
			s.malformed()
		}
	case frame.PushPromise:
		return errOrigin
	case frame.Priority: // nobody's business
	}
	return nil
}

func (o *origin) reset(h frame.Header, p []byte) error {
	if h.Length != 4 {
		return errOrigin
	}
	s, code := o.stream(h.Stream), frame.Code(binary.BigEndian.Uint32(p))
	switch {
	case s == nil:
	case code == frame.NoError && s.down.ended:
		s.stop()
		s.part()
	default:
		if !s.started && (code == frame.InternalError || code == frame.ProtocolError) {
			s.fault = Broken
		}
		s.reset(code, sideClient)
	}
	return nil
}

func (o *origin) data(h frame.Header, p []byte) error {
	p, pad, err := frame.Unpad(h, p)
	if err != nil {
		return err
	}
	if !o.conn.recv.Receive(len(p), pad) {
		return errOrigin
	}
	switch {
	case o.conn.trunk != nil:
		o.conn.trunk.received(len(p))
	case pad > 0:
		o.conn.release(0)
	}
	s := o.stream(h.Stream)
	if s == nil || s.down.ended {
		o.conn.release(len(p))
		return nil
	}
	if !s.started {
		o.conn.release(len(p))
		s.malformed()
		return nil
	}
	// A server in this process is believed: more than its window is bounded by
	// the connection's.
	if allowed := s.down.Receive(len(p), pad); o.conn.trunk != nil {
		s.c.lent -= int64(pad)
		if !allowed {
			s.malformed()
			return nil
		}
	}
	o.heard(s)
	if len(p) >= forDataBytes {
		s.c.please(forData)
	}
	s.down.data(p, h.Flags.Has(frame.EndStream))
	return nil
}

func (o *origin) fragment(h frame.Header, p []byte) error {
	last := h.Flags.Has(frame.EndHeaders)
	if err := o.conn.in.add(p, last); err != nil || !last {
		return err
	}
	s, fields := o.stream(h.Stream), o.conn.in.fields
	if s == nil || s.down.ended {
		return nil
	}
	if o.conn.in.over {
		s.malformed()
		return nil
	}
	o.heard(s)
	tidy(fields)
	if s.started { // trailers
		if !o.conn.in.end || checkTrailers(fields) != "" {
			s.malformed()
			return nil
		}
		if s.c.tooLarge(fields) {
			s.giveUp(frame.Cancel, answerTooLarge)
			return nil
		}
		s.note(fields)
		s.down.finish(fields)
		return nil
	}
	status := checkResponse(fields)
	switch {
	case status == "" || status[0] == '1' && o.conn.in.end:
		s.malformed()
		return nil
	case status[0] == '1':
		if s.interim++; s.interim > mostInterim {
			s.malformed()
			return nil
		}
		if !s.c.tooLarge(fields) && (o.conn.trunk == nil || len(s.c.out) < outMost) { // else the client does not read, and nobody waits for it
			s.c.head(s.id, fields, false, 0)
		}
		return nil
	}
	fields = s.answered(fields)
	if s.c.tooLarge(fields) {
		s.giveUp(frame.Cancel, answerTooLarge)
		return nil
	}
	if s.call != nil && !s.grpc {
		s.status, _ = strconv.Atoi(status) // three digits
	}
	s.started = true
	if o.conn.in.end {
		s.note(fields)
		s.down.ended, s.down.closed = true, true
	}
	s.c.head(s.id, fields, o.conn.in.end, 0)
	if o.conn.in.end {
		s.down.over()
	}
	return nil
}

// mostInterim bounds the 1xx answers before an answer.
const mostInterim = 16

// note takes the call's status out of the last fields.
func (s *stream) note(fields []hpack.HeaderField) {
	if s.call == nil || !s.grpc {
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
