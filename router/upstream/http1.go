package upstream

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/proxy"
)

// http1 is a server that speaks HTTP/1.1: where requests of clients of both
// versions go.
type http1 struct {
	name    string
	client  *proxy.Client
	handler *h2.Handler // of streams
	log     *slog.Logger
}

// newHTTP1 returns the way to such a server.
func newHTTP1(u *Upstream, log *slog.Logger) *http1 {
	host := u.target.addr
	if u.target.network == networkUnix {
		host = ""
	}
	s := &http1{name: u.name, log: log}
	s.client = proxy.New(proxy.Config{Name: u.name, Dial: u.dialSoon, Host: host, Prepare: prepareHead, Log: log})
	s.handler = h2.NewHandler(s.serveStream)
	return s
}

// dialSoon is DialHTTP1 within dialTimeout, handshake and all.
func (u *Upstream) dialSoon(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return u.DialHTTP1(ctx)
}

func (s *http1) close() {
	s.client.Close()
	s.handler.Close()
}

// ServeHTTP hands a request on that net/http has taken.
func (s *http1) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := proxy.FromHTTP(w, r)
	defer x.Release()
	if status, text := s.do(r.Context(), x); status != 0 {
		http.Error(w, text, status)
	}
}

// serveStream hands a stream on.
func (s *http1) serveStream(x *h2.Exchange) {
	if status, text := s.do(x.Context(), x); status != 0 {
		x.Reply(status, text)
	}
}

// do has a request answered. If nothing was, it says what is to be.
func (s *http1) do(ctx context.Context, x proxy.Exchange) (status int, text string) {
	err := s.client.Do(ctx, x)
	if err == nil {
		return 0, ""
	}
	fail, ok := errors.AsType[*proxy.Error](err)
	switch {
	case !ok: // there are no others
		return http.StatusBadGateway, textUnreachable
	case fail.Client && fail.Answered:
		return 0, ""
	case fail.Client:
		return clientsFault(ctx, x, fail)
	}
	s.log.Warn("upstream failed", "upstream", s.name, "err", fail.Err)
	switch {
	case fail.Answered:
		return 0, ""
	case fail.Busy:
		return http.StatusServiceUnavailable, textBusy
	case fail.Timeout:
		return http.StatusGatewayTimeout, textTimeout
	}
	return http.StatusBadGateway, textUnreachable
}

// clientsFault is for a request that its client has not brought to its end.
func clientsFault(ctx context.Context, x proxy.Exchange, fail *proxy.Error) (status int, text string) {
	switch {
	case ctx.Err() != nil:
		x.Abort() // it has left
		return 0, ""
	case fail.Timeout:
		return http.StatusRequestTimeout, "the request's body stands still"
	}
	return http.StatusBadRequest, "the request cannot be sent on"
}

// What is said in a server's place.
const (
	textUnreachable = "the server cannot be reached"
	textTimeout     = "the server takes too long"
	textBusy        = "too many requests wait for the server"
)

// prepareHead tells the server who asks.
func prepareHead(ctx context.Context, h *protocols.Head) {
	if call := protocols.CallFrom(ctx); call != nil {
		forward(h, h.Values(forwardedFor), call)
		return
	}
	// Nobody knows whose word this is.
	for _, name := range []string{forwardedFor, forwardedProto, forwardedHost} {
		h.Remove(name)
	}
}
