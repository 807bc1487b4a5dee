package certs

import (
	"crypto/tls"
	"fmt"
)

// ClientOptions say how servers elsewhere are known, and what they are shown.
// The zero value trusts the system's authorities and shows nothing.
type ClientOptions struct {
	// CAFile is a PEM file of the authorities that sign servers' certificates,
	// instead of the system's.
	CAFile string
	// ServerName is the name that certificates must be for; "" for the host that
	// is dialed.
	ServerName string
	// CertFile and KeyFile are shown to servers that ask for a certificate.
	CertFile, KeyFile string
}

// Client gives the tls.Config of a client. The files are read once, now.
func Client(opts ClientOptions) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: opts.ServerName}
	if opts.CAFile != "" {
		ca := CAFile(opts.CAFile)
		if err := ca.Load(); err != nil {
			return nil, err
		}
		cfg.RootCAs = ca.Pool()
	}
	if opts.CertFile != "" || opts.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(opts.CertFile, opts.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("certs: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
