package ws

import (
	"runtime"
	"sync"

	"github.com/gorilla/websocket"
)

// pool writes what was sent to sessions that nobody writes to, with a few goroutines for all
// of them: a message to 10,000 would otherwise start as many, each of which runs on a stack
// that no cache has. They go from one session to the next and wait for none, so what is sent to one before
// its turn comes leaves together: that is what makes bursts cheap. The goroutines end when nothing
// is left. A session in the list has writing set, and its end waits for that.
type pool struct {
	mu      sync.Mutex // guards the fields below; after Conn.mu
	list    []*Conn    // in the order in which they came
	first   int        // of list that is still there
	workers int
}

const (
	// poolTake is how many sessions a worker takes at once.
	poolTake = 16
	// poolBehind is how many must be behind another worker before one more starts.
	poolBehind = 256
)

// add has a worker write to c.
func (p *pool) add(c *Conn) {
	p.mu.Lock()
	p.list = append(p.list, c)
	behind := len(p.list) - p.first
	start := p.workers == 0 || behind > p.workers*poolBehind && p.workers < runtime.GOMAXPROCS(0)/2
	if start {
		p.workers++
	}
	p.mu.Unlock()
	if start {
		go p.work() // ends when the list is empty; sessions wait for it
	}
}

// work writes to one session after the other until there is none.
func (p *pool) work() {
	var some [poolTake]*Conn
	for {
		p.mu.Lock()
		n := copy(some[:], p.list[p.first:])
		clear(p.list[p.first : p.first+n])
		p.first += n
		switch {
		case n == 0:
			p.workers--
			if p.list, p.first = p.list[:0], 0; cap(p.list) > mostListed {
				p.list = nil
			}
			p.mu.Unlock()
			return
		case p.first > len(p.list)/2 && p.first >= poolBehind:
			left := copy(p.list, p.list[p.first:])
			clear(p.list[left:])
			p.list, p.first = p.list[:left], 0
		}
		p.mu.Unlock()
		for i, c := range some[:n] {
			some[i] = nil
			if c.writeSome() {
				p.add(c)
			}
		}
	}
}

// mostListed bounds the list that is held on to.
const mostListed = 1 << 10

// quickLocked reports whether what comes next can be written without waiting.
func (c *Conn) quickLocked() bool {
	return c.stream.keep != nil && c.stream.whole && c.queue[0].typ != websocket.CloseMessage && len(c.queue[0].data) <= gather
}

// writeSome writes what comes next and does not wait; what the socket does not take, a
// flusher waits for. It reports whether there is more. The caller is the writer.
func (c *Conn) writeSome() (more bool) {
	var first [8]message
	c.mu.Lock()
	if len(c.queue) > 0 && !c.quickLocked() { // a close frame has taken the place of what was there
		c.mu.Unlock()
		go c.flush() // takes over; writing stays true
		return false
	}
	batch := c.takeLocked(first[:0])
	c.mu.Unlock()
	kept, err := false, error(nil)
	if len(batch) > 0 {
		kept, err = c.putFrames(batch, false)
	}
	for _, m := range batch {
		if m.done != nil {
			m.done <- err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.dropLocked(err)
	}
	switch {
	case kept || len(c.queue) > 0 && !c.quickLocked():
		go c.flush() // takes over; writing stays true
	case len(c.queue) > 0:
		return true
	default:
		c.queue = nil // an idle session keeps no queue
		c.writing = false
		c.quiet.Signal()
	}
	return false
}
