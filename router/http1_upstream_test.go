package router_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router"
)

// ahead gives a port that stands before a server of HTTP/1.1, and its clients.
func ahead(t *testing.T, addr string) (port *oneporttest.Port, clients map[string]*http.Client) {
	t.Helper()
	edge := &router.Server{Log: slog.New(slog.DiscardHandler), Routes: []router.Route{{Path: "/", To: reach(t, "http://"+addr, nil)}}}
	port = oneporttest.Listen(t, edge)
	return port, map[string]*http.Client{"1.1": port.HTTP1(), "2": port.HTTP2()}
}

// serveHTTP1 serves a handler with net/http, by HTTP/1.1 alone.
func serveHTTP1(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	ln := localhost(t)
	srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return ln.Addr().String()
}

// serveRaw serves connections with a function, which is given the head of the first request.
func serveRaw(t *testing.T, serve func(c net.Conn, br *bufio.Reader, r *http.Request)) string {
	t.Helper()
	ln := localhost(t)
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				br := bufio.NewReader(c)
				if r, err := http.ReadRequest(br); err == nil {
					serve(c, br, r)
				}
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); work.Wait() })
	return ln.Addr().String()
}

// each runs a test for clients of both versions.
func each(t *testing.T, addr string, test func(t *testing.T, c *http.Client, url func(string) string)) {
	t.Helper()
	port, clients := ahead(t, addr)
	for version, c := range clients {
		t.Run("HTTP "+version, func(t *testing.T) { test(t, c, port.URL) })
	}
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// pattern is a reader of n bytes that are not all the same.
type pattern struct{ n, at int64 }

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.n {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), p.n-p.at)]
	for i := range b {
		b[i] = byte((p.at + int64(i)) * 7 >> 3)
	}
	p.at += int64(len(b))
	return len(b), nil
}

// Much goes through, both ways, and none of it stays.
func TestHTTP1UpstreamBulk(t *testing.T) {
	n := int64(256 << 20)
	if testing.Short() || raced { // which is ten times slower
		n = 16 << 20
	}
	addr := serveHTTP1(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			if r.URL.Query().Has("length") {
				w.Header().Set("Content-Length", fmt.Sprint(n))
			}
			_, _ = io.CopyBuffer(struct{ io.Writer }{w}, &pattern{n: n}, make([]byte, 64<<10))
			return
		}
		h := sha256.New()
		got, err := io.CopyBuffer(struct{ io.Writer }{h}, r.Body, make([]byte, 64<<10))
		fmt.Fprintf(w, "%d %x %v", got, h.Sum(nil), err)
	})
	h := sha256.New()
	_, _ = io.CopyBuffer(struct{ io.Writer }{h}, &pattern{n: n}, make([]byte, 64<<10))
	sum := fmt.Sprintf("%x", h.Sum(nil))
	each(t, addr, func(t *testing.T, c *http.Client, url func(string) string) {
		most := watchHeap(t)
		for _, path := range []string{"/", "/?length"} {
			res, err := c.Do(request(t, http.MethodGet, url(path), nil))
			if err != nil {
				t.Fatal(err)
			}
			h := sha256.New()
			got, err := io.Copy(h, res.Body)
			_ = res.Body.Close()
			if err != nil || got != n || fmt.Sprintf("%x", h.Sum(nil)) != sum {
				t.Errorf("%s: %d bytes, %v", path, got, err)
			}
		}
		for _, length := range []int64{n, -1} {
			req := request(t, http.MethodPost, url("/"), io.NopCloser(&pattern{n: n}))
			req.ContentLength = length
			if got := body(t, c, req); got != fmt.Sprintf("%d %s <nil>", n, sum) {
				t.Errorf("upload: %s", got)
			}
		}
		if m := most(); m > 64<<20 {
			t.Errorf("the heap has grown by %d MiB", m>>20)
		}
	})
}

// watchHeap gives a function that says how much the heap has grown at most.
func watchHeap(t *testing.T) func() int64 {
	t.Helper()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	first, most := int64(m.HeapInuse), int64(0)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				runtime.ReadMemStats(&m)
				most = max(most, int64(m.HeapInuse)-first)
			case <-stop:
				return
			}
		}
	}()
	return func() int64 { close(stop); <-done; return most }
}

