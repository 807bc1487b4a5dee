package main

import (
	"github.com/spf13/cobra"

	"github.com/oneport-edge/oneport/router/config"
)

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of a configuration file",
		Long: `Print the JSON Schema (draft 2020-12) of a configuration file, for editors that
complete and check while you write. "oneport check" knows more.`,
		Example: `  oneport schema > oneport.schema.json
  # and as the first line of oneport.yaml:
  # yaml-language-server: $schema=oneport.schema.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Schema())
			return err
		},
	}
}
