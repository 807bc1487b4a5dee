package auth

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
)

// Source is a place in a request where a credential may stand. The zero value is
// the Authorization field. Sources can be compared.
type Source struct {
	kind sourceKind
	name string // of the cookie or the parameter
}

type sourceKind uint8

const (
	sourceHeader      sourceKind = iota
	sourceCookie                 // it comes by itself: the request must be same-origin
	sourceSubprotocol            // all that a script in a browser can set of a handshake
	sourceQuery                  // the last resort: URLs are written down in many places
)

// SourceHeader is the field "Authorization: Bearer TOKEN" (RFC 6750, 2.1).
func SourceHeader() Source { return Source{} }

// SourceCookie is a cookie.
func SourceCookie(name string) Source { return Source{sourceCookie, name} }

// SourceSubprotocol is a pair in a WebSocket's list of subprotocols: "bearer, TOKEN".
func SourceSubprotocol() Source { return Source{kind: sourceSubprotocol} }

// SourceQuery is a parameter of a WebSocket's URL.
func SourceQuery(name string) Source { return Source{sourceQuery, name} }

// ParseSource reads "header", "cookie:NAME", "subprotocol" or "query:NAME".
func ParseSource(s string) (Source, error) {
	kind, name, named := strings.Cut(s, ":")
	src := Source{name: name}
	switch kind {
	case "header":
	case "cookie":
		src.kind = sourceCookie
	case "subprotocol":
		src.kind = sourceSubprotocol
	case "query":
		src.kind = sourceQuery
	default:
		return Source{}, fmt.Errorf("%q is no source of tokens: want header, cookie:NAME, subprotocol or query:NAME", s)
	}
	switch wants := src.kind == sourceCookie || src.kind == sourceQuery; {
	case wants && !sourceToken(name):
		return Source{}, fmt.Errorf("%q: want a name of letters, digits, \"-\", \"_\" and \".\", as %s:session", s, kind)
	case !wants && named:
		return Source{}, fmt.Errorf("%q: %s has no name", s, kind)
	}
	return src, nil
}

func sourceToken(name string) bool {
	return name != "" && len(name) <= 64 && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}

// String is what ParseSource reads.
func (s Source) String() string {
	switch s.kind {
	case sourceCookie:
		return "cookie:" + s.name
	case sourceSubprotocol:
		return "subprotocol"
	case sourceQuery:
		return "query:" + s.name
	default:
		return "header"
	}
}

// Allowed says whether calls of that protocol may bring a credential there. A source that a
// call's protocol does not allow is not looked at.
//
//	             header  cookie  subprotocol  query
//	HTTP            x       x
//	gRPC            x
//	WebSocket       x       x         x         x
func (s Source) Allowed(p protocols.Protocol) bool {
	switch s.kind {
	case sourceHeader:
		return true
	case sourceCookie:
		return p != protocols.GRPC
	default:
		return p == protocols.WebSocket
	}
}

// tokenLimit bounds a credential. Heads have 16 KiB by default.
const tokenLimit = 16 << 10

// sourceFind looks for a credential in the places of from, in their order, and takes the
// first that there is: one that is bad does not make way for the next. It changes nothing.
// A cookie that comes with a foreign page's request is no credential: it was not that page's
// to give.
func sourceFind(call *protocols.Call, from []Source) (token string, why JWTReason) {
	why = JWTMissing
	for _, s := range from {
		if !s.Allowed(call.Protocol) {
			continue
		}
		token, found := s.find(call)
		switch {
		case found == JWTMissing:
			continue
		case found == 0 && len(token) > tokenLimit:
			return "", JWTTooLong
		case found == 0 && s.kind == sourceCookie && !sourceSameOrigin(call):
			why = JWTCrossOrigin
			continue
		}
		return token, found
	}
	return "", why
}

func (s Source) find(call *protocols.Call) (string, JWTReason) {
	switch s.kind {
	case sourceCookie:
		return sourceFromCookie(call, s.name)
	case sourceSubprotocol:
		token, _, why := sourceFromSubprotocol(call)
		return token, why
	case sourceQuery:
		return sourceFromQuery(call, s.name)
	default:
		return sourceFromHeader(call)
	}
}

// sourceFromHeader reads Authorization. Two of them are refused: two readers could take
// either. Another scheme than Bearer is another guard's.
func sourceFromHeader(call *protocols.Call) (string, JWTReason) {
	v, count := call.Sole("authorization")
	switch count {
	case 0:
		return "", JWTMissing
	case 1:
	default:
		return "", JWTDuplicate
	}
	const scheme = "bearer"
	if len(v) < len(scheme) || !strings.EqualFold(v[:len(scheme)], scheme) {
		return "", JWTMissing
	}
	rest := v[len(scheme):]
	token := strings.Trim(rest, " ")
	switch {
	case token == "":
		return "", JWTMalformed
	case rest[0] != ' ':
		return "", JWTMissing // "Bearerish"
	}
	return token, 0
}

