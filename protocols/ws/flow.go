package ws

import (
	"bytes"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws/frame"
)

// flow is one direction of an aware tunnel. It belongs to the goroutine that runs it.
type flow struct {
	t        *aware
	from, to *lane
	check    frame.Checker
	bucket   bucket // of what comes from the client: messages
	bytes    bucket // and bytes
	inflater frame.Inflater

	at   frame.Header // of the frame that has begun
	left int64        // of its payload
	size int64        // of the message's frames so far
	deaf bool         // nothing that comes is looked at
	mute bool         // only a close frame counts

	// A compressed message is held until it is known what it inflates to, and one of text
	// until it is known whether it is for the port.
	hold   bool
	own    own
	held   []byte // as it came
	packed []byte // its payload, without masks
}

// run moves what from sends, until that ends or both sides of it have closed.
func (f *flow) run(ahead []byte) {
	small := make([]byte, smallRead)
	buf, have := small, 0
	var big *[bigRead]byte
	defer func() {
		if big != nil {
			bigBuffers.Put(big)
		}
	}()
	if len(ahead) > 0 {
		have = copy(buf, ahead[f.move(ahead, f.t.server.now()):])
	}
	for {
		n, err := f.from.conn.Read(buf[have:])
		if n > 0 {
			now := f.t.server.now()
			f.from.heard.Store(now)
			have += n
			full := have == len(buf)
			rest := buf[f.move(buf[:have], now):have] // less than a control frame
			switch {
			case full && big == nil:
				big, _ = bigBuffers.Get().(*[bigRead]byte)
				buf = big[:]
			case !full && big != nil:
				buf = small
			}
			if have = copy(buf, rest); len(buf) == smallRead && big != nil {
				bigBuffers.Put(big)
				big = nil
			}
		}
		if err != nil {
			f.t.left(f, err)
			return
		}
	}
}

// move hands the frames in p on, and returns how much of p that was. What is left is
// part of a header, or of a control frame.
func (f *flow) move(p []byte, now int64) int {
	var start, i, head int
	data := f.left > 0 // more than control frames
	if !f.hold {
		head = int(min(f.left, int64(len(p)))) // of a frame that has begun
	}
	for !f.deaf {
		if k := int(min(f.left, int64(len(p)-i))); k > 0 {
			f.payload(p[i : i+k])
			i += k
			if f.others(p[start:i], now) {
				start, head = i, 0
			}
			if f.left > 0 {
				break // p is used up
			}
		}
		if f.left == 0 && f.hold && f.at.Fin {
			f.emit(p[start:i], head, false, now)
			start, head = i, 0
			f.release(now)
			continue
		}
		if i > start && f.gap() {
			f.emit(p[start:i], head, false, now) // there may be no other end of a message for long
			start, head = i, 0
		}
		h, size, err := f.next(p[i:], now)
		if size == 0 && err == nil {
			break
		}
		maybe := err == nil && f.mayBeOwn(&h, p[i:])
		if err != nil || h.Control() || h.Compressed || maybe { // what is before goes first
			f.emit(p[start:i], head, false, now)
			start, head = i, 0
		}
		f.begin(&h, p[i:i+size], err, maybe, now)
		i += size
		if !h.Control() {
			f.at, f.left, data = h, h.Len, true
			f.tally(&h)
		}
		if err != nil || h.Control() {
			start = i
		}
	}
	if f.deaf {
		return len(p)
	}
	if data {
		f.from.moved.Store(now)
	}
	f.emit(p[start:i], head, f.left > 0, now)
	return i
}

// tally counts a message once its last frame has begun.
func (f *flow) tally(h *frame.Header) {
	if f.size += h.Len; !h.Fin || f.mute {
		return
	}
	if f.from.server {
		f.t.count.out.add(f.size)
	} else {
		f.t.count.in.add(f.size)
	}
	f.size = 0
}

// begin takes a frame's head, or all of a control frame; p is empty for bytes that are neither.
func (f *flow) begin(h *frame.Header, p []byte, err error, maybe bool, now int64) {
	switch {
	case err != nil:
		f.refuse(err)
		f.deaf = len(p) == 0 // who can say where a frame begins now
	case h.Control():
		f.control(h, p, now)
	case h.Compressed && !f.mute:
		f.hold = true
	case maybe:
		f.hold, f.own = true, ownMaybe
	}
}

