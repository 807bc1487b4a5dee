package tracing_test

import (
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/tracing"
)

// What tracing adds to a call when it begins, if it is not sampled, and what a whole call costs if it is.
func BenchmarkBegin(b *testing.B) {
	provider := sdk.NewTracerProvider(sdk.WithIDGenerator(tracing.IDs())) // exports nothing
	tracer := newTracer(b, tracing.Options{Provider: provider, Sample: -1})
	for name, parent := range map[string]string{"unsampled": "", "unsampled by client": parent + "00"} {
		b.Run(name, func(b *testing.B) {
			call := begun(1, parent)
			b.ReportAllocs()
			for b.Loop() {
				tracer.Begin(call)
			}
		})
	}
	b.Run("sampled", func(b *testing.B) {
		tracer := newTracer(b, tracing.Options{Provider: provider})
		b.ReportAllocs()
		for b.Loop() {
			call := begun(1, "")
			call.Observe([]protocols.Observer{tracer})
			call.Span().Server("http://127.0.0.1:8080")
			call.Span().Upstream()
			call.Finish(protocols.Result{Status: 200})
		}
	})
}
