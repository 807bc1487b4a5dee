package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/proxy"
)

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// keeps is a server that answers one request after the other, and says on which connection.
func keeps(answer string) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, c net.Conn, br *bufio.Reader) {
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(c, answer)
		}
	}
}

// counted counts the connections of a server.
func counted(n *atomic.Int64, serve func(int, net.Conn, *bufio.Reader)) func(int, net.Conn, *bufio.Reader) {
	return func(i int, c net.Conn, br *bufio.Reader) {
		n.Add(1)
		serve(i, c, br)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	const h = "HTTP/1.1 200 OK\r\n"
	for name, tc := range map[string]struct {
		answer string
		method string
		kept   bool
	}{
		"length":                   {answer: ok, kept: true},
		"chunks":                   {answer: h + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", kept: true},
		"HEAD":                     {answer: h + "Content-Length: 2\r\n\r\n", method: "HEAD", kept: true},
		"304":                      {answer: "HTTP/1.1 304 Not Modified\r\n\r\n", kept: true},
		"HTTP/1.0 that says so":    {answer: "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n", kept: true},
		"HTTP/1.0":                 {answer: "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"Connection: close":        {answer: h + "Connection: x, Close\r\nContent-Length: 0\r\n\r\n"},
		"close and keep-alive":     {answer: h + "Connection: close\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"},
		"more than the length":     {answer: ok + "?"},
		"another answer behind it": {answer: ok + ok},
		"HEAD with a body":         {answer: ok, method: "HEAD"},
		"204 with a body":          {answer: "HTTP/1.1 204 No Content\r\n\r\nok"},
		"something after chunks":   {answer: h + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nX"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var conns atomic.Int64
				f := newFar(t, proxy.Config{}, counted(&conns, keeps(tc.answer)))
				for range 3 {
					if tc.method == "" {
						tc.method = http.MethodGet
					}
					if fail := f.do(ask(tc.method, "/")); fail != nil {
						t.Fatal(fail)
					}
				}
				want := int64(3)
				if tc.kept {
					want = 1
				}
				if n := conns.Load(); n != want {
					t.Errorf("%d connections, want %d", n, want)
				}
			})
		})
	}
}

