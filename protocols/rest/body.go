package rest

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// bodies bounds how long a read of a request's body may wait. It looks at all
// bodies that are being read, every so often: net/http's read deadline would
// cost HTTP/2 two messages to another goroutine for each request, and would
// also pass while the handler is busy with what it has read; a timer for each
// body costs as much as the rest of the port.
type bodies struct {
	every time.Duration // between two looks
	least int64         // bytes that must come in looksToIdle of them; negative for none
	looks atomic.Int64  // so far

	mu    sync.Mutex // guards the fields below, and the links of each body
	first *body
	timer *time.Timer // runs while there is a body
}

// looksToIdle is how many looks a read may wait for: it ends between the idle
// time and an eighth of it later.
const looksToIdle = 8

func (s *bodies) init(idle time.Duration, rate int) {
	s.every = max(idle/looksToIdle, 1)
	s.least = int64(float64(rate) * idle.Seconds())
}

// body is a request's body. The zero value has none.
type body struct {
	io.ReadCloser
	writer  http.ResponseWriter // knows how to end a read
	bodies  *bodies
	waiting atomic.Int64 // looks when the read began, plus one; 0 if there is none
	came    atomic.Int64 // bytes so far

	linked     bool // for the reader alone
	prev, next *body
	slow       int   // looks that found a read waiting
	mark       int64 // came, when those were counted from
}

func (b *body) Read(p []byte) (int, error) {
	if !b.linked {
		b.linked = true
		b.bodies.add(b)
	}
	b.waiting.Store(b.bodies.looks.Load() + 1)
	n, err := b.ReadCloser.Read(p)
	b.came.Add(int64(n))
	b.waiting.Store(0)
	return n, err
}

// leave is called when the request has ended.
func (b *body) leave() {
	if b.linked {
		b.bodies.remove(b)
	}
}

func (s *bodies) add(b *body) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.next = s.first; b.next != nil {
		b.next.prev = b
	}
	if s.first = b; b.next != nil {
		return
	}
	if s.timer == nil {
		s.timer = time.AfterFunc(s.every, s.look)
	} else {
		s.timer.Reset(s.every)
	}
}

func (s *bodies) remove(b *body) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.next != nil {
		b.next.prev = b.prev
	}
	if b.prev != nil {
		b.prev.next = b.next
	} else {
		s.first = b.next
	}
	b.prev, b.next = nil, nil
}

// trickles reports whether a client sends a body more slowly than it may. It is asked
// at each look that finds a read waiting.
func (b *body) trickles(least int64) bool {
	if b.slow++; b.slow < looksToIdle {
		return false
	}
	came := b.came.Load()
	few := came-b.mark < least
	b.slow, b.mark = 0, came
	return few
}

// look ends the reads that have waited too long.
func (s *bodies) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.looks.Add(1)
	for b := s.first; b != nil; b = b.next {
		began := b.waiting.Load()
		if began != 0 && (b.trickles(s.least) || now-began >= looksToIdle) {
			// Where that is not supported nothing reads from a client.
			_ = http.NewResponseController(b.writer).SetReadDeadline(time.Unix(1, 0))
		}
	}
	if s.first != nil {
		s.timer.Reset(s.every)
	}
}
