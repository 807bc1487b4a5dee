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
	s.handler = h2.NewHandler(func(x *h2.Exchange) { s.serve(x.Context(), x) })
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
	s.serve(r.Context(), x)
}

// exchange is a request of either version.
type exchange interface {
	proxy.Exchange
	// Reply answers in the port's words what nobody has answered.
	Reply(status int, text string)
}

// serve has a request answered.
func (s *http1) serve(ctx context.Context, x exchange) {
	err := s.client.Do(ctx, x)
	if err == nil {
		return
	}
	fail, ok := errors.AsType[*proxy.Error](err)
	if !ok { // there are no others
		fail = &proxy.Error{Err: err}
	}
	if !fail.Client {
		s.log.Warn("upstream failed", "upstream", s.name, "err", fail.Err)
	}
	switch {
	case fail.Answered:
	case fail.Client && fail.Timeout:
		x.Reply(http.StatusRequestTimeout, "the request's body stands still")
	case fail.Client && ctx.Err() != nil:
		x.Abort() // it has left
	case fail.Client:
		x.Reply(http.StatusBadRequest, "the request cannot be sent on")
	case fail.Busy:
		x.Reply(http.StatusServiceUnavailable, "too many requests wait for the server")
	case fail.Timeout:
		x.Reply(http.StatusGatewayTimeout, textTimeout)
	default:
		x.Reply(http.StatusBadGateway, textUnreachable)
	}
}

// What is said in a server's place.
const (
	textUnreachable = "the server cannot be reached"
	textTimeout     = "the server takes too long"
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
