package edge_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
)

// collector is one that speaks OTLP over gRPC.
type collector struct {
	coltrace.UnimplementedTraceServiceServer
	colmetrics.UnimplementedMetricsServiceServer
	addr string

	mu      sync.Mutex
	spans   []*tracepb.Span
	about   string // attributes of the resource
	headers metadata.MD
	metrics map[string]*metricspb.Metric
	more    chan struct{} // closed at each change
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{more: make(chan struct{}), metrics: map[string]*metricspb.Metric{}}
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.addr = ln.Addr().String()
	srv := grpc.NewServer()
	coltrace.RegisterTraceServiceServer(srv, c)
	colmetrics.RegisterMetricsServiceServer(srv, metricsOf{c: c})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	t.Cleanup(func() {
		srv.Stop()
		<-done
	})
	return c
}

func (c *collector) Export(ctx context.Context, r *coltrace.ExportTraceServiceRequest) (*coltrace.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers, _ = metadata.FromIncomingContext(ctx)
	for _, rs := range r.GetResourceSpans() {
		c.about = attrs(rs.GetResource().GetAttributes())
		for _, ss := range rs.GetScopeSpans() {
			c.spans = append(c.spans, ss.GetSpans()...)
		}
	}
	c.changed()
	return &coltrace.ExportTraceServiceResponse{}, nil
}

func (c *collector) changed() {
	close(c.more)
	c.more = make(chan struct{})
}

// metricsOf is the other service: both have a method Export.
type metricsOf struct {
	colmetrics.UnimplementedMetricsServiceServer
	c *collector
}

func (m metricsOf) Export(_ context.Context, r *colmetrics.ExportMetricsServiceRequest) (*colmetrics.ExportMetricsServiceResponse, error) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	for _, rm := range r.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			for _, metric := range sm.GetMetrics() {
				m.c.metrics[metric.GetName()] = metric
			}
		}
	}
	m.c.changed()
	return &colmetrics.ExportMetricsServiceResponse{}, nil
}

// wait waits until the spans are enough, and gives them.
func (c *collector) wait(t *testing.T, enough func([]*tracepb.Span) bool) []*tracepb.Span {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		spans, more := slices.Clone(c.spans), c.more
		c.mu.Unlock()
		if enough(spans) {
			return spans
		}
		select {
		case <-more:
		case <-late:
			for _, s := range spans {
				t.Logf("%s %s %s", s.GetName(), s.GetKind(), attrs(s.GetAttributes()))
			}
			t.Fatalf("the collector has got %d spans, which do not suffice", len(spans))
		}
	}
}

// attrs are attributes as text, sorted.
func attrs(list []*commonpb.KeyValue) string {
	var parts []string
	for _, kv := range list {
		v := kv.GetValue().GetStringValue()
		switch of := kv.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_IntValue:
			v = fmt.Sprint(of.IntValue)
		case *commonpb.AnyValue_DoubleValue:
			v = fmt.Sprint(of.DoubleValue)
		}
		parts = append(parts, kv.GetKey()+"="+v)
	}
	slices.Sort(parts)
	return strings.Join(parts, "\n")
}

// has looks for attributes.
func has(t *testing.T, s *tracepb.Span, want ...string) {
	t.Helper()
	have := strings.Split(attrs(s.GetAttributes()), "\n")
	for _, w := range want {
		if !slices.Contains(have, w) {
			t.Errorf("%s (%s): no %s in\n%s", s.GetName(), s.GetKind(), w, strings.Join(have, "\n"))
		}
	}
}

// find gives the one span of a kind in a trace.
func find(spans []*tracepb.Span, trace string, kind tracepb.Span_SpanKind) *tracepb.Span {
	for _, s := range spans {
		if hex.EncodeToString(s.GetTraceId()) == trace && s.GetKind() == kind {
			return s
		}
	}
	return nil
}

