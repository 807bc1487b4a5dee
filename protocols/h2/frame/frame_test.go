package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// theirs reads frames as x/net does, with no state of its own in the way.
func theirs(b []byte) *http2.Framer {
	fr := http2.NewFramer(io.Discard, bytes.NewReader(b))
	fr.AllowIllegalReads = true
	return fr
}

func read[F http2.Frame](t *testing.T, fr *http2.Framer) F {
	t.Helper()
	f, err := fr.ReadFrame()
	if err != nil {
		t.Fatalf("x/net does not read the frame: %v", err)
	}
	typed, ok := f.(F)
	if !ok {
		t.Fatalf("x/net reads a %T: %v", f, f)
	}
	return typed
}

// What is appended here, x/net reads.
func TestAppendIsReadByOthers(t *testing.T) {
	prefix := []byte("what was there")
	appended := func(t *testing.T, add func([]byte) []byte) []byte {
		t.Helper()
		b := add(bytes.Clone(prefix))
		rest, ok := bytes.CutPrefix(b, prefix)
		if !ok {
			t.Fatalf("what was there before is lost: %q", b)
		}
		return rest
	}
	t.Run("DATA", func(t *testing.T) {
		for _, p := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("y"), MaxLen)} {
			for _, end := range []bool{false, true} {
				b := appended(t, func(b []byte) []byte { return AppendData(b, MaxStream, p, end) })
				f := read[*http2.DataFrame](t, theirs(b))
				if f.StreamID != MaxStream || !bytes.Equal(f.Data(), p) || f.StreamEnded() != end {
					t.Errorf("%d bytes, end %v: read as %v", len(p), end, f)
				}
			}
		}
	})
	t.Run("RST_STREAM", func(t *testing.T) {
		f := read[*http2.RSTStreamFrame](t, theirs(appended(t, func(b []byte) []byte { return AppendReset(b, 3, EnhanceYourCalm) })))
		if f.StreamID != 3 || f.ErrCode != http2.ErrCodeEnhanceYourCalm {
			t.Errorf("read as %v", f)
		}
	})
	t.Run("WINDOW_UPDATE", func(t *testing.T) {
		for _, stream := range []uint32{0, 5} {
			f := read[*http2.WindowUpdateFrame](t, theirs(appended(t, func(b []byte) []byte { return AppendWindowUpdate(b, stream, MaxWindow) })))
			if f.StreamID != stream || f.Increment != MaxWindow {
				t.Errorf("read as %v", f)
			}
		}
	})
	t.Run("PING", func(t *testing.T) {
		data := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
		for _, ack := range []bool{false, true} {
			f := read[*http2.PingFrame](t, theirs(appended(t, func(b []byte) []byte { return AppendPing(b, ack, data) })))
			if f.IsAck() != ack || f.Data != data || f.StreamID != 0 {
				t.Errorf("read as %v", f)
			}
		}
	})
	t.Run("GOAWAY", func(t *testing.T) {
		f := read[*http2.GoAwayFrame](t, theirs(appended(t, func(b []byte) []byte { return AppendGoAway(b, 7, FlowControlError, "why") })))
		if f.LastStreamID != 7 || f.ErrCode != http2.ErrCodeFlowControl || string(f.DebugData()) != "why" {
			t.Errorf("read as %v", f)
		}
	})
	t.Run("SETTINGS", func(t *testing.T) {
		f := read[*http2.SettingsFrame](t, theirs(appended(t, func(b []byte) []byte {
			return AppendSettings(b, Setting{InitialWindowSize, 1 << 20}, Setting{MaxConcurrentStreams, 100})
		})))
		window, _ := f.Value(http2.SettingInitialWindowSize)
		most, _ := f.Value(http2.SettingMaxConcurrentStreams)
		if f.IsAck() || f.NumSettings() != 2 || window != 1<<20 || most != 100 {
			t.Errorf("read as %v", f)
		}
		if f := read[*http2.SettingsFrame](t, theirs(appended(t, func(b []byte) []byte { return AppendSettings(b) }))); f.IsAck() || f.NumSettings() != 0 {
			t.Errorf("empty SETTINGS are read as %v", f)
		}
		if f := read[*http2.SettingsFrame](t, theirs(appended(t, AppendSettingsAck))); !f.IsAck() {
			t.Errorf("an ack is read as %v", f)
		}
	})
}

