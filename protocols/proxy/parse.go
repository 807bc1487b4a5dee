package proxy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
)

// name says what a field means between two neighbours (RFC 9110, 7.6.1).
type name uint8

const (
	nameOther        name = iota
	nameHop               // of one connection
	nameConnection        // names others of this connection
	nameLength            // content-length
	nameTransfer          // transfer-encoding
	nameTrailer           // announces trailers
	nameTE                // goes on if it is trailers
	nameHost              // is Head.Authority
	nameCookie            // HTTP/2 may have it in crumbs
	nameExpect            // goes on if it is 100-continue
	namePlace             // routes, frames or reads a message: no trailer
	nameCredentials       // for a proxy: this one does not ask for any
	nameSettings          // of an upgrade to HTTP/2
	nameContentCoded      // says how to read the content
)

// byLength has the names that mean something, by their length.
var byLength = [20][]struct {
	name string
	is   name
}{
	2:  {{"te", nameTE}},
	4:  {{"host", nameHost}},
	6:  {{"cookie", nameCookie}, {"expect", nameExpect}},
	7:  {{"trailer", nameTrailer}, {"upgrade", nameHop}},
	10: {{"connection", nameConnection}, {"keep-alive", nameHop}, {"set-cookie", namePlace}},
	12: {{"content-type", nameContentCoded}},
	13: {{"authorization", namePlace}, {"cache-control", namePlace}, {"content-range", nameContentCoded}},
	14: {{"content-length", nameLength}, {"http2-settings", nameSettings}},
	16: {{"proxy-connection", nameHop}, {"content-encoding", nameContentCoded}, {"www-authenticate", namePlace}},
	17: {{"transfer-encoding", nameTransfer}},
	18: {{"proxy-authenticate", nameCredentials}},
	19: {{"proxy-authorization", nameCredentials}},
}

const fieldTrailer = "Trailer"

func nameOf(s string) name {
	if len(s) < len(byLength) {
		for i := range byLength[len(s)] {
			if known := &byLength[len(s)][i]; s == known.name || strings.EqualFold(s, known.name) {
				return known.is
			}
		}
	}
	return nameOther
}

// Classes of bytes.
const (
	byteToken uint8 = 1 << iota // of a name (RFC 9110, 5.6.2)
	byteValue                   // of a value (5.5)
	byteHost                    // of an authority
)

var class = func() (t [256]uint8) {
	for c := range 256 {
		if c >= ' ' && c != 0x7f || c == '\t' {
			t[c] |= byteValue
		}
		if c > ' ' && c < 0x7f && !strings.ContainsRune(`"#/<>?@\^`+"`{|}", rune(c)) {
			t[c] |= byteHost
		}
	}
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		t[c] |= byteToken
	}
	return t
}()

// all reports whether all bytes of s are of a class.
func all(s string, of uint8) bool {
	for i := range len(s) {
		if class[s[i]]&of == 0 {
			return false
		}
	}
	return true
}

func malformed(why string) error { return fmt.Errorf("%w: %s", ErrMalformed, why) }

// headEnd looks for the end of a head in b, whose first scanned bytes were
// looked at before: end is behind its empty line, 0 if that has not come. Each line
// must end with CRLF.
func headEnd(b []byte, scanned int) (end, seen int, err error) {
	for {
		i := bytes.IndexByte(b[scanned:], '\n')
		if i < 0 {
			return 0, scanned, nil
		}
		at := scanned + i
		if at == 0 || b[at-1] != '\r' {
			return 0, at, malformed("a line without CR")
		}
		if i == 1 {
			return at + 1, at + 1, nil
		}
		scanned = at + 1
	}
}

// answer is the head of an answer.
type answer struct {
	status  int
	fields  []protocols.Field // that go on
	length  int64             // content-length; -1 if there is none
	chunked bool
	keep    bool // the connection may be used again
}

