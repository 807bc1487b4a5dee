package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/oneport-edge/oneport/router/auth"
)

func apikeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "apikey NAME",
		Short: "Make an API key",
		Long: `Make an API key for NAME: letters, digits and . _ @ -. The key is for the client, and
is shown this once; the line is for the file of keys, which has its SHA-256 only.
A name may have several keys, so that a new one can take an old one's place.`,
		Example: `  oneport apikey ci
  # what goes to the file goes to stdout, the key to stderr:
  oneport apikey ci >> keys.txt`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, line, err := auth.NewAPIKey(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), key)
			fmt.Fprintln(cmd.OutOrStdout(), line)
			return nil
		},
	}
}
