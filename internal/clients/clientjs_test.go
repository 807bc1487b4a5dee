//go:build clients

package clients_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// clientJSFile has a port of its own choice: it is started twice.
const clientJSFile = `
listen: %[1]q
tls: { certificates: [{ cert: %[2]q, key: %[3]q }] }
upstreams:
  web: { servers: ["http://%[4]s"] }
auth:
  jwt: { issuer: test, audience: edge, keys: %[5]q, from: [header, subprotocol] }
limits:
  named:
    few: { rate: 1/h, burst: 1, per: all }
drain: { not_ready: 0s, spread: 0s }
routes:
  - { path: /ticket, tickets: true, auth: jwt }
  - { path: /few, tickets: true, auth: jwt, limit: few }
  - { path: /admin, tickets: true, auth: jwt, allow: { claims: { role: admin } } }
  - { websocket: /ws, to: web, auth: [tickets, jwt] }
  - { path: /page, to: web }
  - { path: /in, to: web, auth: jwt }
`

// clientJS runs client/js: its own tests, and then against a port that is ended and started
// again under it, in node and in Chromium at once.
func (d *demo) clientJS(t *testing.T) {
	t.Logf("\n%s", d.run(t, 3*time.Minute, "npm", "--prefix", "../../client/js", "test"))

	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close() // the program listens there
	dir := t.TempDir()
	g := &guards{demo: d, oneport: d.cmd.Path, file: filepath.Join(dir, "oneport.yaml"), key: filepath.Join(dir, "token.key")}
	public := filepath.Join(dir, "token.pem")
	g.token(t, "--sub", "nobody", "--generate", "--public", public)
	text := fmt.Sprintf(clientJSFile, addr, filepath.Join(d.certs, "server.crt"), filepath.Join(d.certs, "server.key"), newWitness(t).addr, public)
	if err := os.WriteFile(g.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, g.oneport, []string{"serve", "-c", g.file}, 1)
	p.env = append(slices.Clone(d.env), "ONEPORT_ADDR="+addr, "ONEPORT_PROGRAM="+g.oneport, "ONEPORT_TOKEN_KEY="+g.key, "ONEPORT_TOKENS={}")

	cmd := p.command(t, time.Minute, "node", "node/clientjs.mjs")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if lines.Text() != "restart" {
			out.WriteString("\n" + lines.Text())
			continue
		}
		p.terminated = true
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		_ = p.cmd.Wait() // serve's cleanup looks at the exit code
		serve(t, g.oneport, []string{"serve", "-c", g.file}, 1)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s%s", err, stderr.Bytes(), out.String())
		return
	}
	t.Log(out.String())
}
