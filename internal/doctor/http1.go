package doctor

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// mostAnswer bounds what is read of a connection, mostHead the head of an answer, whose fields take
// many times their bytes of memory, and mostBody what is kept of an answer.
const (
	mostAnswer = 4 << 20
	mostHead   = 256 << 10
	mostBody   = 64 << 10
)

// answer is a response, over any version of HTTP.
type answer struct {
	status  int
	header  http.Header
	trailer http.Header
	body    []byte // its begin
	whole   bool   // the body was read to its end
	close   bool   // HTTP/1: the connection ends with it
	frames  int    // HTTP/2: header blocks of it
	at      time.Time
}

// kind says in short what an answer is.
func (a *answer) kind() string {
	if a.isGRPC() {
		return "gRPC status " + quoted(a.grpcStatus())
	}
	return fmt.Sprint("HTTP ", a.status)
}

func (a *answer) grpcStatus() string {
	if s := a.trailer.Get("Grpc-Status"); s != "" {
		return s
	}
	return a.header.Get("Grpc-Status")
}

// isGRPC reports that a gRPC server has answered.
func (a *answer) isGRPC() bool {
	return strings.HasPrefix(a.header.Get("Content-Type"), "application/grpc") || a.grpcStatus() != ""
}

// conn1 is a client's connection of HTTP/1.
type conn1 struct {
	*tls.Conn
	r    *bufio.Reader
	p    *patient
	left *io.LimitedReader // below r
}

func (p *patient) open1(timeouts int, alpn ...string) (*conn1, error) {
	c, err := p.secure(timeouts, p.config(alpn...))
	if err != nil {
		return nil, err
	}
	if got := c.ConnectionState().NegotiatedProtocol; got != "" && got != "http/1.1" {
		shut(c)
		return nil, fmt.Errorf("it takes %q, which was not offered", got)
	}
	return newConn1(p, c), nil
}

func newConn1(p *patient, c *tls.Conn) *conn1 {
	h := &conn1{Conn: c, p: p}
	h.limited(c)
	return h
}

// limited has the connection read from r.
func (c *conn1) limited(r io.Reader) {
	c.left = &io.LimitedReader{R: r, N: mostAnswer}
	c.r = bufio.NewReader(c.left)
}

var errLongHead = fmt.Errorf("its head is longer than %d KiB", mostHead>>10)

// readHead reads the head of an answer.
func (c *conn1) readHead() (*http.Response, error) {
	rest := max(0, c.left.N-mostHead)
	c.left.N -= rest
	res, err := http.ReadResponse(c.r, nil)
	if err != nil && c.left.N == 0 && rest > 0 {
		return nil, errLongHead
	}
	c.left.N += rest
	return res, err
}

