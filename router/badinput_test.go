package router_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
	"github.com/oneport-edge/oneport/router"
)

// complaints keeps what is logged at Warn and above: strangers must not be
// able to fill it.
type complaints struct {
	slog.Handler
	mu    sync.Mutex
	lines []string
}

func (h *complaints) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (h *complaints) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, r.Message)
	return nil
}

func (h *complaints) none(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.lines) > 0 {
		t.Errorf("logged at Warn or above: %q", h.lines)
	}
}

// patient closes nothing by itself: it reads until the server closes, and says
// after how long.
func patient(t *testing.T, c net.Conn) (got []byte, after time.Duration) {
	t.Helper()
	start := time.Now()
	if err := c.SetReadDeadline(start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		t.Fatal("the server never closed")
	}
	return got, time.Since(start)
}

// A client that stops at any point before its protocol is known is closed at
// the one deadline, is counted under the right reason, and costs nobody else
// anything.
func TestSilentClientsEndAtTheDeadline(t *testing.T) {
	hello := recordHello(t)
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, c net.Conn)
		why  conn.Reason
	}{
		{"nothing", func(*testing.T, net.Conn) {}, conn.ReasonSilentTimeout},
		{"one byte of TLS", func(_ *testing.T, c net.Conn) { c.Write(hello[:1]) }, conn.ReasonFirstBytes},
		{"the first letter of a method", func(_ *testing.T, c net.Conn) { c.Write([]byte("P")) }, conn.ReasonFirstBytes},
		{"half a hello", func(_ *testing.T, c net.Conn) { c.Write(hello[:len(hello)/2]) }, conn.ReasonHelloTimeout},
		{"a hello and no more", func(_ *testing.T, c net.Conn) {
			c.Write(hello)
			go io.Copy(io.Discard, c)
		}, conn.ReasonHandshakeTimeout},
		{"a hello, drip-fed", func(_ *testing.T, c net.Conn) {
			go func() {
				for _, b := range hello {
					if _, err := c.Write([]byte{b}); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			}()
		}, conn.ReasonHelloTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &complaints{}
				srv := newServer()
				srv.Log = slog.New(log)
				port := oneporttest.Start(t, srv)
				start := time.Now()
				c, err := port.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				tc.do(t, c)
				if code, _ := get(t, port.HTTP2(), port.URL("/conn")); code != http.StatusOK {
					t.Errorf("meanwhile another client got %d", code)
				}
				time.Sleep(9999*time.Millisecond - time.Since(start))
				synctest.Wait()
				if n := srv.Stats().Conns.Ended[tc.why]; n != 0 {
					t.Error("closed before its deadline")
				}
				time.Sleep(2 * time.Millisecond)
				synctest.Wait()
				if n := srv.Stats().Conns.Ended[tc.why]; n != 1 {
					t.Errorf("not closed at its deadline, or for another reason than %v: %v", tc.why, srv.Stats().Conns.Ended)
				}
				log.none(t)
				time.Sleep(time.Second) // the dripping client notices
			})
		})
	}
}

// After the handshake the servers' own deadlines hold, on each ALPN.
func TestSilentAfterTheHandshake(t *testing.T) {
	for _, alpn := range [][]string{nil, {"http/1.1"}, {"h2"}} {
		t.Run(strings.Join(alpn, ","), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				port := oneporttest.Start(t, newServer())
				if _, after := patient(t, port.DialTLS(alpn...)); after > 20*time.Second {
					t.Errorf("closed after %v", after)
				}
			})
		})
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newServer()
		port := oneporttest.Start(t, srv)
		for _, c := range []*http.Client{port.HTTP1(), port.HTTP2()} {
			get(t, c, port.URL("/conn"))
		}
		time.Sleep(110 * time.Second)
		synctest.Wait()
		if n := len(srv.Conns()); n != 2 {
			t.Errorf("%d connections after 110 s, want 2", n)
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if n := len(srv.Conns()); n != 0 {
			t.Errorf("%d connections after 125 s, want 0", n)
		}
	})
}

func TestGarbageIsClosedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tc := range map[string]struct {
			data string
			why  conn.Reason
		}{
			"zeros":                    {"\x00\x00\x00\x00\x00\x00", conn.ReasonUnknownBytes},
			"a TLS type alone":         {"\x16\xff\xff", conn.ReasonUnknownBytes},
			"SSLv2":                    {"\x80\x2e\x01\x03\x01", conn.ReasonUnknownBytes},
			"PROXY v2 of a stranger":   {"\r\n\r\n\x00\r\nQUIT\n", conn.ReasonUnknownBytes},
			"h2c on a TLS port":        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", conn.ReasonPlainOnTLS},
			"a broken record":          {"\x16\x03\x01\x00\x05hello", conn.ReasonHello},
			"a record that is too big": {"\x16\x03\x01\xff\xff" + strings.Repeat("x", 100), conn.ReasonHello},
			"a hello that never ends":  {strings.Repeat("\x16\x03\x01\x40\x00\x01\x00\xff\xff"+strings.Repeat("x", 0x4000-4), 2), conn.ReasonHello},
		} {
			srv := newServer()
			port := oneporttest.Start(t, srv)
			c, err := port.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c.Write([]byte(tc.data))
			if _, after := patient(t, c); after > 0 {
				t.Errorf("%s: closed after %v", name, after)
			}
			synctest.Wait()
			if srv.Stats().Conns.Ended[tc.why] != 1 {
				t.Errorf("%s: %v, want %v", name, srv.Stats().Conns.Ended, tc.why)
			}
			c.Close()
		}
	})
}

func TestPlainHTTPOnATLSPort(t *testing.T) {
	t.Parallel()
	for _, redirect := range []bool{false, true} {
		srv := newServer()
		srv.RedirectPlain = redirect
		port := oneporttest.Start(t, srv)
		c, err := port.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "POST /a/b%2Fc?q=1 HTTP/1.1\r\nHost: oneport.test:8443\r\nContent-Length: 2\r\n\r\nhi")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		switch {
		case redirect && (res.StatusCode != http.StatusPermanentRedirect || res.Header.Get("Location") != "https://oneport.test:8443/a/b%2Fc?q=1"):
			t.Errorf("got %d to %q", res.StatusCode, res.Header.Get("Location"))
		case !redirect && (res.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "Use https://")):
			t.Errorf("got %d %q", res.StatusCode, body)
		}
		c.Close()
	}
}

func TestTLSOnAPlaintextPort(t *testing.T) {
	t.Parallel()
	srv := newServer()
	ln := oneporttest.NewListener()
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- srv.Serve(ctx, ln) }()
	c, err := ln.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = tls.Client(c, &tls.Config{ServerName: "x"}).HandshakeContext(t.Context())
	if rec, ok := errors.AsType[tls.RecordHeaderError](err); !ok || !bytes.HasPrefix(rec.RecordHeader[:], []byte("HTTP/")) {
		t.Errorf("a TLS client sees %v, want that it is HTTP", err)
	}
	c.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := srv.Stats().Conns.Ended[conn.ReasonTLSOnPlain]; n != 1 {
		t.Errorf("ended: %v", srv.Stats().Conns.Ended)
	}
}

func TestALPN(t *testing.T) {
	t.Parallel()
	srv := newServer()
	port := oneporttest.Start(t, srv)

	raw, err := port.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := tls.Client(raw, port.TLS("spdy/3", "h3")).HandshakeContext(t.Context()); err == nil || !strings.Contains(err.Error(), "no application protocol") {
		t.Errorf("unknown protocols: %v", err)
	}
	raw.Close()

	none := port.DialTLS() // as node, ws and Python do
	io.WriteString(none, "GET /conn HTTP/1.1\r\nHost: x\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(none), nil)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("no ALPN: %v, %v", res, err)
	}
	none.Close()

	liar := port.DialTLS("h2")
	io.WriteString(liar, "GET /conn HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, after := patient(t, liar); after > time.Second {
		t.Errorf("h2 chosen and HTTP/1 spoken: closed after %v", after)
	}
	if n := srv.Stats().Conns.Ended[conn.ReasonNoALPN]; n != 1 {
		t.Errorf("ended: %v", srv.Stats().Conns.Ended)
	}
}

