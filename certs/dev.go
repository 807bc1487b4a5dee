package certs

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// devRenew is how early before its expiry a development certificate is replaced.
const devRenew = 14 * 24 * time.Hour

// DevSource is a certificate for development: signed by a local CA of its own,
// kept in a directory, reused until it nears its expiry.
type DevSource struct {
	FileSource
	dir   string
	hosts []string
}

// Dev gives a certificate for localhost, the loopback addresses and hosts, in
// dir: ca.crt (to be trusted by clients), server.crt and the keys. What is
// missing, near its expiry or not for all hosts is made by Load; keys are
// readable by the user alone.
func Dev(dir string, hosts ...string) *DevSource {
	return &DevSource{dir: dir, hosts: hosts}
}

// CACert is the path of the CA's certificate.
func (d *DevSource) CACert() string { return filepath.Join(d.dir, "ca.crt") }

// Load makes what is missing and loads it.
func (d *DevSource) Load() error {
	ca, err := openCA(d.dir)
	if err != nil {
		return err
	}
	hosts := append([]string{"localhost", "127.0.0.1", "::1"}, d.hosts...)
	covered := func(leaf *x509.Certificate) bool {
		return !slices.ContainsFunc(hosts, func(h string) bool { return leaf.VerifyHostname(h) != nil })
	}
	pair := Pair{filepath.Join(d.dir, "server.crt"), filepath.Join(d.dir, "server.key")}
	err = reuse(pair, devRenew,
		func(leaf *x509.Certificate) bool { return ca.signed(leaf) && covered(leaf) },
		func() (tls.Certificate, error) { return ca.Server(hosts...) })
	if err != nil {
		return err
	}
	d.Pairs = []Pair{pair}
	return d.FileSource.Load()
}

// DevClient makes a client certificate with that common name in dir, signed by
// the same CA, and returns its files.
func DevClient(dir, name string) (Pair, error) {
	ca, err := openCA(dir)
	if err != nil {
		return Pair{}, err
	}
	pair := Pair{filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key")}
	return pair, reuse(pair, devRenew,
		func(leaf *x509.Certificate) bool { return ca.signed(leaf) && leaf.Subject.CommonName == name },
		func() (tls.Certificate, error) { return ca.Client(name) })
}

// openCA opens the CA in dir, or makes one.
func openCA(dir string) (*CA, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("certs: %w", err)
	}
	pair := Pair{filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")}
	// Old enough to outlive none of its leaves: time for another.
	err := reuse(pair, 2*leafValid,
		func(leaf *x509.Certificate) bool { return leaf.IsCA },
		func() (tls.Certificate, error) {
			ca, err := NewCA("oneport development CA")
			if err != nil {
				return tls.Certificate{}, err
			}
			return ca.cert, nil
		})
	if err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		return nil, fmt.Errorf("certs: %w", err)
	}
	return &CA{cert}, nil
}

// reuse sees to it that pair holds a certificate that stays valid for another
// left and that wanted accepts, made anew if need be.
func reuse(pair Pair, left time.Duration, wanted func(*x509.Certificate) bool, renew func() (tls.Certificate, error)) error {
	cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	switch {
	case err == nil && time.Now().Add(left).Before(cert.Leaf.NotAfter) && wanted(cert.Leaf):
		return os.Chmod(pair.Key, 0o600)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("certs: %s: %w (remove it to have it made anew)", pair.Cert, err)
	}
	if cert, err = renew(); err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	err = cmp.Or(
		writeFile(pair.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600),
		writeFile(pair.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o644),
	)
	if err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	return nil
}

// writeFile replaces a file as a whole, so that nobody reads half of it.
func writeFile(path string, content []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = cmp.Or(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
