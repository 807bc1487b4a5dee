package limit

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

func TestBulkheads(t *testing.T) {
	g := NewBulkheads(Bounds{GRPC: 2, WebSocket: 1})
	socket := begun(protocols.WebSocket, "192.0.2.1", "")
	mustAdmit(t, g, socket)
	if r := mustRefuse(t, g, begun(protocols.WebSocket, "192.0.2.2", ""), protocols.ReasonOverloaded); r.RetryAfter != time.Second {
		t.Errorf("retry after %s", r.RetryAfter)
	}
	mustAdmit(t, g, begun(protocols.GRPC, "192.0.2.1", ""))
	mustAdmit(t, g, begun(protocols.GRPC, "192.0.2.1", ""))
	mustRefuse(t, g, begun(protocols.GRPC, "192.0.2.1", ""), protocols.ReasonOverloaded)
	for range 1000 {
		mustAdmit(t, g, begun(protocols.HTTP, "192.0.2.1", ""))
	}
	finish(socket)
	finish(socket)
	mustAdmit(t, g, begun(protocols.WebSocket, "192.0.2.2", ""))
	mustRefuse(t, g, begun(protocols.WebSocket, "192.0.2.2", ""), protocols.ReasonOverloaded)
	g.Set(Bounds{WebSocket: 2})
	mustAdmit(t, g, begun(protocols.WebSocket, "192.0.2.2", ""))
	for p, want := range map[protocols.Protocol][2]uint64{protocols.HTTP: {1000, 0}, protocols.GRPC: {2, 1}, protocols.WebSocket: {2, 2}} {
		if in, refused := g.Stats(p); uint64(in) != want[0] || refused != want[1] {
			t.Errorf("%s: %d in flight, %d refused", p, in, refused)
		}
	}
}

func TestBulkheadsUnderRace(t *testing.T) {
	const most = 5
	g := NewBulkheads(Bounds{HTTP: most})
	var inFlight atomic.Int64
	var work sync.WaitGroup
	for range 16 {
		work.Go(func() {
			for range 2000 {
				call := byAlice()
				if now(t, g, call) != nil {
					continue
				}
				if n := inFlight.Add(1); n > most {
					t.Errorf("%d in flight", n)
				}
				runtime.Gosched()
				inFlight.Add(-1)
				finish(call)
			}
		})
	}
	work.Wait()
	if n, _ := g.Stats(protocols.HTTP); n != 0 {
		t.Errorf("%d in flight in the end", n)
	}
}

func TestShedByMemoryAndLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewShed(ShedOptions{Memory: 0.8, MemoryLimit: 1000, Latency: 100 * time.Millisecond})
		var r reading
		looked := 0
		s.read = func() reading { looked++; return r }
		for _, step := range []struct {
			reading
			refused bool
		}{
			{reading{700, 0}, false},
			{reading{801, 0}, true},
			{reading{799, 0}, true}, // it has to be well below
			{reading{721, 0}, true},
			{reading{719, 0}, false},
			{reading{799, 0.1}, false},
			{reading{0, 0.101}, true},
			{reading{799, 0.06}, true},
			{reading{900, 0.01}, true}, // for another reason
			{reading{730, 0.01}, true},
			{reading{700, 0.01}, false},
		} {
			time.Sleep(100 * time.Millisecond)
			r = step.reading
			for range 3 {
				if got := now(t, s, byAlice()); (got != nil) != step.refused || got != nil && (got.Reason != protocols.ReasonOverloaded || got.RetryAfter != time.Second) {
					t.Errorf("%+v: %v", step, got)
				}
			}
		}
		if looked != 11 {
			t.Errorf("looked %d times", looked)
		}
		if shedding, memory, latency := s.Stats(); shedding || memory != 15 || latency != 6 {
			t.Errorf("%v, %d for memory, %d for latency", shedding, memory, latency)
		}
	})
}

func TestShedThatNothingMattersTo(t *testing.T) {
	s := NewShed(ShedOptions{Memory: -1, MemoryLimit: 1, Latency: -1})
	mustAdmit(t, s, byAlice())
	// Tests run without GOMEMLIMIT, or far below it.
	s = NewShed(ShedOptions{Latency: -1})
	mustAdmit(t, s, byAlice())
}

// What the runtime says of real memory: what is held counts, garbage does not.
func TestShedReadsTheRuntime(t *testing.T) {
	runtime.GC()
	g := newGauges()
	before := g.read().memory
	percent := debug.SetGCPercent(-1)
	garbage := make([]byte, 64<<20)
	garbage[0] = 1
	if more := g.read().memory - before; more > 10<<20 {
		t.Errorf("64 MiB that nobody has marked made it %.0f MiB more", more/(1<<20))
	}
	runtime.KeepAlive(garbage)
	debug.SetGCPercent(percent)
	held := make([]byte, 64<<20)
	runtime.GC()
	during := g.read().memory
	runtime.KeepAlive(held)
	if more := during - before; more < 60<<20 || more > 80<<20 {
		t.Errorf("holding 64 MiB made it %.0f MiB more", more/(1<<20))
	}
	s := NewShed(ShedOptions{MemoryLimit: int64(during), Latency: -1})
	mustRefuse(t, s, byAlice(), protocols.ReasonOverloaded)
	held = nil
	_ = held
	runtime.GC()
	if after := g.read().memory; after > before+10<<20 {
		t.Errorf("after letting go it is %.0f MiB more", (after-before)/(1<<20))
	}
	s.next.Store(0) // time to look again
	mustAdmit(t, s, byAlice())
	if len(g.before) == 0 {
		t.Error("the runtime has no scheduling latencies any more")
	}
}

func TestQuantile(t *testing.T) {
	h := &metrics.Float64Histogram{Counts: []uint64{0, 0, 0}, Buckets: []float64{0, 1, 10, 100}}
	for _, tt := range []struct {
		counts [3]uint64
		want   float64
	}{
		{[3]uint64{99, 0, 0}, 0}, // too few
		{[3]uint64{100, 0, 0}, 1},
		{[3]uint64{99, 1, 0}, 1},
		{[3]uint64{98, 1, 1}, 10},
		{[3]uint64{98, 0, 2}, 100},
		{[3]uint64{0, 0, 1000}, 100},
	} {
		before := []uint64{7, 5, 3}
		for i := range before {
			h.Counts[i] = before[i] + tt.counts[i]
		}
		if got := quantile(h, before); got != tt.want {
			t.Errorf("%v: %g, want %g", tt.counts, got, tt.want)
		}
	}
	if quantile(h, nil) != 0 {
		t.Error("there was nothing to compare with")
	}
}

func BenchmarkShed(b *testing.B) {
	s := NewShed(ShedOptions{})
	call, ctx := byAlice(), b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.AdmitNow(ctx, call); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadingTheRuntime(b *testing.B) {
	g := newGauges()
	for b.Loop() {
		g.read()
	}
}

func BenchmarkBulkheads(b *testing.B) {
	g := NewBulkheads(Bounds{HTTP: 1000})
	call, ctx := byAlice(), b.Context()
	finish(call)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.AdmitNow(ctx, call); err != nil {
			b.Fatal(err)
		}
	}
}
