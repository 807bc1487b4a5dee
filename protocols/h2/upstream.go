package h2

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
)

// UpstreamConfig is what an Upstream needs.
type UpstreamConfig struct {
	// Name is what the log calls it.
	Name string
	// Dial opens a connection on which HTTP/2 is to be spoken: in plaintext, or
	// a *tls.Conn that has negotiated h2. One that does not wait when it writes
	// (nbio.Conn) spares a goroutine. Required.
	Dial func(context.Context) (net.Conn, error)
	// Limits bound what the upstream and its clients may cost.
	Limits UpstreamLimits
	// Log receives connections that fail, at Warn. Nil discards.
	Log *slog.Logger
}

// UpstreamLimits bound what an upstream may cost. Every zero value is a default.
type UpstreamLimits struct {
	// Conns bounds the connections. Zero means 16. Clients that cancel a lot get
	// up to a quarter more.
	Conns int
	// Warm is how many connections are kept open, also without streams. Zero
	// means none: the first call waits for one.
	Warm int
	// Streams bounds the concurrent streams of a connection, beside what the
	// upstream itself says. Zero means 100.
	Streams int
	// Waiting is how many streams may wait for a connection, or for their turn
	// on one. Zero means 1,024; more are answered 503, or UNAVAILABLE.
	Waiting int
	// Wait is how long they may. Zero means 5 s.
	Wait time.Duration
	// Connect is how long it may take to open a connection, to the upstream's
	// SETTINGS. Zero means 5 s.
	Connect time.Duration
	// Idle closes a connection without streams. Zero means 60 s.
	Idle time.Duration
	// Write is how long an upstream may take nothing of what is written to it.
	// Zero means 30 s, a negative value no limit.
	Write time.Duration
	// Ping is how long an upstream with streams may be silent before it is asked for a
	// sign of life, and PingTimeout how long it may take to that: then it is
	// gone, and its streams are answered 502, or UNAVAILABLE. Zero means 5m10s and 20 s,
	// because grpc-go, as it comes, ends connections that ask more often than each five minutes
	// (keepalive.EnforcementPolicy). A negative Ping never asks.
	Ping, PingTimeout time.Duration
	// HeaderBytes and HeaderFields bound the heads of answers. Zero means 64 KiB and 500.
	HeaderBytes, HeaderFields int
}

func (l UpstreamLimits) withDefaults() UpstreamLimits {
	l.Conns = cmp.Or(l.Conns, 16)
	l.Streams = cmp.Or(l.Streams, 100)
	l.Waiting = cmp.Or(l.Waiting, 1024)
	l.Wait = cmp.Or(l.Wait, 5*time.Second)
	l.Connect = cmp.Or(l.Connect, 5*time.Second)
	l.Idle = cmp.Or(l.Idle, 60*time.Second)
	l.Write = cmp.Or(l.Write, 30*time.Second)
	l.Ping = cmp.Or(l.Ping, 5*time.Minute+10*time.Second)
	l.PingTimeout = cmp.Or(l.PingTimeout, 20*time.Second)
	l.HeaderBytes = cmp.Or(l.HeaderBytes, 64<<10)
	l.HeaderFields = cmp.Or(l.HeaderFields, 500)
	return l
}

// tick is how often timeouts are looked at.
func (l *UpstreamLimits) tick() time.Duration {
	shortest := min(l.Wait, l.Idle, l.PingTimeout, 8*time.Second)
	if l.Ping > 0 {
		shortest = min(shortest, l.Ping)
	}
	if l.Write > 0 {
		shortest = min(shortest, l.Write)
	}
	return max(shortest/8, time.Millisecond)
}

// Upstream is a server elsewhere: its HTTP/2 connections, which the streams of
// all clients share. They are opened when they are needed. It is safe for
// concurrent use.
type Upstream struct {
	UpstreamConfig
	limits  UpstreamLimits
	linking Limits // of the links: what they may decode
	log     *slog.Logger
	work    sync.WaitGroup // connections, and the sweeper
	ctx     context.Context
	cancel  context.CancelFunc

	trunks  atomic.Pointer[[]*trunk] // those that may be used; replaced under mu
	waiters atomic.Int32             // len(waiting)
	most    atomic.Int32             // streams that a connection takes, as the last one said
	failed  atomic.Int64             // connections that could not be opened, or broke

	mu       sync.Mutex // guards all below; after the clients' locks, before the connections'
	all      []*trunk   // that are open
	waiting  []*ticket  // by rank
	opening  [kinds]int // connections that are being opened
	vain     time.Time  // when one was opened in vain last
	sweeping bool
	closed   bool
}

