package router

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/oneport-edge/oneport/router/upstream"
)

// Route sends calls to a server elsewhere instead of to one in this process.
type Route struct {
	// GRPC names the gRPC calls that it takes: "pkg.Service",
	// "pkg.Service/Method", or "*" for all.
	GRPC string
	// Path names the plain HTTP requests that it takes: all below it if it ends
	// in "/", else that path alone. Neither gRPC calls nor WebSockets.
	Path string
	// To is where they go. Whoever made it closes it, after Serve.
	To *upstream.Upstream
}

// validate says what is wrong with a route.
func (r *Route) validate() error {
	switch {
	case r.To == nil:
		return fmt.Errorf("router: the route of %q leads nowhere", r.GRPC+r.Path)
	case (r.GRPC == "") == (r.Path == ""):
		return fmt.Errorf("router: the route to %v names GRPC and Path, or neither: want one", r.To)
	case r.Path != "" && r.Path[0] != '/':
		return fmt.Errorf("router: the path %q of a route does not begin with /", r.Path)
	case r.GRPC != "" && (r.GRPC[0] == '/' || strings.Count(r.GRPC, "/") > 1):
		return fmt.Errorf("router: %q names no gRPC service: want pkg.Service, pkg.Service/Method or *", r.GRPC)
	case r.GRPC != "" && r.To.Streams() == nil:
		return fmt.Errorf("router: gRPC needs HTTP/2, and %v speaks HTTP/1: want grpc://, grpcs:// or h2c://", r.To)
	}
	return nil
}

// takesCall reports whether it takes a gRPC call; path has no query.
func (r *Route) takesCall(path string) bool {
	if r.GRPC == "" || r.GRPC == "*" {
		return r.GRPC != ""
	}
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return false
	}
	if rest, ok = strings.CutPrefix(rest, r.GRPC); !ok {
		return false
	}
	return rest == "" || rest[0] == '/' && !strings.Contains(r.GRPC, "/")
}

// takesRequest reports whether it takes a plain HTTP request; path has no query.
func (r *Route) takesRequest(path string) bool {
	if strings.HasSuffix(r.Path, "/") {
		return strings.HasPrefix(path, r.Path)
	}
	return r.Path != "" && path == r.Path
}

// routes is what a port sends elsewhere. The first that matches counts.
type routes []Route

func (rs routes) forCall(path string) *upstream.Upstream {
	for i := range rs {
		if rs[i].takesCall(path) {
			return rs[i].To
		}
	}
	return nil
}

func (rs routes) forRequest(path string) *upstream.Upstream {
	for i := range rs {
		if rs[i].takesRequest(path) {
			return rs[i].To
		}
	}
	return nil
}

// handler is for what net/http has taken.
func (rs routes) handler(path string, otherwise http.Handler) http.Handler {
	if to := rs.forRequest(path); to != nil {
		return to
	}
	return otherwise
}
