//go:build clients

package clients_test

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const broadcastFile = `
listen: "127.0.0.1:0"
tls: { certificates: [{ cert: %[1]q, key: %[2]q }] }
drain: { not_ready: 0s, spread: 0s }
routes:
  - { websocket: /connection/websocket, broadcast: true }
  - { websocket: /connection/known, broadcast: true, auth: [jwt] }
  - { websocket: /broadcast/stream, broadcast: true }
  - { path: /broadcast/stream, broadcast: true }
auth:
  jwt: { issuer: test, audience: edge, keys: %[3]q, from: [header, "query:token"] }
broadcast:
  listen: "127.0.0.1:0"
  token_file: %[4]q
  namespaces:
    news: { history_size: 1000, history_ttl: 1m, recovery: true, presence: true, join_leave: true, subscribe: [anyone], publish: ["claim:role=editor"] }
    log: { history_size: 1000, history_ttl: 1m, recovery: true, subscribe: [anyone] }
    staff: { subscribe: [authenticated] }
`

const publisherToken = "the-token-of-the-publisher"

var publishersAt = regexp.MustCompile(`"listener":"broadcast","address":"([^"]+)"`)

// broadcast has subscribers of all kinds at one "oneport serve".
func (d *demo) broadcast(t *testing.T) {
	dir := t.TempDir()
	g := &guards{demo: d, oneport: d.cmd.Path, key: filepath.Join(dir, "token.key")}
	public, tokens, file := filepath.Join(dir, "token.pem"), filepath.Join(dir, "publishers"), filepath.Join(dir, "oneport.yaml")
	g.token(t, "--sub", "nobody", "--generate", "--public", public)
	for path, text := range map[string]string{
		tokens: publisherToken + "\n",
		file:   fmt.Sprintf(broadcastFile, filepath.Join(d.certs, "server.crt"), filepath.Join(d.certs, "server.key"), public, tokens),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := serve(t, g.oneport, []string{"serve", "-c", file}, 1) // publishers are served by then
	p.certs = d.certs
	log, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	m := publishersAt.FindStringSubmatch(string(log))
	if m == nil {
		t.Fatalf("nobody listens for publishers:\n%s", log)
	}
	p.plain = m[1]
	p.env = append(slices.Clone(d.env), "ONEPORT_ADDR="+p.addr, "ONEPORT_PLAIN="+p.plain, "ONEPORT_PUBLISHER="+publisherToken,
		"ONEPORT_EDITOR="+g.token(t, "--sub", "eve", "--claim", "role=editor"), "ONEPORT_BRIEF="+g.token(t, "--sub", "mayfly", "--ttl", "4s"))
	t.Run("curl", p.curlStream)
	t.Logf("\n%s", p.node(t, "broadcast"))
}

// curlStream is curl -N on the one-way stream.
func (d *demo) curlStream(t *testing.T) {
	cmd := d.command(t, 30*time.Second, "curl", "-sSN", "--cacert", d.ca(), d.url("/broadcast/stream?channel=log:curl"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	in := bufio.NewScanner(out)
	next := func(prefix string) string {
		for in.Scan() {
			if strings.HasPrefix(in.Text(), prefix) {
				return in.Text()
			}
		}
		t.Fatalf("no line begins with %q: %v", prefix, in.Err())
		return ""
	}
	next("event: subscribed")
	next("data: ")
	for n := range 3 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+d.plain+"/broadcast/publish", strings.NewReader(fmt.Sprintf(`{"channel":"log:curl","data":%d}`, n)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+publisherToken)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if got, want := next("data: "), fmt.Sprintf(`data: {"channel":"log:curl","offset":%d,"data":%d}`, n+1, n); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
