package h2_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

func TestAlive(t *testing.T) {
	inBubble(t, options{}, func(_ *testing.T, e *edge) { e.alive(); e.alive() })
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// Streams of a connection, one in each state.
const (
	conn       = 0
	open       = 1
	halfClosed = 3 // the request has ended, the answer has not
	closed     = 5 // by END_STREAM both ways
	wasReset   = 7 // by the client
	skipped    = 9 // closed, for a higher one was opened
	last       = 11
	idle       = 101
	even       = 2 // no client opens it
)

// inStates gives a client with a stream in each state.
func inStates(e *edge) *peer {
	c := e.dial()
	c.send(c.post(open, "/echo"), c.get(halfClosed, "/wait"), c.get(closed, "/hello"), c.get(wasReset, "/wait"), rst(wasReset, frame.Cancel),
		c.get(last, "/hello"))
	c.seen()
	return c
}

// What a frame leads to.
const (
	nothing   = "nothing"
	connError = "connection: "
	reset     = "stream: "
)

func connErr(code frame.Code) string { return connError + code.String() }
func strmErr(code frame.Code) string { return reset + code.String() }

// TestFramesInStates sends a frame on a stream in each state. The comments
// name sections of RFC 9113.
func TestFramesInStates(t *testing.T) {
	// An indexed field of the static table: valid, but no request.
	oneField := []byte{0x82}
	trailer := []byte("\x00\x01a\x01b") // a literal, not indexed
	protocol, closedErr, size := connErr(frame.ProtocolError), strmErr(frame.StreamClosed), connErr(frame.FrameSizeError)
	cases := []struct {
		name    string
		typ     frame.Type
		flags   frame.Flags
		payload []byte
		want    map[uint32][]string // what is right, by stream
	}{
		{"DATA", frame.Data, 0, []byte("x"), map[uint32][]string{
			conn: {protocol}, idle: {protocol}, even: {protocol}, // 6.1, 5.1
			open: {nothing}, halfClosed: {closedErr}, closed: {closedErr, connErr(frame.StreamClosed)},
			wasReset: {closedErr, connErr(frame.StreamClosed)}, skipped: {closedErr, connErr(frame.StreamClosed)},
		}},
		{"DATA without the pad length", frame.Data, frame.Padded, nil, map[uint32][]string{
			open: {size}, halfClosed: {size, closedErr}, closed: {size, closedErr},
		}},
		{"DATA, too much padding", frame.Data, frame.Padded, []byte{3, 0, 0}, map[uint32][]string{open: {protocol}, halfClosed: {protocol, closedErr}}},
		{"DATA, all padding", frame.Data, frame.Padded, []byte{2, 0, 0}, map[uint32][]string{open: {nothing}, halfClosed: {closedErr}}},
		{"HEADERS, no request", frame.Headers, frame.EndHeaders | frame.EndStream, oneField, map[uint32][]string{
			conn: {protocol}, even: {protocol}, idle: {strmErr(frame.ProtocolError)},
			open:       {strmErr(frame.ProtocolError)}, // 8.1: no pseudo-header fields in trailers
			halfClosed: {closedErr}, closed: {connErr(frame.StreamClosed), closedErr}, wasReset: {connErr(frame.StreamClosed), closedErr},
			skipped: {protocol, connErr(frame.StreamClosed), closedErr}, // 5.1.1
		}},
		{"trailers", frame.Headers, frame.EndHeaders | frame.EndStream, trailer, map[uint32][]string{open: {nothing}, halfClosed: {closedErr}}},
		{"trailers without END_STREAM", frame.Headers, frame.EndHeaders, trailer, map[uint32][]string{open: {strmErr(frame.ProtocolError)}}},
		{"trailers, bad name", frame.Headers, frame.EndHeaders | frame.EndStream, []byte("\x00\x01A\x01b"), map[uint32][]string{open: {strmErr(frame.ProtocolError)}}},
		{"HEADERS, bad HPACK", frame.Headers, frame.EndHeaders | frame.EndStream, []byte{0xff, 0xff, 0xff}, map[uint32][]string{
			open: {connErr(frame.CompressionError)}, halfClosed: {connErr(frame.CompressionError)}, idle: {connErr(frame.CompressionError)},
		}},
		{"HEADERS, half a field", frame.Headers, frame.EndHeaders, []byte{0, 1}, map[uint32][]string{
			open: {connErr(frame.CompressionError)}, idle: {connErr(frame.CompressionError)},
		}},
		{"HEADERS without the pad length", frame.Headers, frame.Padded | frame.EndHeaders, nil, map[uint32][]string{open: {size}, idle: {size}}},
		{"HEADERS, too much padding", frame.Headers, frame.Padded | frame.EndHeaders, []byte{9, 0}, map[uint32][]string{open: {protocol}, idle: {protocol}}},
		{"HEADERS, half a priority", frame.Headers, frame.HasPriority | frame.EndHeaders, []byte{0, 0, 0, 0}, map[uint32][]string{idle: {size}}},
		{"PRIORITY", frame.Priority, 0, []byte{0, 0, 0, 13, 1}, map[uint32][]string{
			conn: {protocol}, idle: {nothing}, even: {nothing}, open: {nothing}, halfClosed: {nothing}, closed: {nothing}, wasReset: {nothing},
		}},
		{"PRIORITY, short", frame.Priority, 0, []byte{0, 0, 0, 13}, map[uint32][]string{ // 6.3
			conn: {protocol}, open: {strmErr(frame.FrameSizeError)}, halfClosed: {strmErr(frame.FrameSizeError)},
			closed: {nothing, strmErr(frame.FrameSizeError)}, idle: {nothing, size}, // no RST_STREAM on an idle stream (6.4)
		}},
		{"RST_STREAM", frame.RSTStream, 0, u32(uint32(frame.Cancel)), map[uint32][]string{
			conn: {protocol}, idle: {protocol}, even: {protocol}, // 6.4
			open: {nothing}, halfClosed: {nothing}, closed: {nothing}, wasReset: {nothing},
		}},
		{"RST_STREAM, short", frame.RSTStream, 0, []byte{0, 0, 0}, map[uint32][]string{open: {size}, halfClosed: {size}, closed: {size}}},
		{"RST_STREAM, long", frame.RSTStream, 0, make([]byte, 5), map[uint32][]string{open: {size}, closed: {size}}},
		{"SETTINGS", frame.Settings, 0, nil, map[uint32][]string{conn: {nothing}, open: {protocol}, idle: {protocol}}},
		{"SETTINGS, odd length", frame.Settings, 0, make([]byte, 7), map[uint32][]string{conn: {size}}},
		{"SETTINGS, ack with a payload", frame.Settings, frame.Ack, make([]byte, 6), map[uint32][]string{conn: {size}}},
		{"SETTINGS, push 2", frame.Settings, 0, append([]byte{0, 2}, u32(2)...), map[uint32][]string{conn: {protocol}}},
		{"SETTINGS, window 2^31", frame.Settings, 0, append([]byte{0, 4}, u32(1<<31)...), map[uint32][]string{conn: {connErr(frame.FlowControlError)}}},
		{"SETTINGS, small frames", frame.Settings, 0, append([]byte{0, 5}, u32(1<<14-1)...), map[uint32][]string{conn: {protocol}}},
		{"SETTINGS, large frames", frame.Settings, 0, append([]byte{0, 5}, u32(1<<24)...), map[uint32][]string{conn: {protocol}}},
		{"SETTINGS, unknown", frame.Settings, 0, append([]byte{0xff, 0xff}, u32(1<<31)...), map[uint32][]string{conn: {nothing}}},
		{"PUSH_PROMISE", frame.PushPromise, frame.EndHeaders, append(u32(4), oneField...), map[uint32][]string{conn: {protocol}, open: {protocol}, idle: {protocol}}},
		{"PING", frame.Ping, 0, make([]byte, 8), map[uint32][]string{conn: {nothing}, open: {protocol}}},
		{"PING, short", frame.Ping, 0, make([]byte, 7), map[uint32][]string{conn: {size}}},
		{"PING, long", frame.Ping, 0, make([]byte, 9), map[uint32][]string{conn: {size}}},
		{"PING, stray ack", frame.Ping, frame.Ack, make([]byte, 8), map[uint32][]string{conn: {nothing}}},
		{"GOAWAY", frame.GoAway, 0, make([]byte, 8), map[uint32][]string{conn: {nothing}, open: {protocol}}},
		{"GOAWAY, short", frame.GoAway, 0, make([]byte, 7), map[uint32][]string{conn: {size}}},
		{"WINDOW_UPDATE", frame.WindowUpdate, 0, u32(1), map[uint32][]string{
			conn: {nothing}, open: {nothing}, halfClosed: {nothing}, closed: {nothing}, wasReset: {nothing}, idle: {protocol}, even: {protocol},
		}},
		{"WINDOW_UPDATE of 0", frame.WindowUpdate, 0, u32(0), map[uint32][]string{
			conn: {protocol}, open: {strmErr(frame.ProtocolError)}, halfClosed: {strmErr(frame.ProtocolError)}, idle: {protocol},
		}},
		{"WINDOW_UPDATE, too much", frame.WindowUpdate, 0, u32(frame.MaxWindow), map[uint32][]string{
			conn: {connErr(frame.FlowControlError)}, open: {strmErr(frame.FlowControlError)}, halfClosed: {strmErr(frame.FlowControlError)},
		}},
		{"WINDOW_UPDATE, short", frame.WindowUpdate, 0, make([]byte, 3), map[uint32][]string{conn: {size}, open: {size}}},
		{"WINDOW_UPDATE, long", frame.WindowUpdate, 0, make([]byte, 5), map[uint32][]string{conn: {size}, open: {size}}},
		{"CONTINUATION", frame.Continuation, frame.EndHeaders, oneField, map[uint32][]string{ // 6.10
			conn: {protocol}, open: {protocol}, halfClosed: {protocol}, closed: {protocol}, idle: {protocol},
		}},
		{"an unknown type", 0xbe, 0xff, []byte("grease"), map[uint32][]string{
			conn: {nothing}, open: {nothing}, halfClosed: {nothing}, closed: {nothing}, idle: {nothing}, even: {nothing},
		}},
		{"too large", frame.Data, 0, make([]byte, frame.MaxLen+1), map[uint32][]string{open: {size}, conn: {size}}},
		{"too large, unknown type", 0xbe, 0, make([]byte, frame.MaxLen+1), map[uint32][]string{conn: {size}}},
	}
	for _, tc := range cases {
		for stream, want := range tc.want {
			t.Run(fmt.Sprintf("%s on %d", tc.name, stream), func(t *testing.T) {
				inBubble(t, options{}, func(t *testing.T, e *edge) {
					c := inStates(e)
					c.send(raw(tc.typ, tc.flags, stream, tc.payload))
					if got := c.outcome(stream); !slices.Contains(want, got) {
						t.Errorf("got %q, want one of %q", got, want)
					}
					e.alive()
				})
			})
		}
	}
}

// outcome tells what came of a frame.
func (p *peer) outcome(stream uint32) string {
	if words := strings.Fields(p.goAways()); len(words) > 0 {
		p.wantGoAway(code(words[0]))
		return connError + words[0]
	}
	p.wantOpen()
	if got := p.answer(stream).reset; got != "" {
		return reset + got
	}
	return nothing
}

// code is the code of that name.
func code(name string) frame.Code {
	for c := range frame.Code(16) {
		if c.String() == name {
			return c
		}
	}
	return 99
}

// Malformed requests (8.1.1) are stream errors; the connection goes on.
func TestMalformedRequests(t *testing.T) {
	ok := func(more ...string) []string { return request("GET", "/hello", more...) }
	cases := []struct {
		name  string
		pairs []string
	}{
		{"upper case", ok("Accept", "x")},
		{"empty name", ok("", "x")},
		{"space in a name", ok("a b", "x")},
		{"colon in a name", ok("a:b", "x")},
		{"line feed in a value", ok("a", "x\ny: z")},
		{"NUL in a value", ok("a", "x\x00")},
		{"value with a space before", ok("a", " x")},
		{"value with a tab behind", ok("a", "x\t")},
		{"connection", ok("connection", "close")},
		{"transfer-encoding", ok("transfer-encoding", "chunked")},
		{"upgrade", ok("upgrade", "websocket")},
		{"te", ok("te", "gzip")},
		{"pseudo behind regular", append(ok("a", "b"), ":method", "GET")},
		{"pseudo of an answer", append([]string{":status", "200"}, ok()...)},
		{"unknown pseudo", append([]string{":protocol", "x"}, ok()...)},
		{"path twice", append([]string{":path", "/"}, ok()...)},
		{"no method", []string{":scheme", "https", ":path", "/"}},
		{"no scheme", []string{":method", "GET", ":path", "/"}},
		{"no path", []string{":method", "GET", ":scheme", "https"}},
		{"empty path", request("GET", "")},
		{"path without a slash", request("GET", "hello")},
		{"star with GET", request("GET", "*")},
		{"CONNECT with a path", request("CONNECT", "/")},
		{"content-length, no number", ok("content-length", "x")},
		{"content-length, negative", ok("content-length", "-1")},
		{"content-length, two", ok("content-length", "0", "content-length", "1")},
		{"content-length without a body", ok("content-length", "1")},
		{"nothing", nil},
	}
	inBubble(t, options{}, func(t *testing.T, e *edge) {
		c := e.dial()
		for i, tc := range cases {
			id := uint32(2*i + 1)
			c.send(c.head(id, true, tc.pairs...))
			if got := c.answer(id); got.reset != "PROTOCOL_ERROR" || got.status != "" {
				t.Errorf("%s: %v", tc.name, got)
			}
		}
		c.send(c.get(1001, "/hello"))
		c.wantBody(1001, "200", "hello")
	})
}

// What is unusual, and right.
func TestWellFormedRequests(t *testing.T) {
	inBubble(t, options{}, func(_ *testing.T, e *edge) {
		c := e.dial()
		c.send(
			c.head(1, true, ":path", "/hello", ":scheme", "https", ":method", "GET", "host", "edge.test"), // another order, no :authority
			c.get(3, "/hello", "cookie", "a=b", "cookie", "c=d", "te", "trailers", "content-length", "0"),
			c.get(5, "/hello", "empty", ""),
		)
		for _, id := range []uint32{1, 3, 5} {
			c.wantBody(id, "200", "hello")
		}
		// With padding and priority, split into its bytes.
		block := c.encode(request("GET", "/hello", "x-long", strings.Repeat("long ", 100)+".")...)
		c.send(raw(frame.Headers, frame.Padded|frame.HasPriority|frame.EndStream, 7, append([]byte{4, 0x80, 0, 0, 5, 200}, append(block[:1:1], 0, 0, 0, 0)...)))
		for _, b := range [][]byte{block[1:2], nil, block[2:50]} {
			c.send(raw(frame.Continuation, 0, 7, b))
		}
		c.send(raw(frame.Continuation, frame.EndHeaders, 7, block[50:]))
		c.wantBody(7, "200", "hello")
	})
}

// Nothing comes between HEADERS and its CONTINUATIONs (6.10).
func TestInterruptedBlock(t *testing.T) {
	for name, f := range map[string][]byte{
		"DATA":                          data(1, "x", false),
		"HEADERS":                       raw(frame.Headers, frame.EndHeaders, 3, []byte{0x82}),
		"CONTINUATION on another":       raw(frame.Continuation, frame.EndHeaders, 3, []byte{0x82}),
		"PING":                          frame.AppendPing(nil, false, pingData),
		"SETTINGS":                      frame.AppendSettings(nil),
		"WINDOW_UPDATE":                 window(0, 1),
		"RST_STREAM":                    rst(5, frame.Cancel),
		"an unknown type":               raw(0xbe, 0, 0, nil),
		"CONTINUATION behind the block": append(raw(frame.Continuation, frame.EndHeaders, 5, []byte{0x82}), raw(frame.Continuation, frame.EndHeaders, 5, []byte{0x82})...),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, options{}, func(_ *testing.T, e *edge) {
				c := e.dial()
				c.send(c.post(1, "/echo"), raw(frame.Headers, 0, 5, []byte{0x82}), f)
				c.wantGoAway(frame.ProtocolError)
				e.alive()
			})
		})
	}
}

