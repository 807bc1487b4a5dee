package config

// known is what a mapping of the file may hold.
type known struct {
	keys  []string
	later []string // of the contract, and not in this version
}

// notYet is what a key of the contract gets whose machinery is missing: it must
// not be ignored, for a file that asks for auth would be served without.
const notYet = "not in this version of oneport yet; remove it"

// Keys that more than one place speaks of.
const (
	keyTLS         = "tls"
	keyGRPC        = "grpc"
	keyWebSocket   = "websocket"
	keyPath        = "path"
	keyPassthrough = "passthrough"
)

// schema lists the mappings of the file by their path; docs/configuration.md
// explains each key. What stands at upstreams and at header has names of its own.
var schema = map[string]known{
	"": {
		keys:  []string{"listen", keyTLS, "upstreams", "routes", "limits", "drain", "log"},
		later: []string{"auth", "redis", "admin"},
	},
	"listen[]": {keys: []string{"address", keyTLS, "proxy_protocol"}},
	keyTLS: {
		keys:  []string{"certificates", "dev", "client_ca", "client_auth"},
		later: []string{"acme"},
	},
	"tls.certificates[]": {keys: []string{"cert", "key"}},
	"upstreams.*": {
		keys:  []string{"servers"},
		later: []string{"balance", "health"},
	},
	"routes[]": {
		keys: []string{
			"name", keyGRPC, keyWebSocket, keyPath, "host", "method", "header",
			"to", "redirect", "status", "sni", "alpn", keyPassthrough,
		},
		later: []string{"auth", "limit"},
	},
	"limits": {
		keys:  []string{"connections"},
		later: []string{"named"},
	},
	"drain": {keys: []string{"timeout", "spread", "not_ready"}},
	"log":   {keys: []string{"level", "format", "access"}},
}
