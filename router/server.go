package router

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/mux"
	"github.com/oneport-edge/oneport/protocols/rest"
	"github.com/oneport-edge/oneport/protocols/rpc"
	"github.com/oneport-edge/oneport/protocols/ws"
)

// ErrServed is returned by the second Serve of a Server.
var ErrServed = errors.New("router: a Server serves once")

// ErrDrainTimeout is returned by Serve when calls or sessions were cut off
// because they had not ended at the end of the drain.
var ErrDrainTimeout = errors.New("router: drain did not finish in time")

// Server is one port, or several that share everything behind them. The zero
// value of each field is a working default. Fill in the fields before calling
// any method; what is changed later has no effect.
type Server struct {
	// Addr is what ListenAndServe listens on; "" means ":443". With Listeners
	// it is not used.
	Addr string

	// Listeners replaces Addr when there is more than one, or one with options.
	Listeners []Listener

	// Certs gives the certificates: certs.Files, certs.Dev, certs.Static, an
	// acme.Source. Nil makes every listener a plaintext one. The challenges of a
	// certs.Challenged are answered on all listeners, before Routes and Guards.
	Certs certs.Source

	// ClientAuth asks clients for certificates. Zero asks for none.
	ClientAuth certs.ClientAuth

	// AnyHost serves calls whose host is not the server name that their connection
	// was opened for. Without it they are refused where there is ClientAuth, but those
	// of TrustedProxies: with 421, which browsers take for what it is, or UNKNOWN. See
	// Misdirected.
	AnyHost bool

	// HTTP handles every request that is neither a gRPC call nor for a socket
	// registered here: a *gin.Engine, as a rule. Nil answers 404. A Gin engine
	// is told to trust TrustedProxies alone, and to hand on the request's context.
	HTTP http.Handler

	// Routes send calls to servers elsewhere; the first that matches counts. What
	// none of them takes is for HTTP, GRPC and the WebSockets of this process.
	// SetRoutes replaces them while the Server serves.
	Routes []Route

	// Guards admit or refuse each call: HTTP requests, gRPC calls and WebSocket
	// handshakes, here and for Routes. They are asked in this order, once for
	// each call, and may wait.
	Guards []protocols.Guard

	// GRPC is a server of your own instead of services registered on this
	// one. Build it with rpc.ServerOptions. It is stopped at the end.
	GRPC *grpc.Server

	// Sockets configures the sessions of WebSocket.
	Sockets ws.Options

	// Passthrough lists the TLS connections that go to another server, byte
	// for byte, by SNI or offered ALPN. The first match counts.
	Passthrough []mux.Passthrough

	// TrustedProxies are HTTP load balancers of yours: their X-Forwarded-*,
	// X-Real-IP and Forwarded reach the handlers. Everybody else's are removed.
	TrustedProxies []netip.Prefix

	// RedirectPlain answers plaintext HTTP on a TLS port with 308 to https
	// instead of 400.
	RedirectPlain bool

	// Limits bounds what clients can cost.
	Limits Limits

	// Calls is what knows the open calls: those that a guard holds or that end with a
	// credential, and all if it is among Guards too. Several Servers may share it. Nil makes one.
	Calls *protocols.Calls

	// Relief is who has to go when the process has enough.
	Relief Relief

	// Drain is how Serve ends.
	Drain Drain

	// Log receives what the operator must know at Info and above, and what
	// strangers do at Debug. Nil means slog.Default.
	Log *slog.Logger

	// Access receives a line for each call, at Info. Nil writes none. An accesslog.Log among
	// the Observers writes them without holding up who serves the call.
	Access *slog.Logger

	// Meter counts the calls. Nil counts none.
	Meter *protocols.Meter

	// Observers learn of each call when it begins, in this order, and of its end in the
	// opposite one: an accesslog.Log, and behind it a tracing.Tracer.
	Observers []protocols.Observer

	// OnConn observes every step of every connection. It runs on the
	// connection's goroutine, must be quick and must not call the Server.
	OnConn func(c *protocols.Conn, from, to protocols.State)

	once     sync.Once
	conns    *conn.Registry
	sessions *ws.Server
	services rpc.Services
	ownRPC   atomic.Bool // rpc.ServerOptions were used
	served   atomic.Bool
	ready    atomic.Bool
	quit     chan struct{} // closed by Close
	quitOnce sync.Once
	serving  chan struct{}             // closed by serve
	draining chan struct{}             // closed by drain
	streams  atomic.Pointer[h2.Switch] // once served
	table    atomic.Pointer[table]     // of Routes, or what SetRoutes has put in their place
	relief   relieved
	noCalls  atomic.Bool // routes of gRPC calls cannot be served

	mu     sync.Mutex // guards the fields below, until served
	routes []socketRoute
}