// A block of any size arrives whole, in frames of a size that all peers take.
func TestAppendBlock(t *testing.T) {
	for _, size := range []int{0, 1, MaxLen - 1, MaxLen, MaxLen + 1, 2 * MaxLen, 2*MaxLen + 1} {
		block := make([]byte, size)
		for i := range block {
			block[i] = byte(i * 7)
		}
		for _, end := range []bool{false, true} {
			fr := theirs(AppendBlock(nil, 9, block, end))
			f := read[*http2.HeadersFrame](t, fr)
			if f.StreamID != 9 || f.StreamEnded() != end || f.HasPriority() {
				t.Errorf("%d bytes: HEADERS are read as %v", size, f)
			}
			got, whole, frames := bytes.Clone(f.HeaderBlockFragment()), f.HeadersEnded(), 1
			for !whole {
				c := read[*http2.ContinuationFrame](t, fr)
				if c.StreamID != 9 {
					t.Errorf("%d bytes: CONTINUATION is read as %v", size, c)
				}
				got, whole = append(got, c.HeaderBlockFragment()...), c.HeadersEnded()
				frames++
			}
			if !bytes.Equal(got, block) {
				t.Errorf("%d bytes come as %d others", size, len(got))
			}
			if want := max(1, (size+MaxLen-1)/MaxLen); frames != want {
				t.Errorf("%d bytes take %d frames, want %d", size, frames, want)
			}
			if _, err := fr.ReadFrame(); !errors.Is(err, io.EOF) {
				t.Errorf("%d bytes: something follows the block: %v", size, err)
			}
		}
	}
}

// What x/net writes, Parse and Unpad read.
func TestParseReadsOthers(t *testing.T) {
	tests := []struct {
		name  string
		write func(*http2.Framer) error
		want  Header
		body  string // without padding and priority
		pad   int
	}{
		{"DATA", func(fr *http2.Framer) error { return fr.WriteData(1, true, []byte("abc")) }, Header{3, Data, EndStream, 1}, "abc", 0},
		{"padded DATA", func(fr *http2.Framer) error { return fr.WriteDataPadded(1, false, []byte("abc"), make([]byte, 10)) }, Header{14, Data, Padded, 1}, "abc", 11},
		{"DATA of nothing but padding", func(fr *http2.Framer) error { return fr.WriteDataPadded(1, false, nil, make([]byte, 255)) }, Header{256, Data, Padded, 1}, "", 256},
		{"HEADERS", func(fr *http2.Framer) error {
			return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte("block"), EndHeaders: true})
		}, Header{5, Headers, EndHeaders, 3}, "block", 0},
		{"HEADERS with everything", func(fr *http2.Framer) error {
			return fr.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 3, BlockFragment: []byte("block"), EndStream: true, EndHeaders: true, PadLength: 7,
				Priority: http2.PriorityParam{StreamDep: 1, Exclusive: true, Weight: 16},
			})
		}, Header{18, Headers, EndStream | EndHeaders | Padded | HasPriority, 3}, "block", 8},
		{"CONTINUATION", func(fr *http2.Framer) error { return fr.WriteContinuation(3, true, []byte("more")) }, Header{4, Continuation, EndHeaders, 3}, "more", 0},
		{"PRIORITY", func(fr *http2.Framer) error { return fr.WritePriority(3, http2.PriorityParam{StreamDep: 1}) }, Header{5, Priority, 0, 3}, "\x00\x00\x00\x01\x00", 0},
		{"RST_STREAM", func(fr *http2.Framer) error { return fr.WriteRSTStream(3, http2.ErrCodeCancel) }, Header{4, RSTStream, 0, 3}, "\x00\x00\x00\x08", 0},
		{"PING", func(fr *http2.Framer) error {
			return fr.WritePing(true, [8]byte{'1', '2', '3', '4', '5', '6', '7', '8'})
		}, Header{8, Ping, Ack, 0}, "12345678", 0},
		{"GOAWAY", func(fr *http2.Framer) error { return fr.WriteGoAway(1, http2.ErrCodeProtocol, []byte("!")) }, Header{9, GoAway, 0, 0}, "\x00\x00\x00\x01\x00\x00\x00\x01!", 0},
		{"WINDOW_UPDATE", func(fr *http2.Framer) error { return fr.WriteWindowUpdate(1<<31-1, 16) }, Header{4, WindowUpdate, 0, MaxStream}, "\x00\x00\x00\x10", 0},
		{"PUSH_PROMISE", func(fr *http2.Framer) error {
			return fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: []byte("b"), EndHeaders: true})
		}, Header{5, PushPromise, EndHeaders, 1}, "\x00\x00\x00\x02b", 0},
		{"SETTINGS", func(fr *http2.Framer) error {
			return fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14})
		}, Header{6, Settings, 0, 0}, "\x00\x05\x00\x00\x40\x00", 0},
		{"SETTINGS ack", func(fr *http2.Framer) error { return fr.WriteSettingsAck() }, Header{0, Settings, Ack, 0}, "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := tt.write(http2.NewFramer(&b, nil)); err != nil {
				t.Fatal(err)
			}
			h, p := Parse(b.Bytes()), b.Bytes()[HeaderLen:]
			if h != tt.want || len(p) != h.Length {
				t.Fatalf("header is %+v with %d bytes behind it, want %+v", h, len(p), tt.want)
			}
			if again := h.Append(nil); !bytes.Equal(again, b.Bytes()[:HeaderLen]) {
				t.Errorf("Append makes %x of %+v, want %x", again, h, b.Bytes()[:HeaderLen])
			}
			pad := 0
			if h.Type == Data || h.Type == Headers {
				var err error
				if p, pad, err = Unpad(h, p); err != nil {
					t.Fatal(err)
				}
			}
			if string(p) != tt.body || pad != tt.pad {
				t.Errorf("payload is %q with %d bytes of padding, want %q with %d", p, pad, tt.body, tt.pad)
			}
		})
	}
}

