package protocols_test

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// port has calls that may last.
type port struct {
	*protocols.Calls
	begin time.Time

	mu    sync.Mutex
	seq   uint64
	ended map[string]time.Duration
}

func newPort() *port {
	return &port{Calls: protocols.NewCalls(), begin: time.Now(), ended: map[string]time.Duration{}}
}

// call begins one for alice, which is called name.
func (p *port) call(name string) (*protocols.Call, *protocols.Identity) {
	p.seq++
	c := &protocols.Call{Protocol: protocols.GRPC, Conn: protocols.Conn{}.WithLive(nil, p.Calls)}
	c.Begin(context.Background(), protocols.NewID(1, p.seq), "")
	c.OnEnd(func(why *protocols.Refusal) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ended[name] = time.Since(p.begin)
		if why.Reason != protocols.ReasonExpired {
			p.ended[name] = -1
		}
	})
	id := alice(0)
	c.Identify(id)
	return c, id
}

// alice has a credential that ends after so long.
func alice(expires time.Duration) *protocols.Identity {
	return &protocols.Identity{Subject: "alice", Issuer: "a", By: "jwt", Expires: time.Now().Add(expires)}
}

func (p *port) want(t *testing.T, want map[string]time.Duration) {
	t.Helper()
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !maps.Equal(p.ended, want) {
		t.Errorf("ended %v, want %v", p.ended, want)
	}
}

// Calls end when they are to: the first end counts, and one that a newer credential has moved does not.
func TestEndAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort()
		at := func(d time.Duration) time.Time { return p.begin.Add(d) }
		for name, d := range map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "past": -time.Hour} {
			c, id := p.call(name)
			c.EndAt(id, at(d))
			c.EndAt(id, at(d)) // a guard that was asked twice
		}
		two, id := p.call("two ends")
		two.EndAt(id, at(2*time.Hour))
		two.EndAt(&protocols.Identity{Subject: "cert", By: "mtls"}, at(time.Minute))
		over, id := p.call("over")
		over.EndAt(id, at(time.Minute))
		over.Finish(protocols.Result{})
		over.EndAt(id, at(time.Minute))
		for name, now := range map[string]*protocols.Identity{
			"moved":   alice(3 * time.Hour),
			"sooner":  alice(30 * time.Second),
			"another": {Subject: "bob", Issuer: "a", By: "jwt", Expires: at(3 * time.Hour)},
			"no end":  {Subject: "alice", Issuer: "a", By: "jwt"},
			"far":     {Subject: "alice", Issuer: "a", By: "jwt", Expires: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)},
		} {
			c, id := p.call(name)
			c.EndAt(id, at(time.Minute))
			c.Identify(now)
		}
		never, id := p.call("never")
		never.EndAt(id, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))

		time.Sleep(time.Minute)
		want := map[string]time.Duration{"past": 0}
		for _, name := range []string{"minute", "two ends", "sooner", "another", "no end"} {
			want[name] = time.Minute
		}
		p.want(t, want)
		time.Sleep(24 * time.Hour)
		want["hour"], want["moved"] = time.Hour, 3*time.Hour
		p.want(t, want)
	})
}

// A call that changes its place keeps its end.
func TestEndOfACallThatMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort()
		for i := range 300 { // in all places there are
			name := strconv.Itoa(i)
			c, id := p.call(name)
			c.Identify(nil)
			if _, err := p.AdmitNow(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			c.EndAt(id, p.begin.Add(time.Minute))
			c.Identify(&protocols.Identity{Subject: name, By: "keys"})
			c.Hold(name)
			if held := p.Held(name); c.HeldBy() != name || len(held) == 0 || p.Len() != i+1 || p.HeldLen() != i+1 {
				t.Fatalf("%d: held by %v, %d for the subject, %d in all, %d of them held", i, c.HeldBy(), len(held), p.Len(), p.HeldLen())
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(p.ended); n != 300 {
			t.Errorf("%d of 300 have ended", n)
		}
	})
}

// Ends that lie close together are looked for together, and none is late by more than a twentieth of a second.
func TestEndsCloseTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort()
		for i := range 1000 {
			c, id := p.call(strconv.Itoa(i))
			c.EndAt(id, p.begin.Add(time.Duration(1000+i)*time.Millisecond))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for i := range 1000 {
			due := time.Duration(1000+i) * time.Millisecond
			if at, ok := p.ended[strconv.Itoa(i)]; !ok || at < due || at > due+50*time.Millisecond {
				t.Errorf("due after %s, ended after %s", due, at)
			}
		}
	})
}

// Calls may come, go, move and end at the same time.
func TestEndsConcurrently(t *testing.T) {
	p := newPort()
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 300 {
				c := &protocols.Call{Protocol: protocols.GRPC, Conn: protocols.Conn{}.WithLive(nil, p.Calls)}
				c.Begin(context.Background(), protocols.NewID(1, uint64(g*300+i)), "")
				_, _ = p.AdmitNow(t.Context(), c) // it refuses nothing
				id := alice(time.Duration(i%3) * time.Millisecond)
				c.Identify(id)
				c.EndAt(id, id.Expires)
				c.Hold(p)
				c.Identify(alice(time.Hour))
				c.Finish(protocols.Result{})
			}
		})
	}
	all.Wait()
	if n, held := p.Len(), p.HeldLen(); n != 0 || held != 0 {
		t.Errorf("%d calls are left, %d held", n, held)
	}
}

// No end is lost of calls that change their place while those that are due are looked for, and whose
// credential is replaced meanwhile.
func TestEndsOfCallsThatMoveMeanwhile(t *testing.T) {
	p := newPort()
	const n = 1000
	calls := make([]*protocols.Call, n)
	var all sync.WaitGroup
	var mu sync.Mutex // of p.seq
	for g := range 4 {
		all.Go(func() {
			for i := g; i < n; i += 4 {
				mu.Lock()
				c, _ := p.call(strconv.Itoa(i))
				mu.Unlock()
				id := alice(time.Duration(i%4) * time.Millisecond)
				c.Identify(id)
				c.EndAt(id, id.Expires)
				for k := range 20 {
					if i%2 == 0 {
						c.Identify(&protocols.Identity{Subject: strconv.Itoa(i + k), By: "keys"})
					} else {
						c.Identify(alice(time.Duration(k) * time.Millisecond))
					}
					c.Hold(p)
				}
				calls[i] = c
			}
		})
	}
	all.Wait()
	for i, c := range calls {
		for end := time.Now().Add(5 * time.Second); c.Refusal() == nil; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("call %d does not end", i)
			}
		}
		c.Finish(protocols.Result{})
	}
	if n, held := p.Len(), p.HeldLen(); n != 0 || held != 0 {
		t.Errorf("%d calls are left, %d held", n, held)
	}
}
