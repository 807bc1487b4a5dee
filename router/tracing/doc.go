// Package tracing records calls as OpenTelemetry's spans and durations, of all protocols alike.
//
// A [Tracer] is one of router.Server's Observers: it decides for each call whether that is
// sampled, before anything is allocated for it. A sampled call has a SERVER span, and a CLIENT
// span for its way to a server elsewhere, which gets that one's name as traceparent (W3C Trace
// Context). A WebSocket's handshake is such a call; its session is a short span of its own when
// it has ended, with a link to the handshake, as is now and then one of its messages: spans that
// are open for hours nobody gets to see.
//
// The providers come from outside; nothing here is global. [Open] makes some that export by OTLP.
//
// This package alone imports go.opentelemetry.io/otel.
package tracing
