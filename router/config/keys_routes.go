package config

const routesAbout = "Exactly one of `grpc`, `websocket` and `path`, with `to` (or for a path `redirect`); or `passthrough` with `sni`, `alpn` or both."

// routeKeys are those of one route.
var routeKeys = []key{
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
		name: "to", is: text(nil), without: "an error, unless there is `redirect` or `passthrough`",
		about: "The name of an upstream.",
	},
	{
		name: keyRedirect, is: text(redirectShape), with: []string{keyPath},
		about: "For `path` alone, instead of `to`: the Location of the answer, a URL with `http` or `https`, or a path. " +
			"One `*` in it stands for what of the request's path, and query, is behind `path`.",
	},
	{
		name: "status", is: oneNumber(301, 302, 303, 307, 308), otherwise: "308", with: []string{keyRedirect},
		about: "The status of the answer, with `redirect`.",
	},
	{
		name: "sni", is: text(hostPattern), without: "any", with: []string{keyPassthrough},
		about: "TLS connections to that server name, or `\"*.example.com\"`; with `passthrough`.",
	},
	{
		name: "alpn", is: text(nil), without: "any", with: []string{keyPassthrough},
		about: "TLS connections that offer that protocol; with `passthrough`.",
	},
	{
		name: keyPassthrough, is: hostPort(1),
		about: "The server that gets the connection byte for byte, TLS included. Takes no `to`, and nothing that looks into requests.",
	},
	{name: "auth", later: true},
	{name: "limit", later: true},
}