func body(t *testing.T, c *http.Client, req *http.Request) string {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// What HTTP has to say beside a body: hints, trailers both ways, HEAD, empty answers.
func TestHTTP1UpstreamWays(t *testing.T) {
	addr := serveHTTP1(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hints":
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			_, _ = io.WriteString(w, "hello")
		case "/trailers":
			b, _ := io.ReadAll(r.Body)
			w.Header().Set("Trailer", "X-Sum")
			_, _ = w.Write(b)
			w.Header().Set("X-Sum", r.Trailer.Get("X-Mine"))
		case "/head":
			w.Header().Set("Content-Length", "5")
			w.Header().Set("X-Method", r.Method)
			_, _ = io.WriteString(w, "hello")
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/304":
			w.Header().Set("ETag", `"x"`)
			w.WriteHeader(http.StatusNotModified)
		case "/fields":
			w.Header()["Set-Cookie"] = []string{"a=b", "c=d"}
			w.Header()["Date"] = []string{"Thu, 26 Nov 2026 13:00:00 GMT"}
			w.Header()["Content-Type"] = nil
			fmt.Fprintf(w, "%s %s %q", r.Host, r.RequestURI, r.Header["Cookie"])
		}
	})
	each(t, addr, func(t *testing.T, c *http.Client, url func(string) string) {
		var hints []string
		req := request(t, http.MethodGet, url("/hints"), nil)
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, h.Get("Link")))
				return nil
			},
		}))
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if len(hints) != 1 || hints[0] != "103</style.css>; rel=preload" || string(b) != "hello" || res.Header.Get("Link") != "" {
			t.Errorf("hints %q, %q, %v", hints, b, res.Header)
		}

		req = request(t, http.MethodPost, url("/trailers"), io.NopCloser(strings.NewReader("hello")))
		req.Trailer = http.Header{"X-Mine": {"42"}}
		if res, err = c.Do(req); err != nil {
			t.Fatal(err)
		}
		b, _ = io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(b) != "hello" || res.Trailer.Get("X-Sum") != "42" {
			t.Errorf("%q, trailers %v", b, res.Trailer)
		}

		for _, tc := range []struct {
			method, path string
			status       int
			field, value string
		}{
			{http.MethodHead, "/head", 200, "X-Method", "HEAD"},
			{http.MethodGet, "/204", 204, "Content-Length", ""},
			{http.MethodGet, "/304", 304, "Etag", `"x"`},
		} {
			res, err := c.Do(request(t, tc.method, url(tc.path), nil))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if len(b) != 0 || err != nil || res.StatusCode != tc.status || res.Header.Get(tc.field) != tc.value || tc.method == http.MethodHead && res.ContentLength != 5 {
				t.Errorf("%s %s: %s, %q, %v, %v", tc.method, tc.path, res.Status, b, err, res.Header)
			}
		}

		req = request(t, http.MethodGet, url("/fields?a=b;c&d=%zz"), nil)
		req.Header.Add("Cookie", "a=b")
		req.Header.Add("Cookie", "c=d")
		if res, err = c.Do(req); err != nil {
			t.Fatal(err)
		}
		b, _ = io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(b) != req.URL.Host+` /fields?a=b;c&d=%zz ["a=b; c=d"]` || len(res.Header["Set-Cookie"]) != 2 || res.Header.Get("Date") != "Thu, 26 Nov 2026 13:00:00 GMT" || res.Header["Content-Type"] != nil {
			t.Errorf("%s, %v", b, res.Header)
		}
	})
}

// Events leave one by one.
func TestHTTP1UpstreamEvents(t *testing.T) {
	events := make(chan string)
	addr := serveHTTP1(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		for range 2 {
			_, _ = io.WriteString(w, <-events)
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	})
	each(t, addr, func(t *testing.T, c *http.Client, url func(string) string) {
		res, err := c.Do(request(t, http.MethodGet, url("/events"), nil)) // the head comes before any event
		if err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(res.Body)
		for _, want := range []string{"data: one\n", "data: two\n"} {
			events <- want
			if got, err := br.ReadString('\n'); got != want {
				t.Errorf("an event: %q, %v", got, err)
			}
		}
		_ = res.Body.Close()
	})
}

// Expect: 100-continue goes through to the server, whose word counts.
func TestHTTP1UpstreamExpect(t *testing.T) {
	var began atomic.Int64
	addr := serveHTTP1(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		b, _ := io.ReadAll(r.Body) // which says 100
		_, _ = w.Write(b)
	})
	each(t, addr, func(t *testing.T, c *http.Client, url func(string) string) {
		if tr, ok := c.Transport.(*http.Transport); ok {
			tr.ExpectContinueTimeout = time.Minute
		}
		for path, want := range map[string]string{"/yes": "hello", "/no": "no\n"} {
			began.Store(0)
			req := request(t, http.MethodPost, url(path), io.NopCloser(&noticed{strings.NewReader("hello"), &began}))
			req.ContentLength = 5
			req.Header.Set("Expect", "100-continue")
			if got := body(t, c, req); got != want {
				t.Errorf("%s: %q", path, got)
			}
			if path == "/no" && began.Load() != 0 {
				t.Error("the client was told to send a body that nobody wants")
			}
		}
	})
}

