package router_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
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
)

type userKey struct{}

func userOf(ctx context.Context) string {
	user, _ := ctx.Value(userKey{}).(string)
	return user
}

// tokens is a guard that knows one token.
func tokens(asked *atomic.Int64) protocols.GuardFunc {
	return func(ctx context.Context, call *protocols.Call) (context.Context, error) {
		asked.Add(1)
		switch call.Header("Authorization") {
		case "Bearer good":
			return context.WithValue(ctx, userKey{}, "alice of "+call.Protocol.String()), nil
		case "":
			return ctx, &protocols.Refusal{Reason: protocols.ReasonUnauthenticated, Challenge: `Bearer realm="test"`}
		}
		return ctx, &protocols.Refusal{Reason: protocols.ReasonForbidden, Text: "not you"}
	}
}

// named answers with what the guard has found out.
type named struct {
	echov1.UnimplementedEchoServer
}

func (named) Unary(ctx context.Context, _ *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	return &echov1.UnaryResponse{Message: userOf(ctx)}, nil
}

func namedServer() *router.Server {
	srv := &router.Server{
		Log:  slog.New(slog.DiscardHandler),
		HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, userOf(r.Context())) }),
	}
	echov1.RegisterEchoServer(srv, named{})
	srv.WebSocket("/ws", func(ctx context.Context, c *ws.Conn) error { return c.Write(ws.Text, []byte(userOf(ctx))) })
	return srv
}

// A guard is asked once for each call, of whatever protocol and wherever it
// goes; handlers find what it has found out.
func TestGuardsHoldForEveryProtocol(t *testing.T) {
	far := namedServer()
	ln := localhost(t)
	serveOn(t, far, router.Listener{Listener: ln, Plaintext: true})
	up := reach(t, "h2c://"+ln.Addr().String(), nil)

	for _, upstream := range []bool{false, true} {
		t.Run(fmt.Sprint("upstream ", upstream), func(t *testing.T) {
			var asked atomic.Int64
			srv := namedServer()
			srv.Guards = []protocols.Guard{tokens(&asked)}
			user := "alice of "
			if upstream {
				srv = &router.Server{Log: srv.Log, Guards: srv.Guards, Routes: []router.Route{{GRPC: "*", To: up}, {Path: "/", To: up}}}
				user = "" // the far server has no guards
			}
			port := oneporttest.Listen(t, srv)
			clients := map[string]*http.Client{"HTTP/1.1": port.HTTP1(), "HTTP/2": port.HTTP2()}
			for token, want := range map[string][3]string{
				"":            {"401", "credentials are missing or bad", "16"},
				"Bearer bad":  {"403", "not you", "7"},
				"Bearer good": {"200", user, "0"},
			} {
				for name, client := range clients {
					got := askAs(t, client, port.URL("/x"), token)
					if !strings.HasPrefix(got, want[0]+" "+want[1]) || token == "" && !strings.Contains(got, `Bearer realm="test"`) {
						t.Errorf("%s, token %q: %s", name, token, got)
					}
				}
				ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", token)
				if token == "" {
					ctx = t.Context()
				}
				res, err := echov1.NewEchoClient(port.GRPC()).Unary(ctx, &echov1.UnaryRequest{})
				if got := status.Code(err); fmt.Sprint(int(got)) != want[2] || got == codes.OK && !strings.HasPrefix(res.GetMessage(), user) {
					t.Errorf("gRPC, token %q: %v, %v", token, err, res)
				}
				if !upstream {
					wsAs(t, port, token, want[0])
				}
			}
			calls := int64(9)
			if !upstream {
				calls = 12
			}
			if n := asked.Load(); n != calls {
				t.Errorf("the guard was asked %d times for %d calls", n, calls)
			}
		})
	}
}

func askAs(t *testing.T, client *http.Client, url, token string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(res.StatusCode, " ", string(body), res.Header.Get("WWW-Authenticate"))
}

func wsAs(t *testing.T, port *oneporttest.Port, token, want string) {
	t.Helper()
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", token)
	}
	c, res, err := port.DialWebSocket(t.Context(), "/ws", header)
	if want != "200" {
		if err == nil || res == nil || fmt.Sprint(res.StatusCode) != want {
			t.Errorf("WebSocket, token %q: %v, %v", token, res, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, msg, err := c.ReadMessage(); err != nil || string(msg) != "alice of websocket" {
		t.Errorf("WebSocket: %q, %v", msg, err)
	}
}

// A guard that waits keeps nobody else waiting, on the same connection too.
func TestGuardThatWaits(t *testing.T) {
	srv := namedServer()
	srv.Guards = []protocols.Guard{protocols.GuardFunc(func(ctx context.Context, call *protocols.Call) (context.Context, error) {
		if call.Header("X-Slow") != "" {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
		return ctx, ctx.Err()
	})}
	port := oneporttest.Listen(t, srv)
	echo := echov1.NewEchoClient(port.GRPC())
	if _, err := echo.Unary(t.Context(), &echov1.UnaryRequest{}); err != nil {
		t.Fatal(err)
	}
	slow := make(chan time.Duration, 1)
	go func() {
		begun := time.Now()
		if _, err := echo.Unary(metadata.AppendToOutgoingContext(t.Context(), "x-slow", "1"), &echov1.UnaryRequest{}); err != nil {
			t.Error(err)
		}
		slow <- time.Since(begun)
	}()
	others := 0
	for {
		select {
		case d := <-slow:
			if d < time.Second || others < 100 {
				t.Errorf("the slow call took %v, %d others meanwhile", d, others)
			}
			return
		default:
		}
		begun := time.Now()
		if _, err := echo.Unary(t.Context(), &echov1.UnaryRequest{}); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begun); d > 500*time.Millisecond {
			t.Errorf("another call of the connection took %v", d)
		}
		others++
	}
}
