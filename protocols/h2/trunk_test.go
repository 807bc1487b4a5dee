package h2_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// One connection upstream, and what its streams cost each other.

// takes counts the bytes that have come on a stream.
func (p *peer) takes(stream uint32) (n int) {
	for _, g := range p.seen() {
		if g.Type == frame.Data && g.Stream == stream {
			n += len(g.payload)
		}
	}
	return n
}

// credits adds the credit up that was given for a stream, or for the connection.
func (p *peer) credits(stream uint32) (n int) {
	for _, g := range p.of(frame.WindowUpdate, stream) {
		n += int(g.payload[0])<<24 | int(g.payload[1])<<16 | int(g.payload[2])<<8 | int(g.payload[3])
	}
	return n
}

var kib16 = strings.Repeat("x", 1<<14)

// dialStuck opens a connection that says what it is given, and reads nothing.
func (e *edge) dialStuck(say func(c *peer) []byte) *peer {
	e.t.Helper()
	c := e.dialSilent()
	c.send([]byte(frame.Preface), frame.AppendSettings(nil), frame.AppendSettingsAck(nil), say(c))
	synctest.Wait()
	return c
}

// GOAWAY: streams that the upstream took are finished, others may be tried again.
func TestGoAwayUpstream(t *testing.T) {
	for _, announced := range []bool{false, true} {
		t.Run(fmt.Sprint("announced ", announced), func(t *testing.T) {
			inBubble(t, onlyUp(h2.UpstreamLimits{Conns: 1}), func(t *testing.T, e *edge) {
				a, b := e.dial(), e.dial()
				a.send(a.get(1, "/fake/1"))
				s := e.backend()
				b.send(b.post(1, "/fake/2"))
				b.seen()
				a.send(a.get(3, "/fake/3"), a.startFake(5, "/fake/4"))
				s.wantAsked("/fake/1", "/fake/2", "/fake/3", "/fake/4")
				if announced {
					s.send(frame.AppendGoAway(nil, frame.MaxStream, frame.NoError, ""))
					a.wantWaiting(1, 3, 5)
				}
				s.send(frame.AppendGoAway(nil, s.far("/fake/2"), frame.NoError, ""))
				a.wantReset(3, frame.RefusedStream)
				a.wantReset(5, frame.RefusedStream)
				e.wantResult("/fake/3", 502, "REFUSED_STREAM")
				e.wantResult("/fake/4", 14, "REFUSED_STREAM")
				a.send(a.get(7, "/fake/new"))
				s2 := e.backend()
				s2.wantAsked("/fake/new")
				if s.ended() != nil {
					t.Fatal("it is closed before its last stream has ended")
				}
				s.serve("/fake/1")
				b.send(data(1, "more", true))
				if got := s.answer(s.far("/fake/2")); got.body != "more" {
					t.Errorf("the rest of the request: %v", got)
				}
				s.serve("/fake/2")
				if s.ended() == nil {
					t.Error("it is not closed behind its last stream")
				}
				a.wantBody(1, "200", "/fake/1")
				b.wantBody(1, "200", "/fake/2")
				s2.serve("/fake/new")
				a.wantBody(7, "200", "/fake/new")
				e.wantPool(1, 0, 0)
				if n := e.pool().Stats().Failed; n != 0 {
					t.Errorf("%d connections have failed", n)
				}
			})
		})
	}
}

// The last that a stream sends still gets to an upstream that has sent GOAWAY.
func TestRestBehindGoAway(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.post(1, "/fake"))
		nc, err := e.behind.Accept()
		if err != nil {
			t.Fatal(err)
		}
		s := newPeer(t, nc)
		s.send(settings(frame.InitialWindowSize, 1<<20), window(0, 1<<20))
		synctest.Wait()
		s.send(s.head(1, true, ":status", "200"), frame.AppendGoAway(nil, 1, frame.NoError, ""))
		for i := range 8 { // more than goes into the socket of a test
			c.send(data(1, kib16, i == 7))
		}
		synctest.Wait()
		_, _ = io.ReadFull(nc, make([]byte, len(frame.Preface)))
		go s.read()
		if n := s.takes(1); n != 8<<14 || !s.answer(1).ended {
			t.Errorf("of %d bytes %d came, and the end: %v", 8<<14, n, s.answer(1).ended)
		}
		if s.ended() == nil {
			t.Error("it is not closed behind its last stream")
		}
	})
}

