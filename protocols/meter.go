package protocols

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Meter counts the calls of a port, of all protocols: how many, how they ended, how long
// they took, what they were sent. The zero value is ready to use, and safe for concurrent
// use; nil counts nothing.
//
// A call costs two atomic additions, one lock that nobody else holds, as a rule, and no
// allocation: what is counted is found by the call's [Destination], which keeps it.
type Meter struct {
	flight [meterShards]struct {
		n [numProtocols]atomic.Int64
		_ [40]byte // a cache line each
	}
	here atomic.Pointer[tally] // of calls without a destination

	mu      sync.Mutex // guards tallies
	tallies map[place]*tally
}

const (
	numProtocols = 3
	// meterShards is how many counters there are of each kind; calls are numbered, and take
	// them in turn.
	meterShards = 8
	// mostPlaces bounds the destinations that are told apart, over all reloads.
	mostPlaces = 2048
)

// place names a destination.
type place struct{ route, upstream string }

// tally is what is counted for one destination. Once made it is there for good, as
// counters are, and used again when a reload brings its names back.
type tally struct {
	place
	of [numProtocols]atomic.Pointer[[meterShards]share] // made with the first call
}

// share is a part of the counts of one protocol.
type share struct {
	mu      sync.Mutex // guards the fields below
	took    time.Duration
	sent    uint64
	refused [numReasons]uint64
	buckets [mostBounds + 1]uint64
	codes   []codeCount // few, and the usual one is the first, as a rule
	native  sparse
}

type codeCount struct {
	code int
	n    uint64
}

// Begin counts a call that has just begun, until it is finished. Whoever begins calls does
// this once, after its fields are set.
func (m *Meter) Begin(c *Call) {
	if m == nil {
		return
	}
	c.meter = m
	m.flight[c.meterShard()].n[c.Protocol].Add(1)
}

func (c *Call) meterShard() int { return int(c.id[len(c.id)-1] % meterShards) }

// end counts a call that has finished.
func (m *Meter) end(c *Call, refused *Refusal, res Result) {
	took := res.At.Sub(c.Started)
	i := c.meterShard()
	m.flight[i].n[c.Protocol].Add(-1)
	s := &m.tallyOf(c.to.Load()).shares(c.Protocol)[i]
	code, bucket, native := c.Protocol.code(res.Status), bucketOf(c.Protocol, took), nativeIndex(took)
	s.mu.Lock()
	s.took += took
	s.buckets[bucket]++
	s.native.add(native)
	if res.Sent > 0 {
		s.sent += uint64(res.Sent)
	}
	if refused != nil {
		s.refused[refused.Reason]++
	}
	s.countLocked(code)
	s.mu.Unlock()
}

func (s *share) countLocked(code int) {
	for i := range s.codes {
		if s.codes[i].code == code {
			s.codes[i].n++
			return
		}
	}
	s.codes = append(s.codes, codeCount{code, 1})
}

// tallyOf finds what counts for a destination.
func (m *Meter) tallyOf(to *Destination) *tally {
	kept := &m.here
	if to != nil {
		kept = &to.tally
	}
	if t := kept.Load(); t != nil {
		return t
	}
	var at place
	if to != nil {
		at = place{to.Route, to.Upstream}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tallies[at]
	if t == nil && len(m.tallies) >= mostPlaces {
		at = place{otherLabel, otherLabel}
		t = m.tallies[at]
	}
	if t == nil {
		if t = (&tally{place: at}); m.tallies == nil {
			m.tallies = make(map[place]*tally)
		}
		m.tallies[at] = t
	}
	kept.Store(t)
	return t
}

func (t *tally) shares(p Protocol) *[meterShards]share {
	if s := t.of[p].Load(); s != nil {
		return s
	}
	t.of[p].CompareAndSwap(nil, new([meterShards]share))
	return t.of[p].Load()
}

// CallStats are counts of the calls of one protocol that went to one destination.
type CallStats struct {
	Protocol Protocol
	// Route and Upstream are those of the [Destination]: "" for what this process has served
	// itself, and both "other" for more than 2,048 different ones.
	Route, Upstream string
	// Calls is how many have ended, Codes how: see [Protocol.Code].
	Calls uint64
	Codes map[string]uint64
	// Failed counts those of Calls that the server's side did wrong: see [Protocol.Failed].
	Failed uint64
	// Refused counts those of Calls that guards have refused.
	Refused map[Reason]uint64
	// Sent counts the bytes of answers' bodies, and of messages.
	Sent uint64
	// Took is the time of all together.
	Took time.Duration
	// Buckets counts calls by their time: those that took no longer than each of
	// [Protocol.Bounds], and at its end all.
	Buckets []uint64
	// Native counts them in exponential buckets, eight for each doubling: those that took
	// more than 2^((i-1)/8) s and at most 2^(i/8) s by i. That is a native histogram of
	// Prometheus with schema 3.
	Native map[int]uint64
}

// InFlight is how many calls of a protocol have begun and not ended.
func (m *Meter) InFlight(p Protocol) (n int64) {
	if m == nil {
		return 0
	}
	for i := range m.flight {
		n += m.flight[i].n[p].Load()
	}
	return max(0, n) // a call may end between two of the loads
}

// Stats counts, in the order of protocol, route and upstream.
func (m *Meter) Stats() (list []CallStats) {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	all := make([]*tally, 0, len(m.tallies))
	for _, t := range m.tallies {
		all = append(all, t)
	}
	m.mu.Unlock()
	for _, t := range all {
		for p := range Protocol(numProtocols) {
			if shares := t.of[p].Load(); shares != nil {
				list = append(list, t.stats(p, shares))
			}
		}
	}
	slices.SortFunc(list, func(a, b CallStats) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Route, b.Route), cmp.Compare(a.Upstream, b.Upstream))
	})
	return list
}

