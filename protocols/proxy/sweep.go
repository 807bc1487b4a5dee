package proxy

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"time"
)

// conn is a connection to the server. While it has a request it is that one's
// alone; the client's sweeper looks at it.
type conn struct {
	nc     net.Conn
	peeker peeker
	used   bool // it has had a request before

	// For the sweeper.
	reading atomic.Uint32 // a phase
	writing atomic.Uint32 // another
	moved   atomic.Uint32 // steps so far
	end     atomic.Uint32 // why it was ended
	answer  atomic.Int64  // how long the head of the answer may take, a time.Duration

	// Guarded by Client.mu.
	prev, next *conn
	ctx        context.Context //nolint:containedctx // of the request that has it
	seen       uint32          // moved, at the last look
	quiet      int64           // looks since it has moved
	since      int64           // the look at which it became idle
}

func newConn(nc net.Conn) *conn {
	cn := &conn{nc: nc}
	cn.peeker.init(nc)
	return cn
}

// What a request does with its connection.
const (
	phaseNone   uint32 = iota // nothing, or it waits for the client
	phaseHead                 // waits for the head of the answer
	phaseBody                 // waits for its body
	phaseSend                 // waits for the server to take something
	phaseClient               // waits for the client to send more of the body
)

// Why a connection was ended.
const (
	endNone    uint32 = iota
	endLeft           // the client has left
	endAnswer         // the server took too long to answer
	endBody           // or to go on
	endSend           // or to take something
	endClosed         // by Client.Close
	endStopped        // its request is over
)

// endLocked ends what waits on the connection, now and later.
func (cn *conn) endLocked(why uint32) {
	if cn.end.CompareAndSwap(endNone, why) {
		_ = cn.nc.SetDeadline(time.Unix(1, 0)) // a dead one says so itself
	}
}

func (cn *conn) close() { _ = cn.nc.Close() } // nothing is lost any more

// read reads in a phase.
func (cn *conn) read(p []byte, phase uint32) (int, error) {
	cn.reading.Store(phase)
	n, err := cn.nc.Read(p)
	cn.reading.Store(phaseNone)
	cn.moved.Add(1)
	return n, err
}

// write writes all of p.
func (cn *conn) write(p []byte) (int, error) {
	cn.writing.Store(phaseSend)
	n, err := cn.nc.Write(p)
	cn.writing.Store(phaseNone)
	cn.moved.Add(1)
	return n, err
}

// looksEvery is how often the sweeper looks: an eighth of the shortest timeout,
// and at most 100 ms, which is how long a client may have left unnoticed.
func (c *Client) looksEvery() time.Duration {
	shortest := min(c.Idle, c.Answer, c.SendIdle, 800*time.Millisecond)
	if c.AnswerIdle > 0 {
		shortest = min(shortest, c.AnswerIdle)
	}
	return max(shortest/8, time.Millisecond)
}

// sweepLocked starts the sweeper, unless it runs.
func (c *Client) sweepLocked() {
	switch {
	case c.sweeping:
	case c.timer == nil:
		c.timer = time.AfterFunc(c.tick, c.sweep)
	default:
		c.timer.Reset(c.tick)
	}
	c.sweeping = true
}

// sweep looks at all timeouts, while there are connections: a deadline for each read
// and write would cost as much as the rest.
func (c *Client) sweep() {
	for _, cn := range c.look() {
		cn.close()
	}
}

// look returns the connections that have been idle for too long.
func (c *Client) look() (old []*conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.looks++
	for cn := c.busy; cn != nil; cn = cn.next {
		c.lookLocked(cn)
	}
	n := 0
	for n < len(c.idle) && time.Duration(c.looks-c.idle[n].since)*c.tick > c.Idle {
		n++
	}
	if n > 0 {
		old = slices.Clone(c.idle[:n])
		c.idle = slices.Delete(c.idle, 0, n)
		c.open -= n
	}
	if c.sweeping = c.busy != nil || len(c.idle) > 0; c.sweeping {
		c.timer.Reset(c.tick)
	}
	return old
}

// lookLocked ends a request whose client has left, or whose server takes too long.
func (c *Client) lookLocked(cn *conn) {
	if cn.ctx.Err() != nil {
		cn.endLocked(endLeft)
		return
	}
	var most time.Duration
	var why uint32
	switch reading, writing := cn.reading.Load(), cn.writing.Load(); {
	case writing == phaseSend:
		most, why = c.SendIdle, endSend
	case writing == phaseClient: // which is for the client's side to bound
	case reading == phaseHead:
		most, why = time.Duration(cn.answer.Load()), endAnswer
	case reading == phaseBody:
		most, why = c.AnswerIdle, endBody
	}
	if moved := cn.moved.Load(); moved != cn.seen || most == 0 {
		cn.seen, cn.quiet = moved, 0
		return
	}
	if cn.quiet++; time.Duration(cn.quiet)*c.tick > most {
		cn.endLocked(why)
	}
}