// Streams that wait when a connection goes away get another one.
func TestWaitingStreamsSurviveGoAway(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{Conns: 1}), func(_ *testing.T, e *edge) {
		a, b := e.dial(), e.dial()
		a.send(a.get(1, "/fake/1"))
		s := e.backend(maxStreams(1))
		b.send(b.get(1, "/fake/2"))
		b.wantWaiting(1)
		s.send(frame.AppendGoAway(nil, 1, frame.NoError, ""))
		s2 := e.backend()
		s2.serve("/fake/2")
		b.wantBody(1, "200", "/fake/2")
		s.serve("/fake/1")
		a.wantBody(1, "200", "/fake/1")
	})
	// And when one dies.
	inBubble(t, onlyUp(h2.UpstreamLimits{Conns: 1}), func(_ *testing.T, e *edge) {
		a, b := e.dial(), e.dial()
		a.send(a.get(1, "/fake/1"))
		s := e.backend(maxStreams(1))
		b.send(b.get(1, "/fake/2"))
		b.wantWaiting(1)
		_ = s.nc.Close()
		s2 := e.backend()
		a.wantText(1, "502", "ended")
		s2.serve("/fake/2")
		b.wantBody(1, "200", "/fake/2")
	})
}

// An upstream's resets are handed on.
func TestRefusedUpstream(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(_ *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/fake/1"), c.startFake(3, "/fake/3"), c.post(5, "/fake/5"))
		s := e.backend()
		s.send(rst(s.far("/fake/1"), frame.RefusedStream), rst(s.far("/fake/3"), frame.EnhanceYourCalm))
		c.wantReset(1, frame.RefusedStream)
		c.wantReset(3, frame.EnhanceYourCalm)
		e.wantResult("/fake/1", 502, "REFUSED_STREAM")
		e.wantResult("/fake/3", 14, "ENHANCE_YOUR_CALM")
		far := s.far("/fake/5")
		s.send(s.head(far, false, ":status", "200"), data(far, "early", true), rst(far, frame.NoError))
		c.wantBody(5, "200", "early")
		c.wantReset(5, frame.NoError)
		e.wantPool(1, 0, 0)
		e.wantResult("/fake/5", 200, "")
	})
}

// An upstream that dies answers for the streams of all its clients.
func TestUpstreamDies(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		a, b := e.dial(), e.dial()
		a.send(a.get(1, "/fake/1"))
		s := e.backend()
		b.send(b.get(1, "/fake/2"), b.startFake(3, "/fake/3"), b.startFake(5, "/fake/4"))
		far := s.far("/fake/2")
		s.send(s.head(far, false, ":status", "200"), data(far, "part", false))
		far = s.far("/fake/4")
		s.send(s.head(far, false, ":status", "200", "content-type", "application/grpc"), data(far, "part", false))
		b.seen()
		_ = s.nc.Close()
		a.wantText(1, "502", "ended")
		b.wantReset(1, frame.InternalError)
		b.wantCode(3, "14")
		b.wantCode(5, "14")
		e.wantResult("/fake/1", 502, "")
		e.wantResult("/fake/2", 200, "INTERNAL_ERROR")
		e.wantResult("/fake/3", 14, "")
		e.wantResult("/fake/4", 14, "")
		a.send(a.get(3, "/fake/5"))
		s = e.backend()
		s.serve("/fake/5")
		a.wantBody(3, "200", "/fake/5")
		if n := e.pool().Stats().Failed; n != 1 {
			t.Errorf("%d connections have failed", n)
		}
	})
}

// An upstream that stops reading costs its own streams, when its time is over,
// and nobody else anything.
func TestUpstreamStopsReading(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{Write: 8 * time.Second}), func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.post(1, "/fake/1"), c.post(3, "/fake/3"))
		nc, err := e.behind.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = nc.Write(slices.Concat(settings(frame.InitialWindowSize, 1<<24), window(0, 1<<24)))
		before := heap()
		for range 14 {
			c.send(data(1, kib16, false), data(3, kib16, false))
		}
		c.send(c.get(5, "/hello"))
		c.wantBody(5, "200", "hello")
		e.alive()
		for range 7 {
			time.Sleep(time.Second)
			c.wantWaiting(1, 3)
		}
		time.Sleep(3 * time.Second)
		c.wantText(1, "502", "ended")
		c.wantText(3, "502", "ended")
		e.wantPool(0, 0, 0)
		if n := heap(); n > before+4<<20 {
			t.Errorf("%d KiB", (n-before)>>10)
		}
		c.wantReset(1, frame.NoError)
		c.wantOpen()
		if n := c.credits(0); n < 28<<14 {
			t.Errorf("the connection's window is short of %d bytes", 28<<14-n)
		}
	})
}