// Health checks of load balancers connect and hang up, browsers keep spare
// connections: neither is worth a warning.
func TestHealthChecksAreQuiet(t *testing.T) {
	t.Parallel()
	log := &complaints{}
	srv := newServer()
	srv.Log = slog.New(log)
	port := oneporttest.Listen(t, srv)
	for range 20 {
		c, err := port.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	reset, err := port.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	reset.(*net.TCPConn).SetLinger(0)
	reset.Close()
	get(t, port.HTTP1(), port.URL("/conn")) // accepted behind all of them
	waitFor(t, func() bool { return srv.Stats().Conns.Ended[conn.ReasonSilent] == 21 })
	log.none(t)
}

// waitFor waits for something that another goroutine is about to do.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); {
		if time.Now().After(end) {
			t.Fatal("it never came true")
		}
		time.Sleep(time.Millisecond)
	}
}

// A 64 MiB header line is answered 431 and costs next to no memory.
func TestHugeHeaderLine(t *testing.T) {
	port := oneporttest.Listen(t, newServer())
	for _, alpn := range []string{"http/1.1", "plain"} {
		var c net.Conn
		if alpn == "plain" {
			var err error
			if c, err = port.Dial(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else {
			c = port.DialTLS(alpn)
		}
		chunk := bytes.Repeat([]byte("x"), 64<<10)
		runtime.GC()
		var before, now runtime.MemStats
		runtime.ReadMemStats(&before)
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX-Huge: ")
		most := uint64(0)
		for range 1024 {
			c.SetWriteDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Write(chunk); err != nil {
				break // refused and closed, as it should be
			}
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapInuse)
		}
		if most > before.HeapInuse+2<<20 {
			t.Errorf("%s: the heap grew by %d KiB", alpn, (most-before.HeapInuse)>>10)
		}
		got, _ := patient(t, c)
		if !bytes.Contains(got, []byte(" 431 ")) {
			t.Errorf("%s: got %q", alpn, got)
		}
		c.Close()
	}
}

func TestTooManyHeaderFields(t *testing.T) {
	t.Parallel()
	port := oneporttest.Start(t, newServer())
	for _, c := range []*http.Client{port.HTTP1(), port.HTTP2()} {
		for n, want := range map[int]int{90: http.StatusOK, 110: http.StatusRequestHeaderFieldsTooLarge} {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL("/conn"), nil)
			for range n {
				req.Header.Add("X-Many", "x")
			}
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%d fields: got %d, want %d", n, res.StatusCode, want)
			}
		}
	}
}

// A body that stands still is given up, and so is one that hardly moves.
func TestBodyIdle(t *testing.T) {
	for _, version := range []string{"http/1.1", "h2"} {
		t.Run(version, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				type result struct {
					n    int
					err  error
					took time.Duration
				}
				results := make(chan result, 1)
				srv := newServer()
				srv.HTTP = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					start := time.Now()
					body, err := io.ReadAll(r.Body)
					results <- result{len(body), err, time.Since(start)}
				})
				port := oneporttest.Start(t, srv)
				c := port.HTTP1()
				if version == "h2" {
					c = port.HTTP2()
				}
				// upload sends ten pieces, each after a pause, and then ends.
				upload := func(piece int, pause time.Duration) result {
					r, w := io.Pipe()
					go func() {
						for range 10 {
							w.Write(make([]byte, piece))
							time.Sleep(pause)
						}
						w.Close()
					}()
					if res, err := c.Post(port.URL("/"), "text/plain", r); err == nil {
						res.Body.Close()
					}
					return <-results
				}
				if got := upload(8000, 20*time.Second); got.err != nil || got.n != 80_000 {
					t.Errorf("a slow body: %+v", got)
				}
				if got := upload(1, 5*time.Second); got.err == nil || got.took < 30*time.Second || got.took > 34*time.Second {
					t.Errorf("a body that trickles: %+v", got)
				}
				time.Sleep(10 * time.Minute)
				c.CloseIdleConnections()
				if got := upload(6000, time.Minute); got.err == nil || got.took < 30*time.Second || got.took > 34*time.Second {
					t.Errorf("a body that stood still: %+v", got)
				}
				time.Sleep(10 * time.Minute) // the pipe's writer ends
			})
		})
	}
}

