package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"
)

// fanTask is a number of messages at once, again and again, each time until all have them.
type fanTask struct {
	name         string
	burst, times int
	least        float64 // as many of gorilla's loop's deliveries; 0 if nobody asked
}

func fanTasks() []fanTask {
	return []fanTask{
		{"single messages", 1, 24, 0.9},
		{"bursts of 8", 8, 6, 2},
	}
}

// fanned is what one server made of one task.
type fanned struct {
	Task   string   `json:"task"`
	Server string   `json:"server"`
	PerCPU spread   `json:"per_cpu_second"` // deliveries
	P50    spread   `json:"p50_ms"`         // from when the burst was to be said until a listener has it
	P99    spread   `json:"p99_ms"`
	Ratio  interval `json:"ratio"` // deliveries for CPU to the loop's of the same round; zero of the loop itself
	Least  float64  `json:"least,omitempty"`
	Met    bool     `json:"met"`

	perCPU, p50, p99 []float64
}

// fans is all of it.
type fans struct {
	Listeners int       `json:"listeners"`
	Rounds    int       `json:"rounds"`
	Rows      []*fanned `json:"rows"`
	Deaf      *deafened `json:"deaf,omitempty"`
}

// fanServers are those that are compared, the loop first.
var fanServers = []string{fanLoop, fanPrepared, fanStream, fanSDK} //nolint:gochecknoglobals // a list of names

// fanouts compares the servers: one after the other in each round, for all their sockets at once would be
// more than a process may have open.
func (h *house) fanouts(ctx context.Context, o *options) (*fans, error) {
	f := &fans{Listeners: o.sockets, Rounds: o.rounds}
	rows := map[[2]string]*fanned{}
	for _, t := range fanTasks() {
		for _, s := range fanServers {
			row := &fanned{Task: t.name, Server: s}
			if s == fanStream || s == fanSDK {
				row.Least = t.least
			}
			rows[[2]string{t.name, s}] = row
			f.Rows = append(f.Rows, row)
		}
	}
	for i := range o.rounds {
		order := append([]string(nil), fanServers...)
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, s := range order {
			if s != fanLoop && !strings.Contains(s, o.row) {
				continue
			}
			fmt.Fprintf(h.stderr, "fan-out, round %d, %s: %d subscribers\n", i+1, s, o.sockets)
			if err := h.fan(ctx, s, rows, o); err != nil {
				return f, fmt.Errorf("%s: %w", s, err)
			}
		}
	}
	kept := f.Rows[:0]
	for _, row := range f.Rows {
		if len(row.perCPU) == 0 {
			continue
		}
		kept = append(kept, row)
		row.PerCPU, row.P50, row.P99 = spreadOf(row.perCPU), spreadOf(row.p50), spreadOf(row.p99)
		if row.Server != fanLoop {
			row.Ratio = ratios(row.perCPU, rows[[2]string{row.Task, fanLoop}].perCPU)
		}
		row.Met = row.Ratio.Median >= row.Least
	}
	f.Rows = kept
	var err error
	if o.row == "" || o.row == fanStream {
		f.Deaf, err = h.deafen(ctx, o)
	}
	return f, err
}

// fan has one server do all tasks of a round.
func (h *house) fan(ctx context.Context, name string, rows map[[2]string]*fanned, o *options) error {
	var flags []string
	if o.profile != "" {
		if err := os.MkdirAll(o.profile, 0o755); err != nil {
			return err
		}
		flags = []string{"-profile", o.profile}
	}
	s, err := h.spawn(ctx, name, flags...)
	if err != nil {
		return err
	}
	defer s.stop()
	a, err := h.gather(ctx, s, o.sockets, 0)
	if err != nil {
		return err
	}
	defer a.close()
	for _, burst := range []int{1, 8, 1} {
		if err := a.hear(burst); err != nil {
			return err
		}
	}
	if o.profile != "" {
		if _, err := s.ask(askProfile); err != nil {
			return err
		}
	}
	for _, t := range fanTasks() {
		a.latencies() // of before
		time.Sleep(calm)
		if _, err := s.ask(askGC); err != nil {
			return err
		}
		before, err := cpuOf(s.cmd.Process.Pid)
		if err != nil {
			return err
		}
		for range t.times {
			if err := a.hear(t.burst); err != nil {
				return err
			}
		}
		time.Sleep(settle)
		after, err := cpuOf(s.cmd.Process.Pid)
		if err != nil {
			return err
		}
		took := a.latencies()
		row := rows[[2]string{t.name, name}]
		row.perCPU = append(row.perCPU, float64(len(took))/(float64(after-before)/1e9))
		row.p50, row.p99 = append(row.p50, inMS(took[len(took)/2])), append(row.p99, inMS(took[len(took)*99/100]))
	}
	if lost := a.lost.Load(); lost > 0 {
		return fmt.Errorf("%d listeners were lost", lost)
	}
	return nil
}

