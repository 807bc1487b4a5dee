package client

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// HTTP gives a client whose requests to Addr carry the token, over HTTP/2 where the
// server speaks it. One that is answered with 401 is sent once more with a newer
// token, if its body can be read again (Request.GetBody, or none). Requests to others,
// where a redirect may lead, carry no token, and use neither TLS nor Dial of the options.
//
// The client has no timeout: give requests a context.
func (c *Client) HTTP() *http.Client { return c.http }

func (c *Client) newHTTP() {
	var protos http.Protocols
	protos.SetHTTP1(true)
	protos.SetHTTP2(!c.opts.Plaintext)
	// A dead server is noticed as a socket notices it.
	h2 := &http.HTTP2Config{SendPingTimeout: pingEvery, PingTimeout: pongWithin}
	c.own = &http.Transport{Protocols: &protos, HTTP2: h2, TLSClientConfig: c.tlsFor("h2", "http/1.1"), Proxy: c.proxy(), TLSHandshakeTimeout: shakeWithin, IdleConnTimeout: 90 * time.Second}
	if c.opts.Dial != nil {
		c.own.DialContext = c.dialAddr
	}
	c.far = &http.Transport{ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: shakeWithin, IdleConnTimeout: 90 * time.Second}
	c.http = &http.Client{Transport: (*bearer)(c)}
}

// proxy is nil for those who dial themselves.
func (c *Client) proxy() func(*http.Request) (*url.URL, error) {
	if c.opts.Dial != nil {
		return nil
	}
	return http.ProxyFromEnvironment
}

// dialAddr is Dial of the options, if there is one: whatever is asked for, it is Addr.
func (c *Client) dialAddr(ctx context.Context, network, _ string) (net.Conn, error) {
	return c.opts.Dial(ctx, network, c.opts.Addr)
}

// bearer is a Client as a http.RoundTripper.
type bearer Client

// RoundTrip implements http.RoundTripper.
func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	c := (*Client)(b)
	switch {
	case !c.isOwn(r.URL):
		return c.far.RoundTrip(r)
	case c.tokens.fetch == nil || r.Header.Get("Authorization") != "":
		return c.own.RoundTrip(r)
	}
	token, err := c.tokens.get(r.Context())
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // it was not read
		}
		return nil, err
	}
	res, err := c.own.RoundTrip(with(r, token))
	if err != nil || res.StatusCode != http.StatusUnauthorized {
		return res, err
	}
	again := r.Clone(r.Context())
	if r.Body != nil && r.Body != http.NoBody {
		if r.GetBody == nil {
			_, _ = c.tokens.replace(r.Context(), token) // for the next request; this one has its answer
			return res, nil
		}
		if again.Body, err = r.GetBody(); err != nil {
			return res, nil //nolint:nilerr // the answer stands: it cannot be asked again
		}
	}
	newer, err := c.tokens.replace(r.Context(), token)
	if err != nil || newer == token {
		if again.Body != nil {
			_ = again.Body.Close() // it was not read
		}
		return res, nil // the answer stands: there is no other token
	}
	_, _ = io.CopyN(io.Discard, res.Body, 4<<10) // so that HTTP/1 can use the connection again
	_ = res.Body.Close()                         // the answer that counts is the next
	if res, err = c.own.RoundTrip(with(again, newer)); err == nil && res.StatusCode == http.StatusUnauthorized {
		c.tokens.doubt()
	}
	return res, err
}

// with is r with a token: a RoundTripper may not change what it is given.
func with(r *http.Request, token string) *http.Request {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// isOwn reports whether u is at Addr, by the scheme that is used there.
func (c *Client) isOwn(u *url.URL) bool {
	scheme, port := "https", "443"
	if c.opts.Plaintext {
		scheme, port = "http", "80"
	}
	if p := u.Port(); p != "" {
		port = p
	}
	return u.Scheme == scheme && strings.EqualFold(net.JoinHostPort(u.Hostname(), port), c.opts.Addr)
}
