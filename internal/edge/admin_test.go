package edge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/config"
)

// api is the admin API of a port.
type api struct{ url, probes, token string }

// administer serves the API of opts on loopback until the test ends.
func administer(t *testing.T, opts edge.AdminOptions) *api {
	t.Helper()
	a := &api{token: "0123456789abcdef"}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(a.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	opts.Listen, opts.Probes, opts.TokenFile, opts.Log = "127.0.0.1:0", "127.0.0.1:0", file, slog.New(slog.DiscardHandler)
	admin, err := edge.NewAdmin(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Stop)
	a.url, a.probes = "http://"+admin.Addrs()[0], "http://"+admin.Addrs()[1]
	return a
}

func (a *api) ask(t *testing.T, method, url string) (int, string) {
	t.Helper()
	return a.send(t, method, url, "")
}

func (a *api) post(t *testing.T, path, body string) (int, string) {
	t.Helper()
	return a.send(t, http.MethodPost, a.url+path, body)
}

func (a *api) send(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// eventually asks until the answer is the one that is wanted.
func (a *api) eventually(t *testing.T, url, want string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, body := a.ask(t, http.MethodGet, url)
		if strings.Contains(body, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s says %q, want %q", url, body, want)
		}
	}
}

// Readiness is red before the port listens, as long as there are no keys at all, while
// every upstream is down, and while it drains.
func TestReadiness(t *testing.T) {
	var ill atomic.Bool
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if ill.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer app.Close()
	ill.Store(true)
	var keys atomic.Value
	keys.Store("")
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if s, _ := keys.Load().(string); s != "" {
			_, _ = io.WriteString(w, s)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer issuer.Close()
	cfg := parse(t, fmt.Sprintf(`
listen: "127.0.0.1:0"
tls: { dev: true }
upstreams: { app: { servers: [%[1]q], health: { path: /, every: 100ms, unhealthy: 1, healthy: 1 } } }
auth: { jwt: { issuer: test, audience: edge, jwks: %[2]q } }
routes: [{ path: /, to: app, auth: jwt }]
admin: { listen: "127.0.0.1:0" }
`, app.URL, issuer.URL))
	e, err := edge.Serve(cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	e.Server.Listeners = []router.Listener{{Addr: "127.0.0.1:0", Plaintext: true}}
	e.Server.Certs, e.Server.Drain = nil, router.Drain{}
	a := administer(t, edge.AdminOptions{Edge: e})

	ready := a.probes + "/readyz"
	if code, body := a.ask(t, http.MethodGet, ready+"?verbose"); code != 503 || !strings.Contains(body, "[-] listening: not yet\n") {
		t.Errorf("before it listens: %d %s", code, body)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Server.ListenAndServe(ctx) }()
	<-e.Server.Serving()
	a.eventually(t, ready+"?verbose", "[-] auth.jwt: ")
	a.eventually(t, ready+"?verbose", "[-] upstream app: none of 1 servers is well\nnot ready\n")
	ill.Store(false)
	a.eventually(t, ready+"?verbose", "[+] upstream app\nnot ready\n")
	keys.Store(`{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "use": "sig", "alg": "EdDSA", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`)
	a.eventually(t, ready, "ready\n")
	a.eventually(t, ready+"?verbose", "[+] auth.jwt\n[+] upstream app\nready\n")
	if code, body := a.ask(t, http.MethodGet, a.probes+"/healthz"); code != 200 || body != "ok\n" {
		t.Error(code, body)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if code, body := a.ask(t, http.MethodGet, ready+"?verbose"); code != 503 || !strings.Contains(body, "[-] draining: the process ends\n") {
		t.Errorf("after the drain: %d %s", code, body)
	}
}

// One upstream of several that is down is said, and keeps nobody from the others.
func TestReadinessOfSeveral(t *testing.T) {
	app := httptest.NewServer(http.NotFoundHandler())
	defer app.Close()
	e, _ := sidecar(t, fmt.Sprintf(`
listen: "127.0.0.1:0"
tls: { dev: true }
upstreams:
  app: { servers: [%[1]q] }
  gone: { servers: [%[1]q], health: { path: /x, every: 100ms, unhealthy: 1 } }
routes: [{ path: /, to: app }, { path: /gone, to: gone }]
admin: { probes: "127.0.0.1:0" }
`, app.URL))
	a := administer(t, edge.AdminOptions{Edge: e})
	a.eventually(t, a.probes+"/readyz?verbose", "[+] upstream app\n[!] upstream gone: none of 1 servers is well\nready\n")
	a.eventually(t, a.url+"/api/v1/upstreams", `"sick": true`)
}

// What the configuration has of secrets is not shown.
func TestConfigIsRedacted(t *testing.T) {
	t.Setenv("SECRET", "hush-hush")
	t.Setenv("TINY", "80")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pass"), []byte("whisper\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e, _ := sidecar(t, fmt.Sprintf(`
listen: "127.0.0.1:0"
tls: { dev: true }
upstreams: { app: { servers: ["http://127.0.0.1:8080"], balance: round_robin, health: { path: "/${SECRET}/h", every: 9s } } }
auth:
  forward: { url: "http://127.0.0.1:1/x?key=murmur" }
limits: { named: { api: { rate: 50/s, shared: true } } }
redis: { url: "redis://127.0.0.1:1/0", password_file: %q }
routes:
  - { name: one, path: /a, to: app, header: { x-key: mumble }, request_headers: { set: { x-token: breathe } }, auth: { all: [forward, mtls] }, limit: api }
  - { path: "/b${TINY}", to: app }
  - { path: "/${SECRET}/hook", host: "${SECRET}.example.com", redirect: "https://example.com/x?ticket=sigh" }
admin: { listen: "127.0.0.1:0" }
log: { access: false }
`, filepath.Join(dir, "pass")))
	a := administer(t, edge.AdminOptions{Edge: e})
	code, body := a.ask(t, http.MethodGet, a.url+"/api/v1/config")
	if code != 200 {
		t.Fatal(code, body)
	}
	for _, secret := range []string{"hush", "whisper", "murmur", "mumble", "breathe"} {
		if strings.Contains(body, secret) {
			t.Errorf("%s is shown", secret)
		}
	}
	_, err := config.Parse("oneport.yaml", []byte("log: { level: \"${SECRET}\" } # sigh\n"))
	e.LoadFailed(err) // its text has values, and lines of the file
	for _, path := range []string{"routes", "config"} {
		code, body := a.ask(t, http.MethodGet, a.url+"/api/v1/"+path)
		if code != 200 || strings.Contains(body, "hush") || strings.Contains(body, "sigh") {
			t.Errorf("%d, %s shows a secret: %s", code, path, body)
		}
	}
	var got struct {
		Config map[string]any `json:"config"`
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	shown, _ := json.Marshal(got.Config)
	for _, want := range []string{
		`"every":"9s"`, `"x-key":"redacted"`, `"x-token":"redacted"`, `"path":"/b80"`, `"auth":{"all":["forward","mtls"]}`, `?redacted"`, `"access":false`,
		`"servers":["http://127.0.0.1:8080"]`, `"path":"redacted"`, `"connections":10000`,
	} {
		if !strings.Contains(string(shown), want) {
			t.Errorf("%s is not in %s", want, shown)
		}
	}
}

// A reload and its plan say what changes, or where all that is wrong stands.
func TestPlanAndReload(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "oneport.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const text = "listen: \"127.0.0.1:0\"\ntls: { dev: true }\nupstreams: { app: { servers: [\"http://127.0.0.1:8080\"] } }\nroutes: [{ path: /, to: app }]\nadmin: { listen: \"127.0.0.1:0\" }\n"
	write(text)
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	e, err := edge.Serve(cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	a := administer(t, edge.AdminOptions{Edge: e, Reload: func(context.Context) (edge.Plan, error) {
		cfg, err := config.Load(file)
		if err != nil {
			e.LoadFailed(err)
			return edge.Plan{}, err
		}
		return e.Reload(cfg)
	}})
	plan, reload := a.url+"/api/v1/plan", a.url+"/api/v1/reload"
	spaces := regexp.MustCompile(`\s+`)
	is := func(url string, code int, want ...string) {
		t.Helper()
		got, body := a.ask(t, http.MethodPost, url)
		body = spaces.ReplaceAllString(body, "")
		for _, w := range want {
			if got != code || !strings.Contains(body, w) {
				t.Errorf("%s: %d %s, want %d %s", url, got, body, code, w)
			}
		}
	}
	is(plan, 200, `"untouched":1`, `"restart":[]`)
	write(strings.Replace(text, "8080", "8081", 1) + "limits: { connections: 5 }\n")
	is(plan, 200, `"changed":[{"name":"app","keys":["servers"]}]`, `"restart":["limits"]`)
	is(plan, 200, `"name":"app"`) // a plan changes nothing
	is(reload, 200, `"changed":[{"name":"app","keys":["servers"]}]`)
	is(reload, 200, `"changed":[]`)
	a.eventually(t, a.url+"/api/v1/upstreams", "http://127.0.0.1:8081")
	write(text + "routs: 1\nlog: { level: loud }\n")
	for _, url := range []string{plan, reload} {
		is(url, 422, `"line":6,"column":1,"path":"routs"`, `"line":7,"column":15,"path":"log.level"`)
	}
	write(strings.Replace(text, "{ path: /, to: app }", "{ path: /, to: app, auth: keys }", 1) + "auth: { keys: { file: nowhere } }\n")
	for _, url := range []string{plan, reload} {
		is(url, 422, `"line":6,"column":15,"path":"auth.keys","text":"open`)
	}
	a.eventually(t, a.url+"/api/v1/config", `"failed": "2"`)
	a.eventually(t, a.url+"/api/v1/upstreams", "http://127.0.0.1:8081")
}

// Without a file there are still connections, certificates, limits and upstreams; a token
// is made, which nobody else can read, and is gone at the end.
func TestAdminOfProxy(t *testing.T) {
	srv, stop, err := edge.Proxy(edge.ProxyOptions{Listen: "127.0.0.1:0", HTTP: "http://127.0.0.1:1", CertDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	dir := t.TempDir()
	var log bytes.Buffer
	admin, err := edge.NewAdmin(edge.AdminOptions{
		Admin: config.Admin{Listen: "127.0.0.1:0"}, Server: srv, TokenDir: dir, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.ListenAndServe(ctx) }()
	<-srv.Serving()
	if err := admin.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "admin.token")
	token, err := os.ReadFile(file)
	info, err2 := os.Stat(file)
	if err != nil || err2 != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(err, err2, info)
	}
	a := &api{url: "http://" + admin.Addrs()[0], token: strings.TrimSpace(string(token))}
	for path, want := range map[string]string{
		"/api/v1/routes": `"name": "/"`, "/api/v1/upstreams": `"name": "http://127.0.0.1:1"`, "/api/v1/certificates": `"localhost"`, "/api/v1/limits": `"connections_bound": "10000"`,
		"/api/v1/config": "Unimplemented", "/api/v1/log-level": "Unimplemented", "/readyz": "ready",
	} {
		if _, body := a.ask(t, http.MethodGet, a.url+path); !strings.Contains(body, want) {
			t.Errorf("%s: %s, want %s", path, body, want)
		}
	}
	if code, body := a.ask(t, http.MethodPost, a.url+"/api/v1/drain"); code != 200 {
		t.Error(code, body)
	}
	select {
	case <-admin.Drained():
	case <-time.After(10 * time.Second):
		t.Error("nobody is told of the drain")
	}
	cancel()
	<-done
	admin.Stop()
	if _, err := os.Stat(file); err == nil {
		t.Error("the token is still there")
	}
	if strings.Contains(log.String(), a.token) || !strings.Contains(log.String(), file) {
		t.Errorf("the log has the token, or not its file: %s", log.String())
	}
}