func TestParseIgnoresTheReservedBit(t *testing.T) {
	if h := Parse([]byte{0xff, 0xff, 0xff, 0xab, 0xcd, 0xff, 0xff, 0xff, 0xff}); h != (Header{1<<24 - 1, 0xab, 0xcd, MaxStream}) {
		t.Errorf("got %+v", h)
	}
}

func TestParseSetting(t *testing.T) {
	b := AppendSettings(nil, Setting{MaxHeaderListSize, 1<<32 - 1})
	if s := ParseSetting(b[HeaderLen:]); s != (Setting{MaxHeaderListSize, 1<<32 - 1}) {
		t.Errorf("got %+v", s)
	}
}

func TestUnpad(t *testing.T) {
	priority := string([]byte{0, 0, 0, 1, 16})
	tests := []struct {
		name   string
		typ    Type
		flags  Flags
		stream uint32
		p      string
		rest   string
		pad    int
		err    string
	}{
		{"nothing", Data, 0, 1, "", "", 0, ""},
		{"no padding", Data, 0, 1, "abc", "abc", 0, ""},
		{"padding of length 0 is a byte", Data, Padded, 1, "\x00abc", "abc", 1, ""},
		{"padding", Data, Padded, 1, "\x02abc\x00\x00", "abc", 3, ""},
		{"nothing but padding", Data, Padded, 1, "\x02\x00\x00", "", 3, ""},
		{"padding as long as the payload", Data, Padded, 1, "\x03\x00\x00", "", 0, "PROTOCOL_ERROR"},
		{"more padding than frame", Data, Padded, 1, "\xff\x00\x00", "", 0, "PROTOCOL_ERROR"},
		{"no room for the pad length", Data, Padded, 1, "", "", 0, "FRAME_SIZE_ERROR"},
		{"0x20 means nothing on DATA", Data, HasPriority, 1, "abc", "abc", 0, ""},
		{"priority", Headers, HasPriority, 3, priority + "abc", "abc", 0, ""},
		{"priority, exclusive", Headers, HasPriority, 3, "\x80\x00\x00\x01\x00abc", "abc", 0, ""},
		{"priority alone", Headers, HasPriority, 3, priority, "", 0, ""},
		{"half a priority", Headers, HasPriority, 3, priority[:4], "", 0, "FRAME_SIZE_ERROR"},
		{"depends on itself", Headers, HasPriority, 1, priority, "", 0, "PROTOCOL_ERROR"},
		{"depends on itself, exclusive", Headers, HasPriority, 1, "\x80\x00\x00\x01\x00", "", 0, "PROTOCOL_ERROR"},
		{"padding and priority", Headers, Padded | HasPriority, 3, "\x02" + priority + "abc\x00\x00", "abc", 3, ""},
		{"padding reaches into the priority", Headers, Padded | HasPriority, 3, "\x02" + priority + "x", "", 0, "FRAME_SIZE_ERROR"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rest, pad, err := Unpad(Header{len(tt.p), tt.typ, tt.flags, tt.stream}, []byte(tt.p))
			if string(rest) != tt.rest || pad != tt.pad {
				t.Errorf("got %q with %d bytes of padding, want %q with %d", rest, pad, tt.rest, tt.pad)
			}
			if got := code(err); got != tt.err {
				t.Errorf("error is %v, want %s", err, tt.err)
			}
		})
	}
}

