package router_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"

	"github.com/gin-gonic/gin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/rpc"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
)

func newOwnServer(srv *router.Server) *grpc.Server {
	var own *grpc.Server
	if srv == nil {
		own = grpc.NewServer()
	} else {
		own = grpc.NewServer(rpc.ServerOptions(srv, srv.Log)...)
	}
	echov1.RegisterEchoServer(own, echo{})
	return own
}

// An embedder's own *grpc.Server has the same context, peer and protection.
func TestOwnGRPCServer(t *testing.T) {
	t.Parallel()
	log := &complaints{}
	srv := &router.Server{Log: slog.New(log)}
	srv.GRPC = newOwnServer(srv)
	port := oneporttest.Listen(t, srv)
	port.As("bob")
	client := echov1.NewEchoClient(port.GRPC())
	who, err := client.Whoami(t.Context(), &echov1.WhoamiRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if who.GetProtocol() != "grpc" || who.GetTls().GetClientSubject() != "bob" {
		t.Errorf("whoami: %v", who)
	}
	log.none(t)
	if _, err := client.Unary(t.Context(), &echov1.UnaryRequest{Message: "panic"}); status.Code(err) != codes.Internal {
		t.Errorf("panic: %v", err)
	}
	if _, err := client.Unary(t.Context(), &echov1.UnaryRequest{Message: "on"}); err != nil {
		t.Errorf("after the panic: %v", err)
	}
}

func TestOwnGRPCServerWithoutOptionsIsReported(t *testing.T) {
	t.Parallel()
	log := &complaints{}
	srv := &router.Server{Log: slog.New(log), GRPC: newOwnServer(nil)}
	port := oneporttest.Listen(t, srv)
	if _, err := echov1.NewEchoClient(port.GRPC()).Unary(t.Context(), &echov1.UnaryRequest{Message: "hi"}); err != nil {
		t.Error(err)
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	if len(log.lines) != 1 {
		t.Errorf("start-up said %q", log.lines)
	}
}

// A WebSocket inside the embedder's own Gin engine, behind its middleware.
func TestWebSocketInGin(t *testing.T) {
	t.Parallel()
	type key struct{}
	web := gin.New()
	srv := &router.Server{HTTP: web, Log: slog.New(slog.DiscardHandler)}
	h := gin.WrapH(srv.WebSocketHandler(func(ctx context.Context, c *ws.Conn) error {
		name, _ := ctx.Value(key{}).(string)
		return c.Write(ws.Text, []byte("hello "+name))
	}, ws.Options{}))
	web.GET("/rooms/:name", func(c *gin.Context) {
		c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), key{}, c.Param("name")))
	}, h)
	port := oneporttest.Listen(t, srv)
	if _, msg, err := port.WebSocket("/rooms/blue").ReadMessage(); err != nil || string(msg) != "hello blue" {
		t.Errorf("got %q, %v", msg, err)
	}
	if code, _ := get(t, port.HTTP1(), port.URL("/rooms/blue")); code != http.StatusUpgradeRequired {
		t.Errorf("without an upgrade: got %d", code)
	}
}

// The path of an upgrade has wildcards, and what is no upgrade goes to HTTP.
func TestWebSocketPatterns(t *testing.T) {
	t.Parallel()
	web := gin.New()
	web.GET("/ws/:room", func(c *gin.Context) { c.String(http.StatusOK, "a page about "+c.Param("room")) })
	srv := &router.Server{HTTP: web, Log: slog.New(slog.DiscardHandler)}
	srv.WebSocket("/ws/{room}", func(_ context.Context, c *ws.Conn) error {
		r := c.Request()
		return c.Write(ws.Text, []byte("a "+r.PathValue("room")+" room for "+r.URL.Query().Get("name")))
	})
	port := oneporttest.Listen(t, srv)
	if _, msg, err := port.WebSocket("/ws/red?name=eve").ReadMessage(); err != nil || string(msg) != "a red room for eve" {
		t.Errorf("got %q, %v", msg, err)
	}
	if _, body := get(t, port.HTTP1(), port.URL("/ws/red")); body != "a page about red" {
		t.Errorf("got %q", body)
	}
	_, res, err := port.DialWebSocket(t.Context(), "/elsewhere", nil)
	if err == nil || res == nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("an upgrade that nobody serves: %v, %v", res, err)
	}
}

func TestServeTwice(t *testing.T) {
	t.Parallel()
	srv := newServer()
	oneporttest.Start(t, srv)
	if err := srv.Serve(t.Context(), oneporttest.NewListener()); !errors.Is(err, router.ErrServed) {
		t.Errorf("got %v", err)
	}
}

// A route may serve WebSockets in this process, behind its guards; SetRoutes puts it there
// while the port serves.
func TestRouteWithASession(t *testing.T) {
	t.Parallel()
	hello := func(_ context.Context, c *ws.Conn) error { return c.Write(ws.Text, []byte("hello "+c.Subprotocol())) }
	nobody := protocols.GuardFunc(func(ctx context.Context, _ *protocols.Call) (context.Context, error) {
		return ctx, &protocols.Refusal{Reason: protocols.ReasonForbidden}
	})
	srv := &router.Server{Log: slog.New(slog.DiscardHandler)}
	port := oneporttest.Listen(t, srv)
	if err := srv.SetRoutes([]router.Route{
		{WebSocket: "/open", Session: hello, SessionOptions: ws.Options{Subprotocols: []string{"greeting"}}},
		{WebSocket: "/closed", Session: hello, Guards: []protocols.Guard{nobody}},
	}); err != nil {
		t.Fatal(err)
	}
	c, _, err := port.DialWebSocket(t.Context(), "/open", http.Header{"Sec-Websocket-Protocol": {"greeting"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, p, err := c.ReadMessage(); err != nil || string(p) != "hello greeting" {
		t.Errorf("%q, %v: want hello greeting", p, err)
	}
	if _, res, err := port.DialWebSocket(t.Context(), "/closed", nil); err == nil || res == nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("%v, %v: want 403", res, err)
	}
	if err := srv.SetRoutes([]router.Route{{Path: "/open", Session: hello}}); err == nil {
		t.Error("a session for plain requests is no error")
	}
}
