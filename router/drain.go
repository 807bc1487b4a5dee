package router

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
)

const (
	drainTimeout = 30 * time.Second

	// lastCall is how long an HTTP/1 connection that has just answered may
	// still bring a request when the port closes: its client believes it open,
	// and closing it now would lose a request that is on the wire.
	lastCall = 500 * time.Millisecond
	// handshakeCall is the same for a connection that is being routed.
	handshakeCall = 2 * time.Second
	// lookEvery is how often those two are looked at.
	lookEvery = 5 * time.Millisecond
)

// drain ends the port: readiness, red phase, close, calls in flight,
// WebSockets, hard end. ctx has ended; only its values count.
func (p *port) drain(ctx context.Context) error {
	p.ready.Store(false)
	if p.health != nil {
		p.health.NotServing()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cmp.Or(p.Drain.Timeout, drainTimeout))
	defer cancel()
	p.running.Go(func() { // Close cuts a drain short
		select {
		case <-p.quit:
			cancel()
		case <-ctx.Done():
		}
	})
	start := time.Now()
	p.Log.Info("draining", "connections", p.conns.Len())

	if p.conns.Len() > 0 { // otherwise there is nobody to wait for
		pause(ctx, p.Drain.NotReady)
	}
	for _, m := range p.muxes {
		m.Close()
	}
	p.web.Drain(ctx)
	close(p.draining)

	var (
		ending sync.WaitGroup
		errWS  error
		errWeb error
	)
	ending.Go(func() { errWS = p.sessions.Drain(ctx, p.Drain.Spread) })
	ending.Go(func() { errWeb = p.drainWeb(ctx) })
	ending.Wait()
	errRest := p.drainRest(ctx)

	// Nothing serves any more: what is left was cut off or hijacked.
	p.sw.Close()
	_ = p.web.Close()
	_ = p.plain.Close()
	p.rpc.Stop()
	cut := p.conns.CloseAll(conn.ReasonDrained, nil)
	if err := cmp.Or(errWS, errWeb, errRest); err != nil {
		p.Log.Warn("drain cut short", "took", time.Since(start), "cut", cut, "err", err)
		return ErrDrainTimeout
	}
	p.Log.Info("drained", "took", time.Since(start))
	return nil
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// drainWeb ends HTTP and gRPC: last calls are taken, then net/http sends
// GOAWAY and waits for what is in flight.
func (p *port) drainWeb(ctx context.Context) error {
	for ctx.Err() == nil && p.conns.Any(expectsCall) {
		pause(ctx, lookEvery)
	}
	p.conns.CloseAll(conn.ReasonDrained, func(c *conn.Conn) bool {
		// net/http would wait 5 s for an HTTP/1 connection without a first request.
		return c.State().PreRoute() || c.State() == protocols.StateIdle && c.Facts().Kind == protocols.KindHTTP1
	})
	_ = p.queue.Close()
	_ = p.plains.Close()
	// The switch first: net/http is behind it.
	err := errors.Join(p.sw.Shutdown(ctx), p.web.Shutdown(ctx), p.plain.Shutdown(ctx))
	if err != nil {
		_ = p.web.Close() // cut off; streams end with their connection, UNAVAILABLE
	}
	return err
}

// expectsCall reports whether a connection may still bring a request that was
// sent before its client could know of the drain.
func expectsCall(c *conn.Conn) bool {
	waited := time.Since(c.Since())
	switch c.State() {
	case protocols.StateOpening:
		return waited < lastCall
	case protocols.StateHandshake:
		return waited < handshakeCall
	case protocols.StateIdle, protocols.StateActive: // the answer may have promised to keep it
		return waited < lastCall && c.Facts().Kind == protocols.KindHTTP1
	default:
		return false
	}
}

// drainRest waits for connections that nobody here serves: tunnels, and what
// handlers have hijacked.
func (p *port) drainRest(ctx context.Context) error {
	select {
	case <-p.conns.Empty():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
