package tracing

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/oneport-edge/oneport/protocols"
)

// span records one call.
type span struct {
	t      *Tracer
	call   *protocols.Call
	name   string
	server trace.Span
	parent string // names server

	messages [2]atomic.Int64 // from the client, and to it
	bytes    [2]atomic.Int64

	mu       sync.Mutex // guards the fields below
	client   trace.Span // the way to a server elsewhere; nil without one
	at       string     // the server that was chosen
	pending  bool       // it was chosen after client had begun
	attempts int
	detached time.Time // when the handshake had ended; zero for no session
	over     bool
}

// start begins a call's span; nil if the provider does not record it.
func (t *Tracer) start(call *protocols.Call) *span {
	s := &span{t: t, call: call, name: t.nameOf(call)}
	opts := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(call.Started), trace.WithAttributes(t.begun(call)...),
	}
	if call.Parent() == "" {
		opts = append(opts, trace.WithNewRoot())
	}
	_, s.server = t.tracer.Start(call.Context(), s.name, opts...) //nolint:spancheck // endLocked ends it
	if !s.server.IsRecording() {
		return nil
	}
	s.parent = format(s.server.SpanContext())
	return s
}

// format writes a traceparent.
func format(sc trace.SpanContext) string {
	return "00-" + sc.TraceID().String() + "-" + sc.SpanID().String() + "-" + sc.TraceFlags().String()
}

// Traceparent implements protocols.Span.
func (s *span) Traceparent() string { return s.parent }

// Upstream implements protocols.Span.
func (s *span) Upstream() (parent, state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || !s.detached.IsZero() {
		return s.parent, s.server.SpanContext().TraceState().String()
	}
	if s.client != nil {
		s.client.SetStatus(codes.Error, "")
		s.client.SetAttributes(attribute.String(errorType, "unreachable"))
		s.client.End()
	}
	attrs := sent(s.call, s.attempts)
	if s.at != "" {
		attrs = append(attrs, serverOf(s.at)...)
	}
	_, s.client = s.t.tracer.Start(trace.ContextWithSpan(context.Background(), s.server), s.name, //nolint:spancheck // endLocked ends it
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attrs...))
	s.attempts++
	s.pending = false
	sc := s.client.SpanContext()
	return format(sc), sc.TraceState().String()
}

// Server implements protocols.Span.
func (s *span) Server(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	if s.client != nil { // the first of a stream, or one more
		if s.at != "" {
			s.client.AddEvent("retry", trace.WithAttributes(attribute.String("oneport.server", name)))
		}
		s.pending = true
	}
	s.at = name
}

// Detached implements protocols.Span: the handshake has ended well.
func (s *span) Detached() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || !s.detached.IsZero() {
		return
	}
	s.detached = time.Now()
	s.endLocked(protocols.Result{Status: switching})
}

// switching is what a handshake is answered with that has ended well: 101.
const switching = 101

// done ends what is open.
func (s *span) done(res protocols.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.over = true
	if s.detached.IsZero() {
		s.endLocked(res)
		return
	}
	s.session(res)
}

// endLocked ends the spans of a call, or of a handshake.
func (s *span) endLocked(res protocols.Result) {
	end := outcome(s.call, res)
	s.server.SetAttributes(append(s.t.known(s.call), end.attrs...)...) // at once: each time it makes room for so many
	name := s.known(res)
	if name != s.name {
		s.server.SetName(name)
	}
	if end.fault {
		s.server.SetStatus(codes.Error, "")
	}
	if why := s.call.Refusal(); why != nil {
		s.server.AddEvent("refused", trace.WithAttributes(attribute.String(refusedFor, why.Reason.String())))
	}
	if s.client != nil {
		attrs := end.attrs
		if s.pending {
			attrs = append(attrs, serverOf(s.at)...)
		}
		if to := s.call.Destination(); to != nil {
			attrs = append(attrs, attribute.String(upstreamName, to.Upstream))
		}
		s.client.SetAttributes(attrs...)
		if s.call.Protocol == protocols.GRPC && name != s.name {
			s.client.SetName(name)
		}
		if end.fault || end.status {
			s.client.SetStatus(codes.Error, "")
		}
		s.client.End()
	}
	s.server.End()
}

// known is the span's name once it is known which route the call took, or whether there is
// its method.
func (s *span) known(res protocols.Result) string {
	if s.call.Protocol == protocols.GRPC {
		if name := s.t.methods.name(s.call, res.Status == 0); name != other {
			return name
		}
		return s.name
	}
	if to := s.call.Destination(); to != nil {
		return s.name + " " + to.Route
	}
	return s.name
}

// session records a session that has ended.
func (s *span) session(res protocols.Result) {
	end := time.Now()
	attrs := append(s.t.known(s.call),
		attribute.Float64("oneport.session.duration", end.Sub(s.detached).Seconds()),
		attribute.Int64("oneport.session.messages.received", s.messages[0].Load()),
		attribute.Int64("oneport.session.messages.sent", s.messages[1].Load()),
		attribute.Int64("oneport.session.bytes.received", s.bytes[0].Load()),
		attribute.Int64("oneport.session.bytes.sent", s.bytes[1].Load()),
		attribute.Int("oneport.session.close_code", res.Status),
		attribute.String(requestID, s.call.RequestID()),
		attribute.String(connectionID, s.call.Conn.ID),
	)
	span := s.beside("websocket session", end, attrs)
	switch why := s.call.Refusal(); {
	case why != nil:
		span.AddEvent("ended", trace.WithAttributes(attribute.String(refusedFor, why.Reason.String())))
	case res.Status == abnormal:
		span.SetAttributes(attribute.String(errorType, "WebSocketDisconnect"))
	case res.Status == failed:
		span.SetStatus(codes.Error, "")
		span.SetAttributes(attribute.String(errorType, "1011"))
	}
	span.End(trace.WithTimestamp(end))
}

// Close codes that say that something went wrong (RFC 6455, 7.4).
const (
	abnormal = 1006
	failed   = 1011
)

// beside begins a span in a trace of its own that links to the handshake's.
func (s *span) beside(name string, at time.Time, attrs []attribute.KeyValue) trace.Span {
	_, span := s.t.tracer.Start(context.Background(), name, trace.WithNewRoot(), trace.WithTimestamp(at), //nolint:spancheck // its caller ends it
		trace.WithLinks(trace.Link{SpanContext: s.server.SpanContext()}), trace.WithAttributes(attrs...))
	return span //nolint:spancheck // as above
}

// Message implements protocols.Span.
func (s *span) Message(m protocols.Message) {
	way := 1
	if m.FromClient {
		way = 0
	}
	n := s.messages[way].Add(1)
	s.bytes[way].Add(m.Bytes)
	if every := int64(s.t.opts.Messages); every < 0 || (n-1)%every != 0 {
		return
	}
	now := time.Now()
	if !s.t.mayRecord(now) {
		return
	}
	typ, direction := "binary", "sent"
	if m.Text {
		typ = "text"
	}
	if m.FromClient {
		direction = "received"
	}
	span := s.beside("websocket message "+direction, now, []attribute.KeyValue{
		attribute.String("oneport.message.direction", direction),
		attribute.String("oneport.message.type", typ),
		attribute.Int64("oneport.message.size", m.Bytes),
		attribute.Int64("oneport.message.number", n),
		attribute.String(requestID, s.call.RequestID()),
		attribute.String(connectionID, s.call.Conn.ID),
	})
	span.End(trace.WithTimestamp(now))
}
