package auth

import (
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// sessionLook is how long sessions go without a look at the clock: timers do not
// notice that a clock is set, or that the machine has slept.
const sessionLook = 10 * time.Minute

// endings are the open calls of one credential, for which its end may come early: gRPC calls and
// WebSockets. They have one timer. One for each call cost as much as all else that a token
// does that is remembered (0.7 us), for most calls are over long before. The zero value is ready.
type endings struct {
	mu    sync.Mutex // guards the fields below, and those of all of them
	first *ending
	timer *time.Timer
	armed bool // it runs; also for a while after the last call is over
}

// ending is a call that ends when its credential does.
type ending struct {
	of         *endings
	call       *protocols.Call
	id         *protocols.Identity // as the credential has it
	at         time.Time
	prev, next *ending
	gone       bool
}

// add has a call ended when its credential is. A call let in by leeway has it until the end.
func (s *endings) add(call *protocols.Call, id *protocols.Identity, now time.Time, leeway time.Duration) {
	expires := id.Expires
	if call.Protocol == protocols.HTTP || expires.IsZero() {
		return
	}
	if !now.Before(expires) {
		expires = expires.Add(leeway)
	}
	one := &ending{of: s, call: call, id: id, at: expires}
	s.mu.Lock()
	if one.next = s.first; one.next != nil {
		one.next.prev = one
	}
	s.first = one
	if !s.armed {
		s.armLocked(expires.Sub(now))
	}
	s.mu.Unlock()
	call.OnDone(one.done)
}

func (s *endings) armLocked(left time.Duration) {
	left, s.armed = min(left, sessionLook), true
	if s.timer == nil {
		s.timer = time.AfterFunc(left, s.look)
		return
	}
	s.timer.Reset(left)
}

// look ends the calls whose time has come.
func (s *endings) look() {
	now := time.Now()
	var due *ending
	left := sessionLook
	s.mu.Lock()
	for one := s.first; one != nil; {
		next := one.next
		if !now.Before(one.at) {
			one.prolong()
		}
		if wait := one.at.Sub(now); wait > 0 {
			left = min(left, wait)
		} else {
			one.removeLocked()
			one.next, due = due, one
		}
		one = next
	}
	if s.armed = s.first != nil; s.armed {
		s.armLocked(left)
	}
	s.mu.Unlock()
	for ; due != nil; due = due.next {
		due.call.End(&protocols.Refusal{Reason: protocols.ReasonExpired})
	}
}

// prolong moves the end of a call to that of a newer credential of the same kind and for
// the same one, if [Sessions.Refresh] has brought one.
func (o *ending) prolong() {
	is := o.call.Identity()
	if is != nil && is != o.id && is.By == o.id.By && is.Key() == o.id.Key() && is.Expires.After(o.at) {
		o.at = is.Expires
	}
}

// done is called when the call is over.
func (o *ending) done(protocols.Result) {
	o.of.mu.Lock()
	o.removeLocked()
	o.of.mu.Unlock()
}

func (o *ending) removeLocked() {
	if o.gone {
		return
	}
	o.gone = true
	if o.prev == nil {
		o.of.first = o.next
	} else {
		o.prev.next = o.next
	}
	if o.next != nil {
		o.next.prev = o.prev
	}
	o.prev, o.next = nil, nil
}

// stop is for endings of one call, which is over.
func (s *endings) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
}

// endAtExpiry ends a gRPC call or a WebSocket when what has opened it expires. An ordinary
// request is let finish.
func endAtExpiry(call *protocols.Call, id *protocols.Identity) {
	if id.Expires.IsZero() || call.Protocol == protocols.HTTP {
		return
	}
	s := new(endings)
	s.add(call, id, time.Now(), 0)
	call.OnDone(func(protocols.Result) { s.stop() })
}
