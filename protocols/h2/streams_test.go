package h2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

func TestBodies(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.post(1, "/echo"), data(1, "one ", false), data(1, "", false), raw(frame.Data, frame.Padded, 1, []byte("\x03two\x00\x00\x00")))
		if a := c.answer(1); a.body != "one two" || a.ended {
			t.Errorf("before the end: %v", a)
		}
		c.send(data(1, "", true))
		c.wantBody(1, "200", "one two")

		// Interim answers and trailers, both ways.
		c.send(c.get(3, "/hints"))
		c.wantBody(3, "200", "hello")
		if a := c.answer(3); len(a.infos) != 2 || a.infos[0] != "103" {
			t.Errorf("interim answers: %v", a)
		}
		c.send(c.get(5, "/trailers"))
		c.wantBody(5, "200", "hello")
		if a := c.answer(5); a.trailer("sum") != "42" {
			t.Errorf("trailers: %v", a)
		}
		c.send(c.post(7, "/len", "trailer", "sum"), data(7, "12345", false), c.head(7, true, "sum", "9"))
		c.wantBody(7, "200", "5 <nil>")
		if got := field(c.answer(7).fields, "got-sum"); got != "9" {
			t.Errorf("the server got trailer %q", got)
		}
		c.send(c.post(9, "/len", "expect", "100-continue"))
		if a := c.answer(9); len(a.infos) != 1 || a.infos[0] != "100" {
			t.Errorf("expect: %v", a)
		}
		c.send(data(9, "12", true))
		c.wantBody(9, "200", "2 <nil>")

		c.send(c.post(11, "/abort"))
		c.wantReset(11, frame.InternalError)
		c.send(c.get(13, "/hello"))
		c.wantBody(13, "200", "hello")
		c.send(c.head(15, true, request("HEAD", "/hello")...))
		c.wantBody(15, "200", "")
	})
}

func TestContentLength(t *testing.T) {
	for name, tc := range map[string]struct {
		send func(c *peer) [][]byte
		ok   bool
	}{
		"right":      {func(*peer) [][]byte { return [][]byte{data(1, "123", false), data(1, "45", true)} }, true},
		"empty DATA": {func(*peer) [][]byte { return [][]byte{data(1, "12345", false), data(1, "", true)} }, true},
		"trailers":   {func(c *peer) [][]byte { return [][]byte{data(1, "12345", false), c.head(1, true, "a", "b")} }, true},
		"padding": {func(*peer) [][]byte {
			return [][]byte{raw(frame.Data, frame.Padded|frame.EndStream, 1, []byte("\x0112345\x00"))}
		}, true},
		"more":          {func(*peer) [][]byte { return [][]byte{data(1, "123456", false)} }, false},
		"more at last":  {func(*peer) [][]byte { return [][]byte{data(1, "123", false), data(1, "456", true)} }, false},
		"less":          {func(*peer) [][]byte { return [][]byte{data(1, "1234", true)} }, false},
		"less, trailer": {func(c *peer) [][]byte { return [][]byte{data(1, "1234", false), c.head(1, true, "a", "b")} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, options{}, func(_ *testing.T, e *edge) {
				c := e.dial()
				c.send(c.post(1, "/len", "content-length", "5"))
				c.send(tc.send(c)...)
				if tc.ok {
					c.wantBody(1, "200", "5 <nil>")
				} else {
					c.wantReset(1, frame.ProtocolError)
				}
			})
		})
	}
}

// A reset, and the end of a connection, end the handler's context.
func TestCancellation(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, e *edge) {
		c := e.dial()
		wait := &echov1.UnaryRequest{Message: "wait"}
		c.send(c.get(1, "/wait"), c.call(3, "Unary", wait), c.post(5, "/wait"), c.get(7, "/wait"), c.call(9, "Unary", wait))
		c.seen()
		if n, m := e.running.Load(), e.echo.running.Load(); n != 3 || m != 2 {
			t.Fatalf("%d and %d handlers run", n, m)
		}
		c.send(rst(1, frame.Cancel), rst(3, frame.Cancel), rst(5, frame.NoError))
		c.seen()
		if n, m := e.canceled.Load(), e.echo.canceled.Load(); n != 2 || m != 1 {
			t.Errorf("after resets: %d and %d handlers were canceled", n, m)
		}
		if r, ok := e.results.Load("/oneport.echo.v1.Echo/Unary"); !ok || r.(protocols.Result).Status != int(codes.Canceled) {
			t.Errorf("the call's result: %v", r)
		}
		for _, id := range []uint32{1, 3, 5} {
			if a := c.answer(id); a.status != "" || a.reset != "" {
				t.Errorf("stream %d: %v after the client's reset", id, a)
			}
		}
		_ = c.nc.Close()
		c.seen()
		if n, m := e.canceled.Load(), e.echo.canceled.Load(); n != 3 || m != 2 {
			t.Errorf("at the end: %d and %d handlers were canceled", n, m)
		}
		if n := e.calls.Load(); n != 2 && !e.upstream && !e.handler || n != 5 && (e.upstream || e.handler) { // net/http's are not the switch's
			t.Errorf("%d calls have ended", n)
		}
	})
}