// No handshake slot is held by a client that does not finish its handshake.
func TestSilentClientsHoldNoHandshakeSlot(t *testing.T) {
	hello := recordHello(t)
	synctest.Test(t, func(t *testing.T) {
		srv := newServer()
		srv.Limits.Handshakes = 1
		port := oneporttest.Start(t, srv)
		for range 5 {
			for _, part := range [][]byte{nil, hello[:100], hello} {
				c, err := port.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.Write(part)
			}
		}
		synctest.Wait()
		start := time.Now()
		port.DialTLS("h2")
		if d := time.Since(start); d > 0 {
			t.Errorf("a handshake waited %v for a slot", d)
		}
	})
}

// recordHello gives a ClientHello that the port accepts.
func recordHello(t *testing.T) []byte {
	t.Helper()
	return helloFor(t, oneporttest.Name, "h2")
}

func TestConnectionsAreListedAndClosed(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	steps := map[string]int{}
	srv := newServer()
	srv.OnConn = func(_ *protocols.Conn, from, to protocols.State) {
		mu.Lock()
		steps[from.String()+">"+to.String()]++
		mu.Unlock()
	}
	port := oneporttest.Listen(t, srv)
	h2 := port.HTTP2()
	get(t, h2, port.URL("/conn"))
	port.WebSocket("/ws")

	waitFor(t, func() bool { return len(srv.Conns()) == 2 && srv.Conns()[0].State() == protocols.StateIdle })
	list := srv.Conns()
	c := list[0]
	in, out := c.Bytes()
	if c.Kind != protocols.KindHTTP2 || c.SNI != oneporttest.Name || c.TLS == nil || len(c.OfferedALPN) != 1 || in == 0 || out == 0 || !c.Remote.IsValid() {
		t.Errorf("the h2 connection: %+v, %d in, %d out", c, in, out)
	}
	if w := list[1]; w.State() != protocols.StateUpgraded || w.Kind != protocols.KindHTTP1 || w.OfferedALPN != nil {
		t.Errorf("the WebSocket's connection: %+v, %v", w, w.State())
	}
	if !srv.CloseConn(c.ID) || srv.CloseConn("nobody") {
		t.Error("closing by ID")
	}
	waitFor(t, func() bool { return len(srv.Conns()) == 1 })
	if srv.Stats().Conns.Ended[conn.ReasonKilled] != 1 {
		t.Errorf("ended: %v", srv.Stats().Conns.Ended)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"opening>handshake", "handshake>idle", "idle>active", "active>upgraded", "idle>closed"} {
		if steps[want] == 0 {
			t.Errorf("step %s was not observed: %v", want, steps)
		}
	}
}

func TestServeSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		srv  *router.Server
		want string
	}{
		"a bad pattern": {func() *router.Server {
			s := newServer()
			s.WebSocket("no slash {", echoSocket)
			return s
		}(), `WebSocket pattern "no slash {"`},
		"twice the same pattern": {func() *router.Server {
			s := newServer()
			s.WebSocket("/ws", echoSocket)
			return s
		}(), `WebSocket pattern "/ws"`},
		"own server and services": {func() *router.Server {
			s := newServer()
			s.GRPC = newOwnServer(nil)
			return s
		}(), "beside a GRPC server of your own"},
	} {
		ln := oneporttest.NewListener()
		err := tc.srv.Serve(t.Context(), ln)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: the listener is still open", name)
		}
	}
}
