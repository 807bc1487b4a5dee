package limit

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// Limiter is a guard that bounds how often each caller calls, and how many calls it has in
// flight. It is safe for concurrent use. See New.
//
// The rate is GCRA, the generic cell rate algorithm (ITU-T I.371, annex A; ATM Forum TM 4.1,
// 4.4.2), by virtual scheduling: each call costs a caller 1/rate of time, and its
// theoretical arrival time (TAT) is when all its calls are paid for. A call is refused if that is more than
// burst-1 calls ahead, and it says exactly when the next one will not be. So in any time t
// there are at most burst + rate*t calls, and one int64 is all there is to remember. Refused calls cost nothing.
type Limiter struct {
	name    string
	per     Per
	keys    int
	seed    maphash.Seed
	epoch   time.Time // times are nanoseconds since, and the clock's steps do not move them
	numbers atomic.Pointer[numbers]
	shards  []shard // a power of two
}

// shard is some of the callers.
type shard struct {
	mu       sync.Mutex // guards the fields below
	table    table
	gates    map[uint64]*gate
	spare    []*gate
	outcomes [numOutcomes]uint64
	_        [64]byte // two shards are not of one cache line
}

// mostShards is enough for locks that are held for 100 ns.
const mostShards = 64

// New makes a limiter. The error is that of Options.Check.
func New(o Options) (*Limiter, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	l := &Limiter{name: o.Name, per: o.Per, keys: o.keys(), seed: maphash.MakeSeed(), epoch: time.Now()}
	l.numbers.Store(o.numbers())
	count := 1
	for o.Per != PerAll && count < mostShards && l.keys/(2*count) >= 256 {
		count *= 2
	}
	l.shards = make([]shard, count)
	for i := range l.shards {
		s := &l.shards[i]
		s.table = table{most: max(1, l.keys/count), index: make(map[uint64]int32)}
		s.gates = make(map[uint64]*gate)
	}
	return l, nil
}

func (o *Options) keys() int {
	if o.Keys == 0 {
		return 100_000
	}
	return o.Keys
}

func (l *Limiter) now() int64 { return int64(time.Since(l.epoch)) }

func (l *Limiter) shard(key uint64) *shard { return &l.shards[key>>32&uint64(len(l.shards)-1)] }

// AdmitNow admits or refuses a call from memory. It is ErrMustWait if the call must wait for
// a place, or other instances are to be asked.
func (l *Limiter) AdmitNow(ctx context.Context, call *protocols.Call) (context.Context, error) {
	return l.admitNow(ctx, call, int64(call.Began().Sub(l.epoch)))
}

func (l *Limiter) admitNow(ctx context.Context, call *protocols.Call, now int64) (context.Context, error) {
	key := l.key(call)
	s := l.shard(key)
	s.mu.Lock()
	n := l.numbers.Load()
	down := n.shared != nil && n.shared.down.Load()
	i, why, retry := s.look(n, key, now)
	if why == admitted && down && n.failClosed {
		why = storeDown
	}
	switch {
	case why != admitted:
		s.outcomes[why]++
	case n.shared != nil && !down || s.room(n, key) == taken:
		s.mu.Unlock()
		return ctx, protocols.ErrMustWait
	default:
		s.spend(n, i, key, now, notAsked)
		if n.concurrency > 0 {
			s.enter(n, key, now)
		}
		s.outcomes[admitted]++
	}
	s.mu.Unlock()
	if down {
		n.shared.probe(l.name, n)
	}
	if why != admitted {
		return ctx, why.refusal(retry)
	}
	if n.concurrency > 0 {
		l.leaveWhenDone(s, key, call)
	}
	return ctx, nil
}

