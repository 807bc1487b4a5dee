package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // clients in other languages expect it; grpc-go's have to bring it
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/protocols"
)

// Keepalive limits of a native server. A client may ping every MinTime, with
// or without calls; one that pings more often is told ENHANCE_YOUR_CALM.
const (
	keepaliveMinTime = 10 * time.Second
	pingAfter        = 30 * time.Second
	pingTimeout      = 15 * time.Second
	connectTimeout   = 10 * time.Second // handshake and preface; grpc-go's default is 120 s

	// Windows that do not grow by themselves: grpc-go would measure round trips
	// to the switch in front of it, which are none.
	streamWindow = 256 << 10
	connWindow   = 1 << 20
	// readBuffer is small, because what is read comes from memory.
	readBuffer = 4 << 10
	// streams bounds the handlers of a connection, those included whose
	// stream the client has reset.
	streams = 250
)

// Host is whoever will serve an embedder's own grpc.Server; router.Server is one.
type Host interface {
	// UsesServerOptions says that the host's options went into a server.
	UsesServerOptions()
}

// ServerOptions are what an embedder passes to grpc.NewServer for a server
// that host will serve: credentials that report the connection's TLS state
// and client, recovery of panics, keepalive limits. Options given to
// grpc.NewServer after these win. Without them a panic in a handler of that
// server ends the process, as it does with any grpc.Server. host and log may be nil.
func ServerOptions(host Host, log *slog.Logger) []grpc.ServerOption {
	if host != nil {
		host.UsesServerOptions()
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := recoverer{log}
	return []grpc.ServerOption{
		grpc.Creds(transportCredentials{}),
		grpc.ConnectionTimeout(connectTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinTime, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.MaxConcurrentStreams(streams),
		grpc.ReadBufferSize(readBuffer),
		grpc.ChainUnaryInterceptor(r.unary),
		grpc.ChainStreamInterceptor(r.stream),
	}
}

// recoverer ends a call whose handler panicked, and gives handlers their Call.
type recoverer struct{ log *slog.Logger }

func (r recoverer) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (_ any, err error) {
	ctx = withCall(ctx)
	defer func() {
		if p := recover(); p != nil {
			err = r.report(ctx, info.FullMethod, p)
		}
	}()
	return next(ctx, req)
}

func (r recoverer) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	if ctx := ss.Context(); protocols.CallFrom(ctx) == nil {
		if in := withCall(ctx); in != ctx {
			ss = &stream{ss, in}
		}
	}
	defer func() {
		if p := recover(); p != nil {
			err = r.report(ss.Context(), info.FullMethod, p)
		}
	}()
	return next(srv, ss)
}

func (r recoverer) report(ctx context.Context, method string, p any) error {
	attrs := []any{"path", method, "panic", p, "stack", string(debug.Stack())}
	if call := protocols.CallFrom(ctx); call != nil {
		attrs = append(attrs, "request", call.RequestID(), "conn", call.Conn.ID)
	}
	r.log.ErrorContext(ctx, "handler panicked", attrs...)
	return status.Error(codes.Internal, "internal error")
}

// Services records registrations until a server is built of them. The zero
// value is ready to use. It is a grpc.ServiceRegistrar.
type Services struct {
	mu     sync.Mutex // guards the fields below
	list   []service
	names  map[string]bool
	errs   []error
	sealed bool
}

type service struct {
	desc *grpc.ServiceDesc
	impl any
}

// RegisterService records a service. What is wrong with it is reported by
// Build: grpc-go itself would end the process.
func (s *Services) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkLocked(desc, impl); err != nil {
		s.errs = append(s.errs, err)
		return
	}
	if s.names == nil {
		s.names = make(map[string]bool)
	}
	s.names[desc.ServiceName] = true
	s.list = append(s.list, service{desc, impl})
}

func (s *Services) checkLocked(desc *grpc.ServiceDesc, impl any) error {
	switch {
	case s.sealed:
		return fmt.Errorf("rpc: service %s registered after the server has started: register before Serve", desc.ServiceName)
	case s.names[desc.ServiceName]:
		return fmt.Errorf("rpc: service %s registered twice", desc.ServiceName)
	case impl != nil && desc.HandlerType != nil && !reflect.TypeOf(impl).Implements(reflect.TypeOf(desc.HandlerType).Elem()):
		return fmt.Errorf("rpc: service %s: %T does not implement %s", desc.ServiceName, impl, reflect.TypeOf(desc.HandlerType).Elem())
	}
	return nil
}

// Empty reports whether nothing was registered.
func (s *Services) Empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.list) == 0 && len(s.errs) == 0
}

// Err is what is wrong with the registrations so far, those after Build included.
func (s *Services) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.errs...)
}

// Server is a grpc.Server with its health service.
type Server struct {
	*grpc.Server
	health *health.Server // nil if the services brought their own
}

// workersPerCPU is how many goroutines wait for calls, for each processor. A
// new one for each call costs a fifth of a short call: its stack is copied twice
// until it is large enough. Calls that find no worker get a new goroutine.
const workersPerCPU = 16

// Build makes a server of everything registered, plus health
// (grpc.health.v1, unless registered) and reflection (v1 and v1alpha). It can
// be called once; later registrations are errors. Whoever builds it stops it.
func (s *Services) Build(opts ...grpc.ServerOption) (*Server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) > 0 {
		return nil, errors.Join(s.errs...)
	}
	s.sealed = true
	opts = append(slices.Clip(opts), grpc.NumStreamWorkers(uint32(workersPerCPU*runtime.GOMAXPROCS(0))))
	srv := &Server{Server: grpc.NewServer(opts...)}
	for _, sv := range s.list {
		srv.RegisterService(sv.desc, sv.impl)
	}
	if !s.names[healthpb.Health_ServiceDesc.ServiceName] {
		srv.health = health.NewServer()
		healthpb.RegisterHealthServer(srv.Server, srv.health)
		for _, sv := range s.list {
			srv.health.SetServingStatus(sv.desc.ServiceName, healthpb.HealthCheckResponse_SERVING)
		}
	}
	reflection.Register(srv.Server)
	return srv, nil
}

// NotServing makes the health service say NOT_SERVING, for good.
func (s *Server) NotServing() {
	if s.health != nil {
		s.health.Shutdown()
	}
}
