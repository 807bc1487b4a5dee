package edge

import (
	"errors"
	"fmt"
	"slices"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/certs/acme"
	"github.com/oneport-edge/oneport/router/config"
)

// encrypted reports whether a listener has TLS.
func encrypted(cfg *config.Config) bool {
	return slices.ContainsFunc(cfg.Listen, func(l config.Listener) bool { return !l.Plaintext })
}

// source is where the file's certificates come from; nil without any.
func source(cfg *config.Config) certs.Source {
	ca, files := authority(cfg), files(cfg)
	switch {
	case !encrypted(cfg):
		return nil
	case cfg.TLS.Dev:
		return certs.Dev("certs/dev")
	case ca != nil && files != nil:
		return certs.Join(files, ca)
	case ca != nil:
		return ca
	case files != nil:
		return files
	}
	return nil
}

// files are those of the file; nil without any.
func files(cfg *config.Config) *certs.FileSource {
	if len(cfg.TLS.Certificates) == 0 {
		return nil
	}
	files := new(certs.FileSource)
	for _, c := range cfg.TLS.Certificates {
		files.Pairs = append(files.Pairs, certs.Pair{Cert: c.Cert, Key: c.Key})
	}
	return files
}

// authority is the CA that is asked for certificates; nil without one.
func authority(cfg *config.Config) *acme.Source {
	a := cfg.TLS.ACME
	if a == nil {
		return nil
	}
	src := &acme.Source{
		Domains: a.Domains, Email: a.Email, CA: a.CA, CARoots: a.CARoots, Storage: a.Storage, Challenges: a.Challenges,
	}
	if a.KeyID != "" {
		src.ExternalAccount = &acme.ExternalAccount{KeyID: a.KeyID, MACKeyFile: a.MACKeyFile}
	}
	return src
}

// checkTLS loads what the file names for TLS. A development certificate is made
// when it is served; a CA is asked when the port is open.
func checkTLS(cfg *config.Config) error {
	if !encrypted(cfg) || cfg.TLS.Dev {
		return nil
	}
	at := fmt.Sprintf("%s:%d:%d: tls", cfg.File, cfg.TLS.Pos.Line, cfg.TLS.Pos.Col)
	var errs []error
	if files := files(cfg); files != nil {
		if err := files.Load(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
		}
	}
	if ca := authority(cfg); ca != nil {
		if err := ca.Check(); err != nil {
			pos := cfg.TLS.ACME.Pos
			errs = append(errs, fmt.Errorf("%s:%d:%d: tls.acme: %w", cfg.File, pos.Line, pos.Col, err))
		}
	}
	if cfg.TLS.ClientCA != "" {
		if err := certs.CAFile(cfg.TLS.ClientCA).Load(); err != nil {
			errs = append(errs, fmt.Errorf("%s.client_ca: %w", at, err))
		}
	}
	return errors.Join(errs...)
}