// A client that reads nothing holds up nobody else's downloads on its connection upstream.
func TestStuckClientDownloads(t *testing.T) {
	for name, stuck := range map[string]func(e *edge) *peer{
		"reads nothing": func(e *edge) *peer {
			return e.dialStuck(func(c *peer) []byte {
				return slices.Concat(settings(frame.InitialWindowSize, frame.MaxWindow), window(0, 1<<30), c.get(1, "/fake/stuck"))
			})
		},
		"stream window 0": func(e *edge) *peer {
			c := e.dial(frame.Setting{ID: frame.InitialWindowSize, Value: 0})
			c.send(c.get(1, "/fake/stuck"))
			return c
		},
		"connection window 0": func(e *edge) *peer {
			c := e.dial(frame.Setting{ID: frame.InitialWindowSize, Value: frame.MaxWindow})
			c.send(c.get(1, "/fake/stuck"))
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, options{upstream: true}, func(t *testing.T, e *edge) {
				stuck(e)
				c := e.dial()
				c.send(window(0, 1<<30))
				s := e.backend()
				before := heap()
				far := s.far("/fake/stuck")
				s.send(s.head(far, false, ":status", "200"))
				sent := 0
				for range 1000 { // as much as it gets credit for
					if s.credits(far)+32<<10-sent < 1<<14 {
						break
					}
					s.send(data(far, kib16, false))
					sent += 1 << 14
				}
				if sent > 1<<20 {
					t.Errorf("it may send %d KiB that nobody reads", sent>>10)
				}
				for i := range uint32(6) {
					path := fmt.Sprint("/fake/", i)
					c.send(c.get(2*i+1, path))
					id := s.far(path)
					s.send(s.head(id, false, ":status", "200"))
					for range 100 {
						for s.credits(id)+32<<10-c.takes(2*i+1) < 1<<14 {
							c.send(window(2*i+1, 1<<20))
							synctest.Wait()
						}
						s.send(data(id, kib16, false))
						synctest.Wait()
					}
					s.send(data(id, "", true))
					if n := c.takes(2*i + 1); n != 100<<14 || !c.answer(2*i+1).ended {
						t.Fatalf("%d KiB of stream %d come", n>>10, i)
					}
					c.forget(2*i + 1)
				}
				if n := heap(); n > before+4<<20 {
					t.Errorf("%d KiB", (n-before)>>10)
				}
			})
		})
	}
}

// forget drops the DATA that has come on a stream.
func (p *peer) forget(stream uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = slices.DeleteFunc(p.got, func(g got) bool { return g.Type == frame.Data && g.Stream == stream })
}

// Nor anybody's uploads, when the upstream does not take its stream, or it does
// not read what it gets credit by.
func TestStuckClientUploads(t *testing.T) {
	inBubble(t, options{upstream: true}, func(t *testing.T, e *edge) {
		deaf := e.dialStuck(func(c *peer) []byte { return c.post(1, "/fake/deaf") })
		slow, c := e.dial(), e.dial()
		slow.send(slow.post(1, "/fake/slow"))
		c.send(c.post(1, "/fake/c"))
		s := e.backend()
		s.send(window(0, 1<<30))
		before := heap()
		for range 16 { // the whole window, and the upstream gives no credit for it
			slow.send(data(1, kib16, false))
		}
		if n := len(slow.of(frame.WindowUpdate, 1)); n != 0 {
			t.Errorf("credit for what nobody takes, %d times", n)
		}
		s.send(window(s.far("/fake/deaf"), 1<<30))
		for range 16 {
			if deaf.try(data(1, kib16, false)) != nil {
				break
			}
		}
		far := s.far("/fake/c")
		const rounds = 400
		for i := range rounds {
			s.send(window(far, 1<<14))
			synctest.Wait()
			c.send(data(1, kib16, i == rounds-1))
			synctest.Wait()
			s.forget(far)
		}
		if n := s.takes(s.far("/fake/slow")); n > frame.DefaultWindow {
			t.Errorf("%d bytes of the slow stream have come", n)
		}
		if got := c.credits(1); got < (rounds-32)<<14 {
			t.Errorf("the client gets credit for %d KiB", got>>10)
		}
		if n := heap(); n > before+4<<20 {
			t.Errorf("%d KiB", (n-before)>>10)
		}
		s.serve("/fake/c")
		c.wantBody(1, "200", "/fake/c")
	})
}

