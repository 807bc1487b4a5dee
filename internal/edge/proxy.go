package edge

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/accesslog"
	"github.com/oneport-edge/oneport/router/upstream"
)

// ProxyOptions configures Proxy.
type ProxyOptions struct {
	Listen    string         // the TLS port
	Plaintext string         // a plaintext port beside it; "" for none
	HTTP      string         // URL of the server of plain HTTP; "" for none
	GRPC      string         // host:port or URL of the server of gRPC; "" for none
	WebSocket string         // URL of the server of WebSockets; "" for HTTP, if that speaks HTTP/1.1
	CertFile  string         // certificate and key; a development certificate if none is given
	KeyFile   string         //
	CertDir   string         // where development certificates are kept
	Hosts     []string       // names the development certificate is for, besides localhost
	Log       *slog.Logger   // nil for slog.Default
	Access    *accesslog.Log // nil for no access lines
}

// Proxy gives a server that stands before others. When it has ended, stop
// closes the connections to them.
func Proxy(opts ProxyOptions) (srv *router.Server, stop func(), err error) {
	if opts.HTTP == "" && opts.GRPC == "" && opts.WebSocket == "" {
		return nil, nil, errors.New("nothing to stand before: want --http, --grpc, --ws, or some of them")
	}
	if (opts.CertFile == "") != (opts.KeyFile == "") {
		return nil, nil, errors.New("--cert and --key go together")
	}
	routes, stop, err := opts.routes()
	if err != nil {
		stop()
		return nil, nil, err
	}
	var source certs.Source = certs.Files(opts.CertFile, opts.KeyFile)
	if opts.CertFile == "" {
		source = certs.Dev(cmp.Or(opts.CertDir, "certs/dev"), opts.Hosts...)
	}
	srv = &router.Server{
		Listeners: []router.Listener{{Addr: opts.Listen}},
		Certs:     source,
		Routes:    routes,
		Log:       opts.Log,
		Observers: observers(opts.Access),
	}
	if opts.Plaintext != "" {
		srv.Listeners = append(srv.Listeners, router.Listener{Addr: opts.Plaintext, Plaintext: true})
	}
	return srv, stop, nil
}

// routes are what the options ask for. stop closes what they lead to, also
// with an error.
func (o *ProxyOptions) routes() (routes []router.Route, stop func(), err error) {
	var all []*upstream.Upstream
	stop = func() {
		for _, up := range all {
			up.Close()
		}
	}
	reach := func(url string) (*upstream.Upstream, error) {
		up, err := upstream.New(url, upstream.Options{Log: o.Log})
		if err == nil {
			all = append(all, up)
		}
		return up, err
	}
	if url := o.GRPC; url != "" {
		if !strings.Contains(url, "://") {
			url = "grpc://" + url
		}
		up, err := reach(url)
		if err != nil {
			return nil, stop, err
		}
		if !up.HTTP2() {
			return nil, stop, fmt.Errorf("gRPC needs HTTP/2, and %v speaks HTTP/1: want host:port, or grpc://, grpcs:// or h2c://", up)
		}
		routes = append(routes, router.Route{GRPC: "*", To: up})
	}
	if o.HTTP != "" {
		up, err := reach(o.HTTP)
		if err != nil {
			return nil, stop, err
		}
		routes = append(routes, router.Route{Path: "/", To: up})
		if o.WebSocket == "" && !up.HTTP2() {
			routes = append(routes, router.Route{WebSocket: "/", To: up})
		}
	}
	if o.WebSocket != "" {
		up, err := reach(o.WebSocket)
		if err != nil {
			return nil, stop, err
		}
		if up.HTTP2() {
			return nil, stop, fmt.Errorf("WebSocket needs HTTP/1.1, and %v speaks HTTP/2: want http:// or https://", up)
		}
		routes = append(routes, router.Route{WebSocket: "/", To: up})
	}
	return routes, stop, nil
}
