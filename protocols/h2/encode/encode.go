package encode

import (
	"strings"

	"golang.org/x/net/http2/hpack"
)

const (
	// entries is how many of the last additions to the table are remembered.
	// The peer's table may have more: those are never named again.
	entries = 64
	// overhead is what an entry counts for beside its strings (RFC 7541, 4.1).
	overhead = 32
	static   = 61 // entries of the static table
)

// Encoder encodes header blocks for one connection. The zero value is not
// ready: see New.
type Encoder struct {
	limit   uint32 // what the table may be at most, whatever the peer allows
	max     uint32 // what it is now
	lowest  uint32 // the smallest it was since the last block
	resized bool   // the peer must be told of max
	huffman bool

	ring  []entry // grows to entries
	count uint64  // additions so far
	total uint64  // their bytes
	first uint64  // additions before this one were evicted when the table shrank
}

// entry is an addition to the dynamic table.
type entry struct {
	name, value string
	before      uint64 // bytes added before it
}

// New returns an encoder whose table has the size of the protocol's default,
// and never more than limit. With huffman, strings are made short, which
// costs time on both sides.
func New(limit uint32, huffman bool) *Encoder {
	return &Encoder{limit: limit, max: min(4096, limit), huffman: huffman, resized: limit < 4096, lowest: min(4096, limit)}
}

// SetTableSize takes the peer's SETTINGS_HEADER_TABLE_SIZE.
func (e *Encoder) SetTableSize(n uint32) {
	n = min(n, e.limit)
	if n == e.max {
		return
	}
	if !e.resized {
		e.lowest = n
	}
	e.max, e.lowest, e.resized = n, min(e.lowest, n), true
	e.first = e.count // simpler than to work out which are left
}

// Begin begins a block: changes of the table's size come first (RFC 7541, 4.2).
func (e *Encoder) Begin(b []byte) []byte {
	if !e.resized {
		return b
	}
	e.resized = false
	if e.lowest < e.max {
		// What the peer evicted for want of space must not be counted on. Nothing
		// is: from empty, which is small enough for whatever it has asked for.
		b = append(b, 0x20)
	}
	return appendInt(b, 0x20, 5, uint64(e.max))
}

// Field adds a field to the block.
func (e *Encoder) Field(b []byte, f *hpack.HeaderField) []byte {
	if !f.Sensitive {
		if i := staticPair(f); i != 0 {
			return append(b, 0x80|i)
		}
	}
	// From the newest on: what this connection says, it says again and again.
	name := uint64(0)
	oldest := max(e.first, max(e.count, entries)-entries)
	for i := e.count; i > oldest; i-- {
		at := &e.ring[(i-1)%entries]
		if e.total-at.before > uint64(e.max) {
			break // evicted, and all before it
		}
		if at.name != f.Name {
			continue
		}
		if at.value == f.Value && !f.Sensitive {
			return appendInt(b, 0x80, 7, static+1+e.count-i)
		}
		if name == 0 {
			name = static + 1 + e.count - i
		}
	}
	if name == 0 {
		name = uint64(staticNames[f.Name])
	}
	switch {
	case f.Sensitive:
		b = appendInt(b, 0x10, 4, name)
	case e.worthwhile(f):
		b = appendInt(b, 0x40, 6, name)
		e.add(f)
	default:
		b = appendInt(b, 0, 4, name)
	}
	if name == 0 {
		b = e.appendString(b, f.Name)
	}
	return e.appendString(b, f.Value)
}

// Once adds a field that will not come again: its name goes to the table, its
// value does not.
func (e *Encoder) Once(b []byte, name string, value []byte) []byte {
	at := uint64(0)
	oldest := max(e.first, max(e.count, entries)-entries)
	for i := e.count; i > oldest && at == 0; i-- {
		if e.total-e.ring[(i-1)%entries].before > uint64(e.max) {
			break
		}
		if e.ring[(i-1)%entries].name == name {
			at = static + 1 + e.count - i
		}
	}
	if at == 0 {
		b = e.Field(b, &hpack.HeaderField{Name: name, Value: string(value)})
		return b
	}
	b = appendInt(b, 0, 4, at)
	b = appendInt(b, 0, 7, uint64(len(value)))
	return append(b, value...)
}

