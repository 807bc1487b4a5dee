package frame

import (
	"encoding/binary"
	"fmt"
)

// Preface is what a client sends first (RFC 9113, 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

const (
	// HeaderLen is the length of a frame's header.
	HeaderLen = 9
	// MaxLen is the largest payload that every peer takes, and the largest this
	// package's callers send or take.
	MaxLen = 16 << 10
	// MaxWindow is the largest flow-control window (RFC 9113, 6.9.1).
	MaxWindow = 1<<31 - 1
	// DefaultWindow is every window's size before anybody has said anything.
	DefaultWindow = 1<<16 - 1
	// MaxStream is the largest stream id.
	MaxStream = 1<<31 - 1
)

// Type is what a frame is.
type Type uint8

// The types of frame (RFC 9113, 6).
const (
	Data         Type = 0
	Headers      Type = 1
	Priority     Type = 2
	RSTStream    Type = 3
	Settings     Type = 4
	PushPromise  Type = 5
	Ping         Type = 6
	GoAway       Type = 7
	WindowUpdate Type = 8
	Continuation Type = 9
)

// Flags say more about a frame. What a bit means depends on the type.
type Flags uint8

// The flags.
const (
	Ack         Flags = 0x1  // Settings, Ping
	EndStream   Flags = 0x1  // Data, Headers
	EndHeaders  Flags = 0x4  // Headers, PushPromise, Continuation
	Padded      Flags = 0x8  // Data, Headers, PushPromise
	HasPriority Flags = 0x20 // Headers
)

// Has reports whether all bits of b are set.
func (f Flags) Has(b Flags) bool { return f&b == b }

// Header is a frame's header.
type Header struct {
	Length int // of the payload
	Type   Type
	Flags  Flags
	Stream uint32
}

// Parse reads a header from the first HeaderLen bytes of b.
func Parse(b []byte) Header {
	_ = b[HeaderLen-1]
	return Header{
		Length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		Type:   Type(b[3]),
		Flags:  Flags(b[4]),
		Stream: binary.BigEndian.Uint32(b[5:]) & MaxStream,
	}
}

// Append adds h to b.
func (h Header) Append(b []byte) []byte {
	return append(b, byte(h.Length>>16), byte(h.Length>>8), byte(h.Length), byte(h.Type), byte(h.Flags),
		byte(h.Stream>>24), byte(h.Stream>>16), byte(h.Stream>>8), byte(h.Stream))
}

// AppendData adds a DATA frame.
func AppendData(b []byte, stream uint32, p []byte, end bool) []byte {
	h := Header{Length: len(p), Type: Data, Stream: stream}
	if end {
		h.Flags = EndStream
	}
	return append(h.Append(b), p...)
}

// AppendBlock adds a header block as a HEADERS frame and as many CONTINUATION
// frames as it takes.
func AppendBlock(b []byte, stream uint32, block []byte, end bool) []byte {
	h := Header{Type: Headers, Stream: stream}
	if end {
		h.Flags = EndStream
	}
	for {
		h.Length = min(len(block), MaxLen)
		if h.Length == len(block) {
			h.Flags |= EndHeaders
		}
		b = append(h.Append(b), block[:h.Length]...)
		if block = block[h.Length:]; len(block) == 0 {
			return b
		}
		h.Type, h.Flags = Continuation, 0
	}
}

// AppendReset adds a RST_STREAM frame.
func AppendReset(b []byte, stream uint32, code Code) []byte {
	b = Header{Length: 4, Type: RSTStream, Stream: stream}.Append(b)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

// AppendWindowUpdate adds a WINDOW_UPDATE frame; stream 0 is the connection.
func AppendWindowUpdate(b []byte, stream, n uint32) []byte {
	b = Header{Length: 4, Type: WindowUpdate, Stream: stream}.Append(b)
	return binary.BigEndian.AppendUint32(b, n)
}

// AppendPing adds a PING frame.
func AppendPing(b []byte, ack bool, data [8]byte) []byte {
	h := Header{Length: 8, Type: Ping}
	if ack {
		h.Flags = Ack
	}
	return append(h.Append(b), data[:]...)
}

// AppendGoAway adds a GOAWAY frame.
func AppendGoAway(b []byte, last uint32, code Code, why string) []byte {
	b = Header{Length: 8 + len(why), Type: GoAway}.Append(b)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, why...)
}

// Setting is one of a SETTINGS frame.
type Setting struct {
	ID    uint16
	Value uint32
}

// The settings (RFC 9113, 6.5.2).
const (
	HeaderTableSize      uint16 = 1
	EnablePush           uint16 = 2
	MaxConcurrentStreams uint16 = 3
	InitialWindowSize    uint16 = 4
	MaxFrameSize         uint16 = 5
	MaxHeaderListSize    uint16 = 6
)

// AppendSettings adds a SETTINGS frame.
func AppendSettings(b []byte, list ...Setting) []byte {
	b = Header{Length: 6 * len(list), Type: Settings}.Append(b)
	for _, s := range list {
		b = binary.BigEndian.AppendUint16(b, s.ID)
		b = binary.BigEndian.AppendUint32(b, s.Value)
	}
	return b
}

// AppendSettingsAck adds the answer to a SETTINGS frame.
func AppendSettingsAck(b []byte) []byte {
	return Header{Type: Settings, Flags: Ack}.Append(b)
}

// ParseSetting reads a setting from the first 6 bytes of p.
func ParseSetting(p []byte) Setting {
	return Setting{binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])}
}

// Unpad takes off a frame's padding, and a HEADERS frame's priority. It returns
// what is left, and how many bytes of the payload were padding.
func Unpad(h Header, p []byte) (rest []byte, pad int, err error) {
	if h.Flags.Has(Padded) {
		if len(p) == 0 {
			return nil, 0, Err(FrameSizeError, "padded frame without a pad length")
		}
		pad = 1 + int(p[0])
		if len(p) < pad {
			return nil, 0, Err(ProtocolError, "more padding than frame")
		}
		p = p[1 : len(p)-pad+1]
	}
	if h.Type == Headers && h.Flags.Has(HasPriority) {
		if len(p) < 5 {
			return nil, 0, Err(FrameSizeError, "HEADERS too short for its priority")
		}
		if binary.BigEndian.Uint32(p)&MaxStream == h.Stream {
			return nil, 0, Err(ProtocolError, "stream depends on itself")
		}
		p = p[5:]
	}
	return p, pad, nil
}

// Code is an error code (RFC 9113, 7).
type Code uint32

// The error codes.
const (
	NoError            Code = 0x0
	ProtocolError      Code = 0x1
	InternalError      Code = 0x2
	FlowControlError   Code = 0x3
	SettingsTimeout    Code = 0x4
	StreamClosed       Code = 0x5
	FrameSizeError     Code = 0x6
	RefusedStream      Code = 0x7
	Cancel             Code = 0x8
	CompressionError   Code = 0x9
	ConnectError       Code = 0xa
	EnhanceYourCalm    Code = 0xb
	InadequateSecurity Code = 0xc
	HTTP11Required     Code = 0xd
)

var names = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR",
	"REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

// String gives the name in the RFC.
func (c Code) String() string {
	if int64(c) < int64(len(names)) {
		return names[c]
	}
	return fmt.Sprintf("code %#x", uint32(c))
}

// Error ends a connection with its code.
type Error struct {
	Code Code
	Why  string
}

func (e *Error) Error() string { return "http2: " + e.Code.String() + ": " + e.Why }

// Err returns an *Error.
func Err(code Code, why string) error { return &Error{code, why} }
