package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newCA(t *testing.T) *certs.CA {
	t.Helper()
	ca, err := certs.NewCA("test CA")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// write puts a new certificate for name into files.
func write(t *testing.T, ca *certs.CA, dir, file, name string) certs.Pair {
	t.Helper()
	cert, err := ca.Server(name)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	p := certs.Pair{Cert: filepath.Join(dir, file+".crt"), Key: filepath.Join(dir, file+".key")}
	for path, block := range map[string]*pem.Block{
		p.Cert: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]},
		p.Key:  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// shown is the certificate that a handshake with cfg shows to a client that
// asks for that name.
func shown(t *testing.T, cfg, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		tls.Server(b, cfg).HandshakeContext(context.Background())
		b.Close()
	}()
	c := tls.Client(a, client)
	err := c.HandshakeContext(t.Context())
	return c.ConnectionState(), err
}

func TestConfig(t *testing.T) {
	ca := newCA(t)
	one, _ := ca.Server("one.test")
	wild, _ := ca.Server("*.two.test")
	src := certs.Static(one, wild)
	if err := src.Load(); err != nil {
		t.Fatal(err)
	}
	cfg := certs.Config(src, certs.Options{})
	if err := certs.Check(cfg, src.Names()); err != nil {
		t.Error(err)
	}
	for sni, want := range map[string]string{
		"one.test": "one.test", "ONE.test": "one.test", "a.two.test": "*.two.test",
		"a.b.two.test": "one.test", "other.test": "one.test", "": "one.test",
	} {
		state, err := shown(t, cfg, &tls.Config{ServerName: sni, InsecureSkipVerify: true, NextProtos: []string{"http/1.1", "h2"}})
		if err != nil {
			t.Errorf("%q: %v", sni, err)
			continue
		}
		if got := state.PeerCertificates[0].DNSNames[0]; got != want || state.NegotiatedProtocol != "h2" || state.Version != tls.VersionTLS13 {
			t.Errorf("%q: shown %s, %s, %s", sni, got, state.NegotiatedProtocol, tls.VersionName(state.Version))
		}
	}
	if _, err := shown(t, cfg, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	if _, err := shown(t, cfg, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}); err == nil {
		t.Error("a CBC suite is spoken")
	}
	if _, err := shown(t, cfg, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
}

// A handshake with ourselves finds what users would find otherwise.
func TestCheckFindsMistakes(t *testing.T) {
	ca := newCA(t)
	one, _ := ca.Server("one.test")
	for name, tc := range map[string]struct {
		change func(*tls.Config)
		names  []string
		want   string
	}{
		"another name": {func(*tls.Config) {}, []string{"two.test"}, "not two.test"},
		"a per-client config without ALPN": {func(c *tls.Config) {
			bare := &tls.Config{Certificates: []tls.Certificate{one}}
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return bare, nil }
		}, []string{"one.test"}, `selected ""`},
		"no certificate": {func(c *tls.Config) {
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, certs.ErrNoCertificate }
		}, []string{"one.test"}, "no certificate is loaded"},
	} {
		src := certs.Static(one)
		if err := src.Load(); err != nil {
			t.Fatal(err)
		}
		cfg := certs.Config(src, certs.Options{})
		tc.change(cfg)
		if err := certs.Check(cfg, tc.names); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	ca, dir := newCA(t), t.TempDir()
	good := write(t, ca, dir, "good", "good.test")
	other := write(t, ca, dir, "other", "other.test")
	garbage := filepath.Join(dir, "garbage")
	os.WriteFile(garbage, []byte("no PEM"), 0o600)
	for name, tc := range map[string]struct {
		src  certs.Source
		want string
	}{
		"missing":    {certs.Files(filepath.Join(dir, "none"), good.Key), "no such file"},
		"mismatched": {certs.Files(good.Cert, other.Key), "private key does not match"},
		"garbage":    {certs.Files(garbage, good.Key), "failed to find any PEM data"},
		"nothing":    {&certs.FileSource{}, "no certificate files"},
		"empty":      {certs.Static(), "no certificate"},
		"expired":    {certs.Static(expired(t)), "expired on"},
	} {
		if err := tc.src.Load(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := certs.Files(good.Cert, good.Key).Certificate(nil); !errors.Is(err, certs.ErrNoCertificate) {
		t.Errorf("before Load: %v", err)
	}
}

// expired gives a certificate whose time is over: a parsed leaf of long ago.
func expired(t *testing.T) tls.Certificate {
	t.Helper()
	cert, err := newCA(t).Server("old.test")
	if err != nil {
		t.Fatal(err)
	}
	leaf := *cert.Leaf
	leaf.NotBefore, leaf.NotAfter = time.Unix(0, 0), time.Unix(1000, 0)
	cert.Leaf = &leaf
	return cert
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
	for end := time.Now().Add(5 * time.Second); !done(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// Changed files are taken, a bad pair is reported once and keeps the old one,
// and a pair is never judged with one of its files replaced.
func TestFilesReload(t *testing.T) {
	ca, dir := newCA(t), t.TempDir()
	src := &certs.FileSource{Pairs: []certs.Pair{write(t, ca, dir, "a", "first.test")}, Every: 5 * time.Millisecond}
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
	name := func() string {
		cfg := certs.Config(src, certs.Options{})
		state, err := shown(t, cfg, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].DNSNames[0]
	}

	write(t, ca, dir, "a", "second.test")
	eventually(t, "the second certificate", func() bool { return name() == "second.test" })

	os.WriteFile(src.Pairs[0].Cert, []byte("half a file"), 0o600)
	eventually(t, "a complaint", func() bool { return log.count("cannot use changed certificates") > 0 })
	os.Remove(src.Pairs[0].Key)
	eventually(t, "a complaint about a missing file", func() bool { return log.count("cannot read certificates") > 0 })
	time.Sleep(50 * time.Millisecond)
	if log.count("cannot use") != 1 || log.count("cannot read") != 1 {
		t.Errorf("complained %d and %d times", log.count("cannot use"), log.count("cannot read"))
	}
	if got := name(); got != "second.test" {
		t.Errorf("a bad pair put %s in use", got)
	}

	write(t, ca, dir, "a", "third.test")
	eventually(t, "the third certificate", func() bool { return name() == "third.test" })
	cancel()
	<-done
}

// Kubernetes swaps a symbolic link.
func TestFilesFollowASymlink(t *testing.T) {
	ca, dir := newCA(t), t.TempDir()
	for _, v := range []string{"v1", "v2"} {
		os.Mkdir(filepath.Join(dir, v), 0o700)
		write(t, ca, filepath.Join(dir, v), "tls", v+".test")
	}
	link := filepath.Join(dir, "..data")
	os.Symlink("v1", link)
	src := &certs.FileSource{Pairs: []certs.Pair{{Cert: filepath.Join(link, "tls.crt"), Key: filepath.Join(link, "tls.key")}}, Every: 5 * time.Millisecond}
	if err := src.Load(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		src.Watch(ctx, slog.New(slog.DiscardHandler))
		close(done)
	}()
	os.Symlink("v2", link+"_tmp")
	os.Rename(link+"_tmp", link)
	eventually(t, "the other link", func() bool { return src.Names()[0] == "v2.test" })
	cancel()
	<-done
}

func TestClientAuth(t *testing.T) {
	ca, strangers := newCA(t), newCA(t)
	server, _ := ca.Server("one.test")
	alice, _ := ca.Client("alice")
	mallory, _ := strangers.Client("mallory")
	src := certs.Static(server)
	if err := src.Load(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		required bool
		client   *tls.Certificate
		ok       bool
	}{
		{false, nil, true},
		{false, &alice, true},
		{false, &mallory, false},
		{true, nil, false},
		{true, &alice, true},
		{true, &mallory, false},
	} {
		cfg := certs.Config(src, certs.Options{ClientAuth: certs.ClientAuth{CAs: certs.CAPool(ca.Pool()), Required: tc.required}})
		client := &tls.Config{RootCAs: ca.Pool(), ServerName: "one.test"}
		if tc.client != nil {
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return tc.client, nil }
		}
		a, b := net.Pipe()
		result := make(chan error, 1)
		go func() {
			result <- tls.Server(b, cfg).HandshakeContext(context.Background())
			b.Close()
		}()
		c := tls.Client(a, client)
		c.HandshakeContext(t.Context())
		go c.Read(make([]byte, 1)) // takes the alert, or the tickets
		if err := <-result; (err == nil) != tc.ok {
			t.Errorf("required %t, certificate %v: %v", tc.required, tc.client != nil, err)
		}
		a.Close()
		if err := certs.Check(cfg, src.Names()); err != nil {
			t.Errorf("the check needs no client certificate: %v", err)
		}
	}
}

// A replaced CA file counts with the next handshake.
func TestClientCAsReload(t *testing.T) {
	first, second, dir := newCA(t), newCA(t), t.TempDir()
	path := filepath.Join(dir, "clients.crt")
	os.WriteFile(path, first.PEM(), 0o600)
	cas := certs.CAFile(path)
	if err := cas.Load(); err != nil {
		t.Fatal(err)
	}
	server, _ := first.Server("one.test")
	src := certs.Static(server)
	src.Load()
	cfg := certs.Config(src, certs.Options{ClientAuth: certs.ClientAuth{CAs: cas, Required: true}})
	old, err := cfg.GetConfigForClient(nil)
	if err != nil || old.ClientCAs != cas.Pool() {
		t.Fatalf("%v, %v", old.ClientCAs, err)
	}
	os.WriteFile(path, second.PEM(), 0o600)
	if err := cas.Load(); err != nil {
		t.Fatal(err)
	}
	now, err := cfg.GetConfigForClient(nil)
	if err != nil || now == old || now.ClientCAs != cas.Pool() || now.ClientAuth != tls.RequireAndVerifyClientCert {
		t.Errorf("after the reload: %+v, %v", now, err)
	}
	if err := certs.CAFile(filepath.Join(dir, "none")).Load(); err == nil {
		t.Error("a missing file is no error")
	}
	os.WriteFile(path, []byte("no PEM"), 0o600)
	if err := cas.Load(); err == nil || cas.Pool() != now.ClientCAs {
		t.Errorf("garbage: %v, and the pool changed: %t", err, cas.Pool() != now.ClientCAs)
	}
}

func TestDev(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs", "dev")
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	dev := certs.Dev(dir)
	if err := dev.Load(); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"ca.key": 0o600, "server.key": 0o600, "ca.crt": 0o644, "server.crt": 0o644, ".": 0o700} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	ca, server := read("ca.crt"), read("server.crt")

	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(ca))
	cfg := certs.Config(dev, certs.Options{})
	for _, host := range []string{"localhost", "127.0.0.1", "::1"} {
		if _, err := shown(t, cfg, &tls.Config{RootCAs: pool, ServerName: host}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}

	// Reused, and with keys made private again.
	os.Chmod(filepath.Join(dir, "server.key"), 0o644)
	if err := certs.Dev(dir).Load(); err != nil || read("server.crt") != server || read("ca.crt") != ca {
		t.Errorf("not reused: %v", err)
	}
	if info, _ := os.Stat(filepath.Join(dir, "server.key")); info.Mode().Perm() != 0o600 {
		t.Errorf("key: %v", info.Mode())
	}
	// Another name needs another certificate, and the CA stays.
	if err := certs.Dev(dir, "dev.example.com").Load(); err != nil || read("server.crt") == server || read("ca.crt") != ca {
		t.Errorf("another host: %v", err)
	}
	server = read("server.crt")
	if err := certs.Dev(dir).Load(); err != nil || read("server.crt") != server {
		t.Errorf("one for more hosts will do: %v", err)
	}
	// A client's certificate is the same CA's.
	pair, err := certs.DevClient(dir, "alice")
	if err != nil {
		t.Fatal(err)
	}
	client, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil || client.Leaf.Subject.CommonName != "alice" {
		t.Errorf("client: %v, %v", client.Leaf.Subject, err)
	}
	// A broken file is said, not overwritten.
	os.WriteFile(filepath.Join(dir, "server.crt"), []byte("mine"), 0o600)
	if err := certs.Dev(dir).Load(); err == nil || !strings.Contains(err.Error(), "remove it") || read("server.crt") != "mine" {
		t.Errorf("a broken file: %v", err)
	}
	// Another CA makes the leaf worthless.
	os.Remove(filepath.Join(dir, "server.crt"))
	os.Remove(filepath.Join(dir, "ca.crt"))
	if err := certs.Dev(dir).Load(); err != nil || read("ca.crt") == ca {
		t.Errorf("after the CA is gone: %v", err)
	}
}
