package router

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
)

// shared serves the calls of all connections with one net/http server: HTTP/1
// always, and HTTP/2 as long as no stream switch stands in front ("h2:
// shared"). It decides request by request, so a connection may mix.
type shared struct {
	rpc     *grpc.Server
	sockets *http.ServeMux
	table   *atomic.Pointer[table]
	web     http.Handler
}

func (h *shared) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch protocolOf(r) {
	case protocols.GRPC:
		if ct := r.Header.Get("Content-Type"); ct != "" && ct[0] == 'A' || hasUpper(ct) {
			// grpc-go compares as the specification writes it, in lower case.
			r.Header.Set("Content-Type", strings.ToLower(ct))
		}
		h.rpc.ServeHTTP(w, r)
		return
	case protocols.WebSocket:
		if _, pattern := h.sockets.Handler(r); pattern != "" {
			h.sockets.ServeHTTP(w, r)
			return
		}
		h.table.Load().handler(r, true, h.web).ServeHTTP(w, r)
		return
	case protocols.HTTP:
		if r.ProtoMajor == 1 && protocols.IsGRPC(r.Method, r.Header.Get("Content-Type")) {
			http.Error(w, "gRPC needs HTTP/2", http.StatusHTTPVersionNotSupported)
			return
		}
	}
	h.table.Load().handler(r, false, h.web).ServeHTTP(w, r)
}

func protocolOf(r *http.Request) protocols.Protocol {
	if call := protocols.CallFrom(r.Context()); call != nil {
		return call.Protocol
	}
	return protocols.HTTP
}

func hasUpper(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool { return 'A' <= c && c <= 'Z' }) >= 0
}

// socketMux routes upgrades. A pattern that http.ServeMux does not take is an
// error here, and not a panic.
func socketMux(routes []socketRoute, sessions *ws.Server, opts ws.Options) (m *http.ServeMux, err error) {
	m = http.NewServeMux()
	for _, route := range routes {
		if err := handle(m, route.pattern, sessions.Handler(route.handler, opts)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func handle(m *http.ServeMux, pattern string, h http.Handler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("router: WebSocket pattern %q: %v", pattern, p)
		}
	}()
	m.Handle(pattern, h)
	return nil
}
