package auth_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/auth"
)

// whoami answers with the caller's name.
type whoami struct {
	echov1.UnimplementedEchoServer
}

func (whoami) Unary(ctx context.Context, _ *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	return &echov1.UnaryResponse{Message: name(ctx)}, nil
}

func name(ctx context.Context) string {
	if id := protocols.IdentityFrom(ctx); id != nil {
		return id.Subject
	}
	return "nobody"
}

// One guard on a port: clients of all three protocols are let in by a good token, and told
// in their own words of a bad one.
func TestJWTOnAPort(t *testing.T) {
	g := jwtGuard(t, func(o *auth.JWTOptions) { o.From = []auth.Source{auth.SourceHeader(), auth.SourceQuery("token")} })
	srv := &router.Server{
		Log:    slog.New(slog.DiscardHandler),
		Guards: []protocols.Guard{g},
		HTTP:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, name(r.Context())) }),
	}
	echov1.RegisterEchoServer(srv, whoami{})
	srv.WebSocket("/ws", func(ctx context.Context, c *ws.Conn) error { return c.Write(ws.Text, []byte(name(ctx))) })
	port := oneporttest.Listen(t, srv)

	for _, tc := range []struct{ token, http, grpc, ws string }{
		{jwtGood(nil), "200 alice", "OK alice", "101 alice"},
		{jwtGood(map[string]any{"sub": "bob"}), "200 bob", "OK bob", "101 bob"},
		{jwtGood(map[string]any{"exp": 1}), `401 Bearer realm="oneport", error="invalid_token"`, "Unauthenticated", "401"},
		{"", `401 Bearer realm="oneport"`, "Unauthenticated", "401"},
	} {
		for range 2 {
			header := http.Header{}
			ctx := t.Context()
			if tc.token != "" {
				header.Set("Authorization", "Bearer "+tc.token)
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+tc.token)
			}
			for version, client := range map[string]*http.Client{"HTTP/1.1": port.HTTP1(), "HTTP/2": port.HTTP2()} {
				if got := frontGet(t, client, port.URL("/x"), header); got != tc.http {
					t.Errorf("%s: %q, want %q", version, got, tc.http)
				}
				if got := frontGet(t, client, port.URL("/x?token="+jwtGood(nil)), header); got != tc.http {
					t.Errorf("%s, with a token in the URL: %q, want %q", version, got, tc.http)
				}
			}
			res, err := echov1.NewEchoClient(port.GRPC()).Unary(ctx, &echov1.UnaryRequest{})
			got := status.Code(err).String()
			if err == nil {
				got += " " + res.GetMessage()
			}
			if got != tc.grpc {
				t.Errorf("gRPC: %q, want %q", got, tc.grpc)
			}
			if got := frontDial(t, port, "/ws", header); got != tc.ws {
				t.Errorf("WebSocket: %q, want %q", got, tc.ws)
			}
			if got := frontDial(t, port, "/ws?token="+tc.token, nil); got != tc.ws && tc.token != "" {
				t.Errorf("WebSocket, by its URL: %q, want %q", got, tc.ws)
			}
		}
	}
}

func frontGet(t *testing.T, client *http.Client, url string, header http.Header) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header.Clone()
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode == http.StatusOK {
		return "200 " + string(body)
	}
	return fmt.Sprint(res.StatusCode, " ", res.Header.Get("WWW-Authenticate"))
}

func frontDial(t *testing.T, port *oneporttest.Port, path string, header http.Header) string {
	t.Helper()
	c, res, err := port.DialWebSocket(t.Context(), path, header)
	if err != nil {
		if res == nil {
			t.Fatal(err)
		}
		return fmt.Sprint(res.StatusCode)
	}
	defer c.Close()
	_, msg, err := c.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	return "101 " + string(msg)
}
