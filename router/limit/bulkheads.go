package limit

import (
	"context"
	"sync/atomic"

	"github.com/oneport-edge/oneport/protocols"
)

// Bounds are how many calls of each protocol may be in flight. Zero means no bound.
type Bounds struct {
	HTTP, GRPC, WebSocket int
}

// Bulkheads is a guard that bounds the calls in flight of each protocol, whoever makes them, so
// that idle WebSockets or a flood of gRPC calls do not starve REST. It is safe for concurrent use.
type Bulkheads struct {
	of [3]bulkhead
}

type bulkhead struct {
	most     atomic.Int64
	inFlight atomic.Int64
	refused  atomic.Uint64
	leave    func(protocols.Result) // made once, not for each call
	_        [64]byte               // protocols do not share a cache line
}

// NewBulkheads makes a guard.
func NewBulkheads(b Bounds) *Bulkheads {
	g := new(Bulkheads)
	for i := range g.of {
		h := &g.of[i]
		h.leave = func(protocols.Result) { h.inFlight.Add(-1) }
	}
	g.Set(b)
	return g
}

// Set changes the bounds. Calls that are in flight stay.
func (g *Bulkheads) Set(b Bounds) {
	g.of[protocols.HTTP].most.Store(int64(b.HTTP))
	g.of[protocols.GRPC].most.Store(int64(b.GRPC))
	g.of[protocols.WebSocket].most.Store(int64(b.WebSocket))
}

// AdmitNow admits a call if its protocol has room for it.
func (g *Bulkheads) AdmitNow(ctx context.Context, call *protocols.Call) (context.Context, error) {
	h := &g.of[call.Protocol]
	for {
		n, most := h.inFlight.Load(), h.most.Load()
		if most > 0 && n >= most {
			h.refused.Add(1)
			return ctx, &protocols.Refusal{Reason: protocols.ReasonOverloaded, RetryAfter: retryOverloaded}
		}
		if h.inFlight.CompareAndSwap(n, n+1) {
			call.OnDone(h.leave)
			return ctx, nil
		}
	}
}

// Admit is AdmitNow: nothing waits.
func (g *Bulkheads) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	return g.AdmitNow(ctx, call)
}

// Stats gives a protocol's calls in flight, and how many were refused.
func (g *Bulkheads) Stats(p protocols.Protocol) (inFlight int, refused uint64) {
	return int(g.of[p].inFlight.Load()), g.of[p].refused.Load()
}
