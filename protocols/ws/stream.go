package ws

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// keeper is a socket whose writes need not wait (nbio).
type keeper interface {
	Keep() bool // from now on; false if it cannot
	Kept() bool
	Flush() error
}

// stream is the byte stream below gorilla, which writes control frames, messages that are to
// be compressed, and large ones. All others the session writes itself: see put.
type stream struct {
	net.Conn
	head    []byte       // read ahead by net/http
	heard   *atomic.Bool // set when anything arrives: the peer lives
	timeout time.Duration
	keep    keeper // nil if writes can but wait
	whole   bool   // small writes of gorilla's are control frames, whole

	flushing sync.Mutex // held by who waits for the socket; after mu

	mu    sync.Mutex // guards the fields below, and is held while frames are handed to the socket
	until time.Time  // the write deadline that is set; only without keep
	shut  bool       // a close frame was written: nothing may follow
	held  *[]byte    // what is written waits here for release; nil as a rule
}

// attach makes writes not wait if the socket can do that. Nothing may be written meanwhile.
func (s *stream) attach() {
	nc := s.Conn
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok { // TLS
		nc = t.NetConn()
	}
	if k, ok := nc.(keeper); ok && k.Keep() {
		s.keep = k
	}
}

// put writes frames, of at most about gather bytes. It waits until the socket has taken
// them; without wait it does not, and reports that some of it is kept: settle must follow.
// Only the session's writer calls it.
func (s *stream) put(b []byte, wait bool) (kept bool, err error) {
	s.mu.Lock()
	if s.shut {
		s.mu.Unlock()
		return false, ErrClosed
	}
	if s.keep == nil {
		_ = s.deadlineLocked(time.Now().Add(s.timeout))
	}
	_, err = s.Conn.Write(b)
	s.mu.Unlock()
	switch {
	case err != nil || s.keep == nil || !s.keep.Kept():
		return false, err
	case !wait:
		return true, nil
	}
	return false, s.settle()
}

// settle waits until the socket has taken what was kept.
func (s *stream) settle() error {
	if s.keep == nil || !s.keep.Kept() {
		return nil
	}
	return s.settleBy(time.Now().Add(s.timeout))
}

func (s *stream) settleBy(end time.Time) (err error) {
	for err == nil && s.keep.Kept() {
		s.flushing.Lock()
		err = s.flush(end)
		s.flushing.Unlock()
	}
	return err
}

// flush waits for the socket until end. The caller has flushing. What it does not take is lost,
// and what came next would be taken for the rest of it: so that is the connection's end.
func (s *stream) flush(end time.Time) error {
	_ = s.Conn.SetWriteDeadline(end) // only who waits sets it, and so cuts nobody else's time
	err := s.keep.Flush()
	if err != nil {
		_ = s.Close()
	}
	return err
}

// Write writes p, or holds it. It waits for the socket, but not if somebody else does: then
// that one writes p too. Only a control frame finds somebody there: gorilla writes one frame at a time,
// and the session's writer, who is the only other, is waiting then and writes no message.
func (s *stream) Write(p []byte) (n int, err error) {
	// All of p counts: the last piece of a large message may look like a close frame.
	last := s.whole && 0 < len(p) && len(p) <= mostControl && p[0]&0xf == opClose
	var end time.Time
	for n < len(p) && err == nil {
		k := min(len(p)-n, gather) // more than 1 MiB is not kept
		if err = s.write(p[n:n+k], last); err == nil {
			n += k
		}
		for err == nil && s.keep != nil && s.keep.Kept() {
			switch {
			case len(p) > mostControl:
				s.flushing.Lock()
			case !s.flushing.TryLock():
				return n, nil // whoever has it looks again afterwards
			}
			if end.IsZero() {
				end = time.Now().Add(s.timeout)
			}
			err = s.flush(end)
			s.flushing.Unlock()
		}
	}
	return n, err
}

// mostControl is how long a control frame of a server may be.
const mostControl = 127

func (s *stream) write(p []byte, last bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		*s.held = append(*s.held, p...)
		return nil
	}
	s.shut = s.shut || last
	_, err := s.Conn.Write(p)
	return err
}

// heldPool has buffers for frames that leave together.
var heldPool = sync.Pool{New: func() any { return new(make([]byte, 0, gather+2<<10)) }}

// hold has what gorilla writes from now on wait for release. Only the writer calls the two.
func (s *stream) hold() {
	b, _ := heldPool.Get().(*[]byte)
	s.mu.Lock()
	s.held = b
	s.mu.Unlock()
}

// release writes what was held. Control frames of others, which gorilla writes at any time,
// may be among it, and wait.
func (s *stream) release() error {
	s.mu.Lock()
	b := s.held
	s.held = nil
	var err error
	end := time.Now().Add(s.timeout)
	for p := *b; len(p) > 0 && err == nil; {
		k := min(len(p), gather)
		_, err = s.Conn.Write(p[:k])
		if p = p[k:]; err == nil && s.keep != nil {
			err = s.settleBy(end)
		}
	}
	s.mu.Unlock()
	giveBack(b)
	return err
}

// giveBack takes a buffer of heldPool's back, unless it has grown too much.
func giveBack(b *[]byte) {
	if *b = (*b)[:0]; cap(*b) <= 4*gather {
		heldPool.Put(b)
	}
}

func (s *stream) Read(p []byte) (int, error) {
	if len(s.head) > 0 {
		n := copy(p, s.head)
		if s.head = s.head[n:]; len(s.head) == 0 {
			s.head = nil
		}
		return n, nil
	}
	n, err := s.Conn.Read(p)
	if n > 0 && s.heard != nil {
		s.heard.Store(true)
	}
	return n, err
}

// SetWriteDeadline is called before each frame of gorilla's. Where writes do not wait it does
// nothing: gorilla gives a pong a second, which what waits before it must not get, and a peer
// that pings must not put off the end of what it does not read.
func (s *stream) SetWriteDeadline(t time.Time) error {
	if s.keep != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deadlineLocked(t)
}

// deadlineLocked does not set a deadline anew that still leaves most of the timeout: that would
// be the dearest part of writing a small message.
func (s *stream) deadlineLocked(t time.Time) error {
	if !t.IsZero() && !s.until.IsZero() {
		if d := t.Sub(s.until); d >= 0 && d < s.timeout/4 {
			return nil
		}
	}
	s.until = t
	return s.Conn.SetWriteDeadline(t)
}
