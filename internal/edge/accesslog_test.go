package edge_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/metadata"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/router"
)

const logged = `
listen: "127.0.0.1:8443"
tls: { dev: true }
upstreams:
  web: { servers: ["http://%[1]s"] }
  rpc: { servers: ["grpc://%[2]s"] }
routes:
  - { grpc: "*", to: rpc, auth: [jwt] }
  - { websocket: /ws, to: web, auth: [jwt] }
  - { path: /, to: web, auth: [jwt] }
auth:
  jwt: { issuer: "https://id.example.com", audience: edge, keys: %[3]q }
log: { access: { form: json, file: %[4]q } }
telemetry:
  otlp: { endpoint: "http://%[5]s", headers_file: %[6]q }
  sample: 1
  metrics: true
`

// ended serves what a file says, has use use it, and ends all.
func ended(t *testing.T, text string, out io.Writer, use func(port *oneporttest.Port)) {
	t.Helper()
	e, err := edge.Serve(parse(t, text), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.LogTo(out); err != nil {
		t.Fatal(err)
	}
	e.Server.Listeners, e.Server.Certs = nil, nil
	e.Server.Drain = router.Drain{}
	port := oneporttest.Listen(t, e.Server)
	use(port)
	_ = port.Stop()
	e.Close()
}

// queryOf is the command for one user's calls that docs/tracing.md shows.
func queryOf(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/tracing.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?m)^jq -c '(.+)' calls.log$").FindStringSubmatch(string(text))
	if m == nil {
		t.Fatal("docs/tracing.md shows no query")
	}
	return m[1]
}

// asUser makes a call in each protocol with a token.
func asUser(t *testing.T, port *oneporttest.Port, token string) {
	t.Helper()
	bearer := "Bearer " + token
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL("/page"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", bearer)
	res, err := port.HTTP2().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if _, err := echov1.NewEchoClient(port.GRPC()).Unary(metadata.AppendToOutgoingContext(t.Context(), "authorization", bearer), &echov1.UnaryRequest{}); err != nil {
		t.Fatal(err)
	}
	ws, _, err := port.DialWebSocket(t.Context(), "/ws", http.Header{"Authorization": {bearer}})
	if err != nil {
		t.Fatal(err)
	}
	_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second))
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the session ended with %v", err)
	}
	_ = ws.Close()
}

