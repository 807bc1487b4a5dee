package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/nbio"
)

// Options are what an Upstream may be told. The zero value is a working default.
type Options struct {
	// Name is what the log calls it; "" for its URL.
	Name string
	// TLS is the client side's configuration for https and grpcs: roots, a
	// client certificate, a server name. Nil trusts the system's roots.
	TLS *tls.Config
	// Streams bounds its HTTP/2 connections and what waits for one.
	Streams h2.UpstreamLimits
	// Log receives what goes wrong. Nil means slog.Default.
	Log *slog.Logger
}

// Upstream is a server elsewhere. It is safe for concurrent use.
type Upstream struct {
	name    string
	target  target
	tls     *tls.Config
	streams *h2.Upstream // nil if it speaks HTTP/1
	http1   *http1       // nil if it speaks HTTP/2
	proxy   http.Handler // of requests that net/http has taken
	close   func()
}

// The schemes of URLs, and the network of sockets.
const (
	schemeHTTP  = "http"
	schemeHTTPS = "https"
	schemeH2C   = "h2c"
	schemeGRPC  = "grpc"
	schemeGRPCS = "grpcs"
	networkUnix = "unix"
)

// target is a parsed URL.
type target struct {
	scheme  string
	network string // tcp, unix
	addr    string
	host    string // the name in its certificate
}

// New returns the upstream of a URL. Its scheme says what the server speaks:
//
//	http, https     HTTP/1.1
//	h2c, grpc       HTTP/2 in plaintext, with prior knowledge
//	grpcs           HTTP/2 with TLS
//
// With "+unix" behind it the rest is the path of a socket: grpc+unix:///run/app.sock.
// Nothing is dialed yet.
func New(rawURL string, opts Options) (*Upstream, error) {
	at, err := parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("upstream %q: %w", rawURL, err)
	}
	u := &Upstream{name: cmp.Or(opts.Name, rawURL), target: at}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	cfg := opts.TLS.Clone()
	if cfg == nil {
		cfg = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	cfg.ServerName = cmp.Or(cfg.ServerName, at.host)
	u.tls = cfg
	if !at.http2() {
		u.http1 = newHTTP1(u, opts.Log)
		u.proxy, u.close = u.http1, u.http1.close
		return u, nil
	}
	transport := newTransport(at, cfg.Clone())
	u.proxy = newProxy(u.name, at, transport, opts.Log)
	u.streams = h2.NewUpstream(h2.UpstreamConfig{
		Name: u.name, Dial: at.dialH2(cfg), Prepare: prepare, Limits: opts.Streams, Log: opts.Log,
	})
	u.close = func() {
		transport.CloseIdleConnections()
		u.streams.Close()
	}
	return u, nil
}

// Schemes are those that New takes, without "+unix".
func Schemes() []string {
	return []string{schemeHTTP, schemeHTTPS, schemeH2C, schemeGRPC, schemeGRPCS}
}

// Check says what is wrong with the URL of a server, or else whether the server
// speaks HTTP/2 alone. The error does not quote the URL: there may be a password in it.
func Check(rawURL string) (http2 bool, err error) {
	at, err := parse(rawURL)
	return at.http2(), err
}

// http2 reports whether the server speaks HTTP/2 alone.
func (t target) http2() bool { return t.scheme != schemeHTTP && t.scheme != schemeHTTPS }

// parse reads a URL, or says what is wrong with it.
func parse(raw string) (target, error) {
	fail := func(why string) (target, error) { return target{}, errors.New(why) }
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" || u.Opaque != "" && !strings.HasSuffix(u.Scheme, "+unix") {
		return fail("want a URL, as http://127.0.0.1:8080 or grpc://127.0.0.1:50051")
	}
	at := target{scheme: u.Scheme, network: "tcp", addr: u.Host, host: u.Hostname()}
	if s, ok := strings.CutSuffix(u.Scheme, "+unix"); ok {
		at.scheme, at.network, at.addr = s, networkUnix, u.Path
		if u.Host != "" || len(u.Path) < 2 {
			return fail("want three slashes before the path of a socket, as grpc+unix:///run/app.sock")
		}
	}
	port := ""
	switch at.scheme {
	case schemeHTTP:
		port = "80"
	case schemeHTTPS, schemeGRPCS:
		port = "443"
	case schemeH2C, schemeGRPC:
	default:
		return fail("the scheme is none of http, https, h2c, grpc, grpcs")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fail("credentials, a query and a fragment have no place here")
	}
	if at.network == networkUnix {
		return at, nil
	}
	if u.Path != "" && u.Path != "/" {
		return fail("a path has no place here: requests bring their own")
	}
	if at.host == "" {
		return fail("the host is missing")
	}
	switch n, err := strconv.ParseUint(u.Port(), 10, 16); {
	case u.Port() == "" && port == "":
		return fail("the port is missing")
	case u.Port() == "":
		at.addr = net.JoinHostPort(at.host, port)
	case err != nil || n == 0:
		return fail("the port is a number from 1 to 65535")
	}
	return at, nil
}

