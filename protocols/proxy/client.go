package proxy

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// Config is what a Client needs. Every zero value but Dial's is a default.
type Config struct {
	// Name is what the log calls the server.
	Name string
	// Dial opens a connection on which HTTP/1.1 is to be spoken: in plaintext, or
	// a *tls.Conn whose handshake is done. It bounds its own time. Required.
	Dial func(context.Context) (net.Conn, error)
	// Host is the Host of requests that come without one. "" means "localhost".
	Host string
	// Prepare may change the head of a request before it is sent. It must not wait.
	Prepare func(context.Context, *protocols.Head)
	// Trailer reports whether a trailer of a request is sent. Nil sends all but those of
	// framing. It must not wait.
	Trailer func(ctx context.Context, name string) bool

	// Conns bounds the connections. Zero means 10,000.
	Conns int
	// Waiting is how many requests may wait for one of them, and Wait how long.
	// Zero means 1,024, and 5 s: those that wait in vain get a Busy error.
	Waiting int
	Wait    time.Duration
	// IdleConns is how many connections without a request are kept, and Idle
	// how long. Zero means 256, and 60 s; a negative number keeps none.
	IdleConns int
	Idle      time.Duration
	// Answer is how long the server may take to the head of its answer, once it has the
	// request. Zero means 60 s.
	Answer time.Duration
	// AnswerIdle is how long the body of an answer may stand still. Zero means
	// without a bound: server-sent events rest.
	AnswerIdle time.Duration
	// SendIdle is how long the server may take nothing of what is sent to it.
	// Zero means 30 s.
	SendIdle time.Duration
	// Continue is how long a body is held back that its client holds back too
	// (Expect: 100-continue), if the server says nothing. Zero means 1 s.
	Continue time.Duration
	// HeaderBytes and HeaderFields bound the heads of answers, and their
	// trailers. Zero means 64 KiB and 500.
	HeaderBytes, HeaderFields int
	// Log receives what the server does wrong, at Debug: the caller has it as an
	// error, too. Nil discards.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Host = cmp.Or(c.Host, "localhost")
	c.Conns = cmp.Or(c.Conns, 10_000)
	c.Waiting = cmp.Or(c.Waiting, 1024)
	c.Wait = cmp.Or(c.Wait, 5*time.Second)
	c.IdleConns = cmp.Or(c.IdleConns, 256)
	c.Idle = cmp.Or(c.Idle, 60*time.Second)
	c.Answer = cmp.Or(c.Answer, 60*time.Second)
	c.SendIdle = cmp.Or(c.SendIdle, 30*time.Second)
	c.Continue = cmp.Or(c.Continue, time.Second)
	c.HeaderBytes = cmp.Or(c.HeaderBytes, 64<<10)
	c.HeaderFields = cmp.Or(c.HeaderFields, 500)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Client has the connections to one server. It is safe for concurrent use.
type Client struct {
	Config

	mu      sync.Mutex // guards all below, and the links of each connection
	idle    []*conn    // the one used last comes last, and is used next
	busy    *conn      // and those behind it have a request
	open    int        // connections, with those that are being opened
	active  int        // requests that have one
	waiting []*waiter  // for one, in turn
	failed  int64      // connections that could not be opened, or broke
	looks   int64      // of the sweeper
	timer   *time.Timer
	tick    time.Duration

	sweeping, closed bool
}

// waiter is a request that waits for a connection.
type waiter struct {
	turn chan *conn // nil: it may open one; closed: the client is
}

// New returns a client. Nothing is dialed yet.
func New(cfg Config) *Client {
	c := &Client{Config: cfg.withDefaults()}
	c.tick = c.looksEvery()
	return c
}

// Stats are counts at one moment.
type Stats struct {
	// Open and Idle are connections, Active requests that have one, Waiting
	// those that wait for one.
	Open, Idle, Active, Waiting int
	// Failed counts connections that could not be opened, or broke.
	Failed int64
}

// Stats returns the counts.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{Open: c.open, Idle: len(c.idle), Active: c.active, Waiting: len(c.waiting), Failed: c.failed}
}

// Close closes all connections. Requests in flight are cut off, later ones get ErrClosed.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	idle := c.idle
	c.open -= len(idle)
	c.idle = nil
	for cn := c.busy; cn != nil; cn = cn.next {
		cn.endLocked(endClosed)
	}
	for _, w := range c.waiting {
		close(w.turn)
	}
	c.waiting = nil
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	for _, cn := range idle {
		cn.close()
	}
}

