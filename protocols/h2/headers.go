package h2

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

const (
	fieldType   = "content-type"
	fieldLength = "content-length"
	fieldStatus = ":status"
	// fieldMessage is the text of a gRPC call's error.
	fieldMessage = "grpc-message"
)

// Request is the head of a request: what decides where a stream goes. It is
// valid until the function that it was given to returns.
type Request struct {
	Method    string
	Scheme    string
	Authority string // :authority, or else the Host field
	Path      string // with the query
	Fields    []hpack.HeaderField

	length int64  // content-length; -1 if there is none
	kind   string // content-type
	grpc   bool
	marked bool // there is a StreamField
}

// GRPC reports whether the request is a gRPC call: by its method and content
// type, as the client sent them.
func (r *Request) GRPC() bool { return r.grpc }

// Get returns the first field of that name, which is in lower case; "" if
// there is none.
func (r *Request) Get(name string) string { return field(r.Fields, name) }

// Set makes value the only one of that name.
func (r *Request) Set(name, value string) { r.Fields = setField(r.Fields, name, value) }

// Add adds a field.
func (r *Request) Add(name, value string) {
	r.Fields = append(r.Fields, hpack.HeaderField{Name: name, Value: value})
}

// Drop takes out the fields whose name drop accepts. Pseudo-header fields stay.
func (r *Request) Drop(drop func(name string) bool) { r.Fields = removeFields(r.Fields, drop) }

// field returns the first field of that name, or "".
func field(fields []hpack.HeaderField, name string) string {
	for i := range fields {
		if fields[i].Name == name {
			return fields[i].Value
		}
	}
	return ""
}

// setField makes value the only one of that name.
func setField(fields []hpack.HeaderField, name, value string) []hpack.HeaderField {
	for i := range fields {
		if fields[i].Name == name {
			fields[i].Value = value
			rest := slices.DeleteFunc(fields[i+1:], func(f hpack.HeaderField) bool { return f.Name == name })
			return fields[:i+1+len(rest)]
		}
	}
	return append(fields, hpack.HeaderField{Name: name, Value: value})
}

// removeFields takes out the fields whose name drop accepts, but for
// pseudo-header fields.
func removeFields(fields []hpack.HeaderField, drop func(name string) bool) []hpack.HeaderField {
	return slices.DeleteFunc(fields, func(f hpack.HeaderField) bool { return !f.IsPseudo() && drop(f.Name) })
}

// blocks decodes header blocks, one at a time: HPACK's state belongs to the
// connection, so every block is decoded to its end, wanted or not.
type blocks struct {
	dec    *hpack.Decoder
	stream uint32 // whose block is open; 0 if none is
	end    bool   // HEADERS had END_STREAM
	parts  int    // CONTINUATION frames so far
	raw    int    // bytes so far, as they came
	size   int    // bytes decoded, as RFC 9113, 6.5.2 counts them
	count  int    // fields decoded, all cookie fields as one
	cookie bool
	fields []hpack.HeaderField
	over   bool // the list got too large: fields is not whole

	maxSize, maxCount, maxRaw, maxParts int
}

// newBlocks returns a decoder for a peer. Our SETTINGS leave it a dynamic
// table of the default size.
func newBlocks(l *Limits) *blocks {
	b := &blocks{maxSize: l.HeaderBytes, maxCount: l.HeaderFields, maxRaw: 4*l.HeaderBytes + frame.MaxLen, maxParts: l.Continuations}
	b.dec = hpack.NewDecoder(tableSize, b.emit)
	b.dec.SetMaxStringLength(b.maxRaw)
	return b
}

// bear lets blocks be longer than lists may be: up to n bytes as they came, to be decoded
// and thrown away, where the end of the connection would cost others their streams.
func (b *blocks) bear(n int) {
	b.maxRaw, b.maxParts = max(b.maxRaw, n), max(b.maxParts, 2*n/frame.MaxLen)
	b.dec.SetMaxStringLength(b.maxRaw)
}

