package encode_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols/h2/encode"
)

// Whatever is encoded, x/net's decoder gets it back, through changes of the
// table's size, evictions and more entries than the encoder remembers.
func TestRoundTrip(t *testing.T) {
	for _, huffman := range []bool{false, true} {
		for seed := range uint64(200) {
			r := rand.New(rand.NewPCG(seed, 1))
			e := encode.New(4096, huffman)
			dec := hpack.NewDecoder(4096, nil)
			var names []string
			for i := range 1 + r.IntN(120) {
				names = append(names, fmt.Sprint("name-", i))
			}
			names = append(names, ":status", ":method", "content-type", "content-length", "date", "cookie")
			for range 60 {
				if r.IntN(8) == 0 {
					for range 1 + r.IntN(3) {
						n := uint32(r.IntN(5000))
						e.SetTableSize(n)
					}
				}
				var fields []hpack.HeaderField
				for range r.IntN(20) {
					fields = append(fields, hpack.HeaderField{
						Name:      names[r.IntN(len(names))],
						Value:     strings.Repeat(fmt.Sprint(r.IntN(5)), r.IntN(200)),
						Sensitive: r.IntN(10) == 0,
					})
				}
				block := e.Begin(nil)
				for i := range fields {
					block = e.Field(block, &fields[i])
				}
				got, err := dec.DecodeFull(block)
				if err != nil || !slices.Equal(got, fields) {
					t.Fatalf("seed %d: %v\ngot  %v\nwant %v", seed, err, got, fields)
				}
			}
		}
	}
}

// The static table is RFC 7541's.
func TestStaticTable(t *testing.T) {
	dec := hpack.NewDecoder(4096, nil)
	for i := 1; i <= 61; i++ {
		want, err := dec.DecodeFull([]byte{0x80 | byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		e := encode.New(0, false)
		e.Begin(nil)
		block := e.Field(nil, &want[0])
		d := hpack.NewDecoder(0, nil)
		if got, err := d.DecodeFull(block); err != nil || got[0] != want[0] || block[0]&0x0f == 0 && block[0]&0x80 == 0 {
			t.Errorf("%d: %v became % x, %v, %v", i, want[0], block, got, err)
		}
	}
}

// What was said before is one byte or two.
func TestRepetition(t *testing.T) {
	e := encode.New(4096, true)
	fields := []hpack.HeaderField{
		{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}, {Name: "grpc-status", Value: "0"}, {Name: "grpc-message", Value: ""},
	}
	var n []int
	for range 2 {
		block := e.Begin(nil)
		for i := range fields {
			block = e.Field(block, &fields[i])
		}
		n = append(n, len(block))
	}
	if n[1] > 8 {
		t.Errorf("blocks of %d bytes", n)
	}
}

func BenchmarkEncode(b *testing.B) {
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "https"},
		{Name: ":path", Value: "/oneport.echo.v1.Echo/Unary"},
		{Name: ":authority", Value: "localhost:8443"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "user-agent", Value: "grpc-go/1.85.0"},
		{Name: "te", Value: "trailers"},
		{Name: "grpc-timeout", Value: "999998u"},
	}
	b.Run("switch", func(b *testing.B) {
		b.ReportAllocs()
		e := encode.New(4096, false)
		var block []byte
		for b.Loop() {
			block = e.Begin(block[:0])
			for i := range fields {
				block = e.Field(block, &fields[i])
			}
		}
	})
	b.Run("x/net", func(b *testing.B) {
		b.ReportAllocs()
		var block strings.Builder
		e := hpack.NewEncoder(&block)
		for b.Loop() {
			block.Reset()
			for i := range fields {
				_ = e.WriteField(fields[i])
			}
		}
	})
}