// A client that takes its answer slowly does not occupy a stream upstream that
// has ended there.
func TestAnswersWaitForTheirClientsAlone(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{Conns: 1}), func(_ *testing.T, e *edge) {
		slow := e.dial(frame.Setting{ID: frame.InitialWindowSize, Value: 0})
		slow.send(slow.get(1, "/fake/slow"))
		s := e.backend(maxStreams(1))
		c := e.dial()
		c.send(c.get(1, "/fake/c"))
		e.wantPool(1, 1, 1)
		s.serve("/fake/slow")
		s.serve("/fake/c")
		c.wantBody(1, "200", "/fake/c")
		e.wantPool(1, 0, 0)
		slow.send(slow.get(3, "/fake/slow3"))
		s.serve("/fake/slow3")
		_ = s.nc.Close()
		slow.send(window(1, 100), window(3, 100))
		slow.wantBody(1, "200", "/fake/slow")
		slow.wantBody(3, "200", "/fake/slow3")
		e.wantResult("/fake/slow", 200, "")
	})
}

// The upstream's INITIAL_WINDOW_SIZE, before and behind the streams that it is for.
func TestWindowsUpstream(t *testing.T) {
	initial := func(n uint32) []byte { return settings(frame.InitialWindowSize, n) }
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.post(1, "/fake/1"), data(1, kib16, false), data(1, kib16, false)) // waits
		s := e.backend(frame.Setting{ID: frame.InitialWindowSize, Value: 0})
		far := s.far("/fake/1")
		want := func(n int) {
			t.Helper()
			if got := s.takes(far); got != n {
				t.Fatalf("%d bytes come; want %d", got, n)
			}
		}
		want(0)
		s.send(initial(1))
		want(1)
		s.send(initial(1000))
		want(1000)
		s.send(initial(0)) // less than it has got
		s.send(window(far, 1000))
		want(1000)
		s.send(window(far, 1))
		want(1001)
		s.send(initial(100), initial(200))
		want(1201)
		c.send(c.post(3, "/fake/3"), data(3, kib16, false))
		if n := s.takes(s.far("/fake/3")); n != 200 {
			t.Errorf("%d bytes of the new stream", n)
		}
		s.send(initial(frame.MaxWindow - 1001))
		want(2 << 14)
		if n := s.takes(s.far("/fake/3")); n != 1<<14 {
			t.Errorf("%d bytes of the new stream", n)
		}
		if n := c.credits(0) - 3<<14; n < -(1<<19) || n > 1<<20 {
			t.Errorf("the client's connection gets %d too much", n)
		}
		c.send(data(1, "", true), data(3, "", true))
		s.serve("/fake/1")
		s.serve("/fake/3")
		c.wantBody(1, "200", "/fake/1")
		c.wantBody(3, "200", "/fake/3")
	})
	// The largest there is, from the start.
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.post(1, "/fake/1"), data(1, kib16, false))
		s := e.backend(frame.Setting{ID: frame.InitialWindowSize, Value: frame.MaxWindow})
		if n := s.takes(1); n != 1<<14 {
			t.Errorf("%d bytes", n)
		}
		s.send(window(1, 1<<14)) // what it has taken
		c.wantWaiting(1)
		s.send(window(1, 1))
		if a := s.answer(1); a.reset != "PROTOCOL_ERROR" {
			t.Errorf("an overflow: %v", a)
		}
		c.wantText(1, "502", "")
	})
	// One of the streams overflows by SETTINGS; the client hears of it at once.
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(_ *testing.T, e *edge) {
		c := e.dial()
		c.send(c.post(1, "/fake/1"), c.post(3, "/fake/3"))
		s := e.backend()
		s.send(window(1, 1<<20), initial(frame.MaxWindow))
		c.wantText(1, "502", "")
		c.wantWaiting(3)
		c.send(data(3, "x", true))
		s.serve("/fake/3")
		c.wantBody(3, "200", "/fake/3")
	})
	// The connection's window overflows, and a setting that is none.
	for _, say := range [][]byte{window(0, frame.MaxWindow), initial(frame.MaxWindow + 1)} {
		inBubble(t, onlyUp(h2.UpstreamLimits{}), func(_ *testing.T, e *edge) {
			c := e.dial()
			c.send(c.post(1, "/fake/1"))
			s := e.backend()
			s.send(say)
			c.wantText(1, "502", "")
			e.wantPool(0, 0, 0)
		})
	}
	// An overflow behind a whole answer that the client has not taken yet.
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		c := e.dial(frame.Setting{ID: frame.InitialWindowSize, Value: 0})
		c.send(c.post(1, "/fake/1"))
		s := e.backend()
		s.serve("/fake/1")
		s.send(window(1, frame.MaxWindow))
		if a := s.answer(1); a.reset != "PROTOCOL_ERROR" {
			t.Errorf("an overflow: %v", a)
		}
		c.send(data(1, "more", true))
		if a := s.answer(1); a.body != "" {
			t.Errorf("it gets more on a stream that was reset: %v", a)
		}
		c.send(window(1, 100))
		c.wantBody(1, "200", "/fake/1")
		e.wantPool(1, 0, 0)
	})
}

