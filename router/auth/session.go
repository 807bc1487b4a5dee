package auth

import (
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// sessionLook is how long sessions go without a look at the clock: timers do not
// notice that a clock is set, or that the machine has slept.
const sessionLook = 10 * time.Minute

// sessions are the open calls of one credential, for which its end may come early: gRPC calls and
// WebSockets. They have one timer. One for each call cost as much as all else that a token
// does that is remembered (0.7 us), for most calls are over long before. The zero value is ready.
type sessions struct {
	mu    sync.Mutex // guards the fields below, and those of all sessions
	first *session
	timer *time.Timer
	armed bool // it runs; also for a while after the last call is over
}

// session is a call that ends when its credential does.
type session struct {
	of         *sessions
	call       *protocols.Call
	at         time.Time
	prev, next *session
	gone       bool
}

// add has a call ended when its credential is. A call let in by leeway has it until the end.
func (s *sessions) add(call *protocols.Call, expires, now time.Time, leeway time.Duration) {
	if call.Protocol == protocols.HTTP || expires.IsZero() {
		return
	}
	if !now.Before(expires) {
		expires = expires.Add(leeway)
	}
	one := &session{of: s, call: call, at: expires}
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

func (s *sessions) armLocked(left time.Duration) {
	left, s.armed = min(left, sessionLook), true
	if s.timer == nil {
		s.timer = time.AfterFunc(left, s.look)
		return
	}
	s.timer.Reset(left)
}

// look ends the calls whose time has come.
func (s *sessions) look() {
	now := time.Now()
	var due *session
	left := sessionLook
	s.mu.Lock()
	for one := s.first; one != nil; {
		next := one.next
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

// done is called when the call is over.
func (o *session) done(protocols.Result) {
	o.of.mu.Lock()
	o.removeLocked()
	o.of.mu.Unlock()
}

func (o *session) removeLocked() {
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
