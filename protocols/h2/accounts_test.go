package h2

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// Whatever clients and upstreams do to each other, the accounts are right: what
// is held and lent, whose stream is where, and who waits. When all streams have
// ended, all of them are empty.
func TestAccounts(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			b := newBank(t, seed)
			defer b.close()
			for range 400 {
				b.step()
				synctest.Wait()
				if b.check(); t.Failed() {
					return
				}
			}
			for _, p := range b.clients {
				p.end()
			}
			time.Sleep(3 * time.Second) // linger
			synctest.Wait()
			b.check()
			if n := b.sw.held.Load(); n != 0 {
				t.Errorf("seed %d: %d bytes are held for nobody", seed, n)
			}
			if st := b.up.Stats(); st.Streams != 0 || st.Waiting != 0 || b.sw.Stats().Open != 0 {
				t.Errorf("seed %d: %+v, %+v", seed, st, b.sw.Stats())
			}
			if b.begun == 0 || b.begun != b.ended {
				t.Errorf("seed %d: of %d calls %d have ended", seed, b.begun, b.ended)
			}
		})
	}
}

// A connection that has no more ids is replaced, and ends with its last stream.
func TestIDsRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank(t, 0)
		defer b.close()
		b.up.limits.Conns, b.sw.Guards = 1, nil
		open := func(c *party, id uint32) {
			c.say(head(id, true, ":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/"))
			synctest.Wait()
		}
		c := b.dial()
		open(c, 1)
		b.up.mu.Lock()
		old := b.up.all[0]
		b.up.mu.Unlock()
		old.mu.Lock()
		old.next = lastID - 2
		old.mu.Unlock()
		open(c, 3)
		open(b.dial(), 1)
		if n := old.count.Load(); n != 2 || len(b.servers) != 2 || !slices.Equal(b.servers[1].streams, []uint32{1}) {
			t.Errorf("%d streams of the old connection, %d connections", n, len(b.servers))
		}
		if got := b.servers[0].streams; !slices.Equal(got, []uint32{1, lastID - 2}) {
			t.Errorf("streams %d of the old connection", got)
		}
		for _, id := range b.servers[0].streams {
			b.servers[0].say(head(id, true, ":status", "200"))
		}
		synctest.Wait()
		if st := b.up.Stats(); st.Conns != 1 || st.Streams != 1 || st.Failed != 0 {
			t.Errorf("%+v", st)
		}
		b.check()
	})
}

// bank has clients and servers that do anything, and a switch between them.
type bank struct {
	t       *testing.T
	rnd     *rand.Rand
	seed    uint64
	sw      *Switch
	up      *Upstream
	work    sync.WaitGroup
	clients []*party

	mu      sync.Mutex // guards all below
	servers []*party
	asked   int // guards
	begun   int
	ended   int
}

// kept makes the writes of the switch not wait, on every other connection.
func kept(nc net.Conn, n int) net.Conn {
	if n%2 == 0 {
		return nc
	}
	return &keepingConn{Conn: nc}
}

// keepingConn keeps all that is written for Flush.
type keepingConn struct {
	net.Conn

	mu   sync.Mutex // guards kept
	kept []byte
}

func (k *keepingConn) Keep() bool { return true }

func (k *keepingConn) Kept() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.kept) > 0
}

func (k *keepingConn) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = append(k.kept, p...)
	return len(p), nil
}

func (k *keepingConn) Flush() error {
	for {
		k.mu.Lock()
		p := k.kept
		k.kept = nil
		k.mu.Unlock()
		if len(p) == 0 {
			return nil
		}
		if _, err := k.Conn.Write(p); err != nil {
			return err
		}
	}
}

// party is a client or a server, raw.
type party struct {
	nc     net.Conn
	server bool
	next   uint32 // client: its next stream

	mu      sync.Mutex // guards all below
	streams []uint32   // that it has opened, or got
	deaf    bool       // it reads nothing more
	over    bool
	changed sync.Cond
}

func newBank(t *testing.T, seed uint64) *bank {
	b := &bank{t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 1))}
	b.up = NewUpstream(UpstreamConfig{Dial: b.dialUp, Limits: UpstreamLimits{Conns: 3, Waiting: 10, Write: 10 * time.Second, Idle: 10 * time.Second}})
	b.sw = New(Config{
		Limits: Limits{Streams: 20, Nuisance: 1000, Window: 48 << 10, ConnWindow: 128 << 10, Memory: 1 << 20},
		Route:  func(*Request, *protocols.Conn) Backend { return b.up },
		Guards: []protocols.Guard{protocols.GuardFunc(b.admit)},
		Begun: func(c *protocols.Call) {
			b.count(&b.begun)
			c.OnDone(func(protocols.Result) { b.count(&b.ended) })
		},
	})
	return b
}

