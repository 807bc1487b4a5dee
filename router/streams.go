package router

import (
	"net"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/rest"
)

// buildSwitch makes the stream switch: gRPC calls go to the native server,
// everything else to net/http, but for what Routes send elsewhere.
func (p *port) buildSwitch(addr net.Addr) {
	p.webH2 = h2.NewServer(addr, h2.ServerOptions{})
	p.rpcH2 = h2.NewServer(addr, h2.ServerOptions{Calls: true, Batches: true, Pings: true})
	cfg := h2.Config{
		Route:  p.routeStream,
		Guards: p.Guards,
		Limits: h2.Limits{
			Streams:       p.Limits.Streams,
			HeaderBytes:   p.Limits.HeaderBytes,
			HeaderFields:  p.Limits.HeaderFields,
			HeaderTimeout: p.Limits.HeaderTimeout,
			Idle:          p.Limits.Idle,
			Write:         p.Limits.Unacked,
			BodyIdle:      p.Limits.BodyIdle,
			BodyRate:      p.Limits.BodyRate,
			Memory:        p.Limits.Memory,
		},
		Log: p.Log,
	}
	if meter, observers := p.Meter, p.observers(); meter != nil || len(observers) > 0 {
		cfg.Begun = func(call *protocols.Call) {
			meter.Begin(call)
			call.Observe(observers)
		}
	}
	p.sw = h2.New(cfg)
	p.streams.Store(p.sw)
}

func (p *port) routeStream(r *h2.Request, from *protocols.Conn) h2.Backend {
	path, _, _ := strings.Cut(r.Path, "?")
	if p.misdirected(r.Authority, from) {
		return h2.Refuse(errMisdirected)
	}
	t := p.table.Load()
	a := asked{host: r.Authority, method: r.Method, path: path, fields: r}
	if !r.GRPC() {
		return p.routeRequest(t, r, &a, from)
	}
	if contentType := r.Get("content-type"); hasUpper(contentType) {
		// grpc-go compares as the specification writes it, in lower case.
		r.Set("content-type", strings.ToLower(contentType))
	}
	p.distrust(r, from)
	if w := t.find(protocols.GRPC, &a); w != nil {
		return w.to().stream
	}
	return p.rpcH2
}

// routeRequest is for what is no gRPC call: net/http takes what has no route,
// and what a stream cannot be handed on for.
func (p *port) routeRequest(t *table, r *h2.Request, a *asked, from *protocols.Conn) h2.Backend {
	if len(t.ways) == 0 {
		return p.webH2
	}
	p.distrust(r, from) // first: no route is chosen by what a stranger says of itself
	if to := t.stream(r, a); to != nil {
		return to
	}
	return p.webH2
}

// distrust takes out what a stranger says of who it is. For net/http, rest does it.
func (p *port) distrust(r *h2.Request, from *protocols.Conn) {
	if !rest.Trusts(p.TrustedProxies, from.Remote.Addr()) {
		r.Drop(rest.Forwarding)
	}
}