const tableSize = 4096

func (b *blocks) emit(f hpack.HeaderField) {
	b.size += int(f.Size())
	if f.Name != "cookie" || !b.cookie { // crumbs of one field (RFC 9113, 8.2.3)
		b.count++
		b.cookie = b.cookie || f.Name == "cookie"
	}
	if b.size > b.maxSize || b.count > b.maxCount {
		b.over = true
		b.dec.SetEmitEnabled(false) // what is left changes the table, and nothing else
		return
	}
	b.fields = append(b.fields, f)
}

// begin starts a block with a HEADERS frame.
func (b *blocks) begin(stream uint32, end bool) {
	b.stream, b.end = stream, end
	b.parts, b.raw, b.size, b.count, b.cookie, b.over = 0, 0, 0, 0, false, false
	b.fields = b.fields[:0]
	b.dec.SetEmitEnabled(true)
}

// add decodes a fragment. With last set the block is complete.
func (b *blocks) add(p []byte, last bool) error {
	if b.raw += len(p); b.raw > b.maxRaw || b.parts > b.maxParts {
		return frame.Err(frame.EnhanceYourCalm, "a header block that does not end")
	}
	b.parts++
	_, err := b.dec.Write(p)
	if err == nil && last {
		err = b.dec.Close()
	}
	if err != nil {
		if err == hpack.ErrStringLength { //nolint:errorlint // as the decoder returns it
			return frame.Err(frame.EnhanceYourCalm, "a header field is too long")
		}
		return frame.Err(frame.CompressionError, err.Error())
	}
	if last {
		b.stream = 0
	}
	return nil
}

// parseRequest makes r of a decoded block, or says why it is malformed (RFC
// 9113, 8.2 and 8.3). fields are r's from then on.
func parseRequest(r *Request, fields []hpack.HeaderField) (why string) {
	*r = Request{Fields: fields, length: -1}
	var seen pseudo
	regular, kinds := false, 0
	host := ""
	for i := range fields {
		f := &fields[i]
		if f.IsPseudo() {
			if regular {
				return "a pseudo-header field behind a regular one"
			}
			if why := r.takePseudo(f, &seen); why != "" {
				return why
			}
			continue
		}
		regular = true
		if why := checkField(f); why != "" {
			return why
		}
		switch f.Name {
		case fieldLength:
			n, err := strconv.ParseUint(f.Value, 10, 63)
			if err != nil || r.length >= 0 && r.length != int64(n) {
				return "bad content-length"
			}
			r.length = int64(n)
		case fieldType: // whether it is a gRPC call, the server must not see in another way
			if kinds++; kinds > 1 {
				return "two content-type fields"
			}
			r.kind = f.Value
		case "host":
			if host != "" {
				return "two host fields"
			}
			host = f.Value
		case StreamField:
			r.marked = true
		}
	}
	if why := r.checkPseudo(seen); why != "" {
		return why
	}
	// One authority, whoever asks for it: what the route is chosen by is what
	// the server reads (RFC 9113, 8.3.1).
	switch {
	case r.Authority == "":
		r.Authority = host
	case host != "" && !strings.EqualFold(host, r.Authority):
		return "host is not :authority"
	}
	if strings.IndexByte(r.Authority, '@') >= 0 {
		return "user information in the authority"
	}
	r.grpc = protocols.IsGRPC(r.Method, r.kind)
	return ""
}

// pseudo is a set of pseudo-header fields.
type pseudo uint8

const (
	pseudoMethod pseudo = 1 << iota
	pseudoScheme
	pseudoAuthority
	pseudoPath
)

