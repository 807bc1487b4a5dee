package router

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
)

// Relief is what happens when the process has enough although new calls are refused: who is
// idle has to go, a few each second. HTTP/1 connections without a request are closed, HTTP/2
// connections without a stream get GOAWAY, WebSockets without a message 1013. Those that have been
// idle for longest go first. A second without overload ends it.
type Relief struct {
	// Overloaded says whether the process has enough: limit.Shed has it. It is asked each second. Nil
	// closes nobody.
	Overloaded func() bool
	// After is for how long it must have said so. Zero means 10 s.
	After time.Duration
	// Idle is how long a connection must have been without a call, a WebSocket without a
	// message. Zero means 10 s.
	Idle time.Duration
	// Share of the connections of each kind goes in a second, of those that are open, and at
	// least one. Zero means 0.01.
	Share float64
}

// Relieved counts what was closed because of overload.
type Relieved struct {
	HTTP1, HTTP2, WebSockets int64
	Episodes                 int64 // times that it began
}

// relieved is Relieved while it counts.
type relieved struct{ http1, http2, sockets, episodes atomic.Int64 }

func (r *relieved) stats() Relieved {
	return Relieved{r.http1.Load(), r.http2.Load(), r.sockets.Load(), r.episodes.Load()}
}

const (
	reliefEvery = time.Second
	reliefAfter = 10 * time.Second
	reliefIdle  = 10 * time.Second
	reliefShare = 0.01
)

// relieve runs until the drain begins.
func (p *port) relieve(ctx context.Context) {
	after := cmp.Or(p.Relief.After, reliefAfter)
	look := time.NewTicker(reliefEvery)
	defer look.Stop()
	var since time.Time // of the overload; zero without
	var before Relieved // when closing began
	closing := false
	for {
		select {
		case <-look.C:
		case <-p.draining:
			return
		case <-ctx.Done():
			return
		}
		switch over := p.Relief.Overloaded(); {
		case !over:
			if closing {
				is := p.relief.stats()
				p.Log.Info("no longer overloaded", "after", time.Since(since), "http1", is.HTTP1-before.HTTP1,
					"http2", is.HTTP2-before.HTTP2, "websockets", is.WebSockets-before.WebSockets)
			}
			since, closing = time.Time{}, false
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= after:
			if !closing {
				closing, before = true, p.relief.stats()
				p.relief.episodes.Add(1)
				p.Log.Warn("overloaded, and refusing calls was not enough: idle connections are closed", "since", since, "connections", p.conns.Len())
			}
			p.closeIdle()
		}
	}
}

// closeIdle closes a share of each kind.
func (p *port) closeIdle() {
	idle, share := cmp.Or(p.Relief.Idle, reliefIdle), cmp.Or(p.Relief.Share, reliefShare)
	of := func(all int) int { return max(0, min(all, int(math.Ceil(share*float64(all))))) }

	http1 := 0
	var unused []*conn.Conn
	for _, c := range p.conns.List() {
		if c.Facts().Kind != protocols.KindHTTP1 {
			continue
		}
		switch c.State() {
		case protocols.StateIdle:
			if time.Since(c.Since()) >= idle {
				unused = append(unused, c)
			}
			http1++
		case protocols.StateActive:
			http1++
		default: // upgraded: a WebSocket
		}
	}
	slices.SortFunc(unused, func(a, b *conn.Conn) int { return a.Since().Compare(b.Since()) })
	for _, c := range unused[:min(len(unused), of(http1))] {
		if c.State() == protocols.StateIdle { // a request that comes just now is lost as with any timeout of idle ones
			_ = c.CloseFor(conn.ReasonShed) // gone in any case
			p.relief.http1.Add(1)
		}
	}
	p.relief.http2.Add(int64(p.sw.CloseIdle(of(p.sw.Stats().Open), idle)))
	p.relief.sockets.Add(int64(p.sessions.CloseIdle(of(p.sessions.Stats().Open), idle, "overloaded")))
}
