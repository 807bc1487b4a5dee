package ws

import (
	"container/heap"
	"math"
	"time"
)

// CloseIdle closes sessions with 1013 that have moved no message for so long, those that have
// not for longest first, and no more than most. It says how many it has closed.
func (s *Server) CloseIdle(most int, quiet time.Duration, reason string) int {
	if most <= 0 {
		return 0
	}
	var longest idleHeap // the shortest of them first
	before := s.now() - int64(quiet)
	s.mu.Lock()
	for c := range s.open {
		switch at := c.lastMoved(); {
		case at > before:
		case len(longest) < most:
			heap.Push(&longest, idleSession{c, at})
		case at < longest[0].at:
			longest[0] = idleSession{c, at}
			heap.Fix(&longest, 0)
		}
	}
	s.mu.Unlock()
	for _, i := range longest {
		i.Close(CloseTryAgainLater, reason)
	}
	return len(longest)
}

// neverIdle is when a session has moved something last that is closing.
const neverIdle = math.MaxInt64

type idleSession struct {
	session
	at int64 // when it has moved something last
}

type idleHeap []idleSession

func (h idleHeap) Len() int           { return len(h) }
func (h idleHeap) Less(i, j int) bool { return h[i].at > h[j].at }
func (h idleHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *idleHeap) Push(x any) {
	*h = append(*h, x.(idleSession)) //nolint:forcetypeassert // CloseIdle pushes no others
}

// Pop implements heap.Interface. Nobody calls it.
func (h *idleHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func (c *Conn) lastMoved() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.broken {
		return neverIdle
	}
	return c.moved.Load()
}

func (t *aware) lastMoved() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing || t.ended || t.code != 0 {
		return neverIdle
	}
	return max(t.client.moved.Load(), t.up.moved.Load())
}

func (t *tunnel) lastMoved() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing || t.ended {
		return neverIdle
	}
	return t.moved.Load()
}
