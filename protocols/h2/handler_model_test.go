package h2_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// played is a stream of the model: a function that does what it is told, and
// books of both sides.
type played struct {
	id    uint32
	reads chan int    // bytes to read; closed to stop
	tells chan func() // for the other goroutine; closed to return
	x     *h2.Exchange

	mu       sync.Mutex // guards all below, which the function's goroutines write
	asked    int        // bytes that Read was asked for
	read     int
	bad      error // of what was read
	eof      bool
	failed   bool // a method has
	returned bool

	sent, written int  // by the client, and by the function
	credit        int  // of the client
	ended         bool // by the client
	responded     bool
	finished      bool
	gone          bool // reset by either side
	closed        bool // told to return
	stopped       bool
}

func playedByte(id uint32, i int) byte { return byte(i*31 + i>>8 + int(id)*7) }

func playedBytes(id uint32, from, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteByte(playedByte(id, from+i))
	}
	return b.String()
}

// handle is the function of all streams.
func (p *played) handle(x *h2.Exchange) {
	p.x = x
	var work sync.WaitGroup
	work.Go(func() {
		for n := range p.reads {
			for n > 0 {
				b := make([]byte, n)
				k, err := x.Read(b)
				p.mu.Lock()
				for i, c := range b[:k] {
					if c != playedByte(p.id, p.read+i) {
						p.bad = fmt.Errorf("byte %d of stream %d", p.read+i, p.id)
					}
				}
				p.read += k
				p.eof = p.eof || errors.Is(err, io.EOF)
				p.failed = p.failed || err != nil && !errors.Is(err, io.EOF)
				p.mu.Unlock()
				if n -= k; err != nil {
					break
				}
			}
		}
	})
	for f := range p.tells {
		f()
	}
	work.Wait()
	p.mu.Lock()
	p.returned = true
	p.mu.Unlock()
}

func (p *played) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = p.failed || err != nil
}

// A client and functions do whatever they like, in any order; what comes of it
// is what their books say, and nothing is left when all has ended.
func TestHandlerModel(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) { playHandler(t, rand.New(rand.NewPCG(seed, 7))) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func playHandler(t *testing.T, rnd *rand.Rand) {
	streams := map[uint32]*played{}
	var mu sync.Mutex
	h := h2.NewHandler(func(x *h2.Exchange) {
		var head protocols.Head
		x.Head(&head)
		var id uint32
		_, _ = fmt.Sscanf(head.Path, "/%d", &id)
		mu.Lock()
		p := streams[id]
		mu.Unlock()
		p.handle(x)
	})
	done := 0
	sw := h2.New(h2.Config{
		Route: func(*h2.Request, *protocols.Conn) h2.Backend { return h }, Log: slog.New(slog.DiscardHandler),
		Limits: h2.Limits{Window: 3000, Streams: 1000, Pace: -1},
		Begun: func(c *protocols.Call) {
			c.OnDone(func(protocols.Result) { mu.Lock(); done++; mu.Unlock() })
		},
	})
	ln := oneporttest.NewListener()
	go func() {
		if nc, err := ln.Accept(); err == nil {
			sw.Serve(nc)
		}
	}()
	nc, err := ln.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := newPeer(t, nc)
	c.send([]byte(frame.Preface), settings(frame.InitialWindowSize, 500), frame.AppendSettingsAck(nil), window(0, 1<<28))
	go c.read()
	opened := 0
	var open []*played
	for range 300 {
		if n := len(open); n < 5 && (n == 0 || rnd.IntN(6) == 0) {
			p := &played{id: uint32(2*opened + 1), reads: make(chan int, 1000), tells: make(chan func(), 1000), credit: 500}
			opened++
			mu.Lock()
			streams[p.id] = p
			mu.Unlock()
			open = append(open, p)
			c.send(c.post(p.id, fmt.Sprintf("/%d", p.id)))
		}
		i := rnd.IntN(len(open))
		p := open[i]
		c.seen()
		playStep(c, p, rnd)
		c.seen()
		p.check(t, c)
		if p.closed && !p.returned && !(p.stuck() && !p.gone) {
			t.Errorf("stream %d: the function has not returned", p.id)
		}
		if p.returned {
			open = append(open[:i], open[i+1:]...)
		}
		accounts, _ := sw.Accounts()
		for addr, a := range accounts {
			if a.Lost != 0 || a.Held < 0 {
				t.Errorf("%s: %+v", addr, a)
			}
		}
		if t.Failed() {
			break
		}
	}
	_ = nc.Close()
	for _, p := range open {
		p.close()
	}
	time.Sleep(3 * time.Second) // linger
	synctest.Wait()
	if _, held := sw.Accounts(); held != 0 || done != opened {
		t.Errorf("%d bytes are held for nobody, of %d calls %d have ended", held, opened, done)
	}
	for _, p := range open {
		if !p.returned {
			t.Errorf("stream %d: the function is left", p.id)
		}
	}
	_ = ln.Close()
	sw.Close()
	h.Close()
}

func (p *played) close() {
	if !p.closed {
		p.closed = true
		close(p.reads)
		close(p.tells)
	}
}

// stuck reports whether a goroutine of the function waits for the client.
func (p *played) stuck() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked > p.read && !p.eof && !p.failed || p.written > p.credit
}

