package conn

import (
	"slices"
	"sync/atomic"
	"time"
)

// handshakeBounds are the buckets of handshakes by their time, which is the client's as
// much as ours.
var handshakeBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// HandshakeBounds are the bounds of Handshakes.Buckets.
func HandshakeBounds() []time.Duration { return slices.Clone(handshakeBounds[:]) }

// Handshakes are counts of those of TLS.
type Handshakes struct {
	Full, Resumed int64
	// Took is the time of all together. Buckets counts those that took no longer than each
	// of [HandshakeBounds], and at its end all.
	Took    time.Duration
	Buckets []uint64
}

// handshakes are Handshakes while they are counted.
type handshakes struct {
	full, resumed, took atomic.Int64
	buckets             [len(handshakeBounds) + 1]atomic.Uint64
}

// Handshook counts a TLS handshake that has succeeded.
func (r *Registry) Handshook(took time.Duration, resumed bool) {
	h := &r.handshakes
	if resumed {
		h.resumed.Add(1)
	} else {
		h.full.Add(1)
	}
	i := 0
	for i < len(handshakeBounds) && took > handshakeBounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.took.Add(int64(took))
}

func (h *handshakes) stats() Handshakes {
	st := Handshakes{Full: h.full.Load(), Resumed: h.resumed.Load(), Took: time.Duration(h.took.Load()), Buckets: make([]uint64, len(h.buckets))}
	var all uint64
	for i := range h.buckets {
		all += h.buckets[i].Load()
		st.Buckets[i] = all
	}
	return st
}
