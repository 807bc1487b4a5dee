package router

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
)

// table is what a port sends elsewhere. It never changes: another takes its place.
type table struct {
	routes []Route
	ways   []*way // one for each
}

// newTable makes a table of routes, or says what is wrong with them.
func (s *Server) newTable(routes []Route) (*table, error) {
	t := &table{routes: slices.Clone(routes)}
	var errs []error
	for i := range t.routes {
		r := &t.routes[i]
		if err := r.Validate(); err != nil {
			errs = append(errs, err)
			continue
		}
		r.Hosts, r.Methods, r.Headers = slices.Clone(r.Hosts), slices.Clone(r.Methods), lowerCase(r.Headers)
		t.ways = append(t.ways, s.newWay(r))
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

// find returns the way of a call; nil if there is none. The first that matches counts.
func (t *table) find(p protocols.Protocol, a *asked) *way {
	if i := find(t.routes, p, a); i >= 0 {
		return t.ways[i]
	}
	return nil
}

// handler returns who serves a request that net/http has taken: the first
// route that fits it, or else otherwise.
func (t *table) handler(r *http.Request, socket bool, otherwise http.Handler) http.Handler {
	if len(t.ways) == 0 {
		return otherwise
	}
	p, slash, ok := routePath(r.URL.EscapedPath())
	if !ok {
		return ambiguousPath
	}
	a := &asked{host: r.Host, method: r.Method, path: p, fields: r.Header}
	protocol := protocols.HTTP
	if socket {
		protocol = protocols.WebSocket
	}
	w := t.find(protocol, a)
	switch {
	case slash && (w == nil || !w.EncodedSlash):
		return ambiguousPath
	case w == nil:
		return otherwise
	case socket && w.own != nil:
		goes(r, &w.here)
		return w.own
	case socket:
		d := w.to()
		goes(r, &d.goes)
		return d.tunnel
	case w.CORS != nil && isPreflight(r.Method, r.Header):
		return w.CORS.handler()
	case w.Redirect != "":
		return w.redirect(p)
	case w.own != nil:
		goes(r, &w.here)
		return w.own
	default:
		d := w.to()
		goes(r, &d.goes)
		return d.web
	}
}

// goes tells a request's call where it goes, before the route's guards decide: those that they
// refuse count there too.
func goes(r *http.Request, to *protocols.Destination) {
	if call := protocols.CallFrom(r.Context()); call != nil {
		call.Goes(to)
	}
}

// stream returns where a plain HTTP request goes that came as a stream; nil if
// net/http is to take it.
func (t *table) stream(r *h2.Request, a *asked) h2.Backend {
	var slash, ok bool
	if a.path, slash, ok = routePath(a.path); !ok {
		return nil
	}
	w := t.find(protocols.HTTP, a)
	switch {
	case w == nil, w.Redirect != "", w.own != nil, slash && !w.EncodedSlash:
		return nil
	case w.CORS != nil && isPreflight(a.method, r):
		return w.CORS.stream(r)
	}
	return w.to().stream
}

// ambiguousPath refuses what a route and a server could read in two ways.
var ambiguousPath = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, errAmbiguousPath.Error(), http.StatusBadRequest)
})

// Location is where the route redirects a request to; its path is escaped.
func (r *Route) Location(path, query string) string {
	path, _, _ = routePath(path)
	return r.location(path, query)
}

// location is Location for what routePath gives.
func (r *Route) location(path, query string) string {
	before, after, ok := strings.Cut(r.Redirect, "*")
	if !ok {
		return r.Redirect
	}
	rest := (&url.URL{Path: strings.TrimPrefix(path, r.Path), RawQuery: query}).String()
	return before + strings.TrimPrefix(rest, "./") + after
}

// redirect answers with the route's Location.
func (r *Route) redirect(path string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Location", r.location(path, req.URL.RawQuery))
		w.WriteHeader(cmp.Or(r.RedirectStatus, http.StatusPermanentRedirect))
	})
}
