package ws

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneport-edge/oneport/protocols/ws/frame"
)

// lane is one side of an aware tunnel: a connection, and what goes out on it.
type lane struct {
	t      *aware
	conn   net.Conn
	server bool // the peer is a server: frames of ours have a mask

	heard  atomic.Int64 // when something came from it, on the Server's clock
	moved  atomic.Int64 // when a piece of a message came from it; the same
	queued atomic.Bool  // queue is not empty
	saying atomic.Bool  // says is not empty

	// w is held by who writes to conn, and guards what follows. It comes before aware.mu.
	w     sync.Mutex
	until int64 // the write deadline that is set, on the Server's clock
	mid   bool  // what was written ends within a frame
	open  bool  // it ends within a message, or nobody knows
	shut  bool  // a close frame was written, or writing failed: nothing follows
	sent  int64 // bytes

	// aware.mu guards what follows.
	queue  []byte // frames that wait for one of others to end
	says   []byte // messages that wait for one of others to end
	closed bool   // a close frame was written, or waits: nothing may be added
	told   bool   // it was written
	asked  bool   // a close frame came from the peer
	code   int    // what that said
	gone   bool   // nothing more comes from it
	since  int64  // when a ping of ours was written last that no pong has come for; 0 for none
	pinged int64  // just before our ping was written that nothing has come after; 0 for none
	waits  int64  // since when an answer to it is waited for: when it was written
	ping   bool   // one is in queue
}

// pass writes frames that came from the other side. The first head bytes of p go on
// with a frame that began before; mid says that p ends within one, and open that it ends
// within a message.
func (l *lane) pass(p []byte, head int, mid, open bool, now int64) {
	l.w.Lock()
	l.passLocked(p, head, mid, open, now)
	l.w.Unlock()
	if l.queued.Load() || l.saying.Load() { // since passLocked has looked
		l.push(now)
	}
}

func (l *lane) passLocked(p []byte, head int, mid, open bool, now int64) {
	if l.queued.Load() {
		l.writeLocked(p[:head], now)
		p = p[head:]
		l.mid = mid && len(p) == 0
		l.open = open || len(p) > 0
		l.flushLocked(now)
	}
	if len(p) > 0 {
		l.writeLocked(p, now)
		l.mid, l.open = mid, open
		l.flushLocked(now)
	}
}

// push writes what waits, unless somebody writes, who will do it then, or a frame has
// not ended, or for messages a message.
func (l *lane) push(now int64) {
	for open := false; l.queued.Load() || !open && l.saying.Load(); {
		if !l.w.TryLock() {
			return
		}
		l.flushLocked(now)
		mid := l.mid
		open = l.open
		l.w.Unlock()
		if mid {
			return
		}
	}
}

// flushLocked writes what waits, between frames, and between messages.
func (l *lane) flushLocked(now int64) {
	says := !l.open && l.saying.Load()
	if l.mid || !says && !l.queued.Load() {
		return
	}
	l.t.mu.Lock()
	q, last, ping := l.queue, l.closed, l.ping
	if says {
		q, l.says = append(l.says, q...), nil // a close frame comes last
		l.saying.Store(false)
	}
	l.queue, l.ping = nil, false
	l.queued.Store(false)
	asked := l.t.server.now() // a peer may answer before the write returns
	if ping {
		l.since = asked
	}
	l.t.mu.Unlock()

	l.writeLocked(q, now)
	failed := l.shut
	l.shut = l.shut || last
	l.t.mu.Lock()
	if ping && !last {
		l.pinged, l.waits = max(1, asked), l.t.server.now()
	}
	over := false
	if last && !failed {
		l.told, over = true, l.asked
	}
	l.t.mu.Unlock()
	if over {
		_ = l.conn.Close()
	}
}

// writeLocked writes p within tunnelWrite, more or less, see timed. A connection
// that does not take it is of no use any more.
func (l *lane) writeLocked(p []byte, now int64) {
	if l.shut || len(p) == 0 {
		return
	}
	var err error
	if l.until-now < int64(tunnelWrite*3/4) {
		l.until = now + int64(tunnelWrite)
		err = l.conn.SetWriteDeadline(time.Now().Add(tunnelWrite))
	}
	var n int
	if err == nil {
		n, err = l.conn.Write(p)
		l.sent += int64(n)
	}
	if err != nil {
		l.shut = true
		l.t.failed(err)
		_ = l.conn.Close() // who reads it finds out
	}
}

// addLocked adds a frame of ours, or the peer's close, to what waits. It reports false if
// nothing may be added.
func (l *lane) addLocked(op byte, payload []byte) bool {
	if l.closed || l.t.ended {
		return false
	}
	var mask *[4]byte
	if l.server {
		mask = newMask()
	}
	l.queue = frame.Append(l.queue, op, payload, mask)
	l.closed = op == frame.Close
	l.queued.Store(true)
	return true
}

// saysMost is how much of the tunnel's own messages may wait for a message of others to end.
const saysMost = 4 << 10

// pushLaterLocked is push in a goroutine, for those who must not wait for a peer.
func (l *lane) pushLaterLocked() {
	if (l.queued.Load() || l.saying.Load()) && !l.t.ended {
		l.t.work.Go(func() { l.push(l.t.server.now()) })
	}
}
