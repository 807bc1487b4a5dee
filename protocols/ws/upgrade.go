package ws

import (
	"bufio"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/protocols"
)

// Sizes of gorilla's buffers. Reads larger than the buffer go past it, so a
// small one costs a session nothing but the header's copy; the write buffer
// comes from a pool and is held only while a message is written.
const (
	readBuffer  = 256
	writeBuffer = 4 << 10
)

// refusal is why a handshake was refused: a bounded set.
type refusal uint8

const (
	refusedNot         refusal = iota
	refusedVersion1            // not HTTP/1.1: WebSocket over HTTP/2 is not offered
	refusedUpgrade             // no upgrade asked for
	refusedMethod              // not GET
	refusedVersion             // not version 13
	refusedKey                 // no valid Sec-WebSocket-Key
	refusedOrigin              // a web page of another origin
	refusedDraining            // the server is going away
	refusedHandshake           // the rest: the client left meanwhile
	refusedBody                // a request with a body, for a tunnel
	refusedUnreachable         // the tunnel's upstream cannot be reached
	refusedLate                // it takes too long
	refusedInvalid             // it answers something that is no handshake
	refusedUpstream            // it has refused by itself
	numRefusals
)

var refusals = [numRefusals]struct {
	name   string
	status int
	text   string
}{
	refusedNot:       {"none", 0, ""},
	refusedVersion1:  {"http_version", http.StatusBadRequest, "a WebSocket handshake needs HTTP/1.1"},
	refusedUpgrade:   {"no_upgrade", http.StatusUpgradeRequired, "this is a WebSocket endpoint: ask for Upgrade: websocket"},
	refusedMethod:    {"method", http.StatusMethodNotAllowed, "a WebSocket handshake is a GET request"},
	refusedVersion:   {"ws_version", http.StatusUpgradeRequired, "only WebSocket version 13 is spoken here"},
	refusedKey:       {"key", http.StatusBadRequest, "Sec-WebSocket-Key must be 16 bytes in base64"},
	refusedOrigin:    {"origin", http.StatusForbidden, "pages of this origin may not connect"},
	refusedDraining:  {"draining", http.StatusServiceUnavailable, "the server is going away"},
	refusedHandshake: {"handshake", http.StatusInternalServerError, "the connection cannot be upgraded"},

	refusedBody:        {"body", http.StatusBadRequest, "a WebSocket handshake has no body"},
	refusedUnreachable: {"upstream_unreachable", http.StatusBadGateway, "the server cannot be reached"},
	refusedLate:        {"upstream_late", http.StatusGatewayTimeout, "the server takes too long"},
	refusedInvalid:     {"upstream_invalid", http.StatusBadGateway, "the server's answer is no WebSocket handshake"},
	refusedUpstream:    {"upstream_refused", 0, ""}, // the answer is the upstream's
}

func (r refusal) String() string { return refusals[r].name }

// answer says why in HTTP.
func (r refusal) answer(w http.ResponseWriter) {
	h := w.Header()
	switch r {
	case refusedUpgrade, refusedVersion: // RFC 6455, 4.4 and RFC 9110, 15.5.22
		h.Set("Sec-WebSocket-Version", "13")
		h.Set("Upgrade", "websocket")
		h.Set("Connection", "Upgrade")
	case refusedMethod:
		h.Set("Allow", http.MethodGet)
	case refusedDraining:
		h.Set("Connection", "close")
		h.Set("Retry-After", "1")
	default:
	}
	http.Error(w, refusals[r].text, refusals[r].status)
}

// vet looks at a handshake before anything is hijacked. One that it does not
// refuse has been admitted.
func (s *Server) vet(r *http.Request, opts *Options) refusal {
	why := vetForm(r)
	switch {
	case why != refusedNot:
		return why
	case !originAllowed(r, opts.Origins):
		return refusedOrigin
	case !s.admit():
		return refusedDraining
	}
	return refusedNot
}

// vetForm looks at what makes a request a handshake (RFC 6455, 4.2.1).
func vetForm(r *http.Request) refusal {
	switch {
	case r.ProtoMajor != 1:
		return refusedVersion1
	case !websocket.IsWebSocketUpgrade(r):
		return refusedUpgrade
	case r.Method != http.MethodGet:
		return refusedMethod
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return refusedVersion
	case !validKey(r.Header.Get("Sec-WebSocket-Key")):
		return refusedKey
	}
	return refusedNot
}

// validKey reports whether key is 16 bytes in base64: 22 digits and "==".
func validKey(key string) bool {
	digits, ok := strings.CutSuffix(key, "==")
	if !ok || len(digits) != 22 {
		return false
	}
	for i := range len(digits) {
		c := digits[i]
		if !('A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '+' || c == '/') {
			return false
		}
	}
	return true
}

// originAllowed checks the page that a browser says it acts for. Without this
// any page on the Web could open a socket with the user's cookies.
func originAllowed(r *http.Request, allowed []string) bool {
	origins := r.Header["Origin"]
	if len(origins) == 0 {
		return true
	}
	if len(origins) > 1 {
		return false
	}
	u, err := url.Parse(origins[0])
	if err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) {
		return true
	}
	for _, a := range allowed {
		if a == "*" || strings.EqualFold(a, origins[0]) || err == nil && matchOrigin(a, u) {
			return true
		}
	}
	return false
}

// matchOrigin matches "https://*.example.com": one or more labels below.
func matchOrigin(pattern string, origin *url.URL) bool {
	scheme, host, ok := strings.Cut(pattern, "://*.")
	if !ok || !strings.EqualFold(scheme, origin.Scheme) {
		return false
	}
	i := len(origin.Host) - len(host)
	return i > 1 && origin.Host[i-1] == '.' && strings.EqualFold(origin.Host[i:], host)
}

// takeover stands between gorilla and the ResponseWriter, to hijack in its own
// way: gorilla hangs up on a client whose first frame arrived together with
// its handshake, as it does from clients and proxies that do not wait for the
// answer.
type takeover struct {
	http.ResponseWriter
	call   *protocols.Call // nil if there is none
	stream *stream
}

// Hijack gives gorilla a stream that replays what net/http had read ahead, and
// a reader with nothing in it.
func (t *takeover) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, brw, err := hijack(t.ResponseWriter, t.call)
	if err != nil {
		return nil, nil, err
	}
	ahead, _ := brw.Peek(brw.Reader.Buffered()) // no more than is there
	t.stream = &stream{Conn: c}
	if len(ahead) > 0 {
		t.stream.head = append([]byte(nil), ahead...)
	}
	return t.stream, bufio.NewReadWriter(bufio.NewReaderSize(t.stream, 16), brw.Writer), nil
}
