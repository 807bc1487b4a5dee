package limit

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// fakeStore counts as Redis does, but answers as it is told.
type fakeStore struct {
	mu     sync.Mutex
	delay  time.Duration
	err    error
	asked  []string
	looked int
	told   int
	tat    map[string]time.Time
}

func (f *fakeStore) set(delay time.Duration, err error) {
	f.mu.Lock()
	f.delay, f.err = delay, err
	f.mu.Unlock()
}

func (f *fakeStore) asks() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

func (f *fakeStore) Take(ctx context.Context, key string, rate Rate, burst, n int) (bool, time.Duration, error) {
	f.mu.Lock()
	delay, err := f.delay, f.err
	if n == 0 {
		f.looked++
	} else {
		f.asked = append(f.asked, key)
	}
	f.mu.Unlock()
	if delay > 0 {
		select {
		case <-ctx.Done():
			return false, 0, ctx.Err()
		case <-time.After(delay):
		}
	}
	if err != nil {
		return false, 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	tat := f.tat[key]
	if tat.Before(now) {
		tat = now
	}
	if early := tat.Sub(now) - time.Duration(burst-min(n, 1))*rate.Interval(); early > 0 {
		return false, early, nil
	}
	if n > 0 {
		f.tat[key] = tat.Add(time.Duration(n) * rate.Interval())
		f.told += n - 1
	}
	return true, 0, nil
}

func share(t *testing.T) (*fakeStore, *Shared) {
	t.Helper()
	f := &fakeStore{tat: map[string]time.Time{}}
	s := Share(f)
	t.Cleanup(s.Close)
	return f, s
}

func admit(t *testing.T, l *Limiter) (r *protocols.Refusal, took time.Duration) {
	t.Helper()
	begun := time.Now()
	_, err := l.Admit(t.Context(), byAlice())
	return refusal(t, err), time.Since(begun)
}

func TestInstancesCountTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := share(t)
		o := Options{Name: "api", Rate: Rate{10, time.Second}, Burst: 4, Shared: s}
		a, b := newLimiter(t, o), newLimiter(t, o)
		for range 2 {
			for _, l := range []*Limiter{a, b} {
				if _, err := l.AdmitNow(t.Context(), byAlice()); err != protocols.ErrMustWait { //nolint:errorlint // as guards are asked
					t.Fatalf("%v, want to wait for the store", err)
				}
				if r, _ := admit(t, l); r != nil {
					t.Fatal(r)
				}
			}
		}
		r, _ := admit(t, a)
		if r == nil || r.Reason != protocols.ReasonTooMany || r.RetryAfter != 100*time.Millisecond {
			t.Fatalf("%+v", r)
		}
		// a knows now, and does not ask; b does.
		asked := f.asks()
		if r = mustRefuse(t, a, byAlice(), protocols.ReasonTooMany); r.RetryAfter != 100*time.Millisecond || f.asks() != asked {
			t.Errorf("%+v, asked %d times", r, f.asks()-asked)
		}
		if r, _ = admit(t, b); r == nil || f.asks() != asked+1 {
			t.Errorf("%+v, asked %d times", r, f.asks()-asked)
		}
		time.Sleep(100 * time.Millisecond)
		if r, _ = admit(t, b); r != nil {
			t.Error(r)
		}
		if r, _ = admit(t, a); r == nil {
			t.Error("admitted, though b has had it")
		}
		if got := a.Stats().Calls; got["shared_rate"] != 2 || got["rate"] != 1 || got["admitted"] != 2 {
			t.Errorf("%v", got)
		}
		if !strings.HasPrefix(f.asked[0], "api id ") || strings.Contains(f.asked[0], "http") {
			t.Errorf("key %q", f.asked[0])
		}
	})
}

func TestDeadStore(t *testing.T) {
	for _, tt := range []struct {
		name   string
		delay  time.Duration
		err    error
		closed bool
	}{
		{"errors, open", 0, errors.New("refused"), false},
		{"errors, closed", 0, errors.New("refused"), true},
		{"hangs, open", time.Hour, nil, false},
		{"hangs, closed", time.Hour, nil, true},
		{"is slow, open", 50 * time.Millisecond, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, s := share(t)
				l := newLimiter(t, Options{Name: "api", Rate: Rate{10, time.Second}, Burst: 3, Shared: s, FailClosed: tt.closed})
				if r, _ := admit(t, l); r != nil {
					t.Fatal(r)
				}
				f.set(tt.delay, tt.err)

				// One call finds out.
				check := func(r *protocols.Refusal) {
					t.Helper()
					if tt.closed && (r == nil || r.Reason != protocols.ReasonOverloaded) || !tt.closed && r != nil {
						t.Errorf("%+v", r)
					}
				}
				r, took := admit(t, l)
				if took > 5*time.Millisecond || !s.Down() || s.Failed() != 1 {
					t.Errorf("took %s, down %v, failed %d", took, s.Down(), s.Failed())
				}
				check(r)

				// No other one waits, and what this instance lets in is bounded.
				asked := f.asks()
				check(now(t, l, byAlice()))
				if !tt.closed {
					mustRefuse(t, l, byAlice(), protocols.ReasonTooMany)
				}
				for range 20_000 {
					time.Sleep(time.Millisecond)
					now(t, l, byAlice())
				}
				synctest.Wait()
				f.mu.Lock()
				looked := f.looked
				f.mu.Unlock()
				if f.asks() != asked || looked < 15 || looked > 56 { // eight at first, then one a second; twice if it was late
					t.Errorf("in 20 s asked %d times, probed %d times", f.asks()-asked, looked)
				}
				if got := l.Stats().Calls["admitted"]; !tt.closed && (got < 195 || got > 210) {
					t.Errorf("admitted %d in 20 s at 10/s", got)
				}

				// It is back: within two seconds calls are counted together again.
				f.set(0, nil)
				for range 2000 {
					time.Sleep(time.Millisecond)
					now2(t, l)
				}
				if s.Down() {
					t.Error("still down")
				}
				time.Sleep(time.Second)
				if r, _ := admit(t, l); r != nil || f.asks() == asked {
					t.Errorf("%v, asked %d times", r, f.asks()-asked)
				}
			})
		})
	}
}

