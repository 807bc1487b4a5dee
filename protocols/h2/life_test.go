package h2_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// seconds are limits that differ from each other, and from none of the defaults by much.
var seconds = h2.Limits{
	HeaderTimeout: 8 * time.Second, Idle: 40 * time.Second, BackIdle: 10 * time.Second, Write: 16 * time.Second,
	PingAfter: 24 * time.Second, PingTimeout: 8 * time.Second, Answer: time.Hour,
}

// endsWithin checks that the connection is alive shortly before, and over shortly after.
func (p *peer) endsWithin(d time.Duration) {
	p.t.Helper()
	time.Sleep(d - time.Second/10)
	if err := p.ended(); err != nil {
		p.t.Errorf("ended after less than %v: %v, %s", d, err, p.goAways())
	}
	time.Sleep(3 * time.Second) // two ticks, and one to linger
	if p.ended() == nil {
		p.t.Errorf("still there after %v", d+3*time.Second)
	}
}

func TestTimeouts(t *testing.T) {
	preface := []byte(frame.Preface)
	hello := slices.Concat(preface, frame.AppendSettings(nil))
	for name, tc := range map[string]struct {
		say   []byte // what a client says before it falls silent
		after time.Duration
		code  frame.Code
	}{
		"nothing":                {nil, seconds.HeaderTimeout, frame.SettingsTimeout},
		"half a preface":         {preface[:10], seconds.HeaderTimeout, frame.SettingsTimeout},
		"a preface":              {preface, seconds.HeaderTimeout, frame.SettingsTimeout},
		"half of SETTINGS":       {hello[:len(hello)-3], seconds.HeaderTimeout, frame.SettingsTimeout},
		"nothing more":           {hello, seconds.Idle, frame.NoError},
		"a block that is open":   {slices.Concat(hello, raw(frame.Headers, 0, 1, []byte{0x82})), seconds.HeaderTimeout, frame.EnhanceYourCalm},
		"half a HEADERS frame":   {slices.Concat(hello, raw(frame.Headers, frame.EndHeaders, 1, make([]byte, 100))[:50]), seconds.HeaderTimeout, frame.EnhanceYourCalm},
		"half a frame's header":  {slices.Concat(hello, []byte{0, 0, 8}), seconds.Idle, frame.NoError},
		"a request that is over": {slices.Concat(hello, raw(frame.Headers, frame.EndHeaders|frame.EndStream, 1, (&peer{}).encode())), seconds.Idle, frame.NoError},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, options{limits: seconds}, func(_ *testing.T, e *edge) {
				c := e.dialSilent()
				go c.read()
				c.send(tc.say)
				c.endsWithin(tc.after)
				c.wantGoAway(tc.code)
				e.alive()
			})
		})
	}
	t.Run("a block that dribbles", func(t *testing.T) {
		inBubble(t, options{limits: seconds}, func(_ *testing.T, e *edge) {
			c := e.dial()
			c.send(c.get(1, "/wait"))
			c.send(raw(frame.Headers, 0, 3, []byte{0x82}))
			for range 8 {
				time.Sleep(time.Second)
				c.send(raw(frame.Continuation, 0, 3, nil))
			}
			time.Sleep(3 * time.Second)
			c.wantGoAway(frame.EnhanceYourCalm)
			if n := e.canceled.Load(); n != 1 {
				t.Errorf("%d handlers were canceled", n)
			}
		})
	})
	t.Run("a HEADERS frame that dribbles beside a stream", func(t *testing.T) {
		inBubble(t, options{limits: seconds}, func(_ *testing.T, e *edge) {
			c := e.dial()
			c.send(c.get(1, "/wait"))
			f := c.get(3, "/hello", "x", strings.Repeat("x", 1000))
			for i := range 20 {
				if c.try(f[i:i+1]) != nil {
					break
				}
				time.Sleep(time.Second)
			}
			c.wantGoAway(frame.EnhanceYourCalm)
		})
	})
}

// A client with streams is asked for a sign of life.
func TestKeepalive(t *testing.T) {
	inBubble(t, options{limits: seconds}, func(t *testing.T, e *edge) { // it answers
		c := e.dial()
		c.send(c.get(1, "/wait"))
		for i := range 5 {
			time.Sleep(seconds.PingAfter + 2*time.Second)
			pings := c.of(frame.Ping, 0)
			if len(pings) != i+1 {
				t.Fatalf("%d PINGs in round %d", len(pings), i)
			}
			c.send(frame.AppendPing(nil, true, [8]byte(pings[i].payload)))
		}
		c.wantOpen()
	})
	inBubble(t, options{limits: seconds}, func(t *testing.T, e *edge) { // it does not
		c := e.dial()
		c.send(c.get(1, "/wait"))
		c.endsWithin(seconds.PingAfter + seconds.PingTimeout)
		if n := e.canceled.Load(); n != 1 {
			t.Errorf("%d handlers were canceled", n)
		}
		e.alive()
	})
	slowly := seconds
	slowly.BodyRate = -1
	inBubble(t, options{limits: slowly}, func(t *testing.T, e *edge) { // it talks
		c := e.dial()
		c.send(c.post(1, "/len"))
		for range 60 {
			time.Sleep(time.Second)
			c.send(data(1, "x", false))
		}
		if n := len(c.of(frame.Ping, 0)); n != 0 {
			t.Errorf("%d PINGs for a client that talks", n)
		}
		c.send(data(1, "", true))
		c.wantBody(1, "200", "60 <nil>")
	})
}