func (t *tally) stats(p Protocol, shares *[meterShards]share) CallStats {
	st := CallStats{
		Protocol: p, Route: t.route, Upstream: t.upstream, Codes: map[string]uint64{}, Refused: map[Reason]uint64{},
		Buckets: make([]uint64, len(p.bounds())+1), Native: map[int]uint64{},
	}
	for i := range shares {
		s := &shares[i]
		s.mu.Lock()
		st.Took += s.took
		st.Sent += s.sent
		for r, n := range s.refused {
			if n > 0 {
				st.Refused[Reason(r)] += n
			}
		}
		for b := range st.Buckets {
			st.Buckets[b] += s.buckets[b]
		}
		for _, c := range s.codes {
			st.Codes[p.label(c.code)] += c.n
			if st.Calls += c.n; p.Failed(c.code) {
				st.Failed += c.n
			}
		}
		for at, n := range s.native.counts {
			if n > 0 {
				st.Native[int(s.native.first)+at] += n
			}
		}
		s.mu.Unlock()
	}
	for b := range st.Buckets[1:] {
		st.Buckets[b+1] += st.Buckets[b]
	}
	return st
}

// mostBounds is how many the longest list of bounds has.
const mostBounds = 16

var (
	callBounds = [...]time.Duration{
		500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
		50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond,
		5 * time.Second, 10 * time.Second, 30 * time.Second, 60 * time.Second,
	}
	sessionBounds = [...]time.Duration{
		100 * time.Millisecond, time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute,
		time.Hour, 4 * time.Hour, 24 * time.Hour,
	}
)

func (p Protocol) bounds() []time.Duration {
	if p == WebSocket {
		return sessionBounds[:]
	}
	return callBounds[:]
}

// Bounds are those of the buckets in which a [Meter] counts how long calls of the protocol
// take: 0.5 ms to 60 s, and for WebSockets, whose sessions last, 0.1 s to a day.
func (p Protocol) Bounds() []time.Duration { return slices.Clone(p.bounds()) }

func bucketOf(p Protocol, took time.Duration) int {
	list := p.bounds()
	for i, b := range list {
		if took <= b {
			return i
		}
	}
	return len(list)
}

// nativeBounds are 2^(i/8 - 1): where the buckets within a doubling end.
var nativeBounds = [8]float64{0.5, 0.5452538663326288, 0.5946035575013605, 0.6484197773255048, 0.7071067811865475, 0.7711054127039704, 0.8408964152537144, 0.9170040432046711}

// nativeLeast and nativeMost are where all that is shorter, or longer, is counted: 1 us
// and 97 days.
const (
	nativeLeast = -159
	nativeMost  = 184
)

// nativeIndex is the i with 2^((i-1)/8) < seconds <= 2^(i/8).
func nativeIndex(took time.Duration) int {
	frac, exp := math.Frexp(took.Seconds())
	if frac <= 0 {
		return nativeLeast
	}
	i := 0
	for i < len(nativeBounds) && frac > nativeBounds[i] {
		i++
	}
	return min(max(i+(exp-1)*len(nativeBounds), nativeLeast), nativeMost)
}

// sparse counts in a window of buckets that grows to what occurs.
type sparse struct {
	first  int16
	counts []uint64
}

func (s *sparse) add(i int) {
	switch at := i - int(s.first); {
	case s.counts == nil:
		s.first, s.counts = int16(i), make([]uint64, 1, 8)
		s.counts[0] = 1
	case at < 0:
		s.counts = slices.Concat(make([]uint64, -at), s.counts)
		s.first = int16(i)
		s.counts[0]++
	case at >= len(s.counts):
		s.counts = append(s.counts, make([]uint64, at+1-len(s.counts))...)
		s.counts[at]++
	default:
		s.counts[at]++
	}
}
