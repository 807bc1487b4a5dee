package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/oneport-edge/oneport/internal/console"
)

// apiFlags say which admin API to ask.
type apiFlags struct{ addr, tokenFile string }

func (f *apiFlags) add(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&f.addr, "admin", "127.0.0.1:9901", "address of the admin API")
	cmd.PersistentFlags().StringVar(&f.tokenFile, "token-file", "", "file with its token: for changes, and where it is not on loopback")
}

// ask has f ask the API; a signal ends it in good order.
func (f *apiFlags) ask(cmd *cobra.Command, do func(*cobra.Command, *console.Client) error) error {
	token := ""
	if f.tokenFile != "" {
		file, err := os.Open(f.tokenFile)
		if err != nil {
			return exitError{fmt.Errorf("--token-file: %w", err), exitConfig}
		}
		b, err := io.ReadAll(io.LimitReader(file, 64<<10))
		_ = file.Close() // it was only read
		if err != nil {
			return exitError{fmt.Errorf("--token-file: %w", err), exitConfig}
		}
		if token = strings.TrimSpace(string(b)); token == "" || strings.ContainsAny(token, " \t\r\n") {
			return exitError{fmt.Errorf("--token-file: %s: want one word", f.tokenFile), exitConfig}
		}
	}
	c, err := console.Dial(f.addr, token)
	if err != nil {
		return exitError{err, exitConfig}
	}
	defer func() { _ = c.Close() }() // it was closed, or it is gone
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd.SetContext(ctx)
	if err := do(cmd, c); err != nil {
		return exitError{err, exitConfig}
	}
	return nil
}

// width is that of the terminal that stdout is; 0 if it is none.
func width(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		return console.Width(f)
	}
	return 0
}

func connsCommand() *cobra.Command {
	var api apiFlags
	var q console.Query
	var filter, user, route, state, protocol, remote, upstream string
	var watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "conns",
		Short: "List the connections of a running port, or end some",
		Long: `List the open connections of a running port, with the calls that are open on
each, over its admin API (--admin of "oneport demo" and "oneport proxy", or admin.listen in a
file). Filters must all fit. Looking needs no token on loopback; changes do.`,
		Example: `  oneport conns --state active --protocol grpc --sort bytes_out
  oneport conns --user alice --watch
  oneport conns --json | jq '.connections[].remote'
  oneport conns kill 4HMWJV-1 --token-file admin.token
  oneport conns kill --user https://id.example.com/alice --revoke 1h --token-file admin.token`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var parts []string
			for name, value := range map[string]string{"user": user, "route": route, "state": state, "protocol": protocol, "remote": remote, "upstream": upstream} {
				if strings.ContainsAny(value, " \t") {
					return exitError{fmt.Errorf("--%s %q: want no spaces", name, value), exitConfig}
				}
				if value != "" {
					parts = append(parts, name+"="+value)
				}
			}
			filter = strings.Join(parts, " ")
			q.Filter, q.Width = console.Filter(filter), width(cmd.OutOrStdout())
			return api.ask(cmd, func(cmd *cobra.Command, c *console.Client) error {
				if watch {
					return c.Watch(cmd.Context(), cmd.OutOrStdout(), q, every)
				}
				return c.List(cmd.Context(), cmd.OutOrStdout(), q)
			})
		},
	}
	api.add(cmd)
	f := cmd.Flags()
	f.StringVar(&protocol, "protocol", "", "with a call of http, grpc or websocket")
	f.StringVar(&user, "user", "", "with a call of this subject")
	f.StringVar(&state, "state", "", "opening, handshake, idle, active, upgraded or tunnel")
	f.StringVar(&remote, "remote", "", "from this address or range, as 192.0.2.0/24")
	f.StringVar(&route, "route", "", "with a call that this route has taken")
	f.StringVar(&upstream, "upstream", "", "with a call at this upstream")
	f.StringVar(&q.Sort, "sort", "", "accepted, bytes_in, bytes_out, calls or remote (default accepted, the oldest first)")
	f.IntVar(&q.Limit, "limit", 0, "how many, at most 1000 (default 100)")
	f.BoolVar(&watch, "watch", false, "list them again and again")
	f.DurationVar(&every, "every", 2*time.Second, "with --watch: how often, from 0.5s to 60s")
	f.BoolVar(&q.JSON, "json", false, "print JSON, with --watch a line each")
	cmd.AddCommand(connsKillCommand(&api), connsRevocationsCommand(&api), connsUnrevokeCommand(&api))
	return cmd
}

