package tracing_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/tracing"
)

// recorder is a provider whose spans a test looks at.
func recorder() (*sdk.TracerProvider, *tracetest.SpanRecorder) {
	spans := tracetest.NewSpanRecorder()
	return sdk.NewTracerProvider(sdk.WithSpanProcessor(spans), sdk.WithIDGenerator(tracing.IDs())), spans
}

func newTracer(t testing.TB, opts tracing.Options) *tracing.Tracer {
	t.Helper()
	tracer, err := tracing.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return tracer
}

// begun is a call as a protocol package begins it.
func begun(seq uint64, parent string) *protocols.Call {
	call := new(protocols.Call)
	call.Begin(context.Background(), protocols.NewID(7, seq), parent)
	call.Protocol, call.Method, call.Host, call.Path, call.Version = protocols.HTTP, http.MethodGet, "example.com:8443", "/a", "HTTP/2.0"
	call.Conn, call.Started = &protocols.Conn{ID: "c1", Remote: netip.MustParseAddrPort("192.0.2.1:4711")}, time.Now()
	return call
}

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"

type child struct {
	echov1.UnimplementedEchoServer
	tracer trace.Tracer
}

func (c child) Unary(ctx context.Context, _ *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	_, s := c.tracer.Start(ctx, "inside grpc")
	s.End()
	return &echov1.UnaryResponse{}, nil
}

// What handlers of this process record are children of the call's span, in all three
// protocols; and nothing, where the call is not sampled.
func TestHandlersRecordChildren(t *testing.T) {
	provider, spans := recorder()
	mine := provider.Tracer("mine")
	port := oneporttest.Start(t, embedded(t, newTracer(t, tracing.Options{Provider: provider}), mine))
	use(t, port, "")
	roots, inside := byName(spans.Ended())
	for _, name := range []string{"inside http", "inside grpc", "inside websocket"} {
		i := slices.IndexFunc(roots, func(s sdk.ReadOnlySpan) bool {
			return inside[name] != nil && s.SpanContext().SpanID() == inside[name].Parent().SpanID()
		})
		switch {
		case inside[name] == nil:
			t.Errorf("%s is not recorded", name)
		case i < 0 || roots[i].SpanContext().TraceID() != inside[name].SpanContext().TraceID():
			t.Errorf("%s is no child of a call's span", name)
		}
	}

	provider, spans = recorder()
	port = oneporttest.Start(t, embedded(t, newTracer(t, tracing.Options{Provider: provider}), provider.Tracer("mine")))
	use(t, port, parent+"00")
	if got := spans.Ended(); len(got) > 0 {
		t.Errorf("%d spans of calls that are not sampled, the first %s", len(got), got[0].Name())
	}
}

func embedded(t *testing.T, tracer *tracing.Tracer, mine trace.Tracer) *router.Server {
	t.Helper()
	srv := &router.Server{
		Observers: []protocols.Observer{tracer},
		HTTP: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, s := mine.Start(r.Context(), "inside http")
			s.End()
		}),
	}
	echov1.RegisterEchoServer(srv, child{tracer: mine})
	srv.WebSocket("/ws", func(ctx context.Context, c *ws.Conn) error {
		_, s := mine.Start(ctx, "inside websocket")
		s.End()
		_, _, err := c.Read()
		return err
	})
	return srv
}

