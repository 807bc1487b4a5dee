package router

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/rest"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router/upstream"
)

// Share is one of several upstreams that have the calls of a route between them.
type Share struct {
	To *upstream.Upstream
	// Weight is its part of them: its share of the sum of all weights.
	Weight int
}

// Fallback is what calls of a route get that its upstream cannot be reached for, or
// has no server for. Either To or Status is set.
type Fallback struct {
	// To takes them instead.
	To *upstream.Upstream
	// Status, Headers and Body are the answer. gRPC calls are refused with
	// UNAVAILABLE.
	Status  int
	Headers map[string]string
	Body    string
}

// way is a route made ready: how its calls go.
type way struct {
	*Route
	request, response *edits
	plain             bool // nothing is changed, and there is no fallback
	shares            []*dest
	own               http.Handler          // answers in this process, WebSockets too; nil if the route leads elsewhere
	here              protocols.Destination // of own
	total             int                   // of the weights
}

// dest is an upstream of a route.
type dest struct {
	way    *way
	up     *upstream.Upstream
	weight int
	goes   protocols.Destination // what calls are told
	stream h2.Backend            // where streams go
	web    http.Handler          // where requests go that net/http has taken
	tunnel http.Handler          // where WebSockets go
}

// newWay makes a route ready, which is valid. Its guards come behind those of the server.
func (s *Server) newWay(r *Route) *way {
	w := &way{Route: r, here: protocols.Destination{Route: r.String()}, request: r.Request.compile(), response: r.Response.compile()}
	w.plain = w.request == nil && w.response == nil && w.CORS == nil && w.Rewrite == "" && w.RewriteHost == "" &&
		w.AnswerTimeout == 0 && w.Fallback == nil && w.Mirror == nil && w.MaxBody == 0
	if r.Handler != nil {
		w.own = r.Handler
		if r.MaxBody > 0 {
			w.own = http.MaxBytesHandler(r.Handler, r.MaxBody)
		}
		w.own = rest.Guarded(w.own, r.Guards, s.Log)
	}
	if r.Session != nil {
		w.own = rest.Guarded(s.sessions.Handler(r.Session, r.SessionOptions), r.Guards, s.Log)
	}
	for _, share := range r.shares() {
		d := &dest{way: w, up: share.To, weight: share.Weight, goes: protocols.Destination{Route: r.String(), Upstream: share.To.String()}}
		d.stream, d.web = d.newStream(), rest.Guarded(d, r.Guards, s.Log)
		if len(r.Guards) > 0 {
			d.stream = h2.Guarded(d.stream, slices.Concat(s.Guards, r.Guards), &d.goes)
		}
		if r.WebSocket != "" {
			d.tunnel = rest.Guarded(s.sessions.Tunnel(ws.TunnelOptions{
				Dial: d.up.DialHTTP1, Prepare: d.forward, Log: s.Log, Name: d.up.String(), Relay: r.Tunnel,
			}), r.Guards, s.Log)
		}
		w.shares = append(w.shares, d)
		w.total += share.Weight
	}
	return w
}

// shares are the upstreams of a route.
func (r *Route) shares() []Share {
	if r.To != nil {
		return []Share{{r.To, 1}}
	}
	return r.Split
}

// to draws the upstream of one call.
func (w *way) to() *dest {
	if len(w.shares) == 1 {
		return w.shares[0]
	}
	n := rand.IntN(w.total)
	for _, d := range w.shares {
		if n -= d.weight; n < 0 {
			return d
		}
	}
	return w.shares[len(w.shares)-1] // not reached: the weights add up to total
}

// newStream gives the backend of streams.
func (d *dest) newStream() h2.Backend {
	if !d.up.HTTP2() {
		return d.up.Handler(d.serveStream)
	}
	relay := d.up.Relay()
	relay.Prepare = func(r *h2.Request, call *protocols.Call) string {
		call.Goes(&d.goes)
		return d.way.prepare(r, call)
	}
	if d.way.response != nil || d.way.CORS != nil {
		relay.Answer = d.way.answer
	}
	relay.AnswerTimeout, relay.Timeout, relay.MaxBody = d.way.AnswerTimeout, d.way.CallTimeout, d.way.MaxBody
	switch f := d.way.Fallback; {
	case f == nil:
	case f.To != nil:
		instead := f.To.Relay()
		instead.Answer, instead.AnswerTimeout, instead.Timeout, instead.MaxBody = relay.Answer, relay.AnswerTimeout, relay.Timeout, relay.MaxBody
		relay.Otherwise = &instead
	default:
		relay.Otherwise = f.static()
	}
	return &relay
}