// ticket is a stream that waits for a connection.
type ticket struct {
	u      *Upstream
	c      *client
	s      *stream
	fields []hpack.HeaderField
	end    bool
	kind   kind // of connection that it waits for
	rank   int  // how many streams its client had here before it
	since  time.Time
	timer  *time.Timer // of a retry that is put off
}

// NewUpstream returns an upstream. Nothing is dialed yet, unless connections are kept warm.
func NewUpstream(cfg UpstreamConfig) *Upstream {
	u := &Upstream{UpstreamConfig: cfg, limits: cfg.Limits.withDefaults(), log: cfg.Log}
	if u.log == nil {
		u.log = slog.New(slog.DiscardHandler)
	}
	u.linking = Limits{HeaderBytes: u.limits.HeaderBytes, HeaderFields: u.limits.HeaderFields}.withDefaults()
	u.ctx, u.cancel = context.WithCancel(context.Background())
	u.trunks.Store(new([]*trunk))
	u.most.Store(int32(u.limits.Streams))
	if u.limits.Warm > 0 {
		u.mu.Lock()
		u.warmLocked()
		u.sweepLocked()
		u.mu.Unlock()
	}
	return u
}

// Close cuts all connections off, and returns when nothing of them is left.
// Streams are answered 503, or UNAVAILABLE, from then on.
func (u *Upstream) Close() {
	u.mu.Lock()
	u.closed = true
	all := slices.Clone(u.all)
	u.mu.Unlock()
	u.cancel()
	for _, t := range all {
		t.cut(net.ErrClosed)
	}
	u.mu.Lock()
	list := u.outLocked(func(*ticket) bool { return true })
	u.mu.Unlock()
	refuse(list, unavailable)
	u.work.Wait()
}

// UpstreamStats are counts at one moment.
type UpstreamStats struct {
	// Conns and Streams are those that are open, Waiting the streams that wait
	// for a connection.
	Conns, Streams, Waiting int
	// Failed counts connections that could not be opened, or broke.
	Failed int64
}

// Stats returns the counts.
func (u *Upstream) Stats() UpstreamStats {
	st := UpstreamStats{Failed: u.failed.Load()}
	u.mu.Lock()
	defer u.mu.Unlock()
	st.Conns, st.Waiting = len(u.all), len(u.waiting)
	for _, t := range u.all {
		st.Streams += int(t.count.Load())
	}
	return st
}

func (u *Upstream) tells() bool { return true }

// take sends a stream upstream, or has it wait for a connection.
func (u *Upstream) take(s *stream, r *Request, end bool) {
	c := s.c
	if c.sw.held.Load() > c.sw.limits.Memory {
		s.reply(overloaded)
		return
	}
	s.up.cut = false
	s.pool = u
	sh := c.share(u)
	sh.all++
	k := c.kind()
	// Who comes now does not come before those who wait.
	if u.waiters.Load() > 0 || sh.open >= u.fairShare() || !u.place(s, r.Fields, end, k) {
		u.park(s, r.Fields, end, k, sh.all)
	}
}

// fairShare is how many streams one client may have: half of what all
// connections together take, so that no client has them all.
func (u *Upstream) fairShare() int { return max(1, u.limits.Conns*int(u.most.Load())/2) }

// comfortable is how many streams a connection has before another one is
// opened for more: streams that share one share system calls.
const comfortable = 64

// place finds room for a stream on the connection that has the fewest, and
// reports whether there was any. The stream's client is locked.
func (u *Upstream) place(s *stream, fields []hpack.HeaderField, end bool, k kind) bool {
	for {
		var best *trunk
		fewest := int32(math.MaxInt32)
		trunks := *u.trunks.Load()
		for _, t := range trunks {
			if n := t.count.Load(); t.kind == k && n < t.room.Load() && n < fewest {
				best, fewest = t, n
			}
		}
		if best == nil {
			return false
		}
		if best.begin(s, fields, end) {
			if fewest >= comfortable && len(trunks) < u.limits.Conns {
				u.mu.Lock()
				u.openLocked(k)
				u.mu.Unlock()
			}
			return true
		}
	}
}

// kind says whom a connection is for. Clients that reset what they have asked
// for keep a server busy with streams that it does not count any more, until it
// lets the others wait, or ends the connection: they have connections of their own.
type kind uint8

const (
	kindGood kind = iota
	kindBad
	kinds
)

// hasRoom reports whether a connection of that kind takes another stream.
func (u *Upstream) hasRoom(k kind) bool {
	return slices.ContainsFunc(*u.trunks.Load(), func(t *trunk) bool { return t.kind == k && t.count.Load() < t.room.Load() })
}

