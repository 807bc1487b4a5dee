package upstream

import (
	"slices"
	"sync"
	"time"
)

// Eject says when a server is left out for the errors that it gives.
type Eject struct {
	// Failures is how many calls in a row must fail: because the server cannot be
	// reached, breaks the connection, does not answer in time, or answers 502, 503,
	// 504 or UNAVAILABLE. Zero means 5, a negative value never.
	Failures int
	// For is how long it is left out the first time; the next time in a row twice
	// as long, and so on, up to 32 times. Then a single failure does it. Zero
	// means 10 s.
	For time.Duration
}

const mostEjections = 5 // doublings of Eject.For

// current gives the servers that calls may go to now.
func (u *Upstream) current(now time.Time) *set {
	cur := u.set.Load()
	if cur.until.IsZero() || now.Before(cur.until) {
		return cur
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.renewLocked(now)
}

// renewLocked works out which servers calls may go to, and takes those back
// whose time is up.
func (u *Upstream) renewLocked(now time.Time) *set {
	next := new(set)
	for _, s := range u.servers {
		if !s.ejected.IsZero() {
			if now.Before(s.ejected) {
				if next.until.IsZero() || s.ejected.Before(next.until) {
					next.until = s.ejected
				}
				continue
			}
			s.ejected = time.Time{}
			s.fails.Store(int32(u.opts.Eject.Failures - 1)) // the next one decides
			s.since.Store(now.UnixNano())
			u.opts.Log.Info("server is tried again", "upstream", u.name, "server", s.name)
		}
		if !s.sick {
			next.usable = append(next.usable, s)
		}
	}
	u.set.Store(next)
	return next
}

// eject leaves a server out, unless it is the last.
func (u *Upstream) eject(s *server) {
	if u.opts.Eject.Failures < 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	usable := u.set.Load().usable
	if !s.ejected.IsZero() || len(usable) < 2 || !slices.Contains(usable, s) {
		return
	}
	pause := u.opts.Eject.For << min(s.ejections, mostEjections)
	s.ejections++
	u.ejections++
	now := time.Now()
	s.ejected = now.Add(pause)
	u.renewLocked(now)
	u.opts.Log.Warn("server is left out", "upstream", u.name, "server", s.name, "failures", s.fails.Load(), "for", pause)
}

// recovered takes note that a server does well again.
func (u *Upstream) recovered(s *server) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s.ejected.IsZero() {
		s.ejections = 0
	}
}

// Breaker says when an upstream gets no calls at all for a while, as a whole:
// so many have failed that more would only be more to wait for. The zero value is
// none.
type Breaker struct {
	// Share of the calls of the last Window that must have failed, from 0 to 1.
	// Zero means none.
	Share float64
	// Calls is how many there must have been at least. Zero means 20.
	Calls int
	// Window is over how long they are counted. Zero means 10 s.
	Window time.Duration
	// Open is how long no call is let through. Then one is, and its end decides.
	// Zero means 5 s.
	Open time.Duration
}

// breaker counts, in two halves of a window.
type breaker struct {
	Breaker

	mu      sync.Mutex // guards all below
	begun   time.Time  // of the half that is counted now
	calls   [2]int     // in it, and in the one before
	faults  [2]int
	open    time.Time // until when; zero if it is closed
	trial   time.Time // when one was let through to see
	changed func(open bool)
}

// admits reports whether a call may go on.
func (b *breaker) admits(now time.Time) bool {
	if b.Share <= 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.open.IsZero():
		return true
	case now.Before(b.open), now.Sub(b.trial) < b.Open:
		return false
	}
	b.trial = now
	return true
}

// isOpen reports whether no calls are let through.
func (b *breaker) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.open.IsZero()
}

// ended takes note of the end of a call.
func (b *breaker) ended(fault bool, clock func() time.Time) {
	if b.Share <= 0 {
		return
	}
	now := clock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open.IsZero() {
		if now.Before(b.open) {
			return // begun before
		}
		if b.trial = (time.Time{}); fault {
			b.open = now.Add(b.Open)
			return
		}
		b.open, b.calls, b.faults, b.begun = time.Time{}, [2]int{}, [2]int{}, now
		b.changed(false)
		return
	}
	if half := b.Window / 2; now.Sub(b.begun) >= half {
		b.calls[1], b.faults[1] = b.calls[0], b.faults[0]
		if now.Sub(b.begun) >= b.Window {
			b.calls[1], b.faults[1] = 0, 0
		}
		b.calls[0], b.faults[0], b.begun = 0, 0, now
	}
	b.calls[0]++
	if !fault {
		return
	}
	b.faults[0]++
	calls, faults := b.calls[0]+b.calls[1], b.faults[0]+b.faults[1]
	if calls >= b.Calls && float64(faults) >= b.Share*float64(calls) {
		b.open = now.Add(b.Open)
		b.changed(true)
	}
}
