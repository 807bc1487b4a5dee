package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	slicesPerRound = 4
	// settle is how long the server has to put away the last answer of a slice.
	settle = 2 * time.Millisecond
)

// comparison is what came out of one workload.
type comparison struct {
	Name    string   `json:"name"`
	Own     float64  `json:"own_us"`  // microseconds of CPU per operation on a port of its own, median of the rounds
	Port    float64  `json:"port_us"` // the same on the port
	Ratio   interval `json:"ratio"`   // port to own
	Control interval `json:"control"` // a second own port to the first
	Most    float64  `json:"most"`    // what Ratio.Low, or with Median the median, must not exceed; 0 if nobody asked
	Median  bool     `json:"of_median"`
	Met     bool     `json:"met"`
	Rounds  int      `json:"rounds"`
	OpsEach int      `json:"ops_each"` // operations of each server in each round
}

// candidate is one server of a round.
type candidate struct {
	server *server
	load   load
	cpu    int64
}

// The candidates of a round.
const (
	candOwn = iota
	candPort
	candControl
	numCandidates
)

// compare runs all rounds of one workload, and one before that does not count.
func (h *house) compare(ctx context.Context, w workload, o *options) (*comparison, error) {
	var cpu [numCandidates][]float64
	profile, err := o.profileOf(w.name)
	if err != nil {
		return nil, err
	}
	names := [numCandidates]string{candOwn: w.own, candPort: onPort, candControl: w.own}
	for i := range o.rounds + 1 {
		used, err := h.round(ctx, names[:], slicesPerRound, w.ops, w.open, profile)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			continue
		}
		for k, ns := range used {
			cpu[k] = append(cpu[k], float64(ns)/1000/float64(w.ops*slicesPerRound))
		}
	}
	c := &comparison{
		Name:    w.name,
		Own:     median(cpu[candOwn]),
		Port:    median(cpu[candPort]),
		Ratio:   ratios(cpu[candPort], cpu[candOwn]),
		Control: ratios(cpu[candControl], cpu[candOwn]),
		Most:    w.most.ratio,
		Median:  w.most.median,
		Rounds:  o.rounds,
		OpsEach: w.ops * slicesPerRound,
	}
	got := c.Ratio.Low
	if c.Median {
		got = c.Ratio.Median
	}
	c.Met = c.Most == 0 || got <= c.Most
	return c, nil
}

// profileOf is the directory for profiles of that name, made if it is not there;
// "" if nobody asked for any.
func (o *options) profileOf(name string) (string, error) {
	if o.profile == "" {
		return "", nil
	}
	dir := filepath.Join(o.profile, slug(name))
	return dir, os.MkdirAll(dir, 0o755)
}

// slug makes a directory's name of a workload's.
func slug(name string) string {
	return strings.ToLower(strings.NewReplacer(" ", "-", ",", "", "/", "", ".", "", ":", "").Replace(name))
}

// round starts the servers, warms them up, and measures them by turns, in each turn all in
// random order with ops operations each. It returns nanoseconds of CPU.
func (h *house) round(ctx context.Context, names []string, turns, ops int, open opener, profile string) ([]int64, error) {
	all := make([]*candidate, 0, len(names))
	defer func() {
		for _, c := range all {
			c.load.close()
			c.server.stop()
		}
	}()
	for _, name := range names {
		c, err := h.candidate(ctx, name, ops, open, profile)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, c)
	}
	for range turns {
		for _, k := range rand.Perm(len(all)) {
			if err := all[k].slice(ctx, ops); err != nil {
				return nil, fmt.Errorf("%s: %w", names[k], err)
			}
		}
	}
	used := make([]int64, len(all))
	for k, c := range all {
		used[k] = c.cpu
	}
	return used, nil
}

// candidate starts a server, opens the connections and warms both up.
func (h *house) candidate(ctx context.Context, name string, ops int, open opener, profile string) (*candidate, error) {
	s, err := h.start(ctx, name, "-profile", profile)
	if err != nil {
		return nil, err
	}
	l, err := open(ctx, h, s.addr)
	if err != nil {
		s.stop()
		return nil, err
	}
	c := &candidate{server: s, load: l}
	err = l.run(ctx, ops)
	if err == nil && profile != "" && !s.foreign {
		_, err = s.ask(askProfile)
	}
	if err != nil {
		l.close()
		s.stop()
		return nil, err
	}
	return c, nil
}

// slice measures n operations.
func (c *candidate) slice(ctx context.Context, n int) error {
	_, errGC := c.server.ask(askGC)
	before, errBefore := c.server.ask(askCPU)
	err := c.load.run(ctx, n)
	time.Sleep(settle)
	after, errAfter := c.server.ask(askCPU)
	c.cpu += after.CPU - before.CPU
	return errors.Join(err, errGC, errBefore, errAfter)
}

// interval is a median with its 95 % interval.
type interval struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// resamples is how often the bootstrap draws.
const resamples = 10_000

// ratios is the median of the paired ratios a[i]/b[i], with its interval.
func ratios(a, b []float64) interval {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = a[i] / b[i]
	}
	return bootstrap(r)
}

// bootstrap is the median of r with a percentile bootstrap (Efron 1979) of it. The
// random numbers are always the same: the same figures give the same interval.
func bootstrap(r []float64) interval {
	random := rand.New(rand.NewPCG(1, 2))
	medians := make([]float64, resamples)
	draw := make([]float64, len(r))
	for i := range medians {
		for j := range draw {
			draw[j] = r[random.IntN(len(r))]
		}
		medians[i] = median(draw)
	}
	slices.Sort(medians)
	return interval{median(r), medians[resamples*25/1000], medians[resamples*975/1000-1]}
}

// median is the middle of x; with an even number of them, between the two.
func median(x []float64) float64 {
	if len(x) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(x))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
