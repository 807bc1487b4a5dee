//go:build clients

package clients_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
)

// pageFile has an upstream for each of two processes, of which one will be killed.
const pageFile = `
listen: [{ address: %[1]q }, { address: %[2]q, tls: off }]
tls: { certificates: [{ cert: %[3]q, key: %[4]q }] }
upstreams:
  app: { servers: ["http://%[5]s"], health: { path: /api/hello, every: 200ms } }
  greeter: { servers: ["grpc://%[6]s"] }
auth: { jwt: { issuer: test, audience: edge, keys: %[7]q } }
limits: { named: { few: { rate: 1/s, burst: 1, per: identity } } }
routes:
  - { name: echo, grpc: "*", to: greeter, auth: jwt }
  - { name: live, websocket: /ws, to: app, auth: jwt, ping: 1s }
  - { name: few, path: /few, to: app, auth: jwt, limit: few, rewrite: /api/hello }
  - { name: hello, path: /api/hello, to: app }
  - { name: api, path: /api/, to: app, auth: jwt }
admin: { listen: "127.0.0.1:%[8]s", token_file: admin.token }
drain: { not_ready: 0s, spread: 0s, timeout: 2s }
`

// TestPage looks at the page of the admin address in Chromium while calls come in over three
// protocols, servers are killed, and the process itself is. What it has looked like is in the
// test's artifacts.
func TestPage(t *testing.T) {
	t.Parallel() // it waits for others most of the time
	d := &demo{certs: filepath.Join(t.TempDir(), "certs")}
	t.Logf("\n%s", d.run(t, time.Minute, "node", "--test", "../../router/admin/page/"))
	p := newPaged(t, d)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	var done sync.WaitGroup
	defer done.Wait()
	defer cancel()

	node := d.command(t, 3*time.Minute, "node", "node/page.mjs")
	node.Env = append(node.Env, "PAGE_URL=http://127.0.0.1:"+p.admin, "PAGE_TOKEN="+p.secret)
	node.Stderr = t.Output()
	in, err := node.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		what, asked := strings.CutPrefix(lines.Text(), "! ")
		if !asked {
			t.Log(lines.Text())
			continue
		}
		answer := p.do(ctx, t, &done, what)
		if _, err := fmt.Fprintln(in, answer); err != nil {
			t.Fatal(err)
		}
	}
	if err := node.Wait(); err != nil {
		t.Errorf("the page: %v", err)
	}
}

// paged are the processes that a page is about.
type paged struct {
	*demo
	dir, oneport, secret     string
	admin, app, greeter      string // ports, and addresses
	file                     string
	tokens                   map[string]string
	edge, behind, behindGRPC *exec.Cmd
	ended                    chan error // how alice's session ends
}

func newPaged(t *testing.T, d *demo) *paged {
	t.Helper()
	dir := t.TempDir()
	p := &paged{
		demo: d, dir: dir, oneport: filepath.Join(dir, "oneport"), secret: "a-token-of-the-test-of-the-page", admin: freePort(t), app: freeAddr(t), greeter: freeAddr(t),
		file: filepath.Join(dir, "oneport.yaml"), tokens: map[string]string{}, ended: make(chan error, 1),
	}
	d.run(t, 5*time.Minute, "go", "build", "-tags", "nomsgpack", "-ldflags", "-X main.version=v0.9.0", "-o", p.oneport, "github.com/oneport-edge/oneport/cmd/oneport")
	d.run(t, time.Minute, p.oneport, "certs", "--out", d.certs)
	d.addr, d.plain = freeAddr(t), freeAddr(t)
	d.settings(t, t.ArtifactDir())
	d.env = append(d.env, "ONEPORT_CERT="+d.certs+"/server.crt", "ONEPORT_KEY="+d.certs+"/server.key") // no client shows one
	key := filepath.Join(dir, "token")
	for i, name := range []string{"alice", "bob", "carol"} {
		args := []string{"token", "make", "--iss", "test", "--aud", "edge", "--sub", name, "--ttl", "10m", "--key", key + ".key"}
		if i == 0 {
			args = append(args, "--generate", "--public", key+".pem")
		}
		p.tokens[name] = strings.TrimSpace(d.run(t, time.Minute, p.oneport, args...))
	}
	text := fmt.Sprintf(pageFile, d.addr, d.plain, d.certs+"/server.crt", d.certs+"/server.key", p.app, p.greeter, key+".pem", p.admin)
	for path, text := range map[string]string{p.file: text, filepath.Join(dir, "admin.token"): p.secret + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.startBehind(t)
	p.behindGRPC = p.start(t, p.greeter, "demo", "--listen", "127.0.0.1:0", "--plaintext", p.greeter, "--certs", d.certs)
	p.startEdge(t)
	return p
}

func (p *paged) startBehind(t *testing.T) {
	t.Helper()
	p.behind = p.start(t, p.app, "demo", "--listen", "127.0.0.1:0", "--plaintext", p.app, "--certs", p.certs)
}

func (p *paged) startEdge(t *testing.T) {
	t.Helper()
	p.edge = p.start(t, "127.0.0.1:"+p.admin, "serve", "-c", p.file)
	dial(t, "tcp", p.addr)
}

// start starts the program, which listens when it returns.
func (p *paged) start(t *testing.T, addr string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(p.oneport, args...)
	log, err := os.CreateTemp(p.dir, "log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kill(cmd)
		if t.Failed() {
			t.Logf("%s: its log ends with:\n%s", args[0], tail(log.Name()))
		}
	})
	dial(t, "tcp", addr)
	return cmd
}

