package h2_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// members are upstreams that a Relay tries one after the other.
type members struct {
	t    *testing.T
	list []*h2.Upstream

	mu    sync.Mutex
	ended []string // what Done was told, as "number fault status"
	at    []time.Time
	gone  bool // nobody is there to choose
}

type member struct {
	m *members
	i int
}

func (m *member) Upstream() *h2.Upstream { return m.m.list[m.i] }

func (m *member) Done(out h2.Outcome) {
	m.m.mu.Lock()
	defer m.m.mu.Unlock()
	m.m.ended = append(m.m.ended, fmt.Sprint(m.i, " ", []string{"fine", "unreachable", "broken", "slow"}[out.Fault], " ", out.Status))
}

func (m *members) pick(_ *h2.Request, _ *protocols.Call, tried []h2.Member) h2.Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = append(m.at, time.Now())
	if m.gone || len(tried) >= len(m.list) {
		return nil
	}
	return &member{m, len(tried)}
}

func (m *members) wantEnded(want ...string) {
	m.t.Helper()
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.Sort(m.ended) // streams come to their ends as they are scheduled
	slices.Sort(want)
	if got := strings.Join(m.ended, ", "); got != strings.Join(want, ", ") {
		m.t.Errorf("members were told %q; want %q", got, want)
	}
}

// relayed puts so many dead servers, and then the fake one, behind a Relay.
func (e *edge) relayed(dead int, w h2.Relay) *members {
	e.t.Helper()
	m := &members{t: e.t}
	for range dead {
		up := h2.NewUpstream(h2.UpstreamConfig{Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("nobody is there") }})
		e.t.Cleanup(up.Close)
		m.list = append(m.list, up)
	}
	up := e.pool()
	e.t.Cleanup(up.Close)
	m.list = append(m.list, up)
	w.Pick = m.pick
	e.fake = &w
	return m
}

// A stream whose server cannot be reached goes to another, with all of its body.
func TestRelayTriesAnother(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		prepared := 0
		m := e.relayed(2, h2.Relay{Retries: 2, Prepare: func(r *h2.Request, _ *protocols.Call) string {
			prepared++
			r.Add("x-prepared", "yes")
			return ""
		}})
		c := e.dial()
		c.send(c.post(1, "/fake/a"), data(1, "one", false), data(1, "two", true))
		time.Sleep(time.Second) // the second retry waits for 25 ms at most
		s := e.backend()
		id := s.far("/fake/a")
		body := ""
		for _, g := range s.of(frame.Data, id) {
			body += string(g.payload)
		}
		if body != "onetwo" {
			t.Errorf("the server got %q", body)
		}
		s.serve("/fake/a")
		c.wantBody(1, "200", "/fake/a")
		m.wantEnded("0 unreachable -1", "1 unreachable -1", "2 fine 200")
		if prepared != 1 {
			t.Errorf("prepared %d times", prepared)
		}
		if first, second := m.at[1].Sub(m.at[0]), m.at[2].Sub(m.at[1]); first != 0 || second > 25*time.Millisecond {
			t.Errorf("the retries came after %v and %v", first, second)
		}
	})
}

// Retries end, and members may: the call is refused in the words of its protocol.
func TestRelayGivesUp(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(_ *testing.T, e *edge) {
		m := e.relayed(3, h2.Relay{Retries: 1})
		c := e.dial()
		c.send(c.get(1, "/fake/a"), c.startFake(3, "/fake/b"))
		c.wantText(1, "502", "cannot be reached")
		c.wantCode(3, "14")
		m.wantEnded("0 unreachable -1", "0 unreachable -1", "1 unreachable 502", "1 unreachable 14")
		m.gone = true
		c.send(c.get(5, "/fake/a"))
		c.wantText(5, "503", "not available")
	})
}

// A client may leave while its stream waits to be tried again.
func TestRelayBackoffEndsWithTheStream(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		m := e.relayed(3, h2.Relay{Retries: 3, Backoff: time.Hour})
		c := e.dial()
		c.send(c.get(1, "/fake/a"), c.get(3, "/fake/b"))
		m.wantEnded("0 unreachable -1", "0 unreachable -1", "1 unreachable -1", "1 unreachable -1")
		c.send(rst(1, frame.Cancel))
		synctest.Wait()
		e.wantResult("/fake/a", 499, "reset by the client")
		_ = c.nc.Close()
		e.wantResult("/fake/b", 499, "reset")
		if e.sw.Stats().Open != 0 {
			t.Error("the connection waits for the retry")
		}
	})
}

// What a server does wrong is told of it.
func TestRelayFaults(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(_ *testing.T, e *edge) {
		m := e.relayed(0, h2.Relay{AnswerTimeout: 3 * time.Second, Timeout: 5 * time.Second})
		c := e.dial()
		c.send(c.get(1, "/fake/slow"))
		s := e.backend()
		time.Sleep(5 * time.Second)
		c.wantText(1, "504", "too long")
		m.wantEnded("0 slow 504")

		c.send(c.startFake(3, "/fake/call"))
		time.Sleep(8 * time.Second)
		c.wantCode(3, "4")
		m.wantEnded("0 slow 504", "0 fine 4")

		c.send(c.get(5, "/fake/broken"))
		s.send(s.head(s.far("/fake/broken"), false, ":status", "bad"))
		c.wantText(5, "502", "ended the connection")
		m.wantEnded("0 slow 504", "0 fine 4", "0 broken 502")

		c.send(c.get(7, "/fake/cut"))
		s.far("/fake/cut")
		_ = s.nc.Close()
		c.wantText(7, "502", "ended the connection")
		m.wantEnded("0 slow 504", "0 fine 4", "0 broken 502", "0 broken 502")
	})
}