// A client that reads nothing is cut off; one that reads slowly is not.
func TestStuckWriter(t *testing.T) {
	inBubble(t, options{limits: seconds}, func(t *testing.T, e *edge) {
		c := e.dialSilent()
		c.send([]byte(frame.Preface), settings(frame.InitialWindowSize, 1<<30), window(0, 1<<30), c.get(1, "/big?100000000"), c.get(3, "/wait"))
		time.Sleep(seconds.Write - time.Second)
		if n := e.running.Load(); n != 2 {
			t.Fatalf("%d handlers run", n)
		}
		e.alive()
		time.Sleep(5 * time.Second)
		if n, m := e.running.Load(), e.canceled.Load(); n != 0 || m != 2 {
			t.Errorf("%d handlers run, %d were canceled", n, m)
		}
	})
	inBubble(t, options{limits: seconds}, func(t *testing.T, e *edge) {
		c := e.dialSilent()
		const size = 3 << 20
		c.send([]byte(frame.Preface), settings(frame.InitialWindowSize, 1<<30), window(0, 1<<30), c.get(1, "/big?3145728"))
		p := make([]byte, 8<<10) // a second's worth
		for n := 0; n < size; {
			time.Sleep(time.Second)
			k, err := io.ReadFull(c.nc, p)
			if n += k; err != nil {
				t.Fatalf("cut off after %d bytes, while it was reading: %v", n, err)
			}
		}
	})
}

// Without a limit it is left to the kernel how long a client may take nothing.
func TestNoWriteLimit(t *testing.T) {
	limits := seconds
	limits.Write, limits.PingAfter = -1, time.Hour
	inBubble(t, options{limits: limits}, func(t *testing.T, e *edge) {
		c := e.dialSilent()
		c.send([]byte(frame.Preface), settings(frame.InitialWindowSize, 1<<30), window(0, 1<<30), c.get(1, "/big?100000000"))
		time.Sleep(10 * time.Minute)
		if n := e.running.Load(); n != 1 {
			t.Errorf("%d handlers run", n)
		}
	})
}

// The connection to a server is closed when it is not used, and opened again.
func TestBackIdle(t *testing.T) {
	var opened, closed atomic.Int64
	count := func(s *http.Server) {
		s.ConnState = func(_ net.Conn, st http.ConnState) {
			switch st {
			case http.StateNew:
				opened.Add(1)
			case http.StateClosed:
				closed.Add(1)
			default:
			}
		}
	}
	inBubble(t, options{inProcess: true, limits: seconds, http: count}, func(t *testing.T, e *edge) {
		c := e.dial()
		for i := range 4 {
			id := uint32(4*i + 1)
			c.send(c.get(id, "/hello"))
			c.wantBody(id, "200", "hello")
			time.Sleep(seconds.BackIdle - 2*time.Second)
			c.send(c.get(id+2, "/hello"))
			c.wantBody(id+2, "200", "hello")
			if n, m := int(opened.Load()), int(closed.Load()); n != i+1 || m != i {
				t.Errorf("round %d: %d opened, %d closed", i, n, m)
			}
			time.Sleep(seconds.BackIdle + 3*time.Second)
		}
		synctest.Wait()
		if n := closed.Load(); n != 4 {
			t.Errorf("%d closed", n)
		}
		c.send(c.get(101, "/wait")) // a stream that lasts
		time.Sleep(3 * seconds.BackIdle / 2)
		c.send(rst(101, frame.Cancel))
		if c.seen(); e.canceled.Load() != 1 {
			t.Error("the connection with a stream was closed")
		}
	})
}

