package frame

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// Opcodes (RFC 6455, 5.2).
const (
	Continuation = 0x0
	Text         = 0x1
	Binary       = 0x2
	Close        = 0x8
	Ping         = 0x9
	Pong         = 0xa
)

const (
	// MaxHeader is the length of the longest header.
	MaxHeader = 14
	// MaxControl is how much payload a control frame may have (RFC 6455, 5.5).
	MaxControl = 125
)

// The close codes that violations have, and CodeNone, which stands for a close
// frame without one.
const (
	codeProtocol = 1002
	CodeNone     = 1005
	codeInvalid  = 1007
	codeTooBig   = 1009
)

// Error is what is wrong with a frame, as a close frame says it.
type Error struct {
	Code   int
	Reason string // at most 123 bytes
}

func (v *Error) Error() string { return fmt.Sprintf("frame: %s (%d)", v.Reason, v.Code) }

func wrong(reason string) error { return &Error{codeProtocol, reason} }

// Header is the head of a frame.
type Header struct {
	Op         byte
	Fin        bool // the last frame of its message
	Compressed bool // RSV1: the first frame of a message that is compressed
	Masked     bool
	Mask       [4]byte
	Size       int   // bytes of the header itself
	Len        int64 // bytes of payload
}

// Control reports whether it is the head of a control frame.
func (h *Header) Control() bool { return h.Op&8 != 0 }

// Parse reads the header that p begins with. It reports false if p holds only a
// part of it and nothing is wrong with that part.
func Parse(p []byte) (h Header, ok bool, err error) {
	if len(p) == 0 {
		return h, false, nil
	}
	h = Header{Op: p[0] & 0xf, Fin: p[0]&0x80 != 0, Compressed: p[0]&0x40 != 0, Size: 2}
	switch {
	case p[0]&0x30 != 0:
		return h, false, wrong("reserved bits are set")
	case h.Op&7 > Binary:
		return h, false, wrong("unknown opcode")
	case h.Control() && !h.Fin:
		return h, false, wrong("control frame is fragmented")
	case len(p) < 2:
		return h, false, nil
	}
	h.Masked = p[1]&0x80 != 0
	length := p[1] & 0x7f
	switch {
	case h.Control() && length > MaxControl:
		return h, false, wrong("control frame is longer than 125 bytes")
	case length == 126:
		h.Size += 2
	case length == 127:
		h.Size += 8
	}
	at := h.Size
	if h.Masked {
		h.Size += 4
	}
	if len(p) < h.Size {
		return h, false, nil
	}
	if h.Masked {
		h.Mask = [4]byte(p[at:])
	}
	switch length {
	case 126:
		h.Len = int64(binary.BigEndian.Uint16(p[2:]))
	case 127:
		h.Len = int64(binary.BigEndian.Uint64(p[2:]))
	default:
		h.Len = int64(length)
	}
	if h.Len < 0 || length == 126 && h.Len < 126 || length == 127 && h.Len <= 0xffff {
		return h, false, wrong("length is not encoded as it must be")
	}
	return h, true, nil
}

// Checker checks the frames of one direction in their order. The zero value
// expects frames without a mask, without extensions, and messages of no bytes.
type Checker struct {
	Masked       bool  // whether frames must have a mask; otherwise they must have none
	Deflate      bool  // permessage-deflate was negotiated
	MessageBytes int64 // of payload, over all frames of a message

	within bool // a message has begun
	size   int64
}

// Check says what is wrong with the next frame, as far as its header tells.
func (c *Checker) Check(h *Header) error {
	switch {
	case h.Masked != c.Masked && c.Masked:
		return wrong("frame is not masked")
	case h.Masked != c.Masked:
		return wrong("frame is masked")
	case h.Compressed && (!c.Deflate || h.Control() || h.Op == Continuation):
		return wrong("reserved bits are set")
	case h.Control():
		return nil
	case c.within != (h.Op == Continuation) && c.within:
		return wrong("message begins within another")
	case c.within != (h.Op == Continuation):
		return wrong("continuation of no message")
	}
	if !c.within {
		c.size = 0
	}
	if h.Len > c.MessageBytes-c.size {
		return tooBig(c.MessageBytes)
	}
	c.size += h.Len
	c.within = !h.Fin
	return nil
}

// Within reports whether a message has begun, of which the last frame was not checked yet.
func (c *Checker) Within() bool { return c.within }

func tooBig(most int64) error {
	return &Error{codeTooBig, fmt.Sprintf("message is larger than %d bytes", most)}
}

// Unmask applies a mask to p, which begins at byte pos of its payload.
func Unmask(p []byte, mask [4]byte, pos int64) {
	for i := range p {
		p[i] ^= mask[(pos+int64(i))&3]
	}
}

// CloseCode reads the payload of a close frame, without its mask: CodeNone if it
// is empty.
func CloseCode(payload []byte) (int, error) {
	switch len(payload) {
	case 0:
		return CodeNone, nil
	case 1:
		return 0, wrong("close frame with half a code")
	}
	code := int(binary.BigEndian.Uint16(payload))
	switch {
	case !Sendable(code):
		return 0, wrong("close code that must not be sent")
	case !utf8.Valid(payload[2:]):
		return 0, &Error{codeInvalid, "reason is not UTF-8"}
	}
	return code, nil
}

// Sendable reports whether a close frame may carry code (RFC 6455, 7.4, and
// IANA's registry of it).
func Sendable(code int) bool {
	switch code {
	case 1004, CodeNone, 1006, 1015:
		return false
	}
	return 1000 <= code && code < 1016 || 3000 <= code && code < 5000
}

// Append appends a whole frame of its message, of less than 64 KiB; a control frame has 125
// bytes at most. mask is for what a
// client sends; nil for none.
func Append(b []byte, op byte, payload []byte, mask *[4]byte) []byte {
	bit := byte(0)
	if mask != nil {
		bit = 0x80
	}
	if n := len(payload); n <= MaxControl {
		b = append(b, 0x80|op, bit|byte(n))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 0x80|op, bit|126), uint16(n))
	}
	if mask == nil {
		return append(b, payload...)
	}
	b = append(b, mask[:]...)
	at := len(b)
	b = append(b, payload...)
	Unmask(b[at:], *mask, 0)
	return b
}

// ClosePayload is the payload of a close frame. A reason that is too long is cut.
func ClosePayload(code int, reason string) []byte {
	if code == CodeNone {
		return nil
	}
	const most = MaxControl - 2
	for len(reason) > most || !utf8.ValidString(reason) {
		reason = reason[:min(len(reason)-1, most)] // never cut within a rune
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
}
