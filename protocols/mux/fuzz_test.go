package mux

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
)

// chunked is a connection whose client sends data in pieces of given sizes,
// then a FIN.
type chunked struct {
	net.Conn
	mu     sync.Mutex // guards the fields below
	data   []byte
	cuts   []byte
	closed bool
	sent   bytes.Buffer
}

func (c *chunked) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := len(c.data)
	if len(c.cuts) > 0 {
		n = min(n, int(c.cuts[0])%32+1)
		c.cuts = c.cuts[1:]
	}
	n = copy(p, c.data[:n])
	c.data = c.data[n:]
	return n, nil
}

func (c *chunked) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	return c.sent.Write(p)
}

func (c *chunked) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *chunked) SetDeadline(time.Time) error      { return nil }
func (c *chunked) SetReadDeadline(time.Time) error  { return nil }
func (c *chunked) SetWriteDeadline(time.Time) error { return nil }
func (c *chunked) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (c *chunked) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 5} }

// plainPort is a plaintext mux whose verdicts can be read.
type plainPort struct {
	m        *Mux
	queue    *Queue
	verdicts chan string
}

func newPlainPort(tb testing.TB) *plainPort {
	p := &plainPort{queue: NewQueue(&net.TCPAddr{}), verdicts: make(chan string, 1)}
	// What is delivered must be what was sent, byte for byte.
	deliver := func(kind string) func(net.Conn) {
		return func(c net.Conn) {
			all, err := io.ReadAll(c)
			c.Close() // first: its count must not show up in the next verdict
			p.verdicts <- fmt.Sprintf("%s %x %v", kind, all, err)
		}
	}
	p.m = &Mux{
		HTTP1: deliver("http1"),
		HTTP2: deliver("h2c"),
		Registry: conn.NewRegistry(conn.Options{OnStep: func(_ *protocols.Conn, from, to protocols.State) {
			if to == protocols.StateClosed && from.PreRoute() {
				p.verdicts <- "closed"
			}
		}}),
	}
	done := make(chan error, 1)
	go func() { done <- p.m.Serve(p.queue) }()
	tb.Cleanup(func() {
		p.m.Close()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	return p
}

// verdict says what becomes of a connection, with the reason if it is closed.
func (p *plainPort) verdict(data, cuts []byte) string {
	before := p.m.Registry.Stats().Ended
	p.queue.Deliver(&chunked{data: bytes.Clone(data), cuts: cuts})
	v := <-p.verdicts
	if v != "closed" {
		return v
	}
	<-p.m.Registry.Empty()
	for why, n := range p.m.Registry.Stats().Ended {
		if n != before[why] {
			return why.String()
		}
	}
	return "closed without a reason"
}

// want is what must become of a connection that sends data and a FIN, told in
// another way than the matchers do it.
func want(data []byte) string {
	switch {
	case len(data) == 0:
		return "silent"
	case data[0] == 0x16 && len(data) == 1:
		return "first_bytes"
	case data[0] == 0x16 && data[1] == 0x03:
		return "tls_on_plain"
	case bytes.HasPrefix(data, []byte(h2Preface)):
		return fmt.Sprintf("h2c %x <nil>", data)
	case bytes.HasPrefix([]byte(h2Preface), data):
		return "first_bytes"
	case isToken(data[0]):
		return fmt.Sprintf("http1 %x <nil>", data)
	}
	return "unknown_bytes"
}

// FuzzFirstBytes: any bytes in any segments get the verdict that the bytes
// alone deserve, and what is handed on is what came in.
func FuzzFirstBytes(f *testing.F) {
	for _, s := range []string{
		"", "\x16", "\x16\x03", "\x16\x03\x01\x00\x05hello", "\x16\x02", h2Preface, h2Preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		h2Preface[:23], "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "P", "PO", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PATCH / HTTP/1.1\r\n\r\n",
		"XYZ", "\x00", "\r\n", " GET", "{", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "\x80\x2e\x01\x03\x01",
	} {
		f.Add([]byte(s), []byte{0, 0, 0})
		f.Add([]byte(s), []byte{22, 0})
	}
	p := newPlainPort(f)
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		if len(data) > 4096 || len(cuts) > 4096 {
			return
		}
		if got, want := p.verdict(data, cuts), want(data); got != want {
			t.Errorf("%q cut at %v: got %s, want %s", data, cuts, got, want)
		}
	})
}