type noticed struct {
	io.Reader
	n *atomic.Int64
}

func (r *noticed) Read(p []byte) (int, error) {
	r.n.Add(1)
	return r.Reader.Read(p)
}

// Servers that fail, and what clients get to see of it.
func TestHTTP1UpstreamFails(t *testing.T) {
	const h = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
	for name, tc := range map[string]struct {
		answer string
		status int // 0: the answer is cut off
	}{
		"closes before its answer":     {"", 502},
		"sends garbage":                {"garbage\r\n\r\n", 502},
		"two lengths":                  {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 502},
		"switches protocols":           {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 502},
		"splits an answer":             {"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: evil\r\n\r\n", 502},
		"closes in the body":           {h + "hello", 0},
		"closes in a large body":       {h + strings.Repeat("x", 50_000), 0},
		"closes in chunks":             {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 0},
		"sends a bad chunk":            {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n", 0},
		"says 17 times that it is 103": {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 17), 502},
	} {
		t.Run(name, func(t *testing.T) {
			addr := serveRaw(t, func(c net.Conn, _ *bufio.Reader, _ *http.Request) { _, _ = io.WriteString(c, tc.answer) })
			each(t, addr, func(t *testing.T, c *http.Client, url func(string) string) {
				if strings.HasPrefix(name, "says 17") && strings.HasSuffix(t.Name(), "1.1") {
					t.Skip("net/http's client takes five")
				}
				for _, method := range []string{http.MethodGet, http.MethodPost} {
					var b io.Reader
					if method == http.MethodPost {
						b = io.NopCloser(&pattern{n: 1 << 20})
					}
					res, err := c.Do(request(t, method, url("/"), b))
					if err != nil {
						if tc.status == 0 {
							continue // cut off with its head
						}
						t.Fatalf("%s: %v", method, err)
					}
					_, err = io.ReadAll(res.Body)
					_ = res.Body.Close()
					if tc.status == 0 && err == nil || tc.status != 0 && (res.StatusCode != tc.status || err != nil) {
						t.Errorf("%s: %s, %v", method, res.Status, err)
					}
				}
			})
		})
	}
	t.Run("is not there", func(t *testing.T) {
		each(t, "127.0.0.1:1", func(t *testing.T, c *http.Client, url func(string) string) {
			if status, text := get(t, c, url("/")); status != 502 || strings.TrimSpace(text) != "the server cannot be reached" {
				t.Errorf("%d %q", status, text)
			}
		})
	})
}

// The server answers before it has the whole body; the client has the answer.
func TestHTTP1UpstreamAnswersEarly(t *testing.T) {
	addr := serveRaw(t, func(c net.Conn, br *bufio.Reader, _ *http.Request) {
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
		_, _ = io.Copy(io.Discard, br)
	})
	each(t, addr, func(t *testing.T, c *http.Client, url func(string) string) {
		for range 3 {
			r, w := io.Pipe()
			go func() { // sends until somebody says stop
				for {
					if _, err := w.Write(make([]byte, 10_000)); err != nil {
						return
					}
				}
			}()
			res, err := c.Do(request(t, http.MethodPost, url("/"), r))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			_ = r.Close()
			if res.StatusCode != http.StatusRequestEntityTooLarge || string(b) != "no" || err != nil {
				t.Errorf("%s, %q, %v", res.Status, b, err)
			}
		}
	})
}

// Both ways at once.
func TestHTTP1UpstreamEchoes(t *testing.T) {
	addr := serveHTTP1(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		_ = rc.Flush()
		b := make([]byte, 100)
		for {
			n, err := r.Body.Read(b)
			_, _ = w.Write(b[:n])
			_ = rc.Flush()
			if err != nil {
				return
			}
		}
	})
	each(t, addr, func(t *testing.T, c *http.Client, url func(string) string) {
		r, w := io.Pipe()
		res, err := c.Do(request(t, http.MethodPost, url("/"), r))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		for _, part := range []string{"one", "two", "three"} {
			_, _ = io.WriteString(w, part)
			b := make([]byte, len(part))
			if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != part {
				t.Fatalf("%q, %v", b, err)
			}
		}
		_ = w.Close()
		if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
			t.Errorf("%q, %v", rest, err)
		}
	})
}

