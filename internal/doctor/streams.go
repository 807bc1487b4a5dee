package doctor

import (
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

func http2Probes() []probe {
	const h2 = "curl-h2"
	return []probe{
		{"http2", h2, (*patient).http2, "curl, browsers and load balancers ask this way: the server must be handed the real *tls.Conn (net/http speaks HTTP/2 only then), or ALPN must not say h2."},
		{"http2-settings", h2, (*patient).settingsOnce, "An empty SETTINGS frame before the server's own is cmux's MatchWithWriters: clients acknowledge twice, and servers or curl end the connection with PROTOCOL_ERROR. Nothing may be written before the connection is handed over."},
		{"http2-trailers", h2, (*patient).requestTrailers, "Trailers behind a request's body are HTTP (RFC 9113 section 8.1): some clients and proxies send them, and lose all calls on a connection that ends for it (nginx 1.22 does that)."},
		{"mixed-streams", h2, (*patient).mixed, "Browsers and load balancers send REST and gRPC over one connection: what a call is must be decided for each stream, not by the first one for the whole connection as cmux does."},
		{"rest-at-grpc-path", h2, (*patient).restAtRPC, "What is gRPC the content type says, not the path: such a request must get an answer, and must not break the connection for others."},
		{"idle-http2", h2, (*patient).idle2, "Clients keep connections for minutes: one that ends at once costs a handshake for each request."},
	}
}

func grpcProbes() []probe {
	return []probe{
		{"grpc-alpn", "grpc", (*patient).grpcALPN, "gRPC clients offer h2 alone, and newer ones refuse a server that does not choose it: put h2 into the ALPN list (tls.Config.NextProtos)."},
		{"grpc-settings-first", "grpc", (*patient).settingsFirst, "gRPC clients send no call before they have seen the server's SETTINGS: a server that first wants to see headers waits for ever (cmux: matchers of HTTP/2 headers)."},
		{"grpc-unary", "grpc", (*patient).grpcUnary, "Look whether the method is served there, and whether what stands before it speaks HTTP/2 to it."},
		{"grpc-trailers", "grpc", (*patient).grpcTrailers, "A gRPC status comes in trailers behind the message: proxies that speak HTTP/1 to the server, or flush at once, lose them, and clients say UNKNOWN or INTERNAL."},
	}
}

// none2 says that there is no HTTP/2, or what is wrong with it; nil if it works.
func (p *patient) none2() *Check {
	if p.h2Err == nil {
		return nil
	}
	c := skip("HTTP/2 does not work: %s", said(p.h2Err))
	if errors.Is(p.h2Err, errNoHTTP2) {
		c = skip("the server speaks no HTTP/2")
	}
	return &c
}

// often is how many connections are tried where what goes wrong is a race.
const often = 5

func (p *patient) http2() Check {
	switch {
	case errors.Is(p.h2Err, errNoHTTP2):
		return skip("the server speaks no HTTP/2: of h2 and http/1.1 it takes %s", quoted("http/1.1"))
	case p.h2Err != nil:
		return fail("GET %s over HTTP/2: %s", p.Path, said(p.h2Err))
	}
	for i := range often {
		if err := p.twice(); err != nil {
			return fail("GET %s over HTTP/2, on connection %d of %d: %s", p.Path, i+1, often, said(err))
		}
	}
	return working(p.h2, "GET "+p.Path+" over HTTP/2:")
}

// twice asks twice on one connection: what a first answer brings to light, a second shows.
func (p *patient) twice() error {
	h, err := p.open2(2, "h2", "http/1.1")
	if err != nil {
		return err
	}
	defer shut(h)
	for range 2 {
		if _, err := h.ask(p.get()); err != nil {
			var gone goAwayError
			if errors.As(err, &gone) && gone.code == http2.ErrCodeNo { // it closes after one, and says so
				return nil
			}
			return err
		}
	}
	return nil
}

// settingsOnce looks what the server sends before it answers, as curl and a gRPC client.
func (p *patient) settingsOnce() Check {
	if errors.Is(p.h2Err, errNoHTTP2) {
		return *p.none2()
	}
	var saw [][]http2.Setting
	for _, req := range []*request2{p.get(), p.unary()} {
		h, err := p.open2(1, "h2", "http/1.1")
		if err != nil {
			return skip("HTTP/2 does not work: %s", said(err))
		}
		_, err = h.ask(req)
		shut(h)
		before := h.settings[:h.early]
		if err != nil {
			before = h.settings // it has ended before the answer
		}
		if len(before) > 1 && (len(before[0]) == 0 || err != nil || contradicts(before)) {
			return fail("%d SETTINGS frames before the first answer: first %s, then %s", len(before), shown(before[0]), shown(before[1]))
		}
		if len(before) > 0 {
			saw = before
		}
	}
	if len(saw) == 0 {
		return skip("no SETTINGS have come")
	}
	return ok("the server's SETTINGS come once: %s", shown(saw[0]))
}

// contradicts reports that a later frame brings what must not change after the first one:
// SETTINGS_NO_RFC7540_PRIORITIES (RFC 9218 section 2.1).
func contradicts(frames [][]http2.Setting) bool {
	has := func(all []http2.Setting) bool {
		return slices.ContainsFunc(all, func(s http2.Setting) bool { return s.ID == http2.SettingNoRFC7540Priorities && s.Val == 1 })
	}
	return has(frames[0]) != has(frames[1])
}

// requestTrailers compares two POSTs.
func (p *patient) requestTrailers() Check {
	if c := p.none2(); c != nil {
		return *c
	}
	post := p.request(http.MethodPost, p.Path, [2]string{"content-type", "text/plain"})
	post.body = []byte("doctor")
	plain, err := p.alone(post, "h2", "http/1.1")
	if err != nil {
		return skip("a POST to %s gets no answer without trailers either: %s", p.Path, said(err))
	}
	post.trailer = [][2]string{{"x-doctor", "1"}}
	with, err := p.alone(post, "h2", "http/1.1")
	switch {
	case err != nil:
		return warn("a POST with trailers: %s; without them: %d", said(err), plain.status)
	case with.status != plain.status:
		return warn("a POST with trailers gets %d, without them %d", with.status, plain.status)
	}
	return ok("a POST with trailers gets %d, as without them", with.status)
}

// mixed sends REST and gRPC over one connection, in both orders, and compares with each alone.
func (p *patient) mixed() Check {
	rest := p.h2
	if rest == nil {
		rest = p.h1 // if HTTP/2 works for gRPC alone, that too shows here
	}
	switch {
	case errors.Is(p.h2Err, errNoHTTP2) && errors.Is(p.rpcErr, errNoHTTP2):
		return skip("the server speaks no HTTP/2")
	case rest == nil:
		return skip("an ordinary request does not work alone either")
	case p.rpc == nil || !p.rpc.isGRPC():
		return skip("there is no gRPC: %s", p.noRPC())
	}
	for _, order := range [][2]bool{{true, false}, {false, true}} { // true is gRPC
		h, err := p.open2(2, "h2", "http/1.1")
		if err != nil {
			return fail("a connection: %s", said(err))
		}
		defer shut(h)
		for i, isRPC := range order {
			what, req, want := "GET "+p.Path, p.get(), rest
			if isRPC {
				what, req, want = "a gRPC call", p.unary(), p.rpc
			}
			where := what + " on a connection whose first call was of the other kind"
			if i == 0 {
				where = what + " as the first of two kinds"
			}
			got, err := h.ask(req)
			switch {
			case err != nil:
				return fail("%s: %s; alone it gets %s", where, said(err), want.kind())
			case got.isGRPC() != want.isGRPC() || got.status != want.status && (got.status == http.StatusUnsupportedMediaType || got.status == http.StatusMethodNotAllowed):
				return fail("%s gets %s (HTTP %d), alone it gets %s", where, got.kind(), got.status, want.kind())
			case got.kind() != want.kind():
				return warn("%s gets %s, alone it gets %s", where, got.kind(), want.kind())
			}
		}
	}
	return ok("REST and gRPC on one connection, in either order, get what each gets alone: %s, %s", rest.kind(), p.rpc.kind())
}

// noRPC says why gRPC cannot be looked at.
func (p *patient) noRPC() string {
	switch {
	case errors.Is(p.rpcErr, errNoHTTP2):
		return "the server speaks no HTTP/2"
	case p.rpcErr != nil:
		return said(p.rpcErr)
	}
	return p.GRPCMethod + " gets " + p.rpc.kind()
}

func (p *patient) restAtRPC() Check {
	if c := p.none2(); c != nil {
		return *c
	}
	post := p.request(http.MethodPost, "/"+p.GRPCMethod, [2]string{"content-type", "application/json"})
	post.body = []byte("{}")
	h, err := p.open2(2, "h2", "http/1.1")
	if err != nil {
		return fail("a connection: %s", said(err))
	}
	defer shut(h)
	a, err := h.ask(post)
	if err != nil {
		return fail("POST /%s with JSON: %s", p.GRPCMethod, said(err))
	}
	if _, err := h.ask(p.get()); err != nil && (h.goaway == nil || h.goaway.ErrCode != http2.ErrCodeNo) {
		return fail("after POST /%s with JSON the connection is of no use: %s", p.GRPCMethod, said(err))
	}
	return ok("POST /%s with JSON gets %d", p.GRPCMethod, a.status)
}

func (p *patient) idle2() Check {
	if c := p.none2(); c != nil {
		return *c
	}
	h, err := p.open2(3, "h2", "http/1.1")
	if err != nil {
		return fail("a connection: %s", said(err))
	}
	defer shut(h)
	if _, err := h.ask(p.get()); err != nil {
		return fail("GET %s: %s", p.Path, said(err))
	}
	began := time.Now()
	if err := h.SetReadDeadline(began.Add(p.Timeout)); err != nil {
		return skip("%s", said(err))
	}
	for err == nil && h.goaway == nil {
		err = h.step()
	}
	return p.idled(time.Since(began).Round(100*time.Millisecond), errors.Is(err, os.ErrDeadlineExceeded))
}

// grpcALPN offers h2 alone.
func (p *patient) grpcALPN() Check {
	c, err := p.secure(1, p.config("h2"))
	if err != nil {
		if errors.Is(p.h2Err, errNoHTTP2) {
			return p.without("the server speaks no HTTP/2: %s", said(err))
		}
		return fail("a client that offers h2 alone: %s", said(err))
	}
	defer shut(c)
	if got := c.ConnectionState().NegotiatedProtocol; got == "h2" {
		return ok("a client that offers h2 alone gets it")
	}
	// Without an answer it may speak HTTP/2 all the same.
	h := newConn2(p, c)
	h.Conn = c
	if err := h.begin(); err == nil && h.step() == nil && len(h.settings) > 0 {
		return fail("the server speaks HTTP/2, and does not say so in ALPN")
	}
	return p.without("the server speaks no HTTP/2")
}

// without says that there is no gRPC: a fault only if it was asked for.
func (p *patient) without(format string, args ...any) Check {
	if p.grpcAsked {
		return fail(format, args...)
	}
	return skip(format, args...)
}

// settingsFirst sends no call, as gRPC clients do until the server's SETTINGS have come.
func (p *patient) settingsFirst() Check {
	h, err := p.open2(1, "h2")
	switch {
	case errors.Is(err, errNoHTTP2) || err != nil && errors.Is(p.h2Err, errNoHTTP2):
		return p.without("the server speaks no HTTP/2")
	case err != nil:
		return fail("a client that offers h2 alone: %s", said(err))
	}
	defer shut(h)
	began := time.Now()
	for len(h.settings) == 0 && err == nil {
		err = h.step()
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fail("the server sends no SETTINGS within %v, as long as there is no call", p.Timeout)
	case errors.Is(err, io.EOF), err != nil:
		return fail("a client of HTTP/2 without a call yet: %s", said(err))
	}
	return ok("the server's SETTINGS come without a call, after %v", time.Since(began).Round(time.Millisecond))
}

func (p *patient) grpcUnary() Check {
	switch {
	case p.rpcErr != nil && errors.Is(p.h2Err, errNoHTTP2):
		return p.without("the server speaks no HTTP/2")
	case p.rpcErr != nil:
		return fail("%s: %s", p.GRPCMethod, said(p.rpcErr))
	case !p.rpc.isGRPC():
		return p.without("there is no gRPC: %s", p.noRPC())
	case p.rpc.grpcStatus() == "14":
		return warn("%s: status 14, UNAVAILABLE", p.GRPCMethod)
	}
	return ok("%s: status %s", p.GRPCMethod, quoted(p.rpc.grpcStatus()))
}

func (p *patient) grpcTrailers() Check {
	switch a := p.rpc; {
	case a == nil || !a.isGRPC():
		return p.without("there is no gRPC: %s", p.noRPC())
	case a.grpcStatus() == "":
		return fail("an answer of %s has no grpc-status", quoted(a.header.Get("Content-Type")))
	case len(a.body) > 0 && a.trailer.Get("Grpc-Status") == "":
		return fail("grpc-status comes in the header, before a message")
	case a.frames == 1:
		return skip("an answer without a message has no trailers (status %s); --grpc-method names a method that takes an empty one", quoted(a.grpcStatus()))
	case !strings.HasPrefix(a.header.Get("Content-Type"), "application/grpc"):
		return warn("the answer has grpc-status, and says that it is %s", quoted(a.header.Get("Content-Type")))
	}
	return ok("grpc-status comes in trailers behind a message")
}