// head is a GET's, with the fields that all have.
func (p *patient) head(path string, fields ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: oneport-doctor\r\nAccept: */*\r\n", path, p.authority)
	for _, f := range fields {
		b.WriteString(f + "\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

var errNotHTTP1 = errors.New("what it answers is no HTTP/1")

// do makes a GET, and reads the answer.
func (c *conn1) do(path string, fields ...string) (*answer, error) {
	if _, err := c.Write(c.p.head(path, fields...)); err != nil {
		if a, err := c.read(); err == nil { // it has answered early, and closed
			return a, nil
		}
		return nil, err
	}
	return c.read()
}

func (c *conn1) read() (*answer, error) {
	if b, err := c.r.Peek(5); len(b) == 0 {
		return nil, err
	} else if string(b) != "HTTP/" {
		return nil, errNotHTTP1
	}
	res, err := c.readHead()
	if err != nil {
		return nil, err
	}
	a := &answer{status: res.StatusCode, header: res.Header, close: res.Close, at: time.Now()}
	if a.status == http.StatusSwitchingProtocols {
		return a, nil
	}
	defer res.Body.Close()
	if a.body, err = io.ReadAll(io.LimitReader(res.Body, mostBody)); err != nil {
		return nil, err
	}
	_, err = io.CopyN(io.Discard, res.Body, mostBody)
	a.whole, a.trailer = errors.Is(err, io.EOF), res.Trailer
	return a, nil
}

// get1 asks for Path on a connection of its own.
func (p *patient) get1(alpn ...string) (*answer, error) {
	c, err := p.open1(1, alpn...)
	if err != nil {
		return nil, err
	}
	defer shut(c)
	return c.do(p.Path)
}

func http1Probes() []probe {
	const h1, none = "curl-h1", "no-alpn"
	return []probe{
		{"http1", h1, (*patient).http1, "curl --http1.1, health checks and most proxies ask this way: whatever serves HTTP/1 behind the port must get the connection."},
		{"http1-keep-alive", h1, (*patient).keepAlive, "Clients send their next request on the same connection, and take its end for a failure: the server must say Connection: close before it closes."},
		{"scheme", h1, (*patient).scheme, "Behind TLS a handler that believes in plaintext sends wrong links, redirects for ever and leaves Secure out of cookies: r.TLS must reach it (nothing may wrap the *tls.Conn), or X-Forwarded-Proto."},
		{"large-header", h1, (*patient).largeHeader, "Who sends too much is to learn it, by 431: a reset says nothing, and looks like a broken network. Close only after the client has read."},
		{"plaintext-on-tls", h1, (*patient).plaintext, "Who types http:// for https:// should be told at once, by 400 or a redirect, and must not be served: it would go over the network unencrypted."},
		{"garbage", h1, (*patient).garbage, "Scanners send anything: it must be closed soon, and must not take the port down for others (in cmux HandleError has to return true)."},
		{"silent-neighbours", h1, (*patient).neighbours, "Clients that say nothing must not keep others waiting: handshakes and first bytes belong in a goroutine of each connection, not in the accept loop."},
		{"silent-client", h1, (*patient).silent, "Each silent client costs a descriptor for as long as it likes, and holds up the end of the process: set a deadline for the first bytes (cmux: SetReadTimeout; it has none by default)."},
		{"silent-tls-client", h1, (*patient).silentTLS, "A client that only begins its handshake costs as much as one that says nothing: the deadline must hold until there is a request."},
		{"idle-http1", h1, (*patient).idle1, "Clients keep connections for minutes: one that ends at once costs a handshake for each request."},
		{"http1-without-alpn", none, (*patient).withoutALPN, "Node, Python, gorilla and ws offer no ALPN, which means HTTP/1.1 (RFC 9110 is over TLS without it): do not take them for HTTP/2, and do not refuse them."},
	}
}

// working describes an answer to an ordinary request.
func working(a *answer, how string) Check {
	if a.status >= 500 {
		return warn("%s %d", how, a.status).because("The port works, what is behind it does not: look there, or give another --path.")
	}
	return ok("%s %d", how, a.status)
}

func (p *patient) http1() Check {
	if p.h1Err != nil {
		return fail("GET %s over HTTP/1.1: %s", p.Path, said(p.h1Err))
	}
	return working(p.h1, "GET "+p.Path+" over HTTP/1.1:")
}

func (p *patient) withoutALPN() Check {
	a, err := p.get1()
	if err != nil {
		return fail("GET %s without ALPN: %s", p.Path, said(err))
	}
	return working(a, "GET "+p.Path+" without ALPN:")
}

func (p *patient) keepAlive() Check {
	if p.h1 == nil {
		return skip("HTTP/1.1 does not work")
	}
	c, err := p.open1(2, "http/1.1")
	if err != nil {
		return fail("a second connection: %s", said(err))
	}
	defer shut(c)
	a, err := c.do(p.Path)
	switch {
	case err != nil:
		return fail("GET %s again, on another connection: %s", p.Path, said(err))
	case a.close:
		return ok("it says Connection: close, so there is no second request")
	case !a.whole:
		return skip("the answer is too long to be read to its end")
	}
	if _, err = c.do(p.Path); err != nil {
		return fail("the second request on a connection: %s", said(err))
	}
	return ok("two requests on one connection")
}

// scheme looks whether handlers know that the call came over TLS: by /api/whoami of
// oneport, or by redirects.
func (p *patient) scheme() Check {
	seen := ""
	for _, ask := range []struct {
		how string
		get func(path string) (*answer, error)
	}{
		{"HTTP/1.1", func(path string) (*answer, error) {
			c, err := p.open1(1, "http/1.1")
			if err != nil {
				return nil, err
			}
			defer shut(c)
			return c.do(path)
		}},
		{"HTTP/2", func(path string) (*answer, error) { return p.alone(p.request(http.MethodGet, path), "h2", "http/1.1") }},
	} {
		if a, err := ask.get(p.Path); err == nil {
			if c := p.redirects(a, ask.how); c != nil {
				return *c
			}
		}
		a, err := ask.get("/api/whoami")
		if err != nil || a.status != http.StatusOK {
			continue
		}
		var who struct {
			Protocol string `json:"protocol"`
			TLS      *struct {
				Version string `json:"version"`
			} `json:"tls"`
		}
		if json.Unmarshal(a.body, &who) != nil || who.Protocol == "" {
			continue
		}
		if who.TLS == nil || who.TLS.Version == "" {
			return fail("/api/whoami over %s knows nothing of TLS", ask.how)
		}
		seen = quoted(who.TLS.Version)
	}
	if seen == "" {
		return skip("nothing shows it: there is neither /api/whoami nor a redirect at %s", p.Path)
	}
	return ok("/api/whoami knows of %s", seen)
}

// redirects says what is wrong with where an answer leads; nil if nothing is.
func (p *patient) redirects(a *answer, how string) *Check {
	to, err := url.Parse(a.header.Get("Location"))
	if err != nil || a.status < 300 || a.status > 399 || !strings.EqualFold(to.Host, p.authority) {
		return nil
	}
	var c Check
	switch path := to.RequestURI(); {
	case to.Scheme == "https" && path == p.Path && a.header.Get("Set-Cookie") == "":
		c = fail("GET %s over %s is redirected to itself, for ever", p.Path, how)
	case to.Scheme == "http":
		c = fail("GET %s over %s is redirected from https to http", p.Path, how)
	default:
		return nil
	}
	return &c
}

// tooLarge is more than servers take: nginx 32 KiB, HAProxy 16, Envoy 60; Go takes 1 MiB.
const tooLarge = 128 << 10

func (p *patient) largeHeader() Check {
	if p.h1 == nil {
		return skip("HTTP/1.1 does not work")
	}
	c, err := p.open1(1, "http/1.1")
	if err != nil {
		return fail("another connection: %s", said(err))
	}
	defer shut(c)
	a, err := c.do(p.Path, "X-Doctor: "+strings.Repeat("x", tooLarge))
	switch {
	case err != nil:
		return warn("a header of 128 KiB: %s, without an answer", said(err))
	case a.status >= 400 && a.status < 500:
		return ok("a header of 128 KiB is answered with %d", a.status)
	}
	return ok("a header of 128 KiB is taken, and answered with %d", a.status)
}
