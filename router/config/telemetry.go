package config

import (
	"net/url"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Telemetry is what is told a collector.
type Telemetry struct {
	Pos      Pos
	OTLP     OTLP
	Service  string  // oneport by default
	Sample   float64 // 0.1 by default
	Follow   bool    // follow_clients; false by default
	Users    bool
	Messages int // 100 by default; 0 for none
	Metrics  bool
}

// OTLP is the collector.
type OTLP struct {
	Endpoint    string // a URL of http or https
	Protocol    string // grpc or http/protobuf; grpc by default
	HeadersFile string // absolute; "" for none
	CA          string // absolute; "" for the system's
}

// AccessLog is how lines of calls are written.
type AccessLog struct {
	Form   string // json, text, common or otel; "" for that of the log
	File   string // absolute; "" for standard error
	Buffer int64  // bytes; 1 MiB by default
}

// telemetry reads it; nil if there is none.
func (w *walker) telemetry(v value) *Telemetry {
	if !v.given() {
		return nil
	}
	o := v.object(keyTelemetry)
	t := &Telemetry{
		Pos:      v.pos(),
		Service:  o.get("service").text(),
		Sample:   o.get("sample").fraction(),
		Follow:   o.get("follow_clients").boolean(),
		Users:    o.get("users").boolean(),
		Messages: o.get("messages").count(),
		Metrics:  o.get("metrics").boolean(),
	}
	if !o.get("service").given() {
		t.Service = "oneport"
	}
	to := o.get(keyOTLP)
	if !to.given() {
		if o.complete() {
			o.missing(keyOTLP, `say where the collector is, as otlp: { endpoint: "http://127.0.0.1:4317" }`)
		}
		return t
	}
	at := to.object("telemetry.otlp")
	t.OTLP = OTLP{
		Endpoint: at.get("endpoint").collector(), Protocol: at.get("protocol").word(),
		HeadersFile: at.get("headers_file").file(), CA: at.get("ca").file(),
	}
	if !at.get("endpoint").given() && at.complete() {
		at.missing("endpoint", `say where the collector is, as endpoint: "http://127.0.0.1:4317"`)
	}
	if ca := at.get("ca"); ca.given() && !strings.HasPrefix(t.OTLP.Endpoint, "https:") && t.OTLP.Endpoint != "" {
		ca.problemf("goes with an endpoint of https")
	}
	if f := at.get("headers_file"); f.given() && strings.HasPrefix(t.OTLP.Endpoint, "http:") && !loopbackURL(t.OTLP.Endpoint) {
		f.warningf("the collector is asked in plaintext: what stands there is sent unencrypted")
	}
	return t
}

// collector reads the URL of a collector.
func (v value) collector() string {
	s := v.text()
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	if err != nil || !collectorShape.MatchString(s) || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		v.problemf("want the URL of a collector, as http://127.0.0.1:4317, have %s", shown(s))
		return ""
	}
	return s
}

func loopbackURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	l := Listener{Address: u.Hostname() + ":0"}
	return l.local()
}

// access reads whether, and how, lines of calls are written.
func (w *walker) access(v value) (on bool, to *AccessLog) {
	switch {
	case !v.given():
		return true, nil
	case v.node.Kind != yaml.MappingNode:
		return v.boolean(), nil
	}
	o := v.object("log.access")
	return true, &AccessLog{Form: o.get("form").word(), File: o.get("file").file(), Buffer: o.get("buffer").size()}
}
