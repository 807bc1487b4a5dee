package h2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// The pool of connections to one upstream. What a connection does is in trunk_test.go.

// pool is the upstream behind /fake.
func (e *edge) pool() *h2.Upstream {
	e.t.Helper()
	u, ok := e.fake.(*h2.Upstream)
	if !ok {
		e.t.Fatal("the fake server is in this process")
	}
	return u
}

// wantPool checks how much of the pool is in use.
func (e *edge) wantPool(conns, streams, waiting int) {
	e.t.Helper()
	synctest.Wait()
	if st := e.pool().Stats(); st.Conns != conns || st.Streams != streams || st.Waiting != waiting {
		e.t.Errorf("%+v; want %d connections, %d streams, %d waiting", st, conns, streams, waiting)
	}
}

// asked gives the paths of all requests that a server has got, in order.
func (p *peer) asked() []string {
	var list []string
	for _, g := range p.seen() {
		if path := field(g.fields, ":path"); path != "" {
			list = append(list, path)
		}
	}
	return list
}

// far is the stream that a server has got a request on.
func (p *peer) far(path string) uint32 {
	p.t.Helper()
	for _, g := range p.seen() {
		if field(g.fields, ":path") == path {
			return g.Stream
		}
	}
	p.t.Fatalf("%s did not come; %q did", path, p.asked())
	return 0
}

// serve answers a request that a server has got.
func (p *peer) serve(path string) {
	p.t.Helper()
	id := p.far(path)
	p.send(p.head(id, false, ":status", "200"), data(id, path, true))
}

// wantAsked checks what a server has got.
func (p *peer) wantAsked(paths ...string) {
	p.t.Helper()
	if got := p.asked(); !slices.Equal(got, paths) {
		p.t.Errorf("the server got %q; want %q", got, paths)
	}
}

// wantText checks the status of an answer of the switch itself, and a word of it.
func (p *peer) wantText(stream uint32, status, word string) {
	p.t.Helper()
	if a := p.answer(stream); a.status != status || !strings.Contains(a.body, word) || !a.ended {
		p.t.Errorf("stream %d: %v %q; want %s, %q", stream, a, a.body, status, word)
	}
}

// wantCode checks how a gRPC call has ended.
func (p *peer) wantCode(stream uint32, code string) {
	p.t.Helper()
	if a := p.answer(stream); a.status != "200" || a.trailer("grpc-status") != code || !a.ended {
		p.t.Errorf("call %d: %v; want grpc-status %s", stream, a, code)
	}
}

// wantWaiting checks that a stream has got nothing yet.
func (p *peer) wantWaiting(streams ...uint32) {
	p.t.Helper()
	for _, id := range streams {
		if a := p.answer(id); a.status != "" || a.reset != "" {
			p.t.Errorf("stream %d: %v; want nothing yet", id, a)
		}
	}
}

// wantResult checks what the access log says.
func (e *edge) wantResult(path string, status int, err string) {
	e.t.Helper()
	synctest.Wait()
	v, _ := e.results.Load(path)
	r, ok := v.(protocols.Result)
	if !ok {
		e.t.Errorf("the call of %s has not ended", path)
		return
	}
	if got := fmt.Sprint(r.Err); r.Status != status || err == "" && r.Err != nil || !strings.Contains(got, err) {
		e.t.Errorf("%s ended with %d, %v; want %d, %q", path, r.Status, r.Err, status, err)
	}
}

// startFake is the head of a gRPC call to the fake server.
func (p *peer) startFake(stream uint32, path string) []byte {
	return p.post(stream, path, "content-type", "application/grpc", "te", "trailers")
}

func maxStreams(n uint32) frame.Setting {
	return frame.Setting{ID: frame.MaxConcurrentStreams, Value: n}
}

func onlyUp(l h2.UpstreamLimits) options { return options{upstream: true, upLimits: l} }

