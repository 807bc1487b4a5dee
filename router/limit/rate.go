package limit

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Rate is how many calls there may be in a time, on the average. Zero means no bound.
type Rate struct {
	Calls int
	Every time.Duration
}

// The bounds of what a limit may be told.
const (
	mostPerSecond = 1_000_000 // an interval is counted in whole nanoseconds: then it is right to 0.1 %
	longestEvery  = 24 * time.Hour
	mostBurst     = 1_000_000
	longestDebt   = 365 * 24 * time.Hour // for a burst to come back: far from what an int64 holds
)

var errRate = errors.New("a rate is calls per second, minute or hour: 50/s, 1000/m, 10/h; at most 1,000,000 a second")

// ParseRate reads "50/s", "1000/m" or "10/h".
func ParseRate(s string) (Rate, error) {
	calls, unit, _ := strings.Cut(s, "/")
	var r Rate
	switch unit {
	case "s":
		r.Every = time.Second
	case "m":
		r.Every = time.Minute
	case "h":
		r.Every = time.Hour
	default:
		return Rate{}, errRate
	}
	n, err := strconv.ParseUint(calls, 10, 32)
	if err != nil {
		return Rate{}, errRate
	}
	r.Calls = int(n)
	if n == 0 || r.check() != nil {
		return Rate{}, errRate
	}
	return r, nil
}

// String is what ParseRate reads: "50/s".
func (r Rate) String() string {
	var unit string
	switch r.Every {
	case time.Second:
		unit = "s"
	case time.Minute:
		unit = "m"
	case time.Hour:
		unit = "h"
	default:
		unit = r.Every.String()
	}
	return strconv.Itoa(r.Calls) + "/" + unit
}

// Interval is the time that one call costs, rounded up.
func (r Rate) Interval() time.Duration {
	if r.Calls <= 0 {
		return 0
	}
	n := time.Duration(r.Calls)
	return (r.Every + n - 1) / n
}

func (r Rate) check() error {
	if r == (Rate{}) {
		return nil
	}
	if r.Calls <= 0 || r.Every <= 0 || r.Every > longestEvery || r.Calls > mostPerSecond && r.Every < time.Second ||
		float64(r.Calls)/r.Every.Seconds() > mostPerSecond {
		return errRate
	}
	return nil
}

// burst is how many calls may come at once if nobody says: a second's worth, at least one.
func (r Rate) burst() int {
	if r.Calls == 0 {
		return 1
	}
	return max(1, int(time.Second/r.Interval()))
}

// Per is whose calls are counted together.
type Per uint8

// Whom a limit counts.
const (
	// PerIdentity counts who a call is made for; calls of nobody by their address.
	PerIdentity Per = iota
	// PerIP counts client addresses: those of IPv6 by their first 64 bits, which is what one
	// customer has. Calls without an address, on a Unix socket, are one caller.
	PerIP
	// PerAll counts all calls together that the limiter is asked about.
	PerAll
)

// String gives "identity", "ip" or "all", as ParsePer reads it.
func (p Per) String() string {
	switch p {
	case PerIP:
		return "ip"
	case PerAll:
		return "all"
	default:
		return "identity"
	}
}

// ParsePer reads "identity", "ip" or "all".
func ParsePer(s string) (Per, error) {
	for p := PerIdentity; p <= PerAll; p++ {
		if s == p.String() {
			return p, nil
		}
	}
	return 0, fmt.Errorf("%q: want identity, ip or all", s)
}
