package h2

import (
	"bytes"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// fieldList makes fields of names and values in turn.
func fieldList(pairs ...string) []hpack.HeaderField {
	fields := make([]hpack.HeaderField, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		fields = append(fields, hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return fields
}

// getFields is a good request, and what comes behind it.
func getFields(more ...string) []hpack.HeaderField {
	return fieldList(append([]string{":method", "GET", ":scheme", "https", ":path", "/x?y=z", ":authority", "a.test"}, more...)...)
}

func TestParseRequest(t *testing.T) {
	tests := []struct {
		name   string
		fields []hpack.HeaderField
		why    string
	}{
		{"GET", getFields(), ""},
		{"without an authority", getFields()[:3], ""},
		{"with fields", getFields("accept", "*/*", "accept", "text/html", "x-empty", "", "x-tab", "a\tb", "x-latin", "caf\xe9"), ""},
		{"te: trailers", getFields("te", "trailers"), ""},
		{"te: Trailers", getFields("te", "Trailers"), ""},
		{"OPTIONS *", fieldList(":method", "OPTIONS", ":scheme", "https", ":path", "*"), ""},
		{"CONNECT", fieldList(":method", "CONNECT", ":authority", "a.test:443"), ""},
		{"every byte of a token", getFields("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz", "1"), ""},
		{"the same length twice", getFields("content-length", "5", "content-length", "5"), ""},

		{"nothing", nil, "a pseudo-header field is missing"},
		{"no method", getFields()[1:], "a pseudo-header field is missing"},
		{"no scheme", fieldList(":method", "GET", ":path", "/"), "a pseudo-header field is missing"},
		{"no path", fieldList(":method", "GET", ":scheme", "https", ":authority", "a.test"), "a pseudo-header field is missing"},
		{"an empty path", fieldList(":method", "GET", ":scheme", "https", ":path", ""), "a pseudo-header field is missing"},
		{"a path without a slash", fieldList(":method", "GET", ":scheme", "https", ":path", "x"), "a path that is none"},
		{"a whole URL as path", fieldList(":method", "GET", ":scheme", "https", ":path", "https://a.test/"), "a path that is none"},
		{"GET *", fieldList(":method", "GET", ":scheme", "https", ":path", "*"), "a path that is none"},
		{"OPTIONS **", fieldList(":method", "OPTIONS", ":scheme", "https", ":path", "**"), "a path that is none"},
		{"method twice", slices.Concat(getFields(), fieldList(":method", "GET")), "a pseudo-header field twice"},
		{"path twice", slices.Concat(getFields(), fieldList(":path", "/")), "a pseudo-header field twice"},
		{"an empty authority twice", fieldList(":method", "GET", ":scheme", "https", ":path", "/", ":authority", "", ":authority", "a.test"), "a pseudo-header field twice"},
		{":status", getFields(":status", "200"), "an unknown pseudo-header field"},
		{":protocol", getFields(":protocol", "websocket"), "an unknown pseudo-header field"},
		{"only a colon", getFields(":", "x"), "an unknown pseudo-header field"},
		{"pseudo behind regular", slices.Concat(getFields()[:3], fieldList("accept", "*/*", ":authority", "a.test")), "a pseudo-header field behind a regular one"},
		{"a line in a path", fieldList(":method", "GET", ":scheme", "https", ":path", "/\r\nx: y"), "a pseudo-header field with a bad value"},
		{"a blank in a path", fieldList(":method", "GET", ":scheme", "https", ":path", "/a HTTP/1.1"), "a pseudo-header field with a bad value"},
		{"a tab in an authority", fieldList(":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a\tb"), "a pseudo-header field with a bad value"},
		{"a path that ends in a blank", fieldList(":method", "GET", ":scheme", "https", ":path", "/ "), "a pseudo-header field with a bad value"},
		{"CONNECT with a path", fieldList(":method", "CONNECT", ":authority", "a.test:443", ":path", "/"), "a malformed CONNECT"},
		{"CONNECT with a scheme", fieldList(":method", "CONNECT", ":authority", "a.test:443", ":scheme", "https"), "a malformed CONNECT"},
		{"CONNECT to nowhere", fieldList(":method", "CONNECT"), "a malformed CONNECT"},
		{"CONNECT to an empty place", fieldList(":method", "CONNECT", ":authority", ""), "a malformed CONNECT"},

		{"upper case", getFields("Accept", "*/*"), "a bad field name"},
		{"no name", getFields("", "x"), "a bad field name"},
		{"a blank in a name", getFields("a b", "x"), "a bad field name"},
		{"a colon in a name", getFields("a:b", "x"), "a bad field name"},
		{"a byte beyond ASCII in a name", getFields("caf\xe9", "x"), "a bad field name"},
		{"a line in a value", getFields("a", "b\nc: d"), "a bad field value"},
		{"NUL in a value", getFields("a", "b\x00c"), "a bad field value"},
		{"DEL in a value", getFields("a", "b\x7fc"), "a bad field value"},
		{"a blank before a value", getFields("a", " b"), "a bad field value"},
		{"a tab behind a value", getFields("a", "b\t"), "a bad field value"},
		{"a value of a blank", getFields("a", " "), "a bad field value"},
		{"connection", getFields("connection", "close"), "a field of a connection: connection"},
		{"proxy-connection", getFields("proxy-connection", "close"), "a field of a connection: proxy-connection"},
		{"keep-alive", getFields("keep-alive", "1"), "a field of a connection: keep-alive"},
		{"transfer-encoding", getFields("transfer-encoding", "chunked"), "a field of a connection: transfer-encoding"},
		{"upgrade", getFields("upgrade", "h2c"), "a field of a connection: upgrade"},
		{"te: gzip", getFields("te", "gzip"), "te is not trailers"},
		{"te: trailers, gzip", getFields("te", "trailers, gzip"), "te is not trailers"},

		{"a length of nothing", getFields("content-length", ""), "bad content-length"},
		{"a length with a sign", getFields("content-length", "+5"), "bad content-length"},
		{"a negative length", getFields("content-length", "-5"), "bad content-length"},
		{"a list of lengths", getFields("content-length", "5, 5"), "bad content-length"},
		{"two lengths", getFields("content-length", "5", "content-length", "6"), "bad content-length"},
		{"a length beyond 63 bits", getFields("content-length", "9223372036854775808"), "bad content-length"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r Request
			if why := parseRequest(&r, tt.fields); why != tt.why {
				t.Errorf("got %q, want %q", why, tt.why)
			}
		})
	}
}

func TestParseRequestFillsIn(t *testing.T) {
	r := Request{Authority: "the request before", Path: "/before", length: 3}
	if why := parseRequest(&r, getFields("content-length", "9223372036854775807")); why != "" {
		t.Fatal(why)
	}
	if r.Method != http.MethodGet || r.Scheme != "https" || r.Authority != "a.test" || r.Path != "/x?y=z" || r.length != 1<<63-1 || len(r.Fields) != 5 {
		t.Errorf("got %+v", r)
	}
	if why := parseRequest(&r, slices.Concat(getFields()[:3], fieldList("host", "b.test"))); why != "" || r.Authority != "b.test" || r.length != -1 {
		t.Errorf("got %q, %+v", why, r)
	}
	if why := parseRequest(&r, slices.Concat(getFields(), fieldList("host", "a.test"))); why != "" || r.Authority != "a.test" {
		t.Errorf("got %q, %+v", why, r)
	}
}

// A request has one authority, whoever asks for it (RFC 9113, 8.3.1): what the
// route is chosen by must be what the server reads. net/http of Go 1.26 takes
// the first Host field, x/net of today refuses both of these.
func TestAuthorityIsUnambiguous(t *testing.T) {
	for name, fields := range map[string][]hpack.HeaderField{
		"two hosts":            slices.Concat(getFields()[:3], fieldList("host", "a.test", "host", "b.test")),
		"host and authority":   getFields("host", "b.test"),
		"userinfo":             fieldList(":method", "GET", ":scheme", "https", ":path", "/", ":authority", "u:p@a.test"),
		"two hosts, authority": getFields("host", "a.test", "host", "b.test"),
	} {
		var r Request
		if why := parseRequest(&r, fields); why == "" {
			t.Errorf("%s: taken, with authority %q", name, r.Authority)
		}
	}
}

func TestCheckTrailers(t *testing.T) {
	tests := []struct {
		name   string
		fields []hpack.HeaderField
		why    string
	}{
		{"nothing", nil, ""},
		{"one", fieldList("x-sum", "1"), ""},
		{"pseudo", fieldList("x-sum", "1", ":path", "/"), "a pseudo-header field in trailers"},
		{"status", fieldList(":status", "200"), "a pseudo-header field in trailers"},
		{"upper case", fieldList("X-Sum", "1"), "a bad field name"},
		{"a line", fieldList("x-sum", "1\r\n2"), "a bad field value"},
		{"connection", fieldList("connection", "close"), "a field of a connection: connection"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if why := checkTrailers(tt.fields); why != tt.why {
				t.Errorf("got %q, want %q", why, tt.why)
			}
		})
	}
}

// Blanks around a value are a server's slip, and no reason to lose its answer.
func TestTidy(t *testing.T) {
	fields := fieldList(":status", "200 ", "a", " x y\t", "b", " ", "c", "x", "d", "",
		"grpc-message", "  failed:  x \t", "grpc-message", " \t", "grpc-message", "%20 x")
	tidy(fields)
	want := fieldList(":status", "200 ", "a", "x y", "b", "", "c", "x", "d", "",
		"grpc-message", "%20%20failed:  x%20%09", "grpc-message", "%20%09", "grpc-message", "%20 x")
	if !slices.Equal(fields, want) {
		t.Errorf("got %q", fields)
	}
}

func TestRequestFields(t *testing.T) {
	r := Request{Fields: getFields("a", "1", "b", "2", "a", "3")}
	if r.Get("a") != "1" || r.Get("b") != "2" || r.Get("c") != "" || r.Get(":path") != "/x?y=z" {
		t.Errorf("Get reads %q, %q, %q, %q", r.Get("a"), r.Get("b"), r.Get("c"), r.Get(":path"))
	}
	r.Set("a", "4")
	r.Set("c", "5")
	if want := getFields("a", "4", "b", "2", "c", "5"); !slices.Equal(r.Fields, want) {
		t.Errorf("Set leaves %v, want %v", r.Fields, want)
	}
	r.Add("a", "6")
	var asked []string
	r.Drop(func(name string) bool { asked = append(asked, name); return name == "a" })
	if want := getFields("b", "2", "c", "5"); !slices.Equal(r.Fields, want) {
		t.Errorf("Remove leaves %v, want %v", r.Fields, want)
	}
	if want := []string{"a", "b", "c", "a"}; !slices.Equal(asked, want) {
		t.Errorf("Remove asks for %v, want %v: pseudo-header fields stay", asked, want)
	}
	r.Drop(func(string) bool { return true })
	if !slices.Equal(r.Fields, getFields()) {
		t.Errorf("Remove of everything leaves %v", r.Fields)
	}
}

// encodeBlock encodes fields, with a Huffman code where that is shorter, and with a table.
func encodeBlock(fields ...hpack.HeaderField) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, f := range fields {
		_ = enc.WriteField(f)
	}
	return b.Bytes()
}

