package router

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/mux"
	"github.com/oneport-edge/oneport/protocols/rest"
	"github.com/oneport-edge/oneport/protocols/rpc"
)

// ListenAndServe listens on Addr, or on Listeners, and serves until ctx ends;
// see Serve. After Listen it serves on what that has opened.
func (s *Server) ListenAndServe(ctx context.Context) error {
	if _, err := s.Listen(ctx); err != nil {
		return err
	}
	return s.serve(ctx, s.Listeners)
}

// Listen opens Addr, or Listeners, without serving yet, and returns the
// addresses in the same order: what ":0" became, and the assurance that the
// port is ours. Connections wait in the kernel until ListenAndServe.
func (s *Server) Listen(ctx context.Context) ([]net.Addr, error) {
	if len(s.Listeners) == 0 {
		s.Listeners = []Listener{{Addr: cmp.Or(s.Addr, ":443")}}
	}
	open := make([]Listener, 0, len(s.Listeners))
	addrs := make([]net.Addr, 0, len(s.Listeners))
	for _, l := range s.Listeners {
		if l.Listener == nil {
			ln, err := new(net.ListenConfig).Listen(ctx, "tcp", l.Addr)
			if err != nil {
				closeAll(open)
				return nil, fmt.Errorf("router: %w", err)
			}
			l.Listener = ln
		}
		open = append(open, l)
		addrs = append(addrs, l.Listener.Addr())
	}
	s.Listeners = open
	return addrs, nil
}

func closeAll(listeners []Listener) {
	for _, l := range listeners {
		_ = l.Listener.Close() // on the way out with another error
	}
}

// Serve serves on ln until ctx ends, then drains, and returns when everything
// it started has ended: nil after a clean drain, ErrDrainTimeout when calls
// had to be cut off, or what made serving impossible. It closes ln in any
// case. Listeners is not used.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, []Listener{{Listener: ln}})
}

// port is a Server that serves.
type port struct {
	*Server
	muxes   []*mux.Mux
	queue   *mux.Queue // connections for web
	web     *rest.Server
	plain   *rest.Server // plaintext requests on a TLS port
	plains  *mux.Queue
	sw      *h2.Switch // all HTTP/2 but that of listeners with SharedH2
	webH2   *h2.Server // web, as the switch sees it
	rpcH2   *h2.Server // rpc, as the switch sees it
	rpc     *grpc.Server
	health  interface{ NotServing() }
	running sync.WaitGroup
}

func (s *Server) serve(ctx context.Context, listeners []Listener) error {
	s.init()
	if s.served.Swap(true) {
		closeAll(listeners)
		return ErrServed
	}
	p, err := s.build(listeners)
	if err != nil {
		closeAll(listeners)
		return err
	}
	s.warnings()

	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	if s.Certs != nil {
		p.running.Go(func() { s.Certs.Watch(watching, s.Log) })
	}
	if cas := s.ClientAuth.CAs; cas != nil {
		p.running.Go(func() { cas.Watch(watching, s.Log) })
	}
	if s.Relief.Overloaded != nil {
		p.running.Go(func() { p.relieve(watching) })
	}
	failed := make(chan error, len(listeners)+4)
	p.running.Go(func() { failed <- p.web.Serve(p.webH2) })
	p.running.Go(func() { failed <- p.rpc.Serve(p.rpcH2) })
	p.running.Go(func() { failed <- p.web.Serve(p.queue) })
	p.running.Go(func() { failed <- p.plain.Serve(p.plains) })
	for i, m := range p.muxes {
		p.running.Go(func() { failed <- m.Serve(listeners[i].Listener) })
		s.Log.Info("listening", "address", listeners[i].Listener.Addr().String(), "tls", m.TLS != nil)
	}
	s.ready.Store(true)
	close(s.serving)

	var cause error
	select {
	case <-ctx.Done():
	case <-s.quit:
	case cause = <-failed:
		// Only a listener that broke ends by itself.
		cause = fmt.Errorf("router: a listener failed: %w", cmp.Or(cause, net.ErrClosed))
	}
	err = p.drain(ctx)
	stopWatching()
	p.running.Wait()
	return errors.Join(cause, err, s.services.Err())
}