// Streams of several clients share a connection. Each has an id of its own there.
func TestStreamsShareAConnection(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		a, b := e.dial(), e.dial()
		a.send(a.get(1, "/fake/a1"))
		s := e.backend()
		a.send(a.post(7, "/fake/a7"))
		a.seen()
		b.send(b.post(1, "/fake/b1"), data(1, "from b", true))
		b.seen()
		b.send(b.get(3, "/fake/b3"))
		s.wantAsked("/fake/a1", "/fake/a7", "/fake/b1", "/fake/b3")
		for i, g := range []string{"/fake/a1", "/fake/a7", "/fake/b1", "/fake/b3"} {
			if id := s.far(g); id != uint32(2*i+1) {
				t.Errorf("%s is stream %d", g, id)
			}
		}
		a.send(data(7, "from a", true))
		if x, y := s.answer(s.far("/fake/a7")).body, s.answer(s.far("/fake/b1")).body; x != "from a" || y != "from b" {
			t.Errorf("bodies %q and %q", x, y)
		}
		e.wantPool(1, 4, 0)
		for _, path := range []string{"/fake/b3", "/fake/a7", "/fake/b1", "/fake/a1"} {
			s.serve(path)
		}
		a.wantBody(1, "200", "/fake/a1")
		a.wantBody(7, "200", "/fake/a7")
		b.wantBody(1, "200", "/fake/b1")
		b.wantBody(3, "200", "/fake/b3")
		e.wantPool(1, 0, 0)
		e.wantResult("/fake/a7", 200, "")
	})
}

// An upstream gets as many streams as it takes. More get another connection, as
// long as there may be one, and wait then.
func TestConcurrentStreamsUpstream(t *testing.T) {
	for _, tc := range []struct{ max, conns, streams, clients int }{
		{1, 1, 1, 3}, {3, 1, 3, 5}, {1, 3, 3, 5}, {3, 2, 6, 8}, {100, 1, 100, 120}, {1000, 1, 100, 120}, {2, 4, 8, 9},
	} {
		t.Run(fmt.Sprint(tc.max, " streams, ", tc.conns, " connections"), func(t *testing.T) {
			inBubble(t, onlyUp(h2.UpstreamLimits{Conns: tc.conns}), func(_ *testing.T, e *edge) {
				var clients []*peer
				for range tc.clients {
					c := e.dial()
					clients = append(clients, c)
					c.send(c.get(1, "/fake/"+fmt.Sprint(len(clients)-1)))
					c.seen()
				}
				var servers []*peer
				for range tc.conns {
					s := e.backend(maxStreams(uint32(tc.max)))
					servers = append(servers, s)
				}
				e.wantPool(tc.conns, tc.streams, tc.clients-tc.streams)
				for i := range clients { // each that ends lets another one in
					for _, s := range servers {
						for _, path := range s.asked() {
							if id := s.far(path); s.answer(id).reset == "" && path == fmt.Sprint("/fake/", i) {
								s.serve(path)
							}
						}
						if open := len(s.asked()); open > tc.max+i+1 {
							e.t.Errorf("%d streams, %d have ended", open, i+1)
						}
					}
					clients[i].wantBody(1, "200", fmt.Sprint("/fake/", i))
				}
				e.wantPool(tc.conns, 0, 0)
			})
		})
	}
}

// An upstream that takes nothing at all does not get one connection after the other.
func TestNoConcurrentStreams(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{Wait: 4 * time.Second}), func(_ *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/fake/1"), c.startFake(3, "/fake/3"))
		s := e.backend(maxStreams(0))
		c.wantWaiting(1, 3)
		e.wantPool(1, 0, 2)
		time.Sleep(3 * time.Second)
		c.wantWaiting(1, 3)
		s.send(settings(frame.MaxConcurrentStreams, 1)) // one of the two
		s.wantAsked("/fake/1")
		time.Sleep(2 * time.Second)
		c.wantCode(3, "14")
		s.serve("/fake/1")
		c.wantBody(1, "200", "/fake/1")
	})
}

// An upstream may change its mind on how many streams it takes.
func TestConcurrentStreamsChange(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{Conns: 1}), func(_ *testing.T, e *edge) {
		var all []*peer
		ask := func() *peer {
			c := e.dial()
			c.send(c.get(1, fmt.Sprint("/fake/", len(all))))
			c.seen()
			all = append(all, c)
			return c
		}
		for range 3 {
			ask()
		}
		s := e.backend(maxStreams(3))
		e.wantPool(1, 3, 0)
		s.send(settings(frame.MaxConcurrentStreams, 1))
		synctest.Wait()
		ask()
		e.wantPool(1, 3, 1)
		s.serve("/fake/0")
		e.wantPool(1, 2, 1)
		s.serve("/fake/1")
		e.wantPool(1, 1, 1)
		s.serve("/fake/2")
		e.wantPool(1, 1, 0)
		s.wantAsked("/fake/0", "/fake/1", "/fake/2", "/fake/3")
		ask()
		ask()
		e.wantPool(1, 1, 2)
		s.send(settings(frame.MaxConcurrentStreams, 2))
		e.wantPool(1, 2, 1)
		s.send(settings(frame.MaxConcurrentStreams, 0))
		s.serve("/fake/3")
		s.serve("/fake/4")
		e.wantPool(1, 0, 1)
		s.send(settings(frame.MaxConcurrentStreams, 1<<32-1))
		e.wantPool(1, 1, 0)
		s.serve("/fake/5")
		for i, c := range all {
			c.wantBody(1, "200", fmt.Sprint("/fake/", i))
		}
	})
}