// now2 is a call that waits if it must.
func now2(t *testing.T, l *Limiter) {
	t.Helper()
	_, err := l.Admit(t.Context(), byAlice())
	refusal(t, err)
}

// What an instance lets in while it can ask nobody, up to a burst, the others hear of.
func TestOthersAreToldOfCallsThatWereNotAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := share(t)
		o := Options{Name: "api", Rate: Rate{10, time.Second}, Burst: 4, Shared: s}
		a := newLimiter(t, o)
		f.set(0, errors.New("gone"))
		for range 4 { // the first asks in vain, and the store may have counted it
			if r, _ := admit(t, a); r != nil {
				t.Fatal(r)
			}
		}
		mustRefuse(t, a, byAlice(), protocols.ReasonTooMany)
		synctest.Wait() // a probe has failed
		f.set(0, nil)
		for s.Down() {
			time.Sleep(100 * time.Millisecond)
			if r, _ := admit(t, a); r != nil {
				t.Fatal(r)
			}
			synctest.Wait()
		}
		// A store that says no has not taken note of them.
		time.Sleep(time.Second)
		for b := newLimiter(t, o); ; {
			if r, _ := admit(t, b); r != nil {
				break
			}
		}
		if r, _ := admit(t, a); r == nil || a.Stats().Calls["shared_rate"] != 1 || f.told != 0 {
			t.Fatalf("%v, told of %d, %v", r, f.told, a.Stats().Calls)
		}
		time.Sleep(time.Second)
		if r, _ := admit(t, a); r != nil || f.told != 4 {
			t.Fatalf("%v, told of %d", r, f.told)
		}
		// And no more than once.
		time.Sleep(time.Second)
		if r, _ := admit(t, a); r != nil || f.told != 4 {
			t.Fatalf("%v, told of %d", r, f.told)
		}
	})
}

// forgetful is a store that has forgotten everything.
type forgetful struct{}

func (forgetful) Take(context.Context, string, Rate, int, int) (bool, time.Duration, error) {
	time.Sleep(time.Millisecond)
	return true, 0, nil
}

// Calls that were asked for together, and let in by a store that has lost its data, cost no more than
// a caller may owe.
func TestStoreThatForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Share(forgetful{})
		t.Cleanup(s.Close)
		l := newLimiter(t, Options{Name: "api", Rate: Rate{10, time.Second}, Burst: 2, Shared: s})
		var work sync.WaitGroup
		for range 5 {
			work.Go(func() {
				if r, _ := admit(t, l); r != nil {
					t.Error(r)
				}
			})
		}
		work.Wait()
		if r := mustRefuse(t, l, byAlice(), protocols.ReasonTooMany); r.RetryAfter > 100*time.Millisecond {
			t.Errorf("retry after %s", r.RetryAfter)
		}
	})
}

// A caller who goes away says nothing of the store.
func TestCallerGoesWhileTheStoreIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := share(t)
		l := newLimiter(t, Options{Name: "api", Rate: Rate{10, time.Second}, Shared: s})
		f.set(3*time.Millisecond, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := l.Admit(ctx, byAlice())
		if refusal(t, err) == nil || s.Down() || l.Stats().Calls["gone"] != 1 {
			t.Errorf("%v, down %v, %+v", err, s.Down(), l.Stats())
		}
	})
}

// Other instances have said yes: the place is still to be waited for.
func TestSharedRateAndPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := share(t)
		l := newLimiter(t, Options{Name: "api", Rate: Rate{10, time.Second}, Shared: s, Concurrency: 1, Queue: 1, Wait: time.Minute})
		first := byAlice()
		if _, err := l.Admit(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		var work sync.WaitGroup
		second := byAlice()
		work.Go(func() {
			if _, err := l.Admit(t.Context(), second); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		mustRefuse(t, l, byAlice(), protocols.ReasonOverloaded) // the queue is full: nobody is asked
		finish(first)
		work.Wait()
		finish(second)
		if st := l.Stats(); st.InFlight != 0 || st.Calls["admitted"] != 2 {
			t.Errorf("%+v", st)
		}
	})
}
