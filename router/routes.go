package router

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router/upstream"
)

// Route sends calls to a server elsewhere instead of to one in this process.
// It takes a call that fits one of GRPC, Path and WebSocket, and all of Hosts,
// Methods and Headers that are set.
type Route struct {
	// Name is what the log calls it; "" for what it takes.
	Name string

	// GRPC names the gRPC calls that it takes: "pkg.Service",
	// "pkg.Service/Method", or "*" for all.
	GRPC string
	// Path names the plain HTTP requests that it takes: all below it if it ends
	// in "/", else that path alone. Neither gRPC calls nor WebSockets. What is
	// compared is the request's path decoded and without "." and ".." in it; the
	// server gets the path as it came.
	Path string
	// WebSocket names the WebSocket handshakes that it takes, as Path does. The
	// server must speak HTTP/1.1.
	WebSocket string

	// Hosts lists the hosts that it is for, without ports: "api.example.com", or
	// "*.example.com" for any name one label below. Empty means all.
	Hosts []string
	// Methods lists the methods that it is for. Empty means all.
	Methods []string
	// Headers lists fields that a request must have: with that value, or with
	// any if it is "".
	Headers map[string]string

	// To is where the calls go. Whoever made it closes it, after Serve.
	To *upstream.Upstream
	// Redirect answers with that Location instead: a URL, or a path. For Path alone.
	// A "*" in it stands for what of the request's path, and query, is behind Path.
	Redirect string
	// RedirectStatus is the answer's status; zero means 308.
	RedirectStatus int
}

// kinds is what a route takes.
func (r *Route) kinds() (list []string) {
	for _, k := range []string{r.GRPC, r.Path, r.WebSocket} {
		if k != "" {
			list = append(list, k)
		}
	}
	return list
}

// String is its name, or what it takes.
func (r *Route) String() string { return cmp.Or(r.Name, strings.Join(r.kinds(), " ")) }

// Validate says what is wrong with a route.
func (r *Route) Validate() error {
	switch {
	case len(r.kinds()) != 1:
		return fmt.Errorf("router: route %q names GRPC, Path and WebSocket, or none of them: want one", r)
	case r.Path != "" && r.Path[0] != '/', r.WebSocket != "" && r.WebSocket[0] != '/':
		return fmt.Errorf("router: route %q: the path does not begin with /", r)
	case r.GRPC != "" && (r.GRPC[0] == '/' || strings.Count(r.GRPC, "/") > 1):
		return fmt.Errorf("router: %q names no gRPC service: want pkg.Service, pkg.Service/Method or *", r.GRPC)
	case r.Redirect != "":
		return r.validateRedirect()
	case r.To == nil:
		return fmt.Errorf("router: route %q leads nowhere: want To or Redirect", r)
	case r.GRPC != "" && !r.To.HTTP2():
		return fmt.Errorf("router: route %q: gRPC needs HTTP/2, and %v speaks HTTP/1: want grpc://, grpcs:// or h2c://", r, r.To)
	case r.WebSocket != "" && r.To.HTTP2():
		return fmt.Errorf("router: route %q: WebSocket needs HTTP/1.1, and %v speaks HTTP/2: want http:// or https://", r, r.To)
	}
	return nil
}

func (r *Route) validateRedirect() error {
	switch {
	case r.To != nil:
		return fmt.Errorf("router: route %q leads to %v and redirects: want one", r, r.To)
	case r.Path == "":
		return fmt.Errorf("router: route %q redirects: that is for Path alone", r)
	case !slices.Contains([]int{0, 301, 302, 303, 307, 308}, r.RedirectStatus):
		return fmt.Errorf("router: route %q redirects with status %d: want 301, 302, 303, 307 or 308", r, r.RedirectStatus)
	}
	return nil
}

// asked is what a route is chosen by.
type asked struct {
	host, method string
	path         string // as routePath gives it; of a gRPC call as it came
	fields       interface{ Get(name string) string }
}

// fits reports whether a call fits Hosts, Methods and Headers.
func (r *Route) fits(a *asked) bool {
	if len(r.Methods) > 0 && !slices.Contains(r.Methods, a.method) {
		return false
	}
	if len(r.Hosts) > 0 && !slices.ContainsFunc(r.Hosts, func(pattern string) bool { return matchHost(pattern, a.host) }) {
		return false
	}
	for name, want := range r.Headers { // in lower case, see newTable
		if got := a.fields.Get(name); got == "" || want != "" && got != want {
			return false
		}
	}
	return true
}

// matchHost compares a host, with a port or not, with a pattern: a leading
// "*." stands for exactly one label, as in certificates (RFC 6125, 6.4.3).
func matchHost(pattern, host string) bool {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	if rest, ok := strings.CutPrefix(pattern, "*"); ok {
		i := strings.IndexByte(host, '.')
		return i > 0 && strings.EqualFold(host[i:], rest)
	}
	return strings.EqualFold(pattern, host)
}

// takesCall reports whether the route takes a gRPC call.
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

// takesPath reports whether a pattern, of Path or WebSocket, takes a path.
func takesPath(pattern, path string) bool {
	if strings.HasSuffix(pattern, "/") {
		return strings.HasPrefix(path, pattern)
	}
	return pattern != "" && path == pattern
}