// Whoever has few streams comes before those that have many, and nobody gets
// more than half of what there is.
func TestFairTurns(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{Conns: 1}), func(_ *testing.T, e *edge) {
		greedy, other, modest := e.dial(), e.dial(), e.dial()
		for i := range 6 {
			greedy.send(greedy.get(uint32(2*i+1), fmt.Sprint("/fake/g", i)))
		}
		s := e.backend(maxStreams(4))
		s.wantAsked("/fake/g0", "/fake/g1") // half
		e.wantPool(1, 2, 4)
		for i := range 4 {
			other.send(other.get(uint32(2*i+1), fmt.Sprint("/fake/o", i)))
		}
		e.wantPool(1, 4, 6)
		modest.send(modest.get(1, "/fake/m0"))
		modest.seen()
		modest.send(modest.get(3, "/fake/m1"))
		e.wantPool(1, 4, 8)
		s.serve("/fake/g0")
		s.serve("/fake/g1")
		s.wantAsked("/fake/g0", "/fake/g1", "/fake/o0", "/fake/o1", "/fake/m0", "/fake/m1")
		s.serve("/fake/m0")
		s.serve("/fake/o0")
		s.serve("/fake/o1")
		s.serve("/fake/m1")
		// The third ones of both, who was first; then the fourth ones.
		s.wantAsked("/fake/g0", "/fake/g1", "/fake/o0", "/fake/o1", "/fake/m0", "/fake/m1", "/fake/g2", "/fake/o2", "/fake/g3", "/fake/o3")
	})
}

// A client alone gets half of what an upstream takes, and all that it asks for in the end.
func TestHalfIsEnough(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{Conns: 2}), func(t *testing.T, e *edge) {
		c := e.dial()
		for i := range 50 {
			c.send(c.get(uint32(2*i+1), fmt.Sprint("/fake/", i)))
		}
		s := e.backend(maxStreams(10))
		for i := range 50 {
			if n := len(s.asked()); n > i+10 {
				t.Fatalf("%d streams at once", n-i)
			}
			s.serve(fmt.Sprint("/fake/", i))
			c.wantBody(uint32(2*i+1), "200", fmt.Sprint("/fake/", i))
		}
	})
}

func TestTooManyWait(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{Conns: 1, Waiting: 3}), func(_ *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/fake/1"))
		s := e.backend(maxStreams(1))
		for _, id := range []uint32{3, 5, 7} {
			c.send(c.get(id, fmt.Sprint("/fake/", id)))
		}
		e.wantPool(1, 1, 3)
		c.send(c.post(9, "/fake/9"), c.startFake(11, "/fake/11"))
		c.wantText(9, "503", "too many")
		c.wantCode(11, "14")
		e.wantResult("/fake/9", 503, "")
		e.wantResult("/fake/11", 14, "")
		s.serve("/fake/1")
		e.wantPool(1, 1, 2)
		c.send(c.get(13, "/fake/13"))
		c.wantWaiting(13)
		for _, id := range []uint32{3, 5, 7, 13} {
			s.serve(fmt.Sprint("/fake/", id))
			c.wantBody(id, "200", fmt.Sprint("/fake/", id))
		}
	})
}

