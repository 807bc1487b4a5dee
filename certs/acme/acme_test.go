package acme_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/certs/acme"
)

// certmagic looks for a lock for up to five seconds after it has been released.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"))
}

var _ certs.Challenged = new(acme.Source)

const ca = "https://ca.test/dir"

// stored is where a certificate of ca is stored.
func stored(dir, name, ext string) string {
	return filepath.Join(dir, "certificates", "ca.test-dir", name, name+ext)
}

// put stores a certificate as an instance that shares dir would.
func put(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	authority, err := certs.NewCA("test CA")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Server(name)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for ext, block := range map[string]*pem.Block{
		".crt": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, ".key": {Type: "PRIVATE KEY", Bytes: key}, ".json": {Type: "X"},
	} {
		write(t, stored(dir, name, ext), pem.EncodeToMemory(block))
	}
	return cert.Leaf
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// shake does a handshake in memory.
func shake(t *testing.T, cfg, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		_ = tls.Server(b, cfg).HandshakeContext(context.Background()) // the client tells what became of it
		_ = b.Close()
	}()
	c := tls.Client(a, client)
	err := c.HandshakeContext(t.Context())
	return c.ConnectionState(), err
}

func names(sni string, protos ...string) *tls.Config {
	return &tls.Config{ServerName: sni, InsecureSkipVerify: true, NextProtos: protos}
}

func TestDomain(t *testing.T) {
	for in, want := range map[string]string{
		"example.com": "example.com", "WWW.Example.COM.": "www.example.com", "_x.a-b.example": "_x.a-b.example", "xn--ber-goa.example": "xn--ber-goa.example",
		"*.example.com": "", "localhost": "", "10.0.0.1": "", "über.example": "", "-a.example": "", "a..example": "", "": "", "a b.example": "",
		strings.Repeat("a", 64) + ".example": "", strings.Repeat("abcdefgh.", 30) + "example": "",
	} {
		if got, err := acme.Domain(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

// Load and Check refuse the same, and Check leaves nothing behind.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	garbage, file := filepath.Join(dir, "garbage"), filepath.Join(dir, "file")
	write(t, garbage, []byte("no PEM, no key"))
	write(t, file, nil)
	one := []string{"one.test"}
	for name, tc := range map[string]struct {
		src  *acme.Source
		want string
	}{
		"no domains":   {&acme.Source{}, "no domains"},
		"wildcard":     {&acme.Source{Domains: []string{"*.one.test"}}, "wildcard"},
		"challenge":    {&acme.Source{Domains: one, Challenges: []string{"dns-01"}}, `"dns-01"`},
		"plaintext CA": {&acme.Source{Domains: one, CA: "http://ca.test/dir"}, "https URL"},
		"no roots":     {&acme.Source{Domains: one, CARoots: filepath.Join(dir, "none")}, "no such file"},
		"bad roots":    {&acme.Source{Domains: one, CARoots: garbage}, "no PEM certificate"},
		"no MAC key":   {&acme.Source{Domains: one, ExternalAccount: &acme.ExternalAccount{KeyID: "k", MACKeyFile: filepath.Join(dir, "none")}}, "no such file"},
		"bad MAC key":  {&acme.Source{Domains: one, ExternalAccount: &acme.ExternalAccount{KeyID: "k", MACKeyFile: garbage}}, "base64url"},
		"storage":      {&acme.Source{Domains: one, Storage: filepath.Join(file, "acme")}, "not a directory"},
	} {
		for method, err := range map[string]error{"Check": tc.src.Check(), "Load": tc.src.Load()} {
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: %s: %v", name, method, err)
			}
		}
	}
	storage := filepath.Join(dir, "a", "b")
	src := &acme.Source{Domains: one, Storage: storage}
	if err := src.Check(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(storage)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Check has made something: %v", err)
	}
	if err := src.Load(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(storage); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the storage: %v, %v", info, err)
	}
	if left, err := os.ReadDir(storage); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What is stored is served for its name; other names get an alert.
func TestStored(t *testing.T) {
	dir := t.TempDir()
	two := put(t, dir, "two.test")
	write(t, stored(dir, "three.test", ".crt"), []byte("half a file"))
	write(t, stored(dir, "three.test", ".key"), []byte("half a file"))
	src := &acme.Source{Domains: []string{"one.test", "Two.test", "three.test"}, CA: ca, Storage: dir}
	if err := src.Load(); err != nil {
		t.Fatal(err)
	}
	if got := src.Names(); len(got) != 1 || got[0] != "two.test" {
		t.Errorf("names: %v", got)
	}
	cfg := certs.Config(src, certs.Options{})
	if err := certs.Check(cfg, src.Names()); err != nil {
		t.Error(err)
	}
	for sni, ok := range map[string]bool{"two.test": true, "TWO.test": true, "": true, "one.test": false, "three.test": false, "a.two.test": false, "other.test": false} {
		state, err := shake(t, cfg, names(sni, "h2"))
		switch {
		case ok && (err != nil || !state.PeerCertificates[0].Equal(two)):
			t.Errorf("%q: %v", sni, err)
		case !ok && (err == nil || !strings.Contains(err.Error(), "unrecognized name")):
			t.Errorf("%q: %v", sni, err)
		}
	}
}

// A challenge that another instance was set is answered, for our domains, and
// nothing else is.
func TestChallenges(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "one.test")
	src := &acme.Source{Domains: []string{"one.test"}, CA: ca, Storage: dir}
	if err := src.Load(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one.test", "other.test"} {
		for _, kind := range []string{acme.HTTP01, acme.TLSALPN01} {
			file, err := json.Marshal(map[string]any{
				"type": kind, "token": "token", "keyAuthorization": "token.thumb", "identifier": map[string]string{"type": "dns", "value": name},
			})
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "acme", "ca.test-dir", "challenges", kind, name+".json"), file)
		}
	}
	const path = "/.well-known/acme-challenge/"
	for _, tc := range []struct {
		host, path string
		ok         bool
	}{
		{"one.test", path + "token", true},
		{"ONE.test:80", path + "token", true},
		{"one.test.", path + "token", true},
		{"one.test", path + "other", false},
		{"one.test", path, false},
		{"other.test", path + "token", false},
		{"../../one.test", path + "token", false},
		{"", path + "token", false},
	} {
		text, ok := src.ChallengeText(t.Context(), tc.host, tc.path)
		if ok != tc.ok || ok && text != "token.thumb" {
			t.Errorf("%q %q: %q, %t", tc.host, tc.path, text, ok)
		}
	}

	// A client certificate is not asked for.
	cfg := certs.Config(src, certs.Options{ClientAuth: certs.ClientAuth{CAs: certs.CAPool(x509.NewCertPool()), Required: true}})
	for _, tc := range []struct {
		sni    string
		protos []string
		ok     bool
	}{
		{"one.test", []string{"acme-tls/1"}, true},
		{"other.test", []string{"acme-tls/1"}, false},
		{"", []string{"acme-tls/1"}, false},
		{"one.test", []string{"acme-tls/1", "h2"}, false},
	} {
		state, err := shake(t, cfg, names(tc.sni, tc.protos...))
		if got := err == nil && state.NegotiatedProtocol == "acme-tls/1"; got != tc.ok {
			t.Errorf("%q, %v: %q, %v", tc.sni, tc.protos, state.NegotiatedProtocol, err)
		} else if tc.ok && !hasChallenge(state.PeerCertificates[0]) {
			t.Error("the certificate answers no challenge")
		}
	}
}