// use makes a call in each protocol, and ends the port.
func use(t *testing.T, port *oneporttest.Port, traceparent string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL("/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{}
	if traceparent != "" {
		header.Set("Traceparent", traceparent)
	}
	req.Header = header
	res, err := port.HTTP2().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	ctx := t.Context()
	if traceparent != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", traceparent)
	}
	if _, err := echov1.NewEchoClient(port.GRPC()).Unary(ctx, &echov1.UnaryRequest{}); err != nil {
		t.Fatal(err)
	}
	c, _, err := port.DialWebSocket(t.Context(), "/ws", header)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WriteMessage(1, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ReadMessage(); err == nil {
		t.Error("the session goes on")
	}
	_ = c.Close()
	_ = port.Stop()
}

func byName(list []sdk.ReadOnlySpan) (roots []sdk.ReadOnlySpan, inside map[string]sdk.ReadOnlySpan) {
	inside = map[string]sdk.ReadOnlySpan{}
	for _, s := range list {
		if s.SpanKind() == trace.SpanKindServer {
			roots = append(roots, s)
		} else {
			inside[s.Name()] = s
		}
	}
	return roots, inside
}

// A trace that begins here has the request id.
func TestTraceBeginsWithTheRequest(t *testing.T) {
	provider, spans := recorder()
	tracer := newTracer(t, tracing.Options{Provider: provider})
	call := begun(1, "")
	call.Observe([]protocols.Observer{tracer})
	if call.TraceID() != call.RequestID() || call.SpanID() == "" {
		t.Errorf("trace %s, span %s, request %s", call.TraceID(), call.SpanID(), call.RequestID())
	}
	call.Finish(protocols.Result{Status: 200})
	got := spans.Ended()
	if len(got) != 1 || got[0].Parent().IsValid() || got[0].SpanContext().TraceID().String() != call.RequestID() {
		t.Errorf("recorded: %v", got)
	}
}

// Who decides which calls are recorded.
func TestSampling(t *testing.T) {
	for name, c := range map[string]struct {
		opts   tracing.Options
		parent string
		least  int // of 2000
		most   int
		hands  string // the end of what a server elsewhere gets, if it is not recorded
	}{
		"all":                      {tracing.Options{}, "", 2000, 2000, ""},
		"none":                     {tracing.Options{Sample: -1}, "", 0, 0, "-00"},
		"a tenth":                  {tracing.Options{Sample: 0.1}, "", 120, 290, "-00"},
		"a client has":             {tracing.Options{Sample: -1}, parent + "01", 0, 0, "-00"},
		"a client has not":         {tracing.Options{}, parent + "00", 2000, 2000, ""},
		"followed, the client has": {tracing.Options{Sample: -1, Follow: true}, parent + "01", 2000, 2000, ""},
		"followed, it has not":     {tracing.Options{Follow: true}, parent + "00", 0, 0, "-00"},
		"followed, other flags":    {tracing.Options{Follow: true}, parent + "0a", 0, 0, "-0a"},
	} {
		t.Run(name, func(t *testing.T) {
			provider := sdk.NewTracerProvider(sdk.WithSampler(sdk.AlwaysSample()), sdk.WithIDGenerator(tracing.IDs()))
			c.opts.Provider = provider
			tracer := newTracer(t, c.opts)
			n := 0
			for i := range uint64(2000) {
				call := begun(i, c.parent)
				call.Observe([]protocols.Observer{tracer})
				if call.Span() != nil {
					n++
				} else if got := call.Traceparent(); got[52:] != c.hands || c.parent != "" && got[:52] != c.parent[:52] {
					t.Fatalf("a server elsewhere gets %s", got)
				}
			}
			if n < c.least || n > c.most {
				t.Errorf("%d of 2000 are recorded, want %d to %d", n, c.least, c.most)
			}
		})
	}
}

// A provider's own sampler has the last word.
func TestProviderMayRefuse(t *testing.T) {
	tracer := newTracer(t, tracing.Options{Provider: sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample()))})
	call := begun(1, "")
	call.Observe([]protocols.Observer{tracer})
	if call.Span() != nil || call.Traceparent()[52:] != "-00" {
		t.Errorf("the call is sampled: %s", call.Traceparent())
	}
}

