package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Options of a client. Only Addr is needed.
type Options struct {
	// Addr is host:port, or a host whose port is 443 (80 with Plaintext).
	Addr string
	// TLS is the configuration of all connections, copied; its NextProtos are not
	// used. nil trusts the system's roots.
	TLS *tls.Config
	// Plaintext is without TLS: HTTP/1.1, gRPC over h2c, ws. A token then travels as it is.
	Plaintext bool
	// Token gives what is sent as "Authorization: Bearer". It is kept, and asked for
	// again when the server has refused it or says that it ends. It may wait, as
	// long as its context allows, and is called by one goroutine at a time. An error is
	// temporary, unless it wraps ErrNoToken. nil: calls carry no token.
	Token func(context.Context) (string, error)
	// Dial opens connections to Addr, and returns when its context ends. nil is a net.Dialer, and what HTTPS_PROXY says.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// GRPC is added to the options of the gRPC connection.
	GRPC []grpc.DialOption
}

// Client calls one address. All its methods may be called concurrently.
type Client struct {
	opts   Options
	host   string // of URLs: without the port that their scheme has by itself
	tokens *tokens
	jitter func(time.Duration) time.Duration // a random part of it

	http *http.Client
	grpc *grpc.ClientConn
	own  *http.Transport // to Addr
	far  *http.Transport // to where redirects lead
}

// New returns a client. It connects when it is used.
func New(o Options) (*Client, error) {
	port := "443"
	if o.Plaintext {
		port = "80"
	}
	host, given, err := net.SplitHostPort(o.Addr)
	if err != nil {
		host, given = o.Addr, port
	}
	if u, err := url.Parse("//" + net.JoinHostPort(host, given)); host == "" || err != nil || u.Hostname() != host || u.Path != "" {
		return nil, fmt.Errorf("client: %q is no host:port", o.Addr)
	}
	o.Addr = net.JoinHostPort(host, given)
	c := &Client{opts: o, host: o.Addr, tokens: newTokens(o.Token), jitter: fullJitter}
	if given == port {
		c.host = host
		if u := (&url.URL{Host: "[" + host + "]"}); net.ParseIP(host) != nil && net.ParseIP(host).To4() == nil {
			c.host = u.Host
		}
	}
	c.newHTTP()
	if err := c.newGRPC(); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return c, nil
}

// fullJitter is a random part of d.
func fullJitter(d time.Duration) time.Duration { return rand.N(d + 1) }

// tlsFor is a copy of the options' configuration, for those protocols.
func (c *Client) tlsFor(alpn ...string) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.opts.TLS != nil {
		cfg = c.opts.TLS.Clone()
	}
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(c.opts.Addr)
	}
	cfg.NextProtos = alpn
	return cfg
}

// url is the URL of a path, which may have a query.
func (c *Client) url(scheme, path string) string {
	if !c.opts.Plaintext {
		scheme += "s"
	}
	return scheme + "://" + c.host + path
}

// Close closes the connections that HTTP and gRPC keep. Calls that are open end
// with an error. Sockets are closed by their own Close.
func (c *Client) Close() error {
	c.own.CloseIdleConnections()
	c.far.CloseIdleConnections()
	if err := c.grpc.Close(); err != nil && status.Code(err) != codes.Canceled { // closed before
		return fmt.Errorf("client: %w", err)
	}
	return nil
}