// All that one user did over three protocols is one query, the one in docs/tracing.md; its
// traces are those that the collector has. Durations come at the end too.
func TestOneUserIsOneQuery(t *testing.T) {
	jq, err := exec.LookPath("jq")
	if err != nil {
		t.Skip("jq is not installed: the query of docs/tracing.md is not run")
	}
	c, servers, iss := newCollector(t), newParents(t), newIssuer(t)
	dir := t.TempDir()
	file, headers := filepath.Join(dir, "calls.log"), filepath.Join(dir, "collector.headers")
	if err := os.WriteFile(headers, []byte("# for the collector\nauthorization: Basic planted\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	token := func(sub string) string {
		return iss.token(t, sub, time.Hour, map[string]any{"iss": "https://id.example.com"})
	}
	alice := token("alice")
	var out bytes.Buffer
	ended(t, fmt.Sprintf(logged, servers.web, servers.rpc, iss.file, file, c.addr, headers), &out, func(port *oneporttest.Port) {
		asUser(t, port, alice)
		asUser(t, port, token("bob"))
	})
	if out.Len() > 0 {
		t.Errorf("lines went elsewhere: %s", out.String())
	}
	got, err := exec.CommandContext(t.Context(), jq, "-c", queryOf(t), file).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(got)), "\n")
	slices.Sort(lines)
	for i, want := range []string{
		`^\["grpc","/oneport.echo.v1.Echo/Unary",0,"([0-9a-f]{32})"\]$`, `^\["http","/page",200,"([0-9a-f]{32})"\]$`, `^\["websocket","/ws",1000,"([0-9a-f]{32})"\]$`,
	} {
		if len(lines) != 3 {
			t.Fatalf("%d lines, want 3: %s", len(lines), got)
		}
		m := regexp.MustCompile(want).FindStringSubmatch(lines[i])
		if m == nil {
			t.Errorf("%s, want %s", lines[i], want)
			continue
		}
		if find(c.spans, m[1], tracepb.Span_SPAN_KIND_SERVER) == nil {
			t.Errorf("the collector does not know the trace of %s", lines[i])
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range append(strings.Split(alice, ".")[1:], "planted") {
		if strings.Contains(string(text), secret) {
			t.Errorf("the log has %s", secret)
		}
		for _, s := range c.spans {
			if strings.Contains(attrs(s.GetAttributes()), secret) {
				t.Errorf("a span has %s", secret)
			}
		}
	}
	if got := c.headers["authorization"]; len(got) != 1 || got[0] != "Basic planted" {
		t.Errorf("the collector has got the field %q", got)
	}
	durations(t, c.metrics)
}

// durations looks at the metrics of six calls, two of them sessions.
func durations(t *testing.T, metrics map[string]*metricspb.Metric) {
	t.Helper()
	for name, want := range map[string]string{
		"http.server.request.duration": "http.request.method=GET\nhttp.response.status_code=200\nhttp.route=routes[2]\nnetwork.protocol.name=http\nnetwork.protocol.version=2\nurl.scheme=https",
		"rpc.server.call.duration":     "rpc.method=oneport.echo.v1.Echo/Unary\nrpc.response.status_code=OK\nrpc.system.name=grpc",
	} {
		m := metrics[name]
		if m == nil {
			t.Errorf("the collector has no %s", name)
			continue
		}
		points := m.GetHistogram().GetDataPoints()
		if len(points) != 1 || points[0].GetCount() != 2 || attrs(points[0].GetAttributes()) != want || m.GetUnit() != "s" {
			t.Errorf("%s: %v", name, m)
		}
	}
}

// slow is a disk that takes nothing until somebody has said something, and then takes its time.
type slow struct {
	out bytes.Buffer
	let chan struct{}
}

func (s *slow) Write(p []byte) (int, error) {
	<-s.let
	time.Sleep(50 * time.Millisecond) // within what the end waits for
	return s.out.Write(p)
}

// saying calls a function once the log says something.
type saying struct {
	slog.Handler
	text string
	then func()
}

func (s saying) Enabled(context.Context, slog.Level) bool { return true }

func (s saying) Handle(_ context.Context, r slog.Record) error {
	if r.Message == s.text {
		s.then()
	}
	return nil
}

// A collector that takes nothing costs the access log no lines.
func TestCollectorTakesNoTimeOfLines(t *testing.T) {
	t.Parallel()
	servers, iss := newParents(t), newIssuer(t)
	out := &slow{let: make(chan struct{})}
	log := slog.New(saying{slog.DiscardHandler, "the collector has not got all", sync.OnceFunc(func() { close(out.let) })})
	e, err := edge.Serve(parse(t, fmt.Sprintf(traced, servers.web, servers.rpc, rawServer(t, hang), iss.file)+"log: { access: { form: common } }\n"), log, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.LogTo(out); err != nil {
		t.Fatal(err)
	}
	e.Server.Listeners, e.Server.Certs = nil, nil
	e.Server.Drain = router.Drain{}
	port := oneporttest.Listen(t, e.Server)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL("/hello"), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, header := traceparent(1, "01")
	req.Header.Set("Traceparent", header)
	res, err := port.HTTP2().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	_ = port.Stop()
	e.Close()
	if !strings.Contains(out.out.String(), `"GET /hello HTTP/2.0" 200`) {
		t.Error("the line is lost")
	}
}

// With a collector that nobody serves the port works, and ends in time.
func TestNoCollector(t *testing.T) {
	t.Parallel()
	servers, iss := newParents(t), newIssuer(t)
	nobody := rawServer(t, hang)
	var out bytes.Buffer
	began := time.Now()
	ended(t, fmt.Sprintf(traced, servers.web, servers.rpc, nobody, iss.file)+"log: { access: { form: common } }\n", &out, func(port *oneporttest.Port) {
		_, header := traceparent(1, "01")
		res := do(t, port.HTTP2(), http.MethodGet, port.URL("/hello"), "", nil)
		if res.status != http.StatusOK {
			t.Errorf("status %d", res.status)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL("/hello"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Traceparent", header)
		r, err := port.HTTP2().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Body.Close()
	})
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the end took %v", took)
	}
	if n := strings.Count(out.String(), `"GET /hello HTTP/2.0" 200`); n != 2 {
		t.Errorf("%d lines of two calls:\n%s", n, out.String())
	}
}
