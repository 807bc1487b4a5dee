package ws

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws/frame"
)

// aware is a tunnel that sees frames. Two goroutines move them, one for each
// direction; what the tunnel itself has to say is written between them, by whoever
// holds lane.w.
type aware struct {
	server *Server
	opts   Relay
	count  *counter
	call   *protocols.Call // nil outside of a port
	inband *inband         // nil unless the client has asked for it
	client lane
	up     lane
	down   flow           // up to client
	rise   flow           // client to up
	work   sync.WaitGroup // goroutines that write what the tunnel says

	mu      sync.Mutex // guards the fields below, and those of lanes that say so
	closing bool       // Close was called
	ended   bool       // both directions have ended
	cut     bool       // sides that were told have had their time
	code    int        // how it ended: who says so first counts; 0 for not yet
	ours    bool       // code stands in a close frame of ours to the client
	end     ending
	err     error
	limit   *time.Timer // ends what does not end by itself; nil unless that has begun
	cutAt   int64       // when limit goes off
	keep    *time.Timer // looks for peers that are silent; nil without pings
}

// newAware makes a tunnel whose handshakes are done.
func newAware(s *Server, opts Relay, client, up net.Conn, d deflated) *aware {
	t := &aware{server: s, opts: opts, count: s.counter()}
	t.client = lane{t: t, conn: client}
	t.up = lane{t: t, conn: up, server: true}
	t.rise = flow{t: t, from: &t.client, to: &t.up, bucket: newBucket(opts.MessageRate, opts.MessageBurst), bytes: newBucket(opts.ByteRate, opts.ByteBurst)}
	t.down = flow{t: t, from: &t.up, to: &t.client}
	t.rise.check = frame.Checker{Masked: true, Deflate: d.on, MessageBytes: opts.MessageBytes}
	t.down.check = frame.Checker{Deflate: d.on, MessageBytes: opts.MessageBytes}
	t.rise.inflater.Takeover, t.down.inflater.Takeover = d.fromClient, d.fromUp
	now := s.now()
	t.client.heard.Store(now)
	t.client.moved.Store(now)
	t.up.heard.Store(now)
	t.rise.bucket.at, t.rise.bytes.at = now, now
	return t
}

// run is a tunnel from the upgrade to its end. ahead is what the client has sent behind
// its handshake, early the upstream.
func (t *aware) run(ahead, early []byte) {
	t.mu.Lock()
	if t.opts.PingEvery > 0 {
		t.keep = time.AfterFunc(t.opts.PingEvery, t.look)
	}
	t.mu.Unlock()
	if t.inband != nil {
		t.inband.start()
		t.client.push(t.server.now()) // or somebody writes it who has taken client.w
	}
	var other sync.WaitGroup
	other.Go(func() { t.down.run(early) })
	t.rise.run(ahead)
	other.Wait()

	t.mu.Lock()
	t.ended = true // nobody adds to work from now on
	for _, timer := range []*time.Timer{t.limit, t.keep} {
		if timer != nil {
			timer.Stop()
		}
	}
	t.mu.Unlock()
	_ = t.client.conn.Close() // who still writes gets an error
	_ = t.up.conn.Close()
	if t.inband != nil {
		t.inband.stop()
	}
	t.work.Wait()

	code, err := t.outcome()
	t.server.endTunnel(t, code, t.end)
	if t.call != nil {
		t.call.Finish(protocols.Result{Status: code, Sent: t.client.sent, Err: err})
	}
}

// outcome is how the tunnel ended, as the client was told.
func (t *aware) outcome() (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.code == 0 || t.code == CloseAbnormal || t.ours && !t.client.told:
		return CloseAbnormal, t.err
	case t.end == endUpstreamLost:
		return t.code, t.err // why it was lost
	}
	return t.code, nil
}

// endLocked takes note of how the tunnel ends.
func (t *aware) endLocked(code int, how ending) {
	if t.code == 0 {
		t.code, t.end = code, how
	}
}

// failLocked tells the client that the tunnel ends because of the upstream.
func (t *aware) failLocked(how ending, why string) {
	if t.client.addLocked(frame.Close, frame.ClosePayload(CloseInternal, why)) && t.code == 0 {
		t.ours = true
	}
	t.endLocked(CloseInternal, how)
}

// failed takes note of an error of a connection.
func (t *aware) failed(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
}

// boundLocked gives the tunnel no more time than wait.
func (t *aware) boundLocked(wait time.Duration) {
	at := t.server.now() + int64(wait)
	switch {
	case t.ended || t.limit != nil && t.cutAt <= at:
		return
	case t.limit == nil:
		t.limit = time.AfterFunc(wait, t.expire)
	default:
		t.limit.Reset(wait)
	}
	t.cutAt = at
}

// expire cuts off who was told to close and did not answer, and then all.
func (t *aware) expire() {
	t.mu.Lock()
	late := make([]net.Conn, 0, 2)
	if !t.cut && !t.ended {
		t.cut = true
		for _, l := range []*lane{&t.client, &t.up} {
			if l.told && !l.gone {
				late = append(late, l.conn)
			}
		}
		t.limit.Reset(boundaryWait)
	}
	t.mu.Unlock()
	if len(late) == 0 {
		t.abort()
	}
	for _, c := range late {
		_ = c.Close()
	}
}

// abort cuts the tunnel off.
func (t *aware) abort() {
	_ = t.up.conn.Close() // everybody who reads or writes now gets an error
	_ = t.client.conn.Close()
}

