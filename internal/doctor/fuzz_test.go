package doctor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// script is a server that has said all that it says, and hears nothing.
type script struct{ io.Reader }

func (script) Write(p []byte) (int, error) { return len(p), nil }

// Whatever a server says over HTTP/2, a client's side ends, and keeps no more than it may.
func FuzzHTTP2(f *testing.F) {
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for _, s := range []string{
		"", "HTTP/1.1 400 Bad Request\r\n\r\n", settings, settings + settings + "\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88",
		settings + "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", settings + "\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x02",
		strings.Repeat(settings, 200),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		p, err := newPatient(context.Background(), Options{Address: "127.0.0.1:443"})
		if err != nil {
			t.Fatal(err)
		}
		h := newConn2(p, script{bytes.NewReader(sent)})
		if err := h.begin(); err != nil {
			t.Fatal(err)
		}
		a, err := h.ask(p.unary())
		switch {
		case (a == nil) == (err == nil):
			t.Fatalf("%v, %v", a, err)
		case err != nil && strings.ContainsAny(said(err), "\x1b\n"):
			t.Fatalf("%q", said(err))
		case a != nil && len(a.body) > mostBody:
			t.Fatalf("a body of %d bytes", len(a.body))
		case len(h.settings) > 101:
			t.Fatalf("%d SETTINGS", len(h.settings))
		}
	})
}

// Frames of WebSockets are read within their bound.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{"", "\x8a\x06doctor", "\x81\x7e\x00\x01a", "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", "\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", "\x8a\x86abcdabcdef"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		r := bytes.NewReader(sent)
		for {
			_, payload, err := readFrame(r)
			if len(payload) > mostFrame {
				t.Fatalf("a frame of %d bytes", len(payload))
			}
			if err != nil {
				return
			}
		}
	})
}

// Answers of HTTP/1 are read within their bounds.
func FuzzHTTP1(f *testing.F) {
	for _, s := range []string{"", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "HTTP/1.0 101 \r\n\r\n", "SSH-2.0\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		c := newConn1(nil, nil)
		c.limited(bytes.NewReader(sent))
		a, err := c.read()
		if (a == nil) == (err == nil) || a != nil && len(a.body) > mostBody {
			t.Fatalf("%v, %v", a, err)
		}
	})
}

func TestRough(t *testing.T) {
	for d, want := range map[time.Duration]string{90 * 24 * time.Hour: "90 days", 36 * time.Hour: "36h0m0s", 1500 * time.Millisecond: "2s"} {
		if got := rough(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// A head without an end is not read for ever: fields cost more than their bytes.
func TestEndlessHead(t *testing.T) {
	var sent strings.Builder
	sent.WriteString("HTTP/1.1 200 OK\r\n")
	for i := range 100_000 {
		fmt.Fprintf(&sent, "%d:\r\n", i)
	}
	sent.WriteString("Content-Length: 2\r\n\r\nok")
	c := newConn1(nil, nil)
	c.limited(strings.NewReader(sent.String()))
	if a, err := c.read(); err == nil {
		t.Errorf("%d fields were read", len(a.header))
	}
	c.limited(strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + strings.Repeat("x", 500_000)))
	if a, err := c.read(); err != nil || len(a.body) != mostBody {
		t.Errorf("a long body: %v, %v", a, err)
	}
}

// Who sends too much has not hung up, and what it chose makes no report long.
func TestTooMuch(t *testing.T) {
	p := &patient{Options: Options{Timeout: time.Minute}}
	here, there := net.Pipe()
	go func() {
		for {
			if _, err := there.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	if took, open := p.wait(here); !open {
		t.Errorf("it is hung up on after %v", took)
	}
	shut(here)
	many := make([]http2.Setting, 2000)
	if got := shown(many); len(got) > 1000 {
		t.Errorf("%d bytes of settings", len(got))
	}
}
