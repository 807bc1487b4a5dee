package edge

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
	"github.com/oneport-edge/oneport/protocols/mux"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/accesslog"
	"github.com/oneport-edge/oneport/router/auth"
	"github.com/oneport-edge/oneport/router/broadcast"
	"github.com/oneport-edge/oneport/router/config"
	"github.com/oneport-edge/oneport/router/limit"
	"github.com/oneport-edge/oneport/router/tracing"
	"github.com/oneport-edge/oneport/router/upstream"
)

// Edge is what "oneport serve" runs: a server whose routes come from a file,
// and may be replaced by those of another.
type Edge struct {
	Server *router.Server
	// Sockets are the names of systemd's sockets for the server's listeners; see Adopt.
	Sockets []string
	// Calls are those that are open, all of them if the file has admin: then they are among the
	// server's guards.
	Calls *protocols.Calls
	log   *slog.Logger
	seen  atomic.Pointer[view]
	loads atomic.Pointer[Loads] // replaced under mu

	begun *config.Config // what it was started with: what is in effect but for the routes
	stop  chan struct{}  // closed by Close
	work  sync.WaitGroup // bury, and what doors run

	hub atomic.Pointer[broadcast.Hub] // in effect; nil if the file has none
	// Publishers serves those of the broadcast, beside Server; nil if there are none.
	Publishers *router.Server

	lines     *accesslog.Log    // nil unless LogTo was called
	linesFile *accesslog.File   // nil without one
	exporter  *tracing.Exporter // nil if the file has no telemetry

	limits  limit.Registry
	tickets *auth.Tickets
	open    *auth.Sessions

	mu    sync.Mutex                    // guards all below
	pools map[string]*upstream.Upstream // by poolKey
	old   []retired
	doors map[string]*door
	shut  []shut
	last  *config.Config // whose routes are in effect
}

// Loads counts how often a file was loaded, the start included.
type Loads struct {
	Good, Failed int
	// At is when the last one was, and Err why it failed; nil if it did not.
	At  time.Time
	Err error
}

// retired is an upstream that no route leads to any more.
type retired struct {
	*upstream.Upstream
	since time.Time
}

// Serve makes an edge of a file, or says what keeps it from that. Nothing is
// listened to yet.
func Serve(cfg *config.Config, log, access *slog.Logger) (*Edge, error) {
	if err := errors.Join(checkTLS(cfg), checkTelemetry(cfg)); err != nil {
		return nil, err
	}
	e := &Edge{
		Calls: protocols.NewCalls(), log: log, begun: cfg, last: cfg,
		pools: map[string]*upstream.Upstream{}, stop: make(chan struct{}), tickets: auth.NewTickets(auth.TicketsOptions{}),
		open: auth.NewSessions(),
	}
	e.loads.Store(&Loads{Good: 1, At: time.Now()})
	pools, routes, d, err := e.build(cfg)
	if err != nil {
		e.work.Wait() // for what doors have run that are dropped
		return nil, err
	}
	e.pools, e.doors = pools, d.all
	e.open.SetCheckers(d.check...)
	e.show(cfg)
	guards, relief := e.everywhere(cfg)
	if cfg.Admin != nil {
		guards = append(guards, e.Calls) // behind those that refuse the most
	}
	e.Server = &router.Server{
		Guards:      guards,
		Calls:       e.Calls,
		Relief:      relief,
		Certs:       source(cfg),
		Routes:      routes,
		Passthrough: passthrough(cfg),
		AnyHost:     cfg.TLS.AnyHost,
		Limits:      router.Limits{Connections: conn.Bounds{Total: cfg.Limits.Connections}},
		Drain:       router.Drain{Timeout: cfg.Drain.Timeout, NotReady: cfg.Drain.NotReady, Spread: cfg.Drain.Spread},
		Log:         log,
		Access:      access,
	}
	if e.Server.Certs != nil && cfg.TLS.ClientCA != "" {
		e.Server.ClientAuth = certs.ClientAuth{CAs: certs.CAFile(cfg.TLS.ClientCA), Required: cfg.TLS.ClientAuth == "required"}
	}
	if cfg.Admin != nil {
		e.Server.Meter = new(protocols.Meter)
	}
	for _, l := range cfg.Listen {
		e.Server.Listeners = append(e.Server.Listeners, router.Listener{Addr: l.Address, Plaintext: l.Plaintext, ProxyProtocol: l.ProxyProtocol})
		e.Sockets = append(e.Sockets, l.Socket)
	}
	if err := e.trace(cfg); err != nil { // not reached: it has been checked
		return nil, err
	}
	e.Publishers = e.publishers(cfg)
	e.hub.Store(d.hub)
	e.work.Go(e.bury)
	e.work.Go(e.drainHub)
	return e, nil
}

