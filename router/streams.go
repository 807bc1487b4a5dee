package router

import (
	"context"
	"net"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/rest"
)

// buildSwitch makes the stream switch: gRPC calls go to the native server,
// everything else to net/http.
func (p *port) buildSwitch(addr net.Addr) {
	p.webH2 = h2.NewServer(addr, h2.ServerOptions{})
	p.rpcH2 = h2.NewServer(addr, h2.ServerOptions{Calls: true, Batches: true, Pings: true})
	cfg := h2.Config{
		Route: p.routeStream,
		Limits: h2.Limits{
			Streams:       p.Limits.Streams,
			HeaderBytes:   p.Limits.HeaderBytes,
			HeaderFields:  p.Limits.HeaderFields,
			HeaderTimeout: p.Limits.HeaderTimeout,
			Idle:          p.Limits.Idle,
			Write:         p.Limits.Unacked,
		},
		Log: p.Log,
	}
	if log := p.Access; log != nil {
		cfg.Begun = func(call *protocols.Call) {
			call.OnDone(func(res protocols.Result) { rest.AccessLine(context.Background(), log, call, res) })
		}
	}
	p.sw = h2.New(cfg)
	p.streams.Store(p.sw)
}

func (p *port) routeStream(r *h2.Request, from *protocols.Conn) h2.Backend {
	if !r.GRPC() {
		return p.webH2
	}
	if contentType := r.Get("content-type"); hasUpper(contentType) {
		// grpc-go compares as the specification writes it, in lower case.
		r.Set("content-type", strings.ToLower(contentType))
	}
	if !rest.Trusts(p.TrustedProxies, from.Remote.Addr()) {
		r.Remove(rest.Forwarding) // for net/http, rest does it
	}
	return p.rpcH2
}
