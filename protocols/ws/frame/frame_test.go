package frame

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	big := func(n uint64) string { return "\x82\x7f" + string(binary.BigEndian.AppendUint64(nil, n)) }
	for _, tc := range []struct {
		name, wire string
		want       string // of the violation; "" for none, "more" for a part
		length     int64
	}{
		{"nothing", "", "more", 0},
		{"half", "\x81", "more", 0},
		{"no mask yet", "\x81\x85abc", "more", 0},
		{"no length yet", "\x82\x7e\x01", "more", 0},
		{"short", "\x81\x05", "", 5},
		{"masked", "\x81\x85abcd", "", 5},
		{"medium", "\x82\x7e\x00\x7e", "", 126},
		{"large", big(1 << 16), "", 1 << 16},
		{"RSV2", "\xa1", "reserved bits are set", 0},
		{"RSV3", "\x91", "reserved bits are set", 0},
		{"opcode 3", "\x83", "unknown opcode", 0},
		{"opcode 11", "\x8b", "unknown opcode", 0},
		{"fragmented ping", "\x09", "control frame is fragmented", 0},
		{"long close", "\x88\x7e", "control frame is longer than 125 bytes", 0},
		{"126 in three bytes", "\x82\x7e\x00\x7d", "length is not encoded as it must be", 0},
		{"65535 in nine", big(0xffff), "length is not encoded as it must be", 0},
		{"negative", big(1 << 63), "length is not encoded as it must be", 0},
	} {
		h, ok, err := Parse([]byte(tc.wire))
		switch v, _ := errors.AsType[*Error](err); {
		case tc.want == "more" && (ok || err != nil), tc.want == "" && (!ok || h.Len != tc.length || h.Size != len(tc.wire)):
			t.Errorf("%s: got %+v, %t, %v", tc.name, h, ok, err)
		case tc.want != "" && tc.want != "more" && (ok || v == nil || v.Reason != tc.want || v.Code != 1002):
			t.Errorf("%s: got %t, %v; want %q", tc.name, ok, err, tc.want)
		}
	}
}

