package protocols_test

import (
	"context"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// metered begins a call that m counts.
func metered(m *protocols.Meter, p protocols.Protocol, seq uint64) *protocols.Call {
	call := new(protocols.Call)
	call.Begin(context.Background(), protocols.NewID(1, seq), "")
	call.Protocol, call.Started = p, time.Now()
	m.Begin(call)
	return call
}

func TestMeterCounts(t *testing.T) {
	m := new(protocols.Meter)
	to := &protocols.Destination{Route: "/api/", Upstream: "app"}
	again := &protocols.Destination{Route: "/api/", Upstream: "app"} // after a reload
	var calls []*protocols.Call
	for i := range uint64(100) {
		calls = append(calls, metered(m, protocols.HTTP, i))
	}
	if n := m.InFlight(protocols.HTTP); n != 100 {
		t.Errorf("%d calls in flight, want 100", n)
	}
	for i, c := range calls {
		switch {
		case i < 50:
			c.Goes(to)
		case i < 90:
			c.Goes(again)
		}
		status := 200
		if i%10 == 0 {
			status = 503
		}
		c.Finish(protocols.Result{Status: status, Sent: 10})
		c.Finish(protocols.Result{Status: status, Sent: 10}) // counts for nothing
	}
	if n := m.InFlight(protocols.HTTP); n != 0 {
		t.Errorf("%d calls in flight, want none", n)
	}
	all := m.Stats()
	if len(all) != 2 || all[0].Route != "" || all[1].Route != "/api/" || all[1].Upstream != "app" {
		t.Fatalf("%+v", all)
	}
	st := all[1]
	if st.Calls != 90 || st.Codes["200"] != 81 || st.Codes["503"] != 9 || st.Failed != 9 || st.Sent != 900 {
		t.Errorf("%+v", st)
	}
	var native uint64
	for _, n := range st.Native {
		native += n
	}
	if last := st.Buckets[len(st.Buckets)-1]; last != 90 || native != 90 || len(st.Buckets) != len(protocols.HTTP.Bounds())+1 {
		t.Errorf("buckets have %d and %d, want 90: %+v", last, native, st)
	}
}

// Native buckets are those of Prometheus: i ends at 2^(i/8).
func TestMeterNativeBuckets(t *testing.T) {
	for _, took := range []time.Duration{0, time.Microsecond, time.Millisecond, 3 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 1001 * time.Millisecond, time.Hour} {
		m := new(protocols.Meter)
		call := metered(m, protocols.GRPC, 1)
		call.Started = time.Now().Add(-took)
		call.Finish(protocols.Result{})
		st := m.Stats()[0]
		for i := range st.Native {
			least, most := math.Exp2(float64(i-1)/8), math.Exp2(float64(i)/8)
			if s := st.Took.Seconds(); (s <= least || s > most) && s > 1e-6 {
				t.Errorf("%v is in bucket %d, from %v to %v", st.Took, i, least, most)
			}
		}
	}
}

// What a server or a client says decides over no more than a bounded set.
func TestCodesAreBounded(t *testing.T) {
	for p, most := range map[protocols.Protocol]int{protocols.HTTP: 501, protocols.GRPC: 18, protocols.WebSocket: 519} {
		seen := map[string]bool{}
		for status := -10; status < 70_000; status++ {
			seen[p.Code(status)] = true
		}
		if len(seen) != most {
			t.Errorf("%v has %d codes, want %d", p, len(seen), most)
		}
	}
}

func TestMeterCountsRefusals(t *testing.T) {
	m := new(protocols.Meter)
	no := protocols.GuardFunc(func(context.Context, *protocols.Call) (context.Context, error) {
		return nil, &protocols.Refusal{Reason: protocols.ReasonTooMany}
	})
	call := metered(m, protocols.HTTP, 1)
	if _, err := protocols.Admit(call.Context(), []protocols.Guard{no}, call); err == nil {
		t.Fatal("admitted")
	}
	call.Finish(protocols.Result{Status: 429})
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	call = metered(m, protocols.HTTP, 2)
	if _, err := protocols.Admit(gone, []protocols.Guard{no}, call); err == nil {
		t.Fatal("admitted")
	}
	call.Finish(protocols.Result{})
	if st := m.Stats()[0]; st.Refused[protocols.ReasonTooMany] != 1 || len(st.Refused) != 1 || st.Codes["429"] != 1 || st.Codes["other"] != 1 {
		t.Errorf("%+v", st)
	}
}

func TestMeterIsSafe(t *testing.T) {
	m := new(protocols.Meter)
	to := &protocols.Destination{Route: "r", Upstream: "u"}
	var work sync.WaitGroup
	for g := range uint64(8) {
		work.Go(func() {
			for i := range uint64(1000) {
				call := metered(m, protocols.Protocol(i%3), g*1000+i)
				call.Goes(to)
				call.Finish(protocols.Result{Status: 200})
				if i%100 == 0 {
					m.Stats()
				}
			}
		})
	}
	work.Wait()
	var n uint64
	for _, st := range m.Stats() {
		n += st.Calls
	}
	if n != 8000 {
		t.Errorf("%d calls, want 8000", n)
	}
}

// Counting allocates nothing once a destination was seen.
func TestMeterAllocatesNothing(t *testing.T) {
	m, to := new(protocols.Meter), &protocols.Destination{Route: "r", Upstream: "u"}
	call := func() *protocols.Call {
		c := new(protocols.Call)
		c.Begin(context.Background(), protocols.NewID(1, 1), "")
		c.Started = time.Now()
		c.Goes(to)
		return c
	}
	for range 100 {
		c := call()
		m.Begin(c)
		c.Finish(protocols.Result{Status: 200, Sent: 1})
	}
	bare := testing.AllocsPerRun(100, func() { call().Finish(protocols.Result{}) })
	if n := testing.AllocsPerRun(100, func() {
		c := call()
		m.Begin(c)
		c.Finish(protocols.Result{Status: 200, Sent: 1})
	}); n != bare {
		t.Errorf("%v allocations, %v without counting", n, bare)
	}
}