// Uploads go on at once when the upstream gives credit, whatever they waited for.
func TestUploadsGoOn(t *testing.T) {
	for name, credit := range map[string]func(s *peer){
		"SETTINGS":      func(s *peer) { s.send(window(0, 1<<24), settings(frame.InitialWindowSize, 1<<24)) },
		"WINDOW_UPDATE": func(s *peer) { s.send(window(1, 1<<24), window(0, 1<<24)) },
		"one WINDOW_UPDATE behind the other": func(s *peer) {
			s.send(window(1, 1<<24))
			synctest.Wait()
			s.send(window(0, 1<<24))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
				c := e.dial()
				c.send(c.post(1, "/fake/1"))
				s := e.backend()
				for range 16 {
					c.send(data(1, kib16, false))
				}
				if n := s.takes(1); n != frame.DefaultWindow {
					t.Errorf("%d bytes", n)
				}
				credit(s)
				if n := s.takes(1); n != 16<<14 {
					t.Errorf("%d bytes, with credit for all", n)
				}
				if n := c.credits(1); n < 8<<14 {
					t.Errorf("the client gets credit for %d bytes of %d", n, 16<<14)
				}
			})
		})
	}
	t.Run("a turn", func(t *testing.T) { // it had to wait for it
		inBubble(t, onlyUp(h2.UpstreamLimits{Conns: 1}), func(t *testing.T, e *edge) {
			a, c := e.dial(), e.dial()
			a.send(a.get(1, "/fake/a"))
			s := e.backend(maxStreams(1), frame.Setting{ID: frame.InitialWindowSize, Value: 1 << 20})
			s.send(window(0, 1<<20))
			c.send(c.post(1, "/fake/1"))
			for range 10 {
				c.send(data(1, kib16, false))
			}
			e.wantPool(1, 1, 1)
			s.serve("/fake/a")
			if n := c.credits(1); n < 8<<14 {
				t.Errorf("the client gets credit for %d bytes of %d", n, 10<<14)
			}
		})
	})
}

// The connection's window is shared out in turns.
func TestUploadsTakeTurns(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		var clients []*peer
		for i := range 4 {
			c := e.dial()
			clients = append(clients, c)
			c.send(c.post(1, fmt.Sprint("/fake/", i)))
			c.seen()
		}
		s := e.backend(frame.Setting{ID: frame.InitialWindowSize, Value: 1 << 20})
		for _, c := range clients {
			for range 12 {
				c.send(data(1, kib16, false))
			}
			c.seen()
		}
		for range 4 * 8 {
			s.send(window(0, 1<<14))
			synctest.Wait()
		}
		for i := range clients[1:] { // the first one had the window of the start
			if n := s.takes(s.far(fmt.Sprint("/fake/", i+1))); n < 6<<14 {
				t.Errorf("%d KiB of stream %d", n>>10, i+1)
			}
		}
	})
}

