//go:build suites

package suites

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a program that runs until the test ends, or stop.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	out  *output
	end  sync.Once
}

// output is what a program has printed.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) count(s string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Count(o.b.String(), s)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func startProcess(t *testing.T, env []string, path string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: filepath.Base(path), cmd: exec.Command(path, args...), out: new(output)}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s printed:\n%s", p.name, p.out)
		}
	})
	return p
}

// stop ends the program. oneport must end cleanly, and soon.
func (p *process) stop() {
	p.end.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		late := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
		err := p.cmd.Wait()
		if !late.Stop() || p.name == "oneport" && err != nil {
			p.t.Errorf("%s did not end cleanly: %v", p.name, err)
		}
	})
}

// freePort is one that nobody listens on just now.
func freePort(t *testing.T) int {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func await(t *testing.T, within time.Duration, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// ca is a pebble, and the DNS server it asks: all names are this machine.
type ca struct {
	t            *testing.T
	dir          string
	api, admin   int // ports
	http, tls    int // the ports it validates at
	dns          string
	validSeconds int
	macKeys      map[string]string // external accounts, required if there are any
	*process
}

func newCA(t *testing.T) *ca {
	t.Helper()
	c := &ca{
		t: t, dir: filepath.Dir(devCerts(t).CACert()), api: freePort(t), admin: freePort(t), http: freePort(t), tls: freePort(t),
		validSeconds: 7776000, dns: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
	}
	startProcess(t, nil, program(t, "pebble-challtestsrv"), "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dnsserver", c.dns,
		"-management", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
	return c
}

// start starts a pebble that knows nothing.
func (c *ca) start() {
	c.t.Helper()
	cfg := map[string]any{"pebble": map[string]any{
		"listenAddress":                  fmt.Sprintf("127.0.0.1:%d", c.api),
		"managementListenAddress":        fmt.Sprintf("127.0.0.1:%d", c.admin),
		"certificate":                    filepath.Join(c.dir, "server.crt"),
		"privateKey":                     filepath.Join(c.dir, "server.key"),
		"httpPort":                       c.http,
		"tlsPort":                        c.tls,
		"keyAlgorithm":                   "ecdsa",
		"retryAfter":                     map[string]int{"authz": 1, "order": 1},
		"profiles":                       map[string]any{"default": map[string]any{"description": "d", "validityPeriod": c.validSeconds}},
		"externalAccountBindingRequired": len(c.macKeys) > 0,
		"externalAccountMACKeys":         c.macKeys,
	}}
	b, err := json.Marshal(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	file := filepath.Join(c.dir, "pebble.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		c.t.Fatal(err)
	}
	// Each order is validated, and at once; a few nonces are refused, as pebble does by default.
	env := []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0"}
	c.process = startProcess(c.t, env, program(c.t, "pebble"), "-config", file, "-dnsserver", c.dns)
	await(c.t, 20*time.Second, "pebble listens", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.api))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// roots are what it signs with.
func (c *ca) roots() *x509.CertPool {
	c.t.Helper()
	trust, err := os.ReadFile(filepath.Join(c.dir, "ca.crt"))
	if err != nil {
		c.t.Fatal(err)
	}
	own := x509.NewCertPool()
	own.AppendCertsFromPEM(trust)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: own}}}
	defer client.CloseIdleConnections()
	pool := x509.NewCertPool()
	await(c.t, 10*time.Second, "pebble's root", func() bool {
		res, err := client.Get(fmt.Sprintf("https://localhost:%d/roots/0", c.admin))
		if err != nil {
			return false
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return err == nil && pool.AppendCertsFromPEM(b)
	})
	return pool
}

func (c *ca) issued() int { return c.out.count("Issued certificate serial") }

// edgeOptions are what differs between the edges of the tests.
type edgeOptions struct {
	tls        int    // its TLS port; the one that the CA validates at by default
	plain      int    // a plaintext port beside it; 0 for none
	storage    string // a new one by default
	challenges string // "[http-01]"; both by default
	roots      string // ca_roots; the CA's by default
	more       string // of tls.acme
	tlsMore    string // of tls
}

const acmeDomain = "www.example.test"

// oneport is the binary, built once.
var oneport = sync.OnceValues(func() (string, error) {
	path := filepath.Join(built, "oneport")
	cmd := exec.Command("go", "build", "-tags", "nomsgpack", "-o", path, "../../cmd/oneport")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// serve starts "oneport serve" before nothing, with certificates of the CA.
func (c *ca) serve(t *testing.T, o edgeOptions) (p *process, file string) {
	t.Helper()
	path, err := oneport()
	if err != nil {
		t.Fatal(err)
	}
	if o.tls == 0 {
		o.tls = c.tls
	}
	if o.roots == "" {
		o.roots = filepath.Join(c.dir, "ca.crt")
	}
	if o.storage == "" {
		o.storage = filepath.Join(t.TempDir(), "acme")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "listen:\n  - \"127.0.0.1:%d\"\n", o.tls)
	if o.plain != 0 {
		fmt.Fprintf(&b, "  - { address: \"127.0.0.1:%d\", tls: off }\n", o.plain)
	}
	fmt.Fprintf(&b, "tls:\n%s  acme:\n    domains: [%s]\n    email: ops@example.test\n    ca: https://localhost:%d/dir\n    ca_roots: %s\n    storage: %s\n%s",
		o.tlsMore, acmeDomain, c.api, o.roots, o.storage, o.more)
	if o.challenges != "" {
		fmt.Fprintf(&b, "    challenges: %s\n", o.challenges)
	}
	b.WriteString("routes: [{ path: /, redirect: \"https://example.com/\" }]\ndrain: { timeout: 5s, spread: 0s, not_ready: 0s }\nlog: { level: debug }\n")
	file = filepath.Join(t.TempDir(), "oneport.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p = startProcess(t, nil, path, "serve", "-c", file)
	await(t, 20*time.Second, "oneport listens", func() bool { return p.out.count(`"listening"`) > 0 })
	return p, file
}

// handshake gives the certificate that a port shows for a name.
func handshake(t *testing.T, port int, name string, roots *x509.CertPool) (*x509.Certificate, error) {
	t.Helper()
	d := tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: roots}}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// served waits until a port shows a certificate that verifies.
func served(t *testing.T, port int, roots *x509.CertPool) *x509.Certificate {
	t.Helper()
	var cert *x509.Certificate
	await(t, 40*time.Second, "a certificate", func() (ok bool) {
		var err error
		cert, err = handshake(t, port, acmeDomain, roots)
		return err == nil
	})
	return cert
}

// Both challenges are answered on the port's own listeners.
func TestACMEChallenges(t *testing.T) {
	clientCA := func(c *ca) string {
		return fmt.Sprintf("  client_ca: %s\n  client_auth: required\n", filepath.Join(c.dir, "ca.crt"))
	}
	for name, tc := range map[string]struct {
		options func(*ca) edgeOptions
		answer  string // what pebble says it tried last
	}{
		"TLS-ALPN-01": {func(*ca) edgeOptions { return edgeOptions{challenges: "[tls-alpn-01]"} }, "tls-alpn-01"},
		// A CA shows no client certificate.
		"TLS-ALPN-01 with client certificates": {func(c *ca) edgeOptions {
			return edgeOptions{challenges: "[tls-alpn-01]", tlsMore: clientCA(c)}
		}, "tls-alpn-01"},
		"HTTP-01 on a plaintext port": {func(c *ca) edgeOptions {
			return edgeOptions{challenges: "[http-01]", plain: c.http}
		}, "http-01"},
		"HTTP-01 on the TLS port": {func(c *ca) edgeOptions {
			c.http = c.tls
			return edgeOptions{challenges: "[http-01]"}
		}, "http-01"},
		// The first does not get through.
		"one after the other": {func(c *ca) edgeOptions {
			o := edgeOptions{tls: c.tls, plain: c.http}
			c.tls = freePort(t)
			return o
		}, "http-01"},
		"an external account": {func(c *ca) edgeOptions {
			const key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
			c.macKeys = map[string]string{"kid-1": key}
			file := filepath.Join(c.dir, "mac.key")
			if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return edgeOptions{more: fmt.Sprintf("    external_account: { key_id: kid-1, mac_key_file: %s }\n", file)}
		}, "tls-alpn-01"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCA(t)
			port := c.tls
			o := tc.options(c)
			c.start()
			edge, file := c.serve(t, o)
			cert := served(t, port, c.roots())
			if cert.DNSNames[0] != acmeDomain || c.issued() != 1 {
				t.Errorf("served %v; %d certificates were issued", cert.DNSNames, c.issued())
			}
			if got := edge.out.count(`"challenge_type":"` + tc.answer); got == 0 {
				t.Errorf("%s was not tried", tc.answer)
			}
			// A name that is not ours is not ordered, whoever asks.
			if _, err := handshake(t, port, "other.example.test", c.roots()); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("a name that is not ours: %v", err)
			}
			if c.issued() != 1 || edge.out.count("other.example.test") > 1 {
				t.Error("a stranger's name was ordered")
			}
			if out, err := run(t.Context(), edge.cmd.Path, "check", "-c", file); err != nil {
				t.Errorf("oneport check: %v: %s", err, out)
			}
		})
	}
}

// A certificate that nears its end is renewed, also when the CA has forgotten
// the account.
func TestACMERenewal(t *testing.T) {
	c := newCA(t)
	c.validSeconds = 15
	c.start()
	c.serve(t, edgeOptions{})
	roots := c.roots()
	first := served(t, c.tls, roots)
	await(t, 30*time.Second, "another certificate", func() bool {
		cert, err := handshake(t, c.tls, acmeDomain, roots)
		if err != nil {
			t.Fatalf("between two certificates: %v", err)
		}
		return cert.SerialNumber.Cmp(first.SerialNumber) != 0
	})
	c.stop()
	c.start()
	served(t, c.tls, c.roots())
}

// Instances that share a storage share certificates, and answer for each other.
func TestACMESharedStorage(t *testing.T) {
	c := newCA(t)
	c.start()
	storage := filepath.Join(t.TempDir(), "acme")
	// This one is where the CA looks, and cannot order: it does not trust the CA.
	other := devCerts(t)
	answers, _ := c.serve(t, edgeOptions{storage: storage, roots: other.CACert()})
	await(t, 20*time.Second, "a failure", func() bool { return answers.out.count("no certificate could be had") > 0 })
	// This one orders, and is where the CA does not look.
	orders, _ := c.serve(t, edgeOptions{storage: storage, tls: freePort(t)})
	roots := c.roots()
	cert := served(t, c.tls, roots)
	if c.issued() != 1 {
		t.Errorf("%d certificates were issued", c.issued())
	}
	info, err := os.Stat(storage)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the storage: %v, %v", info, err)
	}

	// A third takes what is there, without the CA.
	orders.stop()
	answers.stop()
	c.stop()
	port := freePort(t)
	c.serve(t, edgeOptions{storage: storage, tls: port})
	again, err := handshake(t, port, acmeDomain, roots)
	if err != nil || again.SerialNumber.Cmp(cert.SerialNumber) != 0 {
		t.Errorf("after a restart, without the CA: %v", err)
	}
}

// The port opens without a CA, says so, and has its certificate when there is one.
func TestACMEWithoutCA(t *testing.T) {
	c := newCA(t)
	edge, _ := c.serve(t, edgeOptions{})
	if _, err := handshake(t, c.tls, acmeDomain, nil); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("a handshake without a certificate: %v", err)
	}
	await(t, 10*time.Second, "an error", func() bool { return edge.out.count("no certificate could be had") > 0 })
	if edge.out.count("handshake refused, no certificate yet") != 1 {
		t.Error("the handshake is not in the log")
	}
	c.start()
	served(t, c.tls, c.roots())
}
