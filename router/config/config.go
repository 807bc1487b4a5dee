package config

import (
	"net/netip"
	"time"

	"github.com/oneport-edge/oneport/router/upstream"
)

// Config is what a file says, with defaults filled in.
type Config struct {
	File      string
	Listen    []Listener
	TLS       TLS
	Upstreams []Upstream // in the file's order
	Routes    []Route    // the first that matches counts
	Auth      Auth
	Redis     *Redis     `json:",omitempty"` // nil if instances count alone
	Broadcast *Broadcast `json:",omitempty"`
	Limits    Limits
	Admin     *Admin `json:",omitempty"` // nil without
	Drain     Drain
	Log       Log
	Telemetry *Telemetry `json:",omitempty"` // nil without
	Warnings  []Problem  // risky, but not refused

	env []string
}

// FromEnv are the values that the file has out of the environment: they may be secrets.
func (c *Config) FromEnv() []string { return c.env }

// Pos is a place in the file; both count from 1.
type Pos struct{ Line, Col int }

// Listener is one address to listen on.
type Listener struct {
	Pos       Pos
	Address   string // host:port; the host may be empty
	Plaintext bool   // tls: off
	Socket    string // the name of systemd's socket for it; "" for the one of its address
	// ProxyProtocol lists the peers that must send a PROXY header.
	ProxyProtocol []netip.Prefix
}

// TLS is how the listeners that are not plaintext identify themselves, and
// whom they ask for a certificate. Paths are absolute.
type TLS struct {
	Pos          Pos // zero if the file has no tls
	Certificates []Certificate
	Dev          bool // a development certificate instead
	ClientCA     string
	ClientAuth   string // "", "optional" or "required"
	AnyHost      bool   // calls for other hosts than their connection's are served with client certificates too
	ACME         *ACME  `json:",omitempty"` // nil if no CA is asked
}

// ACME is a CA that is asked for certificates. Paths are absolute.
type ACME struct {
	Pos        Pos
	Domains    []string // in lower case
	Email      string   // may be empty
	CA         string   // the URL of its directory
	CARoots    string   // "" for those of the system
	Storage    string
	Challenges []string // tls-alpn-01 and http-01, in the order of what is tried; nil for both
	KeyID      string   // of an external account, with MACKeyFile; "" without one
	MACKeyFile string
}

// Certificate is a pair of PEM files.
type Certificate struct {
	Pos       Pos
	Cert, Key string
}

// Upstream is a server elsewhere.
type Upstream struct {
	Pos     Pos // of its name
	Name    string
	Servers []string // URLs
	// Options are what it is told, but for TLS, Name and Log.
	Options upstream.Options
	TLS     UpstreamTLS
	http2   bool // they speak HTTP/2 alone
}

// UpstreamTLS is how servers with TLS are known, and what they are shown. Paths
// are absolute.
type UpstreamTLS struct {
	Pos        Pos // zero if there is none
	CA         string
	ServerName string
	Cert, Key  string
}

// Route sends what it matches somewhere. Exactly one of GRPC, WebSocket and Path
// is set, or Passthrough and at least one of SNI and ALPN.
type Route struct {
	Pos Pos
	// Name is the key name, or "routes[3]".
	Name string

	GRPC      string // pkg.Service, pkg.Service/Method or "*"
	WebSocket string // a path, as Path
	Path      string // ends in "/": everything below it; else exact

	Hosts, Methods []string
	// Headers must be present with that value; "" means any.
	Headers map[string]string

	// To is the name of an upstream.
	To    string
	ToPos Pos
	// Split is several, instead of To.
	Split []Share
	// Mirror is the name of one that gets copies; "" for none.
	Mirror string
	// Fallback is for when To cannot be reached; nil for none.
	Fallback *Fallback

	Rewrite, RewriteHost       string // what the server gets; "" for what the client asked for
	Request, Response          Edits
	CORS                       *CORS         // nil to leave it to the server
	EncodedSlash               bool          // requests with %2F in their path are taken
	AnswerTimeout, CallTimeout time.Duration // 0 for the default, and for no cap
	MaxBody                    int64         // bytes; 0 for no bound

	// Tunnel is for WebSocket; otherwise nil.
	Tunnel *Tunnel

	Auth    []string `json:",omitempty"` // one of them lets a call in, or
	AuthAll bool     `json:",omitempty"` // all must
	Allow   *Allow   `json:",omitempty"` // nil for all who are known
	Limit   string   `json:",omitempty"` // the name of one of Limits.Named
	Tickets bool     `json:",omitempty"` // it gives tickets for WebSockets, instead of To
	Refresh bool     `json:",omitempty"` // it takes newer credentials for open sessions, instead of To

	Broadcast bool `json:",omitempty"` // the broadcast answers, instead of To

	// Redirect is a URL or a path, instead of To.
	Redirect       string
	RedirectStatus int // 308 by default; 0 without Redirect

	SNI, ALPN   string
	Passthrough string // host:port
	ProxyHeader bool   // with Passthrough
}

// Rate is how many in a time.
type Rate struct {
	N   int
	Per time.Duration
}

// Share is an upstream's part of a route's calls.
type Share struct {
	To     string
	Weight int
}

// Fallback is another upstream, or an answer.
type Fallback struct {
	To      string
	Status  int // 0 with To
	Headers map[string]string
	Body    string
}

// Edits change the fields of a head: first Remove, then Set, then Add.
type Edits struct {
	Remove   []string
	Set, Add map[string]string
}

// CORS says which pages of other origins may read answers.
type CORS struct {
	Origins, Methods, Headers, Expose []string
	Credentials                       bool
	MaxAge                            time.Duration
}

// Limits bounds what clients can cost.
type Limits struct {
	Connections int // in all; 10,000 by default
	InFlight    InFlight
	Shed        string  // memory, all or off
	Named       []Limit `json:",omitempty"` // in the file's order
}

// InFlight are bounds on open calls; 0 for none.
type InFlight struct{ HTTP, GRPC, WebSocket int }

// Drain is how a server ends.
type Drain struct {
	Timeout  time.Duration // 30 s by default
	Spread   time.Duration // 20 s by default
	NotReady time.Duration // 5 s by default
}

// Log is what is logged, and how.
type Log struct {
	Level  string // debug, info, warn or error; info by default
	Format string // json or text; json by default
	Access bool   // true by default
	// AccessLog says how; nil for as the log.
	AccessLog *AccessLog `json:",omitempty"`
}
