package main

import (
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/protocols/rest"
)

func proxyCommand() *cobra.Command {
	var opts edge.ProxyOptions
	var format, level string
	var access bool
	var admin adminFlags
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Stand before other servers, on one TLS port, without a configuration file",
		Long: `Stand before other servers on one TLS port: gRPC calls go to one, plain HTTP
requests to another, WebSockets to a third. All may come on one connection. Without --cert and --key
the port has a development certificate.

A server is host:port, for --grpc, or a URL:
  http, https    HTTP/1.1, and with TLS what is negotiated
  h2c, grpc      HTTP/2 in plaintext, with prior knowledge
  grpcs          HTTP/2 with TLS
  grpc+unix:///run/app.sock, http+unix:///run/app.sock    a socket

WebSockets go to --ws, or else to --http if that is an http or https URL.`,
		Example: `  oneport proxy --grpc 127.0.0.1:50051
  oneport proxy --listen :8443 --http http://127.0.0.1:8080 --grpc 127.0.0.1:50051 --ws http://127.0.0.1:8081 --cert tls.crt --key tls.key`,
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
			srv, stop, err := edge.Proxy(opts)
			if err != nil {
				return err
			}
			defer stop()
			api, err := admin.open(srv, log, levelVar)
			if err != nil {
				return err
			}
			return newProcess(log).serve(cmd.Context(), srv, nil, api)
		},
	}
	admin.add(cmd)
	f := cmd.Flags()
	f.StringVar(&opts.Listen, "listen", "127.0.0.1:8443", "address of the TLS port")
	f.StringVar(&opts.Plaintext, "plaintext", "", "address of a plaintext port beside it (HTTP/1 and h2c)")
	f.StringVar(&opts.HTTP, "http", "", "URL of the server of plain HTTP")
	f.StringVar(&opts.GRPC, "grpc", "", "host:port or URL of the server of gRPC")
	f.StringVar(&opts.WebSocket, "ws", "", "URL of the server of WebSockets; --http if that speaks HTTP/1.1")
	f.StringVar(&opts.CertFile, "cert", "", "certificate, PEM; reloaded when it changes")
	f.StringVar(&opts.KeyFile, "key", "", "its key")
	f.StringVar(&opts.CertDir, "certs", "certs/dev", "directory of the development certificates, if --cert is not given")
	f.StringSliceVar(&opts.Hosts, "host", nil, "further names for the development certificate")
	f.BoolVar(&access, "access", true, "write an access line for each call")
	f.StringVar(&format, "log-format", "text", "text or json")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return cmd
}
