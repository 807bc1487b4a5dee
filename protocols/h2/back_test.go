package h2_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// What a server sends malformed ends at most its own connection, and never
// leaves a stream without an answer.
func TestBrokenBackends(t *testing.T) {
	ok := func(s *peer, stream uint32, end bool) []byte { return s.head(stream, end, ":status", "200") }
	for name, tc := range map[string]struct {
		say  func(s *peer) []byte
		want []string // of stream 1, which has no answer yet
		// and of stream 3, whose answer has begun
		begun []string
	}{
		"unknown frame":        {func(*peer) []byte { return raw(0xbe, 0, 1, []byte("x")) }, []string{"-"}, []string{"-"}},
		"too large":            {func(*peer) []byte { return raw(frame.Data, 0, 1, make([]byte, 1<<14+1)) }, []string{"502"}, []string{"RST"}},
		"PUSH_PROMISE":         {func(*peer) []byte { return raw(frame.PushPromise, 4, 1, []byte{0, 0, 0, 2, 0x82}) }, []string{"502"}, []string{"RST"}},
		"RST_STREAM, short":    {func(*peer) []byte { return raw(frame.RSTStream, 0, 1, []byte{1}) }, []string{"502"}, []string{"RST"}},
		"PING, short":          {func(*peer) []byte { return raw(frame.Ping, 0, 0, []byte{1}) }, []string{"502"}, []string{"RST"}},
		"GOAWAY, short":        {func(*peer) []byte { return raw(frame.GoAway, 0, 0, []byte{1}) }, []string{"502"}, []string{"RST"}},
		"WINDOW_UPDATE, short": {func(*peer) []byte { return raw(frame.WindowUpdate, 0, 0, []byte{1}) }, []string{"502"}, []string{"RST"}},
		"SETTINGS, odd":        {func(*peer) []byte { return raw(frame.Settings, 0, 0, []byte{1}) }, []string{"502"}, []string{"RST"}},
		"DATA, bad padding":    {func(*peer) []byte { return raw(frame.Data, frame.Padded, 3, []byte{9}) }, []string{"502"}, []string{"RST"}},
		"HEADERS, bad padding": {func(*peer) []byte { return raw(frame.Headers, frame.Padded, 1, []byte{9}) }, []string{"502"}, []string{"RST"}},
		"HPACK error":          {func(*peer) []byte { return raw(frame.Headers, frame.EndHeaders, 1, []byte{0xff, 0xff}) }, []string{"502"}, []string{"RST"}},
		"a list without an end": {func(*peer) []byte {
			return bytes.Join([][]byte{raw(frame.Headers, 0, 1, nil), bytes.Repeat(raw(frame.Continuation, 0, 1, nil), 200)}, nil)
		}, []string{"502"}, []string{"RST"}},
		"stray CONTINUATION":     {func(*peer) []byte { return raw(frame.Continuation, frame.EndHeaders, 1, []byte{0x88}) }, []string{"502"}, []string{"RST"}},
		"interrupted block":      {func(s *peer) []byte { return append(raw(frame.Headers, 0, 1, []byte{0x88}), ok(s, 3, false)...) }, []string{"502"}, []string{"RST"}},
		"DATA without HEADERS":   {func(*peer) []byte { return data(1, "x", true) }, []string{"502", "RST"}, []string{"-", "RST"}},
		"no status":              {func(s *peer) []byte { return s.head(1, true, "a", "b") }, []string{"502", "RST"}, []string{"-", "RST"}},
		"status abc":             {func(s *peer) []byte { return s.head(1, true, ":status", "abc") }, []string{"502", "RST"}, []string{"-", "RST"}},
		"status twice":           {func(s *peer) []byte { return s.head(1, true, ":status", "200", ":status", "200") }, []string{"502", "RST"}, []string{"-", "RST"}},
		"status 101":             {func(s *peer) []byte { return s.head(1, true, ":status", "101") }, []string{"502", "RST"}, []string{"-", "RST"}},
		"empty head":             {func(s *peer) []byte { return s.head(1, true) }, []string{"502", "RST"}, []string{"-", "RST"}},
		"upper case":             {func(s *peer) []byte { return s.head(1, true, ":status", "200", "A", "b") }, []string{"502", "RST"}, []string{"-", "RST"}},
		"line feed":              {func(s *peer) []byte { return s.head(1, true, ":status", "200", "a", "b\nc") }, []string{"502", "RST"}, []string{"-", "RST"}},
		"trailers without end":   {func(s *peer) []byte { return s.head(3, false, "a", "b") }, []string{"-", "502"}, []string{"RST"}},
		"status in trailers":     {func(s *peer) []byte { return s.head(3, true, ":status", "200") }, []string{"-", "502"}, []string{"RST"}},
		"DATA beyond the window": {func(*peer) []byte { return bytes.Repeat(data(3, strings.Repeat("x", 1<<14), false), 70) }, []string{"502", "-"}, []string{"RST"}},
		"streams nobody opened": {func(s *peer) []byte {
			return slices.Concat(ok(s, 99, true), ok(s, 2, true), data(99, "x", true), rst(2, 0), window(98, 1))
		}, []string{"-", "502"}, []string{"-", "RST"}},
		"even more SETTINGS": {func(*peer) []byte { return bytes.Repeat(settings(frame.InitialWindowSize, 1<<31), 100) }, []string{"-", "502"}, []string{"-", "RST"}},
		"refused":            {func(*peer) []byte { return append(rst(1, frame.RefusedStream), rst(3, frame.InternalError)...) }, []string{"RST REFUSED_STREAM"}, []string{"RST INTERNAL_ERROR"}},
		"away":               {func(*peer) []byte { return frame.AppendGoAway(nil, 0, frame.InternalError, "") }, []string{"RST REFUSED_STREAM"}, []string{"RST"}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, options{}, func(t *testing.T, e *edge) {
				c := e.dial()
				c.send(window(0, 1<<24), c.get(1, "/fake"), c.get(3, "/fake"), c.get(5, "/wait"))
				s := e.backend()
				s.send(ok(s, 3, false), data(3, "x", false))
				c.seen()
				_ = s.try(tc.say(s))
				check := func(stream uint32, want []string) {
					t.Helper()
					a := c.answer(stream)
					got := a.status
					if a.reset != "" {
						got = "RST " + a.reset
					}
					if got == "" || got == "200" && stream == 3 && !a.ended {
						got = "-"
					}
					if !slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(got, w) }) {
						t.Errorf("stream %d: %v, want one of %q", stream, a, want)
					}
				}
				check(1, tc.want)
				check(3, tc.begun)
				c.send(c.get(7, "/hello"))
				c.wantBody(7, "200", "hello")
				if a := c.answer(5); a.reset != "" || a.status != "" {
					t.Errorf("another server's stream: %v", a)
				}
				e.alive()
				// Its next connection is a new start, if there has to be one.
				had := s.latest()
				c.send(c.get(9, "/fake"))
				if s.ended() != nil {
					s, had = e.backend(), 0
				}
				if id := s.latest(); id > had {
					s.send(s.head(id, true, ":status", "204"))
					c.wantBody(9, "204", "")
				} else if name != "away" {
					t.Error("the next stream did not come")
				}
			})
		})
	}
}

