package protocols

import (
	"math"
	"sync"
	"time"
)

// endLook is how long calls go without a look at the clock: timers do not notice that a
// clock is set, or that the machine has slept.
const endLook = 10 * time.Minute

// endApart is the least time between two looks: so much later a call may end.
const endApart = 50 * time.Millisecond

// never is a time that does not come: the year 2262.
const never = math.MaxInt64

// ending is when a call ends, because a credential does.
type ending struct {
	id *Identity // as the credential has it
	at int64     // in nanoseconds since 1970; never once it has been dealt with
}

// ends looks at the clock for all calls of a port: one timer. One for each call cost as much as all
// else that a token does that is remembered (0.7 us), for most calls are over long before.
type ends struct {
	mu    sync.Mutex // guards the fields below; after those of shards and calls
	timer *time.Timer
	at    int64 // when it fires; 0 if it never has been set, never if it is not
}

// EndAt has the call ended at a time, with [ReasonExpired]: that at which the credential ends which
// says who it is for. If the call's identity is by then another of the same guard and [Identity.Key], which
// ends later, that end counts. Guards call it, while they decide, for calls that may last; the first
// end counts if there are several.
func (c *Call) EndAt(id *Identity, at time.Time) {
	o := c.registry()
	if o == nil {
		return
	}
	ns := sinceEpoch(at)
	c.mu.Lock()
	if c.finished {
		c.mu.Unlock()
		return
	}
	s := o.enterLocked(c)
	if c.open.ends == nil {
		c.open.ends = c.open.few[:0]
	}
	one := ending{id, ns}
	if n := len(c.open.ends); n == 0 || c.open.ends[n-1] != one { // a guard may be asked twice
		c.open.ends = append(c.open.ends, one)
	}
	sooner := ns < s.soonest
	s.soonest = min(s.soonest, ns)
	s.mu.Unlock()
	c.mu.Unlock()
	if sooner {
		o.lookAt(ns)
	}
}

// sinceEpoch is a time in nanoseconds; one that is too far away is never.
func sinceEpoch(t time.Time) int64 {
	if t.Unix() >= never/int64(time.Second) {
		return never
	}
	return t.UnixNano()
}

// lookAt has the clock looked at then, if not before.
func (o *Calls) lookAt(ns int64) {
	if ns == never {
		return
	}
	e := &o.ends
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.timer != nil && e.at <= ns {
		return
	}
	e.at = ns
	wait := min(time.Duration(max(ns-time.Now().UnixNano(), 0)), endLook)
	if e.timer == nil {
		e.timer = time.AfterFunc(wait, o.look)
		return
	}
	e.timer.Reset(wait)
}

// due is a call whose end has come, unless it has been moved.
type due struct {
	call *Call
	ending
	i int // in ends
}

// look ends the calls whose time has come.
func (o *Calls) look() {
	o.ends.mu.Lock()
	o.ends.at = never
	o.ends.mu.Unlock()
	now := time.Now().UnixNano()
	next := int64(never)
	var list []due
	for i := range o.shards {
		s := &o.shards[i]
		s.mu.Lock()
		if s.soonest <= now {
			list = s.dueLocked(list, now)
		}
		next = min(next, s.soonest)
		s.mu.Unlock()
	}
	for i := range list {
		if at, moved := list[i].prolong(); moved {
			next = min(next, at)
			continue
		}
		list[i].call.End(&Refusal{Reason: ReasonExpired})
	}
	if next != never {
		o.lookAt(max(next, now+int64(endApart)))
	}
}

// dueLocked adds the calls of a shard whose end has come, which are not looked at again.
func (s *callShard) dueLocked(list []due, now int64) []due {
	s.soonest = never
	for c := s.head; c != nil; c = c.open.next {
		for i := range c.open.ends {
			e := &c.open.ends[i]
			if e.at <= now {
				list = append(list, due{c, *e, i})
				e.at = never
			}
			s.soonest = min(s.soonest, e.at)
		}
	}
	return list
}

// prolong moves the end to that of a newer credential, if there is one, and says when that is.
func (d *due) prolong() (at int64, moved bool) {
	c := d.call
	c.mu.Lock()
	defer c.mu.Unlock()
	is := c.identity
	if c.finished || is == nil || is == d.id || is.By != d.id.By || is.Key() != d.id.Key() {
		return 0, false
	}
	if at = sinceEpoch(is.Expires); is.Expires.IsZero() || at <= d.at {
		return 0, false
	}
	s := c.open.in // it is still in one: it has not finished
	s.mu.Lock()
	c.open.ends[d.i].at = at
	s.soonest = min(s.soonest, at)
	s.mu.Unlock()
	return at, true
}
