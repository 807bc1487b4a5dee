package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/protocols/rest"
	"github.com/oneport-edge/oneport/router/config"
)

func serveCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Stand before other servers, as a file says",
		Long: `Stand before other servers on one TLS port, as a configuration file says
(docs/configuration.md). SIGHUP, or a change of the file, loads it again: calls
in flight go on, a file with mistakes changes nothing. SIGTERM drains.`,
		Example: `  oneport check -c oneport.yaml && oneport serve -c oneport.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP) // from the start: it would end the process
			defer signal.Stop(hup)
			text, err := config.Read(file)
			if err != nil {
				return exitError{err, exitConfig}
			}
			cfg, err := config.Parse(file, text)
			if err != nil {
				return exitError{err, exitConfig}
			}
			log, level, err := newLog(cmd.ErrOrStderr(), cfg.Log.Format, cfg.Log.Level)
			if err != nil {
				return exitError{err, exitConfig}
			}
			for _, w := range cfg.Warnings {
				log.Warn(w.Error())
			}
			rest.Quiet()
			p := newProcess(log)
			e, err := edge.Serve(cfg, log, nil)
			if err != nil {
				return exitError{err, exitConfig}
			}
			defer e.Close()
			if err := e.LogTo(cmd.ErrOrStderr()); err != nil {
				return exitError{err, exitStart}
			}
			asks := make(reloads)
			api, err := adminOf(cfg, e, asks, log, level)
			if err != nil {
				return exitError{err, exitConfig}
			}
			if err := e.Open(cmd.Context()); err != nil {
				return exitError{err, exitStart}
			}
			ctx, cancel := context.WithCancel(cmd.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				p.watchFile(ctx, file, text, hup, asks, e)
			}()
			defer func() {
				cancel()
				<-ended
			}()
			return p.serve(ctx, e.Server, e.Sockets, api)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "oneport.yaml", "the file")
	return cmd
}

func checkCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say everything that is wrong with a configuration file",
		Long: `Read a configuration file as "oneport serve" does, load its certificates, and
say everything that is wrong as file:line:col. The exit code is 1 if anything is.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return exitError{err, exitConfig}
			}
			for _, w := range cfg.Warnings {
				fmt.Fprintln(cmd.OutOrStdout(), "warning:", w.Error())
			}
			if err := edge.Check(cfg); err != nil {
				return exitError{err, exitConfig}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: fine: %d listeners, %d upstreams, %d routes\n", file, len(cfg.Listen), len(cfg.Upstreams), len(cfg.Routes))
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "oneport.yaml", "the file")
	return cmd
}

// lookEvery is how often the file is looked at. A change counts when it was
// seen twice, so that a file that is being written is not read.
const lookEvery = 2 * time.Second

// watchFile loads the file again at SIGHUP, when asks wants it, and when it has changed from the text
// that was loaded, from the moment that the port serves.
func (p *process) watchFile(ctx context.Context, file string, loaded []byte, hup <-chan os.Signal, asks reloads, e *edge.Edge) {
	select {
	case <-ctx.Done():
		return
	case <-e.Server.Serving():
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	w := &watched{file: file, loaded: loaded, tried: loaded, seen: loaded, edge: e, log: p.log}
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			p.sd.Reloading()
			p.sd.Reloaded(w.look(true).status)
		case answer := <-asks:
			p.sd.Reloading()
			o := w.look(true)
			p.sd.Reloaded(o.status)
			answer <- o // it has room
		case <-look.C:
			if o := w.look(false); o.status != "" {
				p.sd.Status(o.status)
			}
		}
	}
}

// watched is the file, and what was seen of it.
type watched struct {
	file                string
	loaded, tried, seen []byte
	edge                *edge.Edge
	log                 *slog.Logger
}

// look loads the file if it has changed, or says so if it was asked for. It gives what
// systemctl status is to show; nothing if there was nothing to do.
func (w *watched) look(asked bool) outcome {
	text, err := config.Read(w.file)
	if err != nil {
		if !asked {
			return outcome{} // someone is replacing it
		}
		w.edge.LoadFailed(err)
		w.log.Error("configuration not loaded, the old one stays", "file", w.file, "err", err)
		return outcome{status: "serving; the configuration cannot be read, the old one stays", err: err}
	}
	steady := bytes.Equal(text, w.seen)
	w.seen = text
	if !asked && (!steady || bytes.Equal(text, w.tried)) {
		return outcome{}
	}
	w.tried = text
	same := bytes.Equal(text, w.loaded)
	if same && !asked {
		w.log.Info("configuration unchanged", "file", w.file)
		return outcome{status: unchanged}
	}
	o := reload(w.file, text, same, w.edge, w.log)
	if o.err == nil {
		w.loaded = text
	}
	return o
}

// What systemctl status shows of a reload.
const (
	loaded    = "serving; configuration loaded"
	unchanged = "serving; configuration unchanged"
	mistakes  = "serving; the configuration has mistakes, the old one stays"
)

// reload loads a file; same says that its text is the one that is in effect. The files of
// keys that it names may have changed all the same.
func reload(file string, text []byte, same bool, e *edge.Edge, log *slog.Logger) outcome {
	cfg, err := config.Parse(file, text)
	var plan edge.Plan
	if err != nil {
		e.LoadFailed(err)
	} else {
		plan, err = e.Reload(cfg)
	}
	if err != nil {
		var bad *config.Error
		if !errors.As(err, &bad) {
			log.Error("configuration not loaded, the old one stays", "err", err)
			return outcome{status: mistakes, err: err}
		}
		for _, problem := range bad.Problems {
			log.Error("configuration not loaded, the old one stays", "err", problem.Error())
		}
		return outcome{status: mistakes, err: err}
	}
	if same && len(plan.Guards) == 0 {
		log.Info("configuration unchanged", "file", file)
		return outcome{status: unchanged, plan: plan}
	}
	for _, w := range cfg.Warnings {
		log.Warn(w.Error())
	}
	if len(plan.Restart) > 0 {
		log.Warn("some changes take effect at the next start", "keys", strings.Join(plan.Restart, ", "))
	}
	log.Info("configuration loaded", append([]any{"file", file, "upstreams", len(cfg.Upstreams), "routes", len(cfg.Routes)}, plan.Attrs()...)...)
	return outcome{status: loaded, plan: plan}
}
