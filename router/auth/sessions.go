package auth

import (
	"cmp"
	"context"
	"errors"
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
	ports    atomic.Pointer[[]*protocols.Calls] // in which they are; replaced as a whole
	joining  sync.Mutex                         // held while ports is replaced
	revoked  atomic.Pointer[map[who]revocation] // replaced as a whole; read by each call
	revoking sync.Mutex                         // held while revoked is replaced
	moving   sync.Mutex                         // held while a session gets another credential
	checkers atomic.Pointer[[]Checker]          // of tokens that come in band; replaced as a whole

	ended, refused, moved atomic.Uint64
}

// mostRevocations bounds who is revoked at a time: about 3 MB. Each change copies them.
const mostRevocations = 10_000

// who is an identity as it counts: two issuers may have subjects of one name.
type who struct{ issuer, subject string }

func whoIs(id *protocols.Identity) who { return who{cmp.Or(id.Issuer, id.By), id.Subject} }

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
	s := new(Sessions)
	s.ports.Store(new([]*protocols.Calls))
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
		g.s.join(call.Hold(g))
		if call.Protocol == protocols.WebSocket && protocols.OffersInBand(call.Headers("sec-websocket-protocol")) {
			call.OnRenew(func(ctx context.Context, token string) (time.Time, protocols.NotRenewed) {
				return g.s.renew(ctx, call, token)
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

// join remembers a port's registry.
func (s *Sessions) join(port *protocols.Calls) {
	if port == nil || slices.Contains(*s.ports.Load(), port) {
		return
	}
	s.joining.Lock()
	defer s.joining.Unlock()
	if was := *s.ports.Load(); !slices.Contains(was, port) {
		now := append(slices.Clip(was), port)
		s.ports.Store(&now)
	}
}

// rulesOf are those of the guard that holds a call; held says whether it is one of ours.
func (s *Sessions) rulesOf(call *protocols.Call) (rules *Require, held bool) {
	if g, ok := call.HeldBy().(*sessionGuard); ok && g.s == s {
		return g.rules, true
	}
	return nil, false
}

// Calls are the open gRPC calls and WebSockets of an identity, the latest first. issuer is the iss of a token, or
// for identities of this port the guard's name: "mtls", "keys", "forward".
func (s *Sessions) Calls(issuer, subject string) (list []*protocols.Call) {
	w := who{issuer, subject}
	for _, port := range *s.ports.Load() {
		for _, call := range port.Held(subject) {
			if _, held := s.rulesOf(call); held && whoIs(call.Identity()) == w {
				list = append(list, call)
			}
		}
	}
	return list
}

// End ends the open gRPC calls and WebSockets of an identity, named as for [Sessions.Calls],
// and says how many there were. Nothing keeps it from opening others.
func (s *Sessions) End(issuer, subject string, why *protocols.Refusal) int {
	list := s.Calls(issuer, subject)
	for _, call := range list {
		call.End(why)
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
	Open    int    // gRPC calls and WebSockets now, those of other Sessions of the port among them
	Ended   uint64 // by End and Revoke
	Refused uint64 // calls of who was revoked
	Moved   uint64 // by Refresh
}

// Stats returns the counts.
func (s *Sessions) Stats() SessionsStats {
	st := SessionsStats{Ended: s.ended.Load(), Refused: s.refused.Load(), Moved: s.moved.Load()}
	for _, port := range *s.ports.Load() {
		st.Open += port.HeldLen()
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
	for _, port := range *s.ports.Load() {
		for _, call := range port.List() {
			if _, held := s.rulesOf(call); held {
				count[whoIs(call.Identity())]++
			}
		}
	}
	for w, n := range count {
		list = append(list, Holder{w.issuer, w.subject, n})
	}
	slices.SortFunc(list, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(b.Open, a.Open), cmp.Compare(a.Issuer, b.Issuer), cmp.Compare(a.Subject, b.Subject))
	})
	return list[:min(len(list), max(most, 0))]
}
