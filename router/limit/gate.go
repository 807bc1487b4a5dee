package limit

import "time"

// gate is a caller's places, and who waits for one. It is there while there is either: what
// bounds how many gates there are is how many calls there are.
type gate struct {
	inFlight    int
	waiting     int
	first, last *waiter
	since       int64 // when a place was last given up, or the last one taken
	pace        int64 // between two places that are given up while all are taken, on the average; zero: not known
}

// waiter is a call in a queue. What it waits for is a place that is handed to it.
type waiter struct {
	ready      chan struct{}
	in         bool // it has a place
	prev, next *waiter
}

// room is what a caller who wants a place finds.
type room uint8

const (
	free   room = iota
	taken       // but there is room to wait
	filled      // nor that
)

func (s *shard) room(n *numbers, key uint64) room {
	g := s.gates[key]
	switch {
	case n.concurrency == 0 || g == nil || g.inFlight < n.concurrency:
		return free
	case g.waiting < n.queue:
		return taken
	default:
		return filled
	}
}

// enter takes a place, which is free.
func (s *shard) enter(n *numbers, key uint64, now int64) {
	g := s.gates[key]
	if g == nil {
		if k := len(s.spare); k > 0 {
			g, s.spare = s.spare[k-1], s.spare[:k-1]
		} else {
			g = new(gate)
		}
		s.gates[key] = g
	}
	if g.inFlight++; g.inFlight == n.concurrency {
		g.since = now
	}
}

// mostSpare is how many gates of callers who have gone a shard keeps for others.
const mostSpare = 64

// leave gives a place up: to who has waited longest, if the limit is not smaller by now.
func (s *shard) leave(n *numbers, key uint64, now int64) {
	g := s.gates[key]
	if n.concurrency > 0 && g.inFlight >= n.concurrency {
		if took := now - g.since; g.pace == 0 {
			g.pace = max(took, 1)
		} else {
			g.pace += (took - g.pace) / 4
		}
		g.since = now
	}
	g.inFlight--
	g.grant(n)
	if g.inFlight == 0 && g.first == nil {
		delete(s.gates, key)
		if len(s.spare) < mostSpare {
			*g = gate{}
			s.spare = append(s.spare, g)
		}
	}
}

// grant hands places that are free to those who wait.
func (g *gate) grant(n *numbers) {
	for g.first != nil && (n.concurrency == 0 || g.inFlight < n.concurrency) {
		w := g.first
		g.remove(w)
		g.inFlight++
		w.in = true
		close(w.ready)
	}
}

func (g *gate) push(w *waiter) {
	w.prev = g.last
	if g.last == nil {
		g.first = w
	} else {
		g.last.next = w
	}
	g.last = w
	g.waiting++
}

func (g *gate) remove(w *waiter) {
	if w.prev == nil {
		g.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		g.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	g.waiting--
}

// expected is how long who comes now will wait; zero if nothing is known.
func (g *gate) expected() time.Duration { return time.Duration(int64(g.waiting+1) * g.pace) }
