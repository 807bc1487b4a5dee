package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// The edges whose telemetry is compared: oneport, with nothing that looks and with all.
const (
	onQuiet   = "unwatched"
	onWatched = "watched"
)

func telemetryEdges() (list []program) {
	const none = "log: { level: error, access: false }\n"
	routes, _ := strings.CutSuffix(strings.ReplaceAll(withTLS+guardsConfig, "GUARDS", ""), none)
	for _, e := range []struct{ name, more string }{{onQuiet, none}, {onWatched, watched}} {
		list = append(list, program{e.name, routes + e.more, []string{"serve", "-c"}, []string{"check", "-c"}, []string{"version"}})
	}
	return list
}

// watched is the telemetry of an ordinary installation.
const watched = `log: { level: error, access: { form: json, file: calls-{{.Port}}.log } }
admin: { listen: "127.0.0.1:0", probes: "{{.Admin}}", token_file: admin.token }
telemetry: { otlp: { endpoint: "http://{{.Collector}}" }, sample: 0.01 }
`

const (
	// mostWatched is what telemetry may cost, as a ratio.
	mostWatched = 1.05
	// scrapeEvery is how long an edge is under load between two scrapes of its metrics.
	scrapeEvery = time.Second
	// exported is how long spans may be underway behind the last turn, and lines.
	exported = 1200 * time.Millisecond
)

// telemetryCost is what telemetry adds to an operation.
type telemetryCost struct {
	Name    string   `json:"name"`
	Without spread   `json:"without_us"` // microseconds of CPU per operation
	With    spread   `json:"with_us"`
	Added   interval `json:"added_us"` // of the rounds' differences
	Ratio   interval `json:"ratio"`
	Control interval `json:"control"` // a second process without telemetry to the first
	Most    float64  `json:"most"`    // what the median of Ratio must not exceed
	Met     bool     `json:"met"`
	Rounds  int      `json:"rounds"`
	Each    int      `json:"each"` // operations of each process in each round
	Exports int64    `json:"exports"`
}

// sink is a collector that takes note of nothing but how often it was asked.
type sink struct {
	addr  string
	srv   *grpc.Server
	calls atomic.Int64
	done  chan struct{}
}

// rawCodec leaves messages as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil } //nolint:forcetypeassert // sink's own

func (rawCodec) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = b //nolint:forcetypeassert // sink's own
	return nil
}

func (rawCodec) Name() string { return "proto" }

// newSink starts one. An empty message is the answer to every export.
func newSink(ctx context.Context) (*sink, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sink{addr: ln.Addr().String(), done: make(chan struct{})}
	s.srv = grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var b []byte
		if err := stream.RecvMsg(&b); err != nil {
			return err
		}
		s.calls.Add(1)
		return stream.SendMsg(&[]byte{})
	}))
	go func() {
		defer close(s.done)
		_ = s.srv.Serve(ln) // until close
	}()
	return s, nil
}

func (s *sink) close() {
	s.srv.Stop()
	<-s.done
}

// telemetry compares the edge with and without its telemetry.
func (h *house) telemetry(ctx context.Context, o *options) (list []*telemetryCost, err error) {
	binary, err := h.oneport(ctx, o.oneport)
	if err != nil {
		return nil, err
	}
	to, err := newSink(ctx)
	if err != nil {
		return nil, err
	}
	defer to.close()
	h.collector = to.addr
	if err := os.WriteFile(filepath.Join(h.dir, "admin.token"), []byte("0123456789abcdef\n"), 0o600); err != nil {
		return nil, err
	}
	for _, e := range telemetryEdges() {
		h.programs[e.name] = binary
		if err := h.try(ctx, e); err != nil {
			return nil, err
		}
	}
	var failed []error
	for _, t := range guardTasks() {
		if t.bare != onBare || strings.Contains(t.name, "1 in flight") || !strings.Contains(t.name, o.row) {
			continue
		}
		fmt.Fprintf(h.stderr, "%s: %d rounds\n", t.name, o.rounds)
		c, err := h.telemetryCost(ctx, t, o)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", t.name, err))
			continue
		}
		c.Exports = to.calls.Swap(0)
		if c.Exports == 0 && !strings.Contains(t.name, "WebSocket") { // of which there are 128, so that no handshake may be sampled
			failed = append(failed, fmt.Errorf("%s: the collector has got nothing", t.name))
		}
		list = append(list, c)
	}
	return list, errors.Join(failed...)
}