// What is not sampled allocates nothing.
func TestUnsampledAllocatesNothing(t *testing.T) {
	provider, _ := recorder()
	for name, parent := range map[string]string{"by share": "", "by its client": parent + "00"} {
		tracer := newTracer(t, tracing.Options{Provider: provider, Sample: -1})
		call := begun(1, parent)
		if n := testing.AllocsPerRun(100, func() { tracer.Begin(call) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Each attempt at a server has a CLIENT span of its own, and the one that has not
// come through says so.
func TestAttempts(t *testing.T) {
	provider, spans := recorder()
	tracer := newTracer(t, tracing.Options{Provider: provider})
	call := begun(1, "")
	call.Observe([]protocols.Observer{tracer})
	call.Span().Server("http://10.0.0.1:8080")
	first, _ := call.Span().Upstream()
	call.Span().Server("http://app:8080 (10.0.0.2)")
	second, _ := call.Span().Upstream()
	call.Finish(protocols.Result{Status: 200})
	if after, _ := call.Span().Upstream(); after != call.Traceparent() {
		t.Errorf("after the end a server gets %s, want the SERVER span", after)
	}
	var got []string
	for _, s := range spans.Ended() {
		if s.SpanKind() == trace.SpanKindClient {
			set := attribute.NewSet(s.Attributes()...)
			at, _ := set.Value("server.address")
			got = append(got, at.AsString()+" "+s.Status().Code.String()+" "+s.SpanContext().SpanID().String())
		}
	}
	if want := []string{"10.0.0.1 Error " + first[36:52], "app Unset " + second[36:52]}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Messages of sessions are bounded in a second, whatever clients send.
func TestMessagesAreBounded(t *testing.T) {
	provider, spans := recorder()
	tracer := newTracer(t, tracing.Options{Provider: provider, Messages: 1, MessageRate: 5})
	call := begun(1, "")
	call.Observe([]protocols.Observer{tracer})
	call.Detach()
	began := time.Now()
	for range 10_000 {
		call.Span().Message(protocols.Message{FromClient: true, Bytes: 3})
	}
	most := 5 * (int(time.Since(began)/time.Second) + 2)
	if n := len(spans.Ended()) - 1; n < 5 || n > most {
		t.Errorf("%d messages are recorded, want 5 to %d", n, most)
	}
	call.Finish(protocols.Result{Status: 1006, Err: errors.New("reset")})
	last := spans.Ended()[len(spans.Ended())-1]
	set := attribute.NewSet(last.Attributes()...)
	if n, _ := set.Value("oneport.session.messages.received"); last.Name() != "websocket session" || n.AsInt64() != 10_000 {
		t.Errorf("%s has counted %d", last.Name(), n.AsInt64())
	}
	if e, _ := set.Value("error.type"); e.AsString() != "WebSocketDisconnect" {
		t.Errorf("error.type %q", e.AsString())
	}
}

// What clients send becomes valid attributes of a bounded length.
func TestHostileText(t *testing.T) {
	provider, spans := recorder()
	tracer := newTracer(t, tracing.Options{Provider: provider})
	call := begun(1, "")
	call.Method, call.Path, call.Host = "BREW", "/\xff\n"+string(make([]byte, 100_000)), "\xc3"
	call.Observe([]protocols.Observer{tracer})
	call.Finish(protocols.Result{Status: 404})
	s := spans.Ended()[0]
	if s.Name() != "HTTP" {
		t.Errorf("the span is called %q", s.Name())
	}
	for _, a := range s.Attributes() {
		v := a.Value.String()
		if len(v) > 1100 || !utf8.ValidString(v) {
			t.Errorf("%s has %d bytes, valid: %v", a.Key, len(v), utf8.ValidString(v))
		}
		if a.Key == "http.request.method" && v != "_OTHER" {
			t.Errorf("the method is %q", v)
		}
	}
}

// Spans are called what there is: who asks for methods that there are not makes no names.
func TestNamesOfSpansAreBounded(t *testing.T) {
	provider, spans := recorder()
	tracer := newTracer(t, tracing.Options{Provider: provider})
	end := func(path string, status int) {
		call := begun(1, "")
		call.Protocol, call.Method, call.Path = protocols.GRPC, "POST", path
		call.Observe([]protocols.Observer{tracer})
		_, _ = call.Span().Upstream()
		call.Finish(protocols.Result{Status: status})
	}
	for i := range 100 {
		end("/"+protocols.NewID(1, uint64(i)).String()+"/Do", 12)
		end("/"+protocols.NewID(2, uint64(i)).String()+"/Do", 16)
	}
	end("/a.B/C", 0)
	end("/a.B/C", 13)
	names := map[string]int{}
	for _, s := range spans.Ended() {
		names[s.Name()]++
	}
	if len(names) != 2 || names["grpc"] != 400 || names["a.B/C"] != 4 {
		t.Errorf("names: %v", names)
	}
}

// A span that waits keeps what it shows of a call, not all of the head that it came out of.
func TestSpansKeepNoHeads(t *testing.T) {
	provider, spans := recorder()
	tracer := newTracer(t, tracing.Options{Provider: provider})
	const n, long = 200, 1 << 20
	for range n {
		line := "GET /a?" + strings.Repeat("x", long) + " HTTP/1.1"
		call := begun(1, "")
		call.Method, call.Path, call.Version = line[:3], line[4:6], line[len(line)-8:]
		call.Observe([]protocols.Observer{tracer})
		call.Finish(protocols.Result{Status: 404})
	}
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	if mem.HeapAlloc > n*long/4 {
		t.Errorf("%d MiB are kept for %d spans", mem.HeapAlloc>>20, n)
	}
	runtime.KeepAlive(spans)
}

// Durations have attributes from bounded sets, whatever clients ask for.
func TestDurations(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	tracer := newTracer(t, tracing.Options{Meter: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
	end := func(protocol protocols.Protocol, method, path string, status int) {
		call := begun(1, "")
		call.Protocol, call.Method, call.Path = protocol, method, path
		call.Observe([]protocols.Observer{tracer})
		call.Finish(protocols.Result{Status: status})
	}
	for i := range 5000 {
		id := protocols.NewID(1, uint64(i)).String()
		end(protocols.HTTP, "M"+id, "/"+id, 404)
		end(protocols.GRPC, "POST", "/"+id+"/Do", 12)
		end(protocols.GRPC, "POST", "/"+id+"/Do", 16)
	}
	end(protocols.GRPC, "POST", "/a.B/C", 0)
	end(protocols.GRPC, "POST", "/a.B/C", 13)
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	series := map[string]int{}
	for _, m := range got.ScopeMetrics[0].Metrics {
		h, _ := m.Data.(metricdata.Histogram[float64])
		series[m.Name] = len(h.DataPoints)
		if m.Unit != "s" || len(h.DataPoints[0].Bounds) != 14 || h.DataPoints[0].Bounds[0] != 0.005 {
			t.Errorf("%s: %s, %v", m.Name, m.Unit, h.DataPoints[0].Bounds)
		}
	}
	if series["http.server.request.duration"] != 1 || series["rpc.server.call.duration"] != 4 {
		t.Errorf("series: %v, want 1 and 4", series)
	}
}
