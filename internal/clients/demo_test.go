//go:build clients

package clients_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
)

// TestClients runs every program against one demo.
func TestClients(t *testing.T) {
	d := start(t)
	t.Run("README", d.readme)
	t.Run("curl", d.curl)
	t.Run("nghttp", d.nghttp)
	t.Run("h2load", d.h2load)
	t.Run("node", func(t *testing.T) {
		for _, script := range []string{"http1", "http2", "ws", "grpc", "connect"} {
			t.Run(script, func(t *testing.T) { t.Logf("\n%s", d.node(t, script)) })
		}
	})
	t.Run("python", func(t *testing.T) {
		for _, script := range []string{"http_client", "grpc_client"} {
			t.Run(script, func(t *testing.T) { t.Logf("\n%s", d.python(t, script)) })
		}
	})
	t.Run("chromium", func(t *testing.T) { t.Logf("\n%s", d.node(t, "browser")) })
	t.Run("proxy", d.proxy)
	t.Run("tunnels", d.tunnels)
	t.Run("guards", d.guards)
	t.Run("mapping", d.mapping)
	t.Run("late", d.late)
	t.Run("broadcast", d.broadcast)
	t.Run("client/js", d.clientJS)
	t.Run("trace", d.trace)
	t.Run("planted", d.planted)
	t.Run("whoami", d.whoami)
	t.Run("drain", d.drain)
	d.ended(t)
}

// demo is a running "oneport demo".
type demo struct {
	addr, plain string // host:port of the TLS port and of the plaintext port
	certs       string // ca.crt, and client.crt and client.key of alice
	strangers   string // the same of another CA
	env         []string
	cmd         *exec.Cmd
	log         string        // the file that it writes its log to
	read        chan struct{} // closed when stdout has come to its end
	terminated  bool          // SIGTERM was sent
	exit        int           // the code that it is to end with
}

// url is the address with the name that the certificate has, so that clients send SNI.
func (d *demo) url(path string) string {
	return "https://localhost:" + d.addr[strings.LastIndexByte(d.addr, ':')+1:] + path
}

func (d *demo) ca() string { return filepath.Join(d.certs, "ca.crt") }

// start builds the binary, makes certificates and starts the demo.
func start(t *testing.T) *demo {
	t.Helper()
	dir := t.TempDir()
	d := &demo{
		certs:     filepath.Join(dir, "certs"),
		strangers: filepath.Join(dir, "strangers"),
		log:       filepath.Join(dir, "demo.log"),
		read:      make(chan struct{}),
	}
	oneport := filepath.Join(dir, "oneport")
	d.run(t, 5*time.Minute, "go", "build", "-tags", "nomsgpack", "-o", oneport, "github.com/oneport-edge/oneport/cmd/oneport")
	d.run(t, time.Minute, oneport, "certs", "--out", d.certs, "--client", "alice")
	d.run(t, time.Minute, oneport, "certs", "--out", d.strangers, "--client", "mallory")

	d.cmd = exec.CommandContext(t.Context(), oneport, "demo", "--certs", d.certs,
		"--listen", "127.0.0.1:0", "--plaintext", "127.0.0.1:0", "--log-level", "debug")
	stderr, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	d.cmd.Stderr = stderr
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the demo's log ends with:\n%s", tail(d.log))
		}
	})
	addrs := make(chan [2]string, 1)
	go d.readAddrs(stdout, addrs)
	select {
	case a := <-addrs:
		d.addr, d.plain = a[0], a[1]
	case <-d.read:
		t.Fatal("the demo ended, or does not print its addresses as it did")
	case <-time.After(30 * time.Second):
		t.Fatal("the demo does not start")
	}
	d.settings(t, dir)
	return d
}

var (
	tlsLine   = regexp.MustCompile(`on https://(\S+)$`)
	plainLine = regexp.MustCompile(`plaintext +curl http://([^/]+)/`)
)

// readAddrs reads what the demo prints: the addresses, which it sends, and the rest.
func (d *demo) readAddrs(stdout io.Reader, addrs chan<- [2]string) {
	defer close(d.read)
	var found [2]string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if m := tlsLine.FindStringSubmatch(lines.Text()); m != nil {
			found[0] = m[1]
		}
		if m := plainLine.FindStringSubmatch(lines.Text()); m != nil {
			found[1] = m[1]
			addrs <- found
		}
	}
}