// hasChallenge reports whether a certificate has the extension of RFC 8737.
func hasChallenge(cert *x509.Certificate) bool {
	for _, e := range cert.Extensions {
		if e.Id.String() == "1.3.6.1.5.5.7.1.31" {
			return e.Critical
		}
	}
	return false
}

// journal is a log that tests can look at.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) count(s string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.b.String(), s)
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// Without a CA, Watch says so once for each attempt, and ends when its context
// does; a handshake without a certificate is logged once, however many there are.
func TestWatchWithoutCA(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close() // nobody listens there
	src := &acme.Source{Domains: []string{"one.test", "two.test"}, CA: "https://" + ln.Addr().String() + "/dir", Storage: t.TempDir()}
	if err := src.Load(); err != nil {
		t.Fatal(err)
	}
	var log journal
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		src.Watch(ctx, slog.New(slog.NewTextHandler(&log, nil)))
		close(done)
	}()
	eventually(t, "both failures", func() bool { return log.count("no certificate could be had") == 2 })
	cfg := certs.Config(src, certs.Options{})
	for range 3 {
		if _, err := shake(t, cfg, names("one.test")); err == nil {
			t.Fatal("a handshake without a certificate succeeds")
		}
	}
	if n := log.count("handshake refused"); n != 1 {
		t.Errorf("a missing certificate is in the log %d times", n)
	}
	cancel()
	<-done
	if n := log.count("level=ERROR"); n != 2 || log.count("connection refused") != 2 {
		t.Errorf("%d errors: %s", n, log.b.String())
	}
	if log.count("certmagic") > 0 {
		t.Errorf("a library speaks to the operator: %s", log.b.String())
	}
}

// What another instance has stored is taken.
func TestWatchTakesWhatOthersStored(t *testing.T) {
	dir := t.TempDir()
	src := &acme.Source{Domains: []string{"one.test"}, CA: ca, Storage: dir}
	if err := src.Load(); err != nil {
		t.Fatal(err)
	}
	leaf := put(t, dir, "one.test")
	var log journal
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		src.Watch(ctx, slog.New(slog.NewTextHandler(&log, nil)))
		close(done)
	}()
	eventually(t, "the certificate", func() bool { return len(src.Names()) == 1 })
	state, err := shake(t, certs.Config(src, certs.Options{}), names("one.test"))
	if err != nil || !state.PeerCertificates[0].Equal(leaf) {
		t.Error(err)
	}
	cancel()
	<-done
	if log.count("level=ERROR") > 0 || log.count("certificate in use") != 1 {
		t.Error(log.b.String())
	}
}
