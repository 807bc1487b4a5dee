package upstream

import (
	"context"
	"crypto/tls"
	"hash/fnv"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/proxy"
)

// server is one server of an Upstream.
type server struct {
	up     *Upstream
	target target
	name   string // its URL, and its address if that was looked up
	hash   uint64 // of name
	tls    *tls.Config
	close  func()

	// Of a server that speaks HTTP/2 alone; else nil.
	streams *h2.Upstream
	reverse *httputil.ReverseProxy // for requests that came by HTTP/1
	// Of one that speaks HTTP/1.1; else nil.
	client *proxy.Client

	active atomic.Int64 // calls in flight
	fails  atomic.Int32 // faults in a row
	calls  atomic.Int64 // calls that have ended
	faults atomic.Int64 // of them those that went wrong

	// Guarded by up.mu.
	sick      bool      // says the health check
	ejected   time.Time // until when
	ejections int       // in a row
	removed   time.Time // since when its name does not lead there any more
	unwatch   func()    // ends the health check; nil without one

	// since is when it came, or came back: nanoseconds of the Unix epoch. Zero
	// means that it was there from the beginning.
	since atomic.Int64
}

// newServer makes a server of a pool. Nothing is dialed yet.
func (u *Upstream) newServer(at target, name string) *server {
	s := &server{up: u, target: at, name: name}
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	s.hash = h.Sum64()
	cfg := u.opts.TLS.Clone()
	if cfg == nil {
		cfg = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if cfg.ServerName == "" {
		cfg.ServerName = at.host
	}
	s.tls = cfg
	if !at.http2() {
		host := at.addr
		if at.network == networkUnix {
			host = ""
		}
		cfg := proxy.Config{Name: name, Dial: s.dialHTTP1, Host: host, Prepare: prepareHead, Trailer: passTrailer, Log: u.opts.Log}
		if u.opts.ProxyHeader {
			cfg.IdleConns = -1
		}
		s.client = proxy.New(cfg)
		s.close = s.client.Close
		return s
	}
	transport := newTransport(at, cfg.Clone())
	s.reverse = newReverse(at, transport, u.opts.Log)
	s.streams = h2.NewUpstream(h2.UpstreamConfig{Name: name, Dial: at.dialH2(cfg), Limits: u.opts.Streams, Log: u.opts.Log})
	s.close = func() {
		transport.CloseIdleConnections()
		s.streams.Close()
	}
	return s
}

// Upstream is where the switch sends streams.
func (s *server) Upstream() *h2.Upstream { return s.streams }

// Done takes note of how a stream ended.
func (s *server) Done(out h2.Outcome) {
	const unavailable = 14 // gRPC's
	switch {
	case out.Fault != h2.NoFault:
		s.ended(bad)
	case out.GRPC && out.Status == unavailable, !out.GRPC && isBad(out.Status):
		s.ended(bad)
	case out.Status < 0:
		s.ended(unknown)
	default:
		s.ended(fine)
	}
}

// isBad reports whether an HTTP status says that the server cannot serve, rather
// than that it has, and failed.
func isBad(status int) bool {
	return status >= http.StatusBadGateway && status <= http.StatusGatewayTimeout
}

// verdict is what the end of a call says of its server.
type verdict uint8

const (
	unknown verdict = iota // the client left, or it was never sent
	fine
	bad
)

// ended takes note of the end of a call.
func (s *server) ended(v verdict) {
	s.active.Add(-1)
	if v == unknown {
		return
	}
	s.calls.Add(1)
	s.up.breaker.ended(v == bad, time.Now)
	if v == fine {
		if s.fails.Load() != 0 {
			s.fails.Store(0)
			s.up.recovered(s)
		}
		return
	}
	s.faults.Add(1)
	if n := int(s.fails.Add(1)); n >= s.up.opts.Eject.Failures {
		s.up.eject(s)
	}
}

// share is how much of its share of the calls a server gets that came not long
// ago: from a tenth to 1.
func (s *server) share(now time.Time) float64 {
	since := s.since.Load()
	if since == 0 || s.up.opts.SlowStart <= 0 {
		return 1
	}
	part := float64(now.UnixNano()-since) / float64(s.up.opts.SlowStart)
	if part >= 1 {
		s.since.Store(0)
		return 1
	}
	return max(part, 0.1)
}

// dialHTTP1 opens a connection of its own on which HTTP/1.1 is spoken.
func (s *server) dialHTTP1(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.target.timeout)
	defer cancel()
	nc, err := s.target.dial(ctx)
	if err == nil && s.up.opts.ProxyHeader {
		if _, err = nc.Write(proxyHeader(ctx)); err != nil {
			_ = nc.Close() // it is of no use
		}
	}
	if err != nil || s.target.scheme != schemeHTTPS {
		return nc, err
	}
	cfg := s.tls.Clone()
	cfg.NextProtos = []string{"http/1.1"}
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = nc.Close() // the handshake's error says more
		return nil, err
	}
	return tc, nil
}

// proxyHeader says whose connection it is: that of the call in ctx, or nobody's, as of
// a health check.
func proxyHeader(ctx context.Context) []byte {
	call := protocols.CallFrom(ctx)
	if call == nil {
		return protocols.AppendProxyHeader(nil, netip.AddrPort{}, netip.AddrPort{})
	}
	return protocols.AppendProxyHeader(nil, call.Conn.Remote, call.Conn.Local)
}

// tracked is a connection that counts as a call in flight until it is closed.
type tracked struct {
	net.Conn
	server *server
	closed atomic.Bool
}

// NetConn is the connection itself.
func (c *tracked) NetConn() net.Conn { return c.Conn }

// CloseWrite ends the direction to the server.
func (c *tracked) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

func (c *tracked) Close() error {
	if !c.closed.Swap(true) {
		c.server.ended(unknown) // that it could be opened says little: a server that hangs takes connections, too
	}
	return c.Conn.Close()
}
