package rest

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

var (
	// errCut is how a request ended that was ended from outside.
	errCut = errors.New("ended from outside")
	// errLeft is how one ended that nobody waits for any more.
	errLeft = errors.New("the client has left")
)

// exchange is what the port keeps for a request, in one allocation.
type exchange struct {
	call     protocols.Call
	response response
	body     body
}

// serve is the entry of every HTTP/1 request, and of every HTTP/2 request that
// net/http serves.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 {
		deepen()
	}
	conn := protocols.ConnFrom(r.Context())
	if conn == nil { // a listener that did not come through protocols/mux
		conn = &protocols.Conn{TLS: r.TLS}
	}
	if r.TLS == nil {
		r.TLS = conn.TLS // net/http leaves it nil for ":scheme: http" over TLS (golang/go#81384)
	}

	x, protocol := new(exchange), protocolOf(r)
	call, rw := &x.call, &x.response
	if protocol == protocols.WebSocket {
		call = new(protocols.Call) // it outlives what net/http has for the request
	}
	ctx := call.Begin(r.Context(), protocols.NewID(s.prefix, s.seq.Add(1)), first(r.Header["Traceparent"]))
	call.Protocol = protocol
	call.Method, call.Host, call.Path, call.Version = r.Method, r.Host, r.URL.Path, r.Proto
	call.Conn, call.Started = conn, time.Now()
	s.opts.Meter.Begin(call)
	if len(s.opts.Observers) > 0 {
		call.Ask((*asked)(r))
		call.Observe(s.opts.Observers)
		call.Ask(nil)
	}

	rw.ResponseWriter = w
	rw.server, rw.closes = s, r.ProtoMajor == 1
	defer s.finish(call, x)
	if status, why := s.vet(r, conn); status != 0 {
		http.Error(rw, why, status)
		return
	}
	if r.TLS == nil && s.opts.Challenge.answer(rw, r) {
		return
	}
	if len(s.opts.Guards) > 0 {
		in, err := admit(ctx, s.opts.Guards, call, r)
		if err == nil {
			if why := call.OnEnd(func(*protocols.Refusal) { cutOff(w) }); why != nil {
				err = why
			}
		}
		if err != nil {
			refuse(rw, call, err, s.log)
			return
		}
		ctx = in
	}
	r = r.WithContext(ctx)
	if r.ContentLength != 0 && protocol == protocols.HTTP {
		x.body.ReadCloser, x.body.writer, x.body.bodies = r.Body, w, &s.bodies
		r.Body = &x.body
	}
	s.opts.Handler.ServeHTTP(rw, r)
}

// deepen makes the goroutine's stack 8 KiB deep at once, which is what a small
// handler needs. HTTP/2 serves each stream in a new goroutine, whose stack would
// otherwise be copied in steps, from ever deeper calls: up to 9 us for each
// request.
//
//go:noinline
func deepen() {
	var frame [4 << 10]byte
	deepest(&frame)
}

//go:noinline
func deepest(*[4 << 10]byte) {}

// finish ends a call whose handler has returned or panicked. It is deferred.
func (s *Server) finish(call *protocols.Call, x *exchange) {
	rw := &x.response
	if rw.status == 0 {
		rw.last() // its answer is empty
	}
	var res protocols.Result
	p := recover()
	abort := false
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		abort, res.Err = true, err // asked for: no stack
	} else if p != nil {
		abort = !rw.refuse(http.StatusInternalServerError)
		res.Err = fmt.Errorf("panic: %v", p)
		s.log.ErrorContext(call.Context(), "handler panicked", "request", call.RequestID(), "conn", call.Conn.ID,
			"path", call.Path, "panic", p, "stack", string(debug.Stack()))
	}
	x.body.leave()
	if !call.Detached() {
		abort = s.settle(call, rw, &res, abort)
		call.Finish(res)
	}
	if abort {
		// The answer has begun: only a broken connection, or stream, tells
		// the client that it is not whole.
		panic(http.ErrAbortHandler)
	}
}

