package doctor

import (
	"errors"
	"net/http"
	"time"

	"golang.org/x/net/http2"
)

func browserProbes() []probe {
	const who = "browser"
	return []probe{
		{"browser-coalescing", who, (*patient).coalescing, "A browser has one connection for a whole page, and sends everything over it at once."},
		{"browser-preconnect", who, (*patient).preconnect, "Browsers connect before they know what they will ask: such a connection must wait for its first request."},
		{"extended-connect", who, (*patient).extendedConnect, "A server that offers WebSockets over HTTP/2 (RFC 8441) must serve them so: Firefox does not try HTTP/1.1 then. Take ENABLE_CONNECT_PROTOCOL back, or serve it (Go: no GODEBUG=http2xconnect=1)."},
	}
}

// browserFields are what Chrome sends of itself.
var browserFields = [][2]string{
	{"sec-fetch-site", "same-origin"},
	{"sec-fetch-mode", "no-cors"},
	{"accept-encoding", "gzip, deflate, br, zstd"},
	{"priority", "u=2"},
}

// onePage is how many requests a small page makes.
const onePage = 6

func (p *patient) coalescing() Check {
	if c := p.none2(); c != nil {
		return *c
	}
	h, err := p.open2(2, "h2", "http/1.1")
	if err != nil {
		return fail("a connection: %s", said(err))
	}
	defer shut(h)
	var page []*stream
	for range onePage {
		s, err := h.send(p.request(http.MethodGet, p.Path, browserFields...))
		if err != nil {
			return fail("%d requests at once on one connection: %s", onePage, said(err))
		}
		page = append(page, s)
	}
	for i, s := range page {
		a, err := h.await(s)
		switch {
		case err != nil && h.goaway != nil && h.goaway.ErrCode == http2.ErrCodeNo:
			return ok("it takes %d requests on one connection, and ends it in good order", i)
		case err != nil:
			return fail("request %d of %d at once on one connection: %s", i+1, onePage, said(err))
		case a.status != p.h2.status:
			return warn("request %d of %d at once on one connection gets %d, alone it gets %d", i+1, onePage, a.status, p.h2.status)
		}
	}
	return ok("%d requests at once on one connection are answered", onePage)
}

// preconnect opens a connection, and asks a second later.
func (p *patient) preconnect() Check {
	if p.h2 == nil && (p.h1 == nil || !errors.Is(p.h2Err, errNoHTTP2)) {
		return skip("ordinary requests do not work at once either")
	}
	c, err := p.secure(2, p.config("h2", "http/1.1"))
	if err != nil {
		return fail("a connection: %s", said(err))
	}
	defer shut(c)
	select {
	case <-p.ctx.Done():
		return skip("there was no time")
	case <-time.After(min(time.Second, p.Timeout/2)):
	}
	if c.ConnectionState().NegotiatedProtocol == "h2" {
		h := newConn2(p, c)
		h.Conn = c
		if err = h.begin(); err == nil {
			_, err = h.ask(p.get())
		}
	} else {
		_, err = newConn1(p, c).do(p.Path)
	}
	if err != nil {
		return fail("a connection whose first request comes after a second: %s", said(err))
	}
	return ok("a connection whose first request comes after a second is served")
}

func (p *patient) extendedConnect() Check {
	if c := p.none2(); c != nil {
		return *c
	}
	h, err := p.open2(2, "h2", "http/1.1")
	if err != nil {
		return fail("a connection: %s", said(err))
	}
	defer shut(h)
	if _, err := h.ask(p.get()); err != nil {
		return fail("GET %s: %s", p.Path, said(err))
	}
	switch val, _ := h.setting(http2.SettingEnableConnectProtocol); {
	case val != 1:
		return ok("WebSockets over HTTP/2 are not offered: browsers open them over HTTP/1.1")
	case p.noWS() != nil:
		return skip("WebSockets over HTTP/2 are offered, and %s", p.noWS().Saw)
	}
	req := &request2{fields: [][2]string{
		{":method", http.MethodConnect},
		{":protocol", "websocket"},
		{":scheme", "https"},
		{":authority", p.authority},
		{":path", p.WebSocketPath},
		{"sec-websocket-version", "13"},
		{"origin", "https://" + p.authority},
	}}
	s, err := h.connect(req)
	var reset resetError
	switch {
	case errors.As(err, &reset), err != nil:
		return fail("WebSockets over HTTP/2 are offered, and one at %s fails: %s", p.WebSocketPath, said(err))
	case s.status != http.StatusOK:
		return fail("WebSockets over HTTP/2 are offered, and one at %s gets %d", p.WebSocketPath, s.status)
	}
	return ok("WebSockets over HTTP/2 are offered, and %s opens", p.WebSocketPath)
}

// connect makes a call whose both sides stay open, and waits for the head of its answer.
func (h *conn2) connect(req *request2) (*stream, error) {
	id := h.next
	h.next += 2
	s := new(stream)
	h.streams[id] = s
	if err := h.headers(id, req.fields, false); err != nil {
		return nil, err
	}
	for s.header == nil && !s.done {
		if err := h.step(); err != nil {
			return nil, err
		}
	}
	return s, s.reset
}