// Admit is AdmitNow, but waits: for other instances' count at most 5 ms, for a place as long as
// Options.Wait and the caller's deadline allow.
func (l *Limiter) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	if _, err := l.admitNow(ctx, call, l.now()); !errors.Is(err, protocols.ErrMustWait) {
		return ctx, err
	}
	key := l.key(call)
	s := l.shard(key)
	said, retry := l.ask(ctx, call, s, key)
	if said == noAnswer {
		why := admitted
		if ctx.Err() != nil {
			why = gone
		} else if l.numbers.Load().failClosed {
			why = storeDown
		}
		if why != admitted {
			s.count(why)
			return ctx, why.refusal(0)
		}
	}

	s.mu.Lock()
	n, now := l.numbers.Load(), l.now()
	if said == no { // until then nobody needs to be asked
		i := s.table.find(key)
		s.table.set(i, key, max(s.table.tat(i), now+n.tolerance+int64(retry)), now)
		s.outcomes[sharedRate]++
		s.mu.Unlock()
		return ctx, sharedRate.refusal(retry)
	}
	w, holds, why, retry := l.take(ctx, call, s, n, key, now, said)
	if w == nil {
		s.outcomes[why]++
	}
	s.mu.Unlock()
	if w != nil {
		holds, why = true, l.wait(ctx, call, s, key, w)
	}
	if why != admitted {
		return ctx, why.refusal(retry)
	}
	if holds {
		l.leaveWhenDone(s, key, call)
	}
	return ctx, nil
}

// answer is what other instances say.
type answer uint8

const (
	notAsked answer = iota
	noAnswer
	yes
	no
)

// ask asks other instances, if there are any, and tells them of calls that this one has let in
// while it could not.
func (l *Limiter) ask(ctx context.Context, call *protocols.Call, s *shard, key uint64) (a answer, retry time.Duration) {
	n := l.numbers.Load()
	if n.shared == nil || n.shared.down.Load() {
		return notAsked, 0
	}
	owed := s.owes(n, key, 0)
	allowed, retry, err := n.shared.take(ctx, l.sharedKey(call), n, 1+owed)
	switch {
	case err != nil:
		a = noAnswer
	case !allowed:
		a = no
	default:
		return yes, 0
	}
	if owed > 0 {
		s.owes(n, key, owed)
	}
	return a, retry
}

// owes takes the number of calls that others do not know of, or adds to it.
func (s *shard) owes(n *numbers, key uint64, more int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.table.find(key)
	if i < 0 {
		return 0
	}
	e := &s.table.entries[i]
	owed := e.owed
	e.owed = 0
	if more > 0 {
		e.owed = min(owed+more, n.burst)
	}
	return owed
}

// look says whether a call may come, as far as its rate is concerned and there is room.
func (s *shard) look(n *numbers, key uint64, now int64) (i int32, why outcome, retry time.Duration) {
	if n.interval > 0 {
		i = s.table.find(key)
		if ahead := s.table.tat(i) - now - n.tolerance; ahead > 0 {
			return i, overRate, time.Duration(ahead)
		}
	}
	if n.concurrency > 0 && s.room(n, key) == filled {
		return i, queueFull, 0
	}
	return i, admitted, 0
}

// spend makes a caller pay for a call. What others were not asked for they are told of with the
// next one. If they have not answered, they may know.
func (s *shard) spend(n *numbers, i int32, key uint64, now int64, said answer) {
	if n.interval == 0 {
		return
	}
	tat := max(s.table.tat(i), now) + n.interval
	s.table.set(i, key, min(tat, now+n.tolerance+n.interval), now)
	if n.shared != nil && said == notAsked {
		e := &s.table.entries[s.table.find(key)]
		e.owed = min(e.owed+1, n.burst)
	}
}

func (s *shard) count(o outcome) {
	s.mu.Lock()
	s.outcomes[o]++
	s.mu.Unlock()
}

// leaveWhenDone gives a call's place up when it has ended, or at once if it has.
func (l *Limiter) leaveWhenDone(s *shard, key uint64, call *protocols.Call) {
	call.OnDone(func(protocols.Result) {
		s.mu.Lock()
		s.leave(l.numbers.Load(), key, l.now())
		s.mu.Unlock()
	})
}

// adjust changes a limiter's numbers. Who waits for a place goes on waiting, or gets one;
// nobody owes more than a caller may under the new numbers.
func (l *Limiter) adjust(o *Options) {
	n := o.numbers()
	if *n == *l.numbers.Load() {
		return
	}
	l.numbers.Store(n) // whoever takes a shard's lock from now on sees it
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		s.table.clamp(l.now() + n.tolerance + n.interval)
		for _, g := range s.gates {
			g.grant(n)
		}
		s.mu.Unlock()
	}
}
