package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
)

// Options are what an Upstream may be told. The zero value is a working default.
type Options struct {
	// Name is what the log calls it; "" for its first URL.
	Name string
	// TLS is the client side's configuration for https and grpcs: roots, a
	// client certificate, a server name. Nil trusts the system's roots.
	TLS *tls.Config
	// Streams bounds the HTTP/2 connections of each server and what waits for one.
	Streams h2.UpstreamLimits
	// Connect is how long it may take to connect, to the end of the TLS handshake and
	// for HTTP/2 the server's SETTINGS. Zero means 3 s.
	Connect time.Duration
	// Requests bounds the calls in flight at each server; more are refused with
	// 503, or UNAVAILABLE, when all servers are full. Zero means no bound.
	Requests int
	// Balance is how a server is chosen, HashBy what Hash hashes.
	Balance Balance
	HashBy  HashKey
	// SlowStart is how long a server that comes, or comes back, gets less than its
	// share of the calls: from a tenth at first, growing evenly. Zero means not at all.
	SlowStart time.Duration
	Health    Health
	Eject     Eject
	Retries   Retries
	Breaker   Breaker
	// Resolve is how often names are looked up. Each address that a name has is
	// a server. Zero means 10 s; a negative value leaves names to each dialing.
	Resolve time.Duration
	// ProxyHeader begins each connection with a PROXY header, version 2, that says who
	// the client is. A connection then is one client's: it serves a WebSocket, or
	// one request. Not for servers that speak HTTP/2, whose connections are shared.
	ProxyHeader bool
	// Log receives what goes wrong. Nil means slog.Default.
	Log *slog.Logger

	lookup lookup // tests have their own
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.Connect = cmp.Or(o.Connect, 3*time.Second)
	o.Streams.Connect = cmp.Or(o.Streams.Connect, o.Connect)
	o.Resolve = cmp.Or(o.Resolve, 10*time.Second)
	o.Health.Every = cmp.Or(o.Health.Every, 5*time.Second)
	o.Health.Timeout = cmp.Or(o.Health.Timeout, min(2*time.Second, o.Health.Every))
	o.Health.Unhealthy = cmp.Or(o.Health.Unhealthy, 3)
	o.Health.Healthy = cmp.Or(o.Health.Healthy, 2)
	o.Eject.Failures = cmp.Or(o.Eject.Failures, 5)
	o.Eject.For = cmp.Or(o.Eject.For, 10*time.Second)
	o.Retries.Most = max(0, cmp.Or(o.Retries.Most, 2))
	o.Retries.Budget = cmp.Or(o.Retries.Budget, 0.2)
	o.Retries.Backoff = cmp.Or(o.Retries.Backoff, 25*time.Millisecond)
	o.Breaker.Calls = cmp.Or(o.Breaker.Calls, 20)
	o.Breaker.Window = cmp.Or(o.Breaker.Window, 10*time.Second)
	o.Breaker.Open = cmp.Or(o.Breaker.Open, 5*time.Second)
	if o.lookup == nil {
		o.lookup = net.DefaultResolver.LookupNetIP
	}
	return o
}

// Upstream is one or more servers elsewhere that do the same. It is safe for
// concurrent use.
type Upstream struct {
	name    string
	opts    Options
	targets []target    // as they were given
	h2      bool        // they speak HTTP/2 alone
	handler *h2.Handler // of streams, if they do not
	budget  *budget
	breaker breaker
	turn    atomic.Uint64
	copies  atomic.Int64        // of requests, that are sent
	set     atomic.Pointer[set] // replaced under mu
	ctx     context.Context     //nolint:containedctx // it ends with Close
	cancel  context.CancelFunc
	work    sync.WaitGroup // health checks, names

	mu      sync.Mutex // guards all below, and parts of the servers
	servers []*server
	removed []*server // that still have calls
	closed  bool
	// ejections counts servers that were left out.
	ejections int64
}