func spansNamed(spans []*tracepb.Span, name string) (list []*tracepb.Span) {
	for _, s := range spans {
		if s.GetName() == name {
			list = append(list, s)
		}
	}
	return list
}

// parents are servers of all three protocols that take note of who asks.
type parents struct {
	web, rpc string
	echov1.UnimplementedEchoServer

	mu   sync.Mutex
	seen map[string][]string // traceparent and tracestate, by path
}

func newParents(t *testing.T) *parents {
	t.Helper()
	p := &parents{seen: map[string][]string{}}
	web := httptest.NewServer(p)
	t.Cleanup(web.Close)
	p.web = strings.TrimPrefix(web.URL, "http://")
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.rpc = ln.Addr().String()
	srv := grpc.NewServer()
	echov1.RegisterEchoServer(srv, p)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	t.Cleanup(func() {
		srv.Stop()
		<-done
	})
	return p
}

func (p *parents) saw(path string, parent, state []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[path] = []string{strings.Join(parent, ","), strings.Join(state, ",")}
}

func (p *parents) of(path string) (parent, state string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen[path]) != 2 {
		return "nothing", "nothing"
	}
	return p.seen[path][0], p.seen[path][1]
}

func (p *parents) Unary(ctx context.Context, _ *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	p.saw("Unary", md["traceparent"], md["tracestate"])
	return &echov1.UnaryResponse{}, nil
}

func (p *parents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.saw(r.URL.Path, r.Header["Traceparent"], r.Header["Tracestate"])
	switch r.URL.Path {
	case "/ws":
		up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		for {
			typ, b, err := ws.ReadMessage()
			if err != nil || ws.WriteMessage(typ, b) != nil {
				return
			}
		}
	case "/broken":
		w.WriteHeader(http.StatusInternalServerError)
	}
}

const traced = `
listen: "127.0.0.1:8443"
tls: { dev: true }
upstreams:
  web: { servers: ["http://%[1]s"] }
  rpc: { servers: ["grpc://%[2]s"] }
routes:
  - { name: greeter, grpc: "*", to: rpc }
  - { name: socket, websocket: /ws, to: web }
  - { name: secret, path: /secret, to: web, auth: [jwt] }
  - { name: pages, path: /, to: web }
auth:
  jwt: { issuer: test, audience: edge, keys: %[4]q, from: [header, "query:token"] }
telemetry:
  otlp: { endpoint: "http://%[3]s" }
  service: the-edge
  sample: 1
  users: true
  messages: 2
`

const (
	clientTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	clientSpan  = "00f067aa0ba902b7"
)

// traceparent is one of a client's trace; each protocol has its own.
func traceparent(n int, flags string) (trace, header string) {
	trace = clientTrace[:31] + fmt.Sprint(n)
	return trace, "00-" + trace + "-" + clientSpan + "-" + flags
}

