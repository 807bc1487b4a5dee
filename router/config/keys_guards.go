package config

import (
	"regexp"
	"time"
)

// Keys that more than one place speaks of.
const (
	keyAuth    = "auth"
	keyAll     = "all"
	keyAllow   = "allow"
	keyLimit   = "limit"
	keyNamed   = "named"
	keyJWT     = "jwt"
	keyJWKS    = "jwks"
	keyKeys    = "keys"
	keyMTLS    = "mtls"
	keyForward = "forward"
	keyRedis   = "redis"
	keyTickets = "tickets"
	keyRefresh = "refresh"
	keyURL     = "url"
)

// guards are the ways to find out who asks, as routes name them.
var guards = []string{keyJWT, keyMTLS, keyKeys, keyForward, keyTickets}

var (
	sourceShape = regexp.MustCompile("^(header|subprotocol|(cookie|query):[!#$%&'*+.^_`|~0-9A-Za-z-]+)$")
	webURL      = regexp.MustCompile(`^https?://.`)
	redisURL    = regexp.MustCompile(`^(rediss?(\+sentinel|\+cluster)?|unix)://([^:@/]+@)?[^@]+$`)
	limitName   = upstreamName
)

const authAbout = "Ways to find out who asks, which routes name: `auth: [jwt]`. Naming one here asks nobody anything. See [auth](auth.md) and [jwt](jwt.md)."

// authKeys are the ways to find out who asks.
var authKeys = []key{
	{name: keyJWT, is: submapping(), without: "none", about: "Signed tokens of an issuer."},
	{name: keyMTLS, is: submapping(), without: "none", about: "Client certificates, which `tls.client_ca` has verified."},
	{name: keyKeys, is: submapping(), without: "none", about: "API keys."},
	{name: keyForward, is: submapping(), without: "none", about: "Another service, which is asked about each call."},
}

var jwtKeys = []key{
	{name: "issuer", is: text(nil), need: true, about: "What `iss` of a token must be."},
	{name: "audience", is: oneOrMore(text(nil)), need: true, about: "`aud` of a token must have one of them."},
	{name: keyJWKS, is: text(webURL), about: "URL of the issuer's keys, with https; http for this machine alone. They are fetched, and again when it is time."},
	{name: keyKeys, is: oneOrMore(file()), about: "PEM files of public keys, instead of `jwks`. They are read at start and at a reload."},
	{name: "from", is: someOf(text(sourceShape)), without: "`[header]`", about: "Where a token may stand, the first that has one counts: `header` (`Authorization: Bearer`), `\"cookie:NAME\"` (same origin alone), " +
		"`subprotocol` and `\"query:NAME\"` (WebSocket alone; a token in a URL ends up in logs of others, so it is a warning)."},
	{name: "algorithms", is: someOf(enum("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")), without: "all of them", about: "What tokens may be signed with."},
	{name: "leeway", is: duration(0, time.Hour), otherwise: "30s", about: "By how much clocks may differ."},
	{name: "scopes", is: someOf(text(nil)), without: "none", about: "All of them must be in a token's `scope`."},
}

var mtlsKeys = []key{
	{name: keyAllow, is: someOf(text(nil)), without: "every certificate that `tls.client_ca` has signed", about: "Identities that are let in: names, or SPIFFE IDs, which may end in `/*`."},
	{name: "name", is: enum("spiffe", "dns", "email", "cn", "dn"), without: "the first that a certificate has, in this order", about: "Which name of a certificate is its identity."},
}

var apiKeyKeys = []key{
	{name: "file", is: file(), need: true, about: "A line for each key, as `oneport apikey` prints it. It is read at start and at a reload."},
	{name: keyHeader, is: text(token), otherwise: "X-API-Key", about: "The field that has a key, beside `Authorization: Bearer`."},
	{name: "prefix", is: text(token), otherwise: "op_", about: "How keys begin; a Bearer token that does not is left for other guards."},
}

