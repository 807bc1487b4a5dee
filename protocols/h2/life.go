package h2

import (
	"cmp"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

const readBuffer = 32 << 10

var readBuffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}

// serve reads until the connection is over.
func (c *client) serve() {
	err := c.read()
	c.finish(err)
}

// read feeds what the client sends to the state machine. While it waits for a
// frame it holds no buffer but a small one; what is in the TLS layer already,
// or the rest of a frame, comes in a large one.
func (c *client) read() error {
	var big *[readBuffer]byte
	defer func() {
		if big != nil {
			readBuffers.Put(big)
		}
	}()
	buf, have := c.small[:], 0
	for {
		n, err := c.nc.Read(buf[have:])
		if n == 0 && err != nil {
			return err
		}
		have += n
		used, err := c.takePaced(buf[:have])
		if err != nil {
			return err
		}
		full, left := have == len(buf), buf[used:have]
		switch {
		case big == nil && (full || len(left) > 0):
			big, _ = readBuffers.Get().(*[readBuffer]byte)
			buf = big[:]
		case big != nil && !full && len(left) == 0:
			readBuffers.Put(big)
			big, buf = nil, c.small[:]
		}
		have = copy(buf, left)
	}
}

// takePaced takes bytes, slowly if they ask for much at once: others would wait
// for a flood until it is found to be one, or for a client that begins with all
// streams it may have.
func (c *client) takePaced(p []byte) (used int, err error) {
	for {
		n, wait, err := c.take(p[used:])
		used += n
		if err != nil || wait == 0 {
			return used, err
		}
		time.Sleep(wait) // not at all if it is negative
	}
}

// take feeds bytes to the state machine, and sees to it that what comes out
// gets to its readers. It reports how much was used, and how long to wait
// before the rest.
func (c *client) take(p []byte) (used int, wait time.Duration, err error) {
	c.mu.Lock()
	before := len(c.out)
	c.heard = 0
	for err == nil {
		var n int
		if n, err = c.feed(p[used:]); n == 0 {
			break
		}
		used += n
		if err == nil && len(c.out) > outMost+2*c.sw.limits.ConnWindow {
			err = frame.Err(frame.EnhanceYourCalm, "answers are not read")
		}
		if c.haste >= mostHaste {
			wait, c.haste = time.Duration(c.haste)*c.sw.limits.Pace, 0
			break
		}
	}
	left := p[used:]
	c.partial = len(left) > 3 && isBlock(frame.Type(left[3]))
	if used > 0 && c.in.stream == 0 {
		c.blockOpen = 0
	}
	for _, b := range c.backs {
		b.publish()
	}
	if err == nil {
		err = c.err
	}
	kick := err == nil && len(c.out) > before
	c.unlock()
	if kick {
		c.kickLater() // a reader must not wait for the client to read
	}
	return used, wait, err
}

func isBlock(t frame.Type) bool { return t == frame.Headers || t == frame.Continuation }

// written lets those go on that wait for the client to read.
func (c *client) written(err error) {
	if err != nil {
		c.failLocked(err)
	}
	c.resume()
	c.drained.Broadcast()
}

// unlock frees the client's lock, and does what had to wait for that.
func (c *client) unlock() {
	ended, due, freed, left := c.ended, c.due, c.freed, c.left
	c.ended, c.due, c.freed, c.left = nil, nil, nil, nil
	c.mu.Unlock()
	finishCalls(ended)
	for due != nil {
		due = due.flushNext()
	}
	for _, u := range freed {
		u.serve()
	}
	for _, f := range left {
		f()
	}
}

// share is how many streams a client has at an upstream.
type share struct {
	up   *Upstream
	all  int // waiting ones included
	open int
}

// share returns the client's share. It is valid until the next call.
func (c *client) share(u *Upstream) *share {
	i := slices.IndexFunc(c.shares, func(s share) bool { return s.up == u })
	if i < 0 {
		i = len(c.shares)
		c.shares = append(c.shares, share{up: u})
	}
	return &c.shares[i]
}

// leavePool takes note that a stream of an upstream's has ended.
func (c *client) leavePool(u *Upstream) {
	if sh := c.share(u); sh.all > 1 {
		sh.all--
	} else {
		c.shares = slices.DeleteFunc(c.shares, func(s share) bool { return s.up == u })
	}
	if u.waiters.Load() > 0 {
		c.freeLater(u)
	}
}

