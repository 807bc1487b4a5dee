package edge_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/router/telemetry"
)

// everything is a file with all that is counted.
const everything = `
listen: "127.0.0.1:0"
tls: { dev: true }
upstreams:
  web: { servers: ["http://%[1]s"] }
  rpc: { servers: ["grpc://%[1]s"] }
redis: { url: "redis://127.0.0.1:1/0" }
auth: { jwt: { issuer: test, audience: edge, keys: [%[2]s] } }
limits: { shed: all, named: { api: { rate: 1000000/s, burst: 1000000 } } }
broadcast: { namespaces: { news: { subscribe: [anyone] } } }
routes:
  - { websocket: /broadcast/stream, broadcast: true }
  - { path: /secret, to: web, auth: [jwt] }
  - { grpc: "oneport.echo.v1.Echo", to: rpc, limit: api }
  - { websocket: /, to: web }
  - { name: all, path: /api/, to: web }
admin: { listen: "127.0.0.1:0" }
log: { access: true }
telemetry: { otlp: { endpoint: "http://127.0.0.1:1" } }
`

// sampled are names of series, with their labels, without values.
func (a *api) sampled(t *testing.T, url string) (series map[string]bool) {
	t.Helper()
	code, body := a.ask(t, http.MethodGet, url+"/metrics")
	if code != http.StatusOK {
		t.Fatalf("%d: %s", code, body)
	}
	series = map[string]bool{}
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, "#") {
			series[line[:strings.LastIndexByte(line, ' ')]] = true
		}
	}
	return series
}

func observed(t *testing.T, file string) (a *api, port *oneporttest.Port) {
	t.Helper()
	e, port := sidecar(t, fmt.Sprintf(file, behind(t), newIssuer(t).file))
	return administer(t, edge.AdminOptions{Edge: e, Version: "v1.2.3", Commit: "abc"}), port
}

// Each metric has a value once there was traffic, on both ports.
func TestMetrics(t *testing.T) {
	a, port := observed(t, everything)
	for _, c := range clients(port) {
		do(t, c, http.MethodGet, port.URL("/api/hello"), "", nil)
		do(t, c, http.MethodGet, port.URL("/secret"), "", nil)
	}
	if err := port.GRPC().Invoke(t.Context(), "/oneport.echo.v1.Echo/Whoami", new(emptypb.Empty), new(emptypb.Empty)); err != nil {
		t.Fatal(err)
	}
	ws := port.WebSocket("/ws")
	if err := ws.WriteMessage(1, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.ReadMessage(); err != nil {
		t.Fatal(err)
	}
	_ = ws.Close()
	a.eventually(t, a.url+"/metrics", "oneport_websocket_tunnels_ended_total{")
	for _, url := range []string{a.url, a.probes} {
		named := map[string]bool{}
		for s := range a.sampled(t, url) {
			name, _, _ := strings.Cut(s, "{")
			named[name] = true
			named[strings.TrimSuffix(name, "_bucket")] = true
		}
		// Nothing of it has happened.
		quiet := []string{"oneport_http2_errors_total", "oneport_websocket_handshakes_refused_total"}
		for _, f := range telemetry.Families() {
			if !named[f.Name] && !slices.Contains(quiet, f.Name) {
				t.Errorf("%s has no value", f.Name)
			}
			delete(named, f.Name)
		}
		if !named["go_goroutines"] || !named["process_cpu_seconds_total"] {
			t.Error("the runtime's metrics, or the process's, are missing")
		}
	}
	_, body := a.ask(t, http.MethodGet, a.probes+"/metrics")
	for _, want := range []string{
		`oneport_calls_total{code="200",protocol="http",route="all",upstream="web"} 2`,
		`oneport_calls_total{code="OK",protocol="grpc",route="routes[2]",upstream="rpc"} 1`,
		`oneport_calls_total{code="1006",protocol="websocket",route="routes[3]",upstream="web"} 1`,
		`oneport_calls_total{code="401",protocol="http",route="routes[1]",upstream="web"} 2`,
		`oneport_calls_refused_total{protocol="http",reason="unauthenticated"} 2`,
		`oneport_auth_tokens_refused_total{guard="jwt",reason="missing"} 2`,
		`oneport_build_info{commit="abc",goversion=`,
		`oneport_websocket_message_size_bytes_count{direction="in"} 1`,
		`oneport_config_last_load_success 1`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s", want)
		}
	}
	if t.Failed() {
		t.Log(regexp.MustCompile(`(?m)^oneport_(calls|auth).*$`).FindAllString(body, -1))
	}
}

// Native histograms are for those who ask for protocol buffers.
func TestMetricsFormats(t *testing.T) {
	a, _ := observed(t, everything)
	for accept, want := range map[string]string{
		"": "text/plain; version=0.0.4",
		"application/openmetrics-text;version=1.0.0":                                                             "application/openmetrics-text; version=1.0.0",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=1,*/*;q=0": "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.probes+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if got := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || !strings.HasPrefix(got, want) {
			t.Errorf("%q: %d %q, want %q", accept, res.StatusCode, got, want)
		}
	}
}

// No stranger makes a series: paths, hosts, methods, user agents and gRPC methods that
// nobody knows change nothing, however many. A test with the tag clients sends 100,000.
func TestStrangersMakeNoSeries(t *testing.T) {
	const each = 500 // of five kinds
	// Without shedding: a busy machine would be one more code.
	a, port := observed(t, strings.Replace(everything, "shed: all, ", "", 1))
	all := func(from, to int) {
		var work sync.WaitGroup
		for w := range 32 {
			work.Go(func() {
				c, rpc := port.HTTP2(), port.GRPC()
				for i := from + w; i < to; i += 32 {
					stranger(t.Context(), c, rpc, port, i)
				}
			})
		}
		work.Wait()
	}
	all(0, 64)
	before := a.sampled(t, a.probes)
	n := each
	if testing.Short() {
		n = 200
	}
	all(64, 64+n)
	after := a.sampled(t, a.probes)
	if len(before) != len(after) {
		for s := range maps.Keys(after) {
			if !before[s] {
				t.Errorf("a new series: %s", s)
			}
		}
	}
	if n := len(after); n < 200 || n > 2000 {
		t.Errorf("%d series", n)
	}
}

// stranger makes five calls, each odd in another way.
func stranger(ctx context.Context, c *http.Client, rpc *grpc.ClientConn, port *oneporttest.Port, i int) {
	send := func(method, path, host, agent string) {
		req, err := http.NewRequestWithContext(ctx, method, port.URL(path), nil)
		if err != nil {
			return // not reached
		}
		req.Host = host
		req.Header.Set("User-Agent", agent)
		res, err := c.Do(req)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	send(http.MethodGet, fmt.Sprintf("/nowhere/%d", i), "", "")
	send(http.MethodGet, "/api/hello", fmt.Sprintf("host%d.example", i), "")
	send(fmt.Sprintf("M%d", i), "/api/hello", "", "")
	send(http.MethodGet, "/api/hello", "", fmt.Sprintf("agent/%d", i))
	_ = rpc.Invoke(metadata.AppendToOutgoingContext(ctx, "x-odd", fmt.Sprint(i)), fmt.Sprintf("/odd.Service%d/Method%d", i, i), new(emptypb.Empty), new(emptypb.Empty))
}