func TestWaitTooLong(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{Conns: 1, Wait: 4 * time.Second}), func(_ *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/fake/1"))
		s := e.backend(maxStreams(1))
		c.send(c.post(3, "/fake/3"), c.startFake(5, "/fake/5"))
		c.seen()
		time.Sleep(3 * time.Second)
		c.send(c.get(7, "/fake/7"))
		c.wantWaiting(3, 5, 7)
		time.Sleep(2 * time.Second)
		c.wantText(3, "503", "too long")
		c.wantCode(5, "14")
		c.wantWaiting(7)
		e.wantResult("/fake/3", 503, "")
		e.wantResult("/fake/5", 14, "")
		s.serve("/fake/1")
		s.wantAsked("/fake/1", "/fake/7")
		s.serve("/fake/7")
		c.wantBody(7, "200", "/fake/7")
		e.wantPool(1, 0, 0)
	})
}

// A stream that waits may get its body and its trailers meanwhile, and may be given up.
func TestWaitingStreams(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{Conns: 1}), func(t *testing.T, e *edge) {
		c, gone := e.dial(), e.dial()
		c.send(c.get(1, "/fake/1"))
		s := e.backend(maxStreams(1))
		long := strings.Repeat("0123456789abcdef", 8<<10) // 128 KiB
		c.send(c.post(3, "/fake/3"), c.post(5, "/fake/5"), c.post(7, "/fake/7"), c.get(9, "/fake/9"))
		for i := 0; i < len(long); i += 1 << 14 {
			c.send(data(3, long[i:i+1<<14], false))
		}
		c.send(c.head(3, true, "x-end", "1"), data(5, "body", true), c.head(7, true, "x-end", "2"), data(7, "", true))
		gone.send(gone.get(1, "/fake/gone"), gone.post(3, "/fake/gone3"), data(3, long[:1<<14], false))
		e.wantPool(1, 1, 5) // one of 7 was reset, for its second end
		c.wantReset(7, frame.StreamClosed)
		c.send(rst(9, frame.Cancel))
		e.wantPool(1, 1, 4)
		e.wantResult("/fake/9", 499, "CANCEL")
		_ = gone.nc.Close()
		e.wantPool(1, 1, 2)
		e.wantResult("/fake/gone", 499, "CANCEL")
		s.send(window(0, 1<<20), settings(frame.InitialWindowSize, 1<<20))
		s.serve("/fake/1")
		a := s.answer(s.far("/fake/3"))
		if a.body != long || field(a.trailers, "x-end") != "1" {
			t.Errorf("what came while it waited: %v", a)
		}
		s.serve("/fake/3")
		if a := s.answer(s.far("/fake/5")); a.body != "body" || !a.ended {
			t.Errorf("what came while it waited: %v", a)
		}
		s.serve("/fake/5")
		s.wantAsked("/fake/1", "/fake/3", "/fake/5")
		c.wantBody(5, "200", "/fake/5")
		e.wantPool(1, 0, 0)
	})
}

// What a waiting stream may hold is bounded by its window, and the client goes on.
func TestWaitingStreamsAreBounded(t *testing.T) {
	inBubble(t, options{upstream: true, limits: h2.Limits{Window: 64 << 10, ConnWindow: 128 << 10}, upLimits: h2.UpstreamLimits{Conns: 1}},
		func(_ *testing.T, e *edge) {
			c := e.dial()
			c.send(c.get(1, "/fake/1"))
			e.backend(maxStreams(1))
			c.send(c.post(3, "/fake/3"))
			for range 4 {
				c.send(data(3, strings.Repeat("x", 1<<14), false))
			}
			if n := len(c.of(frame.WindowUpdate, 3)); n != 0 {
				e.t.Errorf("it gets credit again %d times", n)
			}
			c.send(data(3, "x", false))
			c.wantReset(3, frame.FlowControlError)
			e.wantPool(1, 1, 0)
		})
}

