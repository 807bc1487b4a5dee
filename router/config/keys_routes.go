package config

import (
	"slices"
	"time"
)

// Keys that more than one place speaks of.
const (
	keyTo              = "to"
	keySNI             = "sni"
	keyALPN            = "alpn"
	keyCORS            = "cors"
	keyHeaders         = "headers"
	keyFallback        = "fallback"
	keyRequestHeaders  = "request_headers"
	keyResponseHeaders = "response_headers"
	keyEncodedSlash    = "encoded_slash"
	keyMirror          = "mirror"
	keyRewrite         = "rewrite"
	keyRewriteHost     = "rewrite_host"
	keyStatus          = "status"
	keyMaxBody         = "max_body"
	keyAnswerTimeout   = "answer_timeout"
	keyCallTimeout     = "call_timeout"
)

const routesAbout = "Exactly one of `grpc`, `websocket` and `path`, with `to` (or `broadcast`, or for a path `redirect`, `tickets` or `refresh`); or `passthrough` with `sni`, `alpn` or both."

// routeKeys are those of one route.
var routeKeys = slices.Concat(callKeys, socketKeys, []key{
	{
		name: keyAuth, is: either(enum(guards...), someOf(enum(guards...)), submapping()), without: "nobody is asked",
		about: "Who may use it: `[jwt, mtls]` for any one of them, `{ all: [jwt, mtls] }` for all. They are in `auth`.",
	},
	{
		name: keyTickets, is: boolean(), with: []string{keyPath, keyAuth},
		about: "`true`, for a path alone and instead of `to`: who may use the route gets a ticket by POST, for one WebSocket within 30 s: " +
			"`wss://host/path?ticket=...` on a route with `auth: [tickets]`. So a page needs no token in a URL.",
	},
	{
		name: keyRefresh, is: boolean(), with: []string{keyPath, keyAuth},
		about: "`true`, for a path alone and instead of `to`: a POST with a newer token moves the end of the caller's open WebSockets and gRPC calls to that token's. " +
			"`?session=` and its request id names one of them.",
	},
	{
		name: keyBroadcast, is: boolean(),
		about: "`true`, for a path or a WebSocket and instead of `to`: the file's `broadcast` answers. A `websocket` is for SDKs of centrifuge and, with `?channel=` in its query, for messages one way; " +
			"a `path` gives those as Server-Sent Events.",
	},
	{name: keyAllow, is: submapping(), without: "everybody who is known", with: []string{keyAuth}, about: "Who may, of those who are known."},
	{name: keyLimit, is: text(limitName), without: "none", about: "How much callers get: a name in `limits.named`."},
})

