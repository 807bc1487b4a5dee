package acme

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
)

// The challenges of Source.Challenges.
const (
	TLSALPN01 = "tls-alpn-01"
	HTTP01    = "http-01"
)

// Defaults of Source.
const (
	// LetsEncrypt is the directory of its production CA.
	LetsEncrypt = certmagic.LetsEncryptProductionCA
	// DefaultStorage is relative to the working directory.
	DefaultStorage = "certs/acme"
)

// Source is a certs.Source whose certificates come from a CA. Fill in the
// fields before calling any method. Load comes first, once; the rest may be
// called concurrently.
type Source struct {
	// Domains are host names, each of which gets a certificate of its own; the
	// first is for clients that name none. At least one; no wildcards.
	Domains []string

	// Email is what the CA may write to; it is optional for most.
	Email string

	// CA is the URL of the CA's directory. "" means Let's Encrypt.
	CA string

	// CARoots is a PEM file of the roots that the CA's own server is verified
	// with, for a private one. "" means those of the system.
	CARoots string

	// Storage is the directory of keys, certificates, the account and locks.
	// It is made if need be, readable by the user alone. Instances may share
	// it. "" means DefaultStorage.
	Storage string

	// Challenges are tried in this order. Nil means TLSALPN01, then HTTP01.
	Challenges []string

	// ExternalAccount is an account that the CA has given you by other means,
	// if it asks for one (RFC 8555, 7.3.4).
	ExternalAccount *ExternalAccount

	storage *certmagic.FileStorage
	roots   *x509.CertPool
	macKey  string // of ExternalAccount
	sites   []*site
	byName  map[string]*site
	log     atomic.Pointer[slog.Logger] // Watch's

	mu      sync.Mutex        // guards answers
	answers map[string]answer // by kind and domain: to the challenges of this instance's orders
}

// ExternalAccount is an account outside of ACME.
type ExternalAccount struct {
	KeyID      string
	MACKeyFile string // a file of its key, in base64url
}

// site is one domain.
type site struct {
	name    string
	current atomic.Pointer[tls.Certificate]
	warned  atomic.Int64 // when a handshake without a certificate was logged last, in Unix seconds
}