// New returns the upstream of a server's URL. Its scheme says what the server speaks:
//
//	http, https     HTTP/1.1
//	h2c, grpc       HTTP/2 in plaintext, with prior knowledge
//	grpcs           HTTP/2 with TLS
//
// With "+unix" behind it the rest is the path of a socket: grpc+unix:///run/app.sock.
// No call is made before one is asked for, but health checks and names begin at once.
func New(url string, opts Options) (*Upstream, error) { return NewPool([]string{url}, opts) }

// NewPool returns the upstream of several servers. Either all or none of them
// speak HTTP/2 alone.
func NewPool(urls []string, opts Options) (*Upstream, error) {
	if len(urls) == 0 {
		return nil, errors.New("upstream: no server")
	}
	u := &Upstream{name: cmp.Or(opts.Name, urls[0]), opts: opts.withDefaults()}
	for _, raw := range urls {
		at, err := parse(raw)
		at.timeout = u.opts.Connect
		if err != nil {
			return nil, fmt.Errorf("upstream %q: %w", raw, err)
		}
		if u.h2 = at.http2(); len(u.targets) > 0 && u.targets[0].http2() != u.h2 {
			return nil, fmt.Errorf("upstream %q: some of its servers speak HTTP/1.1, and others HTTP/2 alone", u.name)
		}
		if slices.ContainsFunc(u.targets, func(t target) bool { return t.url == raw }) {
			return nil, fmt.Errorf("upstream %q: given twice", raw)
		}
		u.targets = append(u.targets, at)
	}
	if u.opts.ProxyHeader && u.h2 {
		return nil, fmt.Errorf("upstream %q: a PROXY header names one client, and connections of HTTP/2 are shared", u.name)
	}
	if u.opts.Breaker.Share > 1 {
		return nil, fmt.Errorf("upstream %q: the breaker's share is over 1", u.name)
	}
	u.ctx, u.cancel = context.WithCancel(context.Background())
	u.budget = newBudget(u.opts.Retries.Budget)
	u.breaker.Breaker = u.opts.Breaker
	u.breaker.changed = func(open bool) {
		u.opts.Log.Warn("circuit breaker", "upstream", u.name, "open", open)
	}
	u.handler = h2.NewHandler(nil)
	u.mu.Lock()
	defer u.mu.Unlock()
	names := false
	for _, at := range u.targets {
		u.addLocked(u.newServer(at, at.url))
		names = names || at.isName()
	}
	u.renewLocked(time.Now())
	if names && u.opts.Resolve > 0 {
		u.work.Go(func() { u.resolve(u.ctx, u.opts.lookup) })
	}
	return u, nil
}

// Relay is how streams go to its servers, for a route that adds what it wants
// else. Only for one that speaks HTTP/2.
func (u *Upstream) Relay() h2.Relay {
	trailer := func(name string, call *protocols.Call) bool { return !claims(name, call.Handed()) }
	return h2.Relay{Pick: u.pickStream, Trailer: trailer, Retries: u.opts.Retries.Most, Backoff: u.opts.Retries.Backoff}
}

// pickStream chooses a server for a stream.
func (u *Upstream) pickStream(r *h2.Request, call *protocols.Call, tried []h2.Member) h2.Member {
	a := asking{call: call, get: r.Get}
	if call != nil {
		a.span = call.Span()
	}
	var s *server
	switch {
	case len(tried) == 0:
		u.budget.call()
		s = u.choose(&a, nil)
	case u.budget.spend():
		s = u.choose(&a, func(s *server) bool { return slices.Contains(tried, h2.Member(s)) })
	}
	if s == nil {
		return nil
	}
	return s
}

// String is the name it was given, or its URL.
func (u *Upstream) String() string { return u.name }

// HTTP2 reports whether its servers speak HTTP/2 alone: gRPC calls go there, and
// no WebSockets.
func (u *Upstream) HTTP2() bool { return u.h2 }

