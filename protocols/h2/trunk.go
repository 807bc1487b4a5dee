package h2

import (
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols/h2/flow"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// trunk is a connection upstream, with streams of many clients. Its lock comes
// after theirs: what it reads it reads without, finds the stream, and locks
// that one's client.
type trunk struct {
	socket // its lock guards all below, up to the reader's own
	up     *Upstream
	kind   kind

	streams map[uint32]ref
	next    uint32 // id of the next stream
	waiting []ref  // halves that wait for connection credit, or for the upstream to read
	due     bool   // somebody is about to flush
	nextDue *trunk // belongs to who that is
	limit   uint32 // how many streams it may have
	going   bool   // goOn is at work
	away    bool   // the upstream has sent GOAWAY, or there are no more ids
	dead    bool
	idle    int // ticks without a stream
	stuck   int // ticks since the last write made progress
	seen    uint64
	answers int    // to PINGs and SETTINGS, since something was written
	came    uint64 // reads, at the last look
	silent  int    // ticks since the last one, while there are streams
	pinged  bool   // a PING of ours is not answered yet

	reads atomic.Uint64

	count atomic.Int32 // len(streams)
	room  atomic.Int32 // limit, or 0 if it takes no more

	opened, retired bool // guarded by up.mu

	// The reader's own.
	origin
	held    *client   // locked
	touched []*client // that have got something from what was read last
	settled bool      // SETTINGS have come
	ready   bool      // and the pool knows
	grown   bool      // there is room for more streams
	leaving bool      // away is new
}

// ref names a stream of a client that is not locked.
type ref struct {
	c  *client
	s  *stream
	id uint32 // the upstream's
}

// trunkWindow is the window of a stream toward upstreams: what they may send
// before the client has taken any of it.
const trunkWindow = 32 << 10

// trunkConnWindow is the window of the connection. It is given back at once:
// the streams' windows bound what a client may hold.
const trunkConnWindow = 4 << 20

// longestBlock is how long a header block may be, as it comes, before the connection ends.
const longestBlock = 1 << 20

// lastID is when a connection is replaced for want of stream ids.
const lastID = frame.MaxStream - 2

func newTrunk(u *Upstream, nc net.Conn, k kind) *trunk {
	t := &trunk{up: u, kind: k, streams: make(map[uint32]ref), next: 1, limit: uint32(u.limits.Streams)}
	t.attach(nc, t)
	t.link = newLink(&u.linking, trunkConnWindow, false)
	t.trunk = t
	t.in.bear(longestBlock)
	t.conn, t.server = &t.link, t
	t.out = append(t.out, frame.Preface...)
	t.open(
		frame.Setting{ID: frame.EnablePush, Value: 0},
		frame.Setting{ID: frame.InitialWindowSize, Value: trunkWindow},
		frame.Setting{ID: frame.MaxHeaderListSize, Value: uint32(u.linking.HeaderBytes)},
	)
	return t
}

var (
	// errRetired ends a connection that was no longer needed, or was ended by GOAWAY.
	errRetired = errors.New("h2: the connection is no longer needed")
	// errNoHTTP2 is what a server sends that speaks something else.
	errNoHTTP2 = errors.New("h2: the server does not speak HTTP/2")
)

// serve reads until the connection is over. SETTINGS must come by the deadline.
func (t *trunk) serve(deadline time.Time) error {
	t.setDeadline(deadline)
	t.flush()
	err := t.read()
	t.mu.Lock()
	if t.err != nil {
		err = t.err
	}
	t.mu.Unlock()
	t.fail(err)
	_ = t.nc.Close() // whatever it says: nothing is lost any more
	t.work.Wait()
	return err
}

// setDeadline sets the deadline, unless the connection was cut off.
func (t *trunk) setDeadline(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		_ = t.nc.SetDeadline(at) // a dead one says so itself
	}
}

func (t *trunk) read() error {
	buf := make([]byte, 64<<10)
	for first := true; ; first = false {
		n, err := t.nc.Read(buf)
		if n > 0 {
			t.reads.Add(1)
			if first && n > 3 && buf[3] != byte(frame.Settings) {
				return errNoHTTP2
			}
			bad := t.take(buf[:n])
			t.letGo()
			t.afterRead()
			if bad != nil {
				return bad
			}
		}
		if over := t.over(err != nil); over != nil {
			return over
		}
		if err != nil {
			return err
		}
	}
}