func passthrough(cfg *config.Config) (list []mux.Passthrough) {
	for i := range cfg.Routes {
		if r := &cfg.Routes[i]; r.Passthrough != "" {
			list = append(list, ruleOf(r))
		}
	}
	return list
}

// ruleOf is a route of connections, for the server.
func ruleOf(r *config.Route) mux.Passthrough {
	return mux.Passthrough{SNI: r.SNI, ALPN: r.ALPN, To: r.Passthrough, ProxyHeader: r.ProxyHeader}
}

// reach makes an upstream of the file.
func (e *Edge) reach(cfg *config.Config, u *config.Upstream) (*upstream.Upstream, error) {
	at := func(pos config.Pos, key string, err error) error {
		return fmt.Errorf("%s:%d:%d: upstreams.%s%s: %w", cfg.File, pos.Line, pos.Col, u.Name, key, err)
	}
	opts := u.Options
	opts.Name, opts.Log = u.Name, e.log
	var err error
	if opts.TLS, err = certs.Client(certs.ClientOptions{CAFile: u.TLS.CA, CertFile: u.TLS.Cert, KeyFile: u.TLS.Key, ServerName: u.TLS.ServerName}); err != nil {
		return nil, at(u.TLS.Pos, ".tls", err)
	}
	up, err := upstream.NewPool(u.Servers, opts)
	if err != nil {
		return nil, at(u.Pos, "", err)
	}
	return up, nil
}

// build makes a file's upstreams and routes. Upstreams that e has already are
// used again, with their connections.
func (e *Edge) build(cfg *config.Config) (pools map[string]*upstream.Upstream, routes []router.Route, d *doors, err error) {
	d, byGuard, limits := e.openDoors(cfg)
	errs := d.errs
	d.errs = nil
	pools = map[string]*upstream.Upstream{}
	byName := map[string]*upstream.Upstream{}
	var made []*upstream.Upstream
	for i := range cfg.Upstreams {
		u := &cfg.Upstreams[i]
		key := poolKey(u)
		up := e.pools[key]
		if up == nil {
			if up, err = e.reach(cfg, u); err != nil {
				errs = append(errs, err)
				continue
			}
			made = append(made, up)
		}
		pools[key], byName[u.Name] = up, up
	}
	if d.openHub(); len(d.errs) > 0 {
		errs = slices.Concat(errs, d.errs)
	}
	for i := range cfg.Routes {
		if r := &cfg.Routes[i]; r.Passthrough == "" {
			route := routeOf(r, byName)
			route.Guards = e.guardsOf(r, byGuard, limits)
			e.answers(&route, r, d)
			if len(errs) == 0 { // otherwise its upstream is what is wrong
				if err := route.Validate(); err != nil {
					errs = append(errs, fmt.Errorf("%s:%d:%d: %w", cfg.File, r.Pos.Line, r.Pos.Col, err))
				}
			}
			routes = append(routes, route)
		}
	}
	if len(errs) == 0 {
		errs = append(errs, e.take(limits))
	}
	if err := errors.Join(errs...); err != nil {
		for _, up := range made {
			up.Close()
		}
		d.drop()
		return nil, nil, nil, err
	}
	return pools, routes, d, nil
}

// answers has a route answered by the port itself, if the file says so.
func (e *Edge) answers(route *router.Route, r *config.Route, d *doors) {
	switch {
	case r.Tickets:
		route.Handler = e.tickets
	case r.Refresh:
		route.Handler = e.open
	case r.Broadcast && d.hub != nil:
		answer(route, d.hub, d.cfg.Broadcast)
	}
}

// routeOf makes a route of the file's.
func routeOf(r *config.Route, pools map[string]*upstream.Upstream) router.Route {
	route := router.Route{
		Name: r.Name, GRPC: r.GRPC, Path: r.Path, WebSocket: r.WebSocket, Hosts: r.Hosts, Methods: r.Methods,
		Headers: r.Headers, To: pools[r.To], Redirect: r.Redirect, RedirectStatus: r.RedirectStatus,
		Mirror: pools[r.Mirror], Rewrite: r.Rewrite, RewriteHost: r.RewriteHost, EncodedSlash: r.EncodedSlash,
		Request: router.Edits(r.Request), Response: router.Edits(r.Response), AnswerTimeout: r.AnswerTimeout, CallTimeout: r.CallTimeout, MaxBody: r.MaxBody,
	}
	for _, s := range r.Split {
		route.Split = append(route.Split, router.Share{To: pools[s.To], Weight: s.Weight})
	}
	if f := r.Fallback; f != nil {
		route.Fallback = &router.Fallback{To: pools[f.To], Status: f.Status, Headers: f.Headers, Body: f.Body}
	}
	if t := r.Tunnel; t != nil {
		route.Tunnel = relayOf(t)
	}
	if c := r.CORS; c != nil {
		route.CORS = new(router.CORS(*c))
	}
	return route
}

