package edge

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/upstream"
)

// ProxyOptions configures Proxy.
type ProxyOptions struct {
	Listen    string       // the TLS port
	Plaintext string       // a plaintext port beside it; "" for none
	HTTP      string       // URL of the server of plain HTTP; "" for none
	GRPC      string       // host:port or URL of the server of gRPC; "" for none
	CertFile  string       // certificate and key; a development certificate if none is given
	KeyFile   string       //
	CertDir   string       // where development certificates are kept
	Hosts     []string     // names the development certificate is for, besides localhost
	Log       *slog.Logger // nil for slog.Default
	Access    *slog.Logger // nil for no access lines
}

// Proxy gives a server that stands before others. When it has ended, stop
// closes the connections to them.
func Proxy(opts ProxyOptions) (srv *router.Server, stop func(), err error) {
	if opts.HTTP == "" && opts.GRPC == "" {
		return nil, nil, errors.New("nothing to stand before: want --http, --grpc, or both")
	}
	if (opts.CertFile == "") != (opts.KeyFile == "") {
		return nil, nil, errors.New("--cert and --key go together")
	}
	var routes []router.Route
	stop = func() {
		for _, r := range routes {
			r.To.Close()
		}
	}
	if opts.GRPC != "" {
		url := opts.GRPC
		if !strings.Contains(url, "://") {
			url = "grpc://" + url
		}
		up, err := upstream.New(url, upstream.Options{Log: opts.Log})
		if err != nil {
			return nil, nil, err
		}
		routes = append(routes, router.Route{GRPC: "*", To: up})
		if up.Streams() == nil {
			stop()
			return nil, nil, fmt.Errorf("gRPC needs HTTP/2, and %v speaks HTTP/1: want host:port, or grpc://, grpcs:// or h2c://", up)
		}
	}
	if opts.HTTP != "" {
		up, err := upstream.New(opts.HTTP, upstream.Options{Log: opts.Log})
		if err != nil {
			stop()
			return nil, nil, err
		}
		routes = append(routes, router.Route{Path: "/", To: up})
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
		Access:    opts.Access,
	}
	if opts.Plaintext != "" {
		srv.Listeners = append(srv.Listeners, router.Listener{Addr: opts.Plaintext, Plaintext: true})
	}
	return srv, stop, nil
}