// plainString is a string without a Huffman code, of a length below 127.
func plainString(s string) []byte { return append([]byte{byte(len(s))}, s...) }

// literal is a field that enters no table.
func literal(name, value string) []byte {
	return slices.Concat([]byte{0}, plainString(name), plainString(value))
}

// decodeBlock gives a block to b in parts.
func decodeBlock(b *blocks, parts ...[]byte) error {
	b.begin(1, false)
	for i, p := range parts {
		if err := b.add(p, i == len(parts)-1); err != nil {
			return err
		}
	}
	return nil
}

func blocksFor(l Limits) *blocks {
	l = l.withDefaults()
	return newBlocks(&l)
}

func TestBlocks(t *testing.T) {
	b := blocksFor(Limits{})
	fields := getFields("user-agent", "a browser of some sort", "x", strings.Repeat("\xff", 100))
	var wire bytes.Buffer
	enc := hpack.NewEncoder(&wire)
	for round := range 3 { // from the second on, of the table
		wire.Reset()
		for _, f := range fields {
			_ = enc.WriteField(f)
		}
		p := wire.Bytes()
		if err := decodeBlock(b, p[:1], nil, p[1:len(p)/2], p[len(p)/2:]); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(b.fields, fields) || b.over || b.stream != 0 {
			t.Errorf("round %d: got %v, over: %v", round, b.fields, b.over)
		}
	}
}