// String is the name it was given, or its URL.
func (u *Upstream) String() string { return u.name }

// HTTP2 reports whether the server speaks HTTP/2, and nothing else: gRPC needs it,
// and WebSockets need what does not.
func (u *Upstream) HTTP2() bool { return u.streams != nil }

// Streams is where the switch sends HTTP/2 streams. Calls of gRPC are none for
// a server that does not speak HTTP2.
func (u *Upstream) Streams() h2.Backend {
	if u.streams == nil {
		return u.http1.handler
	}
	return u.streams
}

// ServeHTTP hands a request on that net/http has taken.
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) { u.proxy.ServeHTTP(w, r) }

// Stats are counts of its connections, and of what is in flight on them.
func (u *Upstream) Stats() h2.UpstreamStats {
	if u.streams == nil {
		st := u.http1.client.Stats()
		return h2.UpstreamStats{Conns: st.Open, Streams: st.Active, Waiting: st.Waiting, Failed: st.Failed}
	}
	return u.streams.Stats()
}

// Close cuts its connections off, once nobody sends it anything any more.
func (u *Upstream) Close() { u.close() }

const (
	dialTimeout = 5 * time.Second
	// unacked is how long a server's host may be silent before its connections
	// are given up, whether something was sent or not.
	unacked = 30 * time.Second
)

func (t target) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	if t.network == "tcp" {
		d.Control = control
		d.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: unacked / 2, Interval: unacked / 6, Count: 3}
	}
	return d.DialContext(ctx, t.network, t.addr)
}

// DialHTTP1 opens a connection on which HTTP/1.1 is spoken.
func (u *Upstream) DialHTTP1(ctx context.Context) (net.Conn, error) {
	nc, err := u.target.dial(ctx)
	if err != nil || u.target.scheme != schemeHTTPS {
		return nc, err
	}
	cfg := u.tls.Clone()
	cfg.NextProtos = []string{"http/1.1"}
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = nc.Close() // the handshake's error says more
		return nil, err
	}
	return tc, nil
}

// errNoH2 is what a TLS server is told off for.
var errNoH2 = errors.New("the server does not offer h2 (ALPN)")

// dialH2 gives the function that dials connections for streams.
func (t target) dialH2(cfg *tls.Config) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		nc, err := t.dial(ctx)
		if err != nil {
			return nil, err
		}
		nc = nbio.Wrap(nc)
		if t.scheme != schemeGRPCS {
			return nc, nil
		}
		cfg := cfg.Clone()
		cfg.NextProtos = []string{"h2"}
		tc := tls.Client(nc, cfg)
		if err := tc.HandshakeContext(ctx); err != nil {
			_ = nc.Close() // the handshake's error says more
			return nil, err
		}
		if tc.ConnectionState().NegotiatedProtocol != "h2" {
			_ = tc.Close()
			return nil, errNoH2
		}
		return tc, nil
	}
}

// The names under which a server learns of the client and the call.
const (
	forwardedFor   = "x-forwarded-for"
	forwardedProto = "x-forwarded-proto"
	forwardedHost  = "x-forwarded-host"
	requestID      = "x-request-id"
)

// fields is the head of a request, of HTTP/1.1 or HTTP/2.
type fields interface {
	Get(name string) string
	Set(name, value string)
}

// forward tells the server who asks, behind those that a trusted proxy says
// it asks for. What an untrusted client said of itself has been taken out before.
func forward(out fields, before string, call *protocols.Call) {
	from := call.Conn.Remote.Addr().String()
	if !call.Conn.Remote.IsValid() {
		from = netip.IPv4Unspecified().String()
	}
	if before != "" {
		from = before + ", " + from
	}
	out.Set(forwardedFor, from)
	if out.Get(forwardedProto) == "" {
		proto := "http"
		if call.Conn.TLS != nil {
			proto = "https"
		}
		out.Set(forwardedProto, proto)
	}
	if out.Get(forwardedHost) == "" && call.Host != "" {
		out.Set(forwardedHost, call.Host)
	}
	out.Set(requestID, call.RequestID())
}

// prepare is forward for a stream.
func prepare(r *h2.Request, call *protocols.Call) { forward(r, r.Get(forwardedFor), call) }

// Forward is for a request of HTTP/1.1 that is handed on with the header out, as
// a WebSocket's handshake is.
func Forward(out http.Header, in *http.Request) {
	if call := protocols.CallFrom(in.Context()); call != nil {
		forward(out, strings.Join(in.Header.Values("X-Forwarded-For"), ", "), call)
	}
}
