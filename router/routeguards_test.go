package router_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
)

// doorman is a guard that knows the calls it has let in. It decides at once, unless it
// is asked slowly.
type doorman struct {
	slow bool

	mu    sync.Mutex
	calls []*protocols.Call
}

func (d *doorman) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	user, ok := strings.CutPrefix(call.Header("Authorization"), "Bearer ")
	if !ok && call.Protocol == protocols.WebSocket {
		user, ok = strings.CutPrefix(call.Query(), "a=1&token=")
		call.Hide("token")
	}
	if !ok {
		return ctx, &protocols.Refusal{Reason: protocols.ReasonUnauthenticated}
	}
	call.Identify(&protocols.Identity{Subject: user, By: "test"})
	call.Hand("X-Plan", "gold")
	call.Hand("Authorization", "")
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, call)
	return ctx, nil
}

func (d *doorman) AdmitNow(ctx context.Context, call *protocols.Call) (context.Context, error) {
	if d.slow {
		return ctx, protocols.ErrMustWait
	}
	return d.Admit(ctx, call)
}

func bearer(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// endAll ends the calls that were let in.
func (d *doorman) endAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.calls {
		c.End(&protocols.Refusal{Reason: protocols.ReasonExpired})
	}
	d.calls = nil
}

// headsServer is one that answers with what it was sent.
func headsServer(t *testing.T) string {
	t.Helper()
	ln := localhost(t)
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := fmt.Sprint(r.RequestURI, " user ", r.Header["X-User-Id"], " plan ", r.Header["X-Plan"], " auth ", r.Header["Authorization"],
			" trace ", len(r.Header.Get("Traceparent")), " state ", r.Header["Tracestate"], " id ", len(r.Header.Get("X-Request-ID")))
		if !websocket.IsWebSocketUpgrade(r) {
			_, _ = io.WriteString(w, got)
			return
		}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.WriteMessage(websocket.TextMessage, []byte(got))
		_, _, _ = c.ReadMessage()
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return "http://" + ln.Addr().String()
}

// A route's guards hold for what goes there alone, in all protocols. What they set
// reaches the server, what the client has set in its place does not.
func TestRouteGuards(t *testing.T) {
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprint("slow ", slow), func(t *testing.T) {
			door := &doorman{slow: slow}
			guards := []protocols.Guard{door}
			web, far := headsServer(t), namedServer()
			ln := localhost(t)
			serveOn(t, far, router.Listener{Listener: ln, Plaintext: true})
			rpc := reach(t, "h2c://"+ln.Addr().String(), nil)
			srv := newServer()
			srv.Routes = []router.Route{
				{Path: "/open", To: reach(t, web, nil)},
				{Path: "/", To: reach(t, web, nil), Guards: guards},
				{WebSocket: "/", To: reach(t, web, nil), Guards: guards},
				{GRPC: "*", To: rpc, Guards: guards},
			}
			port := oneporttest.Listen(t, srv)
			for version, client := range map[string]*http.Client{"1.1": port.HTTP1(), "2": port.HTTP2()} {
				if got := askAs(t, client, port.URL("/open"), ""); !strings.HasPrefix(got, "200 /open user []") {
					t.Errorf("HTTP/%s, open: %s", version, got)
				}
				if got := askAs(t, client, port.URL("/x"), ""); !strings.HasPrefix(got, "401 ") {
					t.Errorf("HTTP/%s without a token: %s", version, got)
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL("/x?a=1"), nil)
				if err != nil {
					t.Fatal(err)
				}
				for name, value := range map[string]string{
					"Authorization": "Bearer alice", "X-User-Id": "root", "X-Plan": "platinum", "Tracestate": "a=b", "X-Request-ID": "mine",
				} {
					req.Header.Set(name, value)
				}
				res, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				got, _ := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if want := "/x?a=1 user [alice] plan [gold] auth [] trace 55 state [] id 32"; string(got) != want {
					t.Errorf("HTTP/%s: the server got %s, want %s", version, got, want)
				}
			}
			if _, err := echov1.NewEchoClient(port.GRPC()).Unary(t.Context(), &echov1.UnaryRequest{}); status.Code(err) != codes.Unauthenticated {
				t.Errorf("gRPC without a token: %v", err)
			}
			if _, err := echov1.NewEchoClient(port.GRPC()).Unary(bearer(t.Context(), "alice"), &echov1.UnaryRequest{}); err != nil {
				t.Errorf("gRPC: %v", err)
			}
			if _, res, err := port.DialWebSocket(t.Context(), "/sock", nil); err == nil || res == nil || res.StatusCode != http.StatusUnauthorized {
				t.Errorf("WebSocket without a token: %v, %v", res, err)
			}
			c, res, err := port.DialWebSocket(t.Context(), "/sock?a=1&token=bob", nil)
			if err != nil {
				t.Fatal(err, res)
			}
			defer c.Close()
			_, got, err := c.ReadMessage()
			if want := "/sock?a=1 user [bob] plan [gold] auth [] trace 55 state [] id 32"; err != nil || string(got) != want {
				t.Errorf("WebSocket: the server got %s, %v, want %s", got, err, want)
			}
		})
	}
}

