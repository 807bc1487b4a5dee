//go:build clients

package clients_test

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// collector takes spans by OTLP, over gRPC and as http/protobuf.
type collector struct {
	coltrace.UnimplementedTraceServiceServer
	rpc, web string // where it listens

	mu    sync.Mutex // guards the fields below
	spans []*tracepb.Span
	raw   []byte        // all requests as text
	more  chan struct{} // closed at each change
}

// newCollector starts one for as long as the test runs.
func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{more: make(chan struct{})}
	listen := func() net.Listener {
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	rpc, web := listen(), listen()
	c.rpc, c.web = rpc.Addr().String(), web.Addr().String()
	srv := grpc.NewServer()
	coltrace.RegisterTraceServiceServer(srv, c)
	plain := &http.Server{Handler: c, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 2)
	go func() { done <- srv.Serve(rpc) }()
	go func() { done <- plain.Serve(web) }()
	t.Cleanup(func() {
		srv.Stop()
		_ = plain.Close()
		for range 2 {
			if err := <-done; err != nil && !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		}
	})
	return c
}

func (c *collector) Export(_ context.Context, r *coltrace.ExportTraceServiceRequest) (*coltrace.ExportTraceServiceResponse, error) {
	c.take(r)
	return &coltrace.ExportTraceServiceResponse{}, nil
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	asked := new(coltrace.ExportTraceServiceRequest)
	if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" || proto.Unmarshal(body, asked) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.take(asked)
	w.Header().Set("Content-Type", "application/x-protobuf") // an empty message
}

func (c *collector) take(r *coltrace.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = append(append(c.raw, r.String()...), '\n')
	for _, rs := range r.GetResourceSpans() {
		for _, ss := range rs.GetScopeSpans() {
			c.spans = append(c.spans, ss.GetSpans()...)
		}
	}
	close(c.more)
	c.more = make(chan struct{})
}

// text is all that it has got.
func (c *collector) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.raw)
}

// span waits for the span of a kind in a trace.
func (c *collector) span(t *testing.T, trace string, kind tracepb.Span_SpanKind) *tracepb.Span {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		i := slices.IndexFunc(c.spans, func(s *tracepb.Span) bool { return hex.EncodeToString(s.GetTraceId()) == trace && s.GetKind() == kind })
		var s *tracepb.Span
		if i >= 0 {
			s = c.spans[i]
		}
		more := c.more
		c.mu.Unlock()
		if s != nil {
			return s
		}
		select {
		case <-more:
		case <-late:
			t.Fatalf("the collector has no %v of %s", kind, trace)
		}
	}
}