// Listener is one listener and its options.
type Listener struct {
	// Addr is the address to listen on; not used if Listener is set.
	Addr string
	// Listener is one that is open already. Serve closes it.
	Listener net.Listener
	// Plaintext makes it a listener without TLS, for HTTP/1 and HTTP/2 with
	// prior knowledge (h2c).
	Plaintext bool
	// SharedH2 serves HTTP/2 with net/http alone, gRPC included, instead of by
	// the stream switch: slower for gRPC, and the way back should the switch
	// disappoint.
	SharedH2 bool
	// ProxyProtocol lists the peers that must send a PROXY header, v1 or v2.
	// A header from anybody else is garbage.
	ProxyProtocol []netip.Prefix
}

// Limits bounds what clients can cost. Each zero value is the default.
type Limits struct {
	// Connections: 10,000 in all, 256 of one client that is neither loopback
	// nor private, half of all not routed yet.
	Connections conn.Bounds
	// PreRoute is how long a connection may take from accept to its
	// protocol, TLS handshake included: 10 s.
	PreRoute time.Duration
	// Handshakes is how many TLS handshakes compute at once: 1,024.
	Handshakes int
	// HeaderTimeout, HeaderBytes and HeaderFields bound a request's head: 10 s, 16 KiB, 100.
	HeaderTimeout time.Duration
	HeaderBytes   int
	HeaderFields  int
	// BodyIdle is how long a request's body may stand still: 30 s. Not gRPC.
	BodyIdle time.Duration
	// BodyRate is how many bytes a second of a body must come on the average of each
	// BodyIdle: 240; negative for any rate.
	BodyRate int
	// Idle is how long a connection may be without calls: 120 s.
	Idle time.Duration
	// Unacked is how long a client may take nothing of its answer: 60 s (Linux).
	Unacked time.Duration
	// Streams is how many streams an HTTP/2 connection may have at once: 100.
	Streams int
	// Memory is how many bytes may wait in the port for HTTP/2 clients that do
	// not take them, and for servers that do not: 256 MiB in all.
	Memory int64
}

// Drain is how Serve ends once its context has: readiness turns red, the port
// closes, calls in flight finish, WebSockets are closed with 1001.
type Drain struct {
	// Timeout bounds all of it; what is still open then is cut off. Zero
	// means 30 s.
	Timeout time.Duration
	// NotReady is how long the port still accepts after readiness turned
	// red, so that load balancers notice. Zero skips it.
	NotReady time.Duration
	// Spread is the window over which WebSockets are closed, so that their
	// clients do not come back all at once. Zero closes them at once.
	Spread time.Duration
}

type socketRoute struct {
	pattern string
	handler ws.HandlerFunc
}

// init makes what registrations before Serve need.
func (s *Server) init() {
	s.once.Do(func() {
		if s.Log == nil {
			s.Log = slog.Default()
		}
		if s.Calls == nil {
			s.Calls = protocols.NewCalls()
		}
		s.conns = conn.NewRegistry(conn.Options{
			Bounds:   s.Limits.Connections,
			Deadline: s.Limits.PreRoute,
			OnStep:   s.OnConn,
			Calls:    s.Calls,
			IDPrefix: rand.Text()[:6] + "-",
		})
		s.sessions = ws.NewServer(s.Log)
		s.quit = make(chan struct{})
		s.serving, s.draining = make(chan struct{}), make(chan struct{})
	})
}

// RegisterService records a gRPC service; generated Register functions call
// it. What is wrong with a registration is returned by Serve, and logged if
// Serve runs already.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.services.RegisterService(desc, impl)
	if s.served.Load() {
		s.init()
		s.Log.Error("gRPC service registered after the start is not served", "service", desc.ServiceName)
	}
}