// Check says what keeps an edge from being made of a file that could be read:
// certificates that cannot be loaded, routes that cannot be.
func Check(cfg *config.Config) error {
	e := &Edge{log: slog.New(slog.DiscardHandler), tickets: auth.NewTickets(auth.TicketsOptions{}), open: auth.NewSessions()}
	pools, _, d, err := e.build(cfg)
	for _, up := range pools {
		up.Close()
	}
	if d != nil {
		d.drop()
	}
	return errors.Join(err, checkTLS(cfg), checkAdmin(cfg), checkTelemetry(cfg))
}

// Reload replaces the routes by those of another file. Calls in flight go on as
// they began; upstreams that did not change keep their connections. With an error
// nothing has changed. The plan says what is not as it was before; its Restart, what
// differs from the file that the edge was started with and cannot change while the
// port is open.
func (e *Edge) Reload(cfg *config.Config) (Plan, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fresh, err := e.replace(cfg)
	if err != nil {
		e.loaded(err)
		return Plan{}, err
	}
	e.loaded(nil)
	plan := Compare(e.last, cfg)
	for _, kind := range fresh { // also those whose files of keys alone have changed
		if !slices.Contains(plan.Guards, kind) {
			plan.Guards = append(plan.Guards, kind)
		}
	}
	plan.Restart = needRestart(e.begun, cfg)
	e.last = cfg
	e.show(cfg)
	return plan, nil
}

// Plan says what Reload would change, or what keeps it from that.
func (e *Edge) Plan(cfg *config.Config) (Plan, error) {
	if err := Check(cfg); err != nil {
		return Plan{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	plan := Compare(e.last, cfg)
	plan.Restart = needRestart(e.begun, cfg)
	return plan, nil
}

// Sessions knows who has gRPC calls and WebSockets open, on all routes that ask who calls, and
// revokes. A reload keeps what it knows.
func (e *Edge) Sessions() *auth.Sessions { return e.open }

// LoadFailed counts a file that could not even be read.
func (e *Edge) LoadFailed(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.loaded(err)
}

// Loads says how loading files went.
func (e *Edge) Loads() Loads { return *e.loads.Load() }

func (e *Edge) loaded(err error) {
	l := *e.loads.Load()
	if err == nil {
		l.Good++
	} else {
		l.Failed++
	}
	l.At, l.Err = time.Now(), err
	e.loads.Store(&l)
}

// replace puts the routes of a file in effect. fresh are the kinds of guards that were made anew.
func (e *Edge) replace(cfg *config.Config) (fresh []string, err error) {
	if err := checkTLS(cfg); err != nil {
		return nil, err
	}
	pools, routes, d, err := e.build(cfg)
	if err != nil {
		return nil, err
	}
	if err := e.Server.SetRoutes(routes); err != nil {
		d.drop()
		for key, up := range pools {
			if e.pools[key] == nil {
				up.Close()
			}
		}
		return nil, err
	}
	for key, up := range e.pools {
		if pools[key] == nil {
			e.old = append(e.old, retired{up, time.Now()})
		}
	}
	e.pools = pools
	for _, f := range d.then {
		f()
	}
	e.open.SetCheckers(d.check...)
	e.hub.Store(d.hub)
	e.retire(d.all)
	return d.kinds, nil
}

// buryAfter is how long an upstream stays open at least that no route leads to
// any more: a call that has its route may not have got there yet.
const buryAfter = 10 * time.Second

// bury closes such upstreams once nothing is in flight there.
func (e *Edge) bury() {
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-e.stop:
			return
		}
		e.mu.Lock()
		e.old = slices.DeleteFunc(e.old, func(r retired) bool {
			if r.InFlight() > 0 || time.Since(r.since) < buryAfter {
				return false
			}
			r.Close()
			return true
		})
		e.shutDoors()
		e.mu.Unlock()
	}
}

// Close closes the connections to all upstreams, once the server has ended.
func (e *Edge) Close() {
	close(e.stop)
	defer e.endTelemetry()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.retire(nil)
	for _, s := range e.shut {
		s.close()
	}
	e.mu.Unlock()
	e.work.Wait()
	e.mu.Lock()
	for _, up := range e.pools {
		up.Close()
	}
	for _, up := range e.old {
		up.Close()
	}
}
