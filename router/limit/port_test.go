package limit_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/limit"
)

type echo struct {
	echov1.UnimplementedEchoServer
}

func (echo) Unary(_ context.Context, r *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	return &echov1.UnaryResponse{Message: r.GetMessage()}, nil
}

// port serves all three protocols, and believes X-User.
func port(t *testing.T, guards ...protocols.Guard) *oneporttest.Port {
	t.Helper()
	who := protocols.GuardFunc(func(ctx context.Context, call *protocols.Call) (context.Context, error) {
		if user := call.Header("X-User"); user != "" {
			call.Identify(&protocols.Identity{Subject: user, By: "test"})
		}
		return ctx, nil
	})
	srv := &router.Server{
		Log:    slog.New(slog.DiscardHandler),
		HTTP:   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hi") }),
		Guards: append([]protocols.Guard{who}, guards...),
	}
	echov1.RegisterEchoServer(srv, echo{})
	srv.WebSocket("/ws", func(_ context.Context, c *ws.Conn) error {
		_, _, err := c.Read()
		return err
	})
	return oneporttest.Start(t, srv)
}

// rest gives a status and Retry-After.
func rest(t *testing.T, c *http.Client, p *oneporttest.Port, user string) (status int, retry string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL("/"), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-User", user)
	res, err := c.Do(req)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode, res.Header.Get("Retry-After")
}

func call(ctx context.Context, c echov1.EchoClient, user string) codes.Code {
	_, err := c.Unary(metadata.AppendToOutgoingContext(ctx, "x-user", user), &echov1.UnaryRequest{})
	return status.Code(err)
}

// One count for what a user does over HTTP/1.1, HTTP/2, gRPC and WebSocket, refused in each one's words.
func TestOneCountOnOnePort(t *testing.T) {
	l, err := limit.New(limit.Options{Rate: limit.Rate{Calls: 1, Every: time.Hour}, Burst: 4})
	if err != nil {
		t.Fatal(err)
	}
	p := port(t, l)
	h1, h2, g := p.HTTP1(), p.HTTP2(), echov1.NewEchoClient(p.GRPC())
	round := func(user string) (first, second int, code codes.Code, handshake int, retry [3]string) {
		first, retry[0] = rest(t, h1, p, user)
		second, retry[1] = rest(t, h2, p, user)
		code = call(t.Context(), g, user)
		c, res, err := p.DialWebSocket(t.Context(), "/ws", http.Header{"X-User": {user}})
		if err == nil {
			defer c.Close()
		} else if res == nil {
			t.Fatal(err)
		}
		return first, second, code, res.StatusCode, [3]string{retry[0], retry[1], res.Header.Get("Retry-After")}
	}
	for _, user := range []string{"alice", "bob"} {
		if a, b, c, d, _ := round(user); a != 200 || b != 200 || c != codes.OK || d != 101 {
			t.Errorf("%s: %d, %d, %s, %d", user, a, b, c, d)
		}
		a, b, c, d, retry := round(user)
		if a != 429 || b != 429 || c != codes.ResourceExhausted || d != 429 {
			t.Errorf("%s, a fifth call: %d, %d, %s, %d", user, a, b, c, d)
		}
		for _, s := range retry {
			if after, err := time.ParseDuration(s + "s"); err != nil || after > time.Hour || after < time.Hour-time.Minute {
				t.Errorf("Retry-After: %q", s)
			}
		}
	}
	if got := l.Stats().Calls; got["admitted"] != 8 || got["rate"] != 8 {
		t.Errorf("%v", got)
	}
}

// A socket holds a place; what waits for it gets it when the socket closes, and a gRPC call waits no
// longer than its client.
func TestPlacesOnOnePort(t *testing.T) {
	l, err := limit.New(limit.Options{Concurrency: 1, Queue: 2, Wait: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	p := port(t, l)
	h1, h2, g := p.HTTP1(), p.HTTP2(), echov1.NewEchoClient(p.GRPC())
	if status, _ := rest(t, h2, p, "bob"); status != 200 { // what has to connect has
		t.Fatal(status)
	}
	socket, _, err := p.DialWebSocket(t.Context(), "/ws", http.Header{"X-User": {"alice"}})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if status, _ := rest(t, h1, p, "bob"); status != 200 {
		t.Errorf("another user: %d", status)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if code := call(ctx, g, "alice"); code != codes.Unavailable && code != codes.DeadlineExceeded {
		t.Errorf("gRPC: %s", code)
	}
	waiting := func(n int) {
		t.Helper()
		for tick, end := time.NewTicker(time.Millisecond), time.Now().Add(5*time.Second); l.Stats().Waiting != n; <-tick.C {
			if time.Now().After(end) {
				t.Fatalf("%+v, want %d waiting", l.Stats(), n)
			}
		}
	}
	waiting(0) // nobody waits for who has gone

	var work sync.WaitGroup
	for i, c := range []*http.Client{h1, h2} {
		work.Go(func() {
			if status, _ := rest(t, c, p, "alice"); status != 200 {
				t.Errorf("%d: %d", i, status)
			}
		})
	}
	waiting(2)
	if status, retry := rest(t, h2, p, "alice"); status != 503 || retry != "1" {
		t.Errorf("a full queue: %d, Retry-After %q", status, retry)
	}
	if code := call(t.Context(), g, "alice"); code != codes.Unavailable {
		t.Errorf("a full queue: %s", code)
	}
	_ = socket.Close()
	work.Wait()
	if st := l.Stats(); st.Waiting != 0 || st.Calls["queue_full"] != 2 {
		t.Errorf("%+v", st)
	}
}

// Sockets that fill their bulkhead leave the others alone.
func TestBulkheadsOnOnePort(t *testing.T) {
	b := limit.NewBulkheads(limit.Bounds{WebSocket: 2})
	p := port(t, b)
	for i := range 3 {
		c, res, err := p.DialWebSocket(t.Context(), "/ws", nil)
		if err == nil {
			defer c.Close()
		}
		if (err == nil) != (i < 2) || i == 2 && (res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "1") {
			t.Errorf("socket %d: %v", i, err)
		}
	}
	if status, _ := rest(t, p.HTTP2(), p, ""); status != 200 {
		t.Error(status)
	}
	if code := call(t.Context(), echov1.NewEchoClient(p.GRPC()), ""); code != codes.OK {
		t.Error(code)
	}
}