// A server that dies in the middle of things.
func TestDyingBackend(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, e *edge) {
		c := e.dial()
		grpcHead := request("POST", "/fake", "content-type", "application/grpc", "te", "trailers")
		c.send(c.get(1, "/fake"), c.post(3, "/fake"), c.post(5, "/fake"), c.head(7, false, grpcHead...), c.head(9, true, grpcHead...), c.get(11, "/hello"))
		s := e.backend()
		s.send(s.head(3, false, ":status", "200"), data(3, "part", false), // in the middle of an answer
			s.head(5, false, ":status", "200"), data(5, "all", true), // the answer is whole, the request is not
			s.head(7, false, ":status", "200", "content-type", "application/grpc"), data(7, "part", false))
		c.seen()
		_ = s.nc.Close()
		if a := c.answer(1); a.status != "502" || !a.ended {
			t.Errorf("no answer: %v", a)
		}
		if a := c.answer(3); a.body != "part" || a.reset != "INTERNAL_ERROR" {
			t.Errorf("half an answer: %v", a)
		}
		if a := c.answer(5); a.body != "all" || !a.ended || a.reset != "NO_ERROR" {
			t.Errorf("half a request: %v; want to be told that the rest is not wanted", a)
		}
		for _, id := range []uint32{7, 9} {
			if a := c.answer(id); a.trailer("grpc-status") != "14" {
				t.Errorf("call %d: %v", id, a)
			}
		}
		c.wantBody(11, "200", "hello")
		e.alive()
	})
	// One that accepts and says nothing.
	inBubble(t, options{}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.post(1, "/fake"), c.get(3, "/hello"))
		nc, err := e.behind.Accept()
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			c.send(data(1, strings.Repeat("x", 1<<14), false)) // it reads nothing
		}
		c.wantBody(3, "200", "hello")
		c.wantOpen()
		c.send(rst(1, frame.Cancel))
		_ = nc.Close()
		c.wantOpen()
		e.alive()
	})
}

// Streams for a server that reads nothing do not pile up.
func TestDeafBackend(t *testing.T) {
	inBubble(t, options{limits: h2.Limits{Nuisance: 1 << 30}}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/fake"))
		nc, err := e.behind.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if e.upstream { // nobody is sent anything who has not said hello
			_, _ = nc.Write(frame.AppendSettings(nil))
			synctest.Wait()
		}
		before := heap()
		long := strings.Repeat("x", 8000)
		for i := range 2000 {
			id := uint32(2*i + 3)
			c.send(c.get(id, "/fake", fmt.Sprint("x-", i), long))
			if a := c.answer(id); a.status == "503" {
				if n := heap(); n > before+16<<20 {
					t.Errorf("%d KiB", (n-before)>>10)
				}
				return
			}
			c.send(rst(id, frame.Cancel))
		}
		if n := heap(); !e.upstream || n > before+16<<20 {
			t.Errorf("2000 streams wait for it: %d KiB", (n-before)>>10)
		}
	})
}
