package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/internal/systemd"
	"github.com/oneport-edge/oneport/router"
)

const (
	// drainTimeout is router's own, if a server has none.
	drainTimeout = 30 * time.Second
	// endTime is how long the process may take to end once it has drained.
	endTime = 5 * time.Second
)

// process connects a server to what has started it.
type process struct {
	log *slog.Logger
	sd  *systemd.Notifier // nil without systemd
}

// newProcess opens the way to systemd, if there is one, and bounds memory.
func newProcess(log *slog.Logger) *process {
	sd, err := systemd.Dial(os.Getenv, os.Getpid())
	if err != nil {
		log.Warn("systemd will not learn how this goes", "err", err)
	}
	boundMemory(log)
	return &process{log: log, sd: sd}
}

// serve runs srv until SIGINT or SIGTERM and gives its error a code. A second
// signal ends the drain. The admin API, which may be nil, ends after it. Sockets of systemd become srv's listeners, by the names or by address.
func (p *process) serve(ctx context.Context, srv *router.Server, names []string, admin *edge.Admin) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer p.sd.Close()

	sockets, err := systemd.Sockets(os.Getenv, os.Getpid())
	if err != nil {
		p.log.Error("systemd's sockets", "err", err)
	}
	edge.Adopt(ctx, srv.Listeners, names, sockets, p.log)

	var drained <-chan struct{}
	if admin != nil { // first: it is asked whether the port serves yet
		if err := admin.Start(ctx); err != nil {
			return exitError{err, exitStart}
		}
		defer admin.Stop()
		drained = admin.Drained()
	}
	done := make(chan error, 1)
	go func() { done <- srv.ListenAndServe(ctx) }()
	alive, stop := p.alive()
	defer stop()
	for serving := srv.Serving(); ; {
		select {
		case <-serving:
			serving = nil
			p.sd.Ready("serving " + addresses(srv))
		case <-alive:
			srv.Stats() // takes the locks that everything takes: who hangs there is not alive
			p.sd.Alive()
		case sig := <-signals:
			if ctx.Err() != nil {
				p.log.Warn("second signal, ending at once", "signal", sig.String())
				srv.Close()
				continue
			}
			p.log.Info("signal, draining; a second one ends at once", "signal", sig.String())
			p.sd.Stopping(cmp.Or(srv.Drain.Timeout, drainTimeout)+endTime, "draining")
			cancel()
		case <-drained:
			drained = nil
			p.log.Info("draining, an operator says so; a signal ends at once")
			p.sd.Stopping(cmp.Or(srv.Drain.Timeout, drainTimeout)+endTime, "draining")
			cancel()
		case err := <-done:
			return coded(err)
		}
	}
}

// alive ticks as often as systemd's watchdog wants to hear of this process; never without one.
func (p *process) alive() (tick <-chan time.Time, stop func()) {
	if p.sd == nil || p.sd.Watchdog <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(p.sd.Watchdog)
	return t.C, t.Stop
}

// coded gives what Serve returned its exit code.
func coded(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, router.ErrDrainTimeout):
		return exitError{err, exitDrain}
	default:
		return exitError{err, exitStart}
	}
}

// addresses are those of a server that serves.
func addresses(srv *router.Server) string {
	var list []string
	for _, l := range srv.Listeners {
		if l.Listener != nil {
			list = append(list, l.Listener.Addr().String())
		}
	}
	return strings.Join(list, ", ")
}