// forward tells a server who asks for a WebSocket.
func (d *dest) forward(out http.Header, in *http.Request) {
	if call := protocols.CallFrom(in.Context()); call != nil {
		call.Goes(&d.goes)
	}
	upstream.Forward(out, in)
}

// static is the fallback's answer to streams.
func (f *Fallback) static() *h2.Static {
	a := &h2.Static{Status: f.Status, Body: []byte(f.Body)}
	for _, p := range pairs(f.Headers) {
		a.Fields = append(a.Fields, hpack.HeaderField{Name: p.name, Value: p.value})
	}
	return a
}

// prepare changes the request of a stream as the route has it, and gives its origin.
func (w *way) prepare(r *h2.Request, call *protocols.Call) (origin string) {
	upstream.Prepare(r, call)
	if w.CORS != nil {
		origin = r.Get(fieldOrigin)
	}
	if w.Rewrite != "" {
		r.Path = w.rewrite(r.Path)
		r.Set(":path", r.Path)
	}
	if w.RewriteHost != "" {
		r.Authority = w.RewriteHost
		r.Set(":authority", w.RewriteHost)
		r.Drop(func(name string) bool { return name == "host" })
	}
	if w.CallTimeout > 0 && r.GRPC() {
		if left, ok := grpcTimeout(r.Get(fieldTimeout)); !ok || left > w.CallTimeout {
			r.Set(fieldTimeout, grpcTimeoutText(w.CallTimeout))
		}
	}
	w.request.apply(r)
	return origin
}

// answer changes the head of an answer as the route has it.
func (w *way) answer(res *h2.Response, _ *protocols.Call, origin string) { w.change(res, origin) }

// rewrite gives a request's path, with its query, as the server gets it.
func (w *way) rewrite(asked string) string {
	raw, query, hasQuery := strings.Cut(asked, "?")
	path, slash, ok := routePath(raw)
	if !ok { // not reached: such a path has no route
		return asked
	}
	if hasQuery {
		query = "?" + query
	}
	rest, ok := strings.CutPrefix(raw, w.Path)
	if decoded, _ := url.PathUnescape(raw); !ok || !slash && decoded != path { // it was compared cleaned: so it is sent
		rest = (&url.URL{Path: strings.TrimPrefix(path, w.Path)}).EscapedPath()
		if slash { // which was kept encoded
			rest = strings.ReplaceAll(rest, "%252F", "%2F")
		}
	}
	if !strings.HasSuffix(w.Path, "/") {
		rest = ""
	}
	return w.Rewrite + rest + query
}

// fieldTimeout says how long a gRPC call may take (gRPC over HTTP2, Requests).
const fieldTimeout = "grpc-timeout"

// timeoutUnits are those of grpc-timeout, the smallest first.
var timeoutUnits = []struct {
	letter byte
	unit   time.Duration
}{{'n', time.Nanosecond}, {'u', time.Microsecond}, {'m', time.Millisecond}, {'S', time.Second}, {'M', time.Minute}, {'H', time.Hour}}

// grpcTimeout reads a grpc-timeout.
func grpcTimeout(s string) (time.Duration, bool) {
	const mostDigits = 8
	if len(s) < 2 || len(s) > mostDigits+1 {
		return 0, false
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if err != nil {
		return 0, false
	}
	for _, u := range timeoutUnits {
		if u.letter == s[len(s)-1] {
			if time.Duration(n) > (1<<63-1)/u.unit {
				return 1<<63 - 1, true
			}
			return time.Duration(n) * u.unit, true
		}
	}
	return 0, false
}

// grpcTimeoutText writes a grpc-timeout, in the smallest unit that has room for it.
func grpcTimeoutText(d time.Duration) string {
	for _, u := range timeoutUnits {
		if n := (d + u.unit - 1) / u.unit; n < 1e8 {
			return strconv.FormatInt(int64(n), 10) + string(u.letter)
		}
	}
	return "99999999H"
}