// code is the name of err's code; "" for nil.
func code(err error) string {
	if err == nil {
		return ""
	}
	var e *Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	return e.Code.String()
}

func TestFlagsHas(t *testing.T) {
	if f := EndStream | Padded; !f.Has(EndStream) || !f.Has(EndStream|Padded) || f.Has(EndHeaders) || f.Has(EndStream|EndHeaders) {
		t.Error("Has wants all bits of its argument, and no others")
	}
}

// The names and the numbers are the RFC's, as x/net has them.
func TestCode(t *testing.T) {
	for c := range Code(len(names)) {
		if got, want := c.String(), http2.ErrCode(c).String(); got != want {
			t.Errorf("%d is %s, want %s", c, got, want)
		}
	}
	for _, c := range []Code{14, 1<<32 - 1} {
		if got := c.String(); !strings.HasPrefix(got, "code 0x") {
			t.Errorf("%d is %s", uint32(c), got)
		}
	}
	if got := Err(RefusedStream, "full").Error(); got != "http2: REFUSED_STREAM: full" {
		t.Errorf("error reads %q", got)
	}
}

// FuzzUnpad reads any frame of DATA or HEADERS as x/net does.
func FuzzUnpad(f *testing.F) {
	f.Add(true, uint8(Padded), uint32(1), []byte("\x02abc\x00\x00"))
	f.Add(true, uint8(Padded), uint32(1), []byte{})
	f.Add(false, uint8(Padded|HasPriority), uint32(3), []byte("\x02\x00\x00\x00\x01\x10abc\x00\x00"))
	f.Add(false, uint8(Padded|HasPriority), uint32(3), []byte("\x05\x00\x00\x00\x01\x10"))
	f.Add(false, uint8(HasPriority), uint32(1), []byte("\x00\x00\x00\x01\x10"))
	f.Fuzz(func(t *testing.T, data bool, flags uint8, stream uint32, p []byte) {
		if len(p) > MaxLen {
			return
		}
		h := Header{len(p), Headers, Flags(flags), max(stream&MaxStream, 1)}
		if data {
			h.Type = Data
		}
		b := append(h.Append(nil), p...)
		if got := Parse(b); got != h {
			t.Fatalf("%+v comes back as %+v", h, got)
		}
		got, pad, err := Unpad(h, b[HeaderLen:])
		if err == nil && (pad < 0 || len(got)+pad > len(p) || cap(got) > cap(b)) {
			t.Fatalf("%d bytes are %d and %d of padding", len(p), len(got), pad)
		}
		frame, theirErr := theirs(b).ReadFrame()
		if theirErr == nil && !data && h.Flags.Has(HasPriority) && frame.(*http2.HeadersFrame).Priority.StreamDep == h.Stream {
			theirErr = errors.New("x/net's server notices later that the stream depends on itself")
		}
		if (err == nil) != (theirErr == nil) {
			t.Fatalf("%+v %x: error is %v, x/net's is %v", h, p, err, theirErr)
		}
		if err != nil {
			return
		}
		var want []byte
		switch frame := frame.(type) {
		case *http2.DataFrame:
			want = frame.Data()
		case *http2.HeadersFrame:
			want = frame.HeaderBlockFragment()
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%+v %x: got %x, x/net has %x", h, p, got, want)
		}
		total := len(got) + pad
		if !data && h.Flags.Has(HasPriority) {
			total += 5
		}
		if total != len(p) {
			t.Fatalf("%+v: %d of %d bytes are accounted for", h, total, len(p))
		}
	})
}

// FuzzParse: a header is read as x/net reads it, and comes back as it was.
func FuzzParse(f *testing.F) {
	f.Add([]byte("\x00\x00\x03\x00\x01\x00\x00\x00\x01"))
	f.Add([]byte("PRI * HTTP/2.0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < HeaderLen {
			return
		}
		h := Parse(b)
		want, err := http2.ReadFrameHeader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if h.Length != int(want.Length) || h.Type != Type(want.Type) || h.Flags != Flags(want.Flags) || h.Stream != want.StreamID {
			t.Fatalf("got %+v, x/net has %v", h, want)
		}
		again := bytes.Clone(b[:HeaderLen])
		binary.BigEndian.PutUint32(again[5:], binary.BigEndian.Uint32(again[5:])&MaxStream)
		if !bytes.Equal(h.Append(nil), again) {
			t.Fatalf("%x comes back as %x", again, h.Append(nil))
		}
	})
}
