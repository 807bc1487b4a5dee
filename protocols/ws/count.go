package ws

import (
	"slices"
	"sync/atomic"
	"time"
)

// counterShards is how many counters there are; sessions take them in turn.
const counterShards = 8

// sizeBounds are the buckets of messages by their bytes.
var sizeBounds = [...]int64{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20}

// rttBounds are the buckets of pings by the time until their pong.
var rttBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// counter counts the messages of some sessions. A message costs two atomic additions.
type counter struct {
	in, out sizes
	rtts    [len(rttBounds) + 1]atomic.Uint64
	rtt     atomic.Int64 // of all together
	_       [64]byte     // no cache line is shared with the next
}

type sizes struct {
	counts [len(sizeBounds) + 1]atomic.Uint64
	bytes  atomic.Uint64
}

func (s *sizes) add(n int64) {
	i := 0
	for i < len(sizeBounds) && n > sizeBounds[i] {
		i++
	}
	s.counts[i].Add(1)
	s.bytes.Add(uint64(max(0, n)))
}

// ponged counts a ping that was answered.
func (c *counter) ponged(after time.Duration) {
	i := 0
	for i < len(rttBounds) && after > rttBounds[i] {
		i++
	}
	c.rtts[i].Add(1)
	c.rtt.Add(int64(after))
}

// counter gives a new session what counts for it.
func (s *Server) counter() *counter { return &s.counters[s.turn.Add(1)%counterShards] }

// Messages are counts of messages in one direction.
type Messages struct {
	// Count is how many there were, Bytes their payloads together.
	Count, Bytes uint64
	// Sizes counts them by their bytes: those that are no larger than each of [SizeBounds], and at
	// its end all.
	Sizes []uint64
}

// Traffic is what went over sessions so far, and over tunnels whose frames are looked at:
// not over raw ones. Sizes in tunnels are those on the way, compressed ones before inflating.
type Traffic struct {
	// In came from clients, Out went to them.
	In, Out Messages
	// RTTs counts pings of the port's by the time until the client's pong: those that took no
	// longer than each of [RTTBounds], and at its end all; RTT is the time of all together.
	RTTs []uint64
	RTT  time.Duration
	// Dropped counts messages that waited for clients that did not keep up, and were thrown away.
	Dropped int64
}

// SizeBounds are the bounds of Messages.Sizes, in bytes.
func SizeBounds() []int64 { return slices.Clone(sizeBounds[:]) }

// RTTBounds are the bounds of Traffic.RTTs.
func RTTBounds() []time.Duration { return slices.Clone(rttBounds[:]) }

// Traffic returns the counts.
func (s *Server) Traffic() Traffic {
	tr := Traffic{
		In: Messages{Sizes: make([]uint64, len(sizeBounds)+1)}, Out: Messages{Sizes: make([]uint64, len(sizeBounds)+1)},
		RTTs: make([]uint64, len(rttBounds)+1), Dropped: s.dropped.Load(),
	}
	for i := range s.counters {
		c := &s.counters[i]
		tr.In.add(&c.in)
		tr.Out.add(&c.out)
		for b := range c.rtts {
			tr.RTTs[b] += c.rtts[b].Load()
		}
		tr.RTT += time.Duration(c.rtt.Load())
	}
	sumUp(tr.RTTs)
	tr.In.Count, tr.Out.Count = sumUp(tr.In.Sizes), sumUp(tr.Out.Sizes)
	return tr
}

func (m *Messages) add(s *sizes) {
	for b := range s.counts {
		m.Sizes[b] += s.counts[b].Load()
	}
	m.Bytes += s.bytes.Load()
}

// sumUp has each bucket count those before it too, and gives the last one.
func sumUp(buckets []uint64) (all uint64) {
	for b := range buckets {
		all += buckets[b]
		buckets[b] = all
	}
	return all
}
