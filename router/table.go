package router

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router/upstream"
)

// table is what a port sends elsewhere. It never changes: another takes its place.
type table struct {
	ways []*way
}

// newTable makes a table of routes, or says what is wrong with them.
func (s *Server) newTable(routes []Route) (*table, error) {
	t := new(table)
	var errs []error
	for i := range routes {
		if err := routes[i].Validate(); err != nil {
			errs = append(errs, err)
			continue
		}
		r := routes[i]
		r.Hosts, r.Methods, r.Headers = slices.Clone(r.Hosts), slices.Clone(r.Methods), lowerCase(r.Headers)
		w := newWay(&r)
		if r.WebSocket != "" {
			for _, d := range w.shares {
				d.tunnel = s.sessions.Tunnel(ws.TunnelOptions{
					Dial: d.up.DialHTTP1, Prepare: upstream.Forward, Log: s.Log, Name: d.up.String(),
				})
			}
		}
		t.ways = append(t.ways, w)
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
	return slices.ContainsFunc(t.ways, func(w *way) bool { return w.GRPC != "" })
}

// forCall returns the route of a gRPC call; nil if there is none. The first that
// matches counts.
func (t *table) forCall(a *asked) *way {
	for _, w := range t.ways {
		if w.takesCall(a.path) && w.fits(a) {
			return w
		}
	}
	return nil
}

// forRequest returns the route of a plain HTTP request.
func (t *table) forRequest(a *asked) *way {
	for _, w := range t.ways {
		if takesPath(w.Path, a.path) && w.fits(a) {
			return w
		}
	}
	return nil
}

// forSocket returns the route of a WebSocket handshake.
func (t *table) forSocket(a *asked) *way {
	for _, w := range t.ways {
		if takesPath(w.WebSocket, a.path) && w.fits(a) {
			return w
		}
	}
	return nil
}

// handler returns who serves a request that net/http has taken: the first
// route that fits it, or else otherwise.
func (t *table) handler(r *http.Request, socket bool, otherwise http.Handler) http.Handler {
	if len(t.ways) == 0 {
		return otherwise
	}
	p, ok := routePath(r.URL.EscapedPath())
	if !ok {
		return ambiguousPath
	}
	a := &asked{host: r.Host, method: r.Method, path: p, fields: r.Header}
	if socket {
		if w := t.forSocket(a); w != nil {
			return w.to().tunnel
		}
		return otherwise
	}
	w := t.forRequest(a)
	switch {
	case w == nil:
		return otherwise
	case w.CORS != nil && isPreflight(r.Method, r.Header):
		return w.CORS.handler()
	case w.Redirect != "":
		return w.redirect(p)
	default:
		return w.to()
	}
}

// stream returns where a plain HTTP request goes that came as a stream; nil if
// net/http is to take it.
func (t *table) stream(r *h2.Request, a *asked) (to h2.Backend, elsewhere bool) {
	if len(t.ways) == 0 {
		return nil, false
	}
	var ok bool
	if a.path, ok = routePath(a.path); !ok {
		return nil, false
	}
	w := t.forRequest(a)
	switch {
	case w == nil, w.Redirect != "":
		return nil, false
	case w.CORS != nil && isPreflight(a.method, r):
		return w.CORS.stream(r), false
	}
	to = w.to().stream
	return to, to != nil
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