// sourceFromCookie reads a cookie (RFC 6265, 5.4). Several of one name are refused
// unless they are the same: a sibling domain may have set the other.
func sourceFromCookie(call *protocols.Call, name string) (token string, why JWTReason) {
	why = JWTMissing
	for _, line := range call.Headers("cookie") {
		for part := range strings.SplitSeq(line, ";") {
			n, v, ok := strings.Cut(strings.Trim(part, " \t"), "=")
			if !ok || n != name {
				continue
			}
			if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
				v = v[1 : len(v)-1]
			}
			if why == 0 && v != token {
				return "", JWTDuplicate
			}
			token, why = v, 0
		}
	}
	if why == 0 && token == "" {
		return "", JWTMissing // how cookies are taken back
	}
	return token, why
}

// bearer announces a token in a list of subprotocols.
const bearer = "bearer"

// sourceFromSubprotocol reads the pair "bearer, TOKEN", and gives the rest of the list.
func sourceFromSubprotocol(call *protocols.Call) (token, rest string, why JWTReason) {
	why = JWTMissing
	var others []string
	next := false
	for _, line := range call.Headers("sec-websocket-protocol") {
		for p := range strings.SplitSeq(line, ",") {
			p = strings.Trim(p, " \t")
			switch {
			case p == "":
			case next:
				token, why, next = p, 0, false
			case p == bearer && why == 0:
				return "", "", JWTDuplicate
			case p == bearer:
				next = true
			default:
				others = append(others, p)
			}
		}
	}
	if next {
		return "", "", JWTMalformed
	}
	return token, strings.Join(others, ", "), why
}

// sourceFromQuery reads a parameter of the URL.
func sourceFromQuery(call *protocols.Call, name string) (token string, why JWTReason) {
	why = JWTMissing
	for part := range strings.SplitSeq(call.Query(), "&") {
		n, v, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(n); err != nil || plain != name {
			continue
		}
		if why == 0 {
			return "", JWTDuplicate
		}
		if len(v) > 3*tokenLimit {
			return "", JWTTooLong
		}
		plain, err := url.QueryUnescape(v)
		if err != nil {
			return "", JWTMalformed
		}
		token, why = plain, 0
	}
	if why == 0 && token == "" {
		return "", JWTMalformed
	}
	return token, why
}

// sourceSpend hides credentials from the server elsewhere that the call goes to: a
// parameter of the URL, also of the one in Referer, and the pair in the list of subprotocols.
// It hides those of all places that could have been looked at. The Authorization field and
// cookies go on: servers may want to look for themselves, and neither is written down as URLs are.
func sourceSpend(call *protocols.Call, from []Source) {
	for _, s := range from {
		switch s.kind {
		case sourceQuery: // also of a request that may not have it there
			if sourceHasParameter(call.Query(), s.name) {
				call.Hide(s.name)
			}
			referer := call.Header("referer") // a page's own URL, when it asks for more
			if _, query, _ := strings.Cut(referer, "?"); sourceHasParameter(query, s.name) {
				call.Hide(s.name)
				call.Hand("Referer", call.Shown(referer))
			}
		case sourceSubprotocol:
			_, rest, why := sourceFromSubprotocol(call)
			if why == JWTMissing {
				continue
			}
			call.Hand("Sec-WebSocket-Protocol", rest)
			if call.Protocol == protocols.WebSocket {
				call.Select(bearer)
			}
		case sourceHeader, sourceCookie:
		}
	}
}

func sourceHasParameter(query, name string) bool {
	if query == "" {
		return false
	}
	for part := range strings.SplitSeq(query, "&") {
		n, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(n); err == nil && plain == name {
			return true
		}
	}
	return false
}

// sourceSameOrigin reports whether a request that brings a cookie was made by a page of
// its own host, as far as that matters: reading by safe methods is what the same-origin
// policy of browsers allows or forbids, but what changes something, and what stays open and tells,
// must show where it comes from.
func sourceSameOrigin(call *protocols.Call) bool {
	if call.Protocol != protocols.WebSocket && sourceSafe(call.Method) && !sourceEventStream(call) {
		return true
	}
	site := call.Headers("sec-fetch-site") // no script can set it
	siteOK := len(site) == 1 && (site[0] == "same-origin" || site[0] == "none")
	if len(site) > 0 && !siteOK {
		return false
	}
	switch origin := call.Headers("origin"); len(origin) {
	case 0:
		return siteOK
	case 1:
		return sourceIsOrigin(origin[0], call)
	}
	return false
}

func sourceSafe(method string) bool {
	return method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "TRACE"
}

func sourceEventStream(call *protocols.Call) bool {
	return slices.ContainsFunc(call.Headers("accept"), func(v string) bool {
		return strings.Contains(strings.ToLower(v), "text/event-stream")
	})
}

const (
	schemeHTTP  = "http"
	schemeHTTPS = "https"
)

// sourceIsOrigin compares an Origin with the call's scheme and host. Without TLS here
// the client's scheme is not known, for a load balancer may have ended it.
func sourceIsOrigin(origin string, call *protocols.Call) bool {
	scheme, host, ok := strings.Cut(origin, "://")
	if !ok || host == "" {
		return false // "null"
	}
	port := ":443"
	switch {
	case scheme == schemeHTTPS:
	case scheme == schemeHTTP && (call.Conn == nil || call.Conn.TLS == nil):
		port = ":80"
	default:
		return false
	}
	return strings.EqualFold(strings.TrimSuffix(host, port), strings.TrimSuffix(call.Host, port))
}
