package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// ClientAuth asks clients for certificates. The zero value does not.
type ClientAuth struct {
	// CAs are who may have signed them; nil asks for none.
	CAs *CASource
	// Required refuses clients without one. Otherwise a certificate is
	// optional, and one that does not verify is still refused.
	Required bool
}

// Options configures Config.
type Options struct {
	ClientAuth ClientAuth
	// NextProtos is the ALPN preference. Nil means h2, then http/1.1.
	NextProtos []string
}

// suites are the TLS 1.2 suites that are forward secret and authenticated.
// TLS 1.3 has no others.
func suites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

// Config builds the tls.Config of a server. src and the client CAs must have
// been loaded; later changes of theirs take effect with the next handshake. If
// src is Challenged, a handshake that is a challenge selects acme-tls/1 and is
// good for nothing else.
func Config(src Source, opts Options) *tls.Config {
	base := clientConfig(src, opts)
	if c, ok := src.(Challenged); ok {
		answerChallenges(base, c)
	}
	return base
}

func clientConfig(src Source, opts Options) *tls.Config {
	base := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		CipherSuites:   suites(),
		NextProtos:     opts.NextProtos,
		GetCertificate: src.Certificate,
	}
	if base.NextProtos == nil {
		base.NextProtos = []string{"h2", "http/1.1"}
	}
	if opts.ClientAuth.CAs == nil {
		return base
	}
	base.ClientAuth = tls.VerifyClientCertIfGiven
	if opts.ClientAuth.Required {
		base.ClientAuth = tls.RequireAndVerifyClientCert
	}
	base.ClientCAs = opts.ClientAuth.CAs.Pool()
	// A reloaded pool needs another tls.Config; one is kept for each pool. It
	// is a clone of base with base's session tickets (crypto/tls sees to that).
	var current atomic.Pointer[tls.Config]
	current.Store(base)
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		cfg, pool := current.Load(), opts.ClientAuth.CAs.Pool()
		if cfg.ClientCAs != pool {
			cfg = base.Clone()
			cfg.ClientCAs = pool
			current.Store(cfg)
		}
		return cfg, nil
	}
	return base
}

// checkTimeout bounds one handshake with ourselves.
const checkTimeout = 5 * time.Second

// Check does handshakes with cfg in memory, as clients would: for every name,
// with each protocol alone and with none. It fails when a handshake does, when
// ALPN selects something else, or when the certificate shown is not for the
// name. It finds what would otherwise be found by users: a GetConfigForClient
// that forgets NextProtos, a key that does not fit.
func Check(cfg *tls.Config, names []string) error {
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		host := strings.Replace(name, "*", "any", 1)
		for _, proto := range append(slices.Clone(cfg.NextProtos), "") {
			if err := checkOne(cfg, host, proto); err != nil {
				return fmt.Errorf("certs: handshake with ourselves as %q, ALPN %q: %w", host, proto, err)
			}
		}
	}
	return nil
}

func checkOne(cfg *tls.Config, host, proto string) error {
	server := cfg.Clone()
	server.ClientAuth = tls.NoClientCert // we have no client certificate to show
	if f := cfg.GetConfigForClient; f != nil {
		server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			own, err := f(hello)
			if own != nil {
				own = own.Clone()
				own.ClientAuth = tls.NoClientCert
			}
			return own, err
		}
	}
	client := &tls.Config{
		ServerName:         host,
		InsecureSkipVerify: true, //nolint:gosec // our own end of a pipe; the name is checked below
	}
	if proto != "" {
		client.NextProtos = []string{proto}
	}

	a, b := net.Pipe()
	deadline := time.Now().Add(checkTimeout)
	_, _ = a.SetDeadline(deadline), b.SetDeadline(deadline) // a pipe's never fail
	done := make(chan error, 1)
	go func() {
		err := tls.Server(b, server).HandshakeContext(context.Background())
		_ = b.Close()
		done <- err
	}()
	tc := tls.Client(a, client)
	err := tc.HandshakeContext(context.Background())
	state := tc.ConnectionState()
	_ = a.Close()
	if serverErr := <-done; serverErr != nil {
		return errors.Join(serverErr, err)
	}
	if err != nil {
		return err
	}
	if state.NegotiatedProtocol != proto {
		return fmt.Errorf("selected %q", state.NegotiatedProtocol)
	}
	if host == "" {
		return nil
	}
	return verifyName(state.PeerCertificates[0], host)
}

// verifyName is VerifyHostname that also takes the old CommonName, which
// leafNames falls back to.
func verifyName(leaf *x509.Certificate, host string) error {
	if err := leaf.VerifyHostname(host); err != nil && !strings.EqualFold(leaf.Subject.CommonName, host) {
		return err
	}
	return nil
}