// freeLater has streams that wait for an upstream be looked at, once the lock is free.
func (c *client) freeLater(u *Upstream) {
	if !slices.Contains(c.freed, u) {
		c.freed = append(c.freed, u)
	}
}

// kind is the kind of connection upstream that the client's streams go to.
func (c *client) kind() kind {
	if c.cancels > mostCancels {
		return kindBad
	}
	return kindGood
}

// hold takes note that so much more waits in the queues of the streams.
func (c *client) hold(n int) {
	if n != 0 {
		c.held += n
		c.sw.held.Add(int64(n))
	}
}

// depth is how far an upstream may be ahead of the client on a stream that
// needs credit: Window, unless so much is lent already that it must do with
// what every stream has.
func (c *client) depth() int64 {
	l := &c.sw.limits
	if c.lent > int64(l.ConnWindow) || c.sw.held.Load() > l.Memory {
		return trunkWindow
	}
	return int64(l.Window)
}

// failLocked ends the connection at once. Its reader does the rest.
func (c *client) failLocked(err error) {
	if c.err == nil {
		c.err = err
		c.drained.Broadcast()
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
	}
}

// goAwayLocked begins to end the connection: streams that the client opens
// until it has got the news are still served (RFC 9113, 6.8).
func (c *client) goAwayLocked() {
	if c.state != stateOpen {
		return
	}
	c.state = stateDrain
	c.out = frame.AppendGoAway(c.out, frame.MaxStream, frame.NoError, "")
	c.out = frame.AppendPing(c.out, false, drainPing)
}

// lastGoAway says what was served. The connection ends with its last stream.
func (c *client) lastGoAway() {
	if c.goneAway {
		return
	}
	c.goneAway, c.served = true, c.last
	c.out = frame.AppendGoAway(c.out, c.last, frame.NoError, "")
	c.maybeDone()
}

// toldTime is how long clients may take to hear that a drain has not waited for them.
const toldTime = 500 * time.Millisecond

// endAll answers all streams in their servers' place, because nobody waits for those any
// more: the connection ends when the client has that.
func (c *client) endAll() {
	c.mu.Lock()
	list := make([]*stream, 0, len(c.streams))
	for _, s := range c.streams {
		list = append(list, s)
	}
	for _, s := range list {
		s.giveUp(frame.Cancel, goingAway)
	}
	for _, b := range c.backs {
		b.publish()
	}
	if c.state != stateOpen { // otherwise it has not begun to end
		c.lastGoAway()
	}
	c.unlock()
	c.kick()
}

// maybeDone ends a connection that went away when its last stream has ended.
func (c *client) maybeDone() {
	if c.goneAway && len(c.streams) == 0 && c.state != stateClose {
		c.state = stateClose
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
	}
}

const (
	lingerTime  = time.Second
	lingerBytes = 1 << 20
)

// finish ends the connection: the client is told why, the servers are let go,
// and nothing of the connection is left when it returns.
func (c *client) finish(err error) {
	var bad *frame.Error
	c.mu.Lock()
	if c.fatal != nil {
		err = c.fatal
	}
	told := c.err == nil && (errors.As(err, &bad) || c.state == stateClose || errors.Is(err, errDone))
	if bad != nil && c.err == nil {
		last := c.last
		if c.goneAway {
			last = c.served // it must not grow
		}
		c.out = frame.AppendGoAway(c.out, last, bad.Code, bad.Why)
		c.sw.ended(c, bad)
	}
	c.state = stateClose
	for _, s := range c.streams {
		s.reset(frame.Cancel, sideServer)
	}
	for _, b := range c.backs {
		b.closeLocked()
	}
	c.unlock()
	if told {
		c.linger()
	}
	c.mu.Lock()
	c.failLocked(cmp.Or(err, io.EOF))
	c.mu.Unlock()
	_ = c.nc.Close() // an error would be the client's
	c.work.Wait()
}

// linger writes what is left, closes our side and reads on for a moment:
// unread input would turn the close into a reset, and what was said last
// would be lost.
func (c *client) linger() {
	end := time.Now().Add(lingerTime)
	c.mu.Lock()
	if c.err == nil { // not cut off meanwhile
		_ = c.nc.SetDeadline(end)
	}
	c.mu.Unlock()
	c.flush()
	c.mu.Lock()
	for c.writing && c.err == nil {
		c.drained.Wait() // the write has a deadline
	}
	failed := c.err != nil
	if !failed {
		_ = c.nc.SetReadDeadline(end)
	}
	c.mu.Unlock()
	if failed {
		return
	}
	if cw, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = cw.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
}
