package config

import (
	"strings"
	"time"
)

// This file, keys_acme.go, keys_admin.go, keys_telemetry.go, keys_upstreams.go and keys_routes.go are the one place that says what
// may stand in a file: each key with its type, its default, and the paragraph that
// explains it. The walkers refuse what is not in here and take defaults and bounds
// from here; Schema and docs/configuration.md are made of it.
//
// To add a key:
//
//  1. An entry here, in the mapping that it belongs to: name, type (kinds.go lists
//     them), default if there is one, and about.
//  2. A line in the walker of that mapping: o.get("my_key").duration(), or what else
//     reads that type: boolean, count, size, rate, word, text, file, hostPort.
//  3. The key in a file of testdata/good, a wrong value of it in one of testdata/bad,
//     and "make docs", which writes the files that outputs are compared with and the page.
//
// A mapping below a key has an entry of its own in the list of mappings, under the
// path of its key, with "[]" behind it for each item of a list, and ".*" for what
// stands under a name of the user's. Tests say what is forgotten: a key that no
// walker reads, a mapping that no key leads to, a default that is not of its type.

// mapping is what one mapping of the file may hold.
type mapping struct {
	path string
	// about stands before its keys on the page; may be empty.
	about string
	keys  []key
	// oneOf lists groups of keys; of each exactly one must stand there. May be empty.
	oneOf [][]string
}

// key is one key of a mapping.
type key struct {
	name string
	is   kind
	// otherwise is the default, written as the file would say it; "" if there is none.
	otherwise string
	// without says in words what holds without the key, if there is no default.
	without string
	need    bool
	// with lists keys without which it is refused.
	with  []string
	about string
}

// Keys that more than one place speaks of.
const (
	keyTLS           = "tls"
	keyClientCA      = "client_ca"
	keyGRPC          = "grpc"
	keyWebSocket     = "websocket"
	keyPath          = "path"
	keyRedirect      = "redirect"
	keyPassthrough   = "passthrough"
	keyProxyProtocol = "proxy_protocol"
	keyHeader        = "header"
	keyTimeout       = "timeout"
	keyCert          = "cert"
	keyKey           = "key"
	keyHost          = "host"
	keyConnections   = "connections"
	keyAdmin         = "admin"
)

// day is the longest duration that a file may ask for.
const day = 24 * time.Hour

// mappings lists all of the file, in the order of the page.
var mappings = []mapping{
	{path: "", keys: fileKeys},
	{path: "listen[]", keys: listenKeys},
	{path: keyTLS, keys: tlsKeys, about: "`certificates`, `acme` or both, or else `dev: true`, if any listener has TLS. Of both, `certificates` are for their names."},
	{path: "tls.certificates[]", keys: certificateKeys},
	{path: "tls.acme", keys: acmeKeys, about: acmeAbout},
	{path: "tls.acme.external_account", keys: externalAccountKeys},
	{path: "upstreams.*", keys: upstreamKeys},
	{path: "upstreams.*.hash", keys: hashKeys, oneOf: [][]string{{keyHeader, "cookie", keyClientIP}}, about: "Exactly one of them."},
	{path: "upstreams.*.health", keys: healthKeys, oneOf: [][]string{{keyPath, keyGRPC, keyTCP}}, about: "Exactly one of `path`, `grpc` and `tcp`."},
	{path: "upstreams.*.eject", keys: ejectKeys},
	{path: "upstreams.*.retries", keys: retryKeys},
	{path: "upstreams.*.breaker", keys: breakerKeys},
	{path: "upstreams.*.limits", keys: upstreamLimitKeys},
	{path: "upstreams.*.tls", keys: upstreamTLSKeys},
	{path: "routes[]", keys: routeKeys, oneOf: [][]string{kinds, {"to", keyRedirect, keyTickets, keyRefresh, keyBroadcast, keyPassthrough}}, about: routesAbout},
	{path: "routes[].request_headers", keys: editKeys, about: editsAbout},
	{path: "routes[].response_headers", keys: editKeys, about: "As `request_headers`."},
	{path: "routes[].cors", keys: corsKeys},
	{path: "routes[].fallback", keys: fallbackKeys, oneOf: [][]string{{keyTo, keyStatus}}, about: "Exactly one of `to` and `status`."},
	{path: "routes[].auth", keys: []key{{name: keyAll, is: someOf(enum(guards...)), need: true, about: "All of them must let a call in."}}},
	{path: "routes[].allow", keys: allowKeys, about: "What is given must all hold."},
	{path: keyAuth, keys: authKeys, about: authAbout},
	{path: "auth.jwt", keys: jwtKeys, oneOf: [][]string{{keyJWKS, keyKeys}}, about: "Exactly one of `jwks` and `keys`."},
	{path: "auth.mtls", keys: mtlsKeys},
	{path: "auth.keys", keys: apiKeyKeys},
	{path: "auth.forward", keys: forwardKeys, oneOf: [][]string{{keyURL, keyGRPC}}, about: "Exactly one of `url` and `grpc`. Without an answer nobody is let in."},
	{path: "limits", keys: limitKeys},
	{path: "limits.named.*", keys: namedLimitKeys, about: "`rate`, `concurrency` or both."},
	{path: "limits.in_flight", keys: inFlightKeys},
	{path: keyRedis, keys: redisKeys},
	{path: keyBroadcast, keys: broadcastKeys, about: broadcastAbout},
	{path: "broadcast.namespaces.*", keys: namespaceKeys, about: namespaceAbout},
	{path: keyAdmin, keys: adminKeys, about: adminAbout},
	{path: "drain", keys: drainKeys, about: "A warning, if `not_ready` and `spread` together are longer than `timeout`."},
	{path: "log", keys: logKeys},
	{path: "log.access", keys: accessKeys, about: "Or `true` or `false`."},
	{path: keyTelemetry, keys: telemetryKeys, about: telemetryAbout},
	{path: "telemetry.otlp", keys: otlpKeys},
}

