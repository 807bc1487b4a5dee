package edge

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/protocols/conn"
	"github.com/oneport-edge/oneport/protocols/mux"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/config"
	"github.com/oneport-edge/oneport/router/upstream"
)

// Edge is what "oneport serve" runs: a server whose routes come from a file,
// and may be replaced by those of another.
type Edge struct {
	Server *router.Server
	log    *slog.Logger

	mu    sync.Mutex // guards all below
	cfg   *config.Config
	pools map[string]*upstream.Upstream // by poolKey
	old   []*upstream.Upstream          // no route leads to them; closed when nothing is in flight
	stop  chan struct{}                 // closed by Close
	work  sync.WaitGroup                // the one that closes old ones
}

// Serve makes an edge of a file. Nothing is opened yet.
func Serve(cfg *config.Config, log, access *slog.Logger) (*Edge, error) {
	e := &Edge{log: log, cfg: cfg, pools: map[string]*upstream.Upstream{}, stop: make(chan struct{})}
	pools, routes, err := e.build(cfg)
	if err != nil {
		return nil, err
	}
	e.pools = pools
	e.Server = &router.Server{
		Certs:       source(cfg),
		Routes:      routes,
		Passthrough: passthrough(cfg),
		Limits:      router.Limits{Connections: conn.Bounds{Total: cfg.Limits.Connections}},
		Drain:       router.Drain{Timeout: cfg.Drain.Timeout, NotReady: cfg.Drain.NotReady, Spread: cfg.Drain.Spread},
		Log:         log,
		Access:      access,
	}
	switch cfg.TLS.ClientAuth {
	case "optional":
		e.Server.ClientAuth = certs.ClientAuth{CAs: certs.CAFile(cfg.TLS.ClientCA)}
	case "required":
		e.Server.ClientAuth = certs.ClientAuth{CAs: certs.CAFile(cfg.TLS.ClientCA), Required: true}
	}
	for _, l := range cfg.Listen {
		e.Server.Listeners = append(e.Server.Listeners, router.Listener{Addr: l.Address, Plaintext: l.Plaintext, ProxyProtocol: l.ProxyProtocol})
	}
	e.work.Go(e.bury)
	return e, nil
}

// source is where the file's certificates come from; nil without any.
func source(cfg *config.Config) certs.Source {
	encrypted := func(l config.Listener) bool { return !l.Plaintext }
	switch {
	case !slices.ContainsFunc(cfg.Listen, encrypted): // no listener has TLS
		return nil
	case cfg.TLS.Dev:
		return certs.Dev("certs/dev")
	case len(cfg.TLS.Certificates) == 0:
		return nil
	}
	files := new(certs.FileSource)
	for _, c := range cfg.TLS.Certificates {
		files.Pairs = append(files.Pairs, certs.Pair{Cert: c.Cert, Key: c.Key})
	}
	return files
}

func passthrough(cfg *config.Config) (list []mux.Passthrough) {
	for _, r := range cfg.Routes {
		if r.Passthrough != "" {
			list = append(list, mux.Passthrough{SNI: r.SNI, ALPN: r.ALPN, To: r.Passthrough})
		}
	}
	return list
}

// poolKey is what makes an upstream another one.
func poolKey(u *config.Upstream) string { return u.Name + " " + strings.Join(u.Servers, " ") }

// build makes a file's upstreams and routes. Upstreams that e has already are
// used again, with their connections.
func (e *Edge) build(cfg *config.Config) (pools map[string]*upstream.Upstream, routes []router.Route, err error) {
	pools = map[string]*upstream.Upstream{}
	byName := map[string]*upstream.Upstream{}
	var made []*upstream.Upstream
	var errs []error
	for i := range cfg.Upstreams {
		u := &cfg.Upstreams[i]
		key := poolKey(u)
		up := e.pools[key]
		if up == nil {
			if up, err = upstream.New(u.Servers[0], upstream.Options{Name: u.Name, Log: e.log}); err != nil {
				errs = append(errs, fmt.Errorf("%s:%d:%d: upstreams.%s: %w", cfg.File, u.Pos.Line, u.Pos.Col, u.Name, err))
				continue
			}
			made = append(made, up)
		}
		pools[key], byName[u.Name] = up, up
	}
	for i := range cfg.Routes {
		if r := &cfg.Routes[i]; r.Passthrough == "" {
			route := router.Route{
				Name: r.Name, GRPC: r.GRPC, Path: r.Path, WebSocket: r.WebSocket, Hosts: r.Hosts, Methods: r.Methods,
				Headers: r.Headers, To: byName[r.To], Redirect: r.Redirect, RedirectStatus: r.RedirectStatus,
			}
			if route.To != nil || route.Redirect != "" { // otherwise its upstream is what is wrong
				if err := route.Validate(); err != nil {
					errs = append(errs, fmt.Errorf("%s:%d:%d: %w", cfg.File, r.Pos.Line, r.Pos.Col, err))
				}
			}
			routes = append(routes, route)
		}
	}
	if len(errs) > 0 {
		for _, up := range made {
			up.Close()
		}
		return nil, nil, errors.Join(errs...)
	}
	return pools, routes, nil
}

