package router

import (
	"cmp"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/oneport-edge/oneport/protocols"
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

	// Guards are asked, behind the Server's, whether a call may go on; not about a
	// preflight that CORS answers. A Redirect asks none.
	Guards []protocols.Guard

	// To is where the calls go. Whoever made it closes it, after Serve.
	To *upstream.Upstream
	// Split shares the calls between several instead: for a canary. All of them
	// speak the same.
	Split []Share
	// Fallback is for calls whose upstream cannot be reached. Nil refuses them with 502,
	// 503 or UNAVAILABLE. Not for WebSocket.
	Fallback *Fallback
	// Mirror gets copies of requests; what it answers is thrown away. For Path alone,
	// and servers that speak HTTP/1.1.
	Mirror *upstream.Upstream

	// Rewrite is what the server gets in place of Path, at the beginning of the
	// request's path: with Path "/api/" and Rewrite "/", "/api/users" gets there as "/users".
	// For Path alone; both end in "/", or neither does.
	Rewrite string
	// EncodedSlash takes requests that have a slash as %2F in their path, which are
	// refused otherwise: servers read it as a slash, or do not. It is compared as "%2F".
	// For Path and WebSocket.
	EncodedSlash bool
	// RewriteHost is the host that the server is asked for. "" means the one that the
	// client asked for. Not for WebSocket.
	RewriteHost string
	// Request and Response change the heads of what goes to the server, and comes
	// back from it. Not for WebSocket.
	Request, Response Edits
	// CORS says which pages of other origins may read the answers. Nil leaves
	// it to the server. For Path alone.
	CORS *CORS

	// MaxBody is how many bytes the body of a request may have: with more it is answered
	// 413, before the server is asked if the client says how long it is. Zero means no
	// bound. For Path alone.
	MaxBody int64

	// AnswerTimeout is how long the server may take to the head of its answer to
	// a plain HTTP request. Zero means 60 s. It is looked at once a second.
	AnswerTimeout time.Duration
	// CallTimeout caps how long a gRPC call may take in all: a longer
	// grpc-timeout, or none, is replaced by it, and the call ends with DEADLINE_EXCEEDED.
	// Zero means no cap: streams may rest for days.
	CallTimeout time.Duration
	// Tunnel is how what goes through a WebSocket is treated. For WebSocket alone.
	Tunnel ws.Relay
	// Redirect answers with that Location instead: a URL, or a path. For Path alone.
	// A "*" in it stands for what of the request's path, and query, is behind Path.
	Redirect string
	// RedirectStatus is the answer's status; zero means 308.
	RedirectStatus int
	// Handler answers in this process instead, behind Guards. For Path alone.
	Handler http.Handler
	// Session serves a WebSocket in this process instead, behind Guards; SessionOptions
	// configure it. For WebSocket alone.
	Session        ws.HandlerFunc
	SessionOptions ws.Options
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

// matchHost compares a host, with a port or not, with a pattern: a leading
// "*." stands for exactly one label, as in certificates (RFC 6125, 6.4.3).
func matchHost(pattern, host string) bool {
	host = strings.TrimSuffix(hostOnly(host), ".")
	if rest, ok := strings.CutPrefix(pattern, "*"); ok {
		i := strings.IndexByte(host, '.')
		return i > 0 && strings.EqualFold(host[i:], rest)
	}
	return strings.EqualFold(pattern, host)
}

// hostOnly is a host without its port.
func hostOnly(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		return host[:i]
	}
	return host
}

// takesCall reports whether the route takes a gRPC call.
func (r *Route) takesCall(path string) bool {
	if r.GRPC == "*" {
		return true
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
	return path == pattern
}

// routePath is what routes compare of an escaped path: decoded, without empty,
// "." and ".." elements. An encoded slash stays as it is, and slash says that there is
// one: servers read it in different ways. It is not ok if a path can only be read so:
// with a backslash, NUL, a bad escape, a "..;" which Java's servers read as "..", or an encoded
// slash beside elements that are taken out.
func routePath(escaped string) (p string, slash, ok bool) {
	p = escaped
	if strings.IndexByte(p, '%') >= 0 {
		var err error
		if p, err = url.PathUnescape(p); err != nil {
			return "", false, false
		}
		if slash = strings.Count(p, "/") != strings.Count(escaped, "/"); slash {
			if unclean(p) {
				return "", true, false
			}
			p, _ = url.PathUnescape(encodedSlash.Replace(escaped))
		}
	}
	if strings.ContainsAny(p, "\\\x00") || strings.Contains(p, "/..;") || strings.Contains(p, "/.;") {
		return "", slash, false
	}
	if unclean(p) {
		clean := path.Clean(p)
		if clean != "/" && (strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || strings.HasSuffix(p, "/..")) {
			clean += "/"
		}
		p = clean
	}
	return p, slash, true
}

// unclean reports whether there may be elements in a path that are taken out.
func unclean(path string) bool { return strings.Contains(path, "//") || strings.Contains(path, "/.") }

// encodedSlash escapes an encoded slash once more, so that it stays when the rest is
// decoded.
var encodedSlash = strings.NewReplacer("%2F", "%252F", "%2f", "%252F")
