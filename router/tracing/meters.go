package tracing

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/oneport-edge/oneport/protocols"
)

// meters are the durations of calls. Their attributes have values from bounded sets alone.
type meters struct {
	http, rpc metric.Float64Histogram
}

// mostMethods bounds the names of methods in metrics and of spans; all others are other.
const mostMethods = 1000

// buckets are those of the conventions, in seconds.
func buckets() metric.HistogramOption {
	return metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
}

func newMeters(p metric.MeterProvider) (m *meters, err error) {
	of := p.Meter(scope, metric.WithSchemaURL(schema))
	m = new(meters)
	if m.http, err = of.Float64Histogram("http.server.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Duration of HTTP server requests."), buckets()); err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	if m.rpc, err = of.Float64Histogram("rpc.server.call.duration", metric.WithUnit("s"),
		metric.WithDescription("Measures the duration of an incoming Remote Procedure Call (RPC)."), buckets()); err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	return m, nil
}

// record counts a call that has ended. A session's handshake has none of its own, and how long
// a session was open is no request's duration.
func (t *Tracer) record(call *protocols.Call, res protocols.Result) {
	if call.Detached() {
		return
	}
	took := res.At.Sub(call.Started).Seconds()
	end := outcome(call, res)
	attrs := make([]attribute.KeyValue, 0, 8)
	if call.Protocol == protocols.GRPC {
		attrs = append(attrs, attribute.String(rpcSystem, grpcSystem), attribute.String(rpcMethod, t.methods.name(call, res.Status == 0)))
		t.meters.rpc.Record(context.Background(), took, metric.WithAttributes(append(attrs, end.attrs...)...))
		return
	}
	attrs = append(attrs, attribute.String(httpMethod, method(call.Method)), attribute.String(urlScheme, scheme(call)),
		attribute.String(protocolName, "http"), attribute.String(protocolVer, version(call)))
	if to := call.Destination(); to != nil {
		attrs = append(attrs, attribute.String(httpRoute, to.Route))
	}
	t.meters.http.Record(context.Background(), took, metric.WithAttributes(append(attrs, end.attrs...)...))
}

// methods are those of gRPC that a call has succeeded of. Clients may ask for any.
type methods struct {
	names sync.Map
	count atomic.Int64
}

// name is that of a call's method if there is such a method, and other else. good says that
// the call has succeeded.
func (m *methods) name(call *protocols.Call, good bool) string {
	asked := strings.TrimPrefix(call.Path, "/")
	if name, ok := m.names.Load(asked); ok {
		return name.(string) //nolint:forcetypeassert // nothing else is stored
	}
	if !good || m.count.Load() >= mostMethods {
		return other
	}
	name := grpcMethod(call)
	if _, was := m.names.LoadOrStore(name, name); !was {
		m.count.Add(1)
	}
	return name
}
