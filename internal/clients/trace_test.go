//go:build clients

package clients_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

const tracedFile = `
listen: "127.0.0.1:0"
tls: { certificates: [{ cert: %[1]q, key: %[2]q }] }
upstreams:
  web: { servers: ["http://%[3]s"] }
  h2c: { servers: ["h2c://%[3]s"] }
  rpc: { servers: ["grpc://%[3]s"] }
routes:
  - { grpc: "*", to: rpc }
  - { websocket: /, to: web }
  - { path: /h2c, to: h2c }
  - { path: /, to: web }
telemetry: { otlp: { endpoint: "http://%[4]s", protocol: %[5]s }, sample: 1 }
drain: { not_ready: 0s, spread: 0s }
`

const clientSpan = "00f067aa0ba902b7"

// trace has clients that nobody here wrote begin a trace each, and looks for it at a collector and at the
// server behind: the client's span, the edge's two, and what the server is told, one below the other.
func (d *demo) trace(t *testing.T) {
	t.Run("grpc", func(t *testing.T) { d.traceTo(t, "grpc") })
	t.Run("http protobuf", func(t *testing.T) { d.traceTo(t, "http/protobuf") })
}

func (d *demo) traceTo(t *testing.T, protocol string) {
	c, behind := newCollector(t), newWitness(t)
	at := c.rpc
	if protocol != "grpc" {
		at = c.web
	}
	file := filepath.Join(t.TempDir(), "oneport.yaml")
	text := fmt.Sprintf(tracedFile, filepath.Join(d.certs, "server.crt"), filepath.Join(d.certs, "server.key"), behind.addr, at, protocol)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, d.cmd.Path, []string{"serve", "-c", file}, 1)
	p.certs = d.certs
	p.env = append(slices.Clone(d.env), "ONEPORT_ADDR="+p.addr)

	n := 0
	for _, version := range []string{"--http1.1", "--http2"} {
		for _, path := range []string{"/plain", "/h2c"} {
			n++
			trace, header := beginTrace(n)
			path := fmt.Sprint(path, "?n=", n)
			p.run(t, curlLimit, "curl", "-sSf", "--cacert", p.ca(), version, "-H", "traceparent: "+header, "-H", "tracestate: vendor=1", p.url(path))
			traced(t, c, behind, trace, path)
		}
	}
	n++
	trace, header := beginTrace(n)
	g := &guards{demo: p}
	if both, code := g.grpcurl(t, "any", "traceparent: "+header); code != 0 {
		t.Fatalf("grpcurl: %d: %s", code, both)
	}
	traced(t, c, behind, trace, "/oneport.echo.v1.Echo/Unary")
	n++
	trace, header = beginTrace(n)
	p.env = append(p.env, "ONEPORT_TRACEPARENT="+header)
	t.Logf("\n%s", p.node(t, "trace"))
	traced(t, c, behind, trace, "/ws")
}

// beginTrace is a trace of a client's, whose span is not sampled: the edge decides.
func beginTrace(n int) (trace, header string) {
	trace = fmt.Sprintf("4bf92f3577b34da6a3ce929d0e0e47%02x", n)
	return trace, "00-" + trace + "-" + clientSpan + "-00"
}

func traced(t *testing.T, c *collector, behind *witness, trace, uri string) {
	t.Helper()
	server, client := c.span(t, trace, tracepb.Span_SPAN_KIND_SERVER), c.span(t, trace, tracepb.Span_SPAN_KIND_CLIENT)
	if got := hex.EncodeToString(server.GetParentSpanId()); got != clientSpan {
		t.Errorf("%s: the parent of the SERVER span is %s, want the client's", uri, got)
	}
	if string(client.GetParentSpanId()) != string(server.GetSpanId()) {
		t.Errorf("%s: the parent of the CLIENT span is not the SERVER span", uri)
	}
	if took := time.Duration(server.GetEndTimeUnixNano() - server.GetStartTimeUnixNano()); took <= 0 || took > time.Minute {
		t.Errorf("%s: took %v", uri, took)
	}
	want := "00-" + trace + "-" + hex.EncodeToString(client.GetSpanId()) + "-01"
	for _, h := range behind.seen() {
		if h.uri == uri && strings.Contains(h.fields.Get("Traceparent"), trace) {
			if got := h.fields.Get("Traceparent"); got != want {
				t.Errorf("%s: the server has got %s, want %s", uri, got, want)
			}
			return
		}
	}
	t.Errorf("%s: no server has got anything of %s", uri, trace)
}
