package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/oneport-edge/oneport/router"
)

// Exit codes, a contract: a supervisor must not restart on exitConfig.
const (
	exitOK     = 0
	exitConfig = 1 // bad flags, bad configuration
	exitStart  = 2 // could not start, or a listener broke
	exitDrain  = 3 // the drain did not finish in time
)

// exitError gives an error its exit code.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

// run is the program: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "oneport",
		Short:         "REST, gRPC and WebSocket on one TLS port",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(demoCommand(), serveCommand(), proxyCommand(), checkCommand(), explainCommand(), reloadCommand(), schemaCommand(), certsCommand(), versionCommand())
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "oneport:", err)
	if coded, ok := errors.AsType[exitError](err); ok {
		return coded.code
	}
	fmt.Fprintln(stderr, "Run 'oneport --help' for the commands and their flags.")
	return exitConfig
}

// serve runs srv until SIGINT or SIGTERM and gives its error a code. A second
// signal ends the drain.
func serve(ctx context.Context, srv *router.Server, log *slog.Logger) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	done := make(chan error, 1)
	go func() { done <- srv.ListenAndServe(ctx) }()
	for {
		select {
		case sig := <-signals:
			if ctx.Err() != nil {
				log.Warn("second signal, ending at once", "signal", sig.String())
				srv.Close()
				continue
			}
			log.Info("signal, draining; a second one ends at once", "signal", sig.String())
			cancel()
		case err := <-done:
			switch {
			case err == nil:
				return nil
			case errors.Is(err, router.ErrDrainTimeout):
				return exitError{err, exitDrain}
			default:
				return exitError{err, exitStart}
			}
		}
	}
}

// newLog makes the logger that the flags ask for.
func newLog(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", format)
}