// dialUp is the upstream's Dial.
func (b *bank) dialUp(context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	p := b.party(there, true)
	b.mu.Lock()
	b.servers = append(b.servers, p)
	up := kept(here, len(b.servers)+int(b.seed))
	b.mu.Unlock()
	b.work.Go(func() {
		_, _ = io.ReadFull(there, make([]byte, len(frame.Preface)))
		p.read()
	})
	b.work.Go(func() { p.say(frame.AppendSettings(nil, frame.Setting{ID: frame.MaxConcurrentStreams, Value: 5})) })
	return up, nil
}

// admit is a guard that takes its time for some calls, and refuses some.
func (b *bank) admit(ctx context.Context, _ *protocols.Call) (context.Context, error) {
	n := b.count(&b.asked)
	if n%3 == 0 {
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	if n%10 == 0 {
		return ctx, &protocols.Refusal{Reason: protocols.ReasonTooMany}
	}
	return ctx, nil
}

func (b *bank) count(n *int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	*n++
	return *n
}

func (b *bank) close() {
	b.sw.Close()
	b.up.Close()
	for _, p := range append(b.clients, b.servers...) {
		p.end()
	}
	b.work.Wait()
}

func (b *bank) party(nc net.Conn, server bool) *party {
	p := &party{nc: nc, server: server, next: 1}
	p.changed.L = &p.mu
	return p
}

func (p *party) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = false
	p.changed.Broadcast()
}

// read takes note of streams, and reads on.
func (p *party) read() {
	head := make([]byte, frame.HeaderLen)
	for {
		p.mu.Lock()
		for p.deaf {
			p.changed.Wait()
		}
		p.mu.Unlock()
		if _, err := io.ReadFull(p.nc, head); err != nil {
			p.end()
			return
		}
		h := frame.Parse(head)
		if h.Type == frame.Headers && p.server {
			p.mu.Lock()
			p.streams = append(p.streams, h.Stream)
			p.mu.Unlock()
		}
		if _, err := io.CopyN(io.Discard, p.nc, int64(h.Length)); err != nil {
			p.end()
			return
		}
	}
}

func (p *party) end() {
	_ = p.nc.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over, p.deaf = true, false
	p.changed.Broadcast()
}

// live gives one of those that are still there.
func live(list []*party, rnd *rand.Rand) *party {
	var there []*party
	for _, p := range list {
		p.mu.Lock()
		if !p.over {
			there = append(there, p)
		}
		p.mu.Unlock()
	}
	if len(there) == 0 {
		return nil
	}
	return there[rnd.IntN(len(there))]
}

// say sends, and leaves off if nobody reads.
func (p *party) say(f []byte) {
	_ = p.nc.SetWriteDeadline(time.Now().Add(time.Millisecond))
	if _, err := p.nc.Write(f); err != nil {
		p.end()
	}
}

// one is one of the streams that a party had last.
func (p *party) one(rnd *rand.Rand) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.streams); n > 0 {
		return p.streams[n-1-rnd.IntN(min(n, 20))]
	}
	return 1
}

