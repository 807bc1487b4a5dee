package main

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/protocols/rest"
)

func demoCommand() *cobra.Command {
	var opts edge.DemoOptions
	var format, level string
	var access bool
	var admin adminFlags
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Serve REST, gRPC and WebSocket demo endpoints on one port",
		Long: `Serve everything that is built in on one TLS port, with a development
certificate, and print what to try. A client certificate of the development CA
is optional (make one with: oneport certs --client NAME), and shown by whoami.`,
		Example: `  oneport demo
  oneport demo --listen 0.0.0.0:8443 --host dev.example.com
  oneport demo --plaintext 127.0.0.1:8080     # HTTP/1 and h2c beside it`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, levelVar, err := newLog(cmd.ErrOrStderr(), format, level)
			if err != nil {
				return err
			}
			for name, addr := range map[string]string{"--listen": opts.Listen, "--plaintext": opts.Plaintext, "--admin": admin.listen} {
				if _, _, err := net.SplitHostPort(addr); addr != "" && err != nil {
					return fmt.Errorf("%s %q: want host:port, as 127.0.0.1:8443", name, addr)
				}
			}
			rest.Quiet()
			opts.Log = log
			if access {
				lines, end := edge.Lines(cmd.ErrOrStderr(), format, log)
				defer end()
				opts.Access = lines
			}
			srv, err := edge.Demo(opts)
			if err != nil {
				return exitError{err, exitStart}
			}
			api, err := admin.open(srv, log, levelVar)
			if err != nil {
				return err
			}
			addrs, err := srv.Listen(cmd.Context())
			if err != nil {
				return exitError{err, exitStart}
			}
			opts.Listen = addrs[0].String() // what ":0" became
			if opts.Plaintext != "" {
				opts.Plaintext = addrs[1].String()
			}
			printDemo(cmd.OutOrStdout(), opts, admin.listen)
			return newProcess(log).serve(cmd.Context(), srv, nil, api)
		},
	}
	admin.add(cmd)
	f := cmd.Flags()
	f.StringVar(&opts.Listen, "listen", "127.0.0.1:8443", "address of the TLS port")
	f.StringVar(&opts.Plaintext, "plaintext", "", "address of a plaintext port beside it (HTTP/1 and h2c)")
	f.StringVar(&opts.CertDir, "certs", "certs/dev", "directory of the development certificates")
	f.StringSliceVar(&opts.Hosts, "host", nil, "further names for the certificate")
	f.BoolVar(&opts.Redirect, "redirect", false, "answer plaintext HTTP on the TLS port with 308 instead of 400")
	f.BoolVar(&access, "access", true, "write an access line for each call")
	f.StringVar(&format, "log-format", "text", "text or json")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// printDemo says what to try.
func printDemo(w io.Writer, opts edge.DemoOptions, admin string) {
	ca, err := filepath.Abs(filepath.Join(opts.CertDir, "ca.crt"))
	if err != nil {
		ca = filepath.Join(opts.CertDir, "ca.crt")
	}
	addr := opts.Listen
	if host, port, err := net.SplitHostPort(addr); err == nil {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			addr = net.JoinHostPort("localhost", port)
		}
	}
	lines := []string{
		"oneport demo: REST, gRPC and WebSocket on https://" + addr,
		"",
		"  open       https://" + addr + "/   (trust " + ca + " first, or accept the warning)",
		"",
		"  curl       curl --cacert " + ca + " https://" + addr + "/api/hello",
		"  curl h1    curl --http1.1 --cacert " + ca + " https://" + addr + "/api/whoami",
		"  grpcurl    grpcurl -cacert " + ca + " " + addr + " list",
		"             grpcurl -cacert " + ca + " -d '{\"message\":\"hi\"}' " + addr + " oneport.echo.v1.Echo/Unary",
		"             grpcurl -cacert " + ca + " " + addr + " oneport.echo.v1.Echo/Whoami",
		"  websocket  npx wscat --ca " + ca + " -c wss://" + addr + "/ws",
		"",
	}
	if opts.Plaintext != "" {
		lines = append(lines,
			"  plaintext  curl http://"+opts.Plaintext+"/api/hello",
			"             curl --http2-prior-knowledge http://"+opts.Plaintext+"/api/whoami",
			"             grpcurl -plaintext "+opts.Plaintext+" list",
			"")
	}
	if admin != "" {
		lines = append(lines,
			"  see it     http://"+admin+"/   (or: oneport top --admin "+admin+")",
			"")
	}
	fmt.Fprintln(w, strings.Join(lines, "\n"))
}
