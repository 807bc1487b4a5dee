package telemetry

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/limit"
	"github.com/oneport-edge/oneport/router/upstream"
)

// Options configure Metrics. Server is required.
type Options struct {
	// Server is whose counts are shown. Its Meter counts calls; without one there are none.
	Server *router.Server
	// Registerer gets the metrics. Nil makes a registry, which has those of the Go runtime and of
	// the process as well, and is what Handler shows.
	Registerer prometheus.Registerer

	// Upstreams are those in effect. Nil shows those that Server.Routes lead to. Names must
	// differ; of those with one name the first is shown.
	Upstreams func() []*upstream.Upstream
	// Limits have done this so far, by their names. Nil for none.
	Limits func() map[string]limit.Stats
	// Shed is the guard of load. Nil for none.
	Shed *limit.Shed
	// Details are what a port may have besides. Nil for nothing.
	Details func() Details

	// Version and Commit are the program's.
	Version, Commit string
	// Log receives what goes wrong with a scrape, at Error. Nil means slog.Default.
	Log *slog.Logger
}

// Details are what a port may have; nil is what it has not.
type Details struct {
	// Tokens are guards of tokens.
	Tokens []Tokens
	// Sessions are open calls of who is known.
	Sessions *Sessions
	// Redis counts for several instances.
	Redis *Redis
	// Broadcast is a hub.
	Broadcast *Broadcast
	// Loads are those of a file.
	Loads *Loads
	// Lines are those of the access log.
	Lines *Written
	// Spans are those of traces.
	Spans *Written
}

// Written is what became of lines or spans: Dropped are those for which there was no room.
type Written struct{ Good, Dropped, Failed int64 }

// Tokens is what a guard has done with tokens. Names must differ.
type Tokens struct {
	Guard                string
	Admitted, Remembered uint64
	Refused              map[string]uint64 // by reason, of a bounded set
}

// Sessions are open calls of who is known, and what became of others so far.
type Sessions struct {
	Open                      int
	Ended, Refused, Refreshed uint64
}

// Redis says whether it is asked now, and how often it has failed.
type Redis struct {
	Up       bool
	Failures uint64
}

// Broadcast is what a hub has now, and how many did not keep up.
type Broadcast struct {
	Up                               bool
	Clients, Channels, Subscriptions int
	Slow                             int64
}

// Loads counts how often a file was loaded.
type Loads struct {
	Good, Failed int
	At           time.Time // of the last
	OK           bool      // the last was a good one
}

// Metrics shows what a port counts. Its methods may be called concurrently.
type Metrics struct {
	opts     Options
	families map[string]*family
	gatherer prometheus.Gatherer
}

// New registers the metrics of a port, once for each registry.
func New(opts Options) (*Metrics, error) {
	if opts.Server == nil {
		return nil, errors.New("telemetry: want a server")
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	m := &Metrics{opts: opts, families: describe()}
	registerer := opts.Registerer
	if registerer == nil {
		own := prometheus.NewRegistry()
		registerer, m.gatherer = own, own
		for _, c := range []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
			if err := own.Register(c); err != nil {
				return nil, fmt.Errorf("telemetry: %w", err)
			}
		}
	} else if g, ok := registerer.(prometheus.Gatherer); ok {
		m.gatherer = g
	}
	if err := registerer.Register(m); err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	return m, nil
}

const (
	// mostScrapes is how many are answered at a time.
	mostScrapes = 4
	scrapeTime  = 10 * time.Second
)

// Handler serves the registry's metrics as Prometheus asks for them: text, OpenMetrics, or
// protocol buffers, which alone have native histograms. With a Registerer that gathers nothing
// it answers 501.
func (m *Metrics) Handler() http.Handler {
	if m.gatherer == nil {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "these metrics are in another registry", http.StatusNotImplemented)
		})
	}
	return promhttp.HandlerFor(m.gatherer, promhttp.HandlerOpts{
		ErrorLog: errorLog{m.opts.Log}, ErrorHandling: promhttp.ContinueOnError, EnableOpenMetrics: true,
		MaxRequestsInFlight: mostScrapes, Timeout: scrapeTime,
	})
}

// errorLog is a log as promhttp has it.
type errorLog struct{ log *slog.Logger }

func (l errorLog) Println(v ...any) { l.log.Error("metrics", "err", fmt.Sprint(v...)) }

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, f := range m.families {
		to <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	s := &scrape{m, to}
	st := m.opts.Server.Stats()
	s.calls()
	s.conns(&st)
	s.sockets(&st)
	s.upstreams()
	s.limits()
	if m.opts.Details != nil {
		d := m.opts.Details()
		s.details(&d)
	}
	s.process()
}

// scrape is one Collect.
type scrape struct {
	*Metrics
	to chan<- prometheus.Metric
}

// number is what a metric's value may be.
type number interface {
	~int | ~int64 | ~uint64 | ~float64
}

func put[T number](s *scrape, name string, value T, labels ...string) {
	f := s.families[name]
	metric, err := prometheus.NewConstMetric(f.desc, f.value, float64(value), labels...)
	if err != nil { // a label that is no UTF-8
		metric = prometheus.NewInvalidMetric(f.desc, err)
	}
	s.to <- metric
}

func flag(s *scrape, name string, is bool, labels ...string) {
	value := 0
	if is {
		value = 1
	}
	put(s, name, value, labels...)
}

// process is what is known without a Server's counts.
func (s *scrape) process() {
	srv := s.opts.Server
	ready, serving := srv.Ready(), false
	select {
	case <-srv.Serving():
		serving = true
	default:
	}
	flag(s, "ready", ready)
	flag(s, "draining", serving && !ready)
	put(s, "build_info", 1, s.opts.Version, s.opts.Commit, runtime.Version())
	s.certificates()
}
