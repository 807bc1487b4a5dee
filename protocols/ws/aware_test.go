package ws

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols/ws/frame"
)

// peer is a side of a tunnel in memory. What comes to it is taken at once, unless it is deaf.
type peer struct {
	net.Conn
	done chan struct{}

	mu  sync.Mutex // guards the fields below
	got []byte
	err error
}

func newPeer(c net.Conn) *peer {
	p := &peer{Conn: c, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			p.mu.Lock()
			p.got = append(p.got, buf[:n]...)
			p.err = err
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return p
}

// send writes, and waits until all has come to rest.
func (p *peer) send(t *testing.T, wire ...string) {
	t.Helper()
	if _, err := io.WriteString(p, strings.Join(wire, "")); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// take gives what has come since.
func (p *peer) take() string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	got := string(p.got)
	p.got = nil
	return got
}

// want compares what has come since with frames, whose masks are taken off.
func (p *peer) want(t *testing.T, frames ...string) {
	t.Helper()
	if got := p.frames(t); strings.Join(got, "\n") != strings.Join(frames, "\n") {
		t.Errorf("got %q, want %q", got, frames)
	}
}

// frames is what has come since, without masks.
func (p *peer) frames(t *testing.T) (got []string) {
	t.Helper()
	for wire := []byte(p.take()); len(wire) > 0; {
		h, ok, err := frame.Parse(wire)
		if !ok || h.Size+int(h.Len) > len(wire) {
			t.Fatalf("no frame: %x, %v", wire, err)
		}
		payload := wire[h.Size : h.Size+int(h.Len)]
		if h.Masked {
			frame.Unmask(payload, h.Mask, 0)
		}
		got = append(got, string(wire[:1])+string(payload))
		wire = wire[h.Size+int(h.Len):]
	}
	return got
}

// closing is a close frame as want has it.
func closing(code uint16, reason string) string {
	return "\x88" + string(binary.BigEndian.AppendUint16(nil, code)) + reason
}

// client and server are frames as those send them.
func client(first byte, payload string) string {
	b := frame.Append(nil, 0, []byte(payload), &[4]byte{1, 2, 3, 4})
	b[0] = first
	return string(b)
}

func server(first byte, payload string) string {
	return string([]byte{first, byte(len(payload))}) + payload
}

// relayed starts an aware tunnel in memory.
func relayed(s *Server, relay Relay, d deflated) (client, up *peer) {
	return relayedBy(s, relay, d, func(c net.Conn) net.Conn { return c })
}

// relayedBy is relayed with the tunnel's own ends of its connections wrapped.
func relayedBy(s *Server, relay Relay, d deflated, wrap func(net.Conn) net.Conn) (client, up *peer) {
	c, c2 := net.Pipe()
	u, u2 := net.Pipe()
	c2, u2 = wrap(c2), wrap(u2)
	t := newAware(s, relay.withDefaults(), c2, u2, d)
	s.admit()
	s.tunnels.Add(1)
	s.add(t)
	go t.run(nil, nil)
	return newPeer(c), newPeer(u)
}

// over waits for the end of the only tunnel, and looks at what was counted.
func over(t *testing.T, s *Server, label, reason string) {
	t.Helper()
	<-s.empty()
	synctest.Wait()
	st := s.TunnelStats()
	if st.Open != 0 || !maps.Equal(st.Closed, map[string]int64{label: 1}) || !maps.Equal(st.Ended, map[string]int64{reason: 1}) {
		t.Errorf("got %+v, want %s, %s", st, label, reason)
	}
}

// What each side must not send.
func TestAwareViolations(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100)
	for _, tc := range []struct {
		name   string
		wire   string // of the client; of the server with a mask taken off
		code   uint16
		reason string
		label  string
	}{
		{"RSV1", client(0xc1, "a"), 1002, "reserved bits are set", "protocol"},
		{"RSV2", client(0xa1, "a"), 1002, "reserved bits are set", "protocol"},
		{"opcode", client(0x83, "a"), 1002, "unknown opcode", "protocol"},
		{"fragmented ping", client(0x09, "a"), 1002, "control frame is fragmented", "protocol"},
		{"long ping", "\x89\xfe\x00\x7e....", 1002, "control frame is longer than 125 bytes", "protocol"},
		{"length", "\x82\xfe\x00\x05....", 1002, "length is not encoded as it must be", "protocol"},
		{"continuation", client(0x80, "a"), 1002, "continuation of no message", "protocol"},
		{"within another", client(0x01, "a") + client(0x81, "b"), 1002, "message begins within another", "protocol"},
		{"half a code", client(0x88, "\x03"), 1002, "close frame with half a code", "protocol"},
		{"code", client(0x88, "\x03\xed"), 1002, "close code that must not be sent", "protocol"},
		{"reason", client(0x88, "\x03\xe8\xff"), 1007, "reason is not UTF-8", "invalid"},
		{"too big", client(0x82, long+"."), 1009, "message is larger than 100 bytes", "too_big"},
		{"too big in all", client(0x02, long) + client(0x80, "."), 1009, "message is larger than 100 bytes", "too_big"},
		{"far too big", "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff....", 1009, "message is larger than 100 bytes", "too_big"},
	} {
		for _, side := range []string{"client", "upstream"} {
			t.Run(side+" "+tc.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := NewServer(nil)
					c, u := relayed(s, Relay{MessageBytes: 100}, deflated{})
					from, to, wire, before := c, u, tc.wire, client(0x81, "before")
					if side == "upstream" {
						from, to, wire, before = u, c, unmasked(tc.wire), server(0x81, "before")
					}
					// Whole, and byte by byte: what is said does not depend on it.
					from.send(t, before)
					for i := range wire {
						if _, err := io.WriteString(from, wire[i:i+1]); err != nil {
							break
						}
					}
					from.want(t, closing(tc.code, tc.reason))
					got := to.frames(t)
					if len(got) < 2 || got[0] != "\x81before" || got[len(got)-1] != closing(tc.code, "the other side: "+tc.reason) {
						t.Errorf("the other side got %q", got)
					}
					from.Close()
					to.Close()
					over(t, s, label(tc.code), side+"_"+tc.label)
				})
			})
		}
	}
}