// A sensitive field stays one: it never enters a table (RFC 7541, 7.1.3).
func TestBlocksKeepSensitive(t *testing.T) {
	f := hpack.HeaderField{Name: "authorization", Value: "secret", Sensitive: true}
	b := blocksFor(Limits{})
	if err := decodeBlock(b, encodeBlock(f)); err != nil || len(b.fields) != 1 || b.fields[0] != f {
		t.Fatalf("got %+v, %v", b.fields, err)
	}
	k := newLink(&Limits{}, 0, true)
	k.head(1, b.fields, true, 0)
	if want := frame.AppendBlock(nil, 1, encodeBlock(f), true); !bytes.Equal(k.out, want) {
		t.Errorf("handed on as %x, want %x", k.out, want)
	}
}

func TestBlocksLimits(t *testing.T) {
	t.Run("bytes", func(t *testing.T) {
		b := blocksFor(Limits{HeaderBytes: 200})
		f := hpack.HeaderField{Name: "name", Value: strings.Repeat("v", 64)} // 100 with 32 for the entry
		if err := decodeBlock(b, encodeBlock(f, f)); err != nil || b.over || len(b.fields) != 2 {
			t.Errorf("200 of 200: over %v, %d fields, %v", b.over, len(b.fields), err)
		}
		if err := decodeBlock(b, encodeBlock(f, f, hpack.HeaderField{Name: "x"})); err != nil || !b.over || len(b.fields) != 2 {
			t.Errorf("233 of 200: over %v, %d fields, %v", b.over, len(b.fields), err)
		}
		if err := decodeBlock(b, encodeBlock(f)); err != nil || b.over || len(b.fields) != 1 {
			t.Errorf("the next block: over %v, %d fields, %v", b.over, len(b.fields), err)
		}
	})
	t.Run("count", func(t *testing.T) {
		b := blocksFor(Limits{HeaderFields: 3})
		if err := decodeBlock(b, encodeBlock(fieldList("a", "", "b", "", "c", "")...)); err != nil || b.over {
			t.Errorf("3 of 3: over %v, %v", b.over, err)
		}
		if err := decodeBlock(b, encodeBlock(fieldList("a", "", "b", "", "c", "", "d", "")...)); err != nil || !b.over {
			t.Errorf("4 of 3: over %v, %v", b.over, err)
		}
	})
	t.Run("cookie crumbs are one field", func(t *testing.T) {
		b := blocksFor(Limits{HeaderFields: 2, HeaderBytes: 1000})
		crumbs := slices.Repeat(fieldList("cookie", "a=b"), 20) // 41 each
		if err := decodeBlock(b, encodeBlock(append(crumbs, hpack.HeaderField{Name: "x"})...)); err != nil || b.over || len(b.fields) != 21 {
			t.Errorf("a cookie and a field of 2: over %v, %d fields, %v", b.over, len(b.fields), err)
		}
		if err := decodeBlock(b, encodeBlock(append(crumbs, fieldList("x", "", "y", "")...)...)); err != nil || !b.over {
			t.Errorf("a cookie and two fields of 2: over %v, %v", b.over, err)
		}
		if err := decodeBlock(b, encodeBlock(slices.Repeat(crumbs, 2)...)); err != nil || !b.over {
			t.Errorf("1640 of 1000 bytes in crumbs: over %v, %v", b.over, err)
		}
	})
	t.Run("an entry of the table, again and again", func(t *testing.T) {
		b := blocksFor(Limits{HeaderBytes: 8 << 10, HeaderFields: 1 << 20})
		block := encodeBlock(hpack.HeaderField{Name: "bomb", Value: strings.Repeat("v", 3000)})
		block = append(block, bytes.Repeat([]byte{0x80 | 62}, 16<<10)...) // 48 MiB decoded
		if err := decodeBlock(b, block); err != nil || !b.over || len(b.fields) != 2 {
			t.Errorf("over %v, %d fields, %v", b.over, len(b.fields), err)
		}
	})
}