// One trace goes from the client through the edge to the server, in all three protocols: the
// server's parent is the edge's CLIENT span, whose parent is its SERVER span, whose parent is the client's.
func TestTraceGoesThrough(t *testing.T) {
	t.Parallel()
	c, servers, iss := newCollector(t), newParents(t), newIssuer(t)
	_, port := sidecar(t, fmt.Sprintf(traced, servers.web, servers.rpc, c.addr, iss.file))
	want := map[string]struct {
		path   string
		server []string
		client []string
	}{}
	n := 0
	for version, client := range clients(port) {
		n++
		trace, header := traceparent(n, "01")
		path := fmt.Sprint("/hello", n)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL(path+"?token=secret"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Traceparent", header)
		req.Header.Set("Tracestate", "vendor=1")
		res, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", version, err)
		}
		_ = res.Body.Close()
		w := want[trace]
		w.path = path
		w.server = []string{"http.request.method=GET", "url.path=" + path, "http.route=pages", "http.response.status_code=200", "oneport.upstream=web", "client.address=127.0.0.1"}
		w.client = []string{"http.request.method=GET", "server.address=127.0.0.1", "http.response.status_code=200"}
		want[trace] = w
	}
	trace, header := traceparent(8, "01")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", header, "tracestate", "vendor=1")
	if _, err := echov1.NewEchoClient(port.GRPC()).Unary(ctx, &echov1.UnaryRequest{}); err != nil {
		t.Fatal(err)
	}
	w := want[trace]
	w.path = "Unary"
	w.server = []string{"rpc.system.name=grpc", "rpc.method=oneport.echo.v1.Echo/Unary", "rpc.response.status_code=OK", "http.route=greeter"}
	w.client = []string{"rpc.method=oneport.echo.v1.Echo/Unary", "server.address=127.0.0.1"}
	want[trace] = w

	trace, header = traceparent(9, "01")
	ws, _, err := port.DialWebSocket(t.Context(), "/ws", http.Header{"Traceparent": {header}, "Tracestate": {"vendor=1"}})
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if err := ws.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ws.ReadMessage(); err != nil {
			t.Fatal(err)
		}
	}
	_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second))
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the session ended with %v", err)
	}
	_ = ws.Close()
	w = want[trace]
	w.path = "/ws"
	w.server = []string{"http.request.method=GET", "http.route=socket", "http.response.status_code=101", "oneport.protocol=websocket"}
	w.client = []string{"server.address=127.0.0.1"}
	want[trace] = w

	const messages = 4 // of four each way, each second one
	spans := c.wait(t, func(s []*tracepb.Span) bool { return len(s) >= 2*len(want)+1+messages })
	for trace, w := range want {
		server, client := find(spans, trace, tracepb.Span_SPAN_KIND_SERVER), find(spans, trace, tracepb.Span_SPAN_KIND_CLIENT)
		if server == nil || client == nil {
			t.Errorf("%s: the trace has no two spans", w.path)
			continue
		}
		if got := hex.EncodeToString(server.GetParentSpanId()); got != clientSpan {
			t.Errorf("%s: the SERVER span's parent is %s, want the client's", w.path, got)
		}
		if string(client.GetParentSpanId()) != string(server.GetSpanId()) {
			t.Errorf("%s: the CLIENT span is no child of the SERVER span", w.path)
		}
		parent, state := servers.of(w.path)
		if parent != "00-"+trace+"-"+hex.EncodeToString(client.GetSpanId())+"-01" || state != "vendor=1" {
			t.Errorf("%s: the server has got %q and %q; the CLIENT span is %x", w.path, parent, state, client.GetSpanId())
		}
		has(t, server, w.server...)
		has(t, client, w.client...)
	}
	for _, s := range spans {
		if strings.Contains(attrs(s.GetAttributes())+s.GetName(), "secret") {
			t.Errorf("%s shows the query:\n%s", s.GetName(), attrs(s.GetAttributes()))
		}
	}
	handshake := find(spans, trace, tracepb.Span_SPAN_KIND_SERVER)
	sessions := spansNamed(spans, "websocket session")
	if len(sessions) != 1 {
		t.Fatalf("%d sessions, want 1", len(sessions))
	}
	has(t, sessions[0], "oneport.session.close_code=1000", "oneport.session.messages.received=4", "oneport.session.messages.sent=4",
		"oneport.session.bytes.received=20", "http.route=socket")
	for _, s := range slices.Concat(sessions, spansNamed(spans, "websocket message received"), spansNamed(spans, "websocket message sent")) {
		if len(s.GetLinks()) != 1 || string(s.GetLinks()[0].GetSpanId()) != string(handshake.GetSpanId()) || string(s.GetTraceId()) == string(handshake.GetTraceId()) {
			t.Errorf("%s does not link from a trace of its own to the handshake: %v", s.GetName(), s.GetLinks())
		}
	}
	if got := len(spansNamed(spans, "websocket message received")); got != 2 {
		t.Errorf("%d messages recorded of what was received, want 2 of 4", got)
	}
	if !strings.Contains(c.about, "service.name=the-edge") {
		t.Errorf("the resource is %s", c.about)
	}
}

