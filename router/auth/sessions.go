package auth

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// Sessions know the open gRPC calls and WebSockets of each identity, so that they can be
// counted, ended, and have their end moved by a newer credential; and they know who
// has been revoked. Its guards take note of what they let in: an ordinary request, which is
// over soon, costs nothing.
//
// Its methods may be called concurrently, but not by guards. Make it by [NewSessions].
type Sessions struct {
	seed   maphash.Seed
	shards [sessionShards]sessionShard

	revoked  atomic.Pointer[map[who]revocation] // replaced as a whole; read by each call
	revoking sync.Mutex                         // held while revoked is replaced; before any shard's
	checkers atomic.Pointer[[]Checker]          // of tokens that come in band; replaced as a whole

	ended, refused, moved atomic.Uint64
}

// sessionShards are so many because those of an identity are found by looking at all of its
// shard: with 100,000 sessions at 400. A map cost each gRPC call as much as all the rest.
const sessionShards = 256

// mostRevocations bounds who is revoked at a time: about 3 MB. Each change copies them.
const mostRevocations = 10_000

type sessionShard struct {
	mu    sync.Mutex // guards the fields below, and those of sessions
	first *session
	n     int
	_     [40]byte // shards on cache lines of their own
}

// who is an identity as it counts: two issuers may have subjects of one name.
type who struct{ issuer, subject string }

func whoIs(id *protocols.Identity) who { return who{cmp.Or(id.Issuer, id.By), id.Subject} }

// session is an open call, in the list of its shard.
type session struct {
	of         *sessionShard
	call       *protocols.Call
	id         *protocols.Identity // with which it began
	rules      *Require            // may be nil
	prev, next *session
}

type revocation struct {
	at    time.Time
	until time.Time // zero: until it is lifted
}

// refuses says whether an identity is among those that were revoked.
func (r *revocation) refuses(id *protocols.Identity, now time.Time) bool {
	if !r.until.IsZero() && !now.Before(r.until) {
		return false
	}
	// A token of after the revocation is good: whoever made it knew. Its time has whole seconds.
	issued, ok := id.Claims["iat"].(float64)
	return !ok || math.IsNaN(issued) || issued <= float64(r.at.UnixNano())/1e9
}

// NewSessions gives one that knows nothing yet.
func NewSessions() *Sessions {
	s := &Sessions{seed: maphash.MakeSeed()}
	s.revoked.Store(new(map[who]revocation))
	s.checkers.Store(new([]Checker))
	return s
}

// Guard gives a guard that comes behind those that find out who a call is for. It refuses
// who was revoked (ReasonUnauthenticated), takes note of gRPC calls and WebSockets, and never
// waits. Calls of nobody it lets pass. rules, which may be nil, are those that were asked
// before it: an identity that takes the place of the first must have them too.
func (s *Sessions) Guard(rules *Require) protocols.Quick { return &sessionGuard{s, rules} }

type sessionGuard struct {
	s     *Sessions
	rules *Require
}

func (g *sessionGuard) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	return g.AdmitNow(ctx, call)
}

func (g *sessionGuard) AdmitNow(ctx context.Context, call *protocols.Call) (context.Context, error) {
	id := call.Identity()
	if id == nil {
		return ctx, nil
	}
	if call.Protocol != protocols.HTTP { // before the look at revocations: one of them ends what is there
		one := g.s.add(id, call, g.rules)
		call.OnDone(one.done)
		if call.Protocol == protocols.WebSocket && protocols.OffersInBand(call.Headers("sec-websocket-protocol")) {
			call.OnRenew(func(ctx context.Context, token string) (time.Time, protocols.NotRenewed) {
				return g.s.renew(ctx, one, token)
			})
		}
	}
	if g.s.Revoked(id) {
		g.s.refused.Add(1)
		return ctx, errRevoked
	}
	return ctx, nil
}

// errRevoked is what who was revoked gets, in a new call and in one that is open.
var errRevoked = &protocols.Refusal{Reason: protocols.ReasonUnauthenticated, Text: "revoked", Challenge: `Bearer error="invalid_token"`}

func (s *Sessions) shard(subject string) *sessionShard {
	return &s.shards[maphash.String(s.seed, subject)%sessionShards]
}

func (s *Sessions) add(id *protocols.Identity, call *protocols.Call, rules *Require) *session {
	sh := s.shard(id.Subject)
	one := &session{of: sh, id: id, call: call, rules: rules}
	sh.mu.Lock()
	if one.next = sh.first; one.next != nil {
		one.next.prev = one
	}
	sh.first = one
	sh.n++
	sh.mu.Unlock()
	return one
}

// done is called once, when the call is over.
func (o *session) done(protocols.Result) {
	sh := o.of
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.n--
	if o.next != nil {
		o.next.prev = o.prev
	}
	if o.prev != nil {
		o.prev.next = o.next
	} else {
		sh.first = o.next
	}
}

// of gives the open sessions of an identity.
func (s *Sessions) of(w who) (list []*session) {
	sh := s.shard(w.subject)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for one := sh.first; one != nil; one = one.next {
		if whoIs(one.id) == w {
			list = append(list, one)
		}
	}
	return list
}

