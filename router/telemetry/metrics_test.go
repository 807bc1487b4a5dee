package telemetry_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/telemetry"
)

// docs/metrics.md has a row for each metric, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(oneport_[a-z0-9_]+)` (\\|.*)$").FindAllStringSubmatch(string(b), -1) {
		documented[m[1]] = m[2]
	}
	for _, f := range telemetry.Families() {
		var labels []string
		for _, l := range f.Labels {
			labels = append(labels, "`"+l+"`")
		}
		want := "| " + f.Type + " | " + strings.Join(labels, ", ") + " | " + f.Help + " |"
		if got := documented[f.Name]; got != want {
			t.Errorf("docs/metrics.md says of %s\n%q, want\n%q", f.Name, got, want)
		}
		delete(documented, f.Name)
	}
	for name := range documented {
		t.Errorf("docs/metrics.md has %s, which does not exist", name)
	}
}

// An embedder's registry gets the metrics once, and the handler shows what it gathers.
func TestOwnRegistry(t *testing.T) {
	reg := prometheus.NewRegistry()
	srv := &router.Server{Meter: new(protocols.Meter)}
	if _, err := telemetry.New(telemetry.Options{Server: srv, Registerer: reg}); err != nil {
		t.Fatal(err)
	}
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if !strings.HasPrefix(f.GetName(), "oneport_") {
			t.Errorf("%s is in an embedder's registry", f.GetName())
		}
	}
	if len(all) == 0 {
		t.Error("no metrics")
	}
	if _, err := telemetry.New(telemetry.Options{Server: srv, Registerer: reg}); err == nil {
		t.Error("registered twice")
	}
	if _, err := telemetry.New(telemetry.Options{}); err == nil {
		t.Error("made without a server")
	}
}

// Times of calls are a classic histogram and a native one at once.
func TestHistogramsAreTwofold(t *testing.T) {
	srv := &router.Server{Meter: new(protocols.Meter)}
	reg := prometheus.NewRegistry()
	if _, err := telemetry.New(telemetry.Options{Server: srv, Registerer: reg}); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(100) {
		call := new(protocols.Call)
		call.Begin(t.Context(), protocols.NewID(1, i), "")
		call.Started = time.Now().Add(-time.Duration(i) * 10 * time.Millisecond)
		srv.Meter.Begin(call)
		call.Finish(protocols.Result{Status: 200})
	}
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() != "oneport_call_duration_seconds" {
			continue
		}
		h := f.GetMetric()[0].GetHistogram()
		var native int64
		count := int64(0)
		for _, d := range h.GetPositiveDelta() {
			count += d
			native += count
		}
		if h.GetSampleCount() != 100 || native != 100 || h.GetSchema() != 3 || len(h.GetBucket()) != len(protocols.HTTP.Bounds()) {
			t.Errorf("%v", h)
		}
		return
	}
	t.Error("no histogram of calls")
}
