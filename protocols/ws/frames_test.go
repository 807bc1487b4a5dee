package ws

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// frame encodes one frame, with a mask of zeros if it is masked.
func wireFrame(first byte, masked bool, payload []byte) []byte {
	b := []byte{first}
	var mask byte
	if masked {
		mask = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, mask|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	if masked {
		b = append(b, 0, 0, 0, 0)
	}
	return append(b, payload...)
}

func TestFramesFindsBoundaries(t *testing.T) {
	t.Parallel()
	for _, masked := range []bool{false, true} {
		var wire []byte
		ends := map[int]bool{}
		for _, n := range []int{0, 1, 125, 126, 127, 300, 65535, 65536, 70000, 0} {
			wire = append(wire, wireFrame(0x82, masked, make([]byte, n))...)
			ends[len(wire)] = true
		}
		for _, step := range []int{1, 2, 3, 7, 1000, len(wire)} {
			var f frames
			for at := 0; at < len(wire); {
				n := f.rest(wire[at:min(at+step, len(wire))])
				if n == 0 {
					t.Fatal("no progress")
				}
				if at += n; f.between() != ends[at] {
					t.Fatalf("masked %t, steps of %d, at %d: between frames is %t", masked, step, at, f.between())
				}
			}
		}
	}
}

func TestFramesCloseCode(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		wire   []byte
		closed bool
		code   uint16
	}{
		{"none", wireFrame(0x81, false, []byte("hello")), false, 0},
		{"code", wireFrame(0x88, false, []byte{3, 0xe8, 'b', 'y', 'e'}), true, CloseNormal},
		{"no code", wireFrame(0x88, false, nil), true, CloseNoStatus},
		{"half a code", wireFrame(0x88, false, []byte{3}), true, CloseNoStatus},
		{"masked", wireFrame(0x88, true, []byte{3, 0xe8}), true, CloseNoStatus},
		{"cut off", wireFrame(0x88, false, []byte{3, 0xe8, 'x'})[:4], false, CloseNormal},
	} {
		var f frames
		f.skip(append(wireFrame(0x82, false, make([]byte, 200)), tc.wire...))
		if f.closed != tc.closed || f.closed && f.code != tc.code {
			t.Errorf("%s: closed %t with %d, want %t, %d", tc.name, f.closed, f.code, tc.closed, tc.code)
		}
	}
}

// Boundaries do not depend on how the bytes arrive, and nothing is taken twice.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0x81, 5, 'h', 'e', 'l', 'l', 'o', 0x88, 2, 3, 0xe8}, uint8(1))
	f.Add([]byte{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5}, uint8(3))
	f.Add(bytes.Repeat([]byte{0x89, 0}, 20), uint8(5))
	f.Add(wireFrame(0x82, true, make([]byte, 130)), uint8(4))
	f.Fuzz(func(t *testing.T, wire []byte, step uint8) {
		var whole, pieces frames
		whole.skip(wire)
		for p := wire; len(p) > 0; {
			n := pieces.rest(p[:min(len(p), int(step)+1)])
			if n <= 0 || n > len(p) {
				t.Fatalf("took %d of %d bytes", n, len(p))
			}
			p = p[n:]
		}
		if whole.between() != pieces.between() || whole.left != pieces.left || whole.closed != pieces.closed || whole.code != pieces.code {
			t.Fatalf("at once: %+v, in pieces: %+v", whole, pieces)
		}
	})
}