func label(code uint16) string { return string([]byte{'1', '0', '0', byte('0' + code - 1000)}) }

// unmasked is frames without their masks.
func unmasked(wire string) string {
	var out []byte
	for p := []byte(wire); len(p) > 0; {
		size := 6
		switch p[1] {
		case 0xfe:
			size = 8
		case 0xff:
			size = 14
		}
		head := bytes.Clone(p[:size-4])
		head[1] &= 0x7f
		out = append(out, head...)
		n := min(int(p[1]&0x7f), len(p)-size)
		payload := bytes.Clone(p[size : size+n])
		frame.Unmask(payload, [4]byte(p[size-4:]), 0)
		out = append(out, payload...)
		p = p[size+n:]
	}
	return string(out)
}

// A client must mask, a server must not.
func TestAwareMasks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		c, u := relayed(s, Relay{}, deflated{})
		c.send(t, client(0x81, "a"), server(0x81, "b"))
		c.want(t, closing(1002, "frame is not masked"))
		u.want(t, "\x81a", closing(1002, "the other side: frame is not masked"))
		c.send(t, client(0x88, "\x03\xea"))
		u.send(t, server(0x88, "\x03\xea"))
		over(t, s, "1002", "client_protocol") // at once: both have answered

		s = NewServer(nil)
		c, u = relayed(s, Relay{}, deflated{})
		u.send(t, client(0x81, "a"))
		u.want(t, closing(1002, "frame is masked"))
		c.want(t, closing(1002, "the other side: frame is masked"))
		start := time.Now()
		over(t, s, "1002", "upstream_protocol")
		if took := time.Since(start); took != closeWait {
			t.Errorf("who does not answer was waited for for %v", took)
		}
	})
}