// settings are what scripts find in their environment; node/port.mjs reads them.
func (d *demo) settings(t *testing.T, dir string) {
	t.Helper()
	set, err := proto.Marshal(&descriptorpb.FileDescriptorSet{
		File: []*descriptorpb.FileDescriptorProto{protodesc.ToFileDescriptorProto(echov1.File_oneport_echo_v1_echo_proto)},
	})
	if err != nil {
		t.Fatal(err)
	}
	descriptors := filepath.Join(dir, "echo.binpb")
	if err := os.WriteFile(descriptors, set, 0o600); err != nil {
		t.Fatal(err)
	}
	protos, err := filepath.Abs("../../proto")
	if err != nil {
		t.Fatal(err)
	}
	d.env = []string{
		"ONEPORT_ADDR=" + d.addr,                  // host:port of the TLS port
		"ONEPORT_PLAIN=" + d.plain,                // host:port of the plaintext port
		"ONEPORT_CA=" + d.ca(),                    // who signed the server's certificate
		"NODE_EXTRA_CA_CERTS=" + d.ca(),           // the same, for node's fetch
		"ONEPORT_CERT=" + d.certs + "/client.crt", // a client certificate, CN=alice
		"ONEPORT_KEY=" + d.certs + "/client.key",
		"ONEPORT_PROTO=" + protos,            // the folder of the .proto files
		"ONEPORT_DESCRIPTORS=" + descriptors, // a FileDescriptorSet of the same
		"ONEPORT_SPKI=" + spki(t, d.certs+"/server.crt"),
		"ONEPORT_OUT=" + dir, // a folder to write to
		// node 18 takes the first address of localhost alone: ::1, as a rule.
		"NODE_OPTIONS=--dns-result-order=ipv4first",
	}
}

// spki is how Chromium is told to trust a certificate: by its public key.
func spki(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s has no PEM block", path)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// terminate sends SIGTERM, once.
func (d *demo) terminate(t *testing.T) {
	t.Helper()
	if d.terminated {
		return
	}
	d.terminated = true
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}

// ended waits for the demo to end, and looks at how it went.
func (d *demo) ended(t *testing.T) {
	t.Helper()
	d.terminate(t) // -run may have left drain out
	select {
	case <-d.read:
	case <-time.After(10 * time.Second):
		t.Error("the demo is still there 10 s after SIGTERM, without any connection")
		_ = d.cmd.Process.Kill() // Wait says the rest
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM the demo ended with %v, want exit code 0", err)
	}
	log, err := os.ReadFile(d.log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "panic") {
			t.Errorf("the demo logged: %s", line)
		}
	}
}

// command prepares a program with a deadline: SIGTERM then, so that it can end
// what it has started, and SIGKILL five seconds later.
func (d *demo) command(t *testing.T, limit time.Duration, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	for _, kv := range os.Environ() {
		if key, _, _ := strings.Cut(kv, "="); !strings.HasSuffix(strings.ToLower(key), "_proxy") {
			cmd.Env = append(cmd.Env, kv) // loopback needs no proxy
		}
	}
	cmd.Env = append(cmd.Env, d.env...)
	return cmd
}

// output runs a program to its end and gives what it wrote to stdout, and to
// both, and its exit code.
func (d *demo) output(t *testing.T, limit time.Duration, name string, args ...string) (stdout, both string, code int) {
	t.Helper()
	cmd := d.command(t, limit, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	both = out.String() + errs.String()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		t.Fatalf("%v: internal/clients/setup.sh installs it", err)
	case err != nil && !errors.As(err, &exit):
		t.Fatalf("%s: %v\n%s", name, err, both)
	}
	return out.String(), both, cmd.ProcessState.ExitCode()
}

// run is output for a program that has to succeed. It gives what it wrote to stdout.
func (d *demo) run(t *testing.T, limit time.Duration, name string, args ...string) string {
	t.Helper()
	stdout, both, code := d.output(t, limit, name, args...)
	if code != 0 {
		t.Fatalf("%s %s: exit code %d\n%s", name, strings.Join(args, " "), code, both)
	}
	return stdout
}

func (d *demo) node(t *testing.T, script string) string {
	t.Helper()
	return d.run(t, time.Minute, "node", "node/"+script+".mjs")
}

// python runs Debian's Python, which has grpcio, whatever comes first in PATH.
func (d *demo) python(t *testing.T, script string) string {
	t.Helper()
	return d.run(t, time.Minute, "/usr/bin/python3", "-I", "python/"+script+".py")
}

// tail is the end of a file, for a message.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4<<10):])
}
