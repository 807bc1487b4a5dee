package auth_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/auth"
	"github.com/oneport-edge/oneport/router/upstream"
)

// jwtNameOf is who a call is made for, as handlers see it.
func jwtNameOf(ctx context.Context) string {
	if id := protocols.IdentityFrom(ctx); id != nil {
		return id.By + " " + id.Subject
	}
	return "nobody"
}

type jwtNamer struct{ echov1.UnimplementedEchoServer }

func (jwtNamer) Unary(ctx context.Context, _ *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	return &echov1.UnaryResponse{Message: jwtNameOf(ctx)}, nil
}

// One guard on a port: clients of all three protocols are let in by a good token, and told
// in their own words of a bad one.
func TestJWTOnAPort(t *testing.T) {
	g := jwtGuard(t, func(o *auth.JWTOptions) { o.From = []auth.Source{auth.SourceHeader(), auth.SourceQuery("token")} })
	srv := &router.Server{
		Log:    slog.New(slog.DiscardHandler),
		Guards: []protocols.Guard{g},
		HTTP:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, jwtNameOf(r.Context())) }),
	}
	echov1.RegisterEchoServer(srv, jwtNamer{})
	srv.WebSocket("/ws", func(ctx context.Context, c *ws.Conn) error { return c.Write(ws.Text, []byte(jwtNameOf(ctx))) })
	port := oneporttest.Listen(t, srv)

	for _, tc := range []struct{ token, http, grpc, ws string }{
		{jwtGood(nil), "200 jwt alice", "OK jwt alice", "101 jwt alice"},
		{jwtGood(map[string]any{"sub": "bob"}), "200 jwt bob", "OK jwt bob", "101 jwt bob"},
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
				if got := jwtGet(t, client, port.URL("/x"), header); got != tc.http {
					t.Errorf("%s: %q, want %q", version, got, tc.http)
				}
				if got := jwtGet(t, client, port.URL("/x?token="+jwtGood(nil)), header); got != tc.http {
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
			if got := jwtDial(t, port, "/ws", header); got != tc.ws {
				t.Errorf("WebSocket: %q, want %q", got, tc.ws)
			}
			if got := jwtDial(t, port, "/ws?token="+tc.token, nil); got != tc.ws && tc.token != "" {
				t.Errorf("WebSocket, by its URL: %q, want %q", got, tc.ws)
			}
		}
	}
}

