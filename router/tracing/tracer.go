package tracing

import (
	"cmp"
	"context"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/oneport-edge/oneport/protocols"
)

// scope is the name under which spans and metrics are recorded.
const scope = "github.com/oneport-edge/oneport/router/tracing"

// Options configure a Tracer. Each zero value is the default.
type Options struct {
	// Provider makes the spans. Its sampler is asked about what Sample has let through. Nil
	// records none.
	Provider trace.TracerProvider
	// Meter makes http.server.request.duration and rpc.server.call.duration. Nil makes none.
	Meter metric.MeterProvider
	// Sample is the share of the calls that are recorded: 0.1 for a tenth. Zero means all, a
	// negative value none. A client's span is the parent of the call's in any case.
	Sample float64
	// Follow has the sampled flag of a client's traceparent decide instead of Sample, whoever
	// the client is: strangers can have each of their calls recorded then, or none.
	Follow bool
	// Users has spans say who the call is made for, as enduser.id.
	Users bool
	// Messages is how many messages of a sampled session there are to each that is recorded.
	// Zero means 100, a negative value that none is.
	Messages int
	// MessageRate is how many messages of all sessions are recorded in a second. Zero means 100.
	MessageRate int
}

// Tracer records calls. It is a [protocols.Observer], and safe for concurrent use.
type Tracer struct {
	opts    Options
	tracer  trace.Tracer // nil records no spans
	meters  *meters      // nil for none
	methods methods
	below   uint64 // a random number below is sampled
	spanKey any    // under which a context has its span

	second atomic.Int64 // of taken, since the epoch
	taken  atomic.Int64 // messages recorded in it
}

// New makes a Tracer. An error is of the Meter alone.
func New(opts Options) (*Tracer, error) {
	opts.Messages = cmp.Or(opts.Messages, 100)
	opts.MessageRate = cmp.Or(opts.MessageRate, 100)
	t := &Tracer{opts: opts, spanKey: spanKey()}
	if opts.Provider != nil {
		t.tracer = opts.Provider.Tracer(scope, trace.WithSchemaURL(schema))
	}
	switch {
	case opts.Sample == 0 || opts.Sample >= 1:
		t.below = math.MaxUint64
	case opts.Sample > 0:
		t.below = uint64(opts.Sample * (1 << 63) * 2)
	}
	var err error
	if opts.Meter != nil {
		t.meters, err = newMeters(opts.Meter)
	}
	return t, err
}

// probe is a context that takes note of what it is asked.
type probe struct {
	context.Context
	asked *any
}

func (p probe) Value(key any) any {
	*p.asked = key
	return nil
}

// spanKey is the key under which OpenTelemetry looks for a context's span. It has no name for
// others, but a context is told of it when it is asked.
func spanKey() (key any) {
	trace.SpanFromContext(probe{context.Background(), &key})
	return key
}

// Begin implements protocols.Observer.
func (t *Tracer) Begin(call *protocols.Call) {
	if t.tracer == nil {
		return
	}
	call.Traced(t, nil) // what Start is to find in the call's context: the client's span
	if !t.samples(call) {
		return
	}
	if s := t.start(call); s != nil {
		call.Traced(t, s)
	}
}

// End implements protocols.Observer.
func (t *Tracer) End(call *protocols.Call, res protocols.Result) {
	if s, ok := call.Span().(*span); ok {
		s.done(res)
	}
	if t.meters != nil {
		t.record(call, res)
	}
}

// samples decides whether a call is recorded.
func (t *Tracer) samples(call *protocols.Call) bool {
	parent := call.Parent()
	if parent != "" && t.opts.Follow {
		return sampledFlag(parent)
	}
	yes := t.below == math.MaxUint64 || t.below > 0 && rand.Uint64() < t.below
	if parent != "" && !yes && sampledFlag(parent) {
		call.Unsampled()
	}
	return yes
}

// sampledFlag reads the last digit of a valid traceparent's flags.
func sampledFlag(parent string) bool {
	d := parent[54]
	if d >= 'a' {
		d -= 'a' - 10
	}
	return d&1 == 1
}

// Value implements protocols.Tracer: handlers find the call's span, or else the client's, so
// that what they record belongs to the trace, or is not recorded either.
func (t *Tracer) Value(call *protocols.Call, key any) any {
	if key != t.spanKey {
		return nil
	}
	if s, ok := call.Span().(*span); ok {
		return s.server
	}
	sc := remote(call.Traceparent(), call.Header("tracestate"))
	return trace.SpanFromContext(trace.ContextWithRemoteSpanContext(context.Background(), sc))
}

// remote is the span that a valid traceparent names.
func remote(parent, state string) trace.SpanContext {
	var cfg trace.SpanContextConfig
	cfg.TraceID, _ = trace.TraceIDFromHex(parent[3:35])
	cfg.SpanID, _ = trace.SpanIDFromHex(parent[36:52])
	if sampledFlag(parent) {
		cfg.TraceFlags = trace.FlagsSampled
	}
	cfg.TraceState, _ = trace.ParseTraceState(state) // without one that is not valid
	cfg.Remote = true
	return trace.NewSpanContext(cfg)
}

// mayRecord takes one of the second's places for messages.
func (t *Tracer) mayRecord(now time.Time) bool {
	if s := now.Unix(); t.second.Swap(s) != s {
		t.taken.Store(0)
	}
	return t.taken.Add(1) <= int64(t.opts.MessageRate)
}