func TestBlocksLimitsOnTheWire(t *testing.T) {
	t.Run("CONTINUATION frames", func(t *testing.T) {
		for n, want := range map[int]string{16: "", 17: "ENHANCE_YOUR_CALM"} {
			b := blocksFor(Limits{})
			parts := make([][]byte, n+1) // empty ones count, too
			parts[n] = encodeBlock(getFields()...)
			if got := codeOf(decodeBlock(b, parts...)); got != want {
				t.Errorf("%d of 16: %q, want %q", n, got, want)
			}
		}
	})
	t.Run("bytes as they come", func(t *testing.T) {
		b := blocksFor(Limits{HeaderBytes: 1 << 10, Continuations: 100})
		part := bytes.Repeat([]byte{0x80 | 2}, 16<<10) // ":method: GET"
		if got := codeOf(decodeBlock(b, part, part)); got != "ENHANCE_YOUR_CALM" {
			t.Errorf("32 KiB of 20: %q", got)
		}
		b = blocksFor(Limits{HeaderBytes: 1 << 10, Continuations: 100})
		if err := decodeBlock(b, part, part[:4<<10]); err != nil || !b.over {
			t.Errorf("20 KiB of 20: over %v, %v", b.over, err)
		}
	})
	t.Run("strings", func(t *testing.T) {
		const most = 100
		long := func(n int) []byte { // Huffman: a zero takes 5 bits
			return encodeBlock(hpack.HeaderField{Name: "x", Value: strings.Repeat("0", n)})
		}
		b := blocksFor(Limits{HeaderBytes: most})
		if err := decodeBlock(b, long(most)); err != nil || !b.over {
			t.Errorf("100 of 100: over %v (it is 133 as a field), %v", b.over, err)
		}
		for name, block := range map[string][]byte{ // answered with 431
			"a value":          slices.Concat([]byte{0}, plainString("x"), plainString(strings.Repeat("v", most+1))),
			"a name":           slices.Concat([]byte{0}, plainString(strings.Repeat("n", most+1)), plainString("")),
			"a value, decoded": long(most + 1),
		} {
			b := blocksFor(Limits{HeaderBytes: most})
			if err := decodeBlock(b, block); err != nil || !b.over {
				t.Errorf("%s of 101 of 100: over %v, %v", name, b.over, err)
			}
		}
		b = blocksFor(Limits{HeaderBytes: most})
		if got := codeOf(decodeBlock(b, []byte{0, 1, 'x', 0x7f, 0xff, 0xff, 0x7f})); got != "ENHANCE_YOUR_CALM" {
			t.Errorf("a value that nobody would send: %q", got)
		}
	})
}

