package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
	"github.com/oneport-edge/oneport/protocols"
)

// Port is the port that is looked at; a router.Server is one.
type Port interface {
	// Conns lists the open connections.
	Conns() []*protocols.Conn
	// CloseConn cuts one off, and reports whether there was one.
	CloseConn(id string) bool
}

// Revoker refuses a user's credentials. auth.Sessions is one.
type Revoker interface {
	// Revoke refuses them until some time, ends the WebSockets and gRPC calls that they
	// have opened, and says how many.
	Revoke(issuer, subject string, until time.Time) (ended int, err error)
	// Unrevoke lifts that, and reports whether there was anything to lift.
	Unrevoke(issuer, subject string) bool
}

// Options configures a Service. Port and Calls are required. What else is nil the
// service does not have, and says so (UNIMPLEMENTED, 501).
type Options struct {
	Port Port
	// Calls are the open calls: among the port's guards.
	Calls *protocols.Calls
	// Revoker refuses credentials, for Kill with a time and for Unrevoke.
	Revoker Revoker
	// Revocations are those that hold, the latest first.
	Revocations func() []*adminv1.Revocation

	Routes       func() []*adminv1.Route
	Upstreams    func() []*adminv1.Upstream
	Certificates func() []*adminv1.Certificate
	Limits       func() *adminv1.ListLimitsResponse
	Config       func() (*adminv1.GetConfigResponse, error)
	Plan         func(context.Context) (*adminv1.PlanResponse, error)
	Reload       func(context.Context) (*adminv1.ReloadResponse, error)
	Stats        func() *adminv1.Stats
	// Drain begins the end of the process, and returns at once.
	Drain func()
	// Level is that of the log.
	Level *slog.LevelVar
	// Checks say whether the port is ready. They must not wait.
	Checks func() []*adminv1.Check
	// Ending is closed when those that watch are to leave. Nil means never.
	Ending <-chan struct{}
	// Metrics serves GET /metrics. Nil serves none.
	Metrics http.Handler
	// Profiles serves Go's profiles over HTTP.
	Profiles bool
	// Log receives what operators change, at Info. Nil means slog.Default.
	Log *slog.Logger
}

// Service is the admin API. It is safe for concurrent use.
type Service struct {
	adminv1.UnimplementedAdminServer
	opts      Options
	watching  atomic.Int64
	profiling atomic.Bool
}

