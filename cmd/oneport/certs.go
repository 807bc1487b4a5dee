package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/oneport-edge/oneport/certs"
)

func certsCommand() *cobra.Command {
	var out, client string
	var hosts []string
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "Make a local CA and a development certificate",
		Long: `Make a local CA and a certificate signed by it, for localhost, the loopback
addresses and further names: ca.crt, server.crt, server.key. What is there and
still good is kept; keys are readable by you alone. Not for production.`,
		Example: `  oneport certs
  oneport certs --out certs/dev --host dev.example.com --host 192.0.2.7
  oneport certs --client alice        # client.crt and client.key for mutual TLS`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dev := certs.Dev(out, hosts...)
			if err := dev.Load(); err != nil {
				return exitError{err, exitStart}
			}
			w := cmd.OutOrStdout()
			fmt.Fprintln(w, "CA          ", dev.CACert())
			fmt.Fprintln(w, "certificate ", dev.Pairs[0].Cert)
			fmt.Fprintln(w, "key         ", dev.Pairs[0].Key)
			if client != "" {
				pair, err := certs.DevClient(out, client)
				if err != nil {
					return exitError{err, exitStart}
				}
				fmt.Fprintln(w, "client      ", pair.Cert)
				fmt.Fprintln(w, "client key  ", pair.Key)
			}
			ca, err := filepath.Abs(dev.CACert())
			if err != nil {
				return exitError{err, exitStart}
			}
			fmt.Fprintf(w, "\nTo trust it on Debian and Ubuntu (and undo it by removing the file):\n"+
				"  sudo cp %s /usr/local/share/ca-certificates/oneport-dev.crt && sudo update-ca-certificates\n"+
				"On macOS:\n  security add-trusted-cert -k ~/Library/Keychains/login.keychain-db %s\n", ca, ca)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&out, "out", "certs/dev", "directory to keep them in")
	f.StringSliceVar(&hosts, "host", nil, "further names or addresses for the certificate")
	f.StringVar(&client, "client", "", "also make a client certificate with this common name")
	return cmd
}
