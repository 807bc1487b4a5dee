package protocols

import (
	"context"
	"testing"
	"time"
)

// BenchmarkMeter is all that counting adds to a call.
func BenchmarkMeter(b *testing.B) {
	m, to := new(Meter), &Destination{Route: "r", Upstream: "u"}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		call := new(Call)
		call.Begin(context.Background(), ID{}, "")
		call.Started = time.Now()
		call.Goes(to)
		res := Result{Status: 200, Sent: 100}
		for pb.Next() {
			call.id[15]++
			m.Begin(call)
			m.end(call, nil, res)
		}
	})
}