// What was let in can be ended: streams with a status, sockets with a close code.
func TestCallsAreEnded(t *testing.T) {
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprint("slow ", slow), func(t *testing.T) {
			door := &doorman{slow: slow}
			guards := []protocols.Guard{door}
			far := newServer()
			ln := localhost(t)
			serveOn(t, far, router.Listener{Listener: ln, Plaintext: true})
			srv := newServer()
			srv.Guards = guards
			srv.WebSocket("/own", func(_ context.Context, c *ws.Conn) error {
				for {
					if _, _, err := c.Read(); err != nil {
						return err
					}
				}
			})
			near := oneporttest.Listen(t, srv)
			web := reach(t, echoServer(t), nil)
			edge := newServer()
			edge.Routes = []router.Route{
				{WebSocket: "/raw", To: web, Guards: guards, Tunnel: ws.Relay{Mode: ws.Raw}},
				{WebSocket: "/aware", To: web, Guards: guards},
				{GRPC: "*", To: reach(t, "h2c://"+ln.Addr().String(), nil), Guards: guards},
			}
			port := oneporttest.Listen(t, edge)

			var streams []grpc.BidiStreamingClient[echov1.BidiRequest, echov1.BidiResponse]
			for _, p := range []*oneporttest.Port{near, port} {
				s, err := echov1.NewEchoClient(p.GRPC()).Bidi(bearer(t.Context(), "alice"))
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Send(&echov1.BidiRequest{Message: "hello"}); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Recv(); err != nil {
					t.Fatal(err)
				}
				streams = append(streams, s)
			}
			sockets := map[string]*websocket.Conn{}
			for path, p := range map[string]*oneporttest.Port{"/own": near, "/raw": port, "/aware": port} {
				c, res, err := p.DialWebSocket(t.Context(), path, http.Header{"Authorization": {"Bearer alice"}})
				if err != nil {
					t.Fatal(path, err, res)
				}
				defer c.Close()
				sockets[path] = c
			}
			begun := time.Now()
			door.endAll()
			for i, s := range streams {
				if _, err := s.Recv(); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "token-expired") {
					t.Errorf("stream %d: %v", i, err)
				}
			}
			for path, c := range sockets {
				_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
				_, _, err := c.ReadMessage()
				if ce, ok := err.(*websocket.CloseError); !ok || ce.Code != websocket.ClosePolicyViolation || ce.Text != "token-expired" { //nolint:errorlint // gorilla gives it as it is
					t.Errorf("%s: %v", path, err)
				}
			}
			if d := time.Since(begun); d > time.Second {
				t.Errorf("that took %v", d)
			}
		})
	}
}
