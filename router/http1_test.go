package router_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/router"
)

// net/http's watch over the client is put off by a moment (protocols/rest,
// http1Conn). What it is for must still work.

// A handler learns that its client has left.
func TestHTTP1ClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := make(chan time.Duration, 1)
		port := oneporttest.Start(t, &router.Server{HTTP: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			start := time.Now()
			<-r.Context().Done()
			left <- time.Since(start)
		})})
		for _, after := range []time.Duration{0, time.Millisecond, time.Hour} {
			c := port.DialTLS("http/1.1")
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: oneport.test\r\n\r\n")
			time.Sleep(after)
			c.Close()
			if took := <-left - after; took < 0 || took > 50*time.Millisecond {
				t.Errorf("left after %v, and the handler heard of it %v later", after, took)
			}
		}
	})
}

// A connection stays good after handlers that are faster and slower than the
// watch, with bodies and without, and for requests that come too early.
func TestHTTP1KeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		port := oneporttest.Start(t, &router.Server{HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if d, err := time.ParseDuration(r.URL.Query().Get("take")); err == nil {
				time.Sleep(d)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			if err := r.Context().Err(); err != nil {
				t.Errorf("%s: %v", r.URL, err)
			}
			w.Write(append(body, r.URL.Path...))
		})})
		c := port.DialTLS("http/1.1")
		in := bufio.NewReader(c)
		answer := func(want string) {
			t.Helper()
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(res.Body); err != nil || string(body) != want {
				t.Fatalf("got %q, %v, want %q", body, err, want)
			}
		}
		for _, take := range []string{"0s", "1ms", "20ms", "21ms", "10s", "0s", "3m", "0s"} {
			io.WriteString(c, "GET /get?take="+take+" HTTP/1.1\r\nHost: oneport.test\r\n\r\n")
			answer("/get")
			io.WriteString(c, "POST /post?take="+take+" HTTP/1.1\r\nHost: oneport.test\r\nContent-Length: 4\r\n\r\nbody")
			answer("body/post")
			// The second one arrives while the first is served.
			io.WriteString(c, "GET /first?take="+take+" HTTP/1.1\r\nHost: oneport.test\r\n\r\n")
			time.Sleep(time.Millisecond)
			io.WriteString(c, "GET /second HTTP/1.1\r\nHost: oneport.test\r\n\r\n")
			answer("/first")
			answer("/second")
			time.Sleep(110 * time.Second) // less than the idle timeout
		}
		time.Sleep(11 * time.Second)
		if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("after the idle timeout: %v", err)
		}
	})
}

// A handler's own read deadline holds.
func TestHTTP1ReadDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type result struct {
			err  error
			took time.Duration
		}
		results := make(chan result, 1)
		port := oneporttest.Start(t, &router.Server{HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			if err := http.NewResponseController(w).SetReadDeadline(start.Add(3 * time.Second)); err != nil {
				t.Error(err)
			}
			_, err := io.ReadAll(r.Body)
			results <- result{err, time.Since(start)}
		})})
		c := port.DialTLS("http/1.1")
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: oneport.test\r\nContent-Length: 4\r\n\r\nbo")
		if got := <-results; !errors.Is(got.err, os.ErrDeadlineExceeded) || got.took != 3*time.Second {
			t.Errorf("the body ended with %v after %v", got.err, got.took)
		}
	})
}

// Who hijacks a connection gets the *tls.Conn, and reads a byte at a time if
// he likes.
func TestHTTP1Hijack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		port := oneporttest.Start(t, &router.Server{HTTP: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			c, brw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if _, ok := c.(*tls.Conn); !ok {
				t.Errorf("got a %T", c)
			}
			io.WriteString(c, "hello\n")
			start := time.Now()
			var said strings.Builder
			for b := [1]byte{}; b[0] != '\n'; {
				if brw.Reader.Buffered() > 0 {
					b[0], _ = brw.ReadByte()
				} else if _, err := c.Read(b[:]); err != nil {
					t.Error(err)
					return
				}
				said.WriteByte(b[0])
			}
			if said.String() != "ciao\n" || time.Since(start) != 0 {
				t.Errorf("heard %q after %v", said.String(), time.Since(start))
			}
		})})
		c := port.DialTLS("http/1.1")
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: oneport.test\r\n\r\n")
		buf := make([]byte, 6)
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "hello\n" {
			t.Fatalf("got %q, %v", buf, err)
		}
		io.WriteString(c, "ciao\n")
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
	})
}

// A handler that works for longer than BodyIdle on what it has read so far may
// read on: only its reads count.
func TestBodyIdleOfABusyHandler(t *testing.T) {
	for _, version := range []string{"http/1.1", "h2"} {
		t.Run(version, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				port := oneporttest.Start(t, &router.Server{HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					first := make([]byte, 1)
					_, err := io.ReadFull(r.Body, first)
					time.Sleep(5 * time.Minute)
					rest, err2 := io.ReadAll(r.Body)
					if err := errors.Join(err, err2); err != nil {
						t.Error(err)
					}
					w.Write(slices.Concat(first, rest))
				})})
				c := port.HTTP1()
				if version == "h2" {
					c = port.HTTP2()
				}
				res, err := c.Post(port.URL("/"), "text/plain", strings.NewReader("body"))
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if got, err := io.ReadAll(res.Body); err != nil || string(got) != "body" {
					t.Errorf("got %q, %v", got, err)
				}
			})
		})
	}
}