// callKeys are those of all kinds of routes, and of calls and requests.
var callKeys = []key{
	{
		name: "name", is: text(nil), without: "`routes[3]`: its place in the list, from 0",
		about: "What the log calls it; no two are the same.",
	},
	{
		name: keyGRPC, is: text(grpcName, "*"),
		about: "gRPC calls: `pkg.Service`, `pkg.Service/Method`, or `\"*\"` for all. The upstream must speak HTTP/2.",
	},
	{
		name: keyWebSocket, is: text(pathShape),
		about: "WebSocket handshakes for a path, as `path`. The upstream must speak HTTP/1.1: `http` or `https`.",
	},
	{
		name: keyPath, is: text(pathShape),
		about: "Plain HTTP requests, neither gRPC nor WebSocket: if it ends in `/` all below it, else that path alone. " +
			"Requests are compared decoded and without empty, `.` and `..` elements. There are no wildcards.",
	},
	{
		name: keyHost, is: oneOrMore(text(hostShape)), without: "all",
		about: "Hosts that it is for, one or a list, without ports: `api.example.com`, or `\"*.example.com\"` for any one label before it.",
	},
	{
		name: "method", is: oneOrMore(text(methodShape)), without: "all",
		about: "Methods that it is for, one or a list, in capitals.",
	},
	{
		name: keyHeader, is: named(token, anyText()), without: "none",
		about: "Fields that a request must have: `{ X-Env: canary }`; `\"\"` for any value.",
	},
	{
		name: keyTo, is: either(text(nil), named(upstreamName, count(1, 1_000_000))), without: "an error, unless there is `redirect` or `passthrough`",
		about: "The name of an upstream; or several with their weights, for a canary: `{ app: 95, canary: 5 }`.",
	},
	{
		name: keyRedirect, is: text(redirectShape), with: []string{keyPath},
		about: "For `path` alone, instead of `to`: the Location of the answer, a URL with `http` or `https`, or a path. " +
			"One `*` in it stands for what of the request's path, and query, is behind `path`.",
	},
	{
		name: keyStatus, is: oneNumber(301, 302, 303, 307, 308), otherwise: "308", with: []string{keyRedirect},
		about: "The status of the answer, with `redirect`.",
	},
	{
		name: keySNI, is: text(hostPattern), without: "any", with: []string{keyPassthrough},
		about: "TLS connections to that server name, or `\"*.example.com\"`; with `passthrough`.",
	},
	{
		name: keyALPN, is: text(nil), without: "any", with: []string{keyPassthrough},
		about: "TLS connections that offer that protocol; with `passthrough`.",
	},
	{
		name: keyPassthrough, is: hostPort(1),
		about: "The server that gets the connection byte for byte, TLS included. Takes no `to`, and nothing that looks into requests.",
	},
	{
		name: keyProxyProtocol, is: enum("v2"), without: "none", with: []string{keyPassthrough},
		about: "`v2` begins what that server gets with a PROXY header that says who the client is.",
	},
	{
		name: keyRewrite, is: text(pathShape), with: []string{keyPath},
		about: "What the server gets instead of `path` at the beginning of the request's path: with `path: /api/` and `rewrite: /` it gets `/users` for `/api/users`. " +
			"Ends in `/` if `path` does.",
	},
	{
		name: keyEncodedSlash, is: boolean(), otherwise: "false",
		about: "For `path` and `websocket`: `true` takes requests that have `%2F` in their path, as npm and GitLab send them. Without it they are refused with 400: " +
			"some servers read a slash there, and others do not.",
	},
	{name: keyRewriteHost, is: text(hostShape), without: "the client's", about: "The host that the server is asked for. Not for `websocket`."},
	{name: keyRequestHeaders, is: submapping(), without: "as they come", about: "What is changed in the head of what goes to the server. Not for `websocket`."},
	{name: keyResponseHeaders, is: submapping(), without: "as they come", about: "What is changed in the head of what comes back. Not for `websocket`."},
	{
		name: keyCORS, is: submapping(), without: "left to the server", with: []string{keyPath},
		about: "Which pages of other origins may read answers. Preflights are answered here, and what the server says of CORS is replaced.",
	},
	{
		name: keyFallback, is: submapping(), without: "502, 503 or `UNAVAILABLE`",
		about: "What calls get that no server can be reached for: another upstream, or an answer. Not for `websocket`.",
	},
	{
		name: keyMirror, is: text(nil), without: "none", with: []string{keyPath},
		about: "An upstream that gets copies of requests whose bodies have at most 64 KiB; its answers are thrown away. At most 64 at once, more are left out. Both upstreams must speak HTTP/1.1.",
	},
	{
		name: keyMaxBody, is: size(1, 1<<40), without: "no bound", with: []string{keyPath},
		about: "For `path`: how long the body of a request may be, `10MiB`; then 413, before the server is asked if the client says how long it is.",
	},
	{
		name: keyAnswerTimeout, is: duration(time.Second, day), otherwise: "1m",
		about: "For `path`: how long the server may take to the head of its answer; then 504.",
	},
	{
		name: keyCallTimeout, is: duration(time.Second, day), without: "no cap", with: []string{keyGRPC},
		about: "For `grpc`: how long a call may take in all. A longer `grpc-timeout` of the client, or none, is replaced by it; the call ends with `DEADLINE_EXCEEDED`.",
	},
}

var editKeys = []key{
	{name: "remove", is: someOf(text(token)), without: "none", about: "Fields to take out."},
	{name: "set", is: named(token, anyText()), without: "none", about: "Fields to have with that value alone: `{ X-Env: prod }`."},
	{name: "add", is: named(token, anyText()), without: "none", about: "Fields to have besides those that are there."},
}

const editsAbout = "First `remove`, then `set`, then `add`. Fields by which messages are told apart cannot be changed: `Content-Length`, `Connection` and the like, `grpc-*`."

var corsKeys = []key{
	{name: "origins", is: someOf(text(originShape, "*")), need: true, about: "Scheme and host, with a port that is not the usual one: `https://app.example.com`; or `\"*\"` for all."},
	{name: "methods", is: someOf(text(methodShape)), without: "all that are asked for", about: "Methods beside GET, HEAD and POST."},
	{name: keyHeaders, is: someOf(text(token)), without: "all that are asked for", about: "Fields that requests may have."},
	{name: "expose", is: someOf(text(token)), without: "none", about: "Fields that pages may read."},
	{name: "credentials", is: boolean(), otherwise: "false", about: "`true` lets pages send cookies. Not with the origin `\"*\"`."},
	{name: "max_age", is: duration(0, day), otherwise: "2h", about: "How long a browser may remember a preflight."},
}

var fallbackKeys = []key{
	{name: keyTo, is: text(nil), about: "The name of an upstream that takes the calls instead. It speaks the same version of HTTP."},
	{name: keyStatus, is: count(200, 599), about: "The status of an answer: `503`. gRPC calls are refused with `UNAVAILABLE`."},
	{name: keyHeaders, is: named(token, anyText()), without: "none", with: []string{keyStatus}, about: "Fields of that answer: `{ Retry-After: \"30\" }`."},
	{name: "body", is: anyText(), without: "empty", with: []string{keyStatus}, about: "Its body."},
}
