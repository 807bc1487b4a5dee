package protocols

import (
	"context"
	"sync"
	"sync/atomic"
)

// Calls are the open calls of a port, of all protocols: what an operator looks at, and
// ends. It is a [Guard] that lets everything in; it belongs behind those that refuse the
// most. The zero value is ready to use, and safe for concurrent use.
//
// A call is in it from the guard to [Call.Finish]. That costs two locks that nobody else
// holds, as a rule, and no allocation: calls are linked, and there are as many of them as
// connections and streams are allowed.
type Calls struct{ shards [callShards]callShard }

// callShards is how many locks there are; calls are numbered, and take them in turn.
const callShards = 32

type callShard struct {
	mu   sync.Mutex // guards the list, and prev and next of those in it
	head *Call
	n    int
	_    [40]byte // a cache line each
}

// openCall is a call's place in the list.
type openCall struct {
	in         *callShard // nil without one
	prev, next *Call
}

// Admit implements Guard.
func (o *Calls) Admit(ctx context.Context, call *Call) (context.Context, error) {
	return o.AdmitNow(ctx, call)
}

// AdmitNow implements Quick.
func (o *Calls) AdmitNow(ctx context.Context, call *Call) (context.Context, error) {
	call.mu.Lock()
	defer call.mu.Unlock()
	if call.finished || call.open.in != nil {
		return ctx, nil
	}
	s := &o.shards[call.id[len(call.id)-1]%callShards]
	call.open.in = s
	s.mu.Lock()
	if call.open.next = s.head; s.head != nil {
		s.head.open.prev = call
	}
	s.head = call
	s.n++
	s.mu.Unlock()
	return ctx, nil
}

// remove takes a call out that has finished.
func (s *callShard) remove(call *Call) {
	c := &call.open
	s.mu.Lock()
	if c.prev != nil {
		c.prev.open.next = c.next
	} else {
		s.head = c.next
	}
	if c.next != nil {
		c.next.open.prev = c.prev
	}
	c.prev, c.next = nil, nil
	s.n--
	s.mu.Unlock()
}

// Len is how many calls are open.
func (o *Calls) Len() (n int) {
	for i := range o.shards {
		s := &o.shards[i]
		s.mu.Lock()
		n += s.n
		s.mu.Unlock()
	}
	return n
}

// List gives the open calls, in no order. Some of them may have ended since.
func (o *Calls) List() []*Call {
	var list []*Call
	for i := range o.shards {
		s := &o.shards[i]
		s.mu.Lock()
		for c := s.head; c != nil; c = c.open.next {
			list = append(list, c)
		}
		s.mu.Unlock()
	}
	return list
}

// End ends the calls that match accepts, and returns how many. A call that waits for its
// guards is refused.
func (o *Calls) End(why *Refusal, match func(*Call) bool) (n int) {
	for _, c := range o.List() { // a copy: no lock of ours is held while a call ends
		if match(c) {
			c.End(why)
			n++
		}
	}
	return n
}

// Destination is where a call was sent.
type Destination struct {
	Route    string // its name, or what it takes
	Upstream string // the name of the servers; "" if the route is served in this process

	tally atomic.Pointer[tally] // of the port's Meter
}

// Goes says where the call goes, once that is known. to is never changed any more.
func (c *Call) Goes(to *Destination) { c.to.Store(to) }

// Destination is where the call goes; nil if no route takes it, or none has been chosen
// yet. A route's guards may still decide. A route's fallback does not change it.
func (c *Call) Destination() *Destination { return c.to.Load() }