// Check says what keeps an edge from being made of a file that could be read:
// certificates that cannot be loaded, addresses that cannot be.
func Check(cfg *config.Config) error {
	e := &Edge{log: slog.New(slog.DiscardHandler)}
	pools, _, err := e.build(cfg)
	for _, up := range pools {
		up.Close()
	}
	if src := source(cfg); src != nil && !cfg.TLS.Dev {
		if errLoad := src.Load(); errLoad != nil {
			err = errors.Join(err, fmt.Errorf("%s:%d:%d: tls: %w", cfg.File, cfg.TLS.Pos.Line, cfg.TLS.Pos.Col, errLoad))
		}
	}
	if cfg.TLS.ClientCA != "" {
		if errLoad := certs.CAFile(cfg.TLS.ClientCA).Load(); errLoad != nil {
			err = errors.Join(err, fmt.Errorf("%s:%d:%d: tls.client_ca: %w", cfg.File, cfg.TLS.Pos.Line, cfg.TLS.Pos.Col, errLoad))
		}
	}
	return err
}

// Reload replaces the routes by those of another file. Calls in flight go on as
// they began; upstreams that did not change keep their connections. With an error
// nothing has changed. What cannot change while the port is open is named in restart.
func (e *Edge) Reload(cfg *config.Config) (restart []string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := Check(cfg); err != nil {
		return nil, err
	}
	pools, routes, err := e.build(cfg)
	if err != nil {
		return nil, err
	}
	if err := e.Server.SetRoutes(routes); err != nil {
		for key, up := range pools {
			if e.pools[key] == nil {
				up.Close()
			}
		}
		return nil, err
	}
	for key, up := range e.pools {
		if pools[key] == nil {
			e.old = append(e.old, up)
		}
	}
	restart = needRestart(e.cfg, cfg)
	e.pools, e.cfg = pools, cfg
	return restart, nil
}

// needRestart names the keys that differ and take effect at a start only.
func needRestart(was, is *config.Config) (keys []string) {
	for _, k := range []struct {
		name    string
		was, is any
	}{
		{"listen", addresses(was), addresses(is)},
		{"tls", []any{was.TLS.Dev, pairs(was), was.TLS.ClientCA, was.TLS.ClientAuth}, []any{is.TLS.Dev, pairs(is), is.TLS.ClientCA, is.TLS.ClientAuth}},
		{"routes with passthrough", passthrough(was), passthrough(is)},
		{"limits", was.Limits, is.Limits},
		{"drain", was.Drain, is.Drain},
		{"log", was.Log, is.Log},
	} {
		if !reflect.DeepEqual(k.was, k.is) {
			keys = append(keys, k.name)
		}
	}
	return keys
}

// addresses are the listeners without their place in the file.
func addresses(cfg *config.Config) []config.Listener {
	list := slices.Clone(cfg.Listen)
	for i := range list {
		list[i].Pos = config.Pos{}
	}
	return list
}

func pairs(cfg *config.Config) []config.Certificate {
	list := slices.Clone(cfg.TLS.Certificates)
	for i := range list {
		list[i].Pos = config.Pos{}
	}
	return list
}

// bury closes upstreams that no route leads to any more, once nothing is in flight there.
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
		e.old = slices.DeleteFunc(e.old, func(up *upstream.Upstream) bool {
			st := up.Stats()
			if st.Streams+st.Waiting > 0 {
				return false
			}
			up.Close()
			return true
		})
		e.mu.Unlock()
	}
}

// Close closes the connections to all upstreams, once the server has ended.
func (e *Edge) Close() {
	close(e.stop)
	e.work.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, up := range e.pools {
		up.Close()
	}
	for _, up := range e.old {
		up.Close()
	}
}