// The client leaves, while it waits, while it is answered, while it sends: the server learns of it.
func TestHTTP1UpstreamClientLeaves(t *testing.T) {
	left := make(chan string, 10)
	there := make(chan struct{}, 10)
	addr := serveHTTP1(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/answer":
			there <- struct{}{}
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 10_000)); err != nil {
					break
				}
			}
		case "/send":
			_, _ = r.Body.Read(make([]byte, 10))
			there <- struct{}{}
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				t.Error("a body that was broken off looks whole")
			}
		default:
			there <- struct{}{}
			<-r.Context().Done()
		}
		left <- r.URL.Path
	})
	each(t, addr, func(t *testing.T, c *http.Client, url func(string) string) {
		for _, path := range []string{"/wait", "/answer", "/send"} {
			ctx, cancel := context.WithCancel(t.Context())
			method, b := http.MethodGet, io.Reader(nil)
			r, w := io.Pipe()
			if path == "/send" {
				method, b = http.MethodPost, r
				go func() { _, _ = w.Write(make([]byte, 100_000)) }()
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				res, err := c.Do(request(t, method, url(path), b).WithContext(ctx))
				if err == nil {
					_, _ = io.CopyN(io.Discard, res.Body, 100_000)
					<-ctx.Done()
					_ = res.Body.Close()
				}
			}()
			<-there
			cancel()
			_ = w.CloseWithError(errors.New("the client has left"))
			<-done
			select {
			case <-left:
			case <-time.After(10 * time.Second):
				t.Fatalf("%s: the server does not learn of it", path)
			}
		}
	})
}

// A server that closes connections whenever it likes loses no request that may be
// sent again.
func TestHTTP1UpstreamClosesIdleConnections(t *testing.T) {
	addr := serveRaw(t, func(c net.Conn, br *bufio.Reader, r *http.Request) {
		for n := range 3 {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			if n == 2 {
				return // and says nothing of it
			}
			var err error
			if r, err = http.ReadRequest(br); err != nil {
				return
			}
		}
	})
	each(t, addr, func(t *testing.T, c *http.Client, url func(string) string) {
		var work sync.WaitGroup
		for range 8 {
			work.Go(func() {
				for range 100 {
					res, err := c.Do(request(t, http.MethodPut, url("/"), bytes.NewReader([]byte("hello"))))
					if err != nil {
						t.Error(err)
						return
					}
					b, _ := io.ReadAll(res.Body)
					_ = res.Body.Close()
					if string(b) != "ok" {
						t.Errorf("%s %q", res.Status, b)
					}
				}
			})
		}
		work.Wait()
	})
}

// Two requests in one are not two at the server: a request with both a length and
// chunks goes on as chunks alone, and what cannot be read is refused.
func TestHTTP1UpstreamSmuggling(t *testing.T) {
	var paths sync.Map
	addr := serveHTTP1(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		paths.Store(r.URL.Path, true)
		fmt.Fprintf(w, "%s %q %d %v", r.URL.Path, b, r.ContentLength, r.TransferEncoding)
	})
	port, _ := ahead(t, addr)
	for name, tc := range map[string]struct{ head, body, want string }{
		"CL.TE":         {"Content-Length: 43\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n", `/a "" -1 [chunked]`},
		"TE twice":      {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", "501"},
		"TE unknown":    {"Transfer-Encoding: xchunked\r\n", "0\r\n\r\n", "501"},
		"CL twice":      {"Content-Length: 5\r\nContent-Length: 6\r\n", "hello", "400"},
		"a bare LF":     {"X: a\nContent-Length: 5\r\n", "hello", ""},
		"TE with blank": {"Transfer-Encoding : chunked\r\n", "0\r\n\r\n", "400"},
	} {
		c := port.DialTLS("http/1.1")
		_, _ = io.WriteString(c, "POST /a HTTP/1.1\r\nHost: oneport.test\r\n"+tc.head+"Connection: close\r\n\r\n"+tc.body)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		b, _ := io.ReadAll(res.Body)
		if got := fmt.Sprint(res.StatusCode); tc.want != "" && got != tc.want && string(b) != tc.want {
			t.Errorf("%s: %s %s", name, got, b)
		}
	}
	if _, ok := paths.Load("/smuggled"); ok {
		t.Error("a request was smuggled through")
	}
}

