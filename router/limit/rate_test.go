package limit

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/oneport-edge/oneport/protocols"
)

func TestParseRate(t *testing.T) {
	for s, want := range map[string]Rate{
		"50/s":      {50, time.Second},
		"1000/m":    {1000, time.Minute},
		"10/h":      {10, time.Hour},
		"1000000/s": {1_000_000, time.Second},
	} {
		if got, err := ParseRate(s); err != nil || got != want || got.String() != s {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "50", "/s", "0/s", "-1/s", "+1/s", "1.5/s", "50/S", "50/d", "50 /s", "50/s ", "1000001/s", "99999999999/h",
		"5/s/s", "0x10/s", "1_0/s",
	} {
		if got, err := ParseRate(s); err == nil {
			t.Errorf("%q: %v, want an error", s, got)
		}
	}
}

// An interval that was cut off would let in more than the rate.
func TestIntervalIsRoundedUp(t *testing.T) {
	if got := (Rate{3, time.Second}).Interval(); got != 333_333_334 {
		t.Errorf("%d ns", got)
	}
	if got := (Rate{4, time.Second}).Interval(); got != 250_000_000 {
		t.Errorf("%d ns", got)
	}
}

func TestBurstOfARate(t *testing.T) {
	for s, want := range map[string]int{"50/s": 50, "1000/m": 16, "10/h": 1, "1/s": 1} {
		r, err := ParseRate(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.burst(); got != want {
			t.Errorf("%s: %d, want %d", s, got, want)
		}
	}
}

func FuzzParseRate(f *testing.F) {
	f.Add("50/s")
	f.Add("1000000/h")
	f.Add("4294967295/h")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRate(s)
		if err != nil {
			if r != (Rate{}) {
				t.Errorf("%q: %v with an error", s, r)
			}
			return
		}
		if again, err := ParseRate(r.String()); err != nil || again != r {
			t.Errorf("%q: %v is read as %v, %v", s, r, again, err)
		}
		o := Options{Rate: r}
		if err := o.Check(); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		if r.Interval() < time.Microsecond || o.numbers().burst < 1 {
			t.Errorf("%q: interval %s, burst %d", s, r.Interval(), o.numbers().burst)
		}
	})
}

func FuzzGRPCTimeout(f *testing.F) {
	f.Add("1S")
	f.Add("99999999H")
	f.Add("-1S")
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := grpcTimeout(s)
		if d < 0 || !ok && d != 0 || ok && strings.Trim(s[:len(s)-1], "0123456789") != "" {
			t.Errorf("%q: %s, %v", s, d, ok)
		}
	})
}

func TestRateAndBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, Options{Rate: Rate{50, time.Second}, Burst: 3})
		for range 3 {
			mustAdmit(t, l, byAlice())
		}
		r := mustRefuse(t, l, byAlice(), protocols.ReasonTooMany)
		if r.RetryAfter != 20*time.Millisecond {
			t.Errorf("retry after %s", r.RetryAfter)
		}
		time.Sleep(r.RetryAfter - 1)
		if r = mustRefuse(t, l, byAlice(), protocols.ReasonTooMany); r.RetryAfter != 1 {
			t.Errorf("retry after %s", r.RetryAfter)
		}
		time.Sleep(time.Nanosecond)
		mustAdmit(t, l, byAlice())
		mustRefuse(t, l, byAlice(), protocols.ReasonTooMany)
		time.Sleep(time.Hour) // no more than a burst is saved up
		for range 3 {
			mustAdmit(t, l, byAlice())
		}
		mustRefuse(t, l, byAlice(), protocols.ReasonTooMany)
		if st := l.Stats(); st.Calls["admitted"] != 7 || st.Calls["rate"] != 4 || st.Keys != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// Over any time there are at most burst + rate*time calls.
func TestRateHoldsOverAnyWindow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rate := Rate{rapid.IntRange(1, 2000).Draw(rt, "calls"), rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour}).Draw(rt, "every")}
		burst := rapid.IntRange(1, 20).Draw(rt, "burst")
		gaps := rapid.SliceOfN(rapid.Int64Range(0, 3*int64(rate.Interval())), 1, 200).Draw(rt, "gaps")
		var bad string
		synctest.Test(t, func(t *testing.T) {
			l := newLimiter(t, Options{Rate: rate, Burst: burst})
			var at []time.Time
			for _, gap := range gaps {
				time.Sleep(time.Duration(gap))
				r := now(t, l, byAlice())
				if r == nil {
					at = append(at, time.Now())
					continue
				}
				// And no sooner and no later than it says.
				if r.RetryAfter <= 0 || r.RetryAfter > rate.Interval() {
					bad = fmt.Sprintf("retry after %s", r.RetryAfter)
				}
			}
			for i := range at {
				for j := i; j < len(at); j++ {
					most := float64(burst) + float64(at[j].Sub(at[i]))*float64(rate.Calls)/float64(rate.Every)
					if n := j - i + 1; float64(n) > most+1e-6 {
						bad = fmt.Sprintf("%d calls in %s, want at most %g", n, at[j].Sub(at[i]), most)
					}
				}
			}
		})
		if bad != "" {
			rt.Fatal(bad)
		}
	})
}

