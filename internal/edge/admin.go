package edge

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/admin"
	"github.com/oneport-edge/oneport/router/config"
	"github.com/oneport-edge/oneport/router/telemetry"
)

// AdminOptions configures an Admin.
type AdminOptions struct {
	config.Admin
	// Server is who is administered. It gets a guard more, which knows what is open.
	Server *router.Server
	// Edge is one of a file, in place of Server.
	Edge *Edge
	// Reload loads the file again. Nil without a file.
	Reload func(context.Context) (Plan, error)
	// Version and Commit are the program's.
	Version, Commit string
	// Level is that of the log.
	Level *slog.LevelVar
	// TokenDir is where a token is kept that is made; "" for a new folder for temporary files.
	TokenDir string
	Log      *slog.Logger
	Revoker  admin.Revoker
}

// Admin is the admin API of a server, on ports of its own. It ends after that server.
type Admin struct {
	opts    AdminOptions
	servers []*router.Server
	metrics *telemetry.Metrics
	drain   chan struct{}
	once    sync.Once
	calls   *protocols.Calls
	started time.Time
	made    string // a token without a file; else ""
	tidy    []func()
	addrs   []string

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// adminDrain is how long those may take to leave that ask when the process ends.
const adminDrain = 2 * time.Second

// adminConns bounds connections of operators and probes.
const adminConns = 512

// NewAdmin makes an Admin. Nothing is listened to yet.
func NewAdmin(opts AdminOptions) (*Admin, error) {
	a := &Admin{opts: opts, drain: make(chan struct{}), started: time.Now()}
	if opts.Edge != nil {
		a.opts.Server, a.calls, a.opts.Revoker = opts.Edge.Server, opts.Edge.Calls, opts.Edge.Sessions()
	} else {
		a.calls = protocols.NewCalls()
		opts.Server.Guards = append(opts.Server.Guards, a.calls)
		if opts.Server.Meter == nil {
			opts.Server.Meter = new(protocols.Meter)
		}
	}
	var err error
	if a.metrics, err = telemetry.New(a.telemetry()); err != nil {
		return nil, err
	}
	if opts.Listen != "" {
		srv := a.server(opts.Listen)
		api, err := admin.New(a.service(srv.Draining()))
		if err != nil {
			return nil, err
		}
		token, err := a.token()
		if err != nil {
			return nil, err
		}
		rules, err := admin.NewRules(admin.RulesOptions{Token: token, Hosts: opts.Hosts, Open: !Loopback(opts.Listen)})
		if err != nil {
			return nil, err
		}
		srv.Guards, srv.HTTP = []protocols.Guard{rules}, api.HTTP()
		adminv1.RegisterAdminServer(srv, api)
	}
	if opts.Probes != "" {
		srv := a.server(opts.Probes)
		api, err := admin.New(a.service(srv.Draining()))
		if err != nil {
			return nil, err
		}
		srv.HTTP = api.Probes()
	}
	return a, nil
}

// Loopback reports whether an address to listen on is for this machine alone.
func Loopback(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// server makes one more of our own.
func (a *Admin) server(addr string) *router.Server {
	srv := &router.Server{
		Listeners: []router.Listener{{Addr: addr, Plaintext: true}},
		Limits:    router.Limits{Connections: conn.Bounds{Total: adminConns}},
		Drain:     router.Drain{Timeout: adminDrain},
		Log:       a.opts.Log.With("port", "admin"),
	}
	a.servers = append(a.servers, srv)
	return srv
}

// token gives the token of the file, or a new one, which Start writes.
func (a *Admin) token() (string, error) {
	if file := a.opts.TokenFile; file != "" {
		return readToken(file)
	}
	a.made = rand.Text()
	return a.made, nil
}

// tell writes a token that was made into a file that nobody else can read.
func (a *Admin) tell() {
	file, err := a.writeToken()
	if err != nil {
		a.opts.Log.Warn("nobody learns the token of the admin API, so it makes no changes: give admin.token_file", "err", err)
		return
	}
	a.opts.Log.Info("token of the admin API", "file", file)
}

func (a *Admin) writeToken() (string, error) {
	dir := a.opts.TokenDir
	if dir == "" {
		made, err := os.MkdirTemp("", "oneport-admin-") // of a name that nobody can have taken
		if err != nil {
			return "", err
		}
		a.tidy = append(a.tidy, func() { _ = os.Remove(made) }) // it is empty by then
		dir = made
	}
	file := filepath.Join(dir, "admin.token")
	_ = os.Remove(file) // of one that was killed; if it stays, the next line says so
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	a.tidy = slices.Insert(a.tidy, 0, func() { _ = os.Remove(file) }) // it opens nothing any more
	_, err = f.WriteString(a.made + "\n")
	return file, cmp.Or(err, f.Close())
}

// readToken reads and checks the file of a token.
func readToken(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("admin.token_file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("admin.token_file: %s: want one word", file)
	}
	if _, err := admin.NewRules(admin.RulesOptions{Token: token}); err != nil {
		return "", fmt.Errorf("admin.token_file: %s: %w", file, err)
	}
	return token, nil
}

// checkAdmin says what is wrong with the token of a file.
func checkAdmin(cfg *config.Config) error {
	if cfg.Admin == nil || cfg.Admin.TokenFile == "" {
		return nil
	}
	if _, err := readToken(cfg.Admin.TokenFile); err != nil {
		return fmt.Errorf("%s:%d:%d: %w", cfg.File, cfg.Admin.Pos.Line, cfg.Admin.Pos.Col, err)
	}
	return nil
}

// Start listens, and serves until Stop.
func (a *Admin) Start(ctx context.Context) error {
	ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for i, srv := range a.servers {
		at, err := srv.Listen(ctx)
		if err != nil {
			for _, open := range a.servers[:i] {
				for _, l := range open.Listeners {
					_ = l.Listener.Close() // the other error says more
				}
			}
			a.cancel()
			a.addrs = nil
			return fmt.Errorf("admin: %w", err)
		}
		a.addrs = append(a.addrs, at[0].String())
	}
	if a.made != "" {
		a.tell()
	}
	for _, srv := range a.servers {
		a.done.Go(func() {
			if err := srv.ListenAndServe(ctx); err != nil && !errors.Is(err, router.ErrDrainTimeout) {
				a.opts.Log.Error("the admin API has ended", "err", err)
			}
		})
	}
	return nil
}

// Addrs are the addresses of a started Admin: of the API and of the probes, as far as it
// has them.
func (a *Admin) Addrs() []string { return a.addrs }

// Stop ends what Start began, once the server has ended.
func (a *Admin) Stop() {
	a.cancel()
	a.done.Wait()
	for _, f := range a.tidy {
		f()
	}
}

// Drained is closed when an operator wants the process to end.
func (a *Admin) Drained() <-chan struct{} { return a.drain }

// service are the options of the API.
func (a *Admin) service(ending <-chan struct{}) admin.Options {
	o := admin.Options{
		Port: a.opts.Server, Calls: a.calls, Revoker: a.opts.Revoker, Level: a.opts.Level, Profiles: a.opts.PProf, Log: a.opts.Log,
		Ending: ending,
		Drain:  func() { a.once.Do(func() { close(a.drain) }) },
		Checks: a.checks, Limits: a.limits, Routes: a.routes, Upstreams: a.upstreams, Certificates: a.certificates, Stats: a.stats, Metrics: a.metrics.Handler(),
	}
	if e := a.opts.Edge; e != nil {
		o.Config = e.shown
		o.Revocations = e.revocations
		o.Plan = e.planned
	}
	if a.opts.Reload != nil {
		o.Reload = func(ctx context.Context) (*adminv1.ReloadResponse, error) {
			plan, err := a.opts.Reload(ctx)
			switch {
			case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
				return nil, err
			case err != nil:
				return &adminv1.ReloadResponse{Problems: problems(err)}, nil
			}
			return &adminv1.ReloadResponse{Plan: shownPlan(&plan)}, nil
		}
	}
	return o
}
