package oneporttest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/router"
)

// Name is the host name of every test port.
const Name = "oneport.test"

// Port is a router.Server that serves for one test.
type Port struct {
	// Server is the server under test.
	Server *router.Server

	t      testing.TB
	ca     *certs.CA
	addr   net.Addr
	dial   func(context.Context) (net.Conn, error)
	client *tls.Certificate // shown by all clients, if set
	stop   func() error
}

// Start serves srv on a port in memory, until the test ends. Certs and, for
// optional client certificates, ClientAuth are filled in if they are not set.
func Start(t testing.TB, srv *router.Server) *Port {
	t.Helper()
	ln := NewListener()
	return serve(t, srv, ln, ln.Dial)
}

// Listen is Start on a TCP port of 127.0.0.1.
func Listen(t testing.TB, srv *router.Server) *Port {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	return serve(t, srv, ln, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	})
}

func serve(t testing.TB, srv *router.Server, ln net.Listener, dial func(context.Context) (net.Conn, error)) *Port {
	t.Helper()
	ca, err := certs.NewCA("oneporttest CA")
	if err != nil {
		t.Fatal(err)
	}
	p := &Port{Server: srv, t: t, ca: ca, addr: ln.Addr(), dial: dial}
	if srv.Certs == nil {
		cert, err := ca.Server(Name, "localhost", "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		srv.Certs = certs.Static(cert)
	}
	if srv.ClientAuth.CAs == nil {
		srv.ClientAuth.CAs = certs.CAPool(ca.Pool())
		srv.AnyHost = srv.AnyHost || !srv.ClientAuth.Required // as without ClientAuth, which the test has not asked for
	}

	// Not t.Context(): it ends before the cleanups that close the clients.
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	for !srv.Ready() {
		select {
		case err := <-done:
			cancel()
			t.Fatalf("the port does not serve: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	stopped := false
	p.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Errorf("the port did not end cleanly: %v", err)
		}
	})
	return p
}

// Stop drains the port now, and returns what Serve did.
func (p *Port) Stop() error { return p.stop() }

// As makes all clients that are created afterwards show a certificate with
// that common name, signed by the port's CA. "" shows none again.
func (p *Port) As(name string) {
	p.t.Helper()
	p.client = nil
	if name == "" {
		return
	}
	cert, err := p.ca.Client(name)
	if err != nil {
		p.t.Fatal(err)
	}
	p.client = &cert
}

// CA is the pool that verifies the port's certificate.
func (p *Port) CA() *x509.CertPool { return p.ca.Pool() }

// Addr is the port's address: a real one after Listen.
func (p *Port) Addr() net.Addr { return p.addr }

// Dial opens a bare connection to the port.
func (p *Port) Dial(ctx context.Context) (net.Conn, error) { return p.dial(ctx) }

// TLS is a client's configuration for this port, offering those protocols.
func (p *Port) TLS(alpn ...string) *tls.Config {
	cfg := &tls.Config{RootCAs: p.ca.Pool(), ServerName: Name, NextProtos: alpn}
	if p.client != nil {
		cfg.Certificates = []tls.Certificate{*p.client}
	}
	return cfg
}

// DialTLS opens a TLS connection that offers those protocols. The test closes
// it at its end.
func (p *Port) DialTLS(alpn ...string) *tls.Conn {
	p.t.Helper()
	raw, err := p.dial(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	c := tls.Client(raw, p.TLS(alpn...))
	p.t.Cleanup(func() { _ = c.Close() }) // most tests close it themselves
	if err := c.HandshakeContext(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	return c
}

// URL is the https URL of a path.
func (p *Port) URL(path string) string { return "https://" + Name + path }

// HTTP1 is a client that speaks HTTP/1.1.
func (p *Port) HTTP1() *http.Client { return p.http("http/1.1") }

// HTTP2 is a client that speaks HTTP/2.
func (p *Port) HTTP2() *http.Client { return p.http("h2") }

func (p *Port) http(alpn string) *http.Client {
	var protos http.Protocols
	protos.SetHTTP1(alpn == "http/1.1")
	protos.SetHTTP2(alpn == "h2")
	tr := &http.Transport{
		Protocols:       &protos,
		TLSClientConfig: p.TLS(alpn),
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx) },
	}
	p.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// GRPC is a client connection; the test closes it at its end.
func (p *Port) GRPC(opts ...grpc.DialOption) *grpc.ClientConn {
	p.t.Helper()
	opts = append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(p.TLS())), // grpc-go adds h2
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.dial(ctx) }),
	}, opts...)
	cc, err := grpc.NewClient("passthrough:///"+Name, opts...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = cc.Close() }) // a second close is harmless
	return cc
}

// WebSocket opens a session; the test closes it at its end.
func (p *Port) WebSocket(path string) *websocket.Conn {
	p.t.Helper()
	c, res, err := p.DialWebSocket(p.t.Context(), path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	_ = res.Body.Close() // empty, after 101
	p.t.Cleanup(func() { _ = c.Close() })
	return c
}

// DialWebSocket opens a session with further headers, or fails with the
// answer that the port gave.
func (p *Port) DialWebSocket(ctx context.Context, path string, header http.Header) (*websocket.Conn, *http.Response, error) {
	d := websocket.Dialer{
		TLSClientConfig: p.TLS(),
		NetDialContext:  func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx) },
	}
	return d.DialContext(ctx, "wss://"+Name+path, header)
}