// over reports why the connection has to end now: it has been told to go and has
// no streams, or the upstream asks for answers that it does not read. What is
// still to be written leaves before, unless nothing more is read.
func (t *trunk) over(deaf bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.doneLocked() && !t.writing || deaf && t.away && len(t.streams) == 0:
		return errRetired
	case t.answers > mostAnswers:
		return errStuckUpstream
	}
	return nil
}

// mostAnswers is how many PINGs and SETTINGS an upstream may send that does not
// read the answers.
const mostAnswers = 10_000

// used reports whether the connection has had a stream.
func (t *trunk) used() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next > 1
}

// afterRead sees to it that what came out of what was read leaves. No lock is held.
func (t *trunk) afterRead() {
	for i, c := range t.touched {
		c.kick()
		t.touched[i] = nil
	}
	t.touched = t.touched[:0]
	switch grown := t.grown; {
	case t.settled && !t.ready:
		t.ready = true
		t.setDeadline(time.Time{})
		t.up.ready(t)
	case grown:
		t.up.serve()
	}
	t.grown = false
	if t.leaving {
		t.leaving = false
		if t.used() { // else it ends at once
			t.up.retire(t)
		}
	}
	t.kick()
	t.goOn()
}

// stream finds the stream, and locks its client.
func (t *trunk) stream(id uint32) *stream {
	t.mu.Lock()
	r, ok := t.streams[id]
	t.mu.Unlock()
	if !ok {
		return nil
	}
	if t.held != r.c {
		t.letGo()
		r.c.mu.Lock()
		t.held = r.c
	}
	return t.of(r)
}

// of returns the stream that r means if it still is, now that its client is locked.
func (t *trunk) of(r ref) *stream {
	if s := r.s; !s.gone && !s.parted && s.origin == &t.origin && s.far == r.id {
		return s
	}
	return nil
}

// letGo unlocks the client that stream has locked.
func (t *trunk) letGo() {
	c := t.held
	if c == nil {
		return
	}
	t.held = nil
	if len(c.out) > 0 && !slices.Contains(t.touched, c) {
		t.touched = append(t.touched, c)
	}
	c.unlock()
}

// begin opens a stream. Its client is locked. It reports false if the
// connection takes no more.
func (t *trunk) begin(s *stream, fields []hpack.HeaderField, end bool) bool {
	t.mu.Lock()
	if t.away || t.dead || t.count.Load() >= t.room.Load() {
		t.mu.Unlock()
		return false
	}
	if len(t.out) > outMost { // heads, which no window bounds
		t.mu.Unlock()
		s.reply(overloaded)
		return true
	}
	if t.tooLarge(fields) {
		t.mu.Unlock()
		s.reply(headersTooLarge)
		return true
	}
	s.origin, s.far = &t.origin, t.next
	t.next += 2
	last := t.next >= lastID
	if last {
		t.away = true
		t.room.Store(0)
	}
	t.streams[s.far] = ref{s.c, s, s.far}
	t.count.Add(1)
	t.idle = 0
	s.up.to = &t.link
	s.up.Allow(t.window)
	s.down.from = &t.link
	s.down.Half = flow.New(s.down.Room(), trunkWindow, int64(s.c.sw.limits.Window))
	s.c.lent += s.down.Lent()
	t.head(s.far, fields, end, 0)
	t.link.unlock(s.c)
	if last {
		t.up.retire(t)
	}
	s.c.share(t.up).open++
	s.up.pump(len(s.up.queue))
	return true
}

// left takes note that a stream has ended. Its client is locked.
func (t *trunk) left(s *stream) {
	s.c.share(t.up).open--
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.streams, s.far)
	t.count.Add(-1)
	t.idle = 0
	if t.doneLocked() && !t.writing {
		t.wakeLocked()
	}
}

// doneLocked reports whether the connection was told to go, and has neither
// streams nor anything to write.
func (t *trunk) doneLocked() bool { return t.away && len(t.streams) == 0 && len(t.out) == 0 }

// wakeLocked wakes the reader, which ends the connection.
func (t *trunk) wakeLocked() { _ = t.nc.SetReadDeadline(time.Unix(1, 0)) }

