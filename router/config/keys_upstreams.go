package config

import "time"

const (
	keyServers  = "servers"
	keyHash     = "hash"
	keyClientIP = "client_ip"
	keyTCP      = "tcp"
)

// upstreamKeys are those of one upstream.
var upstreamKeys = []key{
	{
		name: keyServers, is: someOf(serverURL()), need: true,
		about: "URLs of servers that do the same. The scheme says what a server speaks: `http`, `https`: HTTP/1.1; " +
			"`h2c`, `grpc`: HTTP/2 in plaintext; `grpcs`: HTTP/2 with TLS. With `+unix` the rest is the path of a socket: `grpc+unix:///run/app.sock`. " +
			"No path else, no query, no password. Either all of an upstream's servers speak HTTP/1.1 or none does.",
	},
	{
		name: "balance", is: enum("least_request", "round_robin", keyHash), otherwise: "least_request",
		about: "Which server a call goes to. `least_request`: the one of two, drawn at random, with fewer calls in flight. `round_robin`: the next. " +
			"`hash`: the same one for the same key, also from other instances; when servers come or go only their share of the keys moves.",
	},
	{
		name: keyHash, is: submapping(), without: "the client's address", with: []string{"balance"},
		about: "What `balance: hash` hashes. A call that does not have it goes to any server.",
	},
	{
		name: "health", is: submapping(), without: "servers are not asked",
		about: "How servers are asked whether they are well. One that is not gets no calls.",
	},
	{
		name: "eject", is: submapping(), without: "as below",
		about: "When a server is left out for a while for calls that failed: it could not be reached, broke the connection, did not answer in time, or answered 502, 503, 504 " +
			"or `UNAVAILABLE`. The last server is never left out.",
	},
	{
		name: "slow_start", is: duration(0, time.Hour), otherwise: "0s",
		about: "How long a server that comes, or comes back, gets less than its share of the calls: from a tenth at first, growing evenly.",
	},
	{
		name: "retries", is: submapping(), without: "as below",
		about: "When a call goes to another server. Only where nothing of it was sent, or, over HTTP/1.1, where it is idempotent, has no body and no answer has come.",
	},
	{
		name: "breaker", is: submapping(), without: "none",
		about: "When an upstream gets no calls at all for a while, because too many have failed: they are refused at once with 503, or `UNAVAILABLE`.",
	},
	{name: "limits", is: submapping(), without: "as below", about: "What each server of the upstream may be asked at once."},
	{
		name: "connect_timeout", is: duration(time.Millisecond, time.Minute), otherwise: "3s",
		about: "How long it may take to connect: TLS, and for HTTP/2 the server's SETTINGS, included.",
	},
	{
		name: "resolve", is: duration(0, day), otherwise: "10s",
		about: "How often the names in `servers` are looked up. Each address of a name is a server. `0s` leaves a name to each connecting.",
	},
	{
		name: keyTLS, is: submapping(), without: "as below",
		about: "For `https` and `grpcs`.",
	},
	{
		name: keyProxyProtocol, is: enum("v2"), without: "none",
		about: "`v2` begins each connection with a PROXY header that says who the client is. A connection then serves one WebSocket or one request. " +
			"Not for servers that speak HTTP/2, whose connections are shared by all clients.",
	},
}

var hashKeys = []key{
	{name: keyHeader, is: text(token), about: "The value of that field: `X-User`."},
	{name: "cookie", is: text(token), about: "The value of that cookie: `session`."},
	{name: keyClientIP, is: boolean(), about: "`true`: the client's address."},
}

var healthKeys = []key{
	{name: keyPath, is: text(pathShape), about: "GET of that path; a status from 200 to 399 is well."},
	{name: keyGRPC, is: text(nil), about: "`grpc.health.v1.Health/Check` of that service, or `\"*\"` for the server as a whole; `SERVING` is well. For servers that speak HTTP/2."},
	{name: keyTCP, is: boolean(), about: "`true`: a connection that opens, with TLS if there is any, is well."},
	{name: keyHost, is: text(hostShape), without: "the server's own", with: []string{keyPath}, about: "The host that is asked for, with `path`."},
	{name: "every", is: duration(10*time.Millisecond, day), otherwise: "5s", about: "How often, give or take a tenth."},
	{name: keyTimeout, is: duration(time.Millisecond, time.Minute), otherwise: "2s", about: "How long an answer may take."},
	{name: "unhealthy", is: count(1, 100), otherwise: "3", about: "Failures in a row until it gets no calls. The first answer of all counts at once."},
	{name: "healthy", is: count(1, 100), otherwise: "2", about: "Successes in a row until it gets calls again."},
}

var ejectKeys = []key{
	{name: "failures", is: count(0, 10_000), otherwise: "5", about: "Calls in a row that fail; `0` leaves no server out."},
	{
		name: "for", is: duration(time.Millisecond, day), otherwise: "10s",
		about: "How long it is left out the first time; each time in a row twice as long, up to 32 times. When it is tried again a single failure is enough.",
	},
}

var retryKeys = []key{
	{name: "attempts", is: count(0, 10), otherwise: "2", about: "How many more servers are tried; `0` for none."},
	{name: "budget", is: percent(), otherwise: "20%", about: "The share of all calls that may be tried again, beside ten at once: servers that fail are not helped by more calls."},
	{
		name: "backoff", is: duration(time.Millisecond, time.Minute), otherwise: "25ms",
		about: "The first retry does not wait; the second waits for a random part of this, the next of twice as long, up to 16 times.",
	},
}

var breakerKeys = []key{
	{name: "failures", is: percent(), need: true, about: "The share of the calls that failed, as with `eject`."},
	{name: "calls", is: count(1, 1_000_000), otherwise: "20", about: "How many calls there must have been."},
	{name: "window", is: duration(100*time.Millisecond, time.Hour), otherwise: "10s", about: "Over how long they are counted."},
	{name: "open", is: duration(10*time.Millisecond, time.Hour), otherwise: "5s", about: "How long no call goes there. Then one does, and how it ends decides."},
}

var upstreamLimitKeys = []key{
	{name: "requests", is: count(1, 1_000_000), without: "no bound", about: "Calls in flight. When all servers have so many, more are refused with 503, or `UNAVAILABLE`."},
	{name: keyConnections, is: count(1, 10_000), otherwise: "16", about: "HTTP/2 connections, each of 100 streams at most; clients that cancel a lot have a quarter more for themselves."},
	{name: "warm", is: count(0, 10_000), otherwise: "0", about: "HTTP/2 connections that are kept open, also without streams."},
	{name: "pending", is: count(1, 1_000_000), otherwise: "1024", about: "HTTP/2 streams that wait for one; more are refused."},
	{name: "wait", is: duration(time.Millisecond, time.Minute), otherwise: "5s", about: "How long they do."},
	{
		name: "ping", is: duration(0, day), otherwise: "5m10s",
		about: "How long a server that speaks HTTP/2 and has streams may be silent before it is asked for a sign of life; one that gives none within 20 s is gone. " +
			"grpc-go, as it comes, ends connections that ask more often than every five minutes. `0s` never asks.",
	},
}

var upstreamTLSKeys = []key{
	{name: "ca", is: file(), without: "the system's authorities", about: "PEM file of the authorities that sign the servers' certificates."},
	{name: "server_name", is: text(hostPattern), without: "the host of the URL", about: "The name that certificates must be for, and the SNI."},
	{name: keyCert, is: file(), without: "none", with: []string{keyKey}, about: "PEM file of a certificate to show to the servers."},
	{name: keyKey, is: file(), without: "none", with: []string{keyCert}, about: "PEM file of its key."},
}