// Idle connections are closed when their time has come, the oldest first, and none
// when there are too many.
func TestIdleConnections(t *testing.T) {
	bubble(t, func(t *testing.T) {
		gate := make(chan struct{})
		f := newFar(t, proxy.Config{IdleConns: 3, Idle: 10 * time.Second}, func(_ int, c net.Conn, br *bufio.Reader) {
			for {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				<-gate
				_, _ = io.WriteString(c, ok)
			}
		})
		var work sync.WaitGroup
		for range 5 {
			work.Go(func() {
				if fail := f.do(ask(http.MethodGet, "/")); fail != nil {
					t.Error(fail)
				}
			})
		}
		synctest.Wait()
		if st := f.c.Stats(); st.Open != 5 || st.Active != 5 || st.Idle != 0 {
			t.Errorf("%+v", st)
		}
		close(gate)
		work.Wait()
		if st := f.c.Stats(); st.Open != 3 || st.Active != 0 || st.Idle != 3 {
			t.Errorf("%+v", st)
		}
		time.Sleep(9 * time.Second)
		if fail := f.do(ask(http.MethodGet, "/")); fail != nil { // the last one has more time
			t.Error(fail)
		}
		time.Sleep(2 * time.Second)
		if st := f.c.Stats(); st.Open != 1 {
			t.Errorf("%+v", st)
		}
		time.Sleep(10 * time.Second)
		if st := f.c.Stats(); st.Open != 0 || st.Idle != 0 {
			t.Errorf("%+v", st)
		}
		if fail := f.do(ask(http.MethodGet, "/")); fail != nil { // the sweeper starts again
			t.Error(fail)
		}
		time.Sleep(11 * time.Second)
		if st := f.c.Stats(); st.Open != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// A connection that its server closes just when it is used again: what may be
// sent twice is, and what may not is an error.
func TestStaleConnections(t *testing.T) {
	for name, tc := range map[string]struct {
		ask   func() *asked
		again bool
	}{
		"GET":         {func() *asked { return ask("GET", "/") }, true},
		"HEAD":        {func() *asked { return ask("HEAD", "/") }, true},
		"PUT, small":  {func() *asked { return ask("PUT", "/").with("hello", 5) }, true},
		"DELETE":      {func() *asked { return ask("DELETE", "/") }, true},
		"POST":        {func() *asked { return ask("POST", "/") }, false},
		"PATCH":       {func() *asked { return ask("PATCH", "/").with("hello", 5) }, false},
		"PUT, chunks": {func() *asked { return ask("PUT", "/").with("hello", -1) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				bodies := make(chan string, 10)
				f := newFar(t, proxy.Config{}, func(n int, c net.Conn, br *bufio.Reader) {
					for i := 0; ; i++ {
						if n == 0 && i == 1 { // in memory nothing tells that before
							_, _ = br.ReadByte()
							return
						}
						r, err := http.ReadRequest(br)
						if err != nil {
							return
						}
						b, _ := io.ReadAll(r.Body)
						bodies <- string(b)
						if r.Method == http.MethodHead {
							_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
						} else {
							_, _ = io.WriteString(c, ok)
						}
					}
				})
				if fail := f.do(ask("GET", "/first")); fail != nil {
					t.Fatal(fail)
				}
				<-bodies
				x := tc.ask()
				fail := f.do(x)
				switch {
				case tc.again && (fail != nil || x.status != 200):
					t.Errorf("%+v", fail)
				case !tc.again && (fail == nil || !fail.Sent || fail.Client || fail.Answered):
					t.Errorf("%+v", fail)
				case tc.again && x.head.Length > 0 && <-bodies != "hello":
					t.Error("the body was not sent again")
				}
			})
		})
	}
}

// One that is closed, or says something that nobody has asked for, while it is idle
// is found out before it is used: also for what may not be sent twice.
func TestClosedWhileIdle(t *testing.T) {
	for name, last := range map[string]string{"closed": "", "a late answer": ok} {
		t.Run(name, func(t *testing.T) {
			ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = ln.Close() }()
			next := make(chan struct{})
			var work sync.WaitGroup
			work.Go(func() {
				for i := 0; ; i++ {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					_, _ = http.ReadRequest(bufio.NewReader(c))
					_, _ = io.WriteString(c, ok)
					if i == 0 {
						<-next
						_, _ = io.WriteString(c, last)
					}
					_ = c.Close()
					if i == 0 {
						next <- struct{}{}
					}
				}
			})
			c := proxy.New(proxy.Config{Dial: func(ctx context.Context) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
			}})
			defer work.Wait()
			defer func() { _ = ln.Close() }()
			defer c.Close()
			if err := c.Do(t.Context(), ask("POST", "/")); err != nil {
				t.Fatal(err)
			}
			next <- struct{}{}
			<-next
			x := ask("POST", "/")
			if err := c.Do(t.Context(), x); err != nil || x.got.String() != "ok" {
				t.Errorf("%v, %q", err, x.got.String())
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		refused := errors.New("refused")
		dial := func(context.Context) (net.Conn, error) { return nil, refused }
		c := proxy.New(proxy.Config{Dial: dial, Conns: 1})
		defer c.Close()
		x := ask("POST", "/").with("hello", 5)
		for range 2 {
			fail := errorOf(t, c.Do(t.Context(), x))
			if fail == nil || fail.Sent || fail.Client || fail.Answered || fail.Timeout || fail.Busy || !errors.Is(fail, refused) {
				t.Errorf("%+v", fail)
			}
		}
		if b, err := io.ReadAll(x); err != nil || string(b) != "hello" { // for another server
			t.Errorf("of the body there is %q, %v", b, err)
		}
		if st := c.Stats(); st.Open != 0 || st.Failed != 2 {
			t.Errorf("%+v", st)
		}
		ctx, cancel := context.WithCancel(t.Context())
		c2 := proxy.New(proxy.Config{Dial: func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }})
		defer c2.Close()
		time.AfterFunc(time.Second, cancel)
		if fail := errorOf(t, c2.Do(ctx, ask("GET", "/"))); fail == nil || !fail.Client || fail.Timeout {
			t.Errorf("the client has left: %+v", fail)
		}
		if fail := errorOf(t, c2.Do(ctx, ask("GET", "/"))); fail == nil || !fail.Client {
			t.Errorf("it had left before: %+v", fail)
		}
	})
}