var forwardKeys = []key{
	{name: keyURL, is: text(webURL), about: "What is asked by GET: 2xx lets a call in."},
	{name: keyGRPC, is: hostPort(1), about: "A service that speaks Envoy's `ext_authz` in plaintext, instead of `url`."},
	{name: "fields", is: someOf(text(token)), without: "`[Authorization, Cookie]`", about: "Fields of the request that it sees."},
	{name: "remove", is: someOf(text(token)), without: "`[Authorization]`", about: "Fields of the request that no server gets."},
	{name: "upstream", is: someOf(text(token)), without: "none", about: "Fields of its answer that the server gets, in place of the client's."},
	{name: "identity", is: text(token), otherwise: "X-User-Id", about: "The field of its answer that says who the call is for."},
	{name: "expires", is: text(token), without: "it holds for ever", about: "The field of its answer that says for how many seconds it holds."},
	{name: "concurrency", is: count(1, 100_000), otherwise: "256", about: "How many calls it is asked about at once."},
	{name: keyTimeout, is: duration(time.Millisecond, time.Minute), otherwise: "1s", about: "How long a call waits for its answer; then it is refused."},
}

// allowKeys say who may, of those who are known.
var allowKeys = []key{
	{name: "subjects", is: someOf(text(nil)), without: "all", about: "Identities, one of which must be the caller's."},
	{name: "issuers", is: someOf(text(nil)), without: "all", about: "Issuers, one of which must be the token's."},
	{name: "claims", is: named(claimShape, oneOrMore(text(nil))), without: "none", about: "Claims that a token must have: `{ role: [admin, ops] }`; of each, one of the values. Dots lead into claims: `realm.roles`."},
}

var claimShape = regexp.MustCompile(`^[^\s:]{1,256}$`)

// namedLimitKeys are those of one limit, which routes name.
var namedLimitKeys = []key{
	{name: "rate", is: rate(), without: "no bound", about: "How often a caller may call, on the average: `50/s`, `1000/m`, `10/h`."},
	{name: "burst", is: count(1, 1_000_000), without: "what `rate` allows in a second", with: []string{"rate"}, about: "How many calls may come at once after a pause."},
	{name: "per", is: enum("identity", "ip", keyAll), otherwise: "identity", about: "Whose calls are counted together, of all protocols: an identity's (of nobody's by their address), an address's, or all."},
	{name: "concurrency", is: count(1, 1_000_000), without: "no bound", about: "How many calls a caller may have in flight. A WebSocket is in flight for as long as it is open."},
	{name: "queue", is: count(0, 1_000_000), otherwise: "0", with: []string{"concurrency"}, about: "How many more wait for a place."},
	{name: "wait", is: duration(time.Millisecond, time.Minute), otherwise: "1s", with: []string{"concurrency"}, about: "How long they wait, within their own deadlines."},
	{name: "shared", is: boolean(), without: "`true` if there is `redis`", about: "Whether `rate` is counted together with other instances."},
	{name: "fail", is: enum("open", "closed"), otherwise: "open", about: "What holds while Redis cannot be asked: each instance counts alone, or calls are refused."},
}

// inFlightKeys are bounds for all callers together.
var inFlightKeys = []key{
	{name: "http", is: count(1, 10_000_000), without: "no bound", about: "Requests."},
	{name: keyGRPC, is: count(1, 10_000_000), without: "no bound", about: "gRPC calls."},
	{name: keyWebSocket, is: count(1, 10_000_000), without: "no bound", about: "Open WebSockets."},
}

var redisKeys = []key{
	{name: keyURL, is: text(redisURL), need: true, about: "`redis://host:port/db`, `redis+sentinel://host:port/db?master=NAME`, `redis+cluster://host:port` (more hosts as `&addr=host:port`), `rediss` in their place with TLS, or `unix:///path`. No password stands in it."},
	{name: "password_file", is: file(), without: "none", about: "File whose contents are the password."},
}