// Stats are counts of its connections, but for WebSockets, and of what is in
// flight on them.
func (u *Upstream) Stats() (st h2.UpstreamStats) {
	u.mu.Lock()
	servers := slices.Concat(u.servers, u.removed)
	u.mu.Unlock()
	for _, s := range servers {
		var one h2.UpstreamStats
		if s.client != nil {
			c := s.client.Stats()
			one = h2.UpstreamStats{Conns: c.Open, Streams: c.Active, Waiting: c.Waiting, Failed: c.Failed}
		} else {
			one = s.streams.Stats()
		}
		st.Conns += one.Conns
		st.Streams += one.Streams
		st.Waiting += one.Waiting
		st.Failed += one.Failed
	}
	return st
}

// Tries are counts of what an upstream did about calls and servers that failed.
type Tries struct {
	// Retries is how often a call was tried again, Denied how often it would have been, had
	// there been some of Retries.Budget left.
	Retries, Denied int64
	// Ejections is how often a server was left out for errors.
	Ejections int64
	// Open says that the circuit breaker lets no call through now.
	Open bool
}

// Tries returns the counts.
func (u *Upstream) Tries() Tries {
	t := Tries{Retries: u.budget.spent.Load(), Denied: u.budget.denied.Load(), Open: u.breaker.isOpen()}
	u.mu.Lock()
	t.Ejections = u.ejections
	u.mu.Unlock()
	return t
}

// ServerStats is what is known of one server at one moment.
type ServerStats struct {
	// Name is its URL, with the address if that was looked up.
	Name string
	// Active are the calls in flight, Calls those that have ended, and Faults
	// those of them that the server did wrong.
	Active, Calls, Faults int64
	// Sick is what the health check says, Ejected that it is left out for
	// errors.
	Sick, Ejected bool
}

// Servers returns what is known of its servers.
func (u *Upstream) Servers() (list []ServerStats) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	for _, s := range u.servers {
		list = append(list, ServerStats{
			Name: s.name, Active: s.active.Load(), Calls: s.calls.Load(), Faults: s.faults.Load(),
			Sick: s.sick, Ejected: now.Before(s.ejected),
		})
	}
	return list
}

// InFlight is how many calls its servers have, WebSockets among them.
func (u *Upstream) InFlight() (n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range slices.Concat(u.servers, u.removed) {
		n += s.active.Load()
	}
	return n
}

// Close cuts its connections off, once nobody sends it anything any more.
func (u *Upstream) Close() {
	u.cancel()
	u.mu.Lock()
	u.closed = true
	servers := slices.Concat(u.servers, u.removed)
	u.mu.Unlock()
	u.work.Wait()
	for _, s := range servers {
		s.close()
	}
	u.handler.Close()
}

// DialHTTP1 opens a connection of its own on which HTTP/1.1 is spoken, for what
// takes one over: the WebSocket that a handshake asks for. Where a server cannot be
// reached it tries another.
func (u *Upstream) DialHTTP1(ctx context.Context, handshake *http.Request) (nc net.Conn, err error) {
	call := protocols.CallFrom(ctx)
	a := asking{call, handshake.Header.Get, spanOf(ctx, call)}
	err = errNoServer
	u.attempt(ctx, &a, func(s *server) (again bool) {
		if nc, err = s.dialHTTP1(ctx); err == nil {
			nc = &tracked{Conn: nc, server: s}
			return false
		}
		if ctx.Err() != nil {
			s.ended(unknown)
			return false
		}
		s.ended(bad)
		return true
	})
	return nc, err
}

// attempt has a call made at a server, and at another one as long as it says so, there
// is one, and retries are left. A server that call is given has it in flight: call
// must see to its end.
func (u *Upstream) attempt(ctx context.Context, a *asking, call func(*server) (again bool)) {
	u.budget.call()
	var tried []*server
	for {
		s := u.choose(a, func(s *server) bool { return slices.Contains(tried, s) })
		if s == nil || !call(s) || len(tried) >= u.opts.Retries.Most || !u.budget.spend() {
			return
		}
		if tried = append(tried, s); !u.pause(ctx, len(tried)) {
			return
		}
	}
}

var errNoServer = errors.New("no server is available")