func (r *Request) takePseudo(f *hpack.HeaderField, seen *pseudo) (why string) {
	var which pseudo
	switch f.Name {
	case ":method":
		r.Method, which = f.Value, pseudoMethod
	case ":scheme":
		r.Scheme, which = f.Value, pseudoScheme
	case ":authority":
		r.Authority, which = f.Value, pseudoAuthority
	case ":path":
		r.Path, which = f.Value, pseudoPath
	default:
		return "an unknown pseudo-header field"
	}
	if *seen&which != 0 {
		return "a pseudo-header field twice"
	}
	// A blank would end a target of HTTP/1.1, which servers may make of it.
	if !validValue(f.Value) || strings.IndexByte(f.Value, ' ') >= 0 || strings.IndexByte(f.Value, '\t') >= 0 || which == pseudoMethod && !validMethod(f.Value) {
		return "a pseudo-header field with a bad value"
	}
	*seen |= which
	return ""
}

func (r *Request) checkPseudo(seen pseudo) (why string) {
	switch {
	case r.Method == http.MethodConnect:
		if seen != pseudoMethod|pseudoAuthority || r.Authority == "" {
			return "a malformed CONNECT"
		}
	case r.Method == "" || r.Scheme == "" || r.Path == "":
		return "a pseudo-header field is missing"
	case r.Path[0] != '/' && (r.Path != "*" || r.Method != http.MethodOptions):
		return "a path that is none"
	}
	return ""
}

// checkResponse returns the status of an answer's head, or "" if it is malformed.
func checkResponse(fields []hpack.HeaderField) (status string) {
	if len(fields) == 0 || fields[0].Name != fieldStatus {
		return ""
	}
	status = fields[0].Value
	if len(status) != 3 || status[0] < '1' || status[0] > '9' || !digit(status[1]) || !digit(status[2]) || status == "101" {
		return ""
	}
	if checkTrailers(fields[1:]) != "" {
		return ""
	}
	return status
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// checkTrailers says why a block of trailers is malformed.
func checkTrailers(fields []hpack.HeaderField) (why string) {
	for i := range fields {
		if fields[i].IsPseudo() {
			return "a pseudo-header field in trailers"
		}
		if why := checkField(&fields[i]); why != "" {
			return why
		}
	}
	return ""
}

func checkField(f *hpack.HeaderField) (why string) {
	if !validName(f.Name) {
		return "a bad field name"
	}
	if !validValue(f.Value) {
		return "a bad field value"
	}
	switch f.Name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return "a field of a connection: " + f.Name
	case "te":
		if !strings.EqualFold(f.Value, "trailers") {
			return "te is not trailers"
		}
	}
	return ""
}

// nameByte has true for what may be in a field's name: a token in lower case.
var nameByte = func() (t [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz" {
		t[c] = true
	}
	return t
}()

func validName(s string) bool {
	for i := range len(s) {
		if !nameByte[s[i]] {
			return false
		}
	}
	return s != ""
}

func validMethod(s string) bool {
	for i := range len(s) {
		if c := s[i]; !nameByte[c] && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != ""
}

func validValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return s == "" || !blank(s[0]) && !blank(s[len(s)-1])
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// tidy takes the blanks out that servers leave around fields' values, which are
// malformed (RFC 9113, 8.2.1). Many do: grpc-go 1.85 sends the message of an error
// that ends in a blank as it is, and the call would end in another error than
// its own. There they are encoded; elsewhere they mean nothing (RFC 9110, 5.5).
func tidy(fields []hpack.HeaderField) {
	for i := range fields {
		f := &fields[i]
		if f.Value == "" || !blank(f.Value[0]) && !blank(f.Value[len(f.Value)-1]) || f.IsPseudo() {
			continue
		}
		inner := strings.Trim(f.Value, " \t")
		if f.Name != fieldMessage {
			f.Value = inner
			continue
		}
		before := strings.Index(f.Value, inner) // of "": all are behind it
		f.Value = blanks.Replace(f.Value[:before]) + inner + blanks.Replace(f.Value[before+len(inner):])
	}
}

// blanks encodes them as grpc-message has them (gRPC over HTTP2, Status-Message).
var blanks = strings.NewReplacer(" ", "%20", "\t", "%09")
