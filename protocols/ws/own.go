package ws

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"github.com/oneport-edge/oneport/protocols/ws/frame"
)

// own says of a message in a tunnel whether it is for the port itself, see inband.
type own uint8

const (
	ownNot own = iota
	ownMaybe
	ownYes
)

// mayBeOwn looks at the beginning of a frame, head and all.
func (f *flow) mayBeOwn(h *frame.Header, p []byte) bool {
	if f.t.inband == nil || h.Op != frame.Text || f.mute || f.from.server {
		return false
	}
	var begins [len(`{"oneport":`)]byte
	p = p[h.Size:]
	n := copy(begins[:], p[:min(int64(len(p)), h.Len)])
	if h.Masked {
		frame.Unmask(begins[:n], h.Mask, 0)
	}
	is := ownBegins(begins[:n])
	return is == ownYes || is == ownMaybe && (int64(n) < h.Len || !h.Fin)
}

// gap reports whether a message has just ended behind which the tunnel has something to say.
func (f *flow) gap() bool {
	return f.t.inband != nil && f.left == 0 && !f.hold && !f.check.Within() && f.to.saying.Load()
}

// ownBegins looks at the first bytes of a message.
func ownBegins(p []byte) own {
	n := min(len(p), len(inbandMark))
	switch {
	case !bytes.Equal(p[:n], inbandMark[:n]):
		return ownNot
	case n < len(inbandMark):
		return ownMaybe
	}
	return ownYes
}

// others looks again at a message that may be for the port, once there is more of it. It
// reports whether it is not: then what was held has gone on, and p with it.
func (f *flow) others(p []byte, now int64) bool {
	if f.own == ownNot {
		return false
	}
	switch f.own = ownBegins(f.packed); f.own {
	case ownMaybe:
		return false
	case ownYes:
		f.held = nil
		if len(f.packed) > inbandMost {
			f.refuse(&frame.Error{Code: CloseTooBig, Reason: inbandTooBig})
		}
		return false
	case ownNot:
	}
	held := slices.Concat(f.held, p)
	f.hold, f.held, f.packed = false, nil, nil
	f.to.pass(held, 0, f.left > 0, f.check.Within(), now)
	return true
}

// ownEnded takes the end of a message that is for the port, or was too short to be.
func (f *flow) ownEnded(now int64) {
	is, held, msg := f.own, f.held, f.packed
	f.hold, f.own, f.held, f.packed = false, ownNot, nil, nil
	switch {
	case f.mute:
	case is == ownMaybe:
		f.to.pass(held, 0, false, false, now)
	case !utf8.Valid(msg):
		f.refuse(&frame.Error{Code: CloseInvalidData, Reason: "text is not UTF-8"})
	default:
		f.t.inband.take(msg)
	}
}
