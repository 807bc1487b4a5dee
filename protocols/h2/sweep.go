package h2

import (
	"errors"
	"time"

	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// errStuck ends a connection whose client does not read.
var errStuck = errors.New("h2: the client does not read")

// errSilent ends a connection whose client gives no sign of life.
var errSilent = errors.New("h2: the client is silent")

// sweep looks at all timeouts of a connection: tick has passed since the last
// time. It reports how many bytes wait for the client, or for its servers.
func (c *client) sweep(tick time.Duration) (waits int) {
	c.mu.Lock()
	if c.state != stateClose && c.err == nil {
		c.sweepLocked(tick)
		if waits = c.held + len(c.out); c.stuck > 0 {
			waits += c.taken
		}
	}
	c.unlock()
	c.kickLater()
	return waits
}

func (c *client) sweepLocked(tick time.Duration) {
	l := &c.sw.limits
	past := func(ticks int, d time.Duration) bool { return time.Duration(ticks)*tick > d }
	c.heard++
	if c.cancels > 0 {
		c.cancels -= max(1, int(int64(c.cancels)*int64(tick)/int64(10*time.Second)))
	}
	c.nuisance = max(0, c.nuisance-max(1, int(int64(l.Nuisance)*int64(tick)/int64(10*time.Second))))
	c.pingsInRow = max(0, c.pingsInRow-max(1, int(int64(l.Nuisance)*int64(tick)/int64(10*time.Second))))
	if c.in.stream != 0 || c.partial {
		if c.blockOpen++; past(c.blockOpen, l.HeaderTimeout) {
			c.dieLocked(frame.Err(frame.EnhanceYourCalm, "a header block that does not end"))
			return
		}
	}
	wrote := c.wrote.Load()
	if c.writing && wrote != c.seen {
		c.heard = 0 // it takes what it gets; a PING may be far behind that
	}
	if !c.writing || wrote != c.seen {
		c.seen, c.stuck = wrote, 0
	} else if c.stuck++; l.Write > 0 && past(c.stuck, l.Write) {
		c.failLocked(errStuck)
		c.work.Go(func() { _ = c.nc.SetDeadline(time.Unix(1, 0)) }) // ends the write
		return
	}
	if len(c.streams) > 0 {
		c.sweepBusy(past)
	} else {
		c.sweepIdle(past)
	}
	for _, b := range c.backs {
		if b.count > 0 {
			b.idle = 0
		} else if b.idle++; past(b.idle, l.BackIdle) || b.idle > 1 && c.sw.backs.Load() > mostIdleBacks {
			b.closeLocked()
		}
		b.publish()
	}
	if c.state == stateDrain {
		if c.leaving++; past(c.leaving, time.Second) {
			c.lastGoAway()
		}
	}
}

// sweepBusy asks a silent client with streams for a sign of life.
func (c *client) sweepBusy(past func(int, time.Duration) bool) {
	l := &c.sw.limits
	c.bare = 0
	c.sweepStreams(past)
	if past(c.heard, l.PingAfter) && !c.pinged {
		c.pinged = true
		c.out = frame.AppendPing(c.out, false, keepalive)
	}
	if c.pinged && past(c.heard, l.PingAfter+l.PingTimeout) {
		c.failLocked(errSilent)
	}
}

// sweepStreams ends HTTP requests upstream that stand still: whose client sends
// nothing more of them, though it may, or whose server does not answer. gRPC calls may
// rest, and what is in this process looks after itself.
func (c *client) sweepStreams(past func(int, time.Duration) bool) {
	l := &c.sw.limits
	for _, s := range c.streams {
		if s.relay != nil && s.grpc && s.relay.Timeout > 0 {
			if s.age++; past(s.age, s.relay.Timeout) {
				s.giveUp(frame.Cancel, pastDeadline)
			}
			continue
		}
		if s.pool == nil && !s.handled || s.grpc || s.up.cut || s.started && s.up.ended {
			continue
		}
		slow := !s.up.ended && s.up.Credit() > 0
		if slow && s.trickles(past) {
			s.giveUp(frame.Cancel, bodyIdle)
			continue
		}
		if moved := s.up.Received() + s.up.Sent(); moved != s.moved {
			s.moved, s.quiet = moved, 0
			continue
		}
		s.quiet++
		switch {
		case slow && past(s.quiet, l.BodyIdle):
			s.giveUp(frame.Cancel, bodyIdle)
		case !slow && !s.started && past(s.quiet, s.answerTimeout()):
			s.giveUp(frame.Cancel, noAnswer)
		}
	}
}

// sweepIdle ends a connection that is of no use, and makes one that is idle
// hold nothing.
func (c *client) sweepIdle(past func(int, time.Duration) bool) {
	l := &c.sw.limits
	if c.bare++; c.writing {
		c.bare = 0 // the last answer is on its way
	} else {
		c.spare, c.free, c.block = nil, nil, nil
		if c.in.stream == 0 {
			c.in.fields = nil
			c.request = Request{}
		}
		if len(c.out) == 0 {
			c.out = nil
		}
	}
	if !c.settled && past(c.bare, l.HeaderTimeout) {
		c.dieLocked(frame.Err(frame.SettingsTimeout, "no preface in time"))
	} else if past(c.bare, l.Idle) {
		c.lastGoAway()
	}
}

// trickles reports whether the client sends a body more slowly than it may. It is
// asked at each look while the client may send.
func (s *stream) trickles(past func(int, time.Duration) bool) bool {
	l := &s.c.sw.limits
	if s.slow++; l.BodyRate <= 0 || !past(s.slow, l.BodyIdle) {
		return false
	}
	came := s.up.Received() - s.mark
	s.slow, s.mark = 0, s.up.Received()
	return came < int64(float64(l.BodyRate)*l.BodyIdle.Seconds())
}

// answerTimeout is how long an HTTP request may wait for its answer.
func (s *stream) answerTimeout() time.Duration {
	if s.relay != nil && s.relay.AnswerTimeout > 0 {
		return s.relay.AnswerTimeout
	}
	return s.c.sw.limits.Answer
}
