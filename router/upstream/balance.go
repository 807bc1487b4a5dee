package upstream

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// Balance is how a server is chosen for a call.
type Balance uint8

// The ways. All of them pass over servers that are ill, ejected or full.
const (
	// LeastRequest takes the one of two, drawn at random, that has fewer calls in
	// flight: nearly as good as the least of all, and no herd runs to one.
	LeastRequest Balance = iota
	// RoundRobin takes one after the other.
	RoundRobin
	// Hash takes the same server for the same key, also in other instances, and
	// when servers come or go for all but their share (rendezvous hashing).
	Hash
)

// HashKey is what Hash hashes: the first that is set. A call without it goes where
// LeastRequest would have it.
type HashKey struct {
	Header string // a field's name
	Cookie string // a cookie's name
	// ClientIP means the client's address, which is also what the zero value means.
	ClientIP bool
}

// asking is what a server is chosen for.
type asking struct {
	call *protocols.Call
	get  func(name string) string // the first field of a name in lower case
	span protocols.Span           // what records the way to it; nil for nothing
}

// key is what the call is hashed by.
func (k *HashKey) key(a *asking) string {
	switch {
	case k.Header != "":
		return a.get(strings.ToLower(k.Header))
	case k.Cookie != "":
		return cookie(a.get("cookie"), k.Cookie)
	case a.call != nil && a.call.Conn.Remote.Addr() != netip.Addr{}:
		b := a.call.Conn.Remote.Addr().Unmap().As16()
		return string(b[:])
	}
	return ""
}

// cookie finds a cookie's value in a Cookie field (RFC 6265, 4.2.1).
func cookie(fields, name string) string {
	for fields != "" {
		var c string
		c, fields, _ = strings.Cut(fields, ";")
		if k, v, ok := strings.Cut(strings.TrimSpace(c), "="); ok && k == name {
			return v
		}
	}
	return ""
}

// set is the servers that calls may go to. It never changes: another takes its place.
type set struct {
	usable []*server
	until  time.Time // when it has to be made anew; zero for never
}

// choose takes a server for a call, which counts as in flight there from then
// on. It gives nil if there is none beside those that were tried.
func (u *Upstream) choose(a *asking, tried func(*server) bool) *server {
	now := time.Now()
	if !u.breaker.admits(now) {
		return nil
	}
	list := u.current(now).usable
	most := int64(u.opts.Requests)
	may := func(s *server) bool { return (tried == nil || !tried(s)) && (most <= 0 || s.active.Load() < most) }
	for range list { // others may take the last place meanwhile
		s := u.draw(a, list, may, now)
		if s == nil {
			return nil
		}
		if n := s.active.Add(1); most <= 0 || n <= most {
			if a.span != nil {
				a.span.Server(s.name)
			}
			return s
		}
		s.active.Add(-1)
	}
	return nil
}

// draw takes one of some servers that may be taken.
func (u *Upstream) draw(a *asking, list []*server, may func(*server) bool, now time.Time) *server {
	if len(list) == 0 {
		return nil
	}
	switch u.opts.Balance {
	case RoundRobin:
		return u.next(list, may, now)
	case Hash:
		if key := u.opts.HashBy.key(a); key != "" {
			return rendezvous(list, key, may)
		}
	case LeastRequest:
	}
	if len(list) > 1 {
		i := rand.IntN(len(list))
		j := rand.IntN(len(list) - 1)
		if j >= i {
			j++
		}
		one, other := list[i], list[j]
		if other.active.Load() < one.active.Load() {
			one, other = other, one
		}
		switch {
		case may(one) && !tooNew(one, now):
			return one
		case may(other) && !tooNew(other, now):
			return other
		}
	}
	return u.next(list, may, now)
}

// tooNew reports whether a server that came not long ago gives way to another.
func tooNew(s *server, now time.Time) bool {
	share := s.share(now)
	return share < 1 && rand.Float64() >= share
}

// next takes the next server in turn. New ones are passed over if there is
// another.
func (u *Upstream) next(list []*server, may func(*server) bool, now time.Time) *server {
	first := u.turn.Add(1)
	var young *server
	for i := range uint64(len(list)) {
		s := list[(first+i)%uint64(len(list))]
		switch {
		case !may(s):
		case !tooNew(s, now):
			return s
		case young == nil:
			young = s
		}
	}
	return young
}

// rendezvous takes the server whose hash together with the key's is highest.
func rendezvous(list []*server, key string, may func(*server) bool) (best *server) {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a, 64 bits
	sum := uint64(offset)
	for i := range len(key) {
		sum = (sum ^ uint64(key[i])) * prime
	}
	var most uint64
	for _, s := range list {
		if h := mix(sum ^ s.hash); (best == nil || h > most) && may(s) {
			best, most = s, h
		}
	}
	return best
}

// mix spreads a hash over all bits (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