func head(id uint32, end bool, pairs ...string) []byte {
	k := newLink(&Limits{}, 0, false)
	k.enc.SetTableSize(0)
	var fields []hpack.HeaderField
	for i := 0; i < len(pairs); i += 2 {
		fields = append(fields, hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	k.head(id, fields, end, 0)
	return k.out
}

func (b *bank) step() {
	switch b.rnd.IntN(10) {
	case 0:
		time.Sleep(time.Duration(b.rnd.IntN(2000)) * time.Millisecond)
	case 1, 2, 3, 4:
		b.mu.Lock()
		p := live(b.servers, b.rnd)
		b.mu.Unlock()
		if p != nil {
			b.serverStep(p)
		}
	default:
		p := live(b.clients, b.rnd)
		if p == nil || b.rnd.IntN(50) == 0 {
			p = b.dial()
		}
		b.clientStep(p)
	}
}

func (b *bank) dial() *party {
	here, there := net.Pipe()
	b.sw.Serve(kept(there, len(b.clients)))
	p := b.party(here, false)
	b.clients = append(b.clients, p)
	b.work.Go(p.read)
	p.say(frame.AppendSettings([]byte(frame.Preface), frame.Setting{ID: frame.InitialWindowSize, Value: uint32(b.rnd.IntN(3) * 40000)}))
	return p
}

// bytes is a DATA frame, with padding now and then.
func (b *bank) bytes(id uint32, end bool) []byte {
	p := make([]byte, b.rnd.IntN(1<<14-300))
	h := frame.Header{Type: frame.Data, Stream: id}
	if end {
		h.Flags |= frame.EndStream
	}
	if b.rnd.IntN(3) == 0 {
		h.Flags |= frame.Padded
		pad := b.rnd.IntN(256)
		p = slices.Concat([]byte{byte(pad)}, p, make([]byte, pad))
	}
	h.Length = len(p)
	return append(h.Append(nil), p...)
}

func (b *bank) credit(id uint32) []byte {
	return frame.AppendWindowUpdate(nil, id, 1+uint32(b.rnd.IntN(1<<17)))
}

func (b *bank) clientStep(p *party) {
	id := p.one(b.rnd)
	what := b.rnd.IntN(24)
	if p.next == 1 {
		what = 0
	}
	switch what {
	case 0, 1, 2, 3, 4:
		pairs := []string{":method", "POST", ":scheme", "https", ":authority", "a.test", ":path", "/"}
		if b.rnd.IntN(2) == 0 {
			pairs = append(pairs, "content-type", "application/grpc")
		}
		p.say(head(p.next, b.rnd.IntN(3) == 0, pairs...))
		p.mu.Lock()
		p.streams = append(p.streams, p.next)
		p.mu.Unlock()
		p.next += 2
	case 5, 6, 7, 8, 9, 10:
		p.say(b.bytes(id, false))
	case 11, 12:
		p.say(b.bytes(id, true))
	case 13:
		p.say(head(id, true, "x-end", "1"))
	case 14:
		p.say(frame.AppendReset(nil, id, frame.Cancel))
	case 15, 16:
		p.say(b.credit(id))
	case 17, 18:
		p.say(b.credit(0))
	case 19:
		p.say(frame.AppendSettings(nil, frame.Setting{ID: frame.InitialWindowSize, Value: uint32(b.rnd.IntN(1 << 17))}))
	case 20:
		p.mu.Lock()
		p.deaf = true
		p.mu.Unlock()
	case 21, 22:
		p.wake()
	case 23:
		if b.rnd.IntN(6) == 0 {
			p.end()
		}
	}
}

func (b *bank) serverStep(p *party) {
	id := p.one(b.rnd)
	switch b.rnd.IntN(24) {
	case 0, 1, 2, 3, 4:
		p.say(head(id, b.rnd.IntN(5) == 0, ":status", "200"))
	case 5, 6, 7, 8:
		p.say(b.bytes(id, false))
	case 9, 10, 11:
		p.say(b.bytes(id, true))
	case 12:
		p.say(head(id, true, "grpc-status", "0"))
	case 13:
		p.say(head(id, false, ":status", "103"))
	case 14:
		p.say(frame.AppendReset(nil, id, frame.Code(b.rnd.IntN(3))))
	case 15, 16:
		p.say(b.credit(id))
	case 17, 18:
		p.say(b.credit(0))
	case 19:
		p.say(frame.AppendSettings(nil, frame.Setting{ID: frame.InitialWindowSize, Value: uint32(b.rnd.IntN(1 << 17))}))
	case 20:
		p.say(frame.AppendSettings(nil, frame.Setting{ID: frame.MaxConcurrentStreams, Value: uint32(b.rnd.IntN(8))}))
	case 21:
		p.mu.Lock()
		p.deaf = !p.deaf
		p.changed.Broadcast()
		p.mu.Unlock()
	case 22:
		if b.rnd.IntN(3) == 0 {
			p.say(frame.AppendGoAway(nil, id, frame.NoError, ""))
		}
	case 23:
		if b.rnd.IntN(6) == 0 {
			p.end()
		}
	}
}

// check looks at all accounts, while nothing moves.
func (b *bank) check() {
	b.t.Helper()
	b.sw.mu.Lock()
	defer b.sw.mu.Unlock()
	held, waiting := 0, 0
	at := make(map[*origin]int)
	for c := range b.sw.clients {
		c.mu.Lock()
		held += b.checkClient(c, at, &waiting)
		c.mu.Unlock()
	}
	if n := b.sw.held.Load(); n != int64(held) {
		b.t.Errorf("seed %d: %d bytes are held, and %d written down", b.seed, held, n)
	}
	b.up.mu.Lock()
	defer b.up.mu.Unlock()
	if n := len(b.up.waiting); n != waiting || int(b.up.waiters.Load()) != n {
		b.t.Errorf("seed %d: %d streams wait; written down are %d and %d", b.seed, waiting, n, b.up.waiters.Load())
	}
	for _, t := range b.up.all {
		t.mu.Lock()
		if n := len(t.streams); n != at[&t.origin] || int(t.count.Load()) != n {
			b.t.Errorf("seed %d: %d streams of a connection; written down are %d and %d", b.seed, at[&t.origin], n, t.count.Load())
		}
		if t.due || t.going || !t.writing && len(t.out) > 0 && t.err == nil {
			b.t.Errorf("seed %d: a connection upstream stands still: due %v, going %v, %d bytes", b.seed, t.due, t.going, len(t.out))
		}
		if t.send.Room() > 0 && len(t.out) < highWater && !t.dead && len(t.waiting) > 0 {
			b.t.Errorf("seed %d: %d halves wait for nothing", b.seed, len(t.waiting))
		}
		t.mu.Unlock()
	}
}

// checkClient returns what the client holds.
func (b *bank) checkClient(c *client, at map[*origin]int, waiting *int) (held int) {
	b.t.Helper()
	var lent int64
	all, open := 0, 0
	for _, s := range c.streams {
		held += len(s.up.queue) + len(s.down.queue)
		if s.down.from != nil {
			lent += s.down.Lent()
		}
		if s.pool != nil {
			all++
		}
		if s.origin != nil && !s.parted {
			open++
			at[s.origin]++
		}
		if s.wait != nil {
			*waiting++
		}
		b.checkStream(s)
	}
	sh := share{}
	if len(c.shares) > 0 {
		sh = c.shares[0]
	}
	if held != c.held || lent != c.lent || sh.all != all || sh.open != open {
		b.t.Errorf("seed %d: a client holds %d, is lent %d, has %d streams, %d open; written down: %d, %d, %d, %d",
			b.seed, held, lent, all, open, c.held, c.lent, sh.all, sh.open)
	}
	if c.err == nil && !c.writing && len(c.out) > 0 {
		b.t.Errorf("seed %d: %d bytes do not leave", b.seed, len(c.out))
	}
	if len(c.shares) > 1 || len(c.streams) == 0 && len(c.shares) > 0 || c.due != nil || c.freed != nil || c.ended != nil {
		b.t.Errorf("seed %d: left over: %v", b.seed, c.shares)
	}
	return held
}

// checkStream checks that a stream goes on if it can.
func (b *bank) checkStream(s *stream) {
	b.t.Helper()
	if s.gone || s.down.closed && s.up.closed || s.down.ended && s.up.closed && !s.parted && s.origin != nil {
		b.t.Errorf("seed %d: stream %d should have ended", b.seed, s.id)
	}
	if s.up.to == nil || s.parted {
		return
	}
	s.up.to.lock()
	stands := len(s.up.queue) > 0 && !s.up.waits && s.up.Room() > 0
	s.up.to.trunk.mu.Unlock()
	if stands || len(s.down.queue) > 0 && !s.down.waits && s.down.Room() > 0 {
		b.t.Errorf("seed %d: stream %d stands still", b.seed, s.id)
	}
}

// An upstream's SETTINGS are acknowledged when no stream uses its old window any
// more: a client may be sending on one.
func TestSettingsAreAcknowledgedLast(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	tr := newTrunk(NewUpstream(UpstreamConfig{}), here, kindGood)
	c := &client{sw: New(Config{}), streams: make(map[uint32]*stream)}
	c.attach(there, c)
	s := &stream{c: c, origin: &tr.origin, far: 1}
	s.up = half{s: s, to: &tr.link}
	tr.streams[1] = ref{c, s, 1}
	tr.out = nil
	c.mu.Lock()
	done := make(chan error)
	go func() {
		done <- tr.settings(frame.AppendSettings(nil, frame.Setting{ID: frame.InitialWindowSize, Value: 1})[frame.HeaderLen:])
	}()
	for window := int64(0); window != 1; {
		runtime.Gosched()
		tr.mu.Lock()
		window = tr.window
		if len(tr.out) > 0 {
			t.Error("they are acknowledged before all streams have the new window")
		}
		tr.mu.Unlock()
	}
	c.mu.Unlock()
	if err := <-done; err != nil || s.up.Room() != 1-frame.DefaultWindow || len(tr.out) == 0 {
		t.Errorf("%v, room %d, %d bytes to write", err, s.up.Room(), len(tr.out))
	}
}