// FuzzProxyHeader: the segments of a PROXY header change nothing, and no byte
// behind it is lost.
func FuzzProxyHeader(f *testing.F) {
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x02\x00\x05\x01\xbb"
	for _, s := range []string{
		"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\nGET / HTTP/1.1\r\n", "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n",
		"PROXY UNKNOWN\r\n\x16\x03", "PROXY ", "PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\n", "PROX", "GET / HTTP/1.1\r\n",
		v2, v2 + "more", v2[:20], "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff", "\r\n\r\nX",
		"PROXY " + string(bytes.Repeat([]byte("x"), 200)),
	} {
		f.Add([]byte(s), []byte{0, 1, 0})
	}
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		if len(data) > 8192 {
			return
		}
		whole, rest, errWhole := readProxyHeader(&chunked{data: bytes.Clone(data)})
		src := &chunked{data: bytes.Clone(data), cuts: cuts}
		h, restCut, errCut := readProxyHeader(src)
		if (errWhole == nil) != (errCut == nil) {
			t.Fatalf("%q: %v in one piece, %v in pieces of %v", data, errWhole, errCut, cuts)
		}
		if errWhole != nil {
			return
		}
		if !h.EqualTo(whole) {
			t.Errorf("%q: %+v in one piece, %+v in pieces", data, whole, h)
		}
		size, err := proxyLen(data)
		if err != nil || size == 0 {
			t.Fatalf("%q: parsed, but its length is %d, %v", data, size, err)
		}
		for _, r := range [][]byte{append(rest, data[min(len(data), size+len(rest)):]...), append(restCut, src.data...)} {
			if !bytes.Equal(r, data[size:]) {
				t.Errorf("%q: behind the header is %q, want %q", data, r, data[size:])
			}
		}
	})
}

// hello gives a ClientHello as crypto/tls sends it.
func hello(tb testing.TB, sni string, alpn ...string) []byte {
	tb.Helper()
	a, b := net.Pipe()
	go func() {
		cfg := &tls.Config{ServerName: sni, NextProtos: alpn, InsecureSkipVerify: true}
		_ = tls.Client(a, cfg).HandshakeContext(context.Background()) // is cut off
		a.Close()
	}()
	buf := make([]byte, 8192)
	n, err := b.Read(buf)
	b.Close()
	if err != nil {
		tb.Fatal(err)
	}
	// The record's length says how much there is of it.
	if size := 5 + int(buf[3])<<8 + int(buf[4]); size != n {
		tb.Fatalf("read %d bytes of a hello of %d", n, size)
	}
	return buf[:n]
}

// FuzzClientHello: whatever arrives, in any segments, the recorder keeps every
// byte, reads no more than its bound, and a connection that is passed through
// has been sent nothing.
func FuzzClientHello(f *testing.F) {
	h := hello(f, "pass.example.com", "h2")
	f.Add(h, []byte{0, 3})
	f.Add(append(bytes.Clone(h), "early bytes"...), []byte{31, 31})
	f.Add(hello(f, "other.example.com"), []byte{7})
	f.Add(h[:40], []byte{})
	f.Add([]byte("\x16\x03\x01\x40\x00"), []byte{})
	f.Add(bytes.Repeat([]byte("\x16\x03\x01\x00\x01\x01"), 4000), []byte{})
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		if len(data) > 64<<10 {
			return
		}
		src := &chunked{data: bytes.Clone(data), cuts: cuts}
		m := &Mux{TLS: &tls.Config{}, slots: make(chan struct{}, 1), Passthrough: []Passthrough{{SNI: "pass.example.com", To: "unused:1"}}}
		reg := conn.NewRegistry(conn.Options{})
		c, _ := reg.Add(src, conn.Origin{})
		defer c.Close()
		c.Step(protocols.StateHandshake)
		c.Budget(HelloBytes)
		c.Record()
		cfg := m.TLS.Clone()
		cfg.GetConfigForClient = m.onHello
		hs := &handshake{Context: context.Background(), c: c}
		err := tls.Server(c, cfg).HandshakeContext(hs)
		c.Settle()
		if len(m.slots) != 0 {
			t.Error("a handshake slot leaked")
		}
		if in, _ := c.Bytes(); !hs.hello && in > HelloBytes {
			t.Errorf("read %d bytes for a hello", in)
		}
		if hs.upward == nil {
			return
		}
		if !errors.Is(err, errPassthrough) {
			t.Fatalf("passed through with %v", err)
		}
		if src.sent.Len() > 0 {
			t.Errorf("the client was sent %x", src.sent.Bytes())
		}
		if got := append(c.Replay(), src.data...); !bytes.Equal(got, data) {
			t.Errorf("%d bytes go on, %d came in", len(got), len(data))
		}
	})
}