func connsKillCommand(api *apiFlags) *cobra.Command {
	var k console.KillRequest
	var user, issuer string
	cmd := &cobra.Command{
		Use:   "kill [ID]",
		Short: "End a connection, or the open calls of a user or at an upstream",
		Long: `End a connection by its id, with all that is on it; or the open calls of a user, over
REST, gRPC and WebSocket; or the calls at an upstream, whose clients come back. With
--revoke the user's credentials are refused for so long as well, but for tokens that are issued
later: it needs the issuer.`,
		Example: `  oneport conns kill 4HMWJV-1 --token-file admin.token
  oneport conns kill --user alice --token-file admin.token
  oneport conns kill --user https://id.example.com/alice --revoke 1h --token-file admin.token
  oneport conns kill --user 'a/b' --issuer keys --token-file admin.token
  oneport conns kill --upstream app --token-file admin.token`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				k.ID = args[0]
			}
			n := 0
			for _, given := range []string{k.ID, user, k.Upstream} {
				if given != "" {
					n++
				}
			}
			k.Issuer, k.Subject = identity(issuer, user)
			switch {
			case n != 1:
				return exitError{errors.New("say what to end: an id, --user or --upstream"), exitConfig}
			case k.Revoke != 0 && user == "":
				return exitError{errors.New("--revoke goes with --user"), exitConfig}
			}
			return api.ask(cmd, func(cmd *cobra.Command, c *console.Client) error {
				return c.Kill(cmd.Context(), cmd.OutOrStdout(), k)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&user, "user", "", "ISSUER/SUBJECT, or SUBJECT of any issuer")
	f.StringVar(&issuer, "issuer", "", "the issuer, where the subject has a slash: the iss of tokens, or keys, mtls, forward")
	f.StringVar(&k.Upstream, "upstream", "", "name of an upstream")
	f.DurationVar(&k.Revoke, "revoke", 0, "refuse the user's credentials for so long, from 1s to 24h")
	return cmd
}

// identity reads ISSUER/SUBJECT: an issuer is a URL as a rule, so that the last slash counts.
func identity(issuer, user string) (string, string) {
	if issuer != "" {
		return issuer, user
	}
	if i := strings.LastIndexByte(user, '/'); i >= 0 {
		return user[:i], user[i+1:]
	}
	return "", user
}

func connsRevocationsCommand(api *apiFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "revocations",
		Short: "List whose credentials are refused",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return api.ask(cmd, func(cmd *cobra.Command, c *console.Client) error {
				return c.Revocations(cmd.Context(), cmd.OutOrStdout(), asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func connsUnrevokeCommand(api *apiFlags) *cobra.Command {
	var issuer string
	cmd := &cobra.Command{
		Use:     "unrevoke ISSUER/SUBJECT",
		Short:   "Lift a revocation before its time",
		Example: `  oneport conns unrevoke https://id.example.com/alice --token-file admin.token`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			iss, subject := identity(issuer, args[0])
			if iss == "" || subject == "" {
				return exitError{fmt.Errorf("%q: want ISSUER/SUBJECT, as the list of revocations has them", args[0]), exitConfig}
			}
			return api.ask(cmd, func(cmd *cobra.Command, c *console.Client) error {
				return c.Unrevoke(cmd.Context(), cmd.OutOrStdout(), iss, subject)
			})
		},
	}
	cmd.Flags().StringVar(&issuer, "issuer", "", "the issuer, where the subject has a slash")
	return cmd
}

func topCommand() *cobra.Command {
	var api apiFlags
	var opts console.TopOptions
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch a running port: throughput, connections, upstreams",
		Long: `Watch a running port over its admin API, anew each second: calls, errors and
latency of each protocol, connections by state, upstreams, and the busiest connections.

Keys: q ends it, s changes the order, / filters (words that must stand in a line, or state=,
protocol=, user=, remote=, route=, upstream=), Esc lifts the filter, arrows and page keys
choose a connection. Without a terminal, or with --once, it prints lines.`,
		Example: `  oneport top
  oneport top --admin 127.0.0.1:9902 --filter 'protocol=grpc alice'
  oneport top --once`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opts.Every < 100*time.Millisecond {
				return exitError{fmt.Errorf("--every %v: want at least 100ms", opts.Every), exitConfig}
			}
			opts.Out = cmd.OutOrStdout()
			opts.In, _ = cmd.InOrStdin().(*os.File)
			return api.ask(cmd, func(cmd *cobra.Command, c *console.Client) error { return c.Top(cmd.Context(), opts) })
		},
	}
	api.add(cmd)
	f := cmd.Flags()
	f.BoolVar(&opts.Once, "once", false, "print one view, and end")
	f.StringVar(&opts.Filter, "filter", "", "what to begin with, as after /")
	f.DurationVar(&opts.Every, "every", time.Second, "how often to look")
	return cmd
}