// Everything that is right passes as it came, however it is cut.
func TestAwarePasses(t *testing.T) {
	t.Parallel()
	var wire string
	for _, n := range []int{0, 1, 125, 126, 2000, 2048, 5000, 30000, 65536} {
		head := []byte{0x82, 0x80}
		switch {
		case n < 126:
			head[1] |= byte(n)
		case n < 65536:
			head[1] |= 126
			head = binary.BigEndian.AppendUint16(head, uint16(n))
		default:
			head[1] |= 127
			head = binary.BigEndian.AppendUint64(head, uint64(n))
		}
		wire += string(head) + "mask" + strings.Repeat("z", n) + client(0x01, "first") + client(0x89, "ping") + client(0x00, "") + client(0x8a, "pong") + client(0x80, "last")
	}
	for _, step := range []int{1 << 20, 1500, 7, 1} {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(nil)
			c, u := relayed(s, Relay{}, deflated{})
			for p := wire; len(p) > 0; p = p[min(step, len(p)):] {
				c.send(t, p[:min(step, len(p))])
			}
			if got := u.take(); got != wire {
				t.Errorf("in steps of %d: got %d bytes, want %d as they came", step, len(got), len(wire))
			}
			c.send(t, client(0x88, "\x0f\xa0bye"))
			u.want(t, closing(4000, "bye"))
			u.send(t, server(0x88, "\x0f\xa0"))
			c.want(t, closing(4000, ""))
			over(t, s, "other", "closed")
			if <-c.done; !errors.Is(c.err, io.EOF) {
				t.Errorf("client: %v", c.err)
			}
		})
	}
}

// Who is silent is pinged, the answer goes no further, and without one it ends.
func TestAwarePings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		ping := "\x89" + string(s.mark[:])
		c, u := relayed(s, Relay{}, deflated{})
		time.Sleep(25*time.Second - 1)
		c.want(t)
		time.Sleep(time.Nanosecond)
		c.want(t, ping)
		u.want(t, ping)
		c.send(t, client(0x8a, string(s.mark[:])))
		u.send(t, server(0x8a, string(s.mark[:])))
		c.want(t)
		u.want(t)
		u.send(t, server(0x8a, "not ours"), server(0x89, "nor this"))
		c.want(t, "\x8anot ours", "\x89nor this")
		if tr := s.Traffic(); tr.RTTs[0] != 1 || tr.RTTs[len(tr.RTTs)-1] != 1 || tr.RTT != 0 {
			t.Errorf("the client's pong: %+v", tr)
		}
		time.Sleep(20 * time.Second)
		u.send(t, server(0x81, "alive")) // 5 s before it would be pinged
		c.want(t, "\x81alive")
		time.Sleep(15*time.Second - 1)
		c.want(t, ping)
		u.want(t)
		time.Sleep(time.Nanosecond)
		c.want(t, closing(1001, "no answer to a ping"))
		u.want(t, closing(1001, ""))
		over(t, s, "1006", "client_dead")
		if tr := s.Traffic(); tr.Out.Count != 1 || tr.Out.Bytes != 5 || tr.In.Count != 0 {
			t.Errorf("messages: %+v", tr)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		c, u := relayed(s, Relay{PingEvery: time.Second, PongWait: time.Second}, deflated{})
		for range 3 {
			time.Sleep(600 * time.Millisecond)
			c.send(t, client(0x81, "x"))
		}
		time.Sleep(300 * time.Millisecond)
		c.want(t, closing(1011, "no answer to a ping"))
		u.want(t, "\x81x", "\x89"+string(s.mark[:]), "\x81x", "\x81x", closing(1001, ""))
		over(t, s, "1011", "upstream_dead")
	})
}

// late is a connection whose writes arrive before they return.
type late struct{ net.Conn }

func (l late) Write(p []byte) (int, error) {
	n, err := l.Conn.Write(p)
	time.Sleep(time.Millisecond)
	return n, err
}

// A peer on this machine answers before the ping's write has returned: 293 of 2,000
// idle tunnels over loopback were ended for it.
func TestAwareAnswersBeforeThePingReturns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		c, u := relayedBy(s, Relay{}, deflated{}, func(c net.Conn) net.Conn { return late{c} })
		for range 3 {
			time.Sleep(25 * time.Second)
			c.want(t, "\x89"+string(s.mark[:]))
			u.want(t, "\x89"+string(s.mark[:]))
			c.send(t, client(0x8a, string(s.mark[:])))
			u.send(t, server(0x8a, string(s.mark[:])))
		}
		time.Sleep(20 * time.Second)
		c.want(t)
		u.want(t)
		c.Close()
		over(t, s, "1006", "client_lost")
	})
}

