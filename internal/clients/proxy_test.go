//go:build clients

package clients_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// proxy runs the programs against "oneport proxy" before the demo's plaintext
// port. What the demo knows of its clients is then the proxy's own connection:
// whoami is not asked, but for what it says of the call.
func (d *demo) proxy(t *testing.T) {
	p := d.before(t)
	t.Run("curl", func(t *testing.T) {
		for flag, version := range map[string]string{"--http1.1": "1.1", "--http2": "2"} {
			for range 20 {
				out := p.curls(t, flag, "-w", " %{http_version} %{http_code}", p.url("/api/hello"))
				if want := `{"message":"Hello from HTTP"} ` + version + " 200"; out != want {
					t.Fatalf("got %s, want %s", out, want)
				}
			}
			p.roundTrip(t, flag, p.url("/api/echo"))
		}
		p.roundTrip(t, "--http2-prior-knowledge", "http://"+p.plain+"/api/echo")
	})
	t.Run("nghttp", p.nghttp)
	t.Run("h2load", p.h2load)
	for _, script := range []string{"http1", "http2", "ws", "grpc", "connect", "browser"} {
		t.Run(script, func(t *testing.T) { t.Logf("\n%s", p.node(t, script)) })
	}
	t.Run("grpc_client", func(t *testing.T) { t.Logf("\n%s", p.python(t, "grpc_client")) })
}

// ownConn are the steps of the scripts that ask the server for the client's own connection.
const ownConn = "ONEPORT_SKIP=certificate|fetch /api/whoami|/ws/whoami|without ALPN|server name|agent that keeps|one connection|^plaintext|prior knowledge|fetch, plain"

var listening = regexp.MustCompile(`msg=listening address=(\S+)|"msg":"listening","address":"([^"]+)"`)

// before starts a proxy before the demo.
func (d *demo) before(t *testing.T) *demo {
	t.Helper()
	p := serve(t, d.cmd.Path, []string{
		"proxy", "--certs", d.certs, "--listen", "127.0.0.1:0", "--plaintext", "127.0.0.1:0", "--http", "h2c://" + d.plain, "--grpc", d.plain, "--ws", "http://" + d.plain,
	}, 2)
	p.certs, p.strangers = d.certs, d.strangers
	p.env = append(p.env, ownConn)
	for _, kv := range d.env {
		switch key, _, _ := strings.Cut(kv, "="); key {
		case "ONEPORT_ADDR":
			kv = key + "=" + p.addr
		case "ONEPORT_PLAIN":
			kv = key + "=" + p.plain
		}
		p.env = append(p.env, kv)
	}
	return p
}

// serve starts a command of the program until the test ends, and waits until
// it listens on so many addresses.
func serve(t *testing.T, oneport string, args []string, listeners int) *demo {
	t.Helper()
	p := &demo{log: filepath.Join(t.TempDir(), "log")}
	p.cmd = exec.CommandContext(context.Background(), oneport, args...)
	stderr, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = stderr, stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer stderr.Close()
		if !p.terminated {
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		}
		if err := p.cmd.Wait(); p.cmd.ProcessState == nil || p.cmd.ProcessState.ExitCode() != p.exit {
			t.Errorf("after SIGTERM it ended with %v, want exit code %d", err, p.exit)
		}
		if t.Failed() {
			t.Logf("its log ends with:\n%s", tail(p.log))
		}
	})
	for range 1000 {
		text, err := os.ReadFile(p.log)
		if err != nil {
			t.Fatal(err)
		}
		if m := listening.FindAllStringSubmatch(string(text), -1); len(m) == listeners {
			p.addr = m[0][1] + m[0][2] // text or JSON
			if listeners > 1 {
				p.plain = m[1][1] + m[1][2]
			}
			return p
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%v does not start", args)
	return nil
}