func TestTooLargeHeaders(t *testing.T) {
	many := func() (list []string) {
		for i := range 101 {
			list = append(list, "x-"+strconv.Itoa(i), "v")
		}
		return list
	}()
	large := []string{"a", strings.Repeat("a", 6000), "b", strings.Repeat("b", 6000), "c", strings.Repeat("c", 6000)}
	inBubble(t, options{}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/hello", large...), c.get(3, "/hello", many...), c.post(5, "/hello", large...))
		for _, id := range []uint32{1, 3, 5} {
			if a := c.answer(id); a.status != "431" || !a.ended {
				t.Errorf("stream %d: %v, want 431", id, a)
			}
		}
		c.wantReset(5, frame.NoError) // it need not send its body
		c.send(c.post(7, "/oneport.echo.v1.Echo/Unary", append([]string{"content-type", "application/grpc"}, large...)...))
		if a := c.answer(7); a.status != "200" || a.trailer("grpc-status") != "8" {
			t.Errorf("a call: %v, want RESOURCE_EXHAUSTED", a)
		}
		// Trailers get no answer of their own.
		c.send(c.post(9, "/len"), data(9, "x", false), c.head(9, true, large...))
		c.wantReset(9, frame.EnhanceYourCalm)
		// The table of HPACK is as the client has it.
		c.send(c.get(11, "/hello", "c", strings.Repeat("c", 6000)))
		c.wantBody(11, "200", "hello")
	})
}

// One field alone that is larger than all may be is no worse than many.
func TestTooLargeField(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/wait"), c.get(3, "/hello", "cookie", strings.Repeat("a", 17<<10)))
		if a := c.answer(3); a.status != "431" {
			t.Errorf("%v, want 431; %s", a, c.goAways())
		}
		c.wantOpen()
	})
}

func TestNoServer(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, e *edge) {
		check := func(c *peer, http, grpc, path string) {
			t.Helper()
			c.send(c.get(1, path), c.post(3, path), c.head(5, true, request("HEAD", path)...),
				c.head(7, true, request("POST", path, "content-type", "application/grpc+proto")...), c.post(9, path, "content-type", "application/grpc"))
			for _, id := range []uint32{1, 3} {
				if a := c.answer(id); a.status != http || !a.ended || a.body == "" || field(a.fields, "content-length") != strconv.Itoa(len(a.body)) {
					t.Errorf("stream %d: %v, want %s", id, a, http)
				}
			}
			if a := c.answer(5); a.status != http || !a.ended || a.body != "" { // RFC 9110, 9.3.2
				t.Errorf("HEAD: %v, want %s without a body", a, http)
			}
			for _, id := range []uint32{7, 9} {
				if a := c.answer(id); a.status != "200" || a.trailer("grpc-status") != grpc {
					t.Errorf("stream %d: %v, want %s", id, a, grpc)
				}
			}
			c.wantReset(3, frame.NoError)
			c.wantReset(9, frame.NoError)
			c.send(data(3, "too late", false), data(9, "too late", true)) // they may not know yet
			c.wantOpen()
		}
		check(e.dial(), "404", "12", "/none")
		_ = e.behind.Close()
		if e.upstream {
			check(e.dial(), "502", "14", "/fake")
		} else {
			check(e.dial(), "503", "14", "/fake")
		}
	})
}

// The answer comes before the request's body has: the rest is not wanted, and
// does not disturb.
func TestBodyAfterEarlyAnswer(t *testing.T) {
	inBubble(t, options{}, func(_ *testing.T, e *edge) {
		c := e.dial()
		for id := uint32(1); id < 200; id += 2 { // 100 x 16 KiB: more than the connection's window
			c.send(c.post(id, "/early"))
			c.wantBody(id, "403", "no")
			c.send(data(id, strings.Repeat("x", 16<<10), id%4 == 1))
			c.wantReset(id, frame.NoError)
		}
		c.send(c.post(1001, "/len"), data(1001, "12345", true))
		c.wantBody(1001, "200", "5 <nil>")
	})
}