// Nothing is said within a frame of somebody else's.
func TestAwareSaysNothingWithinFrames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		c, u := relayed(s, Relay{PingEvery: time.Second, PongWait: time.Minute}, deflated{})
		u.send(t, "\x82\x06abc")
		if got := c.take(); got != "\x82\x06abc" {
			t.Fatalf("got %q", got)
		}
		time.Sleep(5 * time.Second)
		if got := c.take(); got != "" {
			t.Fatalf("within a frame: %q", got)
		}
		u.send(t, "def\x81\x01y")
		if got, want := c.take(), "def"+"\x89\x08"+string(s.mark[:])+"\x81\x01y"; got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		c.Close()
		over(t, s, "1006", "client_lost")
	})
}

func TestAwareRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		c, u := relayed(s, Relay{MessageRate: 10, MessageBurst: 2}, deflated{})
		for range 20 {
			c.send(t, client(0x01, "x"), client(0x80, "y"))
			u.send(t, strings.Repeat(server(0x81, "any"), 50))
			time.Sleep(100 * time.Millisecond)
		}
		u.take()
		c.take()
		c.send(t, client(0x81, "1"), client(0x89, "2"), client(0x81, "3"))
		c.want(t, closing(1013, "too many messages"))
		u.want(t, "\x811", "\x892", closing(1013, "the other side: too many messages"))
		c.Close()
		u.Close()
		over(t, s, "1013", "client_too_many")
	})
}

// Bytes are counted by frames, heads included, and those of one second may come at once. The server's do not count.
func TestAwareByteRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		c, u := relayed(s, Relay{ByteRate: 100, ByteBurst: 200}, deflated{})
		text := func(n int) string { return client(0x81, strings.Repeat("x", n)) } // and 6 bytes of a head
		c.send(t, text(94), text(94))
		for range 10 { // refilled at 100 a second
			time.Sleep(time.Second)
			u.send(t, strings.Repeat(server(0x81, "any"), 500))
			c.send(t, text(94))
		}
		u.take()
		c.take()
		c.send(t, client(0x89, ""))
		c.want(t, closing(1013, "too many bytes"))
		u.want(t, closing(1013, "the other side: too many bytes"))
		c.Close()
		u.Close()
		over(t, s, "1013", "client_too_many")
	})
}

// A message that may be as large as it is may come, however small the rate: its size is the least burst.
func TestAwareByteBurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		c, u := relayed(s, Relay{ByteRate: 1, MessageBytes: 100}, deflated{})
		c.send(t, client(0x81, strings.Repeat("x", 100)))
		u.want(t, "\x81"+strings.Repeat("x", 100))
		c.send(t, client(0x81, "123")) // 14 - 6 are left
		c.want(t, closing(1013, "too many bytes"))
		c.Close()
		u.Close()
		over(t, s, "1013", "client_too_many")
	})
}

// What ends without a close frame is told to a client as 1011, and by the end of
// the connection to a server.
func TestAwareLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		c, u := relayed(s, Relay{}, deflated{})
		u.send(t, server(0x81, "last"))
		u.Close()
		c.want(t, "\x81last", closing(1011, "the server is gone"))
		c.send(t, client(0x88, "\x03\xf3"))
		over(t, s, "1011", "upstream_lost")

		// Within a message nothing can be told.
		s = NewServer(nil)
		c, u = relayed(s, Relay{}, deflated{})
		u.send(t, "\x81\x05la")
		u.Close()
		if got := c.take(); got != "\x81\x05la" {
			t.Errorf("got %q", got)
		}
		c.Close()
		over(t, s, "1006", "upstream_lost")

		s = NewServer(nil)
		c, u = relayed(s, Relay{}, deflated{})
		c.Close()
		over(t, s, "1006", "client_lost")
		if got := u.take(); got != "" {
			t.Errorf("the server got %q", got)
		}

		// Who asks for a close and gets none from the other side has its own back.
		s = NewServer(nil)
		c, u = relayed(s, Relay{}, deflated{})
		c.send(t, client(0x88, "\x03\xe8"))
		u.want(t, closing(1000, ""))
		u.Close()
		c.want(t, closing(1000, ""))
		over(t, s, "1000", "closed")

		s = NewServer(nil)
		c, u = relayed(s, Relay{}, deflated{})
		u.send(t, server(0x88, ""))
		c.want(t, "\x88")
		start := time.Now()
		over(t, s, "1005", "closed")
		if took := time.Since(start); took != lingerWait {
			t.Errorf("a client that does not answer was waited for for %v", took)
		}
	})
}

func TestAwareDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		c, u := relayed(s, Relay{}, deflated{})
		u.send(t, "\x82\x06abc")
		c.take()
		done := drained(t, s, CloseGoingAway, time.Second)
		u.send(t, "def\x81\x03not\x81\x04this")
		if got, want := c.take(), "def\x88\x1c\x03\xe9server is going away"; !strings.HasPrefix(got, "def\x88") || len(got) != len(want)-0 {
			t.Errorf("got %q", got)
		}
		c.send(t, client(0x81, "on its way"), client(0x88, "\x03\xe9"))
		u.want(t, "\x81on its way", closing(1001, ""))
		u.send(t, server(0x88, "\x03\xe9"))
		<-done
		over(t, s, "1001", "drain")

		// A client that does not answer: the server is told all the same.
		s = NewServer(nil)
		c, u = relayed(s, Relay{}, deflated{})
		done = drained(t, s, CloseGoingAway, closeWait+boundaryWait)
		c.want(t, closing(1001, "server is going away"))
		time.Sleep(closeWait)
		u.want(t, closing(1001, ""))
		<-done

		// A frame that does not end, and a client that does not read.
		s = NewServer(nil)
		c, u = relayed(s, Relay{}, deflated{})
		u.send(t, "\x82\x06abc")
		<-drained(t, s, CloseAbnormal, closeWait+boundaryWait)
		c.take()
		s = NewServer(nil)
		a, b := net.Pipe()
		defer a.Close()
		u1, u2 := net.Pipe()
		defer u1.Close()
		tn := newAware(s, Relay{}.withDefaults(), b, u2, deflated{})
		s.admit()
		s.tunnels.Add(1)
		s.add(tn)
		go tn.run(nil, nil)
		<-drained(t, s, CloseAbnormal, closeWait+boundaryWait)
	})
}

// squeeze compresses messages that refer to those before.
type squeeze struct {
	buf bytes.Buffer
	*flate.Writer
}

func newSqueeze(t *testing.T) *squeeze {
	t.Helper()
	s := new(squeeze)
	var err error
	if s.Writer, err = flate.NewWriter(&s.buf, 9); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *squeeze) message(p string) string {
	s.buf.Reset()
	io.WriteString(s, p)
	s.Flush()
	return strings.TrimSuffix(s.buf.String(), "\x00\x00\xff\xff")
}

// Compressed messages pass as they came, once it is known what they inflate to.
func TestAwareDeflate(t *testing.T) {
	t.Parallel()
	both := deflated{on: true, fromClient: true, fromUp: true}
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		c, u := relayed(s, Relay{MessageBytes: 1000}, both)
		text := strings.Repeat("several words, ", 20)
		sq := newSqueeze(t)
		for range 3 {
			packed := sq.message(text)
			half := len(packed) / 2
			c.send(t, client(0x41, packed[:half]))
			u.want(t)
			c.send(t, client(0x89, "between"))
			u.want(t, "\x89between") // which may overtake it
			c.send(t, client(0x00, ""), client(0x80, packed[half:]), client(0x81, "plain"))
			u.want(t, "\x41"+packed[:half], "\x00", "\x80"+packed[half:], "\x81plain")
		}
		packed := sq.message(strings.Repeat("x", 1001))
		c.send(t, client(0xc1, packed), client(0x81, "not this"))
		c.want(t, closing(1009, "message is larger than 1000 bytes"))
		u.want(t, closing(1009, "the other side: message is larger than 1000 bytes"))
		c.Close()
		u.Close()
		over(t, s, "1009", "client_too_big")

		s = NewServer(nil)
		c, u = relayed(s, Relay{}, both)
		u.send(t, server(0xc1, "\xff\xff\xff"))
		u.want(t, closing(1007, "message does not inflate"))
		c.want(t, closing(1007, "the other side: message does not inflate"))
		c.Close()
		u.Close()
		over(t, s, "1007", "upstream_invalid")

		// Fragments cost memory too.
		s = NewServer(nil)
		c, u = relayed(s, Relay{MessageBytes: 100}, both)
		c.send(t, client(0x41, "\xf2"))
		for range 800 {
			c.send(t, client(0x00, ""))
		}
		c.want(t, closing(1009, "message has too many fragments"))
		u.want(t, closing(1009, "the other side: message has too many fragments"))
		c.Close()
		u.Close()
		over(t, s, "1009", "client_too_big")
	})
}