// With as many connections as there may be requests wait, in turn, and not for ever.
func TestConnectionsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		go1 := make(chan struct{})
		order := make(chan string, 10)
		f := newFar(t, proxy.Config{Conns: 1, Waiting: 3, Wait: 5 * time.Second}, func(_ int, c net.Conn, br *bufio.Reader) {
			for {
				r, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				order <- r.URL.Path
				<-go1
				if r.URL.Path == "/closes" {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
					return
				}
				_, _ = io.WriteString(c, ok)
			}
		})
		var work sync.WaitGroup
		for _, path := range []string{"/1", "/closes", "/3"} {
			work.Go(func() {
				if fail := f.do(ask("GET", path)); fail != nil {
					t.Errorf("%s: %v", path, fail)
				}
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		work.Go(func() {
			if fail := errorOf(t, f.c.Do(ctx, ask("GET", "/4"))); fail == nil || !fail.Client || fail.Sent {
				t.Errorf("one that leaves: %+v", fail)
			}
		})
		synctest.Wait()
		if fail := f.do(ask("GET", "/5")); fail == nil || !fail.Busy || fail.Sent || fail.Client {
			t.Errorf("one too many: %+v", fail)
		}
		cancel()
		synctest.Wait()
		if st := f.c.Stats(); st.Open != 1 || st.Active != 1 || st.Waiting != 2 {
			t.Errorf("%+v", st)
		}
		for _, want := range []string{"/1", "/closes", "/3"} {
			if got := <-order; got != want {
				t.Errorf("%s comes before %s", got, want)
			}
			go1 <- struct{}{}
		}
		work.Wait()
		if st := f.c.Stats(); st.Open != 1 || st.Active != 0 || st.Idle != 1 || st.Waiting != 0 {
			t.Errorf("%+v", st)
		}
		// And in vain.
		work.Go(func() {
			if fail := f.do(ask("GET", "/6")); fail != nil {
				t.Error(fail)
			}
		})
		synctest.Wait()
		start := time.Now()
		if fail := f.do(ask("GET", "/7")); fail == nil || !fail.Busy || time.Since(start) != 5*time.Second {
			t.Errorf("%+v after %v", fail, time.Since(start))
		}
		go1 <- struct{}{}
		work.Wait()
	})
}

func TestClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(t, proxy.Config{Conns: 1}, func(_ int, _ net.Conn, br *bufio.Reader) { _, _ = io.Copy(io.Discard, br) })
		var work sync.WaitGroup
		for range 2 { // one has the connection, and one waits for it
			work.Go(func() {
				if fail := f.do(ask("GET", "/")); fail == nil || !errors.Is(fail, proxy.ErrClosed) || fail.Client {
					t.Errorf("%+v", fail)
				}
			})
		}
		synctest.Wait()
		f.c.Close()
		work.Wait()
		if fail := f.do(ask("GET", "/")); fail == nil || !errors.Is(fail, proxy.ErrClosed) || fail.Sent {
			t.Errorf("%+v", fail)
		}
	})
}

// The client fails in the middle of its answer.
func TestClientFailsWhileAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(t, proxy.Config{}, keeps(ok))
		x := ask("GET", "/")
		x.fail = io.ErrClosedPipe
		if fail := f.do(x); fail == nil || !fail.Client || !fail.Answered || !x.aborted {
			t.Errorf("%+v", fail)
		}
		if st := f.c.Stats(); st.Open != 0 {
			t.Errorf("the rest of the answer is still to come: %+v", st)
		}
	})
}

// piped is a request whose body a test writes.
func piped(method string, length int64, fields ...protocols.Field) (*asked, *io.PipeWriter) {
	r, w := io.Pipe()
	x := ask(method, "/", fields...)
	x.body, x.head.Length = r, length
	return x, w
}

