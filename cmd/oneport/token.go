package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/oneport-edge/oneport/router/auth"
)

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make and check tokens (JWT) for tests",
		Long: `Make tokens with a key of your own, to try out what a port lets in, and check
tokens as a port does. In production tokens are an issuer's to make.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 { // perhaps a token: it is not repeated
				return errors.New("token: want make or check")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(tokenMakeCommand(), tokenCheckCommand())
	return cmd
}

// tokenMake are the flags of "oneport token make".
type tokenMake struct {
	key, alg, jwks, public string
	generate               bool
	sub, iss               string
	aud, claims            []string
	ttl                    time.Duration
}

func tokenMakeCommand() *cobra.Command {
	var m tokenMake
	cmd := &cobra.Command{
		Use:   "make",
		Short: "Print a token, signed with a private key",
		Long: `Print a token, signed with a private key in PEM. With --generate the key is made
first, readable by you alone. --jwks and --public write the public key, for those
who check tokens.`,
		Example: `  oneport token make --generate --key token.key --jwks jwks.json --iss https://id.example.com --aud edge --sub alice
  oneport token make --key token.key --iss https://id.example.com --aud edge --sub alice --ttl 5m --claim roles='["admin"]'
  oneport token make --key token.key --iss https://id.example.com --aud edge --sub alice --ttl -1h    # one that has ended`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := m.run()
			if err != nil {
				return exitError{err, exitConfig}
			}
			fmt.Fprintln(cmd.OutOrStdout(), token)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&m.key, "key", "token.key", "the private key, in PEM")
	f.BoolVar(&m.generate, "generate", false, "make the key; a file that is there already is not overwritten")
	f.StringVar(&m.alg, "alg", "", "RS256, PS256, ES256, EdDSA and so on (default the key's; ES256 with --generate)")
	f.StringVar(&m.jwks, "jwks", "", "write the public key to this file, as a JWK set")
	f.StringVar(&m.public, "public", "", "write the public key to this file, in PEM")
	f.StringVar(&m.sub, "sub", "", "the subject: who the token is for")
	f.StringVar(&m.iss, "iss", "", "the issuer")
	f.StringSliceVar(&m.aud, "aud", nil, "the audience; may be repeated")
	f.DurationVar(&m.ttl, "ttl", time.Hour, "how long it is good")
	f.StringArrayVar(&m.claims, "claim", nil, "another claim, as name=value, the value in JSON or a string; may be repeated")
	return cmd
}

func (m *tokenMake) run() (string, error) {
	claims, err := m.body(time.Now())
	if err != nil {
		return "", err
	}
	mint, err := m.mint()
	if err != nil {
		return "", err
	}
	if m.jwks != "" {
		set, err := auth.MarshalJWKS(mint)
		if err == nil {
			err = os.WriteFile(m.jwks, set, 0o644) //nolint:gosec // a public key
		}
		if err != nil {
			return "", err
		}
	}
	if m.public != "" {
		pub, err := mint.PublicPEM()
		if err == nil {
			err = os.WriteFile(m.public, pub, 0o644) //nolint:gosec // a public key
		}
		if err != nil {
			return "", err
		}
	}
	return mint.Sign(claims)
}

// body are the claims that the flags ask for.
func (m *tokenMake) body(now time.Time) (map[string]any, error) {
	claims := map[string]any{"iat": now.Unix(), "exp": now.Add(m.ttl).Unix()}
	for name, v := range map[string]string{"sub": m.sub, "iss": m.iss} {
		if v != "" {
			claims[name] = v
		}
	}
	switch len(m.aud) {
	case 0:
	case 1:
		claims["aud"] = m.aud[0]
	default:
		claims["aud"] = m.aud
	}
	for _, c := range m.claims {
		name, value, ok := strings.Cut(c, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--claim %q: want name=value", c)
		}
		var v any
		if json.Unmarshal([]byte(value), &v) != nil {
			v = value
		}
		claims[name] = v
	}
	return claims, nil
}

