package certs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// reloadEvery is how often files are looked at. Contents are compared, not
// times: a symbolic link that is swapped, as Kubernetes does, keeps them.
const reloadEvery = 2 * time.Second

// Pair is a certificate chain and its key, as PEM files.
type Pair struct{ Cert, Key string }

// FileSource gives certificates from files and follows their changes.
type FileSource struct {
	// Pairs are chosen from by SNI; the first is the default.
	Pairs []Pair
	// Every is how often Watch looks at the files. Zero means 2 s.
	Every time.Duration

	current atomic.Pointer[loaded]
}

// loaded is what was read last, and of what.
type loaded struct {
	set      *set
	contents [][]byte
}

// Files gives the certificate in two PEM files, and follows their changes.
func Files(cert, key string) *FileSource { return &FileSource{Pairs: []Pair{{cert, key}}} }

// Load reads all pairs; one that cannot be used is an error.
func (f *FileSource) Load() error {
	contents, err := f.read()
	if err != nil {
		return err
	}
	s, err := f.parse(contents)
	if err != nil {
		return err
	}
	f.current.Store(&loaded{s, contents})
	return nil
}

func (f *FileSource) read() ([][]byte, error) {
	if len(f.Pairs) == 0 {
		return nil, errors.New("certs: no certificate files are given")
	}
	contents := make([][]byte, 0, 2*len(f.Pairs))
	for _, p := range f.Pairs {
		for _, path := range []string{p.Cert, p.Key} {
			b, err := os.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("certs: %w", err)
			}
			contents = append(contents, b)
		}
	}
	return contents, nil
}

func (f *FileSource) parse(contents [][]byte) (*set, error) {
	all := make([]*tls.Certificate, len(f.Pairs))
	for i, p := range f.Pairs {
		c, err := tls.X509KeyPair(contents[2*i], contents[2*i+1])
		if err == nil {
			err = vet(&c, time.Now())
		}
		if err != nil {
			return nil, fmt.Errorf("certs: %s with key %s: %w", p.Cert, p.Key, err)
		}
		all[i] = &c
	}
	return newSet(all), nil
}

// Certificate picks by SNI.
func (f *FileSource) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	l := f.current.Load()
	if l == nil {
		return nil, ErrNoCertificate
	}
	return l.set.pick(hello)
}

// Names lists the DNS names of all certificates.
func (f *FileSource) Names() []string {
	if l := f.current.Load(); l != nil {
		return l.set.names
	}
	return nil
}

// Watch reloads changed files until ctx ends. What cannot be used is reported
// once, and the certificates in use stay.
func (f *FileSource) Watch(ctx context.Context, log *slog.Logger) {
	watch(ctx, cmp.Or(f.Every, reloadEvery), log, "certificates", f.read,
		func() [][]byte { return f.current.Load().contents },
		func(contents [][]byte) error {
			s, err := f.parse(contents)
			if err == nil {
				f.current.Store(&loaded{s, contents})
			}
			return err
		})
}

// watch polls until ctx ends. A change is taken when it was seen twice in a
// row, so that a pair is not judged with one of its two files replaced.
func watch(ctx context.Context, every time.Duration, log *slog.Logger, what string,
	read func() ([][]byte, error), inUse func() [][]byte, take func([][]byte) error,
) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var seen [][]byte   // what the last look found, if it differed
	var failed [][]byte // what was refused already
	missing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		contents, err := read()
		if err != nil {
			if !missing {
				log.Error("cannot read "+what+", keeping those in use", "err", err)
			}
			missing = true
			continue
		}
		missing = false
		switch {
		case same(contents, inUse()):
			seen, failed = nil, nil
		case same(contents, failed): // reported already
		case !same(contents, seen):
			seen = contents
		default:
			if err := take(contents); err != nil {
				log.Error("cannot use changed "+what+", keeping those in use", "err", err)
				failed = contents
				continue
			}
			log.Info("reloaded " + what)
		}
	}
}

func same(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// CASource is a pool of CA certificates from a file, whose changes it follows.
type CASource struct {
	path    string
	current atomic.Pointer[pool]
}

type pool struct {
	certs    *x509.CertPool
	contents [][]byte
}

// CAFile gives the CA certificates in a PEM file.
func CAFile(path string) *CASource { return &CASource{path: path} }

// CAPool gives a fixed pool.
func CAPool(certs *x509.CertPool) *CASource {
	c := new(CASource)
	c.current.Store(&pool{certs: certs})
	return c
}

// Load reads the file.
func (c *CASource) Load() error {
	if c.path == "" {
		return nil
	}
	contents, err := c.read()
	if err != nil {
		return err
	}
	return c.take(contents)
}

func (c *CASource) read() ([][]byte, error) {
	b, err := os.ReadFile(c.path)
	if err != nil {
		return nil, fmt.Errorf("certs: %w", err)
	}
	return [][]byte{b}, nil
}

func (c *CASource) take(contents [][]byte) error {
	certs := x509.NewCertPool()
	if !certs.AppendCertsFromPEM(contents[0]) {
		return fmt.Errorf("certs: %s: no PEM certificate in it", c.path)
	}
	c.current.Store(&pool{certs, contents})
	return nil
}

// Watch reloads a changed file until ctx ends.
func (c *CASource) Watch(ctx context.Context, log *slog.Logger) {
	if c.path == "" {
		return
	}
	watch(ctx, reloadEvery, log, "client CAs", c.read,
		func() [][]byte { return c.current.Load().contents }, c.take)
}

// Pool is the pool in use; nil before Load.
func (c *CASource) Pool() *x509.CertPool {
	if p := c.current.Load(); p != nil {
		return p.certs
	}
	return nil
}
