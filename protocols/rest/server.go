package rest

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// Options configures a Server. Every zero value is a default fit for the
// Internet.
type Options struct {
	// Handler gets every request that was not refused. Nil answers 404.
	Handler http.Handler

	// HeaderTimeout bounds the time to read a request's head. Zero means 10 s.
	HeaderTimeout time.Duration
	// HeaderBytes bounds a request's head. Zero means 16 KiB; more is answered 431.
	HeaderBytes int
	// HeaderFields bounds the number of header fields. Zero means 100; more is answered 431.
	HeaderFields int
	// BodyIdle bounds how long a request's body may stand still, to an eighth
	// of it. Zero means 30 s. It does not apply to gRPC, whose streams may rest.
	BodyIdle time.Duration
	// BodyRate is how many bytes a second of a body must come on the average of each
	// BodyIdle that is spent waiting for the client. Zero means 240, a negative value any rate.
	BodyRate int
	// IdleTimeout closes a connection without requests. Zero means 120 s.
	IdleTimeout time.Duration
	// Streams bounds the concurrent streams of an HTTP/2 connection. Zero means 100.
	Streams int

	// Challenge answers requests by which a CA sees that a host is ours, of GET
	// and plaintext HTTP/1 below /.well-known/acme-challenge/; false leaves them
	// to the others. It comes before Guards. Nil answers none.
	Challenge Challenge

	// Meter counts the calls. Nil counts none.
	Meter *protocols.Meter
	// Guards are asked in this order whether a request may go on to Handler.
	Guards []protocols.Guard

	// TrustedProxies lists the clients whose forwarding headers are passed
	// on: load balancers of yours that speak HTTP. From everybody else
	// Forwarded, X-Forwarded-* and X-Real-IP are removed.
	TrustedProxies []netip.Prefix

	// Log receives panics at Error and the noise of strangers at Debug. Nil discards.
	Log *slog.Logger
	// Observers learn of each call, see [protocols.Observer].
	Observers []protocols.Observer
}

// Defaults of Options.
const (
	defaultHeaderTimeout = 10 * time.Second
	defaultHeaderBytes   = 16 << 10
	defaultHeaderFields  = 100
	defaultBodyIdle      = 30 * time.Second
	defaultBodyRate      = 240
	defaultIdleTimeout   = 120 * time.Second
	defaultStreams       = 100

	streamWindow = 256 << 10
	connWindow   = 1 << 20
	// frameSize is the largest frame a client may send: a TLS record. net/http would
	// allow 1 MiB, four times what fits into streamWindow, and keeps a buffer of
	// the largest frame that came for as long as the connection lives.
	frameSize = 16 << 10
	// An HTTP/2 peer that is silent this long is asked for a sign of life, and
	// has as long as pingTimeout to give it.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
	// writeTimeout ends an HTTP/2 connection on which not a byte could be
	// written for so long.
	writeTimeout = 60 * time.Second
)

// Server is an HTTP/1 and HTTP/2 server for routed connections.
type Server struct {
	opts     Options
	http     *http.Server
	log      *slog.Logger
	prefix   uint64 // of every request id
	seq      atomic.Uint64
	draining atomic.Bool
	patience atomic.Pointer[context.Context] // see Drain
	bodies   bodies

	base context.Context //nolint:containedctx // of all requests: it ends with the server's patience
	cut  context.CancelCauseFunc
}

