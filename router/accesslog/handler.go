package accesslog

import (
	"context"
	"log/slog"

	"github.com/oneport-edge/oneport/protocols"
)

// Handler adds to what is logged inside of a call which one that is: request, conn and trace,
// and span if it is sampled, by the names that lines of calls have for them. It knows the call
// by the context, so by slog's functions whose names end in Context. What a line has
// already is not added.
func Handler(next slog.Handler) slog.Handler { return &handler{next} }

type handler struct{ slog.Handler }

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	call := protocols.CallFrom(ctx)
	if call == nil {
		return h.Handler.Handle(ctx, r)
	}
	var has [4]bool
	r.Attrs(func(a slog.Attr) bool {
		for i, name := range names {
			has[i] = has[i] || a.Key == name
		}
		return true
	})
	r = r.Clone()
	for i, value := range [...]string{call.RequestID(), call.Conn.ID, call.TraceID(), call.SpanID()} {
		if !has[i] && value != "" {
			r.AddAttrs(slog.String(names[i], value))
		}
	}
	return h.Handler.Handle(ctx, r)
}

var names = [...]string{"request", "conn", "trace", "span"}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.Handler.WithAttrs(attrs)}
}

func (h *handler) WithGroup(name string) slog.Handler { return &handler{h.Handler.WithGroup(name)} }