// domain is a host name as certificates have it.
var domain = regexp.MustCompile(`^([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Domain gives the name in the form of certificates: in lower case and without
// a dot at the end. It says what is wrong with one that cannot have a certificate.
func Domain(name string) (string, error) {
	s := strings.ToLower(strings.TrimSuffix(name, "."))
	switch {
	case strings.Contains(s, "*"):
		return "", fmt.Errorf("%q: a wildcard needs the DNS challenge, which is not spoken here", name)
	case strings.IndexFunc(s, func(r rune) bool { return r > 127 }) >= 0:
		return "", fmt.Errorf("%q: write it in ASCII, with xn--", name)
	case len(s) > 253 || !domain.MatchString(s) || strings.Trim(s[strings.LastIndexByte(s, '.')+1:], "0123456789") == "":
		return "", fmt.Errorf("%q is no domain: want a host name, as example.com", name)
	}
	return s, nil
}

// init checks the fields. Nothing is written.
func (s *Source) init() error {
	if len(s.Domains) == 0 {
		return errors.New("certs/acme: no domains")
	}
	s.byName, s.sites = make(map[string]*site), nil
	for _, d := range s.Domains {
		name, err := Domain(d)
		if err != nil {
			return fmt.Errorf("certs/acme: %w", err)
		}
		if s.byName[name] == nil {
			s.byName[name] = &site{name: name}
			s.sites = append(s.sites, s.byName[name])
		}
	}
	for _, kind := range s.Challenges {
		if kind != TLSALPN01 && kind != HTTP01 {
			return fmt.Errorf("certs/acme: challenge %q: want %s or %s", kind, TLSALPN01, HTTP01)
		}
	}
	if u, err := url.Parse(s.ca()); err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("certs/acme: CA %q: want the https URL of its directory", s.CA)
	}
	if e := s.ExternalAccount; e != nil {
		key, err := os.ReadFile(e.MACKeyFile)
		if err != nil {
			return fmt.Errorf("certs/acme: external account: %w", err)
		}
		s.macKey = strings.TrimRight(strings.TrimSpace(string(key)), "=")
		if _, err := base64.RawURLEncoding.DecodeString(s.macKey); err != nil || s.macKey == "" {
			return fmt.Errorf("certs/acme: external account: %s: want a key in base64url", e.MACKeyFile)
		}
	}
	return s.readRoots()
}

func (s *Source) readRoots() error {
	if s.CARoots != "" {
		pem, err := os.ReadFile(s.CARoots)
		if err != nil {
			return fmt.Errorf("certs/acme: %w", err)
		}
		s.roots = x509.NewCertPool()
		if !s.roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("certs/acme: %s: no PEM certificate in it", s.CARoots)
		}
	}
	return nil
}

func (s *Source) ca() string { return cmp.Or(s.CA, LetsEncrypt) }

func (s *Source) directory() string { return cmp.Or(s.Storage, DefaultStorage) }

// Check says what would keep Load from succeeding. It asks no CA and leaves
// nothing behind, so that another user than the server's may call it.
func (s *Source) Check() error {
	if err := s.init(); err != nil {
		return err
	}
	dir, err := filepath.Abs(s.directory())
	if err != nil {
		return fmt.Errorf("certs/acme: %w", err)
	}
	for { // the directory, or the nearest above it that there is
		if _, err = os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	return writable(dir)
}

// writable makes a file in dir and removes it.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".writable.*")
	if err != nil {
		return fmt.Errorf("certs/acme: storage: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Load makes the storage ready and takes the certificates that are in it.
// There need be none: it asks no CA.
func (s *Source) Load() error {
	if err := s.init(); err != nil {
		return err
	}
	dir := s.directory()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("certs/acme: storage: %w", err)
	}
	if err := writable(dir); err != nil {
		return err
	}
	s.storage = &certmagic.FileStorage{Path: dir}
	s.answers = make(map[string]answer)
	for _, site := range s.sites {
		if cert, err := s.stored(context.Background(), site.name); err == nil {
			site.current.Store(cert)
		} // what cannot be used is Watch's business
	}
	return nil
}

// stored reads a domain's certificate; fs.ErrNotExist if there is none.
func (s *Source) stored(ctx context.Context, name string) (*tls.Certificate, error) {
	chain, err := s.storage.Load(ctx, certmagic.StorageKeys.SiteCert(s.issuerKey(), name))
	if err != nil {
		return nil, err
	}
	key, err := s.storage.Load(ctx, certmagic.StorageKeys.SitePrivateKey(s.issuerKey(), name))
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, err
	}
	return &cert, cert.Leaf.VerifyHostname(name)
}

// issuerKey is what certificates of this CA are stored under.
func (s *Source) issuerKey() string {
	_, rest, _ := strings.Cut(s.ca(), "://")
	return certmagic.StorageKeys.Safe(strings.ReplaceAll(strings.TrimSuffix(rest, "/"), "/", "-"))
}

// Certificate gives the certificate of the domain that the client names. It
// gives none for other names and for a domain without a certificate yet, which
// crypto/tls answers with the alert "unrecognized name".
func (s *Source) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if hello.ServerName == "" {
		for _, site := range s.sites {
			if cert := site.current.Load(); cert != nil {
				return cert, nil
			}
		}
		return nil, nil //nolint:nilnil // as documented
	}
	site := s.byName[strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))]
	if site == nil {
		return nil, nil //nolint:nilnil // as documented
	}
	cert := site.current.Load()
	if cert == nil {
		s.missing(site)
	}
	return cert, nil
}

// complainEvery is how often a missing certificate is logged: any stranger can
// ask for it.
const complainEvery = 60

func (s *Source) missing(site *site) {
	log, now, last := s.log.Load(), time.Now().Unix(), site.warned.Load()
	if log != nil && now-last >= complainEvery && site.warned.CompareAndSwap(last, now) {
		log.Warn("handshake refused, no certificate yet", "domain", site.name)
	}
}

// Names lists the domains that have a certificate.
func (s *Source) Names() []string {
	var names []string
	for _, site := range s.sites {
		if site.current.Load() != nil {
			names = append(names, site.name)
		}
	}
	return slices.Clip(names)
}
