package limit

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// ShedOptions say when a process has enough.
type ShedOptions struct {
	// Memory is the share of MemoryLimit above which new calls are refused, up to 1. Zero means
	// 0.9; a negative value means that memory does not matter.
	Memory float64
	// MemoryLimit is in bytes. Zero means that of Go's runtime (GOMEMLIMIT); without one
	// memory does not matter.
	MemoryLimit int64
	// Latency is how long goroutines that can run may wait for a processor, in one of a
	// hundred cases. Zero means 100 ms; a negative value means that it does not matter.
	Latency time.Duration
}

// Shed is a guard that refuses new calls, of all protocols alike, while the process has enough: of
// memory that is in use and no garbage, or of goroutines that wait for a processor. Calls that are
// open go on. It looks at most ten times a second, when a call comes or Overloaded is called, and runs nothing of its own.
// What it has begun it ends when memory is below nine tenths of the bound, and the latency below half.
//
// It is safe for concurrent use.
type Shed struct {
	memory, latency float64 // bytes, seconds; +Inf if it does not matter
	epoch           time.Time
	read            func() reading // tests have their own
	next            atomic.Int64   // when to look again, in ns since epoch
	why             atomic.Uint32  // a shedReason
	refused         [numShedReasons]atomic.Uint64

	mu sync.Mutex // held by who looks
}

// shedReason is why calls are refused.
type shedReason uint32

const (
	shedNothing shedReason = iota
	shedMemory
	shedLatency
	numShedReasons
)

// shedEvery is how often Shed looks.
const shedEvery = 100 * time.Millisecond

// NewShed makes a guard.
func NewShed(o ShedOptions) *Shed {
	s := &Shed{memory: math.Inf(1), latency: math.Inf(1), epoch: time.Now(), read: newGauges().read}
	if o.Memory == 0 {
		o.Memory = 0.9
	}
	if o.MemoryLimit == 0 {
		o.MemoryLimit = debug.SetMemoryLimit(-1)
	}
	if o.Memory > 0 && o.MemoryLimit != math.MaxInt64 {
		s.memory = min(o.Memory, 1) * float64(o.MemoryLimit)
	}
	if o.Latency == 0 {
		o.Latency = 100 * time.Millisecond
	}
	if o.Latency > 0 {
		s.latency = o.Latency.Seconds()
	}
	return s
}

// Overloaded reports whether the process has enough, and looks if it is time to: what
// router.Relief wants to know.
func (s *Shed) Overloaded() bool { return s.look() != shedNothing }

// look is why calls are refused now.
func (s *Shed) look() shedReason {
	if now := int64(time.Since(s.epoch)); now >= s.next.Load() && s.mu.TryLock() {
		if now >= s.next.Load() {
			s.next.Store(now + int64(shedEvery))
			s.judge(s.read())
		}
		s.mu.Unlock()
	}
	return shedReason(s.why.Load())
}

// AdmitNow admits a call unless the process has enough.
func (s *Shed) AdmitNow(ctx context.Context, _ *protocols.Call) (context.Context, error) {
	why := s.look()
	if why == shedNothing {
		return ctx, nil
	}
	s.refused[why].Add(1)
	return ctx, &protocols.Refusal{Reason: protocols.ReasonOverloaded, RetryAfter: retryOverloaded}
}

// Admit is AdmitNow: nothing waits.
func (s *Shed) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	return s.AdmitNow(ctx, call)
}

func (s *Shed) judge(r reading) {
	memory, latency := s.memory, s.latency
	switch shedReason(s.why.Load()) {
	case shedMemory:
		memory *= 0.9
	case shedLatency:
		latency /= 2
	default:
	}
	why := shedNothing
	switch {
	case r.memory > memory:
		why = shedMemory
	case r.latency > latency:
		why = shedLatency
	}
	s.why.Store(uint32(why))
}

// Stats says whether calls are refused, and how many were because of memory and of latency.
func (s *Shed) Stats() (shedding bool, memory, latency uint64) {
	return s.why.Load() != 0, s.refused[shedMemory].Load(), s.refused[shedLatency].Load()
}

// reading is what the runtime says of itself.
type reading struct {
	memory  float64 // bytes that are in use, and were no garbage when somebody last looked
	latency float64 // seconds: of 99 % of the waits for a processor since the last reading
}

// The memory that Go's limit is about is total less released. Of that the heap's garbage and what is free is
// not counted here: near its limit the collector runs more often, and a heap that has grown to
// twice what is alive is no reason to refuse anybody.
const (
	gaugeTotal = iota
	gaugeReleased
	gaugeObjects
	gaugeUnused
	gaugeFree
	gaugeLive
	gaugeLatencies
	numGauges
)

type gauges struct {
	samples []metrics.Sample
	before  []uint64 // of the histogram, when it was last read
}

func newGauges() *gauges {
	names := [numGauges]string{
		gaugeTotal:     "/memory/classes/total:bytes",
		gaugeReleased:  "/memory/classes/heap/released:bytes",
		gaugeObjects:   "/memory/classes/heap/objects:bytes",
		gaugeUnused:    "/memory/classes/heap/unused:bytes",
		gaugeFree:      "/memory/classes/heap/free:bytes",
		gaugeLive:      "/gc/heap/live:bytes",
		gaugeLatencies: "/sched/latencies:seconds",
	}
	g := &gauges{samples: make([]metrics.Sample, numGauges)}
	for i, name := range names {
		g.samples[i].Name = name
	}
	return g
}

func (g *gauges) read() reading {
	metrics.Read(g.samples)
	value := func(i int) float64 {
		if g.samples[i].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return float64(g.samples[i].Value.Uint64())
	}
	r := reading{memory: value(gaugeTotal) - value(gaugeReleased) - value(gaugeObjects) - value(gaugeUnused) - value(gaugeFree) + value(gaugeLive)}
	if v := &g.samples[gaugeLatencies].Value; v.Kind() == metrics.KindFloat64Histogram {
		h := v.Float64Histogram()
		r.latency = quantile(h, g.before)
		g.before = append(g.before[:0], h.Counts...)
	}
	return r
}

// fewest is how many waits a quantile needs.
const fewest = 100

// quantile is the upper bound of 99 % of what came since before; zero if that was little.
func quantile(h *metrics.Float64Histogram, before []uint64) float64 {
	if len(before) != len(h.Counts) {
		return 0
	}
	var all uint64
	for i, n := range h.Counts {
		all += n - before[i]
	}
	if all < fewest {
		return 0
	}
	above := all / 100
	for i, n := range slices.Backward(h.Counts) {
		if n -= before[i]; n <= above {
			above -= n
			continue
		}
		return min(h.Buckets[i+1], math.MaxFloat64)
	}
	return 0
}
