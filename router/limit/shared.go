package limit

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Store counts for several instances. router/redisstore has one.
type Store interface {
	// Take takes n calls of a key's, whose rate and burst are those, if it may have one;
	// else retryAfter is when it may. What is more than one has been made while nobody could be
	// asked, at most a burst. With n = 0 it only looks. It must return when ctx ends,
	// and be safe for concurrent use.
	Take(ctx context.Context, key string, rate Rate, burst, n int) (allowed bool, retryAfter time.Duration, err error)
}

// The bounds of what a store may cost. What a call waits for it is less than the 5 ms that
// are promised, for a timer may be late on a busy machine.
const (
	patience     = 4 * time.Millisecond
	probeFor     = 500 * time.Millisecond
	firstPause   = 10 * time.Millisecond
	longestPause = time.Second
)

// Shared is a Store with a circuit breaker. All limiters that use a store have one Shared. When
// the store gives an error, or no answer within 4 ms, it is left alone: no call waits
// for it, until it has answered a probe in 4 ms. Probes run beside calls, one at a time: at once, for
// most of the time it is the machine that was busy, then after 10 ms, 20 ms, and so on up to a second,
// for as long as calls come.
type Shared struct {
	store  Store
	epoch  time.Time
	down   atomic.Bool
	next   atomic.Int64 // when it may be probed, in ns since epoch
	failed atomic.Uint64

	mu      sync.Mutex // guards the fields below, and what is added to work
	pause   time.Duration
	probing bool
	closed  bool
	work    sync.WaitGroup
	ctx     context.Context //nolint:containedctx // of probes, which no call's end ends
	cancel  context.CancelFunc
}

// Share makes a Store fit for calls. It is to be closed, after the last limiter's last call.
func Share(store Store) *Shared {
	s := &Shared{store: store, epoch: time.Now()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends what probes the store, and waits for it. The store remains open.
func (s *Shared) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.work.Wait()
}

// Down reports whether the store is left alone, and Failed how often a call has found that
// it is to be.
func (s *Shared) Down() bool { return s.down.Load() }

// Failed counts the calls that had an error or no answer from the store.
func (s *Shared) Failed() uint64 { return s.failed.Load() }

// take asks the store for a call, and tells it of those before.
func (s *Shared) take(ctx context.Context, key string, n *numbers, calls int) (allowed bool, retry time.Duration, err error) {
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	allowed, retry, err = s.store.Take(asking, key, n.rate, n.burst, calls)
	if err != nil && ctx.Err() == nil {
		s.failed.Add(1)
		if s.down.CompareAndSwap(false, true) {
			s.mu.Lock()
			s.pause = 0
			s.next.Store(0)
			s.mu.Unlock()
			s.probe(key, n)
		}
	}
	return allowed, retry, err
}

// probe looks whether the store is back, if it is time to.
func (s *Shared) probe(key string, n *numbers) {
	if int64(time.Since(s.epoch)) < s.next.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.probing || int64(time.Since(s.epoch)) < s.next.Load() || !s.down.Load() {
		return
	}
	s.probing = true
	rate, burst := n.rate, n.burst
	s.work.Go(func() {
		begun := time.Now()
		err := s.look(key, rate, burst, probeFor)
		if err == nil && time.Since(begun) > patience { // it may have had to connect
			err = s.look(key, rate, burst, patience)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.probing = false
		if err == nil {
			s.down.Store(false)
			return
		}
		s.pause = min(max(2*s.pause, firstPause), longestPause)
		s.next.Store(int64(begun.Sub(s.epoch) + s.pause))
	})
}

func (s *Shared) look(key string, rate Rate, burst int, within time.Duration) error {
	ctx, cancel := context.WithTimeout(s.ctx, within)
	defer cancel()
	_, _, err := s.store.Take(ctx, key, rate, burst, 0)
	return err
}