// Content of any size goes through windows of any size.
func TestWindows(t *testing.T) {
	for _, first := range []uint32{0, 1, 1000, 65535, 1 << 20, frame.MaxWindow} {
		t.Run(strconv.Itoa(int(first)), func(t *testing.T) {
			inBubble(t, options{}, func(t *testing.T, e *edge) {
				c := e.dial(frame.Setting{ID: frame.InitialWindowSize, Value: first})
				c.send(c.get(1, "/big?100000"), c.get(3, "/trailers"))
				if got, want := len(c.answer(1).body)+len(c.answer(3).body), int(min(2*first, first+5, 65535)); got != want {
					t.Errorf("%d bytes through windows of %d", got, first)
				}
				if a := c.answer(3); first < 5 && (a.ended || a.status != "200") {
					t.Errorf("trailers overtook the body: %v", a)
				}
				c.send(window(0, 1<<20), settings(frame.InitialWindowSize, 50_000))
				if n := len(c.answer(1).body); n != max(50_000, min(int(first), 100_000)) && first != 65535 && !e.handler { // a function has not written it all before
					t.Errorf("%d bytes through a window of 50000, after %d", n, first)
				}
				c.send(settings(frame.InitialWindowSize, 0), settings(frame.InitialWindowSize, 1<<20))
				c.wantBody(3, "200", "hello")
				if a := c.answer(1); len(a.body) != 100_000 || !a.ended {
					t.Errorf("at last: %v", a)
				}
				c.wantOpen()
			})
		})
	}
}

// A window below zero (6.9.2).
func TestNegativeWindow(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, e *edge) {
		c := e.dial(frame.Setting{ID: frame.InitialWindowSize, Value: 10_000})
		want := func(n int) {
			t.Helper()
			if got := len(c.answer(1).body); got != n {
				t.Errorf("%d bytes have come, want %d", got, n)
			}
		}
		c.send(c.get(1, "/big?30000"))
		want(10_000)
		c.send(settings(frame.InitialWindowSize, 1000)) // now at -9000
		want(10_000)
		c.send(window(1, 8999))
		want(10_000)
		c.send(window(1, 101))
		want(10_100)
		c.send(settings(frame.InitialWindowSize, 0), settings(frame.InitialWindowSize, 5000))
		want(14_100)
		c.send(window(1, 1<<20))
		want(30_000)
		// SETTINGS may overflow a window, which ends the connection.
		c.send(c.get(3, "/wait"), window(3, frame.MaxWindow-5000), settings(frame.InitialWindowSize, 5001))
		c.wantGoAway(frame.FlowControlError)
	})
}

// SETTINGS keep changing while content flows, both ways.
func TestSettingsUnderLoad(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(window(0, 1<<24))
		var want bytes.Buffer
		c.send(c.post(1, "/echo"), c.get(3, "/big?500000"))
		most := 200
		if e.handler { // nothing but the stream's window is between
			most = 120
		}
		for i := range most {
			p := strings.Repeat(string(rune('a'+i%26)), 2000)
			want.WriteString(p)
			c.send(data(1, p, false), settings(frame.InitialWindowSize, uint32(i*7919%60_000)), settings(frame.HeaderTableSize, uint32(i%3*2048)))
			if i%10 == 0 {
				c.seen()
			}
		}
		c.send(data(1, "", true), settings(frame.InitialWindowSize, 1<<24))
		c.wantBody(1, "200", want.String())
		if a := c.answer(3); len(a.body) != 500_000 || !a.ended {
			t.Errorf("%v", a)
		}
	})
}

// The connection's window is shared fairly, and given back.
func TestConnectionWindow(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, e *edge) {
		c := e.dial(frame.Setting{ID: frame.InitialWindowSize, Value: 1 << 20})
		for id := uint32(1); id < 20; id += 2 {
			c.send(c.get(id, "/big?100000"))
		}
		c.seen()
		for range 60 {
			c.send(window(0, 1<<14))
			c.seen()
		}
		for id := uint32(1); id < 20; id += 2 {
			if a := c.answer(id); len(a.body) != 100_000 || !a.ended {
				t.Errorf("stream %d: %v", id, a)
			}
		}
		// Uploads: the switch gives credit back for all there was.
		credit := map[uint32]int{0: 65535, 101: int(c.setting(frame.InitialWindowSize, 65535))}
		sent, used := 0, map[uint32]int{}
		c.send(c.post(101, "/len"))
		for sent < 3<<20 {
			for _, id := range []uint32{0, 101} {
				used[id] = credit[id] - sent
				for _, g := range c.of(frame.WindowUpdate, id) {
					used[id] += int(binary.BigEndian.Uint32(g.payload))
				}
			}
			n := min(used[0], used[101], 16000)
			if n <= 0 {
				t.Fatalf("stuck after %d bytes: %v", sent, used)
			}
			c.send(data(101, strings.Repeat("x", n), false))
			sent += n
		}
		c.send(data(101, "", true))
		c.wantBody(101, "200", strconv.Itoa(sent)+" <nil>")
	})
}

