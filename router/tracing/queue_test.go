package tracing

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// stuck is an exporter that waits until its context ends, or it is let go.
type stuck struct {
	let  chan struct{}
	mu   sync.Mutex
	seen int
}

func (s *stuck) ExportSpans(ctx context.Context, list []sdk.ReadOnlySpan) error {
	select {
	case <-s.let:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen += len(list)
	return nil
}

func (s *stuck) Shutdown(context.Context) error { return nil }

func sampledSpan() sdk.ReadOnlySpan {
	return tracetest.SpanStub{SpanContext: trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
	})}.Snapshot()
}

// With a collector that takes nothing who ends a span does not wait, what has no room is
// counted, and the end waits no longer than it may.
func TestQueueDoesNotWait(t *testing.T) {
	var log strings.Builder
	to := &stuck{let: make(chan struct{})}
	q := newQueue(to, slog.New(slog.NewTextHandler(&log, nil)))
	const n = 3 * mostQueued
	for range n {
		q.OnEnd(sampledSpan()) // would hang here
	}
	dropped := q.dropped.Load()
	if dropped < n-mostQueued-mostBatch || dropped >= n {
		t.Errorf("%d of %d dropped", dropped, n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := q.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the end: %v", err)
	}
	if got := q.sent.Load() + q.failed.Load() + q.dropped.Load(); got != n || q.sent.Load() != 0 {
		t.Errorf("%d of %d are accounted for, %d as sent", got, n, q.sent.Load())
	}
	if !strings.Contains(log.String(), "spans are lost") { // nobody writes any more
		t.Errorf("the log says %q", log.String())
	}
}

// The end exports all that waits.
func TestQueueIsFlushed(t *testing.T) {
	to := &stuck{let: make(chan struct{})}
	close(to.let)
	q := newQueue(to, slog.New(slog.DiscardHandler))
	for range 1000 {
		q.OnEnd(sampledSpan())
	}
	if err := q.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if to.seen != 1000 || q.sent.Load() != 1000 {
		t.Errorf("%d exported, %d counted", to.seen, q.sent.Load())
	}
}