// The connection's fate while its streams wait for it.
func TestUnreachable(t *testing.T) {
	refused := errors.New("refused")
	var say func(nc net.Conn)
	answering := func(f func(nc net.Conn)) dialer {
		return func(ctx context.Context, next func(context.Context) (net.Conn, error)) (net.Conn, error) {
			say = f
			return next(ctx)
		}
	}
	for name, tc := range map[string]struct {
		dial  dialer
		after time.Duration
	}{
		"refused": {func(context.Context, func(context.Context) (net.Conn, error)) (net.Conn, error) { return nil, refused }, 0},
		"no answer to the dial": {func(ctx context.Context, _ func(context.Context) (net.Conn, error)) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, 2 * time.Second},
		"silent":             {answering(func(net.Conn) {}), 2 * time.Second},
		"half of SETTINGS":   {answering(func(nc net.Conn) { _, _ = nc.Write([]byte{0, 0, 0, 4, 0, 0}) }), 2 * time.Second},
		"a byte of SETTINGS": {answering(func(nc net.Conn) { _, _ = nc.Write([]byte{0}) }), 2 * time.Second},
		"only an ack":        {answering(func(nc net.Conn) { _, _ = nc.Write(frame.AppendSettingsAck(nil)) }), 2 * time.Second},
		"HTTP/1":             {answering(func(nc net.Conn) { _, _ = io.WriteString(nc, "HTTP/1.1 400 Bad Request\r\n\r\n") }), 0},
		"another frame":      {answering(func(nc net.Conn) { _, _ = nc.Write(frame.AppendPing(nil, false, pingData)) }), 0},
		"closes":             {answering(func(nc net.Conn) { _ = nc.Close() }), 0},
		"SETTINGS, and ends": {answering(func(nc net.Conn) {
			_, _ = nc.Write(settings(frame.MaxConcurrentStreams, 0))
			_ = nc.Close()
		}), 0},
		"SETTINGS and GOAWAY": {answering(func(nc net.Conn) {
			_, _ = nc.Write(slices.Concat(frame.AppendSettings(nil), frame.AppendGoAway(nil, 0, frame.NoError, "")))
		}), 0},
	} {
		t.Run(name, func(t *testing.T) {
			down, dials := true, 0
			dial := func(ctx context.Context, next func(context.Context) (net.Conn, error)) (net.Conn, error) {
				if dials++; dials > 20 {
					t.Error("it is dialed over and over")
					<-ctx.Done()
				}
				if !down {
					say = nil
					return next(ctx)
				}
				return tc.dial(ctx, next)
			}
			o := options{upstream: true, upDial: dial, upLimits: h2.UpstreamLimits{Connect: 2 * time.Second, Wait: 3 * time.Second}}
			inBubble(t, o, func(t *testing.T, e *edge) {
				accepted := make(chan net.Conn)
				go func() {
					defer close(accepted)
					for {
						nc, err := e.behind.Accept()
						if err != nil {
							return
						}
						if say == nil {
							accepted <- nc
							return
						}
						go func() { _, _ = io.Copy(io.Discard, nc) }()
						say(nc)
						t.Cleanup(func() { _ = nc.Close() })
					}
				}()
				c := e.dial()
				for i := range uint32(3) {
					begun := time.Now()
					http, call := 8*i+1, 8*i+3
					c.send(c.post(http, fmt.Sprint("/fake/", http)), data(http, "x", false), c.startFake(call, fmt.Sprint("/fake/", call)))
					c.seen()
					time.Sleep(tc.after + 100*time.Millisecond)
					c.wantText(http, "502", "")
					c.wantCode(call, "14")
					e.wantResult(fmt.Sprint("/fake/", http), 502, "")
					e.wantResult(fmt.Sprint("/fake/", call), 14, "")
					if d := time.Since(begun); d > 3*time.Second {
						t.Errorf("it takes %v", d)
					}
					e.wantPool(0, 0, 0)
				}
				if n := e.pool().Stats().Failed; n < 3 || n > 10 {
					t.Errorf("%d connections have failed", n)
				}
				down = false
				c.send(c.get(99, "/fake/99"))
				nc := <-accepted
				s := newPeer(t, nc)
				if _, err := io.ReadFull(nc, make([]byte, len(frame.Preface))); err != nil {
					t.Fatal(err)
				}
				s.send(frame.AppendSettings(nil))
				go s.read()
				s.serve("/fake/99")
				c.wantBody(99, "200", "/fake/99")
			})
		})
	}
}

// Another connection that cannot be opened costs nobody that waits for the first.
func TestAnotherConnectionFails(t *testing.T) {
	dials := 0
	dial := func(ctx context.Context, next func(context.Context) (net.Conn, error)) (net.Conn, error) {
		if dials++; dials > 1 {
			return nil, errors.New("one is enough")
		}
		return next(ctx)
	}
	inBubble(t, options{upstream: true, upDial: dial, upLimits: h2.UpstreamLimits{Conns: 4}}, func(_ *testing.T, e *edge) {
		a, b := e.dial(), e.dial()
		a.send(a.get(1, "/fake/a"))
		s := e.backend(maxStreams(1))
		b.send(b.get(1, "/fake/b"))
		b.wantWaiting(1)
		s.serve("/fake/a")
		s.serve("/fake/b")
		b.wantBody(1, "200", "/fake/b")
	})
}