func (e *Encoder) add(f *hpack.HeaderField) {
	// Copies: these may be parts of a whole head, which would live as long.
	if at := (entry{strings.Clone(f.Name), strings.Clone(f.Value), e.total}); len(e.ring) < entries {
		e.ring = append(e.ring, at)
	} else {
		e.ring[e.count%entries] = at
	}
	e.count++
	e.total += uint64(f.Size())
}

// worthwhile reports whether a field is likely to come again as it is.
func (e *Encoder) worthwhile(f *hpack.HeaderField) bool {
	return f.Size() <= e.max/4 && (f.Value == "" || !once[f.Name])
}

// once has fields that are different each time.
var once = map[string]bool{
	"content-length": true, "content-range": true, "range": true, "date": true, "last-modified": true, "etag": true, "age": true,
	"if-none-match": true, "if-modified-since": true, "set-cookie": true, "location": true, "expires": true,
	"grpc-timeout": true, "grpc-message": true, "grpc-status-details-bin": true, "grpc-trace-bin": true, "grpc-tags-bin": true,
	"traceparent": true, "tracestate": true, "x-request-id": true, "x-trace-id": true, "idempotency-key": true,
}

// staticPair returns the index of a field in the static table, or 0. Of those
// with a value it knows what comes up.
func staticPair(f *hpack.HeaderField) byte {
	if f.Name == "" || f.Name[0] != ':' {
		return 0
	}
	switch f.Name {
	case ":method":
		switch f.Value {
		case "GET":
			return 2
		case "POST":
			return 3
		}
	case ":path":
		if f.Value == "/" {
			return 4
		}
	case ":scheme":
		switch f.Value {
		case "http":
			return 6
		case "https":
			return 7
		}
	case ":status":
		switch f.Value {
		case "200":
			return 8
		case "204":
			return 9
		case "206":
			return 10
		case "304":
			return 11
		case "400":
			return 12
		case "404":
			return 13
		case "500":
			return 14
		}
	}
	return 0
}

// staticNames is the first index of each name in the static table (RFC 7541, A).
var staticNames = map[string]byte{
	":authority": 1, ":method": 2, ":path": 4, ":scheme": 6, ":status": 8, "accept-charset": 15, "accept-encoding": 16,
	"accept-language": 17, "accept-ranges": 18, "accept": 19, "access-control-allow-origin": 20, "age": 21, "allow": 22,
	"authorization": 23, "cache-control": 24, "content-disposition": 25, "content-encoding": 26, "content-language": 27,
	"content-length": 28, "content-location": 29, "content-range": 30, "content-type": 31, "cookie": 32, "date": 33, "etag": 34,
	"expect": 35, "expires": 36, "from": 37, "host": 38, "if-match": 39, "if-modified-since": 40, "if-none-match": 41, "if-range": 42,
	"if-unmodified-since": 43, "last-modified": 44, "link": 45, "location": 46, "max-forwards": 47, "proxy-authenticate": 48,
	"proxy-authorization": 49, "range": 50, "referer": 51, "refresh": 52, "retry-after": 53, "server": 54, "set-cookie": 55,
	"strict-transport-security": 56, "transfer-encoding": 57, "user-agent": 58, "vary": 59, "via": 60, "www-authenticate": 61,
}

// appendInt adds an integer with a prefix of that many bits (RFC 7541, 5.1).
func appendInt(b []byte, first byte, bits uint, n uint64) []byte {
	most := uint64(1)<<bits - 1
	if n < most {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func (e *Encoder) appendString(b []byte, s string) []byte {
	if e.huffman {
		if n := hpack.HuffmanEncodeLength(s); n < uint64(len(s)) {
			b = appendInt(b, 0x80, 7, n)
			return hpack.AppendHuffmanString(b, s)
		}
	}
	b = appendInt(b, 0, 7, uint64(len(s)))
	return append(b, s...)
}
