package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
)

// Source gives certificates. Load comes first, once; the rest may be called
// concurrently.
type Source interface {
	// Load makes the certificates ready, or says what is wrong with them.
	Load() error
	// Certificate picks the certificate for a handshake.
	Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	// Names lists the host names the certificates are for.
	Names() []string
	// Watch keeps the certificates fresh until ctx ends, and reports to log.
	Watch(ctx context.Context, log *slog.Logger)
}

// ErrNoCertificate is returned for a handshake before Load.
var ErrNoCertificate = errors.New("certs: no certificate is loaded")

// set is an immutable choice of certificates, indexed by name.
type set struct {
	all    []*tls.Certificate
	byName map[string][]*tls.Certificate
	names  []string
}

func newSet(certs []*tls.Certificate) *set {
	s := &set{all: certs, byName: make(map[string][]*tls.Certificate)}
	for _, c := range certs {
		for _, name := range leafNames(c.Leaf) {
			name = strings.ToLower(name)
			if s.byName[name] == nil {
				s.names = append(s.names, name)
			}
			s.byName[name] = append(s.byName[name], c)
		}
	}
	return s
}

func leafNames(leaf *x509.Certificate) []string {
	if len(leaf.DNSNames) == 0 && len(leaf.IPAddresses) == 0 && leaf.Subject.CommonName != "" {
		return []string{leaf.Subject.CommonName}
	}
	return leaf.DNSNames
}

// pick chooses by SNI: the exact name, then the wildcard one label above, then
// any; among those the first whose key and signature the client supports.
func (s *set) pick(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s == nil || len(s.all) == 0 {
		return nil, ErrNoCertificate
	}
	if len(s.all) == 1 {
		return s.all[0], nil
	}
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	candidates := s.byName[name]
	if candidates == nil {
		if _, rest, ok := strings.Cut(name, "."); ok {
			candidates = s.byName["*."+rest]
		}
	}
	if candidates == nil {
		candidates = s.all
	}
	for _, c := range candidates {
		if hello.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	return candidates[0], nil // let the handshake say what is missing
}

// vet parses the leaf if need be and checks that cert can be served at now.
func vet(cert *tls.Certificate, now time.Time) error {
	if len(cert.Certificate) == 0 {
		return errors.New("no certificate")
	}
	if cert.Leaf == nil {
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			return err
		}
		cert.Leaf = leaf
	}
	switch {
	case now.After(cert.Leaf.NotAfter):
		return fmt.Errorf("certificate for %s expired on %s", subject(cert.Leaf), cert.Leaf.NotAfter.Format(time.RFC3339))
	case now.Before(cert.Leaf.NotBefore):
		return fmt.Errorf("certificate for %s is not valid before %s (is the clock right?)", subject(cert.Leaf), cert.Leaf.NotBefore.Format(time.RFC3339))
	}
	return nil
}

func subject(leaf *x509.Certificate) string {
	if names := leafNames(leaf); len(names) > 0 {
		return strings.Join(names, ", ")
	}
	return leaf.Subject.String()
}

// static is a fixed choice of certificates.
type static struct {
	certs []tls.Certificate
	set   atomic.Pointer[set] // several servers may have one source, and load it when they start
}

// Static gives the certificates it is given, by SNI, the first by default.
func Static(certs ...tls.Certificate) Source { return &static{certs: certs} }

func (s *static) Load() error {
	all := make([]*tls.Certificate, len(s.certs))
	for i := range s.certs {
		c := s.certs[i]
		if err := vet(&c, time.Now()); err != nil {
			return fmt.Errorf("certs: %w", err)
		}
		all[i] = &c
	}
	if len(all) == 0 {
		return ErrNoCertificate
	}
	s.set.Store(newSet(all))
	return nil
}

func (s *static) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.set.Load().pick(hello)
}

func (s *static) Names() []string {
	if set := s.set.Load(); set != nil {
		return set.names
	}
	return nil
}

func (s *static) Watch(context.Context, *slog.Logger) {}
