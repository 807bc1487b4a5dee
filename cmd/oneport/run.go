package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/oneport-edge/oneport/router/accesslog"
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
	root.AddCommand(demoCommand(), serveCommand(), proxyCommand(), checkCommand(), explainCommand(), doctorCommand(), connsCommand(), topCommand(), reloadCommand(), schemaCommand(), certsCommand(), tokenCommand(), apikeyCommand(), versionCommand())
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

// newLog makes the logger that the flags ask for, and gives its level, which may be changed.
func newLog(w io.Writer, format, level string) (*slog.Logger, *slog.LevelVar, error) {
	l := new(slog.LevelVar)
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(accesslog.Handler(slog.NewTextHandler(w, opts))), l, nil
	case "json":
		return slog.New(accesslog.Handler(slog.NewJSONHandler(w, opts))), l, nil
	}
	return nil, nil, fmt.Errorf("--log-format %q: want text or json", format)
}