// conns is how many connections of a kind there are, and may be.
func (u *Upstream) conns(k kind) (n, most int) {
	for _, t := range *u.trunks.Load() {
		if t.kind == k {
			n++
		}
	}
	if k == kindBad {
		return n, max(1, u.limits.Conns/4)
	}
	return n, u.limits.Conns
}

// park has a stream wait. Its client is locked.
func (u *Upstream) park(s *stream, fields []hpack.HeaderField, end bool, k kind, rank int) {
	tk := &ticket{u: u, c: s.c, s: s, fields: slices.Clone(fields), end: end, kind: k, rank: rank, since: time.Now()}
	u.mu.Lock()
	if closed := u.closed; closed || len(u.waiting) >= u.limits.Waiting {
		u.mu.Unlock()
		if closed {
			s.reply(unavailable)
		} else {
			s.reply(overloaded)
		}
		return
	}
	s.wait = tk
	u.queueLocked(tk)
	u.moreLocked(k)
	u.sweepLocked()
	u.mu.Unlock()
	s.c.freeLater(u) // there may be room by now that nobody has told of
}

// queueLocked puts a ticket where it belongs: behind those of its rank.
func (u *Upstream) queueLocked(tk *ticket) {
	i, _ := slices.BinarySearchFunc(u.waiting, tk.rank+1, func(o *ticket, rank int) int { return cmp.Compare(o.rank, rank) })
	u.waiting = slices.Insert(u.waiting, i, tk)
	u.waiters.Store(int32(len(u.waiting)))
}

func (u *Upstream) unqueueLocked(i int) {
	u.waiting = slices.Delete(u.waiting, i, i+1)
	u.waiters.Store(int32(len(u.waiting)))
}

// leave takes a stream off those that wait. Its client is locked.
func (tk *ticket) leave() {
	tk.s.wait = nil
	if tk.timer != nil {
		if tk.timer.Stop() {
			tk.c.work.Done()
		}
		return
	}
	tk.u.mu.Lock()
	defer tk.u.mu.Unlock()
	if i := slices.Index(tk.u.waiting, tk); i >= 0 {
		tk.u.unqueueLocked(i)
	}
}

// serve finds room for streams that wait: first for those whose clients have
// the fewest. No lock is held.
func (u *Upstream) serve() {
	for skip := 0; ; {
		var room [kinds]bool
		for k := range kinds {
			room[k] = u.hasRoom(k)
		}
		u.mu.Lock()
		for skip < len(u.waiting) && !room[u.waiting[skip].kind] {
			skip++
		}
		if skip >= len(u.waiting) {
			for k := range kinds {
				u.moreLocked(k)
			}
			u.mu.Unlock()
			return
		}
		tk := u.waiting[skip]
		u.mu.Unlock()
		c := tk.c
		c.mu.Lock()
		switch {
		case tk.s.wait != tk: // it has left
		case c.share(u).open < u.fairShare() && u.place(tk.s, tk.fields, tk.end, tk.kind):
			tk.leave()
		default:
			skip++
		}
		c.unlock()
		c.kick() // it may send more of the body
	}
}

// outLocked takes streams off those that wait. They must be refused.
func (u *Upstream) outLocked(which func(*ticket) bool) (list []*ticket) {
	u.waiting = slices.DeleteFunc(u.waiting, func(tk *ticket) bool {
		out := which(tk)
		if out {
			list = append(list, tk)
		}
		return out
	})
	u.waiters.Store(int32(len(u.waiting)))
	return list
}

// refuse answers streams that have waited, if they still are. No lock is held.
func refuse(list []*ticket, why *refusal) {
	for _, tk := range list {
		tk.c.mu.Lock()
		if tk.s.wait == tk && !(why == unreachable && tk.retry()) {
			tk.s.reply(why)
		}
		tk.c.unlock()
		tk.c.kick()
	}
}

// again is how long no other connection is tried after one that failed, if
// there are any.
const again = time.Second

// openLocked opens another connection, unless one is being opened already or
// there are enough.
func (u *Upstream) openLocked(k kind) {
	n, most := u.conns(k)
	if u.closed || u.opening[k] > 0 || n >= most || n > 0 && time.Since(u.vain) < again {
		return
	}
	u.opening[k]++
	u.sweepLocked()
	u.work.Go(func() { u.connect(k) })
}

// warmLocked opens another connection if there are fewer than are kept warm.
func (u *Upstream) warmLocked() {
	if n, _ := u.conns(kindGood); n < u.limits.Warm && time.Since(u.vain) > coldFor {
		u.openLocked(kindGood)
	}
}

