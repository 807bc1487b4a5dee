//go:build clients

package clients_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const adminFile = `
listen: "127.0.0.1:0"
tls: { certificates: [{ cert: %[1]q, key: %[2]q }] }
upstreams:
  app: { servers: ["http://%[3]s"], health: { path: /api/hello, every: 200ms } }
  rpc: { servers: ["grpc://%[3]s"] }
auth: { jwt: { issuer: test, audience: edge, keys: %[4]q } }
routes:
  - { grpc: "*", to: rpc, auth: jwt }
  - { websocket: /, to: app, auth: jwt }
  - { path: /, to: app, auth: jwt }
admin: { listen: "127.0.0.1:%[5]s", probes: "127.0.0.1:%[6]s", token_file: admin.token, pprof: true }
drain: { not_ready: 0s, spread: 0s }
`

// freePort is one that nobody has now.
func freePort(t *testing.T) string {
	t.Helper()
	_, port, _ := net.SplitHostPort(freeAddr(t))
	return port
}

// TestAdmin runs what docs/admin.md shows, as it stands there but for ports and token,
// against "oneport serve", while curl and grpcurl have something open there.
func TestAdmin(t *testing.T) {
	page, err := os.ReadFile("../../docs/admin.md")
	if err != nil {
		t.Fatal(err)
	}
	bin, err := filepath.Abs("../../.bin")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	dir := t.TempDir()
	oneport := filepath.Join(dir, "oneport")
	d := &demo{certs: filepath.Join(dir, "certs")}
	d.run(t, 5*time.Minute, "go", "build", "-tags", "nomsgpack", "-o", oneport, "github.com/oneport-edge/oneport/cmd/oneport")
	d.run(t, time.Minute, oneport, "certs", "--out", d.certs)
	behind := serve(t, oneport, []string{"demo", "--listen", "127.0.0.1:0", "--plaintext", "127.0.0.1:0", "--certs", d.certs}, 2)

	key := filepath.Join(dir, "token")
	args := []string{"token", "make", "--iss", "test", "--aud", "edge", "--sub", "alice", "--ttl", "10m", "--key", key + ".key"}
	alice := strings.TrimSpace(d.run(t, time.Minute, oneport, append(args, "--generate", "--public", key+".pem")...))
	const token = "a token of forty characters or some more"
	secret := strings.ReplaceAll(token, " ", "-")
	if err := os.WriteFile(filepath.Join(dir, "admin.token"), []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	api, probes := freePort(t), freePort(t)
	file := filepath.Join(dir, "oneport.yaml")
	text := fmt.Sprintf(adminFile, d.certs+"/server.crt", d.certs+"/server.key", behind.plain, key+".pem", api, probes)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, oneport, []string{"serve", "-c", file}, 1)
	p.certs = d.certs
	url := "http://127.0.0.1:" + api

	upload, stream := p.openAs(t, alice)
	total := func(query string) int {
		var list struct {
			Total int `json:"total"`
		}
		out := d.run(t, 10*time.Second, "curl", "-sS", url+"/api/v1/connections"+query)
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatal(out, err)
		}
		return list.Total
	}
	for deadline := time.Now().Add(20 * time.Second); total("?identity=alice") < 2; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("alice has %d connections", total("?identity=alice"))
		}
	}
	t.Setenv("TOKEN", secret)
	lines := 0
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		for line := range strings.Lines(block[1]) {
			if strings.Contains(line, "/drain") {
				continue // the last thing of all, below
			}
			out := adminLine(t, dir, line, api, probes)
			if strings.Contains(out, "needs the token") {
				t.Errorf("%s: %s", line, out)
			}
			if strings.Contains(line, "/kill") && strings.Contains(line, "alice") && strings.HasPrefix(line, "curl") && !strings.Contains(out, `"calls": 2`) && !strings.Contains(out, `"calls": 3`) { // grpcurl asks for reflection, too
				t.Errorf("%s: %s", line, out)
			}
			lines++
		}
	}
	if lines < 20 {
		t.Errorf("the page has %d lines to type", lines)
	}
	if err := upload.wait(); err == nil && !strings.Contains(upload.out.String(), "ended by an operator") {
		t.Errorf("alice's request was not cut off: %s", upload.out.String())
	}
	if err := stream.wait(); err == nil || !strings.Contains(stream.out.String(), "PermissionDenied") || !strings.Contains(stream.out.String(), "ended by an operator") {
		t.Errorf("alice's stream: %v, %s", err, stream.out.String())
	}
	for _, c := range [][2]string{{"Host: evil.example", "403"}, {"Origin: http://evil.example", "403"}, {"Authorization: Bearer " + token, "401"}} {
		if out := d.run(t, 10*time.Second, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", c[0], url+"/api/v1/config"); out != c[1] {
			t.Errorf("%s: %s, want %s", c[0], out, c[1])
		}
	}
	adminLine(t, dir, `curl -H "Authorization: Bearer $TOKEN" -X POST http://127.0.0.1:9901/api/v1/drain`, api, probes)
	p.terminated = true
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if exec.CommandContext(t.Context(), "curl", "-s", url+"/healthz").Run() != nil {
			return // the process has ended
		}
		if time.Now().After(deadline) {
			t.Fatal("the process has not ended")
		}
	}
}

// adminLine runs a line of the page.
func adminLine(t *testing.T, dir, line, api, probes string) string {
	t.Helper()
	line = strings.NewReplacer(":9901", ":"+api, ":9902", ":"+probes).Replace(strings.TrimSpace(line))
	if rest, ok := strings.CutPrefix(line, "curl "); ok {
		line = "curl --fail-with-body -sS " + rest
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	watch := strings.Contains(line, "--max-time") // which ends it, with code 28
	if err != nil && !(watch && bytes.Count(out, []byte("\n")) > 2) || len(out) == 0 && !strings.Contains(line, " -o ") {
		t.Errorf("%s: %v, %s", line, err, out)
	}
	return string(out)
}

// opened is a client that stays.
type opened struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out bytes.Buffer
}

// wait waits for its end. It looks whether it was ended when it has nothing to send any
// more: both read what they send without looking at anything else.
func (o *opened) wait() error {
	_ = o.in.Close()
	kill := time.AfterFunc(20*time.Second, func() { _ = o.cmd.Process.Kill() })
	defer kill.Stop()
	return o.cmd.Wait()
}

// openAs has a request and a gRPC stream of a user's stay open.
func (d *demo) openAs(t *testing.T, token string) (upload, stream *opened) {
	t.Helper()
	start := func(name string, args ...string) *opened {
		o := &opened{cmd: exec.Command(name, args...)}
		o.cmd.Stdout, o.cmd.Stderr = &o.out, &o.out
		in, err := o.cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		o.in = in
		o.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := o.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = in.Close()
			_ = syscall.Kill(-o.cmd.Process.Pid, syscall.SIGKILL)
		})
		if _, err := in.Write([]byte(`{"message": "x"}` + "\n")); err != nil {
			t.Fatal(err)
		}
		return o
	}
	auth := "authorization: Bearer " + token
	upload = start("curl", "-sS", "-N", "--cacert", filepath.Join(d.certs, "ca.crt"), "-H", auth, "-T", "-", "https://"+d.addr+"/api/echo")
	stream = start("grpcurl", "-cacert", filepath.Join(d.certs, "ca.crt"), "-H", auth, "-d", "@", d.addr, "oneport.echo.v1.Echo/Bidi")
	return upload, stream
}