// routePath is what routes compare of an escaped path: decoded, without empty,
// "." and ".." elements. It reports false for a path that servers read in different
// ways: with an encoded slash, a backslash, or NUL.
func routePath(escaped string) (p string, ok bool) {
	p = escaped
	if strings.IndexByte(p, '%') >= 0 {
		var err error
		if p, err = url.PathUnescape(p); err != nil || strings.Count(p, "/") != strings.Count(escaped, "/") {
			return "", false
		}
	}
	if strings.ContainsAny(p, "\\\x00") {
		return "", false
	}
	if strings.Contains(p, "//") || strings.Contains(p, "/.") {
		clean := path.Clean(p)
		if clean != "/" && (strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || strings.HasSuffix(p, "/..")) {
			clean += "/"
		}
		p = clean
	}
	return p, true
}

// table is what a port sends elsewhere. It never changes: another takes its place.
type table struct {
	routes  []Route
	tunnels []http.Handler // of the routes of WebSockets
}

// newTable makes a table of routes, or says what is wrong with them.
func (s *Server) newTable(routes []Route) (*table, error) {
	t := &table{routes: slices.Clone(routes), tunnels: make([]http.Handler, len(routes))}
	var errs []error
	for i := range t.routes {
		r := &t.routes[i]
		if err := r.Validate(); err != nil {
			errs = append(errs, err)
			continue
		}
		r.Hosts, r.Methods, r.Headers = slices.Clone(r.Hosts), slices.Clone(r.Methods), lowerCase(r.Headers)
		if r.WebSocket != "" {
			t.tunnels[i] = s.sessions.Tunnel(ws.TunnelOptions{
				Dial: r.To.DialHTTP1, Prepare: upstream.Forward, Log: s.Log, Name: r.To.String(),
			})
		}
	}
	return t, errors.Join(errs...)
}

// lowerCase is a copy of fields with names as HTTP/2 has them.
func lowerCase(fields map[string]string) map[string]string {
	lower := make(map[string]string, len(fields))
	for name, value := range fields {
		lower[strings.ToLower(name)] = value
	}
	return lower
}

// SetRoutes replaces Routes, for calls that come from now on; what is in flight
// goes on as it began. With an error nothing has changed. It may be called at
// any time, also while the Server serves.
func (s *Server) SetRoutes(routes []Route) error {
	s.init()
	t, err := s.newTable(routes)
	if err != nil {
		return err
	}
	if s.noCalls.Load() && t.hasCalls() {
		return errSharedCalls
	}
	s.table.Store(t)
	return nil
}

var errSharedCalls = errors.New("router: routes of gRPC calls need the stream switch, and a listener has SharedH2")

func (t *table) hasCalls() bool {
	return slices.ContainsFunc(t.routes, func(r Route) bool { return r.GRPC != "" })
}

// forCall returns the route of a gRPC call; nil if there is none. The first that
// matches counts.
func (t *table) forCall(a *asked) *Route {
	for i := range t.routes {
		if r := &t.routes[i]; r.takesCall(a.path) && r.fits(a) {
			return r
		}
	}
	return nil
}

// forRequest returns the route of a plain HTTP request.
func (t *table) forRequest(a *asked) *Route {
	for i := range t.routes {
		if r := &t.routes[i]; takesPath(r.Path, a.path) && r.fits(a) {
			return r
		}
	}
	return nil
}

// forSocket returns the handler of a WebSocket handshake.
func (t *table) forSocket(a *asked) http.Handler {
	for i := range t.routes {
		if r := &t.routes[i]; takesPath(r.WebSocket, a.path) && r.fits(a) {
			return t.tunnels[i]
		}
	}
	return nil
}

// handler returns who serves a request that net/http has taken: the first
// route that fits it, or else otherwise.
func (t *table) handler(r *http.Request, socket bool, otherwise http.Handler) http.Handler {
	if len(t.routes) == 0 {
		return otherwise
	}
	p, ok := routePath(r.URL.EscapedPath())
	if !ok {
		return ambiguousPath
	}
	a := &asked{host: r.Host, method: r.Method, path: p, fields: r.Header}
	if socket {
		if h := t.forSocket(a); h != nil {
			return h
		}
		return otherwise
	}
	switch route := t.forRequest(a); {
	case route == nil:
		return otherwise
	case route.Redirect != "":
		return route.redirect(p)
	default:
		return route.To
	}
}

// ambiguousPath refuses what a route and a server could read in two ways.
var ambiguousPath = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "the path has an encoded slash, a backslash, NUL or a bad escape in it", http.StatusBadRequest)
})

// redirect answers with the route's Location.
func (r *Route) redirect(path string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		to := r.Redirect
		if before, after, ok := strings.Cut(to, "*"); ok {
			rest := (&url.URL{Path: strings.TrimPrefix(path, r.Path), RawQuery: req.URL.RawQuery}).String()
			to = before + strings.TrimPrefix(rest, "./") + after
		}
		w.Header().Set("Location", to)
		w.WriteHeader(cmp.Or(r.RedirectStatus, http.StatusPermanentRedirect))
	})
}
