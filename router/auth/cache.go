package auth

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// jwtEntry is a token that was checked. It is not changed any more.
type jwtEntry struct {
	token       string
	id          *protocols.Identity
	from, until time.Time // with leeway
	generation  uint64    // of the keys it was checked with
}

// jwtCache remembers tokens that were checked, by a keyed hash and then whole: a stranger
// can neither guess a hash nor fill it, since only good tokens get in. Shards keep
// connections' readers apart.
type jwtCache struct {
	seed   maphash.Seed
	shards []jwtShard // a power of two
}

type jwtShard struct {
	most, bytes int // how much it may hold

	mu     sync.RWMutex
	tokens map[uint64]*jwtEntry
	held   int // bytes of tokens
}

// Bounds of a cache. Claims take a few times as much as the token they were in.
const (
	cacheShards     = 16
	cacheBytesEach  = 2 << 10 // of a token, on the average
	cacheLeastShard = 64      // tokens; a smaller one would be full by chance
	cacheSample     = 8       // entries that are looked at for one to go
)

func newJWTCache(most int) *jwtCache {
	n := cacheShards
	for n > 1 && most/n < cacheLeastShard {
		n /= 2
	}
	c := &jwtCache{seed: maphash.MakeSeed(), shards: make([]jwtShard, n)}
	for i := range c.shards {
		s := &c.shards[i]
		s.most, s.bytes, s.tokens = most/n, max(most/n*cacheBytesEach, tokenLimit), make(map[uint64]*jwtEntry)
	}
	return c
}

func (c *jwtCache) shard(h uint64) *jwtShard { return &c.shards[h>>32&uint64(len(c.shards)-1)] }

// get is the entry of a token, whether still good or not; nil if there is none.
func (c *jwtCache) get(token string) *jwtEntry {
	h := maphash.String(c.seed, token)
	s := c.shard(h)
	s.mu.RLock()
	e := s.tokens[h]
	s.mu.RUnlock()
	if e == nil || e.token != token {
		return nil
	}
	return e
}

// put remembers an entry, and forgets others if there is no room: of a few that
// it comes by, the one that ends first.
func (c *jwtCache) put(e *jwtEntry) {
	h := maphash.String(c.seed, e.token)
	s := c.shard(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(h)
	for len(s.tokens) > 0 && (len(s.tokens) >= s.most || s.held+len(e.token) > s.bytes) {
		s.evictLocked()
	}
	s.tokens[h] = e
	s.held += len(e.token)
}

func (s *jwtShard) dropLocked(h uint64) {
	if old := s.tokens[h]; old != nil {
		s.held -= len(old.token)
		delete(s.tokens, h)
	}
}

func (s *jwtShard) evictLocked() {
	var victim uint64
	var until time.Time
	seen := 0
	for h, e := range s.tokens { // begins anywhere
		if seen == 0 || e.until.Before(until) {
			victim, until = h, e.until
		}
		if seen++; seen == cacheSample {
			break
		}
	}
	s.dropLocked(victim)
}

func (c *jwtCache) len() (n int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += len(s.tokens)
		s.mu.RUnlock()
	}
	return n
}