// do is what the script asks for.
func (p *paged) do(ctx context.Context, t *testing.T, done *sync.WaitGroup, what string) string {
	t.Helper()
	switch what {
	case "traffic":
		p.traffic(ctx, t, done)
	case "crowd":
		p.crowd(ctx, t, 1200)
	case "how alice ended":
		select {
		case err := <-p.ended:
			return err.Error()
		case <-time.After(5 * time.Second):
			return "she has not"
		}
	case "kill app":
		kill(p.behind)
	case "start app":
		p.startBehind(t)
	case "kill edge":
		kill(p.edge)
	case "start edge":
		p.startEdge(t)
	case "open edge": // to other machines, so that looking needs the token
		kill(p.edge)
		text, err := os.ReadFile(p.file)
		if err == nil {
			open := strings.Replace(string(text), `admin: { listen: "127.0.0.1:`, `admin: { plaintext: true, listen: "0.0.0.0:`, 1)
			err = os.WriteFile(p.file, []byte(open), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		p.startEdge(t)
	default:
		t.Errorf("the script asks for %q", what)
	}
	return "done"
}

// traffic begins calls over three protocols, which go on until ctx ends.
func (p *paged) traffic(ctx context.Context, t *testing.T, done *sync.WaitGroup) {
	t.Helper()
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(p.ca())
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no CA", err)
	}
	trust := &tls.Config{RootCAs: roots, ServerName: "localhost"}
	rest := &http.Client{Transport: &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: true}, Timeout: 2 * time.Second}
	get := func(path, user string) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+p.addr+path, http.NoBody)
		if err != nil {
			t.Error(err)
			return
		}
		if user != "" {
			req.Header.Set("Authorization", "Bearer "+p.tokens[user])
		}
		if res, err := rest.Do(req); err == nil { // while things are down it is none of ours
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	}
	repeat(ctx, done, time.Second, func() { // of no protocol
		if c, err := new(net.Dialer).DialContext(ctx, "tcp", p.addr); err == nil {
			_, _ = io.WriteString(c, "\x00\x00\x00\x00")
			_ = c.Close()
		}
	})
	rpc, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(credentials.NewTLS(trust)))
	if err != nil {
		t.Fatal(err)
	}
	echo := echov1.NewEchoClient(rpc)
	as := func(user string) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+p.tokens[user])
	}
	n := 0
	repeat(ctx, done, 8*time.Millisecond, func() {
		n++
		get("/api/hello", "")
		if n%20 == 0 {
			get("/few", "bob")
		}
		if n%50 == 0 {
			get("/api/whoami", "") // 401
		}
	})
	repeat(ctx, done, 12*time.Millisecond, func() {
		short, cancel := context.WithTimeout(as("carol"), time.Second)
		defer cancel()
		_, _ = echo.Unary(short, &echov1.UnaryRequest{Message: "x"})
	})
	done.Go(func() { // a stream that stays
		stream, err := echo.Bidi(as("alice"))
		for err == nil && ctx.Err() == nil {
			if err = stream.Send(&echov1.BidiRequest{Message: "x"}); err == nil {
				_, err = stream.Recv()
			}
			pause(ctx, 100*time.Millisecond)
		}
	})
	dialer := &websocket.Dialer{TLSClientConfig: trust.Clone(), HandshakeTimeout: 5 * time.Second}
	for i, user := range []string{"alice", "bob", "bob", "carol", "carol", "carol"} {
		c, _, err := dialer.DialContext(ctx, "wss://"+p.addr+"/ws", http.Header{"Authorization": {"Bearer " + p.tokens[user]}})
		if err != nil {
			t.Fatal(err)
		}
		context.AfterFunc(ctx, func() { _ = c.Close() })
		done.Go(func() {
			for {
				if _, _, err := c.ReadMessage(); err != nil {
					if user == "alice" {
						p.ended <- err
					}
					return
				}
			}
		})
		if i == 5 {
			return // a quiet one: it is pinged
		}
		repeat(ctx, done, time.Duration(20+10*i)*time.Millisecond, func() { _ = c.WriteMessage(websocket.TextMessage, []byte("hello")) })
	}
}

// crowd opens connections that stay idle.
func (p *paged) crowd(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	for range n {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", p.plain)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, "GET /api/hello HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
}

// repeat calls f again and again until ctx ends.
func repeat(ctx context.Context, done *sync.WaitGroup, every time.Duration, f func()) {
	done.Go(func() {
		for ctx.Err() == nil {
			f()
			pause(ctx, every)
		}
	})
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