func jwtGet(t *testing.T, client *http.Client, url string, header http.Header) string {
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

func jwtDial(t *testing.T, port *oneporttest.Port, path string, header http.Header) string {
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

// A browser that offers nothing but a token gets an answer it takes; what it offers
// beside is for the handler to choose from.
func TestJWTSubprotocolOnAPort(t *testing.T) {
	g := jwtGuard(t, func(o *auth.JWTOptions) { o.From = []auth.Source{auth.SourceSubprotocol()} })
	srv := &router.Server{Log: slog.New(slog.DiscardHandler), Guards: []protocols.Guard{g}}
	srv.HTTP = srv.WebSocketHandler(func(ctx context.Context, c *ws.Conn) error {
		return c.Write(ws.Text, []byte(jwtNameOf(ctx)))
	}, ws.Options{Subprotocols: []string{"v2"}})
	port := oneporttest.Listen(t, srv)
	for offered, want := range map[string]string{"": "bearer", "v1, ": "bearer", "v2, ": "v2"} {
		c, _, err := port.DialWebSocket(t.Context(), "/ws", http.Header{"Sec-WebSocket-Protocol": {offered + "bearer, " + jwtGood(nil)}})
		if err != nil {
			t.Fatal(err)
		}
		if _, msg, err := c.ReadMessage(); err != nil || string(msg) != "jwt alice" || c.Subprotocol() != want {
			t.Errorf("offered %q: %q, %v, subprotocol %q, want %q", offered, msg, err, c.Subprotocol(), want)
		}
		c.Close()
	}
}

// On a real port, WebSockets and gRPC streams end within a second of their token, here and
// upstream, and not before.
func TestJWTEndsOpenCallsOnAPort(t *testing.T) {
	wait := func(ctx context.Context, _ *ws.Conn) error {
		<-ctx.Done()
		return nil
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	far := &router.Server{Log: slog.New(slog.DiscardHandler), Listeners: []router.Listener{{Listener: ln, Plaintext: true}}}
	far.WebSocket("/far", wait)
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() { _ = far.ListenAndServe(ctx) })
	defer serving.Wait()
	defer cancel()
	up, err := upstream.New("http://"+ln.Addr().String(), upstream.Options{Log: far.Log})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()

	srv := &router.Server{
		Log:    far.Log,
		Guards: []protocols.Guard{jwtGuard(t, func(o *auth.JWTOptions) { o.Leeway = -1 })},
		Routes: []router.Route{{WebSocket: "/far", To: up}},
	}
	echov1.RegisterEchoServer(srv, jwtWaiting{})
	srv.WebSocket("/near", wait)
	port := oneporttest.Listen(t, srv)

	exp := time.Now().Add(3 * time.Second).Truncate(time.Second)
	token := "Bearer " + jwtGood(map[string]any{"exp": exp.Unix()})
	var open sync.WaitGroup
	defer open.Wait()
	check := func(what string, err error, right bool) {
		if late := time.Since(exp); !right || late < 0 || late > time.Second {
			t.Errorf("%s ended %s after its token with %v", what, late, err)
		}
	}
	for _, path := range []string{"/near", "/far"} {
		c, _, err := port.DialWebSocket(t.Context(), path, http.Header{"Authorization": {token}})
		if err != nil {
			t.Fatal(path, err)
		}
		open.Go(func() {
			defer c.Close()
			_, _, err := c.ReadMessage()
			check(path, err, err != nil && strings.Contains(err.Error(), "close 1008") && strings.Contains(err.Error(), "token-expired"))
		})
	}
	stream, err := echov1.NewEchoClient(port.GRPC()).Bidi(metadata.AppendToOutgoingContext(t.Context(), "authorization", token))
	if err != nil {
		t.Fatal(err)
	}
	open.Go(func() {
		_, err := stream.Recv()
		check("gRPC", err, status.Code(err) == codes.Unauthenticated)
	})
}

// jwtWaiting has streams that never end by themselves.
type jwtWaiting struct {
	echov1.UnimplementedEchoServer
}

func (jwtWaiting) Bidi(s grpc.BidiStreamingServer[echov1.BidiRequest, echov1.BidiResponse]) error {
	<-s.Context().Done()
	return s.Context().Err()
}

// A server elsewhere sees neither a token in a URL nor one among subprotocols.
func TestJWTTokensReachNoServer(t *testing.T) {
	// An answer that is no WebSocket's comes back as it is.
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %q %s", r.URL.RequestURI(), r.Header["Sec-Websocket-Protocol"], r.Header.Get("X-User-Id"))
	}))
	defer far.Close()
	up, err := upstream.New(far.URL, upstream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	g := jwtGuard(t, func(o *auth.JWTOptions) {
		o.From = []auth.Source{auth.SourceHeader(), auth.SourceSubprotocol(), auth.SourceQuery("token")}
	})
	port := oneporttest.Listen(t, &router.Server{
		Log: slog.New(slog.DiscardHandler), Guards: []protocols.Guard{g},
		Routes: []router.Route{{WebSocket: "/ws", To: up}, {Path: "/", To: up}},
	})
	token := jwtGood(nil)
	for _, tc := range []struct{ path, protocols, want string }{
		{"/ws?a=1&token=" + token, "", `/ws?a=1 [] alice`},
		{"/ws", "bearer, " + token, `/ws [] alice`},
		{"/ws", "v2, bearer, " + token + ", v1", `/ws ["v2, v1"] alice`},
		{"/ws?token=" + token, "v1, bearer, " + token, `/ws ["v1"] alice`},
	} {
		header := http.Header{}
		if tc.protocols != "" {
			header.Set("Sec-WebSocket-Protocol", tc.protocols)
		}
		_, res, err := port.DialWebSocket(t.Context(), tc.path, header)
		if err == nil || res == nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(res.Body); string(body) != tc.want {
			t.Errorf("the server has got %s, want %s", body, tc.want)
		}
	}
	for _, client := range []*http.Client{port.HTTP1(), port.HTTP2()} {
		if body := jwtGet(t, client, port.URL("/x?token="+token+"&a=1"), http.Header{"Authorization": {"Bearer " + token}}); body != `200 /x?a=1 [] alice` {
			t.Errorf("the server has got %s", body)
		}
	}
}
