package main

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oneport-edge/oneport/internal/doctor"
)

// Exit codes of "oneport doctor": as a check's, not as a server's.
const (
	exitFaults      = 1
	exitUnreachable = 2
)

func doctorCommand() *cobra.Command {
	var opts doctor.Options
	var ca string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor HOST:PORT",
		Short: "Dial a TLS port as its clients do, and say what fails and why",
		Long: `Dial a TLS port, of any server, as curl with HTTP/1 and HTTP/2, a gRPC client, a
client without ALPN, a WebSocket client and a browser do, and say what works, what
does not, and why: TLS and the certificate, ALPN, REST and gRPC on one connection,
trailers, upgrades, silent clients, time-outs.

Nothing is sent but ordinary requests (GET and POST to --path and to --grpc-method, an
upgrade at --ws-path), a large header, some garbage, and connections that say nothing. What
is not there is skipped, with the reason; WebSockets and gRPC methods that are named
must be there.

It ends with 0 if nothing fails, 1 if something does, and 2 if nobody is there.`,
		Example: `  oneport doctor 127.0.0.1:8443 --ca certs/dev/ca.crt
  oneport doctor example.com:443 --ws-path /socket --grpc-method helloworld.Greeter/SayHello
  oneport doctor example.com:443 --from grpc,browser --timeout 10s
  oneport doctor 10.0.0.7:443 --server-name example.com --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Address = args[0]
			if ca != "" {
				pem, err := os.ReadFile(ca)
				if err != nil {
					return exitError{fmt.Errorf("--ca: %w", err), exitFaults}
				}
				opts.CAs = x509.NewCertPool()
				if !opts.CAs.AppendCertsFromPEM(pem) {
					return exitError{fmt.Errorf("--ca: %s has no certificate in PEM", ca), exitFaults}
				}
			}
			report, err := doctor.Run(cmd.Context(), opts)
			switch {
			case errors.Is(err, doctor.ErrUnreachable):
				return exitError{err, exitUnreachable}
			case err != nil:
				return exitError{err, exitFaults}
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				err = enc.Encode(report)
			} else {
				_, err = fmt.Fprint(cmd.OutOrStdout(), report.Text())
			}
			if n := report.Count(doctor.Fail); err == nil && n > 0 {
				return exitError{fmt.Errorf("%d of %d checks fail", n, len(report.Checks)), exitFaults}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&opts.From, "from", nil, "clients to be, of "+strings.Join(doctor.Clients(), ",")+" (default all)")
	f.BoolVar(&opts.Insecure, "insecure", false, "do not ask which CA has issued the certificate")
	f.StringVar(&ca, "ca", "", "file of the CAs that may have issued it, in PEM (default the system's)")
	f.StringVar(&opts.ServerName, "server-name", "", "name to ask for, and of the certificate (default HOST)")
	f.StringVar(&opts.Path, "path", "", "path of an ordinary request (default /)")
	f.StringVar(&opts.WebSocketPath, "ws-path", "", "path of a WebSocket (default /ws, where none need be)")
	f.StringVar(&opts.GRPCMethod, "grpc-method", "", "unary method that takes an empty message, as pkg.Service/Method (default the health service's, which need not be there)")
	f.DurationVar(&opts.Timeout, "timeout", 0, "how long each answer is waited for, and the longest silence that is measured (default 5s)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
