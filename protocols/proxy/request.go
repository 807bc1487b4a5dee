package proxy

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
)

// strip takes out of a request what is between the client and this port, and
// takes note of what there is for the server. It comes before Config.Prepare:
// a client must not name in Connection what was added for it.
func (e *exchange) strip() {
	h := &e.head
	options, cookie := "", -1
	kept := h.Fields[:0]
	for _, f := range h.Fields {
		switch nameOf(f.Name) {
		case nameHop, nameHost, nameLength, nameTransfer, nameCredentials, nameSettings:
			continue
		case nameConnection:
			options = join(options, f.Value)
			continue
		case nameTE:
			e.te = e.te || hasToken(f.Value, "trailers")
			continue
		case nameTrailer:
			e.trailer = join(e.trailer, f.Value)
			continue
		case nameExpect:
			if h.Length == 0 || !strings.EqualFold(f.Value, "100-continue") {
				continue
			}
			e.expects = true
		case nameCookie:
			if cookie >= 0 { // one field in HTTP/1.1 (RFC 9113, 8.2.3)
				kept[cookie].Value += "; " + f.Value
				continue
			}
			cookie = len(kept)
		case nameOther, namePlace, nameContentCoded:
		}
		kept = append(kept, f)
	}
	h.Fields = kept
	if options == "" {
		return
	}
	for o := range strings.SplitSeq(options, ",") {
		if o = strings.Trim(o, " \t"); nameOf(o) != nameExpect { // the others are out, or may go
			without(&h.Fields, o)
		}
	}
}

// hasToken reports whether a comma-separated list contains token, in any case
// and with parameters or not.
func hasToken(list, token string) bool {
	for item := range strings.SplitSeq(list, ",") {
		item, _, _ = strings.Cut(item, ";")
		if strings.EqualFold(strings.Trim(item, " \t"), token) {
			return true
		}
	}
	return false
}

// compose writes the request's head to e.out, or says what is wrong with it.
func (e *exchange) compose() error {
	h := &e.head
	if h.Authority == "" {
		h.Authority = e.c.Host
	}
	switch {
	case h.Method == "" || !all(h.Method, byteToken) || h.Method == http.MethodConnect:
		return fmt.Errorf("%w: its method", ErrRequest)
	case h.Path == "" || h.Path[0] != '/' && (h.Path != "*" || h.Method != http.MethodOptions):
		return fmt.Errorf("%w: its path", ErrRequest)
	case !all(h.Authority, byteHost):
		return fmt.Errorf("%w: its host", ErrRequest)
	}
	b := append(append(e.out[:0], h.Method...), ' ')
	b, ok := appendTarget(b, h.Path)
	if !ok {
		return fmt.Errorf("%w: its path", ErrRequest)
	}
	b = append(append(b, " HTTP/1.1\r\nHost: "...), h.Authority...)
	b = append(b, "\r\n"...)
	for i := range h.Fields {
		if b, ok = appendField(b, &h.Fields[i]); !ok {
			return fmt.Errorf("%w: a field of it", ErrRequest)
		}
	}
	if e.te {
		b = append(b, "Connection: TE\r\nTE: trailers\r\n"...)
	}
	e.chunking = h.Length < 0 || h.Length > 0 && e.trailer != ""
	switch {
	case e.chunking:
		if e.trailer != "" {
			if b, ok = appendField(b, &protocols.Field{Name: fieldTrailer, Value: e.trailer}); !ok {
				return fmt.Errorf("%w: a field of it", ErrRequest)
			}
		}
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case h.Length > 0 || h.Method == http.MethodPost || h.Method == http.MethodPut || h.Method == http.MethodPatch:
		b = append(b, "Content-Length: "...)
		b = append(strconv.AppendInt(b, h.Length, 10), "\r\n"...)
	}
	b = append(b, "\r\n"...)
	e.out = b
	return nil
}

// appendTarget adds a path and query as they came, but for what must be escaped:
// nothing in it may end the line, or the target.
func appendTarget(b []byte, path string) ([]byte, bool) {
	const hex = "0123456789ABCDEF"
	for i := range len(path) {
		switch c := path[i]; {
		case c <= ' ' || c == 0x7f:
			return b, false
		case c > 0x7f || c == '#': // which others read as its end
			b = append(b, '%', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return b, true
}

// appendField adds a line, with the name written as is usual in HTTP/1.1: there
// are servers that heed that. It adds nothing if the field is no good.
func appendField(b []byte, f *protocols.Field) ([]byte, bool) {
	if f.Name == "" || !all(f.Value, byteValue) {
		return b, false
	}
	before, up := len(b), true
	for i := range len(f.Name) {
		c := f.Name[i]
		if class[c]&byteToken == 0 {
			return b[:before], false
		}
		if up && 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		up = c == '-'
		b = append(b, c)
	}
	b = append(append(b, ": "...), f.Value...)
	return append(b, "\r\n"...), true
}

// replayable reports whether the request may be sent again when nobody knows
// whether the server has seen it (RFC 9110, 9.2.2).
func (e *exchange) replayable() bool {
	switch e.head.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}