// An upstream that sends more than it may costs its stream.
func TestUpstreamOverruns(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		c := e.dial(frame.Setting{ID: frame.InitialWindowSize, Value: 0})
		c.send(c.get(1, "/fake/1"), c.get(3, "/fake/3"), c.startFake(5, "/fake/5"))
		s := e.backend()
		for _, id := range []uint32{1, 3, 5} {
			s.send(s.head(id, false, ":status", "200"), data(id, kib16, false), data(id, kib16, false))
		}
		c.seen()
		s.send(data(1, "x", false), data(5, "x", false))
		c.wantReset(1, frame.InternalError)
		if a := s.answer(1); a.reset != "PROTOCOL_ERROR" {
			t.Errorf("the upstream is told %v", a)
		}
		c.send(window(0, 1<<20), window(5, 1<<20), window(3, 1<<20))
		c.wantCode(5, "14")
		s.send(data(3, "x", true))
		if n := c.takes(3); n != 2<<14+1 {
			t.Errorf("%d bytes of a stream beside it", n)
		}
		e.wantPool(1, 0, 0)
	})
	// And a connection's window there is, however much comes.
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/fake/1"))
		s := e.backend()
		granted := s.credits(0) + frame.DefaultWindow
		for sent := 0; sent < 32<<20; sent += 1 << 14 {
			if sent > s.credits(0)+frame.DefaultWindow {
				t.Fatalf("no credit behind %d bytes", sent)
			}
			s.send(data(99, kib16, false)) // nobody's
		}
		if granted != 4<<20 {
			t.Errorf("a window of %d", granted)
		}
		s.serve("/fake/1")
		c.wantBody(1, "200", "/fake/1")
	})
}

func TestUpstreamPings(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(_ *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/fake/1"))
		s := e.backend()
		s.wantOpen()
		s.send(frame.AppendPing(nil, true, pingData)) // nobody asked
		s.wantOpen()
		c.wantWaiting(1)
	})
}

// An upstream that asks for answers and does not read them does not fill the memory.
func TestUpstreamFloods(t *testing.T) {
	for name, next := range map[string][]byte{
		"PING":                  frame.AppendPing(nil, false, pingData),
		"SETTINGS":              frame.AppendSettings(nil),
		"overflows of a window": window(1, frame.MaxWindow),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, onlyUp(h2.UpstreamLimits{Write: time.Hour}), func(t *testing.T, e *edge) {
				c := e.dial(frame.Setting{ID: frame.InitialWindowSize, Value: 0})
				c.send(c.post(1, "/fake/1"), c.get(3, "/fake/3"))
				nc, err := e.behind.Accept()
				if err != nil {
					t.Fatal(err)
				}
				s := newPeer(t, nc)
				s.send(frame.AppendSettings(nil), s.head(1, false, ":status", "200"), data(1, "x", true))
				synctest.Wait()
				before := heap()
				for range 1 << 10 {
					if s.try(slices.Repeat(next, 1<<10)) != nil {
						break
					}
				}
				synctest.Wait()
				if n := heap(); n > before+8<<20 {
					t.Errorf("%d KiB", (n-before)>>10)
				}
				e.alive()
			})
		})
	}
}

// 1xx answers are handed on, to a measure.
func TestInterimUpstream(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/fake/1"), c.get(3, "/fake/3"))
		s := e.backend()
		for range 10 {
			s.send(s.head(1, false, ":status", "103"))
		}
		s.serve("/fake/1")
		c.wantBody(1, "200", "/fake/1")
		if a := c.answer(1); len(a.infos) != 10 {
			t.Errorf("%d of 10 come", len(a.infos))
		}
		for range 20 {
			_ = s.try(s.head(3, false, ":status", "103"))
		}
		c.wantText(3, "502", "")
		if a := s.answer(3); a.reset != "PROTOCOL_ERROR" {
			t.Errorf("the upstream is told %v", a)
		}
		e.wantPool(1, 0, 0)
	})
	// They do not pile up for a client that does not read.
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		e.dialStuck(func(c *peer) []byte {
			var all []byte
			for i := range uint32(40) {
				all = append(all, c.get(2*i+1, "/fake/1")...)
			}
			return all
		})
		s := e.backend()
		before := heap()
		long := strings.Repeat("x", 30<<10)
		for i := range uint32(40) {
			for range 16 {
				s.send(s.head(2*i+1, false, ":status", "103", "x", long))
			}
		}
		synctest.Wait()
		if n := heap(); n > before+6<<20 {
			t.Errorf("%d KiB", (n-before)>>10)
		}
	})
}