func TestPreface(t *testing.T) {
	for name, tc := range map[string]struct {
		say  string
		code frame.Code
	}{
		"HTTP/1":         {"GET / HTTP/1.1\r\n\r\n", frame.ProtocolError},
		"almost":         {frame.Preface[:23] + "x", frame.ProtocolError},
		"no SETTINGS":    {frame.Preface + string(frame.AppendPing(nil, false, pingData)), frame.ProtocolError},
		"HEADERS first":  {frame.Preface + string(raw(frame.Headers, 5, 1, []byte{0x82})), frame.ProtocolError},
		"SETTINGS error": {frame.Preface + string(raw(frame.Settings, 0, 0, []byte{1})), frame.FrameSizeError},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, options{}, func(_ *testing.T, e *edge) {
				c := e.dialSilent()
				go c.read()
				c.send([]byte(tc.say))
				c.wantGoAway(tc.code)
				e.alive()
			})
		})
	}
	t.Run("byte by byte", func(t *testing.T) {
		inBubble(t, options{}, func(_ *testing.T, e *edge) {
			c := e.dialSilent()
			go c.read()
			all := slices.Concat([]byte(frame.Preface), frame.AppendSettings(nil), c.get(1, "/hello"))
			for i := range all {
				c.send(all[i : i+1])
				c.seen()
			}
			c.wantBody(1, "200", "hello")
		})
	})
}