func TestChecker(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, wire string // headers alone
		checker    Checker
		want       string
	}{
		{"messages", "\x82\x0a\x81\x0a", Checker{MessageBytes: 10}, ""},
		{"fragments with a ping between", "\x01\x05\x89\x02\x00\x00\x80\x05", Checker{MessageBytes: 10}, ""},
		{"too big", "\x82\x0b", Checker{MessageBytes: 10}, "message is larger than 10 bytes"},
		{"too big in all", "\x02\x05\x00\x05\x80\x01", Checker{MessageBytes: 10}, "message is larger than 10 bytes"},
		{"a mask", "\x82\x80....", Checker{}, "frame is masked"},
		{"no mask", "\x82\x00", Checker{Masked: true}, "frame is not masked"},
		{"continuation of nothing", "\x80\x00", Checker{}, "continuation of no message"},
		{"and behind a message", "\x81\x00\x80\x00", Checker{}, "continuation of no message"},
		{"within another", "\x01\x00\x81\x00", Checker{}, "message begins within another"},
		{"RSV1", "\xc1\x00", Checker{}, "reserved bits are set"},
		{"RSV1, negotiated", "\x41\x00\x80\x00", Checker{Deflate: true}, ""},
		{"RSV1 of a continuation", "\x41\x00\xc0\x00", Checker{Deflate: true}, "reserved bits are set"},
		{"RSV1 of a ping", "\xc9\x00", Checker{Deflate: true}, "reserved bits are set"},
	} {
		var err error
		for p := []byte(tc.wire); len(p) > 0 && err == nil; {
			var h Header
			var ok bool
			if h, ok, err = Parse(p); !ok {
				t.Fatalf("%s: %v", tc.name, err)
			}
			err = tc.checker.Check(&h)
			p = p[h.Size:]
		}
		if got := reason(err); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func reason(err error) string {
	if v, ok := errors.AsType[*Error](err); ok {
		return v.Reason
	}
	return ""
}

func TestCloseCode(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]int{
		"": CodeNone, "\x03\xe8bye": 1000, "\x03\xf4": 1012, "\x10\xe1": 4321,
		"\x03": -1002, "\x03\xed": -1002, "\x03\xee": -1002, "\x03\xec": -1002, "\x00\x00": -1002, "\x13\x88": -1002, "\x07\xd0": -1002,
		"\x03\xe8\xff": -1007,
	} {
		code, err := CloseCode([]byte(payload))
		if v, ok := errors.AsType[*Error](err); ok {
			code = -v.Code
		}
		if code != want {
			t.Errorf("%x: got %d, want %d", payload, code, want)
		}
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	payload := ClosePayload(1001, strings.Repeat("ä", 70))
	if len(payload) > MaxControl || len(payload) < MaxControl-1 {
		t.Errorf("%d bytes", len(payload))
	}
	mask := [4]byte{1, 2, 3, 4}
	wire := Append([]byte("x"), Close, payload, &mask)[1:]
	h, ok, err := Parse(wire)
	if !ok || err != nil || h.Size+int(h.Len) != len(wire) {
		t.Fatalf("got %+v, %t, %v", h, ok, err)
	}
	Unmask(wire[h.Size:], h.Mask, 0)
	if !bytes.Equal(wire[h.Size:], payload) {
		t.Errorf("got %q", wire[h.Size:])
	}
}

// deflater compresses messages as a sender does (RFC 7692, 7.2.1).
type deflater struct {
	buf bytes.Buffer
	w   *flate.Writer
}

func newDeflater(t testing.TB) *deflater {
	t.Helper()
	d := new(deflater)
	w, err := flate.NewWriter(&d.buf, flate.DefaultCompression)
	if err != nil {
		t.Fatal(err)
	}
	d.w = w
	return d
}

func (d *deflater) message(p []byte) []byte {
	d.buf.Reset()
	d.w.Write(p)
	d.w.Flush()
	return bytes.TrimSuffix(bytes.Clone(d.buf.Bytes()), []byte("\x00\x00\xff\xff"))
}

func TestInflater(t *testing.T) {
	t.Parallel()
	d, f := newDeflater(t), &Inflater{Takeover: true}
	noise := make([]byte, 10_000)
	for i := range noise {
		noise[i] = byte(i * i >> 3)
	}
	for i := range 20 { // the second and all others refer to those before
		packed := d.message(noise)
		if i > 0 && len(packed) > 500 {
			t.Fatalf("message %d has %d bytes: it refers to nothing", i, len(packed))
		}
		if err := f.Measure(packed, int64(len(noise))); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if len(f.past) > window || !bytes.HasSuffix(f.past, noise) {
			t.Fatalf("message %d: %d bytes are kept", i, len(f.past))
		}
	}
	if err := new(Inflater).Measure(d.message(noise), 1<<20); reason(err) != "message does not inflate" {
		t.Errorf("without what it refers to: %v", err)
	}
	bomb := newDeflater(t).message(make([]byte, 64<<20))
	if err := new(Inflater).Measure(bomb, 64<<10); reason(err) != "message is larger than 65536 bytes" {
		t.Errorf("%d bytes that become 64 MiB: %v", len(bomb), err)
	}
	for name, wire := range map[string]string{"empty": "\x00", "hello": "\xf2\x48\xcd\xc9\xc9\x07\x00", "BFINAL": "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"} {
		if err := new(Inflater).Measure([]byte(wire), 5); err != nil {
			t.Errorf("%s, from RFC 7692: %v", name, err)
		}
	}
	twice := "\xf3\x48\xcd\xc9\xc9\x07\x00" + "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"
	if err := new(Inflater).Measure([]byte(twice), 9); reason(err) != "message is larger than 9 bytes" {
		t.Errorf("behind a last block: %v", err)
	}
	if err := new(Inflater).Measure(bytes.Repeat([]byte("\x03\x00"), 1000), 9); reason(err) != "message does not inflate" {
		t.Errorf("a thousand last blocks: %v", err)
	}
}

// What Parse says does not change with more bytes, and no header is longer than it may be.
func FuzzParse(f *testing.F) {
	f.Add([]byte("\x81\x85abcdhello"))
	f.Add([]byte("\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"))
	f.Add([]byte("\x09\xfe"))
	f.Fuzz(func(t *testing.T, p []byte) {
		h, ok, err := Parse(p)
		if !ok && err == nil && len(p) >= MaxHeader {
			t.Fatalf("a part of a header with %d bytes", len(p))
		}
		for n := range p {
			h1, ok1, err1 := Parse(p[:n])
			switch {
			case err1 != nil && (err == nil || err.Error() != err1.Error()):
				t.Fatalf("after %d bytes %v, in the end %v", n, err1, err)
			case ok1 && (!ok || h1 != h):
				t.Fatalf("after %d bytes %+v, in the end %+v", n, h1, h)
			}
		}
		if ok && h.Size < len(p) && h.Len < 0 {
			t.Fatalf("%+v", h)
		}
	})
}

// Nothing that inflates to more than the bound passes, and what was compressed as it
// should passes.
func FuzzInflater(f *testing.F) {
	f.Add([]byte("\xf2\x48\xcd\xc9\xc9\x07\x00"), true)
	f.Add([]byte("\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), false)
	f.Fuzz(func(t *testing.T, p []byte, takeover bool) {
		in := &Inflater{Takeover: takeover}
		for range 3 {
			if err := in.Measure(bytes.Clone(p), 1<<16); err != nil && reason(err) == "" {
				t.Fatal(err)
			}
		}
		if len(in.past) > window || !takeover && len(in.past) > 0 {
			t.Fatalf("%d bytes are kept", len(in.past))
		}
		if err := new(Inflater).Measure(newDeflater(t).message(p), int64(len(p))); err != nil {
			t.Fatal(err)
		}
	})
}
