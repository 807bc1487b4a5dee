package edge

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/rest"
	"github.com/oneport-edge/oneport/router"
)

// Question is a call that has not come, as a user writes it.
type Question struct {
	// Target is a URL, or "pkg.Service/Method" for a gRPC call.
	Target string
	// Method is the method; "" for what is usual.
	Method string
	// Header are the request's fields, each "Name: value". Host replaces the URL's.
	Header []string
	// WebSocket and GRPC say what a URL alone does not.
	WebSocket, GRPC bool
}

// asked is a Question understood.
type asked struct {
	router.Ask
	target string // as it was written
	query  string
	tls    bool
	sni    string
	alpn   []string // what such a client offers
}

// grpcTarget is what is a gRPC method and no URL.
var grpcTarget = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*/[A-Za-z_][A-Za-z0-9_]*$`)

// read understands a question, or says what is wrong with it. encrypted says whether
// a target that is no URL comes over TLS.
func (q *Question) read(encrypted bool) (*asked, error) {
	a := &asked{target: q.Target, tls: encrypted}
	ws, grpc := q.WebSocket, q.GRPC
	if grpcTarget.MatchString(q.Target) {
		grpc, a.Path = true, "/"+q.Target
	} else {
		u, err := url.Parse(q.Target)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("%q: want a URL, as https://example.com/api/, or a gRPC method, as helloworld.Greeter/SayHello", q.Target)
		}
		switch strings.ToLower(u.Scheme) {
		case "http":
		case "https":
			a.tls = true
		case "ws":
			ws = true
		case "wss":
			ws, a.tls = true, true
		default:
			return nil, fmt.Errorf("%q: the scheme is none of http, https, ws, wss", q.Target)
		}
		if u.Scheme == "http" || u.Scheme == "ws" {
			a.tls = false
		}
		if u.User != nil {
			return nil, errors.New("the URL has a user or a password in it: that is no part of a call; give a header, as -H 'Authorization: ...'")
		}
		a.Host, a.Path, a.query = u.Host, u.EscapedPath(), u.RawQuery
		if a.Path == "" {
			a.Path = "/"
		}
		if _, err := netip.ParseAddr(u.Hostname()); err != nil {
			a.sni = u.Hostname()
		}
	}
	if ws && grpc {
		return nil, errors.New("a call is a WebSocket or gRPC, not both")
	}
	if err := a.fields(q.Header); err != nil {
		return nil, err
	}
	return a, a.kind(q.Method, ws, grpc)
}

// fields reads the header.
func (a *asked) fields(list []string) error {
	a.Header = make(http.Header)
	for _, field := range list {
		name, value, ok := strings.Cut(field, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case !ok || name == "" || strings.ContainsAny(name, " \t"):
			return fmt.Errorf("header %q: want 'Name: value'", field)
		case strings.EqualFold(name, "host"):
			if a.Host == "" { // of a gRPC method: no URL says what the connection is for
				a.sni = (&url.URL{Host: value}).Hostname()
			}
			a.Host = value
		default:
			a.Header.Add(name, value)
		}
	}
	return nil
}

// kind decides what the call speaks, as the server does.
func (a *asked) kind(method string, ws, grpc bool) error {
	a.Method = method
	a.alpn = []string{"h2", "http/1.1"}
	switch {
	case grpc:
		if a.Method == "" {
			a.Method = http.MethodPost
		}
		if a.Header.Get("Content-Type") == "" {
			a.Header.Set("Content-Type", "application/grpc")
		}
		if !protocols.IsGRPC(a.Method, a.Header.Get("Content-Type")) {
			return fmt.Errorf("a gRPC call is a POST of application/grpc, not a %s of %s", a.Method, a.Header.Get("Content-Type"))
		}
	case ws:
		a.Header.Set("Connection", "Upgrade")
		a.Header.Set("Upgrade", "websocket")
		if a.Method != "" && a.Method != http.MethodGet {
			return fmt.Errorf("a WebSocket's handshake is a GET, not a %s", a.Method)
		}
	}
	if a.Method == "" {
		a.Method = http.MethodGet
	}
	switch {
	case protocols.IsGRPC(a.Method, a.Header.Get("Content-Type")):
		a.Protocol, a.alpn = protocols.GRPC, []string{"h2"}
	case rest.IsUpgrade(&http.Request{Header: a.Header}):
		a.Protocol, a.alpn = protocols.WebSocket, []string{"http/1.1"}
	}
	return nil
}
