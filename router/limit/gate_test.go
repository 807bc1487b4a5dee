package limit

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// fields is a request's head.
type fields map[string]string

func (f fields) Get(name string) string { return f[name] }

func (f fields) Values(name string) []string { return []string{f[name]} }

func (f fields) Query() string { return "" }

func finish(c *protocols.Call) { c.Finish(protocols.Result{}) }

func TestPlaces(t *testing.T) {
	l := newLimiter(t, Options{Concurrency: 2})
	a, b, c := byAlice(), byAlice(), byAlice()
	mustAdmit(t, l, a)
	mustAdmit(t, l, b)
	if r := mustRefuse(t, l, c, protocols.ReasonOverloaded); r.RetryAfter != time.Second {
		t.Errorf("retry after %s", r.RetryAfter)
	}
	mustAdmit(t, l, begun(protocols.HTTP, "192.0.2.1", "bob"))
	finish(a)
	finish(a) // once is enough
	d := byAlice()
	mustAdmit(t, l, d)
	mustRefuse(t, l, c, protocols.ReasonOverloaded)
	finish(b)
	finish(d)
	if st := l.Stats(); st.InFlight != 1 || st.Calls["queue_full"] != 2 {
		t.Errorf("%+v", st)
	}
	ended := byAlice() // before the guard has decided
	finish(ended)
	mustAdmit(t, l, ended)
	if st := l.Stats(); st.InFlight != 1 {
		t.Errorf("%+v", st)
	}
}

// A call that a later guard refuses gives its place up.
func TestLaterGuardRefuses(t *testing.T) {
	l := newLimiter(t, Options{Concurrency: 1})
	no := protocols.GuardFunc(func(ctx context.Context, _ *protocols.Call) (context.Context, error) {
		return ctx, &protocols.Refusal{Reason: protocols.ReasonForbidden}
	})
	call := byAlice()
	if _, err := protocols.Admit(t.Context(), []protocols.Guard{l, no}, call); err == nil {
		t.Fatal("admitted")
	}
	finish(call)
	mustAdmit(t, l, byAlice())
}

// A refusal for want of a place costs nothing of the rate, and one of the rate no place.
func TestRefusalsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, Options{Rate: Rate{1, time.Second}, Burst: 2, Concurrency: 1})
		a := byAlice()
		mustAdmit(t, l, a)
		for range 10 {
			mustRefuse(t, l, byAlice(), protocols.ReasonOverloaded)
		}
		finish(a)
		b := byAlice()
		mustAdmit(t, l, b)
		finish(b)
		for range 10 {
			mustRefuse(t, l, byAlice(), protocols.ReasonTooMany)
		}
		if st := l.Stats(); st.InFlight != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestMustWaitDoesNothing(t *testing.T) {
	l := newLimiter(t, Options{Rate: Rate{1, time.Hour}, Burst: 2, Concurrency: 1, Queue: 1})
	a := byAlice()
	mustAdmit(t, l, a)
	for range 10 {
		if _, err := l.AdmitNow(t.Context(), byAlice()); err != protocols.ErrMustWait { //nolint:errorlint // as guards are asked
			t.Fatal(err)
		}
	}
	if st := l.Stats(); st.Waiting != 0 || st.Calls["admitted"] != 1 {
		t.Errorf("%+v", st)
	}
	finish(a)
	mustAdmit(t, l, byAlice()) // the second of the burst
}

func TestQueueIsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, Options{Concurrency: 1, Queue: 5, Wait: time.Minute})
		holder := byAlice()
		mustAdmit(t, l, holder)
		var mu sync.Mutex
		var order []int
		var work sync.WaitGroup
		for i := range 5 {
			work.Go(func() {
				call := byAlice()
				if _, err := l.Admit(t.Context(), call); err != nil {
					t.Errorf("%d: %v", i, err)
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				time.Sleep(time.Second)
				finish(call)
			})
			synctest.Wait()
		}
		if st := l.Stats(); st.Waiting != 5 {
			t.Errorf("%+v", st)
		}
		mustRefuse(t, l, byAlice(), protocols.ReasonOverloaded)
		finish(holder)
		work.Wait()
		if !slices.Equal(order, []int{0, 1, 2, 3, 4}) {
			t.Errorf("%v", order)
		}
		if st := l.Stats(); st.InFlight != 0 || st.Waiting != 0 || st.Calls["admitted"] != 6 {
			t.Errorf("%+v", st)
		}
		for i := range l.shards {
			if len(l.shards[i].gates) != 0 {
				t.Error("a caller who has gone still has a gate")
			}
		}
	})
}

func TestWaitsNoLongerThanItMay(t *testing.T) {
	for _, tt := range []struct {
		name    string
		ctx     time.Duration
		timeout string
		wait    time.Duration
		why     string
	}{
		{"as configured", 0, "", 3 * time.Second, "waited"},
		{"its context ends", 2 * time.Second, "", 2 * time.Second, "gone"},
		{"grpc-timeout", 0, "1500m", 1500 * time.Millisecond, "deadline"},
		{"a longer grpc-timeout", 0, "1H", 3 * time.Second, "waited"},
		{"a bad grpc-timeout", 0, "x", 3 * time.Second, "waited"},
		{"the shorter of both", time.Minute, "100m", 100 * time.Millisecond, "deadline"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLimiter(t, Options{Concurrency: 1, Queue: 1, Wait: 3 * time.Second})
				mustAdmit(t, l, byAlice())
				call := begun(protocols.GRPC, "192.0.2.1", "alice")
				call.Ask(fields{"grpc-timeout": tt.timeout})
				ctx := t.Context()
				if tt.ctx > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.ctx)
					defer cancel()
				}
				begun := time.Now()
				_, err := l.Admit(ctx, call)
				if r := refusal(t, err); r == nil || r.Reason != protocols.ReasonOverloaded || r.RetryAfter != time.Second {
					t.Errorf("%+v", r)
				}
				// A context's deadline may come as that, or as its end.
				st := l.Stats()
				if took := time.Since(begun); took != tt.wait || st.Calls[tt.why] != 1 && (tt.why != "gone" || st.Calls["deadline"] != 1) {
					t.Errorf("waited %s, %+v", took, st)
				}
				if st.Waiting != 0 || st.InFlight != 1 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// What a client has waited already, before the guard was asked, counts.
func TestTimeoutBeginsWithTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, Options{Concurrency: 1, Queue: 1, Wait: time.Minute})
		mustAdmit(t, l, byAlice())
		for _, waited := range []time.Duration{0, 3 * time.Second, 10 * time.Second, time.Minute} {
			call := begun(protocols.GRPC, "192.0.2.1", "alice")
			call.Ask(fields{"grpc-timeout": "10S"})
			time.Sleep(waited)
			begun := time.Now()
			_, err := l.Admit(t.Context(), call)
			if took, want := time.Since(begun), max(0, 10*time.Second-waited); refusal(t, err) == nil || took != want {
				t.Errorf("%v after %s, want %s", err, took, want)
			}
		}
		if st := l.Stats(); st.Calls["deadline"] != 4 || st.Waiting != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// A call whose turn would come after its deadline is told so at once.
func TestRefusedAtOnceIfItCannotBeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, Options{Concurrency: 1, Queue: 10, Wait: time.Minute})
		var work sync.WaitGroup
		for range 4 { // each takes a second
			work.Go(func() {
				call := byAlice()
				if _, err := l.Admit(t.Context(), call); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Second)
				finish(call)
			})
		}
		time.Sleep(2500 * time.Millisecond) // two are done, one is in flight, one waits
		for timeout, in := range map[string]bool{"1900m": false, "4S": true} {
			work.Go(func() {
				call := begun(protocols.GRPC, "192.0.2.1", "alice")
				call.Ask(fields{"grpc-timeout": timeout})
				begun := time.Now()
				_, err := l.Admit(t.Context(), call)
				if (err == nil) != in || err != nil && time.Since(begun) > 0 {
					t.Errorf("%s: %v after %s", timeout, err, time.Since(begun))
				}
				finish(call)
			})
		}
		work.Wait()
		if st := l.Stats(); st.Calls["deadline"] != 1 || st.Calls["admitted"] != 5 {
			t.Errorf("%+v", st)
		}
	})
}

func TestWhoLeavesTheQueueLosesNobodysTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, Options{Concurrency: 1, Queue: 3, Wait: time.Minute})
		holder := byAlice()
		mustAdmit(t, l, holder)
		ctx, cancel := context.WithCancel(t.Context())
		var in [3]atomic.Bool
		var work sync.WaitGroup
		for i := range 3 {
			work.Go(func() {
				c := ctx
				if i != 1 {
					c = t.Context()
				}
				call := byAlice()
				_, err := l.Admit(c, call)
				in[i].Store(err == nil)
				finish(call)
			})
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		if st := l.Stats(); st.Waiting != 2 || st.Calls["gone"] != 1 {
			t.Errorf("%+v", st)
		}
		finish(holder)
		work.Wait()
		if !in[0].Load() || in[1].Load() || !in[2].Load() {
			t.Error("the wrong one has left")
		}
	})
}

// Places are never more than there are, and all are free in the end, whoever comes and goes.
func TestPlacesUnderRace(t *testing.T) {
	const places = 3
	var reg Registry
	get := func(concurrency int) *Limiter {
		l, err := reg.Get(Options{Name: "api", Rate: Rate{1_000_000, time.Second}, Burst: 1_000_000, Concurrency: concurrency, Queue: 4, Wait: time.Millisecond})
		if err != nil {
			t.Error(err)
		}
		return l
	}
	l := get(places)
	var inFlight atomic.Int64
	var work sync.WaitGroup
	for i := range 16 {
		work.Go(func() {
			for k := range 500 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(k%7)*100*time.Microsecond)
				call := byAlice()
				if _, err := l.Admit(ctx, call); err == nil {
					if n := inFlight.Add(1); n > places {
						t.Errorf("%d calls in flight", n)
					}
					inFlight.Add(-1)
				}
				finish(call)
				cancel()
				if i == 0 {
					get(1 + k%places)
				}
			}
		})
	}
	work.Wait()
	if st := l.Stats(); st.InFlight != 0 || st.Waiting != 0 || st.Calls["admitted"] == 0 {
		t.Errorf("%+v", st)
	}
	for name, st := range reg.Stats() {
		if name != "api" {
			t.Error(name, st)
		}
	}
}

func TestRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reg Registry
		get := func(o Options) *Limiter {
			o.Name = "api"
			l, err := reg.Get(o)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		slow := Options{Rate: Rate{10, time.Hour}, Burst: 10, Concurrency: 1}
		l := get(slow)
		held := byAlice()
		mustAdmit(t, l, held)
		mustRefuse(t, l, byAlice(), protocols.ReasonOverloaded)
		if get(slow) != l {
			t.Error("the same options make another limiter")
		}

		// Other numbers: what has been called still counts.
		more := slow
		more.Concurrency, more.Queue, more.Wait = 2, 1, time.Minute
		if get(more) != l {
			t.Fatal("other numbers make another limiter")
		}
		second := byAlice()
		mustAdmit(t, l, second)
		if st := l.Stats(); st.InFlight != 2 {
			t.Errorf("%+v", st)
		}

		// Who waits gets a place that a new bound makes.
		var work sync.WaitGroup
		third := byAlice()
		work.Go(func() {
			if _, err := l.Admit(t.Context(), third); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		more.Concurrency = 3
		get(more)
		work.Wait()

		// A bound that is smaller than what is in flight lets nobody in until it fits.
		more.Concurrency, more.Queue = 1, 0
		get(more)
		finish(held)
		finish(second)
		mustRefuse(t, l, byAlice(), protocols.ReasonOverloaded)
		finish(third)
		last := byAlice()
		mustAdmit(t, l, last)

		// Without a bound those who hold places still give them up.
		more.Concurrency = 0
		get(more)
		mustAdmit(t, l, byAlice())
		finish(last)
		if st := l.Stats(); st.InFlight != 0 {
			t.Errorf("%+v", st)
		}

		// Hours that were owed under 10/h are not owed under 10/s.
		get(Options{Rate: Rate{10, time.Hour}, Burst: 10})
		for now(t, l, byAlice()) == nil {
		}
		get(Options{Rate: Rate{10, time.Second}, Burst: 10})
		r := mustRefuse(t, l, byAlice(), protocols.ReasonTooMany)
		if r.RetryAfter > 100*time.Millisecond {
			t.Errorf("retry after %s", r.RetryAfter)
		}

		if get(Options{Per: PerIP}) == l {
			t.Error("whom it counts has changed, and it is the same limiter")
		}
		ip := get(Options{Per: PerIP})
		reg.Sweep([]string{"api"})
		if get(Options{Per: PerIP}) != ip {
			t.Error("swept, though it is kept")
		}
		reg.Sweep(nil)
		if get(Options{Per: PerIP}) == ip {
			t.Error("not swept")
		}
		if _, err := reg.Get(Options{Name: "api", Queue: 1}); err == nil {
			t.Error("no error")
		}
	})
}

func BenchmarkAdmitNow(b *testing.B) {
	rate := Rate{1_000_000, time.Second}
	for _, tt := range []struct {
		name string
		o    Options
	}{
		{"rate", Options{Rate: rate, Burst: 1_000_000}},
		{"rate by ip", Options{Rate: rate, Burst: 1_000_000, Per: PerIP}},
		{"rate and places", Options{Rate: rate, Burst: 1_000_000, Concurrency: 1000}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			l := newLimiter(b, tt.o)
			calls := make([]*protocols.Call, 10_000)
			for i := range calls {
				calls[i] = begun(protocols.HTTP, fmt.Sprintf("10.0.%d.%d", i>>8, i&255), fmt.Sprint("user", i))
				finish(calls[i]) // so that places are given up at once, and calls can be used again
				mustAdmit(b, l, calls[i])
			}
			ctx := b.Context()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if i++; i == len(calls) {
					i = 0
				}
				if _, err := l.AdmitNow(ctx, calls[i]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("flood of new callers", func(b *testing.B) {
		l := newLimiter(b, Options{Rate: Rate{1, time.Hour}, Per: PerIP})
		call := begun(protocols.HTTP, "2001:db8::1", "")
		ctx := b.Context()
		b.ReportAllocs()
		a := call.Conn.Remote.Addr().As16()
		for b.Loop() {
			for k := 7; k >= 0; k-- {
				if a[k]++; a[k] != 0 {
					break
				}
			}
			call.Conn.Remote = addrPort(a)
			if _, err := l.AdmitNow(ctx, call); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestAdmitNowAllocatesNothing(t *testing.T) {
	l := newLimiter(t, Options{Rate: Rate{1_000_000, time.Second}, Burst: 1_000_000})
	g := NewBulkheads(Bounds{HTTP: 10})
	s := NewShed(ShedOptions{})
	call, ctx := byAlice(), t.Context()
	finish(call)
	for name, guard := range map[string]protocols.Quick{"limiter": l, "bulkheads": g, "shed": s} {
		if n := testing.AllocsPerRun(1000, func() {
			if _, err := guard.AdmitNow(ctx, call); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %g allocations", name, n)
		}
	}
}
