package router_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router"
)

// A guard that goes by the path sees the same one in every version of HTTP.
func TestGuardsSeeOnePath(t *testing.T) {
	guard := protocols.GuardFunc(func(ctx context.Context, call *protocols.Call) (context.Context, error) {
		if strings.HasPrefix(call.Path, "/admin/") {
			return ctx, &protocols.Refusal{Reason: protocols.ReasonForbidden}
		}
		return ctx, nil
	})
	srv := newServer()
	srv.Guards = []protocols.Guard{guard}
	srv.Routes = []router.Route{{Path: "/", To: reach(t, "http://"+fieldsServer(t), nil)}}
	port := oneporttest.Listen(t, srv)
	for _, path := range []string{"/admin/x", "/%61dmin/x"} {
		if got := rawHTTP1(t, port, "GET "+path+" HTTP/1.1\r\nHost: oneport.test\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "403") {
			t.Errorf("HTTP/1.1, %s: %s", path, got)
		}
		if got := rawHTTP2(t, port, path); !strings.HasPrefix(got, "403") {
			t.Errorf("HTTP/2, %s: %s", path, got)
		}
	}
}

// Routes that were set before a Server had its guards are guarded all the same.
func TestGuardsSetBehindRoutes(t *testing.T) {
	refuse := protocols.GuardFunc(func(ctx context.Context, _ *protocols.Call) (context.Context, error) {
		return ctx, &protocols.Refusal{Reason: protocols.ReasonForbidden}
	})
	admit := protocols.GuardFunc(func(ctx context.Context, _ *protocols.Call) (context.Context, error) { return ctx, nil })
	srv := newServer()
	if err := srv.SetRoutes([]router.Route{{Path: "/", To: reach(t, "http://"+fieldsServer(t), nil), Guards: []protocols.Guard{admit}}}); err != nil {
		t.Fatal(err)
	}
	srv.Guards = []protocols.Guard{refuse}
	port := oneporttest.Listen(t, srv)
	for version, c := range map[string]*http.Client{"1.1": port.HTTP1(), "2": port.HTTP2()} {
		if got := askAs(t, c, port.URL("/"), ""); !strings.HasPrefix(got, "403") {
			t.Errorf("HTTP/%s: %s", version, got)
		}
	}
}

// What a Server's own guards have let in can be ended too when net/http serves it.
func TestOwnCallsAreEnded(t *testing.T) {
	calls := make(chan *protocols.Call, 1)
	guard := protocols.GuardFunc(func(ctx context.Context, call *protocols.Call) (context.Context, error) {
		calls <- call
		return ctx, nil
	})
	srv := newServer()
	srv.Guards = []protocols.Guard{guard}
	srv.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "hello")
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(io.Discard, r.Body)
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
				return
			}
		}
	})
	port := oneporttest.Listen(t, srv)
	for version, c := range map[string]*http.Client{"1.1": port.HTTP1(), "2": port.HTTP2()} {
		res, err := c.Get(port.URL("/"))
		if err != nil {
			t.Fatal(err)
		}
		(<-calls).End(&protocols.Refusal{Reason: protocols.ReasonExpired})
		n, err := io.Copy(io.Discard, io.LimitReader(res.Body, 64<<20))
		_ = res.Body.Close()
		if err == nil {
			t.Errorf("HTTP/%s: the answer went on for %d bytes", version, n)
		}
	}
}

// An answer that is ended from outside is not whole, even if its handler returns as one
// does that has said everything.
func TestEndedAnswersAreNotWhole(t *testing.T) {
	t.Parallel()
	calls := make(chan *protocols.Call, 1)
	srv := newServer()
	srv.Guards = []protocols.Guard{protocols.GuardFunc(func(ctx context.Context, call *protocols.Call) (context.Context, error) {
		calls <- call
		return ctx, nil
	})}
	srv.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "hello")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	port := oneporttest.Listen(t, srv)
	for version, c := range map[string]*http.Client{"1.1": port.HTTP1(), "2": port.HTTP2()} {
		for range 50 {
			res, err := c.Get(port.URL("/"))
			if err != nil {
				t.Fatal(err)
			}
			(<-calls).End(&protocols.Refusal{Reason: protocols.ReasonExpired})
			body, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err == nil {
				t.Fatalf("HTTP/%s: %q, and no error", version, body)
			}
		}
	}
}