func TestOneCountForAllProtocols(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, Options{Rate: Rate{1, time.Minute}, Burst: 3})
		mustAdmit(t, l, begun(protocols.HTTP, "192.0.2.1", "alice"))
		mustAdmit(t, l, begun(protocols.GRPC, "192.0.2.2", "alice"))
		mustAdmit(t, l, begun(protocols.WebSocket, "2001:db8::1", "alice"))
		for _, p := range []protocols.Protocol{protocols.HTTP, protocols.GRPC, protocols.WebSocket} {
			mustRefuse(t, l, begun(p, "192.0.2.9", "alice"), protocols.ReasonTooMany)
		}
		mustAdmit(t, l, begun(protocols.HTTP, "192.0.2.1", "bob"))
	})
}

func TestWhoIsCountedTogether(t *testing.T) {
	type who struct{ remote, user string }
	for _, tt := range []struct {
		per  Per
		a, b who
		same bool
	}{
		{PerIdentity, who{"192.0.2.1", "alice"}, who{"192.0.2.2", "alice"}, true},
		{PerIdentity, who{"192.0.2.1", "alice"}, who{"192.0.2.1", "bob"}, false},
		{PerIdentity, who{"192.0.2.1", ""}, who{"192.0.2.1", ""}, true},
		{PerIdentity, who{"192.0.2.1", ""}, who{"192.0.2.2", ""}, false},
		{PerIdentity, who{"192.0.2.1", ""}, who{"192.0.2.1", "192.0.2.1"}, false},
		{PerIP, who{"192.0.2.1", "alice"}, who{"192.0.2.1", "bob"}, true},
		{PerIP, who{"192.0.2.1", "alice"}, who{"192.0.2.2", "alice"}, false},
		{PerIP, who{"192.0.2.1", ""}, who{"::ffff:192.0.2.1", ""}, true},
		{PerIP, who{"2001:db8:0:1::1", ""}, who{"2001:db8:0:1:ffff::2", ""}, true},
		{PerIP, who{"2001:db8:0:1::1", ""}, who{"2001:db8:0:2::1", ""}, false},
		{PerIP, who{"fe80::1%eth0", ""}, who{"fe80::1%eth1", ""}, true},
		{PerIP, who{"", ""}, who{"", ""}, true},
		{PerIP, who{"", ""}, who{"192.0.2.1", ""}, false},
		{PerAll, who{"192.0.2.1", "alice"}, who{"2001:db8::1", "bob"}, true},
	} {
		l := newLimiter(t, Options{Name: "api", Rate: Rate{1, time.Hour}, Per: tt.per})
		a, b := begun(protocols.HTTP, tt.a.remote, tt.a.user), begun(protocols.GRPC, tt.b.remote, tt.b.user)
		if same := l.sharedKey(a) == l.sharedKey(b); same != tt.same {
			t.Errorf("%s: %v is %q to other instances, %v is %q", tt.per, tt.a, l.sharedKey(a), tt.b, l.sharedKey(b))
		}
		mustAdmit(t, l, a)
		if got := now(t, l, b) != nil; got != tt.same {
			t.Errorf("%s: %v and %v are one: %v", tt.per, tt.a, tt.b, got)
		}
	}
	l := newLimiter(t, Options{Name: "api"})
	long := begun(protocols.HTTP, "192.0.2.1", strings.Repeat("x", 1<<20))
	if k := l.sharedKey(long); len(k) > 100 {
		t.Errorf("a key of %d bytes", len(k))
	}
}

func TestOptionsAreChecked(t *testing.T) {
	rate := Rate{1, time.Second}
	for _, o := range []Options{
		{Rate: Rate{-1, time.Second}},
		{Rate: Rate{1, 0}},
		{Rate: Rate{1, 25 * time.Hour}},
		{Rate: Rate{2, time.Microsecond}},
		{Rate: rate, Burst: -1},
		{Rate: rate, Burst: 1_000_001},
		{Rate: Rate{1, time.Hour}, Burst: 10_000},
		{Per: 3},
		{Concurrency: -1},
		{Queue: 1},
		{Wait: -1},
		{Rate: rate, Shared: new(Shared)},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}