func TestUploads(t *testing.T) {
	big := strings.Repeat("0123456789", 20_000)
	for name, x := range map[string]*asked{
		"small":           ask("POST", "/").with("hello", 5),
		"large":           ask("POST", "/").with(big, int64(len(big))),
		"of no length":    ask("POST", "/").with(big, -1),
		"empty":           ask("POST", "/").with("", -1),
		"with trailers":   ask("POST", "/", protocols.Field{Name: "Trailer", Value: "Sum"}).with(big, -1),
		"length and some": ask("POST", "/", protocols.Field{Name: "trailer", Value: "Sum"}).with("hello", 5),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var conns atomic.Int64
				f := newFar(t, proxy.Config{}, counted(&conns, func(_ int, c net.Conn, br *bufio.Reader) {
					for {
						r, err := http.ReadRequest(br)
						if err != nil {
							return
						}
						b, err := io.ReadAll(r.Body)
						if err != nil {
							t.Error(err)
						}
						sum := r.Trailer.Get("Sum")
						if _, there := r.Trailer["Content-Length"]; there || len(b) == 0 && r.TransferEncoding == nil {
							t.Errorf("%v %v", r.Trailer, r.TransferEncoding)
						}
						io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Sum: "+sum+"\r\nTransfer-Encoding: chunked\r\n\r\n")
						cw := &chunks{c}
						cw.Write(b)
						io.WriteString(c, "0\r\n\r\n")
					}
				}))
				body, _ := io.ReadAll(x.body)
				for range 2 {
					y := ask("POST", "/", x.head.Fields...).with(string(body), x.head.Length)
					if len(x.head.Fields) > 0 {
						y.trailers = []protocols.Field{{Name: "sum", Value: "42"}, {Name: "content-length", Value: "1"}, {Name: "bad\n", Value: "x"}}
					}
					if fail := f.do(y); fail != nil {
						t.Fatal(fail)
					}
					if y.got.String() != string(body) || len(x.head.Fields) > 0 != (y.field("X-Sum") == "42") {
						t.Errorf("%d bytes came back of %d, %+v", y.got.Len(), len(body), y.fields)
					}
				}
				if conns.Load() != 1 {
					t.Errorf("%d connections", conns.Load())
				}
			})
		})
	}
}

// chunks writes a chunk for each Write.
type chunks struct{ w io.Writer }

func (c *chunks) Write(p []byte) (int, error) {
	for part := p; len(part) > 0; {
		n := min(len(part), 5000)
		size := []byte("0000\r\n")
		for i, v := 3, n; i >= 0; i, v = i-1, v>>4 {
			size[i] = "0123456789ABCDEF"[v&15]
		}
		if _, err := io.WriteString(c.w, string(size)+string(part[:n])+"\r\n"); err != nil {
			return 0, err
		}
		part = part[n:]
	}
	return len(p), nil
}

// Both ways at once: what the server says leaves before the body is whole.
func TestUploadWhileAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(t, proxy.Config{}, func(_ int, c net.Conn, br *bufio.Reader) {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			_, _ = io.Copy(&chunks{c}, r.Body)
			_, _ = io.WriteString(c, "0\r\n\r\n")
		})
		x, w := piped("POST", -1)
		done := make(chan *proxy.Error, 1)
		go func() { done <- f.do(x) }()
		want := ""
		for _, part := range []string{"one ", "two ", "three"} {
			_, _ = io.WriteString(w, part)
			want += part
			synctest.Wait()
			x.mu.Lock()
			if x.got.String() != want || x.flushed != len(want) {
				t.Errorf("%q of %q, %d flushed", x.got.String(), want, x.flushed)
			}
			x.mu.Unlock()
		}
		time.Sleep(time.Hour) // both sides rest
		_ = w.Close()
		if fail := <-done; fail != nil || !x.whole {
			t.Errorf("%v", fail)
		}
	})
}

// The server answers before it has the body, and the rest of that is not read.
func TestEarlyAnswers(t *testing.T) {
	for name, closes := range map[string]bool{"and closes": true, "and reads on": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFar(t, proxy.Config{}, func(_ int, c net.Conn, br *bufio.Reader) {
					_, _ = http.ReadRequest(br)
					_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
					if !closes {
						_, _ = io.Copy(io.Discard, br)
					}
				})
				x, w := piped("POST", 1<<40)
				go func() {
					for {
						if _, err := w.Write(make([]byte, 1<<20)); err != nil {
							return
						}
						time.Sleep(time.Millisecond)
					}
				}()
				fail := f.do(x)
				if fail != nil || x.status != 413 || x.got.String() != "no" || !x.whole {
					t.Errorf("%+v", fail)
				}
				<-x.stopped
				if st := f.c.Stats(); st.Open != 0 {
					t.Errorf("the connection is kept: %+v", st)
				}
			})
		})
	}
}