// setting is a value that the other side has announced.
func (p *peer) setting(id uint16, def uint32) uint32 {
	for _, g := range p.of(frame.Settings, 0) {
		for b := g.payload; len(b) > 0; b = b[6:] {
			if s := frame.ParseSetting(b); s.ID == id {
				def = s.Value
			}
		}
	}
	return def
}

func TestCallsByHand(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.call(1, "Unary", &echov1.UnaryRequest{Message: "fail"}), c.call(3, "ServerStream", &echov1.ServerStreamRequest{Message: "x", Count: 50}))
		if a := c.answer(1); a.trailer("grpc-status") != "15" || a.trailer("grpc-message") != "lost" {
			t.Errorf("%v", a)
		}
		if a := c.answer(3); a.trailer("grpc-status") != "0" || len(a.body) < 50*6 {
			t.Errorf("%v", a)
		}
		c.send(c.start(5, "Bidi"))
		for range 20 {
			before := len(c.answer(5).body)
			m := c.message(&echov1.BidiRequest{Message: "ping"})
			c.send(data(5, m[:3], false), data(5, m[3:], false))
			if got := len(c.answer(5).body) - before; got != len(m) {
				t.Errorf("%d bytes back, want %d", got, len(m))
			}
		}
		c.send(data(5, "", true))
		if a := c.answer(5); a.trailer("grpc-status") != "0" {
			t.Errorf("%v", a)
		}
		// A field that is the switch's own.
		c.send(c.post(7, "/oneport.echo.v1.Echo/Unary", "content-type", "application/grpc", "te", "trailers", h2.StreamField, "5"),
			data(7, c.message(&echov1.UnaryRequest{Message: "x"}), true))
		if a := c.answer(7); a.trailer("grpc-status") != "0" {
			t.Errorf("%v", a)
		}
	})
}

// More streams than announced are refused, and may be tried again.
func TestTooManyStreams(t *testing.T) {
	inBubble(t, options{limits: h2.Limits{Streams: 3}}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/wait"), c.get(3, "/wait"), c.get(5, "/wait"), c.get(7, "/hello"))
		c.wantReset(7, frame.RefusedStream)
		if n := c.setting(frame.MaxConcurrentStreams, 0); n != 3 {
			t.Errorf("MAX_CONCURRENT_STREAMS %d", n)
		}
		c.send(rst(3, frame.Cancel), c.get(9, "/hello"))
		c.wantBody(9, "200", "hello")
	})
	inBubble(t, options{inProcess: true, grpc: []grpc.ServerOption{grpc.MaxConcurrentStreams(2)}}, func(_ *testing.T, e *edge) {
		c := e.dial()
		wait := &echov1.UnaryRequest{Message: "wait"}
		c.send(c.call(1, "Unary", &echov1.UnaryRequest{Message: "the server's SETTINGS come with the first"}))
		c.seen()
		c.send(c.call(3, "Unary", wait), c.call(5, "Unary", wait), c.call(7, "Unary", wait), c.get(9, "/hello"))
		c.wantReset(7, frame.RefusedStream)
		c.wantBody(9, "200", "hello")
	})
}

// grpc-go's own policy on PINGs reaches the client.
func TestTooManyPings(t *testing.T) {
	inBubble(t, options{inProcess: true, grpc: []grpc.ServerOption{grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Minute})}}, func(_ *testing.T, e *edge) {
		c := e.dial()
		c.send(c.call(1, "Unary", &echov1.UnaryRequest{Message: "wait"}))
		for range 3 {
			c.wantOpen()
			time.Sleep(time.Second)
		}
		_ = c.try(frame.AppendPing(nil, false, pingData), frame.AppendPing(nil, false, pingData))
		time.Sleep(3 * time.Second)
		c.wantGoAway(frame.EnhanceYourCalm)
		e.alive()
	})
	// Without gRPC there is no such policy.
	inBubble(t, options{}, func(_ *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/wait"))
		for range 100 {
			c.wantOpen()
		}
	})
}

