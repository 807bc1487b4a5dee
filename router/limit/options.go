package limit

import (
	"errors"
	"fmt"
	"time"
)

// Options are what a limiter counts and allows.
type Options struct {
	// Name tells limiters apart: in a Registry, and in a store that instances share.
	Name string
	// Rate is how often a caller may call. Zero means no bound.
	Rate Rate
	// Burst is how many calls may come at once after a pause. Zero means what Rate allows
	// in a second, at least one.
	Burst int
	// Per is whose calls are counted together.
	Per Per
	// Concurrency is how many calls a caller may have in flight; a WebSocket is in flight for
	// as long as it is open. Zero means no bound.
	Concurrency int
	// Queue is how many more wait for a place, first come, first served. Zero means none.
	Queue int
	// Wait is how long. Zero means 1 s.
	Wait time.Duration
	// Shared counts rates together with other instances. Nil means each for itself.
	Shared *Shared
	// FailClosed refuses calls while Shared cannot be asked. Else this instance counts alone:
	// a caller may then have the whole rate of each.
	FailClosed bool
	// Keys is how many callers' rates are remembered; about 80 bytes each. Zero means 100,000.
	Keys int
}

// Check says what is wrong with the options; New and Registry.Get say the same.
func (o Options) Check() error {
	if err := o.Rate.check(); err != nil {
		return err
	}
	switch {
	case o.Per > PerAll:
		return errors.New("per: unknown")
	case o.Burst < 0 || o.Burst > mostBurst:
		return fmt.Errorf("burst: %d is not within 0 and %d", o.Burst, mostBurst)
	case time.Duration(max(o.Burst, 1))*o.Rate.Interval() > longestDebt:
		return errors.New("burst: it takes more than a year to come back")
	case o.Concurrency < 0 || o.Queue < 0 || o.Wait < 0 || o.Keys < 0:
		return errors.New("concurrency, queue, wait and keys are not negative")
	case o.Queue > 0 && o.Concurrency == 0:
		return errors.New("queue: nothing waits without concurrency")
	case o.Shared != nil && o.Name == "":
		return errors.New("name: what is shared has one")
	}
	return nil
}

// numbers are options as a limiter works with them: what may change while it does.
type numbers struct {
	rate        Rate
	burst       int
	interval    int64 // what a call costs, in ns; zero without a rate
	tolerance   int64 // how far a caller's time may be ahead when it calls
	concurrency int
	queue       int
	wait        time.Duration
	shared      *Shared
	failClosed  bool
}

func (o *Options) numbers() *numbers {
	n := &numbers{
		rate: o.Rate, burst: o.Burst, interval: int64(o.Rate.Interval()),
		concurrency: o.Concurrency, queue: o.Queue, wait: o.Wait, failClosed: o.FailClosed,
	}
	if n.burst == 0 {
		n.burst = o.Rate.burst()
	}
	n.tolerance = int64(n.burst-1) * n.interval
	if n.wait == 0 {
		n.wait = time.Second
	}
	if n.interval > 0 {
		n.shared = o.Shared
	}
	return n
}