// parse reads a head that headEnd has found. The answer's fields are parts of s.
func (a *answer) parse(s string, most int) error {
	*a = answer{fields: a.fields[:0], length: -1}
	line, rest, _ := strings.Cut(s, "\r\n")
	minor, err := a.statusLine(line)
	if err != nil {
		return err
	}
	a.keep = minor == '1'
	var options, trailer string // of Connection, and Trailer
	for rest != "\r\n" && rest != "" {
		line, rest, _ = strings.Cut(rest, "\r\n")
		f, err := parseField(line)
		if err != nil {
			return err
		}
		if len(a.fields) >= most {
			return ErrTooLarge
		}
		switch nameOf(f.Name) {
		case nameHop, nameCredentials, nameSettings, nameTE:
			continue
		case nameConnection:
			options = join(options, f.Value)
			continue
		case nameTrailer:
			trailer = join(trailer, f.Value)
			continue
		case nameTransfer:
			if a.chunked || !strings.EqualFold(f.Value, "chunked") || minor == '0' {
				return malformed("a transfer coding that is not chunked alone")
			}
			a.chunked = true
			continue
		case nameLength:
			n, err := parseLength(f.Value)
			if err != nil {
				return err
			}
			if a.length >= 0 {
				if a.length != n {
					return malformed("two lengths")
				}
				continue // said twice, and sent on once
			}
			a.length = n
		case nameOther, nameHost, nameCookie, nameExpect, namePlace, nameContentCoded:
		}
		a.fields = append(a.fields, f)
	}
	if a.chunked && a.length >= 0 {
		return malformed("a length and a transfer coding")
	}
	if a.chunked && trailer != "" {
		a.fields = append(a.fields, protocols.Field{Name: fieldTrailer, Value: trailer})
	}
	if options != "" {
		a.options(options)
	}
	return nil
}

// statusLine reads "HTTP/1.1 200 OK".
func (a *answer) statusLine(s string) (minor byte, err error) {
	const example = "HTTP/1.1 200"
	if len(s) < len(example) || s[:7] != "HTTP/1." || s[7] != '0' && s[7] != '1' || s[8] != ' ' ||
		len(s) > len(example) && s[len(example)] != ' ' || !all(s, byteValue) {
		return 0, malformed("a bad status line")
	}
	for _, c := range []byte(s[9:12]) {
		if c < '0' || c > '9' {
			return 0, malformed("a bad status")
		}
		a.status = a.status*10 + int(c-'0')
	}
	if a.status < 100 {
		return 0, malformed("a bad status")
	}
	return s[7], nil
}

// options takes Connection in: the fields that it names go no further.
func (a *answer) options(list string) {
	closes := false
	for o := range strings.SplitSeq(list, ",") {
		o = strings.Trim(o, " \t")
		switch {
		case strings.EqualFold(o, "close"):
			a.keep, closes = false, true
		case strings.EqualFold(o, "keep-alive"):
			a.keep = !closes
		case nameOf(o) == nameLength: // says how long this very message is
		default:
			without(&a.fields, o)
		}
	}
}

// parseField reads one line of a head.
func parseField(line string) (f protocols.Field, err error) {
	i := strings.IndexByte(line, ':')
	if i <= 0 || !all(line[:i], byteToken) { // also of a line that goes on with the last one (obs-fold)
		return f, malformed("a bad field name")
	}
	f = protocols.Field{Name: line[:i], Value: strings.Trim(line[i+1:], " \t")}
	if !all(f.Value, byteValue) {
		return f, malformed("a bad field value")
	}
	return f, nil
}

// parseLength reads a Content-Length: digits alone.
func parseLength(s string) (n int64, err error) {
	if s == "" || len(s) > 18 { // 10^18 bytes will do
		return 0, malformed("a bad length")
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, malformed("a bad length")
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}

// parseTrailers appends the fields of a trailer section, whose end headEnd has
// found, but for those that have no place there (RFC 9110, 6.5.1).
func parseTrailers(list []protocols.Field, s string, most int) ([]protocols.Field, error) {
	for s != "\r\n" && s != "" {
		line, rest, _ := strings.Cut(s, "\r\n")
		s = rest
		f, err := parseField(line)
		if err != nil {
			return list, err
		}
		if most--; most < 0 {
			return list, ErrTooLarge
		}
		if nameOf(f.Name) == nameOther {
			list = append(list, f)
		}
	}
	return list, nil
}

// join puts two lists behind one another.
func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

// without takes the fields of a name out.
func without(list *[]protocols.Field, name string) {
	*list = slices.DeleteFunc(*list, func(f protocols.Field) bool { return f.Is(name) })
}