// heard takes note that the client has got something: clients that measure the
// network send a PING for that.
func (t *trunk) heard(s *stream) { s.c.sent() }

// received gives connection credit back for what has come.
func (t *trunk) received(n int) {
	t.recv.Send(n)
	if n := t.recv.Grant(); n > 0 {
		t.mu.Lock()
		t.out = frame.AppendWindowUpdate(t.out, 0, uint32(n))
		t.mu.Unlock()
	}
}

func (t *trunk) ping(ack bool, data [8]byte) {
	if ack {
		return
	}
	t.mu.Lock()
	t.answers++
	t.out = frame.AppendPing(t.out, true, data)
	t.mu.Unlock()
}

// settings takes the upstream's SETTINGS. Streams that are begun meanwhile
// have the new window from the start: both happens under the lock.
func (t *trunk) settings(p []byte) error {
	t.letGo()
	t.mu.Lock()
	var delta int64
	var open []ref
	for ; len(p) > 0; p = p[6:] {
		switch set := frame.ParseSetting(p); set.ID {
		case frame.HeaderTableSize:
			t.enc.SetTableSize(set.Value)
		case frame.MaxConcurrentStreams:
			t.limit = min(set.Value, uint32(t.up.limits.Streams))
		case frame.MaxHeaderListSize:
			t.most = int64(set.Value)
		case frame.InitialWindowSize:
			if set.Value > frame.MaxWindow {
				t.mu.Unlock()
				return errOrigin
			}
			delta += int64(set.Value) - t.window
			t.window = int64(set.Value)
		}
	}
	t.settled = true
	if room := int32(t.limit); !t.away && t.stuck <= mostStuck && room != t.room.Load() {
		t.grown = room > t.room.Load()
		t.room.Store(room)
		if room > 0 {
			t.up.most.Store(room)
		}
	}
	if delta != 0 {
		open = t.refsLocked()
	}
	t.mu.Unlock()
	for _, r := range open {
		r.c.mu.Lock()
		if s := t.of(r); s != nil && !s.up.allow(delta) {
			s.malformed()
		}
		r.c.unlock()
		r.c.kick()
	}
	t.mu.Lock()
	t.answers++
	t.out = frame.AppendSettingsAck(t.out) // no stream uses its old window behind it
	t.mu.Unlock()
	return nil
}

func (t *trunk) refsLocked() []ref {
	list := make([]ref, 0, len(t.streams))
	for _, r := range t.streams {
		list = append(list, r)
	}
	return list
}

// credit takes note of connection credit.
func (t *trunk) credit(n int64) error {
	t.letGo()
	t.mu.Lock()
	ok := t.send.Allow(n)
	t.mu.Unlock()
	if !ok {
		return errOrigin
	}
	t.goOn()
	return nil
}

// goOn lets those halves go on that wait, as far as there is room: each sends a
// frame at most in its turn. No lock is held.
func (t *trunk) goOn() {
	t.mu.Lock()
	if t.going { // whoever does it looks again before it stops
		t.mu.Unlock()
		return
	}
	t.going = true
	for {
		if len(t.waiting) == 0 || t.send.Room() <= 0 || len(t.out) >= highWater {
			t.going = false
			t.mu.Unlock()
			return
		}
		r := t.waiting[0]
		t.waiting[0] = ref{}
		t.waiting = t.waiting[1:]
		t.mu.Unlock()
		r.c.mu.Lock()
		if s := t.of(r); s != nil {
			s.up.waits = false
			s.up.pump(frame.MaxLen)
		}
		r.c.unlock()
		r.c.kick() // it may send more
		t.mu.Lock()
	}
}

// goAway takes the upstream's GOAWAY: streams that it did not take are refused,
// which tells clients that they may be tried again (RFC 9113, 6.8 and 8.7).
func (t *trunk) goAway(last uint32, code frame.Code, why string) {
	t.letGo()
	t.mu.Lock()
	t.away, t.leaving = true, true
	t.room.Store(0)
	open := t.refsLocked()
	t.mu.Unlock()
	if code != frame.NoError {
		t.up.log.Warn("upstream sent GOAWAY", "upstream", t.up.Name, "code", code, "why", why)
	}
	for _, r := range open {
		if r.id <= last {
			continue
		}
		r.c.mu.Lock()
		if s := t.of(r); s != nil {
			if s.started {
				s.malformed()
			} else {
				s.reset(frame.RefusedStream, sideClient)
			}
		}
		r.c.unlock()
		r.c.kick()
	}
}