// mint reads the key, or makes it.
func (m *tokenMake) mint() (*auth.Mint, error) {
	if m.generate {
		return m.generated()
	}
	b, err := os.ReadFile(m.key)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("--key %s: there is no such file; --generate makes one", m.key)
	}
	if err != nil {
		return nil, err
	}
	key, err := auth.ParsePrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("--key %s: %w", m.key, err)
	}
	mint, err := auth.NewMint(key, m.alg)
	if err != nil {
		return nil, fmt.Errorf("--key %s: %w", m.key, err)
	}
	return mint, nil
}

func (m *tokenMake) generated() (*auth.Mint, error) {
	alg := m.alg
	if alg == "" {
		alg = "ES256"
	}
	key, err := auth.GenerateKey(alg)
	if err != nil {
		return nil, fmt.Errorf("--alg: %w", err)
	}
	b, err := auth.MarshalPrivateKey(key)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(m.key, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("--generate: %s is there already", m.key)
	}
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(b); err != nil {
		_ = f.Close()
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return auth.NewMint(key, alg)
}

// tokenLength bounds what is read from stdin; the guard has a bound of its own.
const tokenLength = 1 << 20

func tokenCheckCommand() *cobra.Command {
	var jwks, key string
	opts := auth.JWTOptions{Cache: -1}
	cmd := &cobra.Command{
		Use:   "check TOKEN | -",
		Short: "Print a token's claims, or why a port refuses it",
		Long: `Check a token as a port does, and print its claims, or the reason for which it
is refused; "-" reads the token from standard input, which keeps it out of the
shell's history. A port tells its clients no reason: it counts and logs it.`,
		Example: `  oneport token check "$TOKEN" --jwks https://id.example.com/jwks.json --issuer https://id.example.com --audience edge
  oneport token check - --key public.pem --issuer https://id.example.com --audience edge < token`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			token := args[0]
			if token == "-" {
				b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), tokenLength))
				if err != nil {
					return exitError{err, exitConfig}
				}
				token = string(b)
			}
			if err := tokenKeys(cmd, &opts, jwks, key); err != nil {
				return exitError{err, exitConfig}
			}
			guard, err := auth.NewJWT(opts)
			if err != nil {
				return exitError{err, exitConfig}
			}
			id, err := guard.Check(cmd.Context(), strings.TrimSpace(token))
			if err != nil {
				return exitError{err, exitConfig}
			}
			out := json.NewEncoder(cmd.OutOrStdout())
			out.SetIndent("", "  ")
			return out.Encode(id.Claims)
		},
	}
	f := cmd.Flags()
	f.StringVar(&jwks, "jwks", "", "the keys: a file with a JWK set, or a URL")
	f.StringVar(&key, "key", "", "the keys: a file with public keys in PEM")
	f.StringVar(&opts.Issuer, "issuer", "", "the issuer that it must be of")
	f.StringSliceVar(&opts.Audience, "audience", nil, "the audience that it must be for; one of several suffices")
	f.StringSliceVar(&opts.Algorithms, "algorithms", nil, "the algorithms that are allowed (default all asymmetric ones)")
	cmd.MarkFlagsOneRequired("jwks", "key")
	cmd.MarkFlagsMutuallyExclusive("jwks", "key")
	for _, name := range []string{"issuer", "audience"} {
		_ = cmd.MarkFlagRequired(name) // fails for flags that there are not
	}
	return cmd
}

// tokenKeys reads the keys to check with.
func tokenKeys(cmd *cobra.Command, opts *auth.JWTOptions, jwks, key string) error {
	if key != "" {
		set, err := auth.ReadKeys(key)
		opts.Keys = set
		return err
	}
	if strings.Contains(jwks, "://") {
		keys, err := auth.NewJWKS(auth.JWKSOptions{URL: jwks})
		if err == nil {
			err = keys.Fetch(cmd.Context())
		}
		opts.Keys = keys
		if err != nil {
			err = fmt.Errorf("--jwks: %w", err)
		}
		return err
	}
	b, err := os.ReadFile(jwks)
	if err != nil {
		return err
	}
	set, err := auth.KeysFromJWKS(b)
	opts.Keys = set
	if err != nil {
		err = fmt.Errorf("%s: %w", jwks, err)
	}
	return err
}