func inMS(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// deafened is what those cost who do not read.
type deafened struct {
	Listeners int     `json:"listeners"`
	Deaf      int     `json:"deaf"`
	Closed    int64   `json:"closed"`     // of the deaf, with 1013
	Growth    float64 `json:"growth_mib"` // of the server's memory, at most
	Most      float64 `json:"most_mib"`   // what their queues may hold
	Lost      int64   `json:"lost"`       // of those who read
	P99       float64 `json:"p99_ms"`     // of single messages to those who read, meanwhile
	Met       bool    `json:"met"`
}

// The deaf ones get messages of a channel of their own, until they are closed: sockets take some MiB each before
// anything waits.
const (
	deafOnes   = 100
	deafSize   = 16 << 10
	deafAtOnce = 32
	deafTimes  = 40 // 20 MiB for each
	deafQueue  = 2  // MiB: what may wait for each as it comes, 1 in the hub and 1 in its session
)

func (h *house) deafen(ctx context.Context, o *options) (*deafened, error) {
	d := &deafened{Listeners: o.sockets - deafOnes, Deaf: deafOnes, Most: deafOnes * deafQueue}
	fmt.Fprintf(h.stderr, "fan-out, %d subscribers, %d of which do not read\n", o.sockets, deafOnes)
	s, err := h.spawn(ctx, fanStream)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	a, err := h.gather(ctx, s, d.Listeners, d.Deaf)
	if err != nil {
		return nil, err
	}
	defer a.close()
	if err := a.hear(8); err != nil {
		return nil, err
	}
	a.latencies()
	before, err := s.ask(askFreed)
	if err != nil {
		return nil, err
	}
	for range deafTimes {
		_, errSaid := s.ask(asking(deafAtOnce, fanSlow, deafSize))
		errHeard := a.hear(1)
		now, err := s.ask(askMemory)
		if err = errors.Join(errSaid, errHeard, err); err != nil {
			return nil, err
		}
		d.Growth = max(d.Growth, float64(now.RSS-before.RSS)/(1<<20))
	}
	after, err := s.ask(askClients)
	if err != nil {
		return nil, err
	}
	took := a.latencies()
	d.Closed, d.Lost, d.P99 = after.Slow, a.lost.Load(), inMS(took[len(took)*99/100])
	d.Met = d.Closed == deafOnes && d.Lost == 0 && d.Growth <= d.Most
	return d, nil
}

// table writes it for people.
func (f *fans) table(b *strings.Builder) {
	fmt.Fprintf(b, "\nOne message of %d bytes to %d WebSockets over TLS: deliveries for each second of the server's CPU, and from when it was to be said until a subscriber has it; median of the rounds (least - most):\n\n", fanSize, f.Listeners)
	rows := [][]string{{"", "", "deliveries per CPU second", "p50", "p99", "ratio", "95 %", "asked", ""}}
	for _, r := range f.Rows {
		ratio, asked, between, met := "-", "-", "-", ""
		if r.Server != fanLoop {
			ratio, between = fmt.Sprintf("%.2f", r.Ratio.Median), fmt.Sprintf("%.2f - %.2f", r.Ratio.Low, r.Ratio.High)
		}
		if r.Least > 0 {
			asked, met = fmt.Sprintf(">= %.1f", r.Least), verdict(r.Met)
		}
		rows = append(rows, []string{
			r.Task, r.Server, fmt.Sprintf("%.0f (%.0f - %.0f)", r.PerCPU.Median, r.PerCPU.Min, r.PerCPU.Max),
			millis(r.P50), millis(r.P99), ratio, between, asked, met,
		})
	}
	writeRows(b, rows)
	fmt.Fprintf(b, "\n%d rounds.\n", f.Rounds)
	if d := f.Deaf; d != nil {
		fmt.Fprintf(b, "\n%d subscribers and %d that do not read: %d of those closed with 1013, %d of the others lost; the server's memory grew by %.1f MiB at most, asked <= %.0f MiB; p99 of the others meanwhile %.0f ms: %s\n",
			d.Listeners, d.Deaf, d.Closed, d.Lost, d.Growth, d.Most, d.P99, verdict(d.Met))
	}
}

func millis(s spread) string { return fmt.Sprintf("%.0f ms (%.0f - %.0f)", s.Median, s.Min, s.Max) }