func TestExtensions(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		offer, want string
		on          bool
	}{
		{"permessage-deflate; client_max_window_bits, x-other", "permessage-deflate; client_max_window_bits", true},
		{"x-other , Permessage-Deflate;server_no_context_takeover", "Permessage-Deflate;server_no_context_takeover", true},
		{"permessage-deflate", "", false},
		{"x-other", "", true},
		{"", "", true},
	} {
		h := map[string][]string{fieldExtensions: {tc.offer}}
		offerExtensions(h, tc.on)
		if got := strings.Join(h[fieldExtensions], "|"); got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.offer, got, tc.want)
		}
	}
	for answer, want := range map[string]deflated{
		"":                   {},
		"permessage-deflate": {true, true, true},
		"permessage-deflate; client_no_context_takeover":                                {true, false, true},
		"permessage-deflate;Server_No_Context_Takeover ; server_max_window_bits=\"10\"": {true, true, false},
	} {
		got, err := acceptedExtensions(map[string][]string{fieldExtensions: {answer}}, true)
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v", answer, got, err)
		}
	}
	for answer, offered := range map[string]bool{"permessage-deflate": false, "x-other": true, "permessage-deflate, permessage-deflate": true} {
		if _, err := acceptedExtensions(map[string][]string{fieldExtensions: {answer}}, offered); !errors.Is(err, errAnswer) {
			t.Errorf("%q: got %v", answer, err)
		}
	}
}

// Whatever a client sends, cut anywhere: what gets through to the server are whole and
// valid frames, the same as when it comes at once.
func FuzzAware(f *testing.F) {
	f.Add([]byte(client(0x81, "hello")+client(0x89, "")+client(0x88, "\x03\xe8")), uint8(3), false)
	f.Add([]byte(client(0xc1, "\xf2\x48\xcd\xc9\xc9\x07\x00")+client(0x81, "x")), uint8(1), true)
	f.Add([]byte(client(0x41, "\xf2\x48")+client(0x8a, "p")+client(0x80, "\xcd\xc9\xc9\x07\x00")), uint8(7), true)
	f.Add([]byte("\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00"), uint8(2), false)
	f.Fuzz(func(t *testing.T, wire []byte, step uint8, deflate bool) {
		run := func(step int) string {
			s := NewServer(nil)
			_, c := net.Pipe()
			u := new(sink)
			tn := newAware(s, Relay{MessageBytes: 1 << 10}.withDefaults(), c, u, deflated{on: deflate, fromClient: true})
			tn.client.shut = true // what it is told is not looked at here
			carried := []byte{}
			for p := wire; len(p) > 0; p = p[min(step, len(p)):] {
				carried = append(carried, p[:min(step, len(p))]...)
				n := tn.rise.move(carried, s.now())
				if carried = carried[n:]; len(carried) > 4+2+frame.MaxControl {
					t.Fatalf("%d bytes are left", len(carried))
				}
			}
			tn.mu.Lock()
			tn.ended = true
			if tn.limit != nil {
				tn.limit.Stop()
			}
			tn.mu.Unlock()
			tn.work.Wait()
			tn.up.push(s.now())
			check := frame.Checker{Masked: true, Deflate: deflate, MessageBytes: 1 << 10}
			var shape strings.Builder
			for p := u.got; len(p) > 0; {
				h, ok, err := frame.Parse(p)
				if ok {
					err = check.Check(&h)
				}
				if err != nil || !ok {
					t.Fatalf("got through: %x, %v", p, err)
				}
				shape.WriteByte(p[0])
				if p = p[h.Size:]; int64(len(p)) < h.Len {
					break // mid-frame
				}
				payload := p[:h.Len]
				frame.Unmask(payload, h.Mask, 0)
				shape.Write(payload)
				p = p[h.Len:]
			}
			return shape.String()
		}
		if a, b := run(1<<20), run(int(step)+1); a != b {
			t.Errorf("at once %q, in steps of %d %q", a, step+1, b)
		}
	})
}

// sink takes everything.
type sink struct {
	net.Conn
	got []byte
}

func (s *sink) Write(p []byte) (int, error)      { s.got = append(s.got, p...); return len(p), nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) Close() error                     { return nil }