// fail ends the connection: its streams are answered.
func (t *trunk) fail(err error) {
	t.letGo()
	t.mu.Lock()
	t.dead, t.away = true, true
	t.room.Store(0)
	if t.err == nil {
		t.err = err
	}
	open := t.refsLocked()
	t.mu.Unlock()
	for _, r := range open {
		r.c.mu.Lock()
		if s := t.of(r); s != nil {
			s.lose()
		}
		r.c.unlock()
		r.c.kick()
	}
}

// lose answers a stream whose server has gone.
func (s *stream) lose() {
	if s.down.ended {
		s.stop() // the answer is whole; the rest of the request goes nowhere
	} else {
		s.reply(broken)
	}
	s.part()
}

// cut ends the connection at once. Its reader does the rest.
func (t *trunk) cut(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
	_ = t.nc.SetDeadline(time.Unix(1, 0)) // a dead one says so itself
}

// written takes note that bytes have left.
func (t *trunk) written(err error) {
	t.answers = 0
	if err != nil && t.err == nil {
		t.err = err
		t.wakeLocked()
	}
	if t.doneLocked() {
		t.wakeLocked()
	}
}

// unlock frees the lock, and lets those go on that have waited for the upstream to read.
func (t *trunk) unlock() {
	more := len(t.waiting) > 0
	t.mu.Unlock()
	if more {
		t.goOn()
	}
}

// flushNext writes what the holder of a client's lock has appended, and
// returns the next connection that it has appended to.
func (t *trunk) flushNext() *trunk {
	t.mu.Lock()
	next := t.nextDue
	t.due, t.nextDue = false, nil
	t.mu.Unlock()
	t.kick()
	return next
}

// sweep looks at the timeouts: tick has passed since the last time.
func (t *trunk) sweep(tick time.Duration) {
	l := &t.up.limits
	past := func(ticks int, d time.Duration) bool { return time.Duration(ticks)*tick > d }
	t.mu.Lock()
	wrote := t.wrote.Load()
	if !t.writing || wrote != t.seen {
		if t.seen = wrote; t.stuck > mostStuck && !t.away {
			t.room.Store(int32(t.limit))
		}
		t.stuck = 0
	} else if t.stuck++; t.stuck > mostStuck {
		t.room.Store(0) // others are better off elsewhere
	}
	switch {
	case l.Write > 0 && past(t.stuck, l.Write):
		t.mu.Unlock()
		t.cut(errStuckUpstream)
		return
	case len(t.streams) > 0 || t.away:
		t.idle = 0
	default:
		t.idle++
	}
	if reads := t.reads.Load(); reads != t.came || len(t.streams) == 0 {
		t.came, t.silent, t.pinged = reads, 0, false
	} else {
		t.silent++
	}
	switch {
	case l.Ping <= 0 || !past(t.silent, l.Ping):
	case !t.pinged:
		t.pinged = true
		t.out = frame.AppendPing(t.out, false, keepalive)
	case past(t.silent, l.Ping+l.PingTimeout):
		t.mu.Unlock()
		t.cut(errSilentUpstream)
		return
	}
	leave := past(t.idle, l.Idle) && !t.up.isWarm()
	if leave {
		t.away = true
		t.room.Store(0)
		t.out = frame.AppendGoAway(t.out, 0, frame.NoError, "")
	}
	t.mu.Unlock()
	t.kick()
	if leave {
		t.up.retire(t)
	}
}

// isWarm reports whether there are no more connections than are kept.
func (u *Upstream) isWarm() bool {
	n, _ := u.conns(kindGood)
	return n <= u.limits.Warm
}

// isStuck reports whether the upstream has not read for a while.
func (t *trunk) isStuck() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stuck > mostStuck
}

// mostStuck is how many ticks a write may take before the connection gets no
// more streams until it has come to an end.
const mostStuck = 2

// errSilentUpstream ends a connection whose upstream does not answer a PING.
var errSilentUpstream = errors.New("h2: the upstream does not answer a PING")

// errStuckUpstream ends a connection whose upstream does not read.
var errStuckUpstream = errors.New("h2: the upstream does not read")
