package router

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
)

// Ask is a call that has not come, for [Match].
type Ask struct {
	Protocol protocols.Protocol
	Method   string
	Host     string // with a port or not
	Path     string // escaped, as in a request, without the query
	Header   http.Header
}

// Match says which of some routes takes a call, as a Server does it: the first that
// fits. It is -1 if none does. why has an entry for each route before, or for each
// of all: what of the call does not fit. The error is of a path that is refused
// whatever the routes are.
func Match(routes []Route, ask Ask) (i int, why []string, err error) {
	a := &asked{host: ask.Host, method: ask.Method, path: ask.Path, fields: ask.Header}
	slash := false
	if ask.Protocol != protocols.GRPC {
		var ok bool
		if a.path, slash, ok = routePath(ask.Path); !ok {
			return -1, nil, errAmbiguousPath
		}
	}
	i = find(routes, ask.Protocol, a)
	if slash && (i < 0 || !routes[i].EncodedSlash) {
		return -1, nil, errAmbiguousPath
	}
	passed := routes
	if i >= 0 {
		passed = routes[:i]
	}
	for j := range passed {
		why = append(why, passed[j].explain(passed[j].miss(ask.Protocol, a), a))
	}
	return i, why, nil
}

// Preflight reports whether the route answers the call itself, which asks what pages
// of other origins may do.
func (r *Route) Preflight(ask Ask) bool { return r.CORS != nil && isPreflight(ask.Method, ask.Header) }

// ServerPath is what a server gets for an escaped path and its query.
func (r *Route) ServerPath(path, query string) string {
	if query != "" {
		path += "?" + query
	}
	if r.Rewrite == "" {
		return path
	}
	return (&way{Route: r}).rewrite(path)
}

// asked is what a route is chosen by.
type asked struct {
	host, method string
	path         string // as routePath gives it; of a gRPC call as it came
	fields       interface{ Get(name string) string }
}

// find gives the place of the first route that takes a call, or -1.
func find(routes []Route, p protocols.Protocol, a *asked) int {
	for i := range routes {
		if routes[i].miss(p, a) == taken {
			return i
		}
	}
	return -1
}

// miss is the first thing of a call that does not fit a route.
type miss uint8

const (
	taken miss = iota // everything fits
	missKind
	missPath
	missMethod
	missHost
	missHeader
)

// miss compares a call with the route.
func (r *Route) miss(p protocols.Protocol, a *asked) miss {
	var is string
	switch p {
	case protocols.GRPC:
		is = r.GRPC
	case protocols.WebSocket:
		is = r.WebSocket
	case protocols.HTTP:
		is = r.Path
	}
	switch {
	case is == "":
		return missKind
	case p == protocols.GRPC && !r.takesCall(a.path), p != protocols.GRPC && !takesPath(is, a.path):
		return missPath
	case len(r.Methods) > 0 && !slices.Contains(r.Methods, r.methodOf(a)):
		return missMethod
	case len(r.Hosts) > 0 && !slices.ContainsFunc(r.Hosts, func(pattern string) bool { return matchHost(pattern, a.host) }):
		return missHost
	}
	for name, want := range r.Headers { // in lower case, see newTable
		if !a.has(name, want) {
			return missHeader
		}
	}
	return taken
}

// methodOf is the method that a call is chosen by: a preflight is chosen by that
// of the request that may follow.
func (r *Route) methodOf(a *asked) string {
	if r.CORS != nil && isPreflight(a.method, a.fields) {
		return a.fields.Get(fieldWants)
	}
	return a.method
}

// has reports whether a field is there, with that value or with any if it is "".
func (a *asked) has(name, want string) bool {
	got := a.fields.Get(name)
	return got != "" && (want == "" || got == want)
}

// explain puts a miss into words.
func (r *Route) explain(m miss, a *asked) string {
	switch m {
	case missKind:
		switch {
		case r.GRPC != "":
			return "for gRPC alone"
		case r.WebSocket != "":
			return "for WebSockets alone"
		}
		return "for plain HTTP alone"
	case missPath:
		if r.GRPC != "" {
			return "the call is not of " + r.GRPC
		}
		return "the path is not " + r.kinds()[0]
	case missMethod:
		return "the method is not " + strings.Join(r.Methods, " or ")
	case missHost:
		return "the host is not " + strings.Join(r.Hosts, " or ")
	case missHeader:
		var names []string
		for name, want := range r.Headers {
			if !a.has(name, want) {
				names = append(names, strings.TrimSuffix(name+": "+want, ": "))
			}
		}
		slices.Sort(names)
		return "the header has no " + strings.Join(names, ", no ")
	case taken:
	}
	return ""
}

// errAmbiguousPath is of what a route and a server could read in two ways.
var errAmbiguousPath = errors.New("the path has an encoded slash, a backslash, NUL, \"..;\" or a bad escape in it")