// telemetryCost runs all rounds of one task, and one before that does not count.
func (h *house) telemetryCost(ctx context.Context, t guardTask, o *options) (*telemetryCost, error) {
	profile, err := o.profileOf(t.name)
	if err != nil {
		return nil, err
	}
	names := []string{onQuiet, onWatched, onQuiet}
	var cpu [3][]float64
	var added []float64
	for i := range o.rounds + 1 {
		used, err := h.watchedRound(ctx, names, t, profile)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			continue
		}
		for k, ns := range used {
			cpu[k] = append(cpu[k], float64(ns)/1000/float64(t.ops*guardTurns))
		}
		added = append(added, cpu[1][i-1]-cpu[0][i-1])
	}
	c := &telemetryCost{
		Name: t.name, Without: spreadOf(cpu[0]), With: spreadOf(cpu[1]), Added: bootstrap(added), Ratio: ratios(cpu[1], cpu[0]), Control: ratios(cpu[2], cpu[0]),
		Most: mostWatched, Rounds: o.rounds, Each: t.ops * guardTurns,
	}
	c.Met = c.Ratio.Median <= c.Most
	return c, nil
}

// watchedRound is round for processes that also work when nobody asks: what counts is all from the first
// turn until the last spans are exported. Metrics are scraped once for each second of load, so that a
// process pays as if it were alone.
func (h *house) watchedRound(ctx context.Context, names []string, t guardTask, profile string) ([]int64, error) {
	all := make([]*candidate, 0, len(names))
	defer func() {
		for _, c := range all {
			c.load.close()
			c.server.stop()
		}
	}()
	for _, name := range names {
		c, err := h.candidate(ctx, name, t.ops, t.open, profile)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, c)
	}
	time.Sleep(exported) // what the warm-up has left
	used := make([]int64, len(all))
	for k, c := range all {
		before, err := c.server.ask(askCPU)
		if err != nil {
			return nil, err
		}
		used[k] = -before.CPU
	}
	loaded := make([]time.Duration, len(all))
	for range guardTurns {
		for _, k := range rand.Perm(len(all)) {
			begun := time.Now()
			if err := all[k].load.run(ctx, t.ops); err != nil {
				return nil, fmt.Errorf("%s: %w", names[k], err)
			}
			if loaded[k] += time.Since(begun); loaded[k] >= scrapeEvery && names[k] == onWatched {
				loaded[k] -= scrapeEvery
				if err := scrape(ctx, h.admins[all[k].server.addr]); err != nil {
					return nil, err
				}
			}
		}
	}
	time.Sleep(exported)
	for k, c := range all {
		after, err := c.server.ask(askCPU)
		if err != nil {
			return nil, err
		}
		used[k] += after.CPU
	}
	return used, nil
}

// scrape asks for metrics as Prometheus does.
func scrape(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || n < 1000) {
		err = fmt.Errorf("scraping gave %s and %d bytes", res.Status, n)
	}
	return err
}

// telemetryRows writes a row for each.
func telemetryRows(b *strings.Builder, list []*telemetryCost) {
	b.WriteString("\nCPU of oneport serve per operation, with nothing that looks and with metrics scraped once a second, an access line for each call in JSON and a hundredth of the calls exported by OTLP, median of the rounds (least - most); " +
		"what that adds, its ratio, and that of a second process with nothing, with 95 % intervals:\n\n")
	rows := [][]string{{"", "without", "with", "added", "95 %", "ratio", "95 %", "control", "95 %", "asked", ""}}
	for _, c := range list {
		rows = append(rows, []string{
			c.Name, us(c.Without), us(c.With),
			fmt.Sprintf("%.2f us", c.Added.Median), fmt.Sprintf("%.2f - %.2f", c.Added.Low, c.Added.High),
			fmt.Sprintf("%.3f", c.Ratio.Median), fmt.Sprintf("%.3f - %.3f", c.Ratio.Low, c.Ratio.High),
			fmt.Sprintf("%.3f", c.Control.Median), fmt.Sprintf("%.3f - %.3f", c.Control.Low, c.Control.High),
			fmt.Sprintf("<= %.2f", c.Most), verdict(c.Met),
		})
	}
	writeRows(b, rows)
	fmt.Fprintf(b, "\nRounds: %d; operations per round and process: ", list[0].Rounds)
	for i, c := range list {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(b, "%s %d", c.Name, c.Each)
	}
	b.WriteString(".\n")
	if list[0].Rounds < leastRounds {
		fmt.Fprintf(b, "That is too few to be recorded: %d at least.\n", leastRounds)
	}
}
