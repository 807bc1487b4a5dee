//go:build attacks

package attacks

import (
	"bytes"
	"time"

	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// attack is what one connection does until it ends, or the time is over.
type attack struct {
	name  string
	codes []frame.Code // what the connection may be ended with; none if it is to stay
	// settings are the client's.
	settings []frame.Setting
	// once is sent at first, again and again after that.
	once  func(c *attacker) []byte
	again func(c *attacker) []byte
	// pause is between two of the latter.
	pause time.Duration
	deaf  bool // nothing is read
}

func attacks() []attack {
	get := func(c *attacker, path string) []byte { return c.request(true, "GET", path) }
	return []attack{
		{name: "rapid reset", codes: tooMuch, again: func(c *attacker) []byte {
			return append(get(c, "/api/hello"), frame.AppendReset(nil, c.id, frame.Cancel)...)
		}},
		{name: "rapid reset of gRPC calls", codes: tooMuch, again: func(c *attacker) []byte {
			b := c.request(false, "POST", "/oneport.echo.v1.Echo/Bidi", "content-type", "application/grpc", "te", "trailers")
			return frame.AppendReset(b, c.id, frame.Cancel)
		}},
		{name: "made you reset", codes: tooMuch, again: func(c *attacker) []byte {
			return frame.AppendWindowUpdate(c.request(false, "POST", "/api/echo"), c.id, 0)
		}},
		{name: "CONTINUATION without end", codes: tooMuch, once: func(c *attacker) []byte {
			return frame.Header{Type: frame.Headers, Stream: c.next()}.Append(nil)
		}, again: func(c *attacker) []byte { return frame.Header{Type: frame.Continuation, Stream: c.id}.Append(nil) }},
		{name: "HPACK bombs", codes: tooMuch, again: bomb, pause: 10 * time.Millisecond}, // answered 431, at first
		{name: "HPACK bombs without a pause", codes: tooMuch, again: bomb},
		{name: "SETTINGS", codes: tooMuch, again: func(*attacker) []byte { return frame.AppendSettings(nil) }},
		{name: "SETTINGS that change windows", codes: tooMuch, once: func(c *attacker) []byte {
			var b []byte
			for range 50 {
				b = append(b, c.request(false, "POST", "/oneport.echo.v1.Echo/Bidi", "content-type", "application/grpc", "te", "trailers")...)
			}
			return b
		}, again: func(c *attacker) []byte {
			c.n++
			return frame.AppendSettings(nil, frame.Setting{ID: frame.InitialWindowSize, Value: uint32(c.n % 2 * 100000)})
		}},
		{name: "PING", codes: tooMuch, again: func(*attacker) []byte { return frame.AppendPing(nil, false, [8]byte{1}) }},
		{name: "PRIORITY", codes: tooMuch, again: func(c *attacker) []byte {
			return append(frame.Header{Length: 5, Type: frame.Priority, Stream: c.next()}.Append(nil), 0, 0, 0, 0, 1)
		}},
		{name: "empty DATA", codes: tooMuch, once: func(c *attacker) []byte { return c.request(false, "POST", "/api/echo") },
			again: func(c *attacker) []byte { return frame.AppendData(nil, c.id, nil, false) }},
		{name: "tiny window updates", codes: tooMuch, again: func(*attacker) []byte { return frame.AppendWindowUpdate(nil, 0, 1) }},
		{name: "unknown frames", codes: tooMuch, again: func(*attacker) []byte { return frame.Header{Type: 0xbe}.Append(nil) }},
		{name: "GOAWAY", codes: tooMuch, again: func(*attacker) []byte { return frame.AppendGoAway(nil, 0, frame.NoError, "") }},
		{name: "DATA beyond the window", codes: []frame.Code{frame.FlowControlError, frame.EnhanceYourCalm}, once: func(c *attacker) []byte {
			return c.request(false, "POST", "/oneport.echo.v1.Echo/Bidi", "content-type", "application/grpc", "te", "trailers")
		}, again: func(c *attacker) []byte {
			// A message of 3 MiB that never ends, on streams without end.
			message := append([]byte{0, 0, 0x30, 0, 0}, make([]byte, 16<<10-5)...)
			return frame.AppendData(c.request(false, "POST", "/oneport.echo.v1.Echo/ClientStream", "content-type", "application/grpc", "te", "trailers"), c.id, message, false)
		}},
		{name: "frames too large", codes: []frame.Code{frame.FrameSizeError}, again: func(*attacker) []byte {
			return frame.Header{Length: 1 << 20, Type: frame.Data, Stream: 1}.Append(nil)
		}},
		{name: "no window", settings: []frame.Setting{{ID: frame.InitialWindowSize, Value: 0}}, once: hundred("/demo.js"),
			again: func(*attacker) []byte { return nil }, pause: time.Second},
		{name: "windows of 1", settings: []frame.Setting{{ID: frame.InitialWindowSize, Value: 1}}, once: hundred("/demo.js"),
			again: func(*attacker) []byte { return nil }, pause: time.Second},
		{name: "nothing is read", settings: []frame.Setting{{ID: frame.InitialWindowSize, Value: frame.MaxWindow}}, once: hundred("/demo.js"),
			again: func(*attacker) []byte { return nil }, pause: time.Second, deaf: true},
		{name: "nothing is read, and more is asked for", codes: nil, again: func(c *attacker) []byte { return get(c, "/demo.js") }, deaf: true},
		{name: "slow header block", once: func(c *attacker) []byte {
			return frame.Header{Length: 1000, Type: frame.Headers, Flags: frame.EndHeaders, Stream: c.next()}.Append(nil)
		}, again: func(*attacker) []byte { return []byte{0} }, pause: 100 * time.Millisecond},
		{name: "slow bodies", once: func(c *attacker) []byte {
			var b []byte
			for range 100 {
				b = append(b, c.request(false, "POST", "/api/echo")...)
			}
			return b
		}, again: func(c *attacker) []byte { return frame.AppendData(nil, c.id, []byte{0}, false) }, pause: 100 * time.Millisecond},
		{name: "uploads that stand still", once: func(c *attacker) []byte {
			var b []byte
			for range 100 {
				b = append(b, c.request(false, "POST", "/api/echo")...)
				b = frame.AppendData(b, c.id, make([]byte, 8<<10), false)
			}
			return b
		}, again: func(*attacker) []byte { return nil }, pause: time.Second},
	}
}

func hundred(path string) func(c *attacker) []byte {
	return func(c *attacker) []byte {
		b := frame.AppendWindowUpdate(nil, 0, frame.MaxWindow-frame.DefaultWindow)
		for range 100 {
			b = append(b, c.request(true, "GET", path)...)
		}
		return b
	}
}

// tooMuch is what ends most of them.
var tooMuch = []frame.Code{frame.EnhanceYourCalm}

// bomb is a request of 9 MB in 3 KB: a field in HPACK's table, and 3,000 times
// a reference to it.
func bomb(c *attacker) []byte {
	block := append([]byte{0x82, 0x87, 0x84, 0x01, 9}, "localhost"...) // GET, https, /, :authority
	if c.n++; c.n == 1 {
		block = append(block, 0x40, 4)
		block = append(block, "bomb"...)
		block = append(block, 0x7f, 0xb9, 0x16) // 3,000
		block = append(block, bytes.Repeat([]byte{'x'}, 3000)...)
	}
	return frame.AppendBlock(nil, c.next(), append(block, bytes.Repeat([]byte{0xbe}, 3000)...), true)
}