// Trailers go through both ways, and tell the access log how a call ended.
func TestTrailersUpstream(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.startFake(1, "/fake/1"), data(1, "ask", false), c.head(1, true, "x-end", "1"), c.startFake(3, "/fake/3"), c.startFake(5, "/fake/5"),
			c.get(7, "/fake/7"), c.get(9, "/fake/9"), c.startFake(11, "/fake/11"), c.head(13, true, request("HEAD", "/fake/13")...))
		s := e.backend()
		if a := s.answer(1); a.body != "ask" || a.trailer("x-end") != "1" {
			t.Errorf("the request: %v", a)
		}
		grpc := []string{":status", "200", "content-type", "application/grpc"}
		s.send(s.head(1, false, grpc...), data(1, "answer", false), s.head(1, true, "grpc-status", "0", "x-sum", "42"))
		s.send(s.head(3, true, append(grpc, "grpc-status", "7")...))
		s.send(s.head(5, false, grpc...), s.head(5, true, "grpc-status", "9"))
		s.send(s.head(7, false, ":status", "418"), s.head(7, true, "x-sum", "1"))
		s.send(s.head(9, true, ":status", "304"))
		s.send(s.head(11, true, ":status", "503")) // whose answer this is it does not say
		s.send(s.head(13, true, ":status", "200", "content-length", "100"))
		if a := c.answer(1); a.body != "answer" || a.trailer("grpc-status") != "0" || a.trailer("x-sum") != "42" || !a.ended {
			t.Errorf("the answer: %v", a)
		}
		c.wantCode(3, "7")
		if a := c.answer(7); a.status != "418" || field(a.trailers, "x-sum") != "1" {
			t.Errorf("an answer with trailers: %v", a)
		}
		c.send(data(3, "", true), data(5, "", true), data(11, "", true))
		for path, status := range map[string]int{"/fake/1": 0, "/fake/3": 7, "/fake/5": 9, "/fake/7": 418, "/fake/9": 304, "/fake/11": 2, "/fake/13": 200} {
			e.wantResult(path, status, "")
		}
		e.wantPool(1, 0, 0)
	})
	// Resets by clients.
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.startFake(1, "/fake/1"), c.get(3, "/fake/3"), c.get(5, "/fake/5"))
		s := e.backend()
		s.send(s.head(5, false, ":status", "200"))
		c.seen()
		c.send(rst(1, frame.Cancel), rst(3, frame.Cancel), rst(5, frame.Cancel))
		e.wantResult("/fake/1", 1, "CANCEL")
		e.wantResult("/fake/3", 499, "CANCEL")
		e.wantResult("/fake/5", 200, "CANCEL")
		for _, id := range []uint32{1, 3, 5} {
			if a := s.answer(id); a.reset != "CANCEL" {
				t.Errorf("the upstream is told %v", a)
			}
		}
	})
}

// Above the limit on memory nothing new is begun, and who holds most goes.
func TestMemoryLimit(t *testing.T) {
	o := options{upstream: true, limits: h2.Limits{Memory: 160 << 10, PingAfter: time.Hour}}
	inBubble(t, o, func(t *testing.T, e *edge) {
		var clients []*peer
		for i := range 8 {
			c := e.dial(frame.Setting{ID: frame.InitialWindowSize, Value: 0})
			clients = append(clients, c)
			c.send(c.get(1, fmt.Sprint("/fake/", i)))
			c.seen()
		}
		s := e.backend()
		for i := range clients {
			id := s.far(fmt.Sprint("/fake/", i))
			s.send(s.head(id, false, ":status", "200"), data(id, kib16, false), data(id, kib16[:min(i*2000, 1<<14)], false))
		}
		synctest.Wait()
		c := e.dial()
		c.send(c.get(1, "/fake/c"), c.startFake(3, "/fake/d"))
		c.wantText(1, "503", "too many")
		c.wantCode(3, "14")
		c.wantOpen()
		time.Sleep(2 * time.Second)
		c.send(c.get(5, "/fake/e"))
		s.serve("/fake/e")
		c.wantBody(5, "200", "/fake/e")
		ended := 0
		for _, c := range clients {
			if c.ended() != nil {
				ended++
			}
		}
		if ended != 1 || clients[7].ended() == nil {
			t.Errorf("%d connections have ended, the largest: %v", ended, clients[7].ended())
		}
		clients[7].wantGoAway(frame.EnhanceYourCalm)
		if err := clients[0].ended(); err != nil {
			t.Errorf("the smallest has ended: %v", err)
		}
	})
}
