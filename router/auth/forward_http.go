package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// maxForwardBody is what is read of an answer's body, in bytes.
const maxForwardBody = 4096

// HTTPAuthorityOptions says where a service is that decides on calls over HTTP.
type HTTPAuthorityOptions struct {
	// URL is what is asked, by GET: http or https. The question is in fields, never in the URL.
	URL string
	// TLS is for https; nil means the system's CAs.
	TLS *tls.Config
	// Conns is how many connections there are at most; 0 means 256, as many as [Forward]
	// asks about at once.
	Conns int
}

// HTTPAuthority asks a service over HTTP/1.1. It gets X-Forwarded-Method, -Proto, -Host, -Uri
// and -For of the call, X-Request-Id, and the fields that [ForwardOptions] names. 2xx lets
// the call in; 401, 403 and 429 refuse it, and the text of the answer is handed on if it is plain text or
// JSON. No redirect is followed: it is an answer like any other. Of a body 4 KiB are
// read at most.
type HTTPAuthority struct {
	url       *url.URL
	transport *http.Transport
}

// NewHTTPAuthority checks the options; it does not ask yet.
func NewHTTPAuthority(opts HTTPAuthorityOptions) (*HTTPAuthority, error) {
	u, err := url.Parse(opts.URL)
	switch {
	case err != nil:
		return nil, errors.New("auth: the authority's URL is none") // it may have a password
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.Fragment != "":
		return nil, errors.New("auth: the authority's URL: want http://host/path or https://host/path")
	case u.User != nil:
		return nil, errors.New("auth: the authority's URL has credentials, which would be seen")
	}
	conns := opts.Conns
	if conns <= 0 {
		conns = 256
	}
	protos := new(http.Protocols)
	protos.SetHTTP1(true) // by itself net/http would speak HTTP/2 over TLS, on one connection that hangs as a whole
	return &HTTPAuthority{url: u, transport: &http.Transport{
		Protocols:              protos,
		TLSClientConfig:        opts.TLS,
		DisableCompression:     true, // what is small needs none, and what inflates is not small
		MaxConnsPerHost:        conns,
		MaxIdleConnsPerHost:    min(conns, 64),
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 32 << 10,
		TLSHandshakeTimeout:    10 * time.Second,
	}}, nil
}

// Close closes the connections that nobody uses. Whoever waits for an answer still gets it.
func (a *HTTPAuthority) Close() { a.transport.CloseIdleConnections() }

// Ask implements [Authority].
func (a *HTTPAuthority) Ask(ctx context.Context, q Question) (Verdict, error) {
	req := (&http.Request{
		Method: http.MethodGet, URL: a.url, Host: a.url.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: forwardHeader(&q),
	}).WithContext(ctx)
	res, err := a.transport.RoundTrip(req)
	if err != nil {
		return Verdict{}, fmt.Errorf("asking %s: %w", a.url.Host, err)
	}
	defer res.Body.Close() // what is not read closes the connection too
	v := Verdict{Status: res.StatusCode}
	if v.Status < 200 { // 101: what follows is no body, and ends with no deadline of ours
		return v, nil
	}
	for name, values := range res.Header {
		for _, value := range values {
			v.Fields = append(v.Fields, protocols.Field{Name: name, Value: value})
		}
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxForwardBody))
	if err != nil && v.Status >= 300 {
		body = nil // the refusal counts without its text as well
	} else if err != nil {
		return Verdict{}, fmt.Errorf("the answer of %s: %w", a.url.Host, err)
	}
	if kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err == nil && (kind == "text/plain" || kind == "application/json") {
		v.Text = string(body)
	}
	return v, nil
}

// forwardHeader is the head of the request that asks.
func forwardHeader(q *Question) http.Header {
	h := make(http.Header, 8+len(q.Fields))
	for _, fd := range q.Fields {
		h.Add(fd.Name, fd.Value)
	}
	call := q.Call
	set := func(name, value string) {
		h.Set(name, strings.Map(func(r rune) rune { // a client must not break its own question
			if r < ' ' || r == 0x7f {
				return -1
			}
			return r
		}, value))
	}
	proto := "http"
	if call.Conn.TLS != nil {
		proto = "https"
	}
	set("X-Forwarded-Method", call.Method)
	set("X-Forwarded-Proto", proto)
	set("X-Forwarded-Host", call.Host)
	set("X-Forwarded-Uri", q.Target)
	set("X-Request-Id", call.RequestID())
	if ip := call.Conn.Remote.Addr(); ip.IsValid() {
		set("X-Forwarded-For", ip.String())
	}
	if _, ok := h["User-Agent"]; !ok {
		h.Set("User-Agent", "oneport")
	}
	return h
}
