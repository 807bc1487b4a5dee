package accesslog

import (
	"testing"
	"time"
)

// A clock writes what time does, whatever it was asked before.
func TestClock(t *testing.T) {
	t.Parallel()
	var c clock
	begin := time.Date(2026, 3, 29, 0, 59, 59, 0, time.UTC)
	for _, zone := range []*time.Location{time.UTC, time.FixedZone("", 5400), time.FixedZone("", -3*3600)} {
		c = clock{} // a process has one zone
		for _, d := range []time.Duration{0, 1, 10, 120 * time.Millisecond, time.Second - 1, time.Second, time.Second + 999, 25 * time.Hour, 0} {
			at := begin.Add(d).In(zone)
			for range 2 {
				if got, want := string(c.append(nil, at)), at.Format(time.RFC3339Nano); got != want {
					t.Errorf("%s, want %s", got, want)
				}
			}
		}
	}
}