// NewServer returns a server with the defaults of opts filled in.
func NewServer(opts Options) *Server {
	opts.HeaderTimeout = cmp.Or(opts.HeaderTimeout, defaultHeaderTimeout)
	opts.HeaderBytes = cmp.Or(opts.HeaderBytes, defaultHeaderBytes)
	opts.HeaderFields = cmp.Or(opts.HeaderFields, defaultHeaderFields)
	opts.BodyIdle = cmp.Or(opts.BodyIdle, defaultBodyIdle)
	opts.BodyRate = cmp.Or(opts.BodyRate, defaultBodyRate)
	opts.IdleTimeout = cmp.Or(opts.IdleTimeout, defaultIdleTimeout)
	opts.Streams = cmp.Or(opts.Streams, defaultStreams)
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Handler == nil {
		opts.Handler = http.NotFoundHandler()
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails (crypto/rand, Go 1.24)

	s := &Server{opts: opts, log: opts.Log, prefix: binary.BigEndian.Uint64(random[:])}
	s.base, s.cut = context.WithCancelCause(context.Background())
	s.bodies.init(opts.BodyIdle, opts.BodyRate)
	var protos http.Protocols
	protos.SetHTTP1(true)
	protos.SetHTTP2(true)
	protos.SetUnencryptedHTTP2(true) // prior knowledge only; never by "Upgrade: h2c"
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		Protocols:         &protos,
		ReadHeaderTimeout: opts.HeaderTimeout,
		IdleTimeout:       opts.IdleTimeout,
		MaxHeaderBytes:    opts.HeaderBytes,
		ErrorLog:          debugLog(opts.Log),
		BaseContext:       func(net.Listener) context.Context { return s.base },
		ConnContext:       connContext,
		ConnState:         connState,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          opts.Streams,
			MaxReadFrameSize:              frameSize,
			MaxReceiveBufferPerStream:     streamWindow,
			MaxReceiveBufferPerConnection: connWindow,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingTimeout,
			WriteByteTimeout:              writeTimeout,
		},
	}
	return s
}

// debugLog is net/http's error log: what strangers do wrong, as a rule.
func debugLog(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }

// Serve serves the connections that ln gives, until Shutdown or Close, and
// then returns nil.
func (s *Server) Serve(ln net.Listener) error {
	err := s.http.Serve(http1Listener{ln})
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Drain makes every HTTP/1 answer say "Connection: close". Open connections
// are served on, by who is before this server for as long as patience has not ended.
func (s *Server) Drain(patience context.Context) {
	s.patience.Store(&patience)
	s.draining.Store(true)
}

// impatient reports whether calls in flight are not waited for any more.
func (s *Server) impatient() bool {
	if !s.draining.Load() {
		return false
	}
	p := s.patience.Load()
	return s.base.Err() != nil || p != nil && (*p).Err() != nil
}

// errGoing is why calls end that a drain does not wait for.
var errGoing = &protocols.Refusal{Reason: protocols.ReasonOverloaded, Text: "the server is going away", RetryAfter: protocols.RetryLater}

// cutTime is how long requests have that a Shutdown does not wait for any longer.
const cutTime = 500 * time.Millisecond

// Shutdown sends GOAWAY on HTTP/2 connections, closes idle ones, and waits
// until the calls in flight have ended or ctx has. Then it ends the contexts of
// those that are left, with a [protocols.Refusal] as the cause, gives their handlers half a
// second to answer, and returns ctx's error. What they answer then is sent as it is, and a 503 for those
// that return without; an answer that had begun before is cut off when its handler returns, unless it has
// all of the length that it has declared. Hijacked connections are not its business.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err == nil || ctx.Err() == nil {
		return err
	}
	s.draining.Store(true)
	s.cut(errGoing)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), cutTime)
	defer cancel()
	_ = s.http.Shutdown(last) // whoever has not answered is cut off by Close
	return err
}

// Close ends every connection at once.
func (s *Server) Close() error {
	s.draining.Store(true)
	s.cut(context.Canceled)
	return s.http.Close()
}

// tracked is what a connection offers that came through protocols/mux.
type tracked interface {
	Facts() *protocols.Conn
	Step(next protocols.State) bool
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// track finds the tracked connection in c, below TLS if need be; nil if there is none.
func track(c net.Conn) tracked {
	switch t := c.(type) {
	case *http1Conn:
		return t.tracked
	case *tls.Conn:
		c = t.NetConn()
	}
	t, _ := c.(tracked)
	return t
}

// connContext puts the facts of a connection into the context of all its requests.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if t := track(c); t != nil {
		return protocols.WithConn(ctx, t.Facts())
	}
	if t, ok := c.(interface{ Facts() *protocols.Conn }); ok { // of the stream switch
		return protocols.WithConn(ctx, t.Facts())
	}
	return ctx
}

// connState follows a connection through net/http.
func connState(c net.Conn, state http.ConnState) {
	t := track(c)
	if t == nil {
		return
	}
	// A step that is not legal changes nothing: net/http reports HTTP/2
	// connections as idle twice.
	switch state {
	case http.StateActive:
		t.Step(protocols.StateActive)
	case http.StateIdle:
		t.Step(protocols.StateIdle)
	case http.StateHijacked:
		t.Step(protocols.StateUpgraded)
	case http.StateNew, http.StateClosed: // the connection knows by itself
	}
}
