package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/accesslog"
	"github.com/oneport-edge/oneport/router/config"
	"github.com/oneport-edge/oneport/router/tracing"
)

const keyTelemetry = "telemetry"

// lastExport is how long the process's end waits for a collector, and then for who reads the log: one
// must not cost the other its lines.
const lastExport = 2 * time.Second

// LogTo has a line written for each call, as the file says: to w, if that names no file. Call
// it before the server serves.
func (e *Edge) LogTo(w io.Writer) error {
	cfg := &e.begun.Log
	if !cfg.Access {
		return nil
	}
	o := accesslog.Options{Out: w, Log: e.log}
	form := cfg.Format
	if a := cfg.AccessLog; a != nil {
		o.Buffer = int(a.Buffer)
		if a.Form != "" {
			form = a.Form
		}
		if a.File != "" {
			f, err := accesslog.OpenFile(a.File)
			if err != nil {
				return err
			}
			o.Out, e.linesFile = f, f
		}
	}
	o.Form = formOf(form)
	e.lines = accesslog.New(o)
	// First, so that its lines are of what the others have done.
	e.Server.Observers = slices.Insert(e.Server.Observers, 0, protocols.Observer(e.lines))
	return nil
}

// formOf is the form of a name: one of the four.
func formOf(name string) accesslog.Form {
	return accesslog.Form(slices.Index([]string{"json", "text", "common", "otel"}, name))
}

// Lines gives what writes a line for each call to w, in a form that log/slog has, "json" or
// "text", and what ends it: then all lines are written, unless w does not take them in 2 s.
func Lines(w io.Writer, form string, log *slog.Logger) (lines *accesslog.Log, end func()) {
	lines = accesslog.New(accesslog.Options{Out: w, Form: formOf(form), Log: log})
	return lines, func() {
		ctx, cancel := context.WithTimeout(context.Background(), lastExport)
		defer cancel()
		if err := lines.Close(ctx); err != nil {
			log.Warn("the access log is not whole", "err", err)
		}
	}
}

// observers has a port write lines, unless there are none to write.
func observers(lines *accesslog.Log) []protocols.Observer {
	if lines == nil {
		return nil
	}
	return []protocols.Observer{lines}
}

// trace has calls recorded, if the file says so.
func (e *Edge) trace(cfg *config.Config) error {
	t := cfg.Telemetry
	if t == nil {
		return nil
	}
	o, err := otlpOf(cfg)
	if err != nil {
		return err
	}
	o.Log = e.log
	if e.exporter, err = tracing.Open(o); err != nil {
		return err
	}
	opts := tracing.Options{
		Provider: e.exporter.Spans(), Meter: e.exporter.Durations(), Sample: t.Sample, Follow: t.Follow, Users: t.Users, Messages: t.Messages,
	}
	if t.Sample == 0 {
		opts.Sample = -1
	}
	if t.Messages == 0 {
		opts.Messages = -1
	}
	tracer, err := tracing.New(opts)
	if err != nil {
		return err
	}
	e.Server.Observers = append(e.Server.Observers, tracer)
	return nil
}

// otlpOf reads what the file names for the collector.
func otlpOf(cfg *config.Config) (o tracing.OTLP, err error) {
	t := cfg.Telemetry
	at := func(key string, err error) error {
		return fmt.Errorf("%s:%d:%d: telemetry.otlp.%s: %w", cfg.File, t.Pos.Line, t.Pos.Col, key, err)
	}
	o = tracing.OTLP{Endpoint: t.OTLP.Endpoint, Protocol: t.OTLP.Protocol, Service: t.Service, Metrics: t.Metrics}
	if t.OTLP.HeadersFile != "" {
		if o.Headers, err = headersIn(t.OTLP.HeadersFile); err != nil {
			return o, at("headers_file", err)
		}
	}
	if t.OTLP.CA != "" {
		var c *tls.Config
		if c, err = certs.Client(certs.ClientOptions{CAFile: t.OTLP.CA}); err != nil {
			return o, at("ca", err)
		}
		o.TLS = c
	}
	return o, nil
}

func checkTelemetry(cfg *config.Config) error {
	if cfg.Telemetry == nil {
		return nil
	}
	_, err := otlpOf(cfg)
	return err
}

// headersIn reads a file of header fields. Errors do not show what stands there.
func headersIn(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("%s:%d: want name: value", file, n)
		}
		fields[strings.ToLower(name)] = strings.TrimSpace(value)
	}
	return fields, nil
}

// endTelemetry writes and exports what waits, and waits no longer than lastExport for each.
func (e *Edge) endTelemetry() {
	if e.exporter != nil {
		ctx, cancel := context.WithTimeout(context.Background(), lastExport)
		defer cancel()
		if err := e.exporter.Close(ctx); err != nil && !errors.Is(err, context.Canceled) {
			e.log.Warn("the collector has not got all", "err", err)
		}
	}
	if e.lines == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastExport)
	defer cancel()
	if err := e.lines.Close(ctx); err != nil {
		e.log.Warn("the access log is not whole", "err", err)
		return // somebody may still write to the file
	}
	if e.linesFile != nil {
		_ = e.linesFile.Close()
	}
}
