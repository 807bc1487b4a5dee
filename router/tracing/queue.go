package tracing

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// What the queue of spans may hold, and how it is emptied.
const (
	mostQueued  = 2048
	mostBatch   = 512
	batchEvery  = time.Second
	exportTime  = 10 * time.Second
	sayDropped  = 10 * time.Second // a line at most
	mostOfSpans = 64               // attributes, events and links of a span
)

// queue is where spans wait for their export. Who ends a span never waits: what has no room is
// dropped, and counted.
type queue struct {
	to   sdk.SpanExporter
	log  *slog.Logger
	in   chan sdk.ReadOnlySpan
	ask  chan chan struct{} // ForceFlush
	stop chan struct{}
	once sync.Once
	done chan struct{}

	ctx    context.Context //nolint:containedctx // of exports: it ends when Shutdown waits no longer
	cancel context.CancelFunc

	sent, failed, dropped atomic.Int64

	// Of the goroutine.
	batch []sdk.ReadOnlySpan
	said  int64 // of failed and dropped
	when  time.Time
	err   error // the last of exports
}

func newQueue(to sdk.SpanExporter, log *slog.Logger) *queue {
	q := &queue{
		to: to, log: log, in: make(chan sdk.ReadOnlySpan, mostQueued), ask: make(chan chan struct{}),
		stop: make(chan struct{}), done: make(chan struct{}), batch: make([]sdk.ReadOnlySpan, 0, mostBatch),
	}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	go q.run() // Shutdown waits for it
	return q
}

// OnStart implements sdk.SpanProcessor.
func (q *queue) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd implements sdk.SpanProcessor.
func (q *queue) OnEnd(s sdk.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	select {
	case q.in <- s:
	default:
		q.dropped.Add(1)
	}
}

// ForceFlush implements sdk.SpanProcessor.
func (q *queue) ForceFlush(ctx context.Context) error {
	flushed := make(chan struct{})
	select {
	case q.ask <- flushed:
	case <-q.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-flushed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Shutdown implements sdk.SpanProcessor: it exports what waits, until ctx ends.
func (q *queue) Shutdown(ctx context.Context) error {
	q.once.Do(func() { close(q.stop) })
	end := context.AfterFunc(ctx, q.cancel)
	defer end()
	<-q.done // soon after the end of q.ctx, for an export ends with that
	q.cancel()
	if err := q.to.Shutdown(ctx); err != nil {
		return err
	}
	return context.Cause(ctx)
}

func (q *queue) run() {
	defer close(q.done)
	tick := time.NewTicker(batchEvery)
	defer tick.Stop()
	for {
		select {
		case s := <-q.in:
			if q.batch = append(q.batch, s); len(q.batch) == mostBatch {
				q.export()
			}
		case <-tick.C:
			q.export()
			q.say(false)
		case flushed := <-q.ask:
			q.drain()
			close(flushed)
		case <-q.stop:
			q.drain()
			q.say(true)
			return
		}
	}
}

// drain exports all that is there.
func (q *queue) drain() {
	for {
		select {
		case s := <-q.in:
			if q.batch = append(q.batch, s); len(q.batch) == mostBatch {
				q.export()
			}
		default:
			q.export()
			return
		}
	}
}

func (q *queue) export() {
	n := int64(len(q.batch))
	if n == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(q.ctx, exportTime)
	err := q.to.ExportSpans(ctx, q.batch)
	cancel()
	clear(q.batch)
	q.batch = q.batch[:0]
	if err != nil {
		q.err = err
		q.failed.Add(n)
		return
	}
	q.sent.Add(n)
}

// say logs what was lost since it was last said.
func (q *queue) say(now bool) {
	failed, dropped := q.failed.Load(), q.dropped.Load()
	if failed+dropped == q.said || !now && time.Since(q.when) < sayDropped {
		return
	}
	q.said, q.when = failed+dropped, time.Now()
	q.log.Warn("spans are lost", "dropped", dropped, "failed", failed, "sent", q.sent.Load(), "err", q.err)
}
