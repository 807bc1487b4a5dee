package protocols

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// Calls are the open calls of a port, of all protocols: what an operator looks at and ends,
// what is ended when its credential is, and what the sessions of an identity are found in. Each port has
// one, see [Conn.Calls]. It is a [Guard] that lets everything in and takes note of it; it belongs
// behind those that refuse the most. Without that guard only calls are in it that other guards
// have entered. It is safe for concurrent use. Make it by [NewCalls].
//
// A call is in it until [Call.Finish]. That costs two locks that nobody else holds, as a rule,
// and no allocation: calls are linked, and there are as many of them as connections and streams
// are allowed.
type Calls struct {
	seed   maphash.Seed
	shards [callShards]callShard
	ends   ends
}

// callShards are so many because the calls of an identity are found by looking at all of its
// shard: with 100,000 of them at 400.
const callShards = 256

type callShard struct {
	mu      sync.Mutex // guards the fields below, and those of openCall in the list
	head    *Call
	n       int
	held    int   // of them by somebody
	soonest int64 // no call of the list ends before; a time as in ending.at
	_       [24]byte
}

// openCall is a call's place in the list, and until when it may stay there.
type openCall struct {
	in         *callShard // nil without one; guarded by Call.mu
	as         *Identity  // for which it is in that one; guarded by Call.mu
	prev, next *Call
	by         any // who holds it, see Call.Hold; written under both mutexes
	ends       []ending
	few        [1]ending // the first of ends
}

// NewCalls gives one that is empty.
func NewCalls() *Calls {
	o := &Calls{seed: maphash.MakeSeed()}
	for i := range o.shards {
		o.shards[i].soonest = never
	}
	return o
}

// shard is where a call is kept: calls of an identity by who that is, others by number.
func (o *Calls) shard(call *Call) *callShard {
	if call.identity == nil {
		return &o.shards[call.id[len(call.id)-1]]
	}
	return o.of(call.identity.Subject)
}

func (o *Calls) of(subject string) *callShard {
	return &o.shards[maphash.String(o.seed, subject)%callShards]
}

// Admit implements Guard.
func (o *Calls) Admit(ctx context.Context, call *Call) (context.Context, error) {
	return o.AdmitNow(ctx, call)
}

// AdmitNow implements Quick.
func (o *Calls) AdmitNow(ctx context.Context, call *Call) (context.Context, error) {
	call.mu.Lock()
	if !call.finished && call.open.in == nil {
		o.enterLocked(call).mu.Unlock()
	}
	call.mu.Unlock()
	return ctx, nil
}

// enterLocked puts a call where it belongs. Its mutex is held, and that of the shard it is
// in when it returns.
func (o *Calls) enterLocked(call *Call) *callShard {
	was := call.open.in
	if was != nil && call.open.as == call.identity {
		was.mu.Lock()
		return was
	}
	if was != nil { // by a guard that did not know yet who it is for
		was.remove(call)
	}
	s := o.shard(call)
	call.open.in, call.open.as = s, call.identity
	s.mu.Lock()
	s.addLocked(call)
	for _, e := range call.open.ends { // it comes from another shard: a look may have missed it
		s.soonest = min(s.soonest, e.at)
		o.lookAt(e.at)
	}
	return s
}

func (s *callShard) addLocked(call *Call) {
	if call.open.next = s.head; s.head != nil {
		s.head.open.prev = call
	}
	s.head = call
	s.n++
	if call.open.by != nil {
		s.held++
	}
}

// remove takes a call out.
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
	if c.by != nil {
		s.held--
	}
	s.mu.Unlock()
}

// Hold enters an open call in the port's registry in the name of its identity. by is what
// [Calls.Held] finds it for, and is given back by [Call.HeldBy]; a later one takes its place. It is not nil.
// It gives the registry; nil if there is none, or the call has finished.
func (c *Call) Hold(by any) *Calls {
	o := c.registry()
	if o == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished {
		return nil
	}
	s := o.enterLocked(c)
	if c.open.by == nil {
		s.held++
	}
	c.open.by = by
	s.mu.Unlock()
	return o
}

// HeldBy is what Hold was told.
func (c *Call) HeldBy() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open.by
}

// registry is that of the call's port.
func (c *Call) registry() *Calls {
	if c.Conn == nil {
		return nil
	}
	return c.Conn.Calls()
}

// Held gives the open calls that are held and whose identity has that subject, and perhaps others. Some
// may have ended since.
func (o *Calls) Held(subject string) (list []*Call) {
	s := o.of(subject)
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := s.head; c != nil; c = c.open.next {
		if c.open.by != nil {
			list = append(list, c)
		}
	}
	return list
}

// HeldLen is how many open calls are held, by whomever.
func (o *Calls) HeldLen() (n int) {
	for i := range o.shards {
		s := &o.shards[i]
		s.mu.Lock()
		n += s.held
		s.mu.Unlock()
	}
	return n
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

// End ends the calls that match accepts, and returns how many: not those that were ended before. A call that waits for its
// guards is refused.
func (o *Calls) End(why *Refusal, match func(*Call) bool) (n int) {
	for _, c := range o.List() { // a copy: no lock of ours is held while a call ends
		if match(c) && c.end(why) {
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