// A connection without streams is closed, and opened again when it is needed.
func TestIdleUpstream(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{Idle: 8 * time.Second}), func(t *testing.T, e *edge) {
		c := e.dial()
		for i := range uint32(3) {
			one, two := 4*i+1, 4*i+3
			c.send(c.get(one, fmt.Sprint("/fake/", one)))
			s := e.backend()
			time.Sleep(20 * time.Second) // with a stream
			s.serve(fmt.Sprint("/fake/", one))
			c.wantBody(one, "200", fmt.Sprint("/fake/", one))
			time.Sleep(6 * time.Second)
			c.send(c.get(two, fmt.Sprint("/fake/", two)))
			s.serve(fmt.Sprint("/fake/", two))
			time.Sleep(7 * time.Second)
			e.wantPool(1, 0, 0)
			time.Sleep(3 * time.Second)
			e.wantPool(0, 0, 0)
			if s.ended() == nil {
				t.Error("the connection is still there")
			}
		}
		if n := e.pool().Stats().Failed; n != 0 {
			t.Errorf("%d connections have failed", n)
		}
	})
}

// A connection that is slow to open is not taken for one that is idle.
func TestSlowIsNotIdle(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{Idle: time.Second}), func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/fake/1"))
		nc, err := e.behind.Accept()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		s := newPeer(t, nc)
		s.send(frame.AppendSettings(nil))
		if _, err := io.ReadFull(nc, make([]byte, len(frame.Preface))); err != nil {
			t.Fatal(err)
		}
		go s.read()
		s.serve("/fake/1")
		c.wantBody(1, "200", "/fake/1")
		e.wantPool(1, 0, 0)
	})
}

// Close ends everything at once, and for good.
func TestCloseUpstream(t *testing.T) {
	for name, tc := range map[string]struct {
		max     uint32
		streams int
	}{"streams": {100, 2}, "streams and waiting ones": {1, 1}, "only waiting ones": {0, 0}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, onlyUp(h2.UpstreamLimits{Conns: 1}), func(t *testing.T, e *edge) {
				a, b := e.dial(), e.dial()
				a.send(a.post(1, "/fake/a"), a.get(3, "/hello"))
				b.send(b.startFake(1, "/fake/b"))
				s := e.backend(maxStreams(tc.max))
				e.wantPool(1, tc.streams, 2-tc.streams)
				begun := time.Now()
				e.pool().Close()
				if d := time.Since(begun); d > 0 {
					t.Errorf("Close takes %v", d)
				}
				if s.ended() == nil {
					t.Error("the connection is still there")
				}
				if got := a.answer(1); got.status != "502" && got.status != "503" || !got.ended {
					t.Errorf("%v", got)
				}
				b.wantCode(1, "14")
				a.send(a.get(5, "/fake/c"), a.startFake(7, "/fake/d"), a.get(9, "/hello"))
				a.wantText(5, "503", "")
				a.wantCode(7, "14")
				a.wantBody(9, "200", "hello")
				e.wantPool(0, 0, 0)
				if n := e.pool().Stats().Failed; n != 0 {
					t.Errorf("%d connections have failed", n)
				}
				e.pool().Close()
			})
		})
	}
	t.Run("while it is dialed", func(t *testing.T) {
		inBubble(t, onlyUp(h2.UpstreamLimits{}), func(_ *testing.T, e *edge) {
			c := e.dial()
			c.send(c.get(1, "/fake/1")) // nobody accepts
			c.wantWaiting(1)
			e.pool().Close()
			if a := c.answer(1); a.status != "502" && a.status != "503" {
				e.t.Errorf("%v", a)
			}
		})
	})
	t.Run("before SETTINGS", func(t *testing.T) {
		inBubble(t, onlyUp(h2.UpstreamLimits{}), func(_ *testing.T, e *edge) {
			c := e.dial()
			c.send(c.get(1, "/fake/1"))
			if _, err := e.behind.Accept(); err != nil {
				t.Fatal(err)
			}
			c.wantWaiting(1)
			begun := time.Now()
			e.pool().Close()
			if a := c.answer(1); a.status != "502" && a.status != "503" {
				e.t.Errorf("%v", a)
			}
			if d := time.Since(begun); d > 0 {
				e.t.Errorf("Close takes %v", d)
			}
		})
	})
}

