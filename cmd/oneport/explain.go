package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/router/config"
)

func explainCommand() *cobra.Command {
	var file string
	var q edge.Question
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain URL | SERVICE/METHOD",
		Short: "Say which route of a configuration file takes a call, and why",
		Long: `Say which route of a configuration file takes a call, where it goes, how long
that may take, and why the routes before do not take it. Nothing is sent.

A URL with ws or wss is a WebSocket's; pkg.Service/Method is a gRPC call. Of
an https URL the host is also the server name of the connection, even if
-H 'Host: ...' gives the request another.`,
		Example: `  oneport explain -c oneport.yaml https://example.com/api/users
  oneport explain -c oneport.yaml helloworld.Greeter/SayHello
  oneport explain -c oneport.yaml wss://example.com/ws
  oneport explain -c oneport.yaml -X POST -H 'X-Env: canary' https://example.com/api/`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return exitError{err, exitConfig}
			}
			q.Target = args[0]
			x, err := edge.Explain(cfg, q)
			if err != nil {
				return exitError{err, exitConfig}
			}
			if asJSON {
				out := json.NewEncoder(cmd.OutOrStdout())
				out.SetIndent("", "  ")
				return out.Encode(x)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), x.Text(file))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "config", "c", "oneport.yaml", "the file")
	f.StringArrayVarP(&q.Header, "header", "H", nil, "a field of the request, 'Name: value'; may be repeated")
	f.StringVarP(&q.Method, "request", "X", "", "the method")
	f.BoolVar(&q.WebSocket, "ws", false, "the URL is a WebSocket's")
	f.BoolVar(&q.GRPC, "grpc", false, "the URL is of a gRPC call")
	f.BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}