// Calls are the open gRPC calls and WebSockets of an identity, the latest first. issuer is the iss of a token, or
// for identities of this port the guard's name: "mtls", "keys", "forward".
func (s *Sessions) Calls(issuer, subject string) []*protocols.Call {
	list := s.of(who{issuer, subject})
	calls := make([]*protocols.Call, len(list))
	for i, one := range list {
		calls[i] = one.call
	}
	return calls
}

// End ends the open gRPC calls and WebSockets of an identity, named as for [Sessions.Calls],
// and says how many there were. Nothing keeps it from opening others.
func (s *Sessions) End(issuer, subject string, why *protocols.Refusal) int {
	list := s.of(who{issuer, subject})
	for _, one := range list {
		one.call.End(why)
	}
	s.ended.Add(uint64(len(list)))
	return len(list)
}

// ErrTooManyRevocations says that 10,000 identities are revoked already.
var ErrTooManyRevocations = errors.New("auth: too many identities are revoked")

// Revoke ends the open gRPC calls and WebSockets of an identity with UNAUTHENTICATED and
// 1008, says how many there were, and refuses its calls from now on: those with a token that was
// issued (iat) until now, and with anything else all. That holds until then, by the zero
// time until Unrevoke, and in this process alone. The identity is named as for
// [Sessions.Calls]. A second Revoke takes the place of the first.
func (s *Sessions) Revoke(issuer, subject string, until time.Time) (ended int, err error) {
	w, now := who{issuer, subject}, time.Now()
	if err := s.revise(now, func(m map[who]revocation) error {
		if _, again := m[w]; !again && len(m) >= mostRevocations {
			return ErrTooManyRevocations
		}
		m[w] = revocation{at: now, until: until}
		return nil
	}); err != nil {
		return 0, err
	}
	return s.End(issuer, subject, errRevoked), nil
}

// Unrevoke lifts a revocation, and reports whether there was one.
func (s *Sessions) Unrevoke(issuer, subject string) (was bool) {
	w := who{issuer, subject}
	_ = s.revise(time.Now(), func(m map[who]revocation) error { // which never fails
		_, was = m[w]
		delete(m, w)
		return nil
	})
	return was
}

// revise changes a copy of the revocations, without those that have ended.
func (s *Sessions) revise(now time.Time, change func(map[who]revocation) error) error {
	s.revoking.Lock()
	defer s.revoking.Unlock()
	m := make(map[who]revocation)
	for w, r := range *s.revoked.Load() {
		if r.until.IsZero() || now.Before(r.until) {
			m[w] = r
		}
	}
	if err := change(m); err != nil {
		return err
	}
	s.revoked.Store(&m)
	return nil
}

// Revoked reports whether calls of an identity are refused.
func (s *Sessions) Revoked(id *protocols.Identity) bool {
	m := *s.revoked.Load()
	if len(m) == 0 {
		return false
	}
	r, ok := m[whoIs(id)]
	return ok && r.refuses(id, time.Now())
}

// Revocation is somebody who was revoked.
type Revocation struct {
	Issuer, Subject string
	At              time.Time
	Until           time.Time // zero until it is lifted
}

// Revocations are those that hold, the latest first.
func (s *Sessions) Revocations() (list []Revocation) {
	now := time.Now()
	for w, r := range *s.revoked.Load() {
		if r.until.IsZero() || now.Before(r.until) {
			list = append(list, Revocation{w.issuer, w.subject, r.at, r.until})
		}
	}
	slices.SortFunc(list, func(a, b Revocation) int { return b.At.Compare(a.At) })
	return list
}

// SessionsStats are counts since the Sessions were made.
type SessionsStats struct {
	Open    int    // gRPC calls and WebSockets now
	Ended   uint64 // by End and Revoke
	Refused uint64 // calls of who was revoked
	Moved   uint64 // by Refresh
}

// Stats returns the counts.
func (s *Sessions) Stats() SessionsStats {
	st := SessionsStats{Ended: s.ended.Load(), Refused: s.refused.Load(), Moved: s.moved.Load()}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		st.Open += sh.n
		sh.mu.Unlock()
	}
	return st
}

// Holder is somebody who has something open.
type Holder struct {
	Issuer, Subject string // as [Sessions.Calls] wants them
	Open            int    // gRPC calls and WebSockets
}

// Holders are those who have something open, at most so many: those who have most. It looks at
// all that is open.
func (s *Sessions) Holders(most int) (list []Holder) {
	count := make(map[who]int)
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for one := sh.first; one != nil; one = one.next {
			count[whoIs(one.id)]++
		}
		sh.mu.Unlock()
	}
	for w, n := range count {
		list = append(list, Holder{w.issuer, w.subject, n})
	}
	slices.SortFunc(list, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(b.Open, a.Open), cmp.Compare(a.Issuer, b.Issuer), cmp.Compare(a.Subject, b.Subject))
	})
	return list[:min(len(list), max(most, 0))]
}
