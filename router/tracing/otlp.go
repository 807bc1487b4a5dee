package tracing

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/credentials"

	"github.com/oneport-edge/oneport/protocols"
)

// The protocols of OTLP.
const (
	GRPC = "grpc"
	HTTP = "http/protobuf"
)

// OTLP says where to export to. Variables of the environment whose names begin with OTEL_EXPORTER_OTLP_ and
// OTEL_RESOURCE_ATTRIBUTES are read too; what stands here comes before them.
type OTLP struct {
	// Endpoint is the collector's URL, of https or http. For HTTP "/v1/traces" comes behind it.
	Endpoint string
	// Protocol is GRPC or HTTP; "" means GRPC.
	Protocol string
	// Headers go with each export: credentials, as a rule.
	Headers map[string]string
	// TLS is for https. Nil means the system's authorities.
	TLS *tls.Config
	// Service and Version are service.name and service.version.
	Service, Version string
	// Metrics exports durations too, each MetricsEvery; zero means 60 s.
	Metrics      bool
	MetricsEvery time.Duration
	// Log is told what was lost, at Warn. Nil discards.
	Log *slog.Logger
}

// Exporter exports by OTLP. Make it by [Open], and Close it.
type Exporter struct {
	spans   *sdk.TracerProvider
	queue   *queue
	metrics *sdkmetric.MeterProvider // nil for none
}

// Open makes an Exporter. It does not wait for the collector.
func Open(o OTLP) (*Exporter, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != schemeTLS {
		return nil, fmt.Errorf("tracing: endpoint %q: want the URL of a collector, as http://127.0.0.1:4317", o.Endpoint)
	}
	if p := cmp.Or(o.Protocol, GRPC); p != GRPC && p != HTTP {
		return nil, fmt.Errorf("tracing: protocol %q: want %s or %s", o.Protocol, GRPC, HTTP)
	}
	ctx := context.Background() // nothing is dialed yet
	about, err := resource.New(ctx, resource.WithFromEnv(), resource.WithTelemetrySDK(), resource.WithHost(), resource.WithAttributes(
		attribute.String("service.name", cmp.Or(o.Service, "oneport")), attribute.String("service.version", o.Version)))
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	to, err := o.spans(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	e := &Exporter{queue: newQueue(to, o.Log)}
	e.spans = sdk.NewTracerProvider(
		sdk.WithSampler(sdk.AlwaysSample()), // the Tracer has decided
		sdk.WithIDGenerator(ids{}), sdk.WithResource(about), sdk.WithSpanProcessor(e.queue),
		sdk.WithRawSpanLimits(sdk.SpanLimits{
			AttributeValueLengthLimit: mostText, AttributeCountLimit: mostOfSpans, EventCountLimit: mostOfSpans,
			LinkCountLimit: mostOfSpans, AttributePerEventCountLimit: mostOfSpans, AttributePerLinkCountLimit: mostOfSpans,
		}))
	if o.Metrics {
		m, err := o.meters(ctx, u)
		if err != nil {
			_ = e.Close(ctx) // nothing waits there
			return nil, fmt.Errorf("tracing: %w", err)
		}
		every := cmp.Or(o.MetricsEvery, time.Minute)
		e.metrics = sdkmetric.NewMeterProvider(sdkmetric.WithResource(about),
			sdkmetric.WithReader(sdkmetric.NewPeriodicReader(m, sdkmetric.WithInterval(every), sdkmetric.WithTimeout(exportTime))))
	}
	return e, nil
}

// at is the URL of a signal.
func at(u *url.URL, signal string) string {
	to := *u
	to.Path = strings.TrimSuffix(u.Path, "/") + "/v1/" + signal
	return to.String()
}

func (o *OTLP) spans(ctx context.Context, u *url.URL) (sdk.SpanExporter, error) {
	if o.Protocol == HTTP {
		opts := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(at(u, "traces")), otlptracehttp.WithHeaders(o.Headers)}
		if u.Scheme == schemeTLS && o.TLS != nil {
			opts = append(opts, otlptracehttp.WithTLSClientConfig(o.TLS))
		}
		return otlptrace.New(ctx, otlptracehttp.NewClient(opts...))
	}
	opts := []otlptracegrpc.Option{otlptracegrpc.WithEndpointURL(u.String()), otlptracegrpc.WithHeaders(o.Headers)}
	if u.Scheme == schemeTLS && o.TLS != nil {
		opts = append(opts, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(o.TLS)))
	}
	return otlptrace.New(ctx, otlptracegrpc.NewClient(opts...))
}

func (o *OTLP) meters(ctx context.Context, u *url.URL) (sdkmetric.Exporter, error) {
	if o.Protocol == HTTP {
		opts := []otlpmetrichttp.Option{otlpmetrichttp.WithEndpointURL(at(u, "metrics")), otlpmetrichttp.WithHeaders(o.Headers)}
		if u.Scheme == schemeTLS && o.TLS != nil {
			opts = append(opts, otlpmetrichttp.WithTLSClientConfig(o.TLS))
		}
		return otlpmetrichttp.New(ctx, opts...)
	}
	opts := []otlpmetricgrpc.Option{otlpmetricgrpc.WithEndpointURL(u.String()), otlpmetricgrpc.WithHeaders(o.Headers)}
	if u.Scheme == schemeTLS && o.TLS != nil {
		opts = append(opts, otlpmetricgrpc.WithTLSCredentials(credentials.NewTLS(o.TLS)))
	}
	return otlpmetricgrpc.New(ctx, opts...)
}

// Spans are for [Options.Provider].
func (e *Exporter) Spans() trace.TracerProvider { return e.spans }

// Durations are for [Options.Meter]; nil without metrics.
func (e *Exporter) Durations() metric.MeterProvider {
	if e.metrics == nil {
		return nil
	}
	return e.metrics
}

// Stats are counts of spans.
type Stats struct {
	Sent, Failed int64 // by export
	Dropped      int64 // for want of room
}

// Stats returns the counts.
func (e *Exporter) Stats() Stats {
	return Stats{Sent: e.queue.sent.Load(), Failed: e.queue.failed.Load(), Dropped: e.queue.dropped.Load()}
}

// Flush exports what waits, until ctx ends.
func (e *Exporter) Flush(ctx context.Context) error {
	err := e.spans.ForceFlush(ctx)
	if e.metrics != nil {
		err = errors.Join(err, e.metrics.ForceFlush(ctx))
	}
	return err
}

// Close exports what waits, until ctx ends, and ends.
func (e *Exporter) Close(ctx context.Context) error {
	err := e.spans.Shutdown(ctx)
	if e.metrics != nil {
		err = errors.Join(err, e.metrics.Shutdown(ctx))
	}
	return err
}

// ids makes the ids of spans. A trace that begins with a call has its request id.
type ids struct{}

// IDs are ids of traces which are the request ids of the calls that they begin with, for a
// provider of your own (sdk/trace.WithIDGenerator).
func IDs() sdk.IDGenerator { return ids{} }

func (ids) NewIDs(ctx context.Context) (id trace.TraceID, span trace.SpanID) {
	if call := protocols.CallFrom(ctx); call != nil {
		id = trace.TraceID(call.ID())
	} else {
		binary.BigEndian.PutUint64(id[:8], rand.Uint64())
		binary.BigEndian.PutUint64(id[8:], rand.Uint64()|1) // never zero
	}
	return id, ids{}.NewSpanID(ctx, id)
}

func (ids) NewSpanID(context.Context, trace.TraceID) (span trace.SpanID) {
	binary.BigEndian.PutUint64(span[:], rand.Uint64()|1)
	return span
}