// Guards, and access lines, are what they are for servers in this process.
func TestHTTP1UpstreamGuards(t *testing.T) {
	var seen atomic.Int64
	addr := serveHTTP1(t, func(w http.ResponseWriter, _ *http.Request) {
		seen.Add(1)
		_, _ = io.WriteString(w, "hello")
	})
	var asked atomic.Int64
	var lines bytes.Buffer
	var mu sync.Mutex
	edge := &router.Server{
		Log: slog.New(slog.DiscardHandler), Guards: []protocols.Guard{tokens(&asked)},
		Access: slog.New(slog.NewTextHandler(&locked{&mu, &lines}, nil)),
		Routes: []router.Route{{Path: "/", To: reach(t, "http://"+addr, nil)}},
	}
	port := oneporttest.Listen(t, edge)
	for version, c := range map[string]*http.Client{"1.1": port.HTTP1(), "2": port.HTTP2()} {
		for token, status := range map[string]int{"": 401, "Bearer bad": 403, "Bearer good": 200} {
			asked.Store(0)
			seen.Store(0)
			req := request(t, http.MethodGet, port.URL("/x"), nil)
			if token != "" {
				req.Header.Set("Authorization", token)
			}
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if res.StatusCode != status || asked.Load() != 1 || seen.Load() > 0 != (status == 200) {
				t.Errorf("HTTP/%s, %q: %s, asked %d times, seen %d times", version, token, res.Status, asked.Load(), seen.Load())
			}
			waitFor(t, func() bool {
				mu.Lock()
				defer mu.Unlock()
				return strings.Count(lines.String(), fmt.Sprintf("path=/x version=HTTP/%s status=%d sent=", strings.Replace(version+".0", "1.1.0", "1.1", 1), status)) == 1
			})
		}
	}
}

type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// A client that sends nothing more of its body is answered 408, whether the server
// has seen its request or not.
func TestHTTP1UpstreamBodyStandsStill(t *testing.T) {
	addr := serveHTTP1(t, func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			t.Error("a body that was broken off looks whole")
		}
	})
	edge := &router.Server{
		Log: slog.New(slog.DiscardHandler), Limits: router.Limits{BodyIdle: 200 * time.Millisecond},
		Routes: []router.Route{{Path: "/", To: reach(t, "http://"+addr, nil)}},
	}
	port := oneporttest.Listen(t, edge)
	for version, c := range map[string]*http.Client{"1.1": port.HTTP1(), "2": port.HTTP2()} {
		for _, length := range []int64{100, 1 << 20, -1} {
			r, w := io.Pipe()
			go func() { _, _ = io.WriteString(w, "hello") }()
			req := request(t, http.MethodPost, port.URL("/"), r)
			req.ContentLength = length
			res, err := c.Do(req)
			if err != nil {
				t.Errorf("HTTP/%s, %d: %v", version, length, err)
				continue
			}
			if res.StatusCode != http.StatusRequestTimeout {
				t.Errorf("HTTP/%s, %d: %s", version, length, res.Status)
			}
			_ = res.Body.Close()
			_ = w.Close()
		}
	}
}

// To a client of HTTP/1.0 an answer ends with its connection. One that is cut off must
// not look as if it had.
func TestHTTP1UpstreamOldClients(t *testing.T) {
	addr := serveRaw(t, func(c net.Conn, _ *bufio.Reader, r *http.Request) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		if r.URL.Path == "/whole" {
			_, _ = io.WriteString(c, "0\r\n\r\n")
		}
	})
	up := reach(t, "http://"+addr, nil)
	_, source := testCA(t)
	secure, plain := localhost(t), localhost(t)
	serveOn(t, &router.Server{Log: slog.New(slog.DiscardHandler), Certs: source, Routes: []router.Route{{Path: "/", To: up}}},
		router.Listener{Listener: secure}, router.Listener{Listener: plain, Plaintext: true})
	for _, ln := range []net.Listener{secure, plain} {
		for path, whole := range map[string]bool{"/whole": true, "/cut": false} {
			c, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if ln == secure {
				c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			}
			_, _ = io.WriteString(c, "GET "+path+" HTTP/1.0\r\n\r\n")
			b, err := io.ReadAll(c)
			if whole != (err == nil) || whole && !strings.HasSuffix(string(b), "\r\n\r\nhello") {
				t.Errorf("TLS %v, %s: %q, %v", ln == secure, path, b, err)
			}
			_ = c.Close()
		}
	}
}
