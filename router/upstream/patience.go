package upstream

import (
	"context"
	"errors"
	"net/http/httptrace"
	"sync"
	"time"
)

var (
	// errSlow ends a request whose answer does not begin in time.
	errSlow = errors.New("upstream: no answer in time")
	// errVain ends one for which too many connections were opened.
	errVain = errors.New("upstream: the server takes connections and no request")
)

// mostDials is how many connections may be opened for a request. To a server of
// HTTP/2 that says GOAWAY first thing net/http opens one after the other, as fast as it
// can, for as long as the client waits (Go 1.26.8, seen 2026-11-26).
const mostDials = 8

// patience is how long a request that has been sent waits for the head of its
// answer, and how much is tried for it. Of net/http's own there is one for all
// requests of a transport.
type patience struct {
	most time.Duration
	stop context.CancelCauseFunc

	mu    sync.Mutex  // guards all below
	timer *time.Timer // runs since all of the request was sent
	over  bool        // the answer has begun, or never will
	dials int
}

// wait gives the context for a request. end must be called.
func wait(ctx context.Context, most time.Duration) (context.Context, *patience) {
	p := &patience{most: most}
	ctx, p.stop = context.WithCancelCause(ctx)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: p.sent, ConnectStart: p.dial}), p
}

// dial is called for each connection that is opened, each address of a name's.
func (p *patience) dial(string, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dials++; p.dials > mostDials {
		p.stop(errVain)
	}
}

// sent is called by the transport: again when it tries again.
func (p *patience) sent(httptrace.WroteRequestInfo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.over:
	case p.timer != nil:
		p.timer.Reset(p.most)
	default:
		p.timer = time.AfterFunc(p.most, func() { p.stop(errSlow) })
	}
}

// answered takes note that the answer has begun.
func (p *patience) answered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	if p.timer != nil {
		p.timer.Stop()
	}
}

func (p *patience) end() {
	p.answered()
	p.stop(nil)
}