func TestBlocksErrors(t *testing.T) {
	for name, parts := range map[string][][]byte{
		"truncated":                          {literal("a", "b")[:3]},
		"truncated twice":                    {literal("a", "b")[:2], literal("a", "b")[2:4]},
		"an index of nothing":                {{0x80}},
		"an index beyond the table":          {{0x80 | 62}},
		"a table larger than SETTINGS say":   {{0x3f, 0xe2, 0x1f}}, // 4097
		"a number that does not end":         {bytes.Repeat([]byte{0xff}, 12)},
		"a Huffman code with a bad end":      {{0, 1, 'x', 0x81, 0}},
		"a Huffman code with the end inside": {{0, 1, 'x', 0x84, 0xff, 0xff, 0xff, 0xff}},
	} {
		b := blocksFor(Limits{})
		if got := codeOf(decodeBlock(b, parts...)); got != "COMPRESSION_ERROR" {
			t.Errorf("%s: %q", name, got)
		}
	}
	b := blocksFor(Limits{})
	if err := decodeBlock(b, slices.Concat([]byte{0x20, 0x3f, 0xe1, 0x1f}, literal("a", "b"))); err != nil { // 0, then 4096
		t.Errorf("a change of the table's size: %v", err)
	}
}

// codeOf is the name of err's code; "" for nil.
func codeOf(err error) string {
	if err == nil {
		return ""
	}
	var e *frame.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	return e.Code.String()
}

// verdict is what becomes of a block.
type verdict struct {
	err    string
	over   bool
	fields []hpack.HeaderField
}

func judge(l Limits, before []byte, parts [][]byte) verdict {
	b := blocksFor(l)
	if len(before) > 0 {
		_ = decodeBlock(b, before) // something for the table
	}
	if err := decodeBlock(b, parts...); err != nil {
		return verdict{err: codeOf(err)}
	}
	return verdict{over: b.over, fields: slices.Clone(b.fields)}
}

