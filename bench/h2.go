package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
)

// http2 is an HTTP/2 connection with a fixed number of calls in flight, REST
// or gRPC. It does the least a client may: headers are indexed after the first
// request, as clients do, and those of the answers are not decoded; the
// answers' bodies are.
//
// Flow control is left out on purpose. Ours is opened wide at the start; what
// is on its way to the server, h2Streams short messages, always fits into the
// smallest window there is (64 KiB), because every server opens it again long
// before it is used up.
type http2 struct {
	c       *tls.Conn
	r       *bufio.Reader
	out     []byte // frames to be written
	next    uint32 // id of the next stream
	indexed bool   // the server's table has our headers
	fields  [][2]string
	body    string
	want    string
	got     map[uint32]int // bytes of the answer so far, by stream
	buf     []byte
	streams int // in flight
}

const (
	h2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	wide      = 1 << 30
)

// Frame types and flags (RFC 9113, 6).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8

	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4

	settingWindow = 0x4
)

func openHTTP2(streams int, method, path, contentType, body, want string) opener {
	return func(ctx context.Context, h *house, addr string) (load, error) {
		return openClients(h2Conns, func() (client, error) {
			c, err := dialTLS(ctx, h, addr, "h2")
			if err != nil {
				return nil, err
			}
			s := newHTTP2(c, h.authorization(), method, path, contentType, body, want)
			s.streams = streams
			s.greet()
			return s, s.flush()
		})
	}
}

func newHTTP2(c *tls.Conn, authorization, method, path, contentType, body, want string) *http2 {
	fields := [][2]string{
		{":method", method},
		{":scheme", "https"},
		{":authority", "localhost"},
		{":path", path},
		{"user-agent", "bench/1"},
		{"accept", contentType},
		{"authorization", authorization},
	}
	if body != "" {
		fields = append(fields, [2]string{"content-type", contentType})
	}
	if contentType == "application/grpc" {
		fields = append(fields, [2]string{"te", "trailers"})
	}
	return &http2{c: c, r: bufio.NewReaderSize(c, 16<<10), next: 1, fields: fields, body: body, want: want, got: map[uint32]int{}, streams: 1}
}

// greet adds what a client says first.
func (s *http2) greet() {
	s.out = append(s.out, h2Preface...)
	s.frame(frameSettings, 0, 0, binary.BigEndian.AppendUint32([]byte{0, settingWindow}, wide))
	s.frame(frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, wide))
}

// frame adds a frame to what is to be written.
func (s *http2) frame(typ, flags byte, stream uint32, payload []byte) {
	n := len(payload)
	s.out = append(s.out, byte(n>>16), byte(n>>8), byte(n), typ, flags)
	s.out = binary.BigEndian.AppendUint32(s.out, stream)
	s.out = append(s.out, payload...)
}

func (s *http2) flush() error {
	_, err := s.c.Write(s.out)
	s.out = s.out[:0]
	return err
}

// request adds a request.
func (s *http2) request() {
	flags := byte(flagEndHeaders)
	if s.body == "" {
		flags |= flagEndStream
	}
	s.frame(frameHeaders, flags, s.next, s.block())
	if s.body != "" {
		s.frame(frameData, flagEndStream, s.next, []byte(s.body))
	}
	s.next += 2
}

// block is the header block (RFC 7541): the first time all fields as literals
// with incremental indexing (6.2.1), from then on as what became of them in
// the dynamic table (6.1), where the youngest has index 62.
func (s *http2) block() (b []byte) {
	for i, f := range s.fields {
		if s.indexed {
			b = append(b, 0x80|byte(62+len(s.fields)-1-i))
			continue
		}
		b = append(b, 0x40)
		for _, s := range f {
			b = append(appendLength(b, len(s)), s...)
		}
	}
	s.indexed = true
	return b
}

// appendLength adds the length of a string that is not Huffman-coded (RFC 7541, 5.1 and 5.2).
func appendLength(b []byte, n int) []byte {
	if n < 127 {
		return append(b, byte(n))
	}
	return binary.AppendUvarint(append(b, 127), uint64(n-127))
}

func (s *http2) do(n int) error {
	for range min(n, s.streams) {
		s.request()
	}
	begun := min(n, s.streams)
	for done := 0; done < n; {
		if s.r.Buffered() == 0 { // all that came has been dealt with
			if err := s.flush(); err != nil {
				return err
			}
		}
		ended, err := s.read()
		if err != nil {
			return err
		}
		if !ended {
			continue
		}
		done++
		if begun < n {
			begun++
			s.request()
		}
	}
	return s.flush()
}

// read reads one frame and reports whether it ended a stream.
func (s *http2) read() (ended bool, err error) {
	var head [9]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return false, err
	}
	length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	typ, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
	if cap(s.buf) < length {
		s.buf = make([]byte, length)
	}
	payload := s.buf[:length]
	if _, err := io.ReadFull(s.r, payload); err != nil {
		return false, err
	}
	switch typ {
	case frameData:
		at := s.got[stream]
		if at+length > len(s.want) || string(payload) != s.want[at:at+length] {
			return false, &answerError{string(payload), s.want[min(at, len(s.want)):]}
		}
		s.got[stream] = at + length
		return s.ends(stream, flags)
	case frameHeaders:
		return s.ends(stream, flags)
	case frameSettings, framePing:
		if flags&flagAck == 0 {
			if typ == frameSettings {
				payload = nil
			}
			s.frame(typ, flagAck, 0, payload)
		}
	case frameReset, frameGoAway:
		return false, fmt.Errorf("the server ended stream %d with frame type %d, %q", stream, typ, payload)
	}
	return false, nil
}

// ends looks whether a frame is its stream's last, and whether the answer is whole then.
func (s *http2) ends(stream uint32, flags byte) (bool, error) {
	if flags&flagEndStream == 0 {
		return false, nil
	}
	if s.got[stream] != len(s.want) {
		return false, &answerError{fmt.Sprintf("%d bytes", s.got[stream]), fmt.Sprintf("%d bytes", len(s.want))}
	}
	delete(s.got, stream)
	return true, nil
}

func (s *http2) close() { _ = s.c.Close() }