// WebSocket serves upgrades of a path with h. The pattern is one of
// http.ServeMux without a method, as "/ws" or "/rooms/{room}"; its wildcards
// are in the handler's [ws.Conn.Request]. Requests for the path that are no
// upgrades go to HTTP.
func (s *Server) WebSocket(pattern string, h ws.HandlerFunc) {
	if s.served.Load() {
		s.init()
		s.Log.Error("WebSocket registered after the start is not served", "pattern", pattern)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.routes = append(s.routes, socketRoute{pattern, h})
}

// WebSocketHandler gives h as an http.Handler, to be mounted in HTTP: in Gin
// with gin.WrapH. Its sessions are drained and counted like all others.
func (s *Server) WebSocketHandler(h ws.HandlerFunc, opts ws.Options) http.Handler {
	s.init()
	return s.sessions.Handler(h, opts)
}

// UsesServerOptions is called by rpc.ServerOptions.
func (s *Server) UsesServerOptions() { s.ownRPC.Store(true) }

// Ready reports whether the port serves and does not drain: what a readiness
// probe wants to know.
func (s *Server) Ready() bool { return s.ready.Load() }

// Serving is closed once every listener accepts: what a service manager wants to
// know of a start. It stays open if Serve fails before.
func (s *Server) Serving() <-chan struct{} {
	s.init()
	return s.serving
}

// Draining is closed when the port has closed and calls in flight are waited
// for. A handler whose call has no end of its own (a gRPC server stream,
// server-sent events) returns then; otherwise it uses up Drain.Timeout and is
// cut off. WebSocket handlers need not look: their sessions are closed.
func (s *Server) Draining() <-chan struct{} {
	s.init()
	return s.draining
}

// Conns lists the open connections, the oldest first.
func (s *Server) Conns() []*protocols.Conn {
	s.init()
	list := s.conns.List()
	facts := make([]*protocols.Conn, len(list))
	for i, c := range list {
		facts[i] = c.Facts()
	}
	return facts
}

// ConnBounds are the bounds of connections in effect; negative ones are none.
func (s *Server) ConnBounds() conn.Bounds {
	s.init()
	return s.conns.Bounds()
}

// CloseConn cuts off the connection of that ID and reports whether there was one.
func (s *Server) CloseConn(id string) bool {
	s.init()
	c := s.conns.Get(id)
	if c == nil {
		return false
	}
	_ = c.CloseFor(conn.ReasonKilled) // gone in any case
	return true
}

// Stats are counts at one moment.
type Stats struct {
	Conns    conn.Stats
	HTTP2    h2.Stats // of the stream switch
	Sessions ws.Stats
	Relieved Relieved
	Tunnels  ws.TunnelStats // those of Sessions that lead to a server elsewhere
	Traffic  ws.Traffic     // of Sessions
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	s.init()
	st := Stats{Conns: s.conns.Stats(), Sessions: s.sessions.Stats(), Tunnels: s.sessions.TunnelStats(), Traffic: s.sessions.Traffic(), Relieved: s.relief.stats()}
	if sw := s.streams.Load(); sw != nil {
		st.HTTP2 = sw.Stats()
	}
	return st
}

// Close ends Serve at once, without a drain, or cuts a drain short.
func (s *Server) Close() {
	s.init()
	s.quitOnce.Do(func() { close(s.quit) })
}

// restOptions are the options of the HTTP server.
func (s *Server) restOptions(h http.Handler) rest.Options {
	return rest.Options{
		Handler:        h,
		HeaderTimeout:  s.Limits.HeaderTimeout,
		HeaderBytes:    s.Limits.HeaderBytes,
		HeaderFields:   s.Limits.HeaderFields,
		BodyIdle:       s.Limits.BodyIdle,
		BodyRate:       s.Limits.BodyRate,
		IdleTimeout:    s.Limits.Idle,
		Streams:        s.Limits.Streams,
		TrustedProxies: s.TrustedProxies,
		Challenge:      s.challenge(),
		Guards:         s.guards(),
		Meter:          s.Meter,
		Log:            s.Log,
		Observers:      s.observers(),
	}
}