// What goes wrong while a body is sent, and whose fault it is.
func TestUploadsThatFail(t *testing.T) {
	waits := func(_ int, _ net.Conn, br *bufio.Reader) {
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			panic("a body that was cut off looks whole")
		}
	}
	for name, tc := range map[string]struct {
		length  int64
		serve   func(int, net.Conn, *bufio.Reader)
		err     error
		client  bool
		timeout bool
	}{
		"the client breaks off":   {length: 1 << 20, serve: waits, err: io.ErrUnexpectedEOF, client: true},
		"and of no length":        {length: -1, serve: waits, err: io.ErrUnexpectedEOF, client: true},
		"the client stands still": {length: -1, serve: waits, err: context.DeadlineExceeded, client: true, timeout: true},
		"shorter than it says":    {length: 1 << 20, serve: waits, err: io.EOF, client: true},
		"longer than it says":     {length: 20_000, serve: waits, client: true},
		"the server closes":       {length: 1 << 20, serve: func(_ int, _ net.Conn, br *bufio.Reader) { _, _ = http.ReadRequest(br) }},
		"the server talks nonsense": {length: 1 << 20, serve: func(_ int, c net.Conn, br *bufio.Reader) {
			_, _ = http.ReadRequest(br)
			_, _ = io.WriteString(c, "?\r\n")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFar(t, proxy.Config{}, tc.serve)
				x, w := piped("POST", tc.length)
				done := make(chan *proxy.Error, 1)
				go func() { done <- f.do(x) }()
				go func() {
					_, _ = w.Write(make([]byte, 19_000))
					if tc.err != nil {
						_ = w.CloseWithError(tc.err)
					}
					_, _ = w.Write(make([]byte, 19_000))
				}()
				fail := <-done
				if fail == nil || fail.Client != tc.client || fail.Timeout != tc.timeout || fail.Answered || x.status != 0 {
					t.Errorf("%+v", fail)
				}
				if st := f.c.Stats(); st.Open != 0 || st.Active != 0 {
					t.Errorf("%+v", st)
				}
				_ = w.Close()
			})
		})
	}
	t.Run("a small one", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			f := newFar(t, proxy.Config{}, waits)
			if fail := f.do(ask("POST", "/").with("hell", 5)); fail == nil || !fail.Client || fail.Sent {
				t.Errorf("%+v", fail)
			}
		})
	})
}

// Expect: 100-continue goes through: the body is held back until the server
// wants it, says no, or says nothing for a second.
func TestExpectContinue(t *testing.T) {
	expect := protocols.Field{Name: "expect", Value: "100-Continue"}
	for name, tc := range map[string]struct {
		first  string
		after  time.Duration // the body comes
		status int
		inform int
	}{
		"it wants it":      {first: "HTTP/1.1 100 Continue\r\n\r\n", status: 200, inform: 1},
		"hints before":     {first: "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", status: 200, inform: 2},
		"it says nothing":  {after: time.Second, status: 200},
		"it says no":       {first: "HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno", status: 417},
		"no, and no close": {first: "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", status: 403},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				start := time.Now()
				f := newFar(t, proxy.Config{}, func(_ int, c net.Conn, br *bufio.Reader) {
					r, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					if !strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
						t.Errorf("%v", r.Header)
					}
					_, _ = io.WriteString(c, tc.first)
					if tc.status != 200 {
						_, err := br.ReadByte()
						if err == nil {
							t.Error("the body was sent")
						}
						return
					}
					b, err := io.ReadAll(r.Body)
					if string(b) != "hello" || err != nil || time.Since(start) != tc.after {
						t.Errorf("%q, %v after %v", b, err, time.Since(start))
					}
					_, _ = io.WriteString(c, ok)
				})
				x := ask("POST", "/", expect).with("hello", 5)
				fail := f.do(x)
				if fail != nil || x.status != tc.status || len(x.informs) != tc.inform {
					t.Errorf("%+v, %d, %v", fail, x.status, x.informs)
				}
				if st := f.c.Stats(); st.Open > 0 != (tc.status == 200) && tc.status != 200 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}
