package router_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/upstream"
)

// A thousand calls of all kinds on one HTTP/2 connection, as many at once as it
// takes, some of which are given up on the way: every other one is answered
// right, by servers in this process and by one elsewhere.
func TestStorm(t *testing.T) {
	t.Run("in process", func(t *testing.T) {
		t.Parallel()
		storm(t, stormServer())
	})
	t.Run("upstream", func(t *testing.T) {
		t.Parallel()
		storm(t, before(t, stormServer()))
	})
}

// before serves srv in plaintext, and returns a server that hands everything on to it.
func before(t *testing.T, srv *router.Server) *router.Server {
	t.Helper()
	ln := localhost(t)
	serveOn(t, srv, router.Listener{Listener: ln, Plaintext: true})
	up, err := upstream.New("h2c://"+ln.Addr().String(), upstream.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if st := up.Stats(); st.Streams > 0 || st.Waiting > 0 || st.Failed > 0 {
			t.Errorf("at the end: %+v", st)
		}
		up.Close()
	})
	return &router.Server{Log: slog.New(slog.DiscardHandler), Routes: []router.Route{{GRPC: "*", To: up}, {Path: "/", To: up}}}
}

// stormServer answers all that a storm brings.
func stormServer() *router.Server {
	srv := newServer()
	web := srv.HTTP
	srv.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/trailers" {
			web.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Trailer", "X-Sum")
		n, _ := io.Copy(w, r.Body)
		w.Header().Set("X-Sum", fmt.Sprint(n, " ", r.Trailer.Get("X-Sum")))
	})
	return srv
}

func storm(t *testing.T, srv *router.Server) {
	t.Helper()
	port := oneporttest.Listen(t, srv)
	c := sharedH2(t, port)
	get(t, c.http, port.URL("/conn"))

	big := strings.Repeat("0123456789abcdef", 1<<20/16)
	kinds := []func(i int) error{
		func(i int) error { return c.sameUnary(t, fmt.Sprint("unary ", i)) },
		func(int) error { return c.sameUnary(t, big) },
		func(int) error { return c.bidi(t, 20) },
		func(int) error { return c.sameBody(t, port.URL("/echo"), big[:200<<10]) },
		func(i int) error { return c.trailers(t, port.URL("/trailers"), i) },
		func(int) error { return c.grpcWeb(t) },
		func(int) error { c.giveUp(t, "/echo", "text/plain"); return nil },
		func(int) error { c.giveUp(t, "/oneport.echo.v1.Echo/Bidi", "application/grpc"); return nil },
	}
	gate := make(chan struct{}, 80) // the port allows 100 streams, and net/http would open another connection
	var calls sync.WaitGroup
	for i := range 1000 {
		gate <- struct{}{}
		calls.Go(func() {
			defer func() { <-gate }()
			if err := kinds[i%len(kinds)](i); err != nil {
				t.Errorf("call %d, kind %d: %v", i, i%len(kinds), err)
			}
		})
	}
	calls.Wait()
	if st := srv.Stats().HTTP2; len(st.Ended) > 0 || st.Open != 1 {
		t.Errorf("%+v", st)
	}
}

func (c *h2client) sameUnary(t *testing.T, msg string) error {
	if got, code := c.unary(t, msg); code != codes.OK || got != msg {
		return fmt.Errorf("%d bytes, %v", len(got), code)
	}
	return nil
}

func (c *h2client) sameBody(t *testing.T, url, body string) error {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || string(got) != body {
		return fmt.Errorf("status %d, %d bytes: %w", res.StatusCode, len(got), err)
	}
	return nil
}

// trailers sends some, and gets some.
func (c *h2client) trailers(t *testing.T, url string, i int) error {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, io.MultiReader(strings.NewReader("body")))
	if err != nil {
		return err
	}
	req.Trailer = http.Header{"X-Sum": {fmt.Sprint(i)}}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if got, want := res.Trailer.Get("X-Sum"), fmt.Sprint("4 ", i); err != nil || string(body) != "body" || got != want {
		return fmt.Errorf("%q with trailer %q, want %q: %w", body, got, want, err)
	}
	return nil
}

// grpcWeb is Gin's 404.
func (c *h2client) grpcWeb(t *testing.T) error {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url("/oneport.echo.v1.Echo/Unary"), bytes.NewReader(make([]byte, 5)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/grpc-web+proto")
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusNotFound {
		return fmt.Errorf("status %d: %w", res.StatusCode, err)
	}
	return nil
}

// giveUp begins a call with an endless body and cancels it.
func (c *h2client) giveUp(t *testing.T, path, contentType string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(50))*time.Millisecond)
	defer cancel()
	r, w := io.Pipe()
	go func() { // ends with its reader
		for {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	}()
	defer r.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url(path), r)
	if err != nil {
		t.Error(err)
		return
	}
	req.Header.Set("Content-Type", contentType)
	if res, err := c.http.Do(req); err == nil {
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
}