// coldFor is how long no connection is opened to be kept warm, after one that failed.
const coldFor = 5 * time.Second

// connect opens a connection, and serves it to its end.
func (u *Upstream) connect(k kind) {
	deadline := time.Now().Add(u.limits.Connect)
	ctx, cancel := context.WithDeadline(u.ctx, deadline)
	nc, err := u.Dial(ctx)
	cancel()
	if err != nil {
		u.mu.Lock()
		u.opening[k]--
		u.missed(k, err)
		return
	}
	t := newTrunk(u, nc, k)
	u.mu.Lock()
	if u.closed {
		u.opening[k]--
		u.mu.Unlock()
		_ = nc.Close()
		return
	}
	u.all = append(u.all, t)
	u.mu.Unlock()
	err = t.serve(deadline)
	u.lost(t, err)
}

// ready takes a connection into use.
func (u *Upstream) ready(t *trunk) {
	u.mu.Lock()
	u.opening[t.kind]--
	t.opened = true
	u.publishLocked()
	u.mu.Unlock()
	u.serve()
}

// retire takes a connection out of use: it gets no more streams.
func (u *Upstream) retire(t *trunk) {
	u.mu.Lock()
	t.retired = true
	u.publishLocked()
	u.moreLocked(t.kind)
	u.mu.Unlock()
}

// moreLocked opens a connection if streams wait for one. While there is one
// without streams that reads, it has room, or the upstream takes none at all.
func (u *Upstream) moreLocked(k kind) {
	for _, t := range *u.trunks.Load() {
		if n := t.count.Load(); t.kind == k && (n < t.room.Load() || n == 0 && !t.isStuck()) {
			return
		}
	}
	if slices.ContainsFunc(u.waiting, func(tk *ticket) bool { return tk.kind == k }) {
		u.openLocked(k)
	}
}

func (u *Upstream) publishLocked() {
	list := make([]*trunk, 0, len(u.all))
	for _, t := range u.all {
		if t.opened && !t.retired {
			list = append(list, t)
		}
	}
	u.trunks.Store(&list)
}

// lost takes note that a connection has ended.
func (u *Upstream) lost(t *trunk, err error) {
	used := t.used()
	u.mu.Lock()
	u.all = slices.DeleteFunc(u.all, func(o *trunk) bool { return o == t })
	u.publishLocked()
	if !t.opened {
		u.opening[t.kind]--
	}
	if !used && !t.retired { // the next one would do no better
		u.missed(t.kind, err)
		return
	}
	u.moreLocked(t.kind)
	closed := u.closed
	u.mu.Unlock()
	if !closed && !errors.Is(err, errRetired) {
		u.failed.Add(1)
		u.log.Warn("connection upstream lost", "upstream", u.Name, "err", err)
	}
}

// missed takes note that a connection was opened in vain. Whoever waits for one
// waits in vain, too, if there is no other. It frees the lock.
func (u *Upstream) missed(k kind, err error) {
	u.vain = time.Now()
	var list []*ticket
	if n, _ := u.conns(k); n == 0 {
		list = u.outLocked(func(tk *ticket) bool { return tk.kind == k })
	}
	closed := u.closed
	u.mu.Unlock()
	if !closed {
		u.failed.Add(1)
		u.log.Warn("upstream cannot be reached", "upstream", u.Name, "err", err)
	}
	refuse(list, unreachable)
}

// sweepLocked starts the sweeper.
func (u *Upstream) sweepLocked() {
	if !u.sweeping && !u.closed {
		u.sweeping = true
		u.work.Go(u.sweep)
	}
}

// sweep looks at all timeouts, while there is anything to look at.
func (u *Upstream) sweep() {
	tick := u.limits.tick()
	timer := time.NewTicker(tick)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-u.ctx.Done():
			return
		}
		u.mu.Lock()
		u.warmLocked()
		if len(u.all)+len(u.waiting)+u.opening[kindGood]+u.opening[kindBad] == 0 && u.limits.Warm == 0 {
			u.sweeping = false
			u.mu.Unlock()
			return
		}
		var all []*trunk
		for _, t := range u.all {
			if t.opened { // until then it has a deadline
				all = append(all, t)
			}
		}
		late := u.outLocked(func(tk *ticket) bool { return time.Since(tk.since) > u.limits.Wait })
		u.mu.Unlock()
		for _, t := range all {
			t.sweep(tick)
		}
		refuse(late, tooLong)
		u.serve()
	}
}