var fileKeys = []key{
	{
		name: "listen", is: either(hostPort(0), someOf(either(hostPort(0), submapping()))), need: true,
		about: "Where to listen: one address, or a list of addresses and of mappings, see `listen[]`.",
	},
	{
		name: keyTLS, is: submapping(), without: "an error, unless all listeners have `tls: off`",
		about: "The certificates of all listeners that have TLS, and what is asked of clients.",
	},
	{
		name: "upstreams", is: named(upstreamName, submapping()), without: "none",
		about: "Servers elsewhere, each with a name: letters, digits, `-`, `_` and `.`, at most 64. One that no route names is a warning.",
	},
	{
		name: "routes", is: listOf(submapping()), without: "nothing is served",
		about: "What goes where: the first that fits counts. One that an earlier one hides is a warning.",
	},
	{name: "limits", is: submapping(), without: "as below", about: "What clients may cost."},
	{name: "drain", is: submapping(), without: "as below", about: "How a server ends."},
	{name: "log", is: submapping(), without: "as below", about: "What is logged, and how."},
	{name: keyAuth, is: submapping(), without: "nobody is asked", about: "Ways to find out who asks, for routes to name."},
	{name: keyRedis, is: submapping(), without: "each instance counts alone", about: "Where instances count together."},
	{name: keyBroadcast, is: submapping(), without: "none", about: "Messages to those who are connected, to any instance."},
	{name: keyAdmin, is: submapping(), without: "none", about: "Where an operator looks at the process, and changes it."},
	{name: keyTelemetry, is: submapping(), without: "nothing is exported", about: "Traces and durations for a collector, by OTLP."},
}

var listenKeys = []key{
	{
		name: "address", is: hostPort(0), need: true,
		about: "Where to listen. Without a host: all addresses of the machine. The port is a number; 0 is any free one.",
	},
	{
		name: keyTLS, is: onOff(), otherwise: "on",
		about: "`off` makes it a listener without TLS, for HTTP/1 and for HTTP/2 with prior knowledge (h2c).",
	},
	{
		name: "socket", is: text(socketShape), without: "by its address",
		about: "The `FileDescriptorName=` of the socket that systemd opens for this address, see [operations](operations.md#systemd).",
	},
	{
		name: keyProxyProtocol, is: someOf(cidr()), without: "nobody",
		about: "Peers that must send a PROXY header, v1 or v2, as ranges or addresses: `[10.0.0.0/8]`. From anybody else one is garbage.",
	},
}

