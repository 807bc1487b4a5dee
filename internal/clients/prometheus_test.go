//go:build clients

package clients_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/emptypb"
)

const measuredFile = `
listen: "127.0.0.1:0"
tls: { certificates: [{ cert: %[1]q, key: %[2]q }] }
upstreams:
  app: { servers: ["http://%[3]s"], health: { path: /api/hello, every: 200ms } }
  rpc: { servers: ["grpc://%[3]s"] }
  gone: { servers: ["http://127.0.0.1:1"] }
redis: { url: "redis://127.0.0.1:1/0" }
auth: { jwt: { issuer: test, audience: edge, keys: %[4]q } }
limits: { shed: all, named: { api: { rate: 100000/s, burst: 100000 } } }
routes:
  - { name: rpc, grpc: "oneport.echo.v1.Echo", to: rpc }
  - { name: sockets, websocket: /ws, to: app, ping: 1s }
  - { name: secret, path: /secret, to: app, auth: jwt }
  - { name: broken, path: /broken, to: gone }
  - { name: api, path: /, to: app, limit: api }
admin: { listen: "127.0.0.1:%[5]s", probes: "127.0.0.1:%[6]s" }
drain: { not_ready: 0s, spread: 0s }
`

// measured is an edge that is scraped.
type measured struct {
	*demo
	probes string // its URL
	client *http.Client
	rpc    *grpc.ClientConn
	tls    *tls.Config
}

func newMeasured(t *testing.T, file string) *measured {
	t.Helper()
	dir := t.TempDir()
	oneport := filepath.Join(dir, "oneport")
	d := &demo{certs: filepath.Join(dir, "certs")}
	d.run(t, 5*time.Minute, "go", "build", "-tags", "nomsgpack", "-o", oneport, "github.com/oneport-edge/oneport/cmd/oneport")
	d.run(t, time.Minute, oneport, "certs", "--out", d.certs)
	behind := serve(t, oneport, []string{"demo", "--listen", "127.0.0.1:0", "--plaintext", "127.0.0.1:0", "--certs", d.certs}, 2)
	key := filepath.Join(dir, "token")
	d.run(t, time.Minute, oneport, "token", "make", "--iss", "test", "--aud", "edge", "--sub", "alice", "--ttl", "10m", "--key", key+".key", "--generate", "--public", key+".pem")
	api, probes := freePort(t), freePort(t)
	at := filepath.Join(dir, "oneport.yaml")
	text := fmt.Sprintf(file, d.certs+"/server.crt", d.certs+"/server.key", behind.plain, key+".pem", api, probes)
	if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &measured{demo: serve(t, oneport, []string{"serve", "-c", at}, 1), probes: "http://127.0.0.1:" + probes}
	m.certs = d.certs
	ca, err := os.ReadFile(m.ca())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	m.tls = &tls.Config{RootCAs: pool, ServerName: "localhost"}
	transport := &http.Transport{TLSClientConfig: m.tls.Clone(), ForceAttemptHTTP2: true}
	m.client = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	if m.rpc, err = grpc.NewClient(m.addr, grpc.WithTransportCredentials(credentials.NewTLS(m.tls.Clone()))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = m.rpc.Close()
	})
	return m
}

// get sends a request and takes its answer, whatever it is.
func (m *measured) get(ctx context.Context, method, path, host, agent string) {
	req, err := http.NewRequestWithContext(ctx, method, m.url(path), nil)
	if err != nil {
		return
	}
	req.Host = host
	req.Header.Set("User-Agent", agent)
	res, err := m.client.Do(req)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
}

// traffic is a little of everything, until ctx ends.
func (m *measured) traffic(ctx context.Context) {
	socket := func() *websocket.Conn {
		dialer := websocket.Dialer{TLSClientConfig: m.tls.Clone()}
		c, res, err := dialer.DialContext(ctx, "wss://"+m.addr+"/ws", nil)
		if err != nil {
			return nil
		}
		_ = res.Body.Close()
		return c
	}
	quiet := socket() // it is pinged, and answers while it reads
	if quiet != nil {
		defer quiet.Close()
		go func() { _, _, _ = quiet.ReadMessage() }() // it ends with the connection
	}
	for i := 0; ctx.Err() == nil; i++ {
		m.get(ctx, http.MethodGet, "/api/hello", "", "")
		m.get(ctx, http.MethodGet, "/secret", "", "")
		m.get(ctx, http.MethodGet, "/broken", "", "")
		_ = m.rpc.Invoke(ctx, "/oneport.echo.v1.Echo/Whoami", new(emptypb.Empty), new(emptypb.Empty))
		if c := socket(); c != nil {
			_ = c.WriteMessage(websocket.TextMessage, []byte("hello"))
			_, _, _ = c.ReadMessage()
			_ = c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""))
			_, _, _ = c.ReadMessage()
			_ = c.Close()
		}
		time.Sleep(20 * time.Millisecond) // a trickle: it is no load test
	}
}