// Close of the switch leaves the upstream, without a stream.
func TestCloseSwitchBeforeUpstream(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{Conns: 1}), func(t *testing.T, e *edge) {
		a, b := e.dial(), e.dial()
		a.send(a.post(1, "/fake/a"), data(1, "x", false))
		b.send(b.get(1, "/fake/b"))
		s := e.backend(maxStreams(1))
		e.wantPool(1, 1, 1)
		e.sw.Close()
		e.wantPool(1, 0, 0)
		if got := s.answer(1); got.reset != "CANCEL" {
			t.Errorf("the upstream is told %v", got)
		}
		e.wantResult("/fake/a", 499, "CANCEL")
		e.wantResult("/fake/b", 499, "CANCEL")
	})
}

// Clients that cancel a lot share connections with their like: what they do to
// a server's patience, others do not feel.
func TestClientsThatCancel(t *testing.T) {
	for name, cancel := range map[string]func(id uint32) []byte{
		"by RST_STREAM":                       func(id uint32) []byte { return rst(id, frame.Cancel) },
		"made you reset, WINDOW_UPDATE of 0":  func(id uint32) []byte { return window(id, 0) },
		"made you reset, DATA behind the end": func(id uint32) []byte { return data(id, "x", true) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
				good, bad := e.dial(), e.dial()
				good.send(good.get(1, "/fake/good"))
				s := e.backend()
				id := uint32(1)
				for range 30 {
					bad.send(bad.get(id, "/fake/cancelled"), cancel(id))
					bad.seen()
					id += 2
				}
				bad.send(bad.get(id, "/fake/bad"))
				apart := e.backend()
				if id := apart.far("/fake/bad"); apart.answer(id).reset != "" {
					t.Error("it was reset")
				}
				if got := s.asked(); slices.Contains(got, "/fake/bad") {
					t.Errorf("the %d-th stream on the others' connection", len(got))
				}
				time.Sleep(10 * time.Second) // and it is forgotten
				apart.serve("/fake/bad")
				bad.send(bad.get(id+2, "/fake/good2"))
				s.serve("/fake/good2")
				bad.wantBody(id+2, "200", "/fake/good2")
			})
		})
	}
}

// uploadStuck has a client send to an upstream that does not read, for a while.
func (e *edge) uploadStuck() (c *peer, upstream net.Conn) {
	c = e.dial()
	c.send(c.post(1, "/fake"))
	nc, err := e.behind.Accept()
	if err != nil {
		e.t.Fatal(err)
	}
	_, _ = nc.Write(frame.AppendSettings(nil, frame.Setting{ID: frame.InitialWindowSize, Value: 1 << 20}))
	_, _ = nc.Write(frame.AppendWindowUpdate(nil, 0, 1<<20))
	synctest.Wait()
	for range 16 { // more than goes into the socket of a test
		c.send(data(1, strings.Repeat("x", 16<<10), false))
	}
	time.Sleep(5 * time.Second)
	return c, nc
}

// A connection whose upstream does not read gets no more streams while there
// can be another; when it reads again it gets some.
func TestStuckUpstreamIsLeftAlone(t *testing.T) {
	inBubble(t, options{upstream: true}, func(t *testing.T, e *edge) {
		c, nc := e.uploadStuck()
		other := e.dial()
		other.send(other.get(1, "/fake"))
		s := e.backend()
		s.send(s.head(s.latest(), true, ":status", "204"))
		other.wantBody(1, "204", "")

		go func() { _, _ = io.Copy(io.Discard, nc) }()
		time.Sleep(5 * time.Second)
		c.wantOpen()
		if a := c.answer(1); a.status != "" || a.reset != "" {
			t.Errorf("%v", a)
		}
	})
}

// So it is when it has no streams any more.
func TestStuckUpstreamWithoutStreams(t *testing.T) {
	inBubble(t, options{upstream: true}, func(_ *testing.T, e *edge) {
		c, nc := e.uploadStuck()
		defer nc.Close()
		c.send(rst(1, frame.Cancel), c.get(3, "/fake"))
		s := e.backend()
		s.send(s.head(s.latest(), true, ":status", "204"))
		c.wantBody(3, "204", "")
	})
}