// A stranger's sampled flag decides nothing, unless the file says so: the call's trace is the
// stranger's, whether it is recorded or not.
func TestStrangersDoNotDecide(t *testing.T) {
	c, servers, iss := newCollector(t), newParents(t), newIssuer(t)
	all := fmt.Sprintf(traced, servers.web, servers.rpc, c.addr, iss.file)
	ask := func(text, path, parent string) {
		t.Helper()
		_, port := sidecar(t, text)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL(path), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Traceparent", parent)
		res, err := port.HTTP2().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
	unsampled, header := traceparent(1, "01")
	ask(strings.Replace(all, "sample: 1", "sample: 0", 1), "/none", header)
	if parent, _ := servers.of("/none"); parent != header[:len(header)-1]+"0" {
		t.Errorf("the server has got %q of a call that is not recorded, whose client says %q", parent, header)
	}
	sampled, header := traceparent(2, "00")
	ask(all, "/all", header)
	spans := c.wait(t, func(s []*tracepb.Span) bool { return len(s) >= 2 })
	if find(spans, unsampled, tracepb.Span_SPAN_KIND_SERVER) != nil {
		t.Error("a call is recorded because a stranger wants that")
	}
	s := find(spans, sampled, tracepb.Span_SPAN_KIND_SERVER)
	if s == nil || hex.EncodeToString(s.GetParentSpanId()) != clientSpan {
		t.Errorf("no child of the client's span, or another: %v", s)
	}
}

// What a client that is followed has not sampled is not recorded, and goes on as it came; a refused call says why.
func TestTraceOfRefusals(t *testing.T) {
	t.Parallel()
	c, servers, iss := newCollector(t), newParents(t), newIssuer(t)
	_, port := sidecar(t, strings.Replace(fmt.Sprintf(traced, servers.web, servers.rpc, c.addr, iss.file), "sample: 1", "follow_clients: true", 1))
	ask := func(path, parent, token string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL(path), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Traceparent", parent)
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := port.HTTP2().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	_, unsampled := traceparent(1, "00")
	ask("/unsampled", unsampled, "")
	if parent, _ := servers.of("/unsampled"); parent != unsampled {
		t.Errorf("the server has got %q, want the client's %q", parent, unsampled)
	}
	refused, header := traceparent(2, "01")
	if got := ask("/secret?token=planted.in.query", header, ""); got != http.StatusUnauthorized {
		t.Fatal(got)
	}
	let, header := traceparent(3, "01")
	if got := ask("/secret", header, iss.token(t, "alice", time.Hour, nil)); got != http.StatusOK {
		t.Fatal(got)
	}
	broken, header := traceparent(4, "01")
	ask("/broken", header, "")
	spans := c.wait(t, func(s []*tracepb.Span) bool { return len(s) >= 5 })
	if s := find(spans, clientTrace[:31]+"1", tracepb.Span_SPAN_KIND_SERVER); s != nil {
		t.Error("a call is recorded that its client has not sampled")
	}
	s := find(spans, refused, tracepb.Span_SPAN_KIND_SERVER)
	has(t, s, "http.response.status_code=401")
	if len(s.GetEvents()) != 1 || s.GetEvents()[0].GetName() != "refused" || attrs(s.GetEvents()[0].GetAttributes()) != "oneport.refused=unauthenticated" {
		t.Errorf("the refusal's events: %v", s.GetEvents())
	}
	has(t, find(spans, let, tracepb.Span_SPAN_KIND_SERVER), "enduser.id=test alice", "http.route=secret")
	s = find(spans, broken, tracepb.Span_SPAN_KIND_SERVER)
	has(t, s, "error.type=500")
	if s.GetStatus().GetCode() != tracepb.Status_STATUS_CODE_ERROR {
		t.Errorf("a broken server's span has the status %v", s.GetStatus())
	}
}