// New makes a service.
func New(opts Options) (*Service, error) {
	if opts.Port == nil || opts.Calls == nil {
		return nil, errors.New("admin: want a port and its open calls")
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	return &Service{opts: opts}, nil
}

var errNotHere = status.Error(codes.Unimplemented, "this port does not have that")

// ListRoutes implements adminv1.AdminServer.
func (s *Service) ListRoutes(context.Context, *adminv1.ListRoutesRequest) (*adminv1.ListRoutesResponse, error) {
	if s.opts.Routes == nil {
		return nil, errNotHere
	}
	routes := s.opts.Routes()
	open := make(map[string]int32)
	for _, c := range s.opts.Calls.List() {
		if to := c.Destination(); to != nil {
			open[to.Route]++
		}
	}
	for _, r := range routes {
		r.OpenCalls = open[r.GetName()]
	}
	return &adminv1.ListRoutesResponse{Routes: routes}, nil
}

// ListUpstreams implements adminv1.AdminServer.
func (s *Service) ListUpstreams(context.Context, *adminv1.ListUpstreamsRequest) (*adminv1.ListUpstreamsResponse, error) {
	if s.opts.Upstreams == nil {
		return nil, errNotHere
	}
	return &adminv1.ListUpstreamsResponse{Upstreams: s.opts.Upstreams()}, nil
}

// ListCertificates implements adminv1.AdminServer.
func (s *Service) ListCertificates(context.Context, *adminv1.ListCertificatesRequest) (*adminv1.ListCertificatesResponse, error) {
	if s.opts.Certificates == nil {
		return nil, errNotHere
	}
	return &adminv1.ListCertificatesResponse{Certificates: s.opts.Certificates()}, nil
}

// ListLimits implements adminv1.AdminServer.
func (s *Service) ListLimits(context.Context, *adminv1.ListLimitsRequest) (*adminv1.ListLimitsResponse, error) {
	if s.opts.Limits == nil {
		return nil, errNotHere
	}
	return s.opts.Limits(), nil
}

// GetConfig implements adminv1.AdminServer.
func (s *Service) GetConfig(context.Context, *adminv1.GetConfigRequest) (*adminv1.GetConfigResponse, error) {
	if s.opts.Config == nil {
		return nil, errNotHere
	}
	return s.opts.Config()
}

// Plan implements adminv1.AdminServer.
func (s *Service) Plan(ctx context.Context, _ *adminv1.PlanRequest) (*adminv1.PlanResponse, error) {
	if s.opts.Plan == nil {
		return nil, errNotHere
	}
	return s.opts.Plan(ctx)
}

// Reload implements adminv1.AdminServer.
func (s *Service) Reload(ctx context.Context, _ *adminv1.ReloadRequest) (*adminv1.ReloadResponse, error) {
	if s.opts.Reload == nil {
		return nil, errNotHere
	}
	s.did(ctx, "reload")
	return s.opts.Reload(ctx)
}

// Drain implements adminv1.AdminServer.
func (s *Service) Drain(ctx context.Context, _ *adminv1.DrainRequest) (*adminv1.DrainResponse, error) {
	if s.opts.Drain == nil {
		return nil, errNotHere
	}
	s.did(ctx, "drain")
	s.opts.Drain()
	return &adminv1.DrainResponse{}, nil
}

// GetLogLevel implements adminv1.AdminServer.
func (s *Service) GetLogLevel(context.Context, *adminv1.GetLogLevelRequest) (*adminv1.GetLogLevelResponse, error) {
	if s.opts.Level == nil {
		return nil, errNotHere
	}
	return &adminv1.GetLogLevelResponse{Level: levelName(s.opts.Level)}, nil
}

// levels are those that a log may have.
var levels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

func levelName(l *slog.LevelVar) string { return strings.ToLower(l.Level().String()) }

// SetLogLevel implements adminv1.AdminServer.
func (s *Service) SetLogLevel(ctx context.Context, req *adminv1.SetLogLevelRequest) (*adminv1.SetLogLevelResponse, error) {
	if s.opts.Level == nil {
		return nil, errNotHere
	}
	level, ok := levels[req.GetLevel()]
	if !ok {
		return nil, status.Errorf(codes.InvalidArgument, "level %q: want debug, info, warn or error", req.GetLevel())
	}
	was := levelName(s.opts.Level)
	s.did(ctx, "log level", "was", was, "is", req.GetLevel())
	s.opts.Level.Set(level)
	return &adminv1.SetLogLevelResponse{Was: was}, nil
}

// GetHealth implements adminv1.AdminServer.
func (s *Service) GetHealth(context.Context, *adminv1.GetHealthRequest) (*adminv1.GetHealthResponse, error) {
	return s.health(), nil
}

func (s *Service) health() *adminv1.GetHealthResponse {
	res := &adminv1.GetHealthResponse{Ready: true}
	if s.opts.Checks != nil {
		res.Checks = s.opts.Checks()
	}
	for _, c := range res.GetChecks() {
		res.Ready = res.GetReady() && !c.GetRed()
	}
	return res
}

// GetStats implements adminv1.AdminServer.
func (s *Service) GetStats(context.Context, *adminv1.GetStatsRequest) (*adminv1.GetStatsResponse, error) {
	if s.opts.Stats == nil {
		return nil, errNotHere
	}
	return &adminv1.GetStatsResponse{Stats: s.opts.Stats()}, nil
}

// did says what an operator has done.
func (s *Service) did(ctx context.Context, what string, attrs ...any) {
	attrs = append([]any{"what", what}, attrs...)
	if call := protocols.CallFrom(ctx); call != nil {
		attrs = append(attrs, "remote", call.Conn.Remote.String(), "request", call.RequestID())
	}
	s.opts.Log.InfoContext(ctx, "admin", attrs...)
}