// The head of an answer may be changed; those of 1xx are handed on as they are.
func TestRelayChangesAnswers(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		e.relayed(0, h2.Relay{Prepare: func(r *h2.Request, _ *protocols.Call) string { return r.Path }, Answer: func(r *h2.Response, call *protocols.Call, note string) {
			r.Add("x-note", note)
			r.Set("x-was", r.Status)
			r.Add("x-path", call.Path)
			r.Drop(func(name string) bool { return name == "server" })
		}})
		c := e.dial()
		c.send(c.get(1, "/fake/a"))
		s := e.backend()
		id := s.far("/fake/a")
		s.send(s.head(id, false, ":status", "103", "server", "x"), s.head(id, true, ":status", "204", "server", "x"))
		a := c.answer(1)
		if got := fmt.Sprint(a.fields); a.status != "204" || !strings.Contains(got, "x-was") || !strings.Contains(got, "/fake/a") || strings.Contains(got, "server") {
			t.Errorf("%v %v", a, got)
		}
	})
}

// What no member takes has an answer all the same, if there is one.
func TestRelayOtherwise(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(_ *testing.T, e *edge) {
		m := e.relayed(2, h2.Relay{Retries: 1, Otherwise: &h2.Static{
			Status: 200, Fields: []hpack.HeaderField{{Name: "x-fallback", Value: "yes"}}, Body: []byte("later"),
		}})
		c := e.dial()
		c.send(c.post(1, "/fake/a"), data(1, "body", false))
		c.wantBody(1, "200", "later")
		c.wantReset(1, frame.NoError)
		m.wantEnded("0 unreachable -1", "1 unreachable -1")
		m.gone = true
		c.send(c.head(3, true, request("HEAD", "/fake/b")...), c.startFake(5, "/fake/c"))
		c.wantBody(3, "200", "")
		c.wantCode(5, "14")
		e.wantResult("/fake/a", 200, "")
		e.wantResult("/fake/b", 200, "")
		e.wantResult("/fake/c", 14, "")
		c.wantOpen()
	})
}

// An upstream that is silent is asked for a sign of life, while there are streams; one that
// gives none is gone.
func TestSilentUpstream(t *testing.T) {
	l := h2.UpstreamLimits{Ping: time.Minute, PingTimeout: 10 * time.Second}
	inBubble(t, options{upstream: true, upLimits: l, limits: h2.Limits{PingAfter: time.Hour}}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.startFake(1, "/fake/a"))
		s := e.backend()
		s.far("/fake/a")
		time.Sleep(59 * time.Second)
		if n := len(s.of(frame.Ping, 0)); n != 0 {
			t.Errorf("%d PINGs before their time", n)
		}
		time.Sleep(4 * time.Second)
		pings := s.of(frame.Ping, 0)
		if len(pings) != 1 {
			t.Fatalf("%d PINGs after a minute", len(pings))
		}
		s.send(frame.AppendPing(nil, true, [8]byte(pings[0].payload)))
		time.Sleep(time.Minute)
		c.wantWaiting(1)
		if n := len(s.of(frame.Ping, 0)); n != 1 && n != 2 {
			t.Errorf("%d PINGs after two minutes", n)
		}
		time.Sleep(30 * time.Second) // no answer
		c.wantCode(1, "14")
		e.wantPool(0, 0, 0)
	})
}

// One without streams is not asked: it is closed when it is idle.
func TestIdleUpstreamIsNotAsked(t *testing.T) {
	l := h2.UpstreamLimits{Ping: time.Second, PingTimeout: time.Second, Idle: time.Minute}
	inBubble(t, onlyUp(l), func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/fake/a"))
		s := e.backend()
		s.serve("/fake/a")
		c.wantBody(1, "200", "/fake/a")
		time.Sleep(50 * time.Second)
		if n := len(s.of(frame.Ping, 0)); n != 0 {
			t.Errorf("%d PINGs", n)
		}
	})
}

// Connections that are kept warm are there before the first stream, come again when they break,
// and do not leave for want of streams; the others do.
func TestWarm(t *testing.T) {
	l := h2.UpstreamLimits{Warm: 2, Idle: 10 * time.Second}
	inBubble(t, onlyUp(l), func(t *testing.T, e *edge) {
		one, _ := e.backend(), e.backend()
		e.wantPool(2, 0, 0)
		time.Sleep(time.Minute)
		e.wantPool(2, 0, 0)
		_ = one.nc.Close()
		time.Sleep(10 * time.Second)
		three := e.backend()
		e.wantPool(2, 0, 0)
		if len(one.asked())+len(three.asked()) != 0 {
			t.Error("somebody was asked for something")
		}
	})
}