// build makes everything that Serve needs, or says what is wrong.
func (s *Server) build(listeners []Listener) (*port, error) {
	p := &port{Server: s}
	s.noCalls.Store(slices.ContainsFunc(listeners, func(l Listener) bool { return l.SharedH2 }))
	if err := s.buildTable(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	sockets, err := socketMux(s.routes, s.sessions, s.Sockets)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := p.buildRPC(); err != nil {
		return nil, err
	}
	web := s.HTTP
	if web == nil {
		web = http.NotFoundHandler()
	}
	rest.Adopt(web, s.TrustedProxies, s.Log)
	p.web = rest.NewServer(s.restOptions(&shared{rpc: p.rpc, sockets: sockets, table: &s.table, web: web}))
	p.buildSwitch(listeners[0].Listener.Addr())
	p.plain = rest.NewPlainServer(s.RedirectPlain, s.challenge(), s.Log)
	p.queue = mux.NewQueue(listeners[0].Listener.Addr())
	p.plains = mux.NewQueue(listeners[0].Listener.Addr())
	if err := p.buildMuxes(listeners); err != nil {
		p.rpc.Stop()
		return nil, err
	}
	return p, nil
}

// buildTable makes the table of Routes, or makes that of SetRoutes again: the Server may
// have got its Guards since.
func (s *Server) buildTable() error {
	for {
		was := s.table.Load()
		if was == nil {
			return s.SetRoutes(s.Routes)
		}
		if s.noCalls.Load() && was.hasCalls() {
			return errSharedCalls
		}
		is, err := s.newTable(was.routes)
		if err != nil || s.table.CompareAndSwap(was, is) {
			return err
		}
	}
}

// buildRPC takes the embedder's server, or builds one of what was registered.
func (p *port) buildRPC() error {
	if own := p.GRPC; own != nil {
		if !p.services.Empty() {
			return errors.New("router: services were registered beside a GRPC server of your own: register them on that one")
		}
		if !p.ownRPC.Load() {
			p.Log.Warn("the GRPC server was built without rpc.ServerOptions: a panic in one of its handlers ends the process")
		}
		p.rpc = own
		return nil
	}
	if p.services.Empty() {
		p.rpc = grpc.NewServer() // answers UNIMPLEMENTED
		return nil
	}
	srv, err := p.services.Build(rpc.ServerOptions(p.Server, p.Log)...)
	if err != nil {
		return err
	}
	p.rpc, p.health = srv.Server, srv
	return nil
}

func (p *port) buildMuxes(listeners []Listener) error {
	for _, rule := range p.Passthrough {
		if err := rule.Validate(); err != nil {
			return fmt.Errorf("router: %w", err)
		}
	}
	cfg, err := p.buildTLS()
	if err != nil {
		return err
	}
	for _, l := range listeners {
		m := &mux.Mux{
			Registry:    p.conns,
			ProxyFrom:   l.ProxyProtocol,
			Passthrough: p.Passthrough,
			Handshakes:  p.Limits.Handshakes,
			Unacked:     p.Limits.Unacked,
			HTTP1:       p.queue.Deliver,
			HTTP2:       p.sw.Serve,
			Plain:       p.plains.Deliver,
			Log:         p.Log,
		}
		if l.SharedH2 {
			m.HTTP2 = p.queue.Deliver // net/http tells the two apart as we do
		}
		if !l.Plaintext {
			m.TLS = cfg
		}
		p.muxes = append(p.muxes, m)
	}
	return nil
}

// buildTLS loads the certificates and tries them; nil without any.
func (p *port) buildTLS() (*tls.Config, error) {
	if p.Certs == nil {
		return nil, nil //nolint:nilnil // no certificates, no TLS
	}
	if err := p.Certs.Load(); err != nil {
		return nil, err
	}
	if cas := p.ClientAuth.CAs; cas != nil {
		if err := cas.Load(); err != nil {
			return nil, err
		}
	}
	cfg, names := certs.Config(p.Certs, certs.Options{ClientAuth: p.ClientAuth}), p.Certs.Names()
	if len(names) == 0 && p.challenge() != nil {
		return cfg, nil // there is nothing to try until the CA has issued one
	}
	return cfg, certs.Check(cfg, names)
}

// challenge is how Certs answers a CA's plaintext requests; nil if it has no CA.
func (s *Server) challenge() rest.Challenge {
	if c, ok := s.Certs.(certs.Challenged); ok {
		return c.ChallengeText
	}
	return nil
}

// warnings says what will hurt later.
func (s *Server) warnings() {
	if n, total := openFiles(), s.conns.Bounds().Total; n > 0 && total > 0 && 2*total > n {
		s.Log.Warn("twice the bound of connections is more than the process may open files: raise nofile or lower the bound",
			"connections", total, "nofile", n)
	}
}
