package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/router/config"
)

func reloadCommand() *cobra.Command {
	var file, old, pidFile string
	var pid int
	var plan bool
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Check a configuration file and have a running server load it, or say what that would change",
		Long: `Check a configuration file as "oneport check" does, and send SIGHUP to the server
of --pid or --pid-file. Its log says what became of it.

With --plan nothing is sent: it says which routes and upstreams a file leaves
untouched, changes, removes and adds, compared with --old, and what takes effect
at the next start only. What a running server has loaded it does not tell; --old is
the file that you know it has: a copy, or out of version control. Paths in it are
relative to the folder of the new one.`,
		Example: `  oneport reload -c oneport.yaml --pid-file /run/oneport.pid
  oneport reload --plan -c new.yaml --old oneport.yaml
  git show HEAD:oneport.yaml | oneport reload --plan -c oneport.yaml --old -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf(plan, old != "", pid != 0, pidFile != ""); err != nil {
				return exitError{err, exitConfig}
			}
			cfg, err := config.Load(file)
			if err == nil {
				err = edge.Check(cfg)
			}
			if err != nil {
				return exitError{err, exitConfig}
			}
			out := cmd.OutOrStdout()
			for _, w := range cfg.Warnings {
				fmt.Fprintln(out, "warning:", w.Error())
			}
			if plan {
				was, err := loadOld(old, file, cmd.InOrStdin())
				if err != nil {
					return exitError{err, exitConfig}
				}
				p := edge.Compare(was, cfg)
				if p.Nothing() {
					fmt.Fprintln(out, "nothing changes")
					return nil
				}
				_, err = fmt.Fprint(out, p.Text())
				return err
			}
			if pid, err = readPID(pid, pidFile); err != nil {
				return exitError{err, exitConfig}
			}
			if err := hangUp(pid); err != nil {
				return exitError{err, exitStart}
			}
			fmt.Fprintf(out, "%s: fine; SIGHUP sent to %d, whose log says what became of it\n", file, pid)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "config", "c", "oneport.yaml", "the file")
	f.BoolVar(&plan, "plan", false, "say what would change, and change nothing")
	f.StringVar(&old, "old", "", "with --plan: the file to compare with; - reads it")
	f.IntVar(&pid, "pid", 0, "process of the server")
	f.StringVar(&pidFile, "pid-file", "", "file with the process of the server")
	return cmd
}

// oneOf says what is wrong with a choice of flags.
func oneOf(plan, old, pid, pidFile bool) error {
	switch {
	case plan && (pid || pidFile):
		return errors.New("--plan sends nothing: leave out --pid and --pid-file")
	case plan && !old:
		return errors.New("--plan compares with --old: give the file that the server has loaded, or - to read it")
	case old && !plan:
		return errors.New("--old goes with --plan")
	case !plan && pid == pidFile:
		return errors.New("say which server: --pid or --pid-file; or what would change, with --plan")
	}
	return nil
}

// loadOld reads what a file is compared with, as if it stood in its place.
func loadOld(old, file string, stdin io.Reader) (*config.Config, error) {
	var text []byte
	var err error
	if old == "-" {
		if text, err = io.ReadAll(io.LimitReader(stdin, 2<<20)); err != nil { // Parse refuses more than 1 MiB
			return nil, fmt.Errorf("--old: %w", err)
		}
		old = "stdin"
	} else if text, err = config.Read(old); err != nil {
		return nil, err
	}
	return config.ParseIn(filepath.Dir(file), old, text)
}

// readPID gives the process to tell.
func readPID(pid int, file string) (int, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		if pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
			return 0, fmt.Errorf("%s: want the number of a process", file)
		}
	}
	if pid < 2 { // 0 and what is below are groups, 1 is init
		return 0, fmt.Errorf("%d is no process of a server", pid)
	}
	return pid, nil
}

// hangUp sends SIGHUP.
func hangUp(pid int) error {
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Signal(syscall.SIGHUP)
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	return nil
}