// playStep does something.
func playStep(c *peer, p *played, rnd *rand.Rand) {
	n := 1 + rnd.IntN(700)
	switch rnd.IntN(12) {
	case 0, 1: // within the window: what the function has read is given back late
		if !p.ended && !p.gone && p.sent+n <= p.read+1500 {
			p.ended = rnd.IntN(8) == 0
			c.send(data(p.id, playedBytes(p.id, p.sent, n), p.ended))
			p.sent += n
		}
	case 2:
		if !p.ended && !p.gone && rnd.IntN(3) == 0 {
			p.ended = true
			c.send(c.head(p.id, true, "sum", "1"))
		}
	case 3, 4:
		if !p.closed {
			p.mu.Lock()
			p.asked += n
			p.mu.Unlock()
			p.reads <- n
		}
	case 5, 6, 7:
		if p.closed || p.finished {
			return
		}
		if !p.responded {
			p.responded = true
			p.tells <- func() { p.note(p.x.Respond(200, nil, -1)) }
		}
		b := playedBytes(p.id, p.written, n)
		p.written += n
		p.tells <- func() {
			_, err := p.x.Write([]byte(b))
			p.note(err)
			p.note(p.x.Flush())
		}
	case 8, 9:
		if !p.gone {
			p.credit += n
			c.send(window(p.id, uint32(n)))
		}
	case 10:
		if !p.closed && p.responded && !p.finished {
			p.finished = true
			p.tells <- func() { p.note(p.x.Finish([]protocols.Field{{Name: "Sum", Value: "2"}})) }
		}
	case 11:
		playEnd(c, p, rnd)
	}
}

// playEnd has a side do what ends something.
func playEnd(c *peer, p *played, rnd *rand.Rand) {
	switch rnd.IntN(6) {
	case 0:
		if !p.gone && !(p.finished && p.ended) {
			p.gone = true
			c.send(rst(p.id, frame.Cancel))
		}
	case 1:
		if !p.closed {
			p.stopped = true
			p.tells <- p.x.StopReading
		}
	case 2, 3:
		if p.finished || rnd.IntN(4) == 0 {
			p.close()
		}
	}
}

// check compares the books of both sides. Nothing moves.
func (p *played) check(t *testing.T, c *peer) {
	t.Helper()
	a := c.answer(p.id)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bad != nil {
		t.Error(p.bad)
	}
	if p.read > p.sent || p.read < min(p.asked, p.sent) && !p.failed && !p.gone && !p.returned {
		t.Errorf("stream %d: %d bytes were read of %d, and %d wanted", p.id, p.read, p.sent, p.asked)
	}
	if p.closed && !p.responded { // the switch's own answer
		if a.status != "502" && a.status != "" {
			t.Errorf("stream %d: %v without an answer", p.id, a)
		}
		return
	}
	if len(a.body) > p.credit || len(a.body) > p.written || a.body != playedBytes(p.id, 0, len(a.body)) {
		t.Errorf("stream %d: %d bytes have come of %d, with credit for %d", p.id, len(a.body), p.written, p.credit)
	}
	if p.gone || a.reset != "" || p.failed {
		return
	}
	given := 0
	for _, g := range c.of(frame.WindowUpdate, p.id) {
		given += int(binary.BigEndian.Uint32(g.payload))
	}
	if given > p.read || !p.ended && !p.stopped && p.read == p.sent && 3000+given-p.sent < 1500 {
		t.Errorf("stream %d: %d bytes of credit for %d that were read of %d", p.id, given, p.read, p.sent)
	}
	if len(a.body) != min(p.written, p.credit) {
		t.Errorf("stream %d: %d bytes have come of %d, with credit for %d", p.id, len(a.body), p.written, p.credit)
	}
	if want := p.finished && len(a.body) == p.written; a.ended != want || want && a.trailer("sum") != "2" {
		t.Errorf("stream %d: %v; want its end %v", p.id, a, want)
	}
}
