package limit

import (
	"context"
	"strconv"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// take takes a place, or one in the queue, if there is a bound. said is what other
// instances say. The shard is locked.
func (l *Limiter) take(ctx context.Context, call *protocols.Call, s *shard, n *numbers, key uint64, now int64, said answer) (w *waiter, holds bool, why outcome, retry time.Duration) {
	i, why, retry := s.look(n, key, now)
	room := s.room(n, key)
	if why == overRate && said == yes { // others say that it may
		why, retry = admitted, 0
		if room == filled {
			why = queueFull
		}
	}
	if why == admitted && room == taken {
		if left, ok := deadline(ctx, call); ok && s.gates[key].expected() >= left {
			why = tooSoon
		}
	}
	if why != admitted {
		return nil, false, why, retry
	}
	s.spend(n, i, key, now, said)
	switch {
	case room == taken:
		w = &waiter{ready: make(chan struct{})}
		s.gates[key].push(w)
	case n.concurrency > 0:
		s.enter(n, key, now)
		holds = true
	}
	return w, holds, admitted, 0
}

// wait waits for a place.
func (l *Limiter) wait(ctx context.Context, call *protocols.Call, s *shard, key uint64, w *waiter) outcome {
	patience, why := l.numbers.Load().wait, waitedTooLong
	if left, ok := deadline(ctx, call); ok && left < patience {
		patience, why = left, tooSoon
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-w.ready:
	case <-timer.C:
	case <-ctx.Done():
		why = gone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.in {
		why = admitted
	} else {
		s.gates[key].remove(w)
	}
	s.outcomes[why]++
	return why
}

// deadline is how long a call's client will wait: as its context says, or its grpc-timeout.
func deadline(ctx context.Context, call *protocols.Call) (left time.Duration, ok bool) {
	at, ok := ctx.Deadline()
	if ok {
		left = time.Until(at)
	}
	if call.Protocol != protocols.GRPC {
		return left, ok
	}
	timeout, stated := grpcTimeout(call.Header("grpc-timeout"))
	if !stated {
		return left, ok
	}
	if !call.Started.IsZero() {
		timeout -= time.Since(call.Started)
	}
	if !ok || timeout < left {
		left = timeout
	}
	return left, true
}

// grpcTimeout reads a grpc-timeout: at most eight digits, and a unit (gRPC over HTTP2,
// Requests). What is none says nothing.
func grpcTimeout(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	var unit time.Duration
	switch s[len(s)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if err != nil {
		return 0, false
	}
	const longest = time.Duration(1<<63 - 1)
	if time.Duration(n) > longest/unit {
		return longest, true
	}
	return time.Duration(n) * unit, true
}