// next reads the header that p begins with, and what else is taken with it: all of a
// control frame. size is how much that is; zero if p holds too little, or bytes that are
// no header.
func (f *flow) next(p []byte, now int64) (h frame.Header, size int, err error) {
	h, ok, err := frame.Parse(p)
	if err != nil || !ok {
		return h, 0, err
	}
	size = h.Size
	if h.Control() {
		if size += int(h.Len); len(p) < size {
			return h, 0, nil
		}
	}
	if f.mute {
		return h, size, nil
	}
	if err = f.check.Check(&h); err == nil {
		err = f.count(&h, now)
	}
	if f.t.call != nil && f.t.call.Span() != nil && err == nil && (h.Op == frame.Text || h.Op == frame.Binary) {
		f.t.call.Span().Message(protocols.Message{FromClient: f == &f.t.rise, Text: h.Op == frame.Text, Bytes: h.Len})
	}
	return h, size, err
}

// payload takes note of a piece of a data frame's payload.
func (f *flow) payload(p []byte) {
	if f.hold {
		at := len(f.packed)
		f.packed = append(f.packed, p...)
		if f.at.Masked {
			frame.Unmask(f.packed[at:], f.at.Mask, f.at.Len-f.left)
		}
	}
	f.left -= int64(len(p))
}

// emit hands a piece on, or keeps it. See lane.pass.
func (f *flow) emit(p []byte, head int, mid bool, now int64) {
	switch {
	case len(p) == 0 || f.mute || f.own == ownYes:
	case f.hold:
		f.held = append(f.held, p...)
		if int64(len(f.held)) > 2*f.t.opts.MessageBytes+heldHeaders {
			f.refuse(&frame.Error{Code: CloseTooBig, Reason: "message has too many fragments"})
		}
	default:
		f.to.pass(p, head, mid, f.check.Within(), now)
	}
}

// heldHeaders is how much the frames of a message that is held may have besides its
// payload, and as much again.
const heldHeaders = 4 << 10

// release hands on a compressed message that is whole, if it may pass.
func (f *flow) release(now int64) {
	if f.own != ownNot {
		f.ownEnded(now)
		return
	}
	err := f.inflater.Measure(f.packed, f.t.opts.MessageBytes)
	held := f.held
	f.hold, f.held, f.packed = false, nil, nil
	switch {
	case f.mute:
	case err != nil:
		f.refuse(err)
	default:
		f.to.pass(held, 0, false, false, now)
	}
}

// count says whether the client may send one more. A frame's bytes count when its head is there.
func (f *flow) count(h *frame.Header, now int64) error {
	more := h.Op == frame.Continuation && h.Len > 0 // of a message that was counted
	switch {
	case h.Op == frame.Close:
	case f.bucket.perSecond > 0 && !more && !f.bucket.take(1, now):
		return &frame.Error{Code: CloseTryAgainLater, Reason: "too many messages"}
	case f.bytes.perSecond > 0 && !f.bytes.take(float64(h.Len)+float64(h.Size), now):
		return &frame.Error{Code: CloseTryAgainLater, Reason: "too many bytes"}
	}
	return nil
}

// control takes a whole control frame.
func (f *flow) control(h *frame.Header, p []byte, now int64) {
	switch h.Op {
	case frame.Pong:
		if f.mute {
			return
		}
		if f.ours(h, p[h.Size:]) {
			f.t.ponged(f.from, now)
			return
		}
	case frame.Close:
		f.close(h, p[h.Size:], now)
		return
	}
	if !f.mute {
		f.to.pass(p, 0, false, f.check.Within(), now)
	}
}

// ours reports whether a pong answers a ping of the tunnel's.
func (f *flow) ours(h *frame.Header, payload []byte) bool {
	mark := f.t.server.mark
	if len(payload) != len(mark) {
		return false
	}
	if h.Masked {
		frame.Unmask(mark[:], h.Mask, 0)
	}
	return bytes.Equal(payload, mark[:])
}

// close takes a close frame.
func (f *flow) close(h *frame.Header, payload []byte, now int64) {
	payload = bytes.Clone(payload)
	if h.Masked {
		frame.Unmask(payload, h.Mask, 0)
	}
	code, err := frame.CloseCode(payload)
	if err != nil {
		f.refuse(err)
		payload, code = nil, frame.CodeNone // it has closed, however badly
	}
	f.deaf = true // nothing may follow
	f.t.asks(f, payload, code, now)
}

// refuse ends the tunnel because of what has come.
func (f *flow) refuse(err error) {
	if f.mute {
		return
	}
	f.mute, f.hold, f.own, f.held, f.packed = true, false, ownNot, nil, nil
	f.t.violated(f, err)
}