func TestShutdown(t *testing.T) {
	shutdown := func(e *edge, d time.Duration) chan error {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		e.t.Cleanup(cancel)
		done := make(chan error, 1)
		go func() { done <- e.sw.Shutdown(ctx) }()
		synctest.Wait()
		return done
	}
	drainPing := func(c *peer) []byte {
		pings := c.of(frame.Ping, 0)
		if len(pings) != 1 {
			c.t.Fatalf("%d PINGs", len(pings))
		}
		return frame.AppendPing(nil, true, [8]byte(pings[0].payload))
	}
	inBubble(t, options{}, func(t *testing.T, e *edge) { // streams end first
		c, idler := e.dial(), e.dial()
		c.send(c.post(1, "/len"), c.start(3, "Bidi"))
		c.seen()
		done := shutdown(e, time.Minute)
		if got := c.goAways(); got != "NO_ERROR 2147483647" {
			t.Errorf("first: %s", got)
		}
		idler.send(drainPing(idler))
		if idler.wantGoAway(frame.NoError); idler.goAways() != "NO_ERROR 2147483647, NO_ERROR 0" {
			t.Errorf("without streams: %s", idler.goAways())
		}
		c.send(c.get(5, "/hello"), drainPing(c)) // 5 crossed the news
		c.wantBody(5, "200", "hello")
		if got := c.goAways(); got != "NO_ERROR 2147483647, NO_ERROR 5" {
			t.Errorf("second: %s", got)
		}
		c.send(c.get(7, "/hello")) // too late
		if a := c.answer(7); a.status != "" {
			t.Errorf("a stream behind the last: %v", a)
		}
		m := c.message(&echov1.BidiRequest{Message: "x"})
		c.send(data(1, "12345", true), data(3, m, false))
		c.wantBody(1, "200", "5 <nil>")
		if a := c.answer(3); a.body != m {
			t.Errorf("%v", a)
		}
		select {
		case err := <-done:
			t.Fatalf("Shutdown returned %v with a stream open", err)
		default:
		}
		c.send(data(3, "", true))
		if a := c.answer(3); a.trailer("grpc-status") != "0" {
			t.Errorf("%v", a)
		}
		c.wantGoAway(frame.NoError)
		_ = c.nc.Close() // let it not linger
		_ = idler.nc.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	inBubble(t, options{}, func(t *testing.T, e *edge) { // what crosses the news
		c := e.dial()
		c.send(c.post(1, "/len"))
		c.seen()
		shutdown(e, time.Minute)
		c.send(drainPing(c))
		c.seen()
		// A whole request with trailers on a stream that will not be served.
		c.send(c.post(3, "/len"), data(3, "x", false), c.head(3, true, "a", "b"), c.post(5, "/len"), c.head(5, true, "a", "b"))
		if got := c.goAways(); got != "NO_ERROR 2147483647, NO_ERROR 1" {
			t.Errorf("%s; the last stream must not grow (6.8)", got)
		}
		c.send(data(1, "12345", true))
		c.wantBody(1, "200", "5 <nil>")
		c.wantGoAway(frame.NoError)
	})
	inBubble(t, options{}, func(t *testing.T, e *edge) { // an error in the end does not take streams back
		c := e.dial()
		c.send(c.post(1, "/len"))
		c.seen()
		shutdown(e, time.Minute)
		c.send(drainPing(c), c.get(9, "/hello"))
		c.seen()
		c.send(raw(frame.Data, 0, 0, nil))
		if got, want := c.goAways(), "NO_ERROR 2147483647, NO_ERROR 1, PROTOCOL_ERROR 1"; got != want {
			t.Errorf("%s; want %s", got, want)
		}
	})
	inBubble(t, options{}, func(t *testing.T, e *edge) { // nobody answers the PING
		c := e.dial()
		c.send(c.get(1, "/wait"))
		c.seen()
		done := shutdown(e, 10*time.Second)
		time.Sleep(4 * time.Second)
		if got := c.goAways(); got != "NO_ERROR 2147483647, NO_ERROR 1" {
			t.Errorf("after 4 s: %s", got)
		}
		before := time.Now()
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown returned %v", err)
		}
		if d := time.Since(before); d > 7*time.Second {
			t.Errorf("after %v", d)
		}
		synctest.Wait()
		if n := e.canceled.Load(); n != 1 {
			t.Errorf("%d handlers were canceled", n)
		}
		late := e.dialSilent()
		go late.read()
		if late.ended() == nil {
			t.Error("a connection is taken after Close")
		}
	})
}

// What is said last gets there, also on a real socket with input that nobody reads.
func TestLinger(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	sw := h2.New(h2.Config{Route: (&edge{}).route})
	defer sw.Close()
	for range 20 {
		nc, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		served, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		sw.Serve(served)
		p := newPeer(t, nc)
		flood := make([]byte, 0, 1<<17)
		flood = append(flood, frame.Preface...)
		flood = append(flood, frame.AppendSettings(nil)...)
		flood = append(flood, raw(frame.Ping, 0, 0, nil)...) // the error
		p.send(flood[:cap(flood)])
		p.read()
		if !errors.Is(p.end, io.EOF) || p.got[len(p.got)-1].Type != frame.GoAway {
			t.Fatalf("ended with %v", p.end)
		}
		_ = nc.Close()
	}
}

// Clients that do not read cost what they cost, each within its bounds, up to
// the memory that there is for all of them.
func TestMemoryForAll(t *testing.T) {
	inBubble(t, options{limits: h2.Limits{Memory: 1 << 20}}, func(t *testing.T, e *edge) {
		for range 20 {
			c := e.dialSilent()
			c.send([]byte(frame.Preface), settings(frame.InitialWindowSize, frame.MaxWindow), window(0, frame.MaxWindow-65535), c.get(1, "/big?10000000"))
		}
		synctest.Wait()
		if n := e.sw.Stats().Open; n != 20 {
			t.Errorf("%d connections are open", n)
		}
		time.Sleep(5 * time.Second) // a look, and the time to linger
		most := 8
		if e.handler { // functions wait earlier
			most = 10
		}
		if n := e.sw.Stats().Open; n == 0 || n > most {
			t.Errorf("%d connections with 256 KiB each are left of 1 MiB", n)
		}
		e.alive()
	})
}