// FuzzBlocks: header blocks of anything, cut anywhere, never panic and never
// get past the limits, and the same bytes mean the same however they are cut.
func FuzzBlocks(f *testing.F) {
	table := encodeBlock(getFields("x-a", "some value", "cookie", "a=b")...)
	f.Add(encodeBlock(getFields("accept", "*/*", "cookie", "a=b", "cookie", "c=d")...), []byte{1, 3})
	f.Add([]byte{0x82, 0x87, 0x84, 0x80 | 62, 0x80 | 63}, []byte{2})
	f.Add(encodeBlock(hpack.HeaderField{Name: "x", Value: strings.Repeat("0", 300)}), []byte{5, 5, 5})
	f.Add(slices.Concat([]byte{0x20, 0x3f, 0xe1, 0x1f}, literal("a", "b")), []byte{1, 1, 1, 1})
	f.Add(bytes.Repeat([]byte{0xff}, 12), []byte{6})
	f.Add([]byte{0, 1, 'x', 0x7f, 0xff, 0xff, 0x7f}, []byte{4})
	f.Fuzz(func(t *testing.T, block, cuts []byte) {
		const bytesMost, fieldsMost, partsMost = 256, 8, 16
		if len(block) > bytesMost*4 || len(cuts) > partsMost {
			return
		}
		l := Limits{HeaderBytes: bytesMost, HeaderFields: fieldsMost, Continuations: partsMost}
		var parts [][]byte
		rest := block
		for _, n := range cuts {
			n := min(int(n), len(rest))
			parts, rest = append(parts, rest[:n]), rest[n:]
		}
		parts = append(parts, rest)
		whole, cut := judge(l, table, [][]byte{block}), judge(l, table, parts)
		if whole.err != cut.err || whole.over != cut.over || !slices.Equal(whole.fields, cut.fields) {
			t.Fatalf("%x is %+v, cut %v it is %+v", block, whole, cuts, cut)
		}
		size, count, cookie := 0, 0, false
		for _, f := range whole.fields {
			size += len(f.Name) + len(f.Value) + 32
			if f.Name != "cookie" || !cookie {
				count++
			}
			cookie = cookie || f.Name == "cookie"
		}
		if size > bytesMost || count > fieldsMost {
			t.Fatalf("%x is %d fields of %d bytes", block, count, size)
		}
		if whole.err != "" || whole.over {
			return
		}
		var r Request
		why := parseRequest(&r, slices.Clone(whole.fields))
		if why == "" && (r.Method == "" || r.Method != http.MethodConnect && (r.Path == "" || r.Scheme == "")) {
			t.Fatalf("a request of nothing: %+v", r)
		}
		if trailers := checkTrailers(whole.fields); trailers == "" && why == "" {
			t.Fatalf("both a request and trailers: %v", whole.fields)
		}
		// What is taken is handed on unchanged.
		k := newLink(&l, 0, true)
		k.head(1, whole.fields, true, 0)
		h := frame.Parse(k.out)
		if again := judge(l, nil, [][]byte{k.out[frame.HeaderLen : frame.HeaderLen+h.Length]}); !slices.Equal(again.fields, whole.fields) {
			t.Fatalf("%v is handed on as %v", whole.fields, again.fields)
		}
	})
}

// A block of a request, decoded and encoded again, all of it from tables.
func BenchmarkReencode(b *testing.B) {
	l := Limits{}.withDefaults()
	in, out := newBlocks(&l), newLink(&l, 0, true)
	var wire bytes.Buffer
	enc := hpack.NewEncoder(&wire)
	fields := getFields("content-type", "application/grpc", "te", "trailers", "user-agent", "grpc-go/1.85.0", "grpc-timeout", "99958u")
	for range 2 { // the second time it is the tables'
		wire.Reset()
		for _, f := range fields {
			_ = enc.WriteField(f)
		}
		if err := decodeBlock(in, wire.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
	block := [][]byte{wire.Bytes()}
	b.ReportAllocs()
	for b.Loop() {
		if err := decodeBlock(in, block...); err != nil {
			b.Fatal(err)
		}
		var r Request
		if why := parseRequest(&r, in.fields); why != "" {
			b.Fatal(why)
		}
		out.out = out.out[:0]
		out.head(1, r.Fields, true, 0)
	}
}