// prometheus starts Debian's, with the configuration of deploy, and gives its URL.
func (m *measured) prometheus(t *testing.T, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"prometheus.yml", "rules.yml"} {
		b, err := os.ReadFile("../../deploy/prometheus/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "prometheus.yml" {
			b = []byte(replaced(t, string(b), "127.0.0.1:9901", strings.TrimPrefix(m.probes, "http://"), "interval: 15s", "interval: 1s"))
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	addr := freeAddr(t)
	cmd := exec.Command("prometheus", append([]string{
		"--config.file", filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", addr, "--log.level", "warn",
	}, args...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: internal/clients/setup.sh installs it", err)
	}
	t.Cleanup(func() { kill(cmd) })
	dial(t, "tcp", addr)
	return "http://" + addr
}

// asked gives what an address of the API answers, into v.
func asked(ctx context.Context, u string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", res.Status, body)
	}
	return json.Unmarshal(body, v)
}

// hasData says what is wrong with a query: an error, nothing, or no number.
func hasData(ctx context.Context, prometheus, query string) error {
	var answer struct {
		Data struct {
			Result []struct {
				Value [2]any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := asked(ctx, prometheus+"/api/v1/query?query="+url.QueryEscape(query), &answer); err != nil {
		return err
	}
	for _, r := range answer.Data.Result {
		text, _ := r.Value[1].(string)
		if v, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(v) {
			return nil
		}
	}
	return fmt.Errorf("%d results, and none is a number", len(answer.Data.Result))
}

var comparison = regexp.MustCompile(`\s+(==|!=|>=|<=|>|<)\s+[0-9.e+]+$`)

// queries are those of all rules, of alerts without what is compared, and of all panels.
func queries(t *testing.T, prometheus string) map[string]string {
	t.Helper()
	all := map[string]string{}
	var rules struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Query, Type string } `json:"rules"`
			} `json:"groups"`
		} `json:"data"`
	}
	if err := asked(t.Context(), prometheus+"/api/v1/rules", &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Data.Groups {
		for _, r := range g.Rules {
			query := comparison.ReplaceAllString(r.Query, "")
			if r.Type == "alerting" && query == r.Query {
				t.Errorf("%s compares nothing: %s", r.Name, r.Query)
			}
			all["rule "+r.Name] = query
		}
	}
	b, err := os.ReadFile("../../deploy/grafana/oneport.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				RefID string `json:"refId"`
				Expr  string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(b, &board); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "1m", "$job", "oneport", "$instance", ".*")
	for i, p := range board.Panels {
		for _, target := range p.Targets {
			all[fmt.Sprintf("panel %d %s %s", i, p.Title, target.RefID)] = variables.Replace(target.Expr)
		}
	}
	if len(all) < 70 {
		t.Errorf("%d queries", len(all))
	}
	return all
}

// TestPrometheus has a real Prometheus scrape a real run: all rules and all panels of the
// dashboard have data, and what promtool can check is right.
func TestPrometheus(t *testing.T) {
	t.Parallel() // it waits for others most of the time
	m := newMeasured(t, measuredFile)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { m.traffic(ctx) })
	defer work.Wait()
	defer cancel()
	classic, native := m.prometheus(t), m.prometheus(t, "--enable-feature=native-histograms")

	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"check", "config", "prometheus.yml"}, {"test", "rules", "rules_test.yml"}} {
		cmd := m.command(t, time.Minute, "promtool", args...)
		cmd.Dir = "../../deploy/prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	missing := queries(t, classic)
	for deadline := time.Now().Add(40 * time.Second); len(missing) > 0 && time.Now().Before(deadline); time.Sleep(time.Second) {
		for what, query := range missing {
			if hasData(t.Context(), classic, query) == nil {
				delete(missing, what)
			}
		}
	}
	for what, query := range missing {
		t.Errorf("%s: %v\n%s", what, hasData(t.Context(), classic, query), query)
	}
	for _, query := range []string{
		`histogram_quantile(0.99, sum by (protocol) (rate(oneport_call_duration_seconds[1m])))`,
		`histogram_count(sum(oneport_websocket_session_duration_seconds))`,
	} {
		if err := hasData(t.Context(), native, query); err != nil {
			t.Errorf("of a native histogram: %s: %v", query, err)
		}
	}
	cmd := m.command(t, time.Minute, "promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(m.run(t, 10*time.Second, "curl", "-sS", m.probes+"/metrics"))
	if out, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// TestStrangersMakeNoSeries sends 100,000 requests, each odd in its own way.
func TestStrangersMakeNoSeries(t *testing.T) {
	t.Parallel() // it waits for others most of the time
	const each, workers = 20_000, 32
	m := newMeasured(t, replaced(t, measuredFile, "shed: all, ", "")) // a busy machine would be one more code
	series := func() (names map[string]bool) {
		names = map[string]bool{}
		for line := range strings.Lines(m.run(t, 10*time.Second, "curl", "-sS", m.probes+"/metrics")) {
			if line[0] != '#' {
				names[line[:strings.LastIndexByte(line, ' ')]] = true
			}
		}
		return names
	}
	odd := func(from, to int) {
		var work sync.WaitGroup
		for w := range workers {
			work.Go(func() {
				for i := from + w; i < to; i += workers {
					m.get(t.Context(), http.MethodGet, fmt.Sprintf("/nowhere/%d", i), "", "")
					m.get(t.Context(), http.MethodGet, "/api/hello", fmt.Sprintf("host%d.example", i), "")
					m.get(t.Context(), fmt.Sprintf("M%d", i), "/api/hello", "", "")
					m.get(t.Context(), http.MethodGet, "/api/hello", "", fmt.Sprintf("agent/%d", i))
					_ = m.rpc.Invoke(t.Context(), fmt.Sprintf("/odd.Service%d/Method%d", i, i), new(emptypb.Empty), new(emptypb.Empty))
				}
			})
		}
		work.Wait()
	}
	odd(0, 2*workers)
	before := series()
	begun := time.Now()
	odd(2*workers, 2*workers+each)
	after := series()
	t.Logf("%d series before, %d after 100,000 calls in %v", len(before), len(after), time.Since(begun))
	for name := range after {
		if !before[name] {
			t.Errorf("a new series: %s", name)
		}
	}
}