// Close ends the tunnel with a close frame to the client. What the client sends until
// it answers still goes to the upstream, and then its answer, so that both see a
// session that was closed.
func (t *aware) Close(code int, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing || t.ended {
		return
	}
	t.closing = true
	t.boundLocked(closeWait)
	if t.client.addLocked(frame.Close, frame.ClosePayload(code, reason)) {
		if t.code == 0 {
			t.ours = true
		}
		t.endLocked(code, endDrain)
		t.client.pushLaterLocked()
	}
}

// speak has the tunnel speak with its client about its credential. It is called before run.
func (t *aware) speak() { t.inband = newInband(t.call.Context(), t.call, t.say) }

// say sends the client a message of ours, between those of the upstream.
func (t *aware) say(text []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch l := &t.client; {
	case l.closed || t.ended:
	case len(l.says) > saysMost: // the upstream does not end its message, or the client does not read
		t.endLocked(CloseTryAgainLater, endClientTooMany)
		l.addLocked(frame.Close, frame.ClosePayload(CloseTryAgainLater, "messages to the port cannot be answered"))
		t.up.addLocked(frame.Close, frame.ClosePayload(CloseGoingAway, ""))
		t.boundLocked(closeWait)
		l.pushLaterLocked()
		t.up.pushLaterLocked()
	default:
		l.says = frame.Append(l.says, frame.Text, text, nil)
		l.saying.Store(true)
		l.pushLaterLocked()
	}
}

// violated ends the tunnel because of what from has sent: from is told so, and the
// other side that it was not its own doing.
func (t *aware) violated(f *flow, err error) {
	v, ok := errors.AsType[*frame.Error](err)
	if !ok {
		v = &frame.Error{Code: CloseInternal, Reason: "internal error"}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	how := endingOf(v.Code, f.from.server)
	t.endLocked(v.Code, how)
	f.from.addLocked(frame.Close, frame.ClosePayload(v.Code, v.Reason))
	f.to.addLocked(frame.Close, frame.ClosePayload(v.Code, "the other side: "+v.Reason))
	t.boundLocked(closeWait)
	f.from.pushLaterLocked()
	f.to.pushLaterLocked()
}

// asks takes a close frame from one side to the other.
func (t *aware) asks(f *flow, payload []byte, code int, now int64) {
	t.mu.Lock()
	f.from.asked, f.from.code = true, code
	t.endLocked(code, endClosed)
	f.to.addLocked(frame.Close, payload)
	over := f.from.told
	t.boundLocked(lingerWait)
	t.mu.Unlock()
	f.to.push(now)
	if over {
		_ = f.from.conn.Close()
	}
}

// left takes note that nothing more comes from one side.
func (t *aware) left(f *flow, err error) {
	if err != nil && !errors.Is(err, io.EOF) {
		t.failed(err)
	}
	t.mu.Lock()
	x, y := f.from, f.to
	x.gone = true
	drop := false
	switch {
	case y.closed:
	case y.asked: // x will not answer: then we do
		y.addLocked(frame.Close, frame.ClosePayload(y.code, ""))
	case x.closed: // it was told, and has left without an answer
		y.addLocked(frame.Close, frame.ClosePayload(CloseGoingAway, ""))
	case x.server:
		t.failLocked(endUpstreamLost, "the server is gone")
	default:
		t.endLocked(CloseAbnormal, endClientLost)
		drop = true
	}
	y.pushLaterLocked()
	t.boundLocked(closeWait)
	t.mu.Unlock()
	if drop {
		_ = y.conn.Close()
	}
}

// look pings who is silent, and ends the tunnel of one who stays it.
func (t *aware) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || t.closing || t.code != 0 { // it ends already, within its time
		return
	}
	now := t.server.now()
	next := t.opts.PingEvery
	for _, l := range []*lane{&t.client, &t.up} {
		silent := time.Duration(now - l.heard.Load())
		if l.pinged != 0 && l.heard.Load() >= l.pinged {
			l.pinged = 0
		}
		left := t.opts.PingEvery - silent
		switch {
		case l.pinged != 0:
			if left = t.opts.PongWait - time.Duration(now-l.waits); left <= 0 {
				t.deadLocked(l)
				return
			}
		case left <= 0 && l.ping: // it waits for a frame to end, or for the peer to read
			left = t.opts.PongWait
		case left <= 0:
			if l.ping = l.addLocked(frame.Ping, t.server.mark[:]); l.ping {
				l.pushLaterLocked()
			}
			left = t.opts.PongWait
		}
		next = min(next, left)
	}
	t.keep.Reset(max(next, time.Millisecond))
}

// ponged takes note of an answer to a ping of the tunnel's.
func (t *aware) ponged(l *lane, now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.since != 0 && !l.server {
		t.count.ponged(time.Duration(now - l.since))
	}
	l.since = 0
}

// deadLocked ends the tunnel of a peer that does not answer.
func (t *aware) deadLocked(l *lane) {
	const why = "no answer to a ping"
	if l.server {
		t.failLocked(endUpstreamDead, why)
	} else { // it is told, but does not hear it
		t.endLocked(CloseAbnormal, endClientDead)
		t.client.addLocked(frame.Close, frame.ClosePayload(CloseGoingAway, why))
	}
	t.up.addLocked(frame.Close, frame.ClosePayload(CloseGoingAway, ""))
	t.client.pushLaterLocked()
	t.up.pushLaterLocked()
	t.boundLocked(boundaryWait)
}

// newMask is a mask for a frame of ours: unpredictable, as RFC 6455, 5.3 wants it.
func newMask() *[4]byte {
	var m [4]byte
	binary.NativeEndian.PutUint32(m[:], rand.Uint32())
	return &m
}
