//go:build clients

package clients_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const example = "../../examples/sidecar"

// TestSidecar stands before three servers that are not written in Go, those of
// examples/sidecar, by the example's file and in one line.
func TestSidecar(t *testing.T) {
	t.Parallel() // it waits for others most of the time
	dir := t.TempDir()
	d := &demo{certs: filepath.Join(dir, "certs")}
	oneport := filepath.Join(dir, "oneport")
	d.run(t, 5*time.Minute, "go", "build", "-tags", "nomsgpack", "-o", oneport, "github.com/oneport-edge/oneport/cmd/oneport")
	d.run(t, time.Minute, oneport, "certs", "--out", d.certs, "--client", "alice")

	app := behind(t, "node", copied(t, "app.mjs"))
	socket := behind(t, "node", copied(t, "app.mjs"))
	greeter := behind(t, "/usr/bin/python3", filepath.Join(example, "greeter.py"))

	t.Run("file", func(t *testing.T) {
		text, err := os.ReadFile(filepath.Join(example, "oneport.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		pair := "certificates: [{ cert: " + d.certs + "/server.crt, key: " + d.certs + "/server.key }]"
		config := replaced(t, string(text), "127.0.0.1:8443", "127.0.0.1:0", "http://127.0.0.1:8080", app, "127.0.0.1:50051", greeter, "dev: true", pair)
		file := filepath.Join(dir, "oneport.yaml")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		d.run(t, time.Minute, oneport, "check", "-c", file)
		p := serve(t, oneport, []string{"serve", "-c", file}, 1)
		p.certs, p.plain = d.certs, p.addr // a plaintext port is not asked for
		p.settings(t, dir)
		p.sidecar(t)
		moved := p.curls(t, "-w", "%{http_code} %{redirect_url}", p.url("/api/v1/hello?a=b"))
		if want := "308 " + p.url("/api/v2/hello?a=b"); moved != want {
			t.Errorf("got %s, want %s", moved, want)
		}
	})
	t.Run("line", func(t *testing.T) {
		page, err := os.ReadFile(filepath.Join(example, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		_, line, _ := strings.Cut(string(page), "\noneport proxy ")
		line, _, _ = strings.Cut(line, "\n")
		line = replaced(t, line, "http://127.0.0.1:8080", app, "127.0.0.1:50051", greeter, "http://127.0.0.1:8081", socket)
		args := append([]string{"proxy", "--listen", "127.0.0.1:0", "--certs", d.certs}, strings.Fields(line)...)
		p := serve(t, oneport, args, 1)
		p.certs, p.plain = d.certs, p.addr // a plaintext port is not asked for
		p.settings(t, dir)
		p.sidecar(t)
	})
}

// sidecar drives the example's servers through the port.
func (d *demo) sidecar(t *testing.T) {
	t.Run("curl", func(t *testing.T) {
		for flag, version := range map[string]string{"--http1.1": "1.1", "--http2": "2"} {
			out := d.curls(t, flag, "-w", " %{http_version} %{http_code}", d.url("/api/v2/hello"))
			if want := `{"message":"Hello from Node","client":"127.0.0.1","scheme":"https"} ` + version + " 200"; out != want {
				t.Errorf("got %s, want %s", out, want)
			}
			d.roundTrip(t, flag, d.url("/api/v2/echo"))
		}
	})
	t.Run("grpcurl", func(t *testing.T) {
		call := func(body, method string) (string, string, int) {
			return d.output(t, 10*time.Second, "../../.bin/grpcurl", "-cacert", d.ca(),
				"-import-path", example, "-proto", "helloworld.proto", "-d", body, d.addr, "helloworld.Greeter/"+method)
		}
		if out, both, code := call(`{"name":"curl"}`, "SayHello"); code != 0 || !strings.Contains(out, `"Hello from Python, curl"`) {
			t.Errorf("%d: %s", code, both)
		}
		if out, both, code := call(`{"name":"curl"}`, "SayHelloStreamReply"); code != 0 || strings.Count(out, "from Python, curl") != 5 {
			t.Errorf("%d: %s", code, both)
		}
		if _, both, code := call(`{}`, "SayHello"); code == 0 || !strings.Contains(both, "InvalidArgument") || !strings.Contains(both, "a greeting needs a name") {
			t.Errorf("%d: %s", code, both)
		}
	})
	t.Run("ws_chromium", func(t *testing.T) { t.Logf("\n%s", d.node(t, "sidecar")) })
}

// copied gives a script of the example a folder in which node finds the packages.
func copied(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	text, err := os.ReadFile(filepath.Join(example, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
		t.Fatal(err)
	}
	packages, err := filepath.Abs("node/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(packages, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// behind starts a server of the example on a free port until the test ends, and
// gives the address that it prints: "app: http://127.0.0.1:1234".
func behind(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "PORT=0", "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: internal/clients/setup.sh installs it", err)
	}
	late := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		late.Reset(30 * time.Second)
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v ended with %v", args, err)
		}
		late.Stop()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("%v does not start: %v", args, err)
	}
	late.Stop()
	_, addr, ok := strings.Cut(strings.TrimSpace(line), ": ")
	if !ok {
		t.Fatalf("%v printed %q", args, line)
	}
	return addr
}

// replaced replaces pairs, each of which must be there.
func replaced(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%q is not in %s", pairs[i], text)
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
