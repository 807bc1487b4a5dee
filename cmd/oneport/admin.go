package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/config"
)

// adminFlags are those of commands without a file.
type adminFlags struct{ listen, tokenFile string }

func (f *adminFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.listen, "admin", "", "loopback address of the admin API, as 127.0.0.1:9901")
	cmd.Flags().StringVar(&f.tokenFile, "admin-token", "", "file with its token; without one a token is made, and the log says where")
}

// open gives the admin API of a server; nil if it is not wanted.
func (f *adminFlags) open(srv *router.Server, log *slog.Logger, level *slog.LevelVar) (*edge.Admin, error) {
	if f.listen == "" {
		if f.tokenFile != "" {
			return nil, errors.New("--admin-token goes with --admin")
		}
		return nil, nil //nolint:nilnil // none is wanted
	}
	if !edge.Loopback(f.listen) {
		return nil, errors.New("--admin: want a loopback address, as 127.0.0.1:9901; a file may say more")
	}
	file := f.tokenFile
	if file != "" {
		var err error
		if file, err = filepath.Abs(file); err != nil {
			return nil, err
		}
	}
	return edge.NewAdmin(edge.AdminOptions{
		Admin: config.Admin{Listen: f.listen, TokenFile: file}, Server: srv, Version: version, Commit: revision(), Level: level, TokenDir: runtimeDir(), Log: log,
	})
}

// runtimeDir is the folder that systemd has made for what lasts as long as the process.
func runtimeDir() string {
	dirs := filepath.SplitList(os.Getenv("RUNTIME_DIRECTORY"))
	if len(dirs) == 0 {
		return ""
	}
	return dirs[0]
}

// outcome is what became of loading a file.
type outcome struct {
	status string // for systemctl
	plan   edge.Plan
	err    error
}

// reloads ask who watches the file to load it.
type reloads chan chan<- outcome

// reloadTime is how long one who asks waits.
const reloadTime = 30 * time.Second

// ask has the file loaded, and waits for what becomes of it.
func (r reloads) ask(ctx context.Context) (edge.Plan, error) {
	ctx, cancel := context.WithTimeout(ctx, reloadTime)
	defer cancel()
	answer := make(chan outcome, 1)
	select {
	case r <- answer:
	case <-ctx.Done():
		return edge.Plan{}, ctx.Err()
	}
	select {
	case o := <-answer:
		return o.plan, o.err
	case <-ctx.Done():
		return edge.Plan{}, ctx.Err()
	}
}

// adminOf gives the admin API of a file; nil if it has none.
func adminOf(cfg *config.Config, e *edge.Edge, asks reloads, log *slog.Logger, level *slog.LevelVar) (*edge.Admin, error) {
	if cfg.Admin == nil {
		return nil, nil //nolint:nilnil // none is wanted
	}
	return edge.NewAdmin(edge.AdminOptions{Admin: *cfg.Admin, Edge: e, Version: version, Commit: revision(), Reload: asks.ask, Level: level, TokenDir: runtimeDir(), Log: log})
}
