package router

import (
	"log/slog"

	"github.com/oneport-edge/oneport/protocols"
)

// observers are those of all calls: Access, and the Observers.
func (s *Server) observers() []protocols.Observer {
	if s.Access == nil {
		return s.Observers
	}
	return append([]protocols.Observer{accessLog{s.Access}}, s.Observers...)
}

// accessLog writes a line for each call, at Info.
type accessLog struct{ log *slog.Logger }

// Begin implements protocols.Observer.
func (accessLog) Begin(*protocols.Call) {}

// End implements protocols.Observer. The query is left out: tokens travel in it.
func (a accessLog) End(call *protocols.Call, res protocols.Result) {
	attrs := []slog.Attr{
		slog.String("protocol", call.Protocol.String()),
		slog.String("method", call.Method),
		slog.String("host", call.Host),
		slog.String("path", call.Path),
		slog.String("version", call.Version),
		slog.Int("status", res.Status),
		slog.Int64("sent", res.Sent),
		slog.Duration("took", res.At.Sub(call.Started)),
		slog.String("remote", call.Conn.Remote.String()),
		slog.String("conn", call.Conn.ID),
		slog.String("request", call.RequestID()),
		slog.String("trace", call.TraceID()),
	}
	if id := call.SpanID(); id != "" {
		attrs = append(attrs, slog.String("span", id))
	}
	if id := call.Identity(); id != nil {
		attrs = append(attrs, slog.String("user", id.Key()))
	}
	if why := call.Refusal(); why != nil {
		attrs = append(attrs, slog.String("refused", why.Reason.String()))
	}
	if res.Err != nil {
		attrs = append(attrs, slog.String("err", res.Err.Error()))
	}
	a.log.LogAttrs(call.Context(), slog.LevelInfo, "call", attrs...)
}
