package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/oneport-edge/oneport/protocols/nbio"
)

// The schemes of URLs, and the network of sockets.
const (
	schemeHTTP  = "http"
	schemeHTTPS = "https"
	schemeH2C   = "h2c"
	schemeGRPC  = "grpc"
	schemeGRPCS = "grpcs"
	networkUnix = "unix"
	networkTCP  = "tcp"
)

// target is a parsed URL.
type target struct {
	scheme  string
	network string // tcp, unix
	addr    string
	host    string // the name in its certificate
	url     string
	timeout time.Duration // to connect, see Options.Connect
}

// isName reports whether the server's address has to be looked up.
func (t *target) isName() bool {
	_, err := netip.ParseAddr(t.host)
	return t.network == networkTCP && err != nil && t.host != "localhost"
}

// base is the URL of a request to the server, without a path.
func (t *target) base() *url.URL {
	to := &url.URL{Scheme: schemeHTTP, Host: t.addr}
	if t.scheme == schemeHTTPS || t.scheme == schemeGRPCS {
		to.Scheme = schemeHTTPS
	}
	if t.network == networkUnix {
		to.Host = "localhost"
	}
	return to
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
	at := target{scheme: u.Scheme, network: networkTCP, addr: u.Host, host: u.Hostname(), url: raw}
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

const (
	lookupTimeout = 5 * time.Second
	// unacked is how long a server's host may be silent before its connections
	// are given up, whether something was sent or not.
	unacked = 30 * time.Second
)

func (t target) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: t.timeout}
	if t.network == networkTCP {
		d.Control = control
		d.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: unacked / 2, Interval: unacked / 6, Count: 3}
	}
	nc, err := d.DialContext(ctx, t.network, t.addr)
	if err != nil {
		return nil, err
	}
	return nbio.Wrap(nc), nil
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