// settle says how a call has ended, and whether its answer is to be cut off. A handler that its
// context has told of an end returns as if its answer were whole.
func (s *Server) settle(call *protocols.Call, rw *response, res *protocols.Result, abort bool) bool {
	none := result{http.StatusOK, codeUnknown} // of a handler that says none; net/http sends this
	if abort {
		none = result{http.StatusInternalServerError, codeInternal}
	}
	gone := call.Context().Err() != nil
	switch {
	case call.Settle():
		none, abort = resultOf(call.Refusal()), true
		if res.Err == nil || errors.Is(res.Err, http.ErrAbortHandler) {
			res.Err = errCut
		}
	case gone && s.impatient():
		none = resultOf(errGoing)
		switch {
		case abort:
		case rw.status == 0:
			refuse(rw, call, errGoing, s.log)
		case !rw.late && !rw.whole(call):
			abort, res.Err = true, errGoing
		}
	case gone && (rw.status == 0 || !rw.closes && !rw.whole(call)):
		// Of HTTP/1 clients some only have nothing more to say: what was written they may have.
		none = result{statusClientClosed, codeCanceled}
		if res.Err == nil || errors.Is(res.Err, http.ErrAbortHandler) {
			res.Err = errLeft
		}
	}
	if res.Status, res.Sent = rw.result(call.Protocol), rw.sent; res.Status < 0 {
		if res.Status = none.http; call.Protocol == protocols.GRPC {
			res.Status = none.grpc
		}
	}
	return abort
}

// result is what is said of a call whose handler says nothing.
type result struct{ http, grpc int }

func resultOf(why *protocols.Refusal) (r result) {
	r.http, _ = why.HTTP(http.Header{})
	r.grpc, _ = why.GRPC()
	return r
}

const (
	statusClientClosed = 499 // nginx's, for a client that has left before it was answered

	codeCanceled = 1 // gRPC's status codes
	codeUnknown  = 2
	codeInternal = 13
)

// first is http.Header.Get for a name in its canonical form.
func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// protocolOf tells what a request speaks.
func protocolOf(r *http.Request) protocols.Protocol {
	switch {
	case r.ProtoMajor == 2 && protocols.IsGRPC(r.Method, first(r.Header["Content-Type"])):
		return protocols.GRPC
	case r.ProtoMajor == 1 && r.Header["Upgrade"] != nil && IsUpgrade(r):
		return protocols.WebSocket
	}
	return protocols.HTTP
}

// IsUpgrade reports whether r asks to become a WebSocket (RFC 6455, 4.2.1).
func IsUpgrade(r *http.Request) bool {
	return hasToken(r.Header["Connection"], "upgrade") && hasToken(r.Header["Upgrade"], "websocket")
}

// hasToken reports whether a comma-separated list contains token, in any case.
func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(item, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// vet looks at a request's head. It returns a status and a text for one that
// is refused, and removes what a stranger must not say.
func (s *Server) vet(r *http.Request, conn *protocols.Conn) (int, string) {
	trusted := Trusts(s.opts.TrustedProxies, conn.Remote.Addr())
	fields := 0
	for name, values := range r.Header {
		fields += len(values)
		if forwarding(name) {
			if !trusted {
				delete(r.Header, name)
			}
		} else if strings.IndexByte(name, '_') >= 0 && forwarding(http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))) {
			return http.StatusBadRequest, "header " + strconv.Quote(name) + " reads like a forwarding header and is refused"
		}
	}
	if fields > s.opts.HeaderFields {
		return http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("more than %d header fields", s.opts.HeaderFields)
	}
	if len(r.Header["Content-Type"]) > 1 { // a server may take it for a gRPC call, which is guarded as one
		return http.StatusBadRequest, "more than one Content-Type"
	}
	if strings.IndexByte(r.URL.Path, 0) >= 0 {
		return http.StatusBadRequest, "NUL in the path"
	}
	return 0, ""
}

// forwarding reports whether a canonical header name tells where, or whom, a request
// came from, which handlers believe.
func forwarding(name string) bool {
	switch {
	case len(name) == 0:
		return false
	case name[0] == 'X':
		return strings.HasPrefix(name, "X-Forwarded-") || name == "X-Real-Ip" || name == "X-User-Id"
	}
	return name == "Forwarded"
}

// Forwarding reports whether a field of HTTP/2, in lower case, tells where a
// request came from, or reads as if it did once "_" is "-".
func Forwarding(name string) bool {
	if name == "" || name[0] != 'x' && name[0] != 'f' {
		return false
	}
	name = strings.ReplaceAll(name, "_", "-")
	return name == "forwarded" || name == "x-real-ip" || name == "x-user-id" || strings.HasPrefix(name, "x-forwarded-")
}

// Trusts reports whether ip is one of those whose forwarding fields are believed.
func Trusts(proxies []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(ip) })
}