var tlsKeys = []key{
	{
		name: "certificates", is: someOf(submapping()), without: "none",
		about: "Pairs of files, see below; the client's SNI chooses. Files that change are loaded again.",
	},
	{
		name: "dev", is: boolean(), otherwise: "false",
		about: "`true` makes a certificate for development, in `certs/dev` of the working directory as `oneport certs` does. A warning, if the address is not loopback.",
	},
	{
		name: keyClientCA, is: file(), without: "none is asked for", with: []string{"client_auth"},
		about: "PEM file of the authorities that sign clients' certificates; goes with `client_auth`.",
	},
	{
		name: "client_auth", is: enum("optional", "required"), without: "none is asked for", with: []string{keyClientCA},
		about: "`optional`: a client may have a certificate, which must then be good; `required`: it must. Goes with `client_ca`. " +
			"Calls whose host is not the server name that their connection was opened for are then refused, with 421 or UNKNOWN; see `any_host`.",
	},
	{
		name: "any_host", is: boolean(), otherwise: "false", with: []string{keyClientCA},
		about: "`true` serves such calls all the same: for clients that send no server name, or another one. Goes with `client_ca`.",
	},
	{
		name: "acme", is: submapping(), without: "none",
		about: "Certificates of a CA that speaks ACME, as Let's Encrypt does, had and renewed by oneport itself.",
	},
}

var certificateKeys = []key{
	{name: keyCert, is: file(), need: true, about: "PEM file of the certificate, with the chain behind it."},
	{name: keyKey, is: file(), need: true, about: "PEM file of its key."},
}

var limitKeys = []key{
	{
		name: keyConnections, is: count(1, 10_000_000), otherwise: "10000", // more than 10 million is more than a machine has memory for
		about: "Open connections in all; see [operations](operations.md) for all other bounds.",
	},
	{
		name: keyNamed, is: named(limitName, submapping()), without: "none",
		about: "Limits for callers, which routes name: `limit: api`. All routes that name one count together. See [limits](limits.md).",
	},
	{name: "in_flight", is: submapping(), without: "no bounds", about: "How many calls of all callers may be open, by protocol, so that none starves another."},
	{
		name: "shed", is: enum("memory", keyAll, "off"), otherwise: "memory",
		about: "When new calls are refused (503, `UNAVAILABLE`) because the process has enough: while nine tenths of its memory limit are in use, if it has one; " +
			"with `all` also while work waits 100 ms for a processor.",
	},
}

var drainKeys = []key{
	{
		name: keyTimeout, is: duration(time.Millisecond, day), otherwise: "30s",
		about: "All of the drain; what is still open then is cut off.",
	},
	{
		name: "spread", is: duration(0, day), otherwise: "20s",
		about: "The window over which WebSockets are closed, so that their clients do not come back all at once; `0s` closes them at once.",
	},
	{
		name: "not_ready", is: duration(0, day), otherwise: "5s",
		about: "How long the port still accepts after readiness turned red, so that load balancers notice; `0s` skips it.",
	},
}

var logKeys = []key{
	{name: "level", is: enum("debug", "info", "warn", "error"), otherwise: "info", about: "The least that is logged."},
	{name: "format", is: enum("json", "text"), otherwise: "json", about: "How a line looks."},
	{name: "access", is: either(boolean(), submapping()), without: "`true`", about: "A line for each call; a mapping says how."},
}

// mappingAt finds a mapping by its path; without one it holds nothing.
func mappingAt(path string) *mapping {
	for i := range mappings {
		if mappings[i].path == path {
			return &mappings[i]
		}
	}
	return &mapping{path: path}
}

// key finds a key by its name; nil if there is none.
func (m *mapping) key(name string) *key {
	for i := range m.keys {
		if m.keys[i].name == name {
			return &m.keys[i]
		}
	}
	return nil
}

// names lists all keys.
func (m *mapping) names() []string {
	list := make([]string, len(m.keys))
	for i, k := range m.keys {
		list[i] = k.name
	}
	return list
}

// below is the path of a key of the mapping, without what its type adds.
func (m *mapping) below(name string) string { return strings.TrimPrefix(m.path+"."+name, ".") }
