package upstream

import (
	"sync/atomic"
	"time"
)

// Retries says how often a call is tried again, at another server if there is
// one: where nothing of it was sent, or it is idempotent (RFC 9110, 9.2.2) and no
// answer has come.
type Retries struct {
	// Most is how many times a call is. Zero means 2, a negative value none.
	Most int
	// Budget is the share of calls that may be tried again, beside ten at once:
	// servers that fail are not helped by more calls. Zero means 0.2.
	Budget float64
	// Backoff is how long the second retry waits at most, a random share of
	// it; the next twice as long, up to 16 times. The first, which goes to another
	// server, does not wait. Zero means 25 ms.
	Backoff time.Duration
}

// budget is what of the retries is left: each call brings Retries.Budget of one.
type budget struct {
	per  int64        // thousandths of a retry that a call brings
	left atomic.Int64 // thousandths of a retry

	spent, denied atomic.Int64 // retries so far
}

const (
	aRetry     = 1000
	mostBudget = 10 * aRetry
)

func newBudget(share float64) *budget {
	b := &budget{per: int64(share * aRetry)}
	b.left.Store(mostBudget)
	return b
}

// call takes note of a new call.
func (b *budget) call() {
	if b.left.Load() < mostBudget {
		b.left.Add(b.per)
	}
}

// spend takes a retry out, if there is one left.
func (b *budget) spend() bool {
	if b.left.Add(-aRetry) >= 0 {
		b.spent.Add(1)
		return true
	}
	b.left.Add(aRetry)
	b.denied.Add(1)
	return false
}