// get returns a connection: a new one if fresh is set, or if none is idle.
func (c *Client) get(ctx context.Context, fresh bool) (*conn, error) {
	c.mu.Lock()
	for !c.closed && !fresh && len(c.idle) > 0 {
		n := len(c.idle) - 1
		cn := c.idle[n]
		c.idle[n], c.idle = nil, c.idle[:n]
		c.takeLocked(ctx, cn)
		c.mu.Unlock()
		if !cn.peeker.dead() {
			return cn, nil
		}
		c.drop(cn)
		c.mu.Lock()
	}
	if c.open >= c.Conns && len(c.idle) > 0 { // the oldest makes room for a fresh one
		old := c.idle[0]
		c.idle = slices.Delete(c.idle, 0, 1)
		c.open--
		defer old.close()
	}
	switch {
	case c.closed:
		c.mu.Unlock()
		return nil, ErrClosed
	case c.open < c.Conns:
		c.open++
		c.mu.Unlock()
		return c.dial(ctx)
	case len(c.waiting) >= c.Waiting:
		c.mu.Unlock()
		return nil, errBusy
	}
	w := &waiter{turn: make(chan *conn, 1)}
	c.waiting = append(c.waiting, w)
	c.mu.Unlock()
	return c.wait(ctx, w)
}

// wait waits for a connection of another request.
func (c *Client) wait(ctx context.Context, w *waiter) (*conn, error) {
	timer := time.NewTimer(c.Wait)
	defer timer.Stop()
	err := errBusy
	select {
	case cn, ok := <-w.turn:
		return c.turn(ctx, cn, ok)
	case <-timer.C:
	case <-ctx.Done():
		err = errLeft
	}
	c.mu.Lock()
	if i := slices.Index(c.waiting, w); i >= 0 {
		c.waiting = slices.Delete(c.waiting, i, i+1)
		c.mu.Unlock()
		return nil, err
	}
	c.mu.Unlock()
	cn, ok := <-w.turn // it has come just now
	if ok && ctx.Err() != nil {
		c.pass(cn)
		return nil, err
	}
	return c.turn(ctx, cn, ok)
}

// turn takes what a waiter was given.
func (c *Client) turn(ctx context.Context, cn *conn, ok bool) (*conn, error) {
	switch {
	case !ok:
		return nil, ErrClosed
	case cn == nil:
		return c.dial(ctx)
	case cn.peeker.dead():
		c.drop(cn)
		return c.get(ctx, true)
	}
	c.mu.Lock()
	cn.ctx = ctx
	c.mu.Unlock()
	return cn, nil
}

// pass gives away what a waiter was given and does not want any more.
func (c *Client) pass(cn *conn) {
	if cn != nil {
		c.put(cn, true)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.freeLocked()
}

// dial opens a connection, which counts already.
func (c *Client) dial(ctx context.Context) (*conn, error) {
	nc, err := c.Dial(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		c.freeLocked()
		if ctx.Err() != nil {
			return nil, errLeft
		}
		c.failed++
		return nil, err
	case c.closed:
		c.open--
		_ = nc.Close()
		return nil, ErrClosed
	}
	cn := newConn(nc)
	c.takeLocked(ctx, cn)
	return cn, nil
}

// takeLocked puts a connection among those that have a request.
func (c *Client) takeLocked(ctx context.Context, cn *conn) {
	cn.ctx, cn.quiet = ctx, 0
	if cn.next = c.busy; cn.next != nil {
		cn.next.prev = cn
	}
	c.busy = cn
	c.active++
	c.sweepLocked()
}

// leaveLocked takes it out.
func (c *Client) leaveLocked(cn *conn) {
	if cn.next != nil {
		cn.next.prev = cn.prev
	}
	if cn.prev != nil {
		cn.prev.next = cn.next
	} else {
		c.busy = cn.next
	}
	cn.prev, cn.next, cn.ctx = nil, nil, nil
	c.active--
}

// put takes a connection back whose request has been answered: with keep it may
// have another.
func (c *Client) put(cn *conn, keep bool) {
	cn.used = true
	c.mu.Lock()
	keep = keep && !c.closed && cn.end.Load() == endNone
	if keep && len(c.waiting) > 0 {
		w := c.waiting[0]
		c.waiting = slices.Delete(c.waiting, 0, 1)
		cn.ctx = context.WithoutCancel(cn.ctx) // until the other has it
		c.mu.Unlock()
		w.turn <- cn // has room
		return
	}
	c.leaveLocked(cn)
	if keep && len(c.idle) < c.IdleConns {
		cn.since = c.looks
		c.idle = append(c.idle, cn)
		c.mu.Unlock()
		return
	}
	c.freeLocked()
	c.mu.Unlock()
	cn.close()
}

// drop closes a connection that is of no use.
func (c *Client) drop(cn *conn) { c.put(cn, false) }

// leave ends a request whose client has left, if it still is the connection's.
func (c *Client) leave(ctx context.Context, cn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cn.ctx == ctx {
		cn.endLocked(endLeft)
	}
}

// stop ends what a request still does on its connection.
func (c *Client) stop(cn *conn, why uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cn.endLocked(why)
}

// freeLocked takes note of a connection that is no more: who waits may open one.
func (c *Client) freeLocked() {
	if len(c.waiting) == 0 {
		c.open--
		return
	}
	w := c.waiting[0]
	c.waiting = slices.Delete(c.waiting, 0, 1)
	w.turn <- nil // has room
}