// A client like grpc-go's measures round trips: it sends a PING when DATA comes.
// The server takes that for abuse unless it has sent something itself.
func TestPingsFollowData(t *testing.T) {
	aging := grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 2 * time.Second, MaxConnectionAgeGrace: time.Hour})
	inBubble(t, options{grpc: []grpc.ServerOption{aging}}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.start(1, "Bidi"))
		time.Sleep(4 * time.Second) // its connection gets too old, and takes no more streams
		c.send(c.call(3, "Unary", &echov1.UnaryRequest{Message: "wait"}))
		m := c.message(&echov1.BidiRequest{Message: "x"})
		for i := range 10 {
			c.send(data(1, m, false))
			if got := len(c.answer(1).body); got != (i+1)*len(m) {
				t.Fatalf("message %d: %d bytes came back; %s", i, got, c.goAways())
			}
			c.wantOpen()
		}
	})
}

// What the client pings for may come from others than the server that has a policy on PINGs.
// That one does not get to see them: it has sent nothing that they could be for.
func TestPingsFollowOthers(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.start(1, "Bidi"))
		m := c.message(&echov1.BidiRequest{Message: "x"})
		c.send(data(1, m, false))
		c.answer(1)
		c.wantOpen()
		for i := range uint32(10) {
			c.send(c.get(3+2*i, "/hello"))
			c.wantBody(3+2*i, "200", "hello")
			c.wantOpen()
		}
		c.send(c.get(101, "/big?80000"))
		c.seen()
		c.wantOpen()
		for range 10 { // what it could not be sent at once comes when there is room for it
			c.send(window(0, 1000), window(101, 1000))
			c.seen()
			c.wantOpen()
		}
		c.send(window(0, 1<<20), window(101, 1<<20))
		if got := len(c.answer(101).body); got != 80000 {
			t.Errorf("%d bytes, want 80000", got)
		}
		c.send(data(1, m, false))
		if got := len(c.answer(1).body); got != 2*len(m) {
			t.Errorf("%d bytes came back of two messages", got)
		}
	})
}

// grpc-go goes on behind the switch as it does on a port of its own: a call
// that ends well there ends well here.
func TestGRPCDrains(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, e *edge) { // GracefulStop
		client := e.grpcClient()
		ended := make(chan error, 1)
		go func() {
			_, err := client.Unary(t.Context(), &echov1.UnaryRequest{Message: "sleep"})
			ended <- err
		}()
		time.Sleep(time.Second)
		e.grpc.GracefulStop()
		if err := <-ended; err != nil {
			t.Errorf("a call that was in flight: %v", err)
		}
		_, err := client.Unary(t.Context(), &echov1.UnaryRequest{Message: "x"})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("a call to a server that has stopped: %v", err)
		}
	})
	aging := keepalive.ServerParameters{MaxConnectionAge: 2 * time.Second, MaxConnectionAgeGrace: 30 * time.Second}
	inBubble(t, options{grpc: []grpc.ServerOption{grpc.KeepaliveParams(aging)}}, func(t *testing.T, e *edge) {
		client := e.grpcClient()
		const n = 200
		ended := make(chan error, n)
		for i := range n {
			time.Sleep(37 * time.Millisecond)
			go func() {
				msg := "x"
				if i%3 == 0 {
					msg = "sleep"
				}
				_, err := client.Unary(context.Background(), &echov1.UnaryRequest{Message: msg})
				ended <- err
			}()
		}
		for range n {
			if err := <-ended; err != nil {
				t.Errorf("while the connection behind ages: %v", err)
			}
		}
		if n := e.sw.Stats().Open; n != 1 {
			t.Errorf("%d connections; want one: its age is the switch's business", n)
		}
	})
}

// A sensitive field stays one (RFC 7541, 7.1.3).
func TestNeverIndexed(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.encode(request("GET", "/fake")...)
		_ = c.enc.WriteField(hpack.HeaderField{Name: "authorization", Value: "secret", Sensitive: true})
		c.send(frame.AppendBlock(nil, 1, c.buf.Bytes(), true))
		s := e.backend()
		got := s.of(frame.Headers, 1)
		if len(got) != 1 || field(got[0].fields, "authorization") != "secret" {
			t.Fatalf("the server got %v", got)
		}
		if f := got[0].fields[len(got[0].fields)-1]; !f.Sensitive {
			t.Errorf("%v is not sensitive any more", f)
		}
	})
}
