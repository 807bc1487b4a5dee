package router_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/gin-gonic/gin"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
)

// echo is a gRPC service for tests, with a panic on demand.
type echo struct{ echov1.UnimplementedEchoServer }

func (echo) Unary(_ context.Context, req *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	if req.GetMessage() == "panic" {
		panic("on demand")
	}
	return &echov1.UnaryResponse{Message: req.GetMessage()}, nil
}

func (echo) Bidi(stream grpc.BidiStreamingServer[echov1.BidiRequest, echov1.BidiResponse]) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if req.GetMessage() == "panic" {
			panic("on demand")
		}
		if err := stream.Send(&echov1.BidiResponse{Message: req.GetMessage()}); err != nil {
			return err
		}
	}
}

// Whoami answers with what it finds in its context.
func (echo) Whoami(ctx context.Context, _ *echov1.WhoamiRequest) (*echov1.WhoamiResponse, error) {
	call := protocols.CallFrom(ctx)
	p, _ := peer.FromContext(ctx)
	info, _ := p.AuthInfo.(credentials.TLSInfo)
	if p.Addr.String() != call.Conn.Remote.String() {
		return nil, status.Errorf(codes.Internal, "peer %v, call %v", p.Addr, call.Conn.Remote)
	}
	subject := ""
	if certs := info.State.PeerCertificates; len(certs) > 0 {
		subject = certs[0].Subject.CommonName
	}
	return &echov1.WhoamiResponse{
		Protocol:     call.Protocol.String(),
		ConnectionId: call.Conn.ID,
		Tls:          &echov1.TLS{ClientSubject: &subject, Sni: &info.State.ServerName},
	}, nil
}

// newServer gives a server with all three protocols.
func newServer() *router.Server {
	gin.SetMode(gin.ReleaseMode)
	web := gin.New()
	web.GET("/conn", func(c *gin.Context) {
		call := protocols.CallFrom(c) // Gin hands the request's context on
		c.String(http.StatusOK, "%s %s %s tls=%t", call.Protocol, call.Version, call.Conn.ID, c.Request.TLS != nil)
	})
	web.Any("/echo", func(c *gin.Context) {
		body, err := io.ReadAll(c.Request.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		c.Data(http.StatusOK, "application/octet-stream", body)
	})
	web.GET("/ip", func(c *gin.Context) { c.String(http.StatusOK, c.ClientIP()) })
	web.GET("/panic", func(*gin.Context) { panic("on demand") })
	web.GET("/panic-late", func(c *gin.Context) {
		c.String(http.StatusOK, strings.Repeat("x", 64<<10))
		panic("on demand")
	})
	srv := &router.Server{HTTP: web, Log: slog.New(slog.DiscardHandler)}
	echov1.RegisterEchoServer(srv, echo{})
	srv.WebSocket("/ws", echoSocket)
	srv.WebSocket("/ws/panic", func(context.Context, *ws.Conn) error { panic("on demand") })
	return srv
}

func echoSocket(_ context.Context, c *ws.Conn) error {
	for {
		typ, msg, err := c.Read()
		if err != nil {
			return err
		}
		if err := c.Write(typ, msg); err != nil {
			return err
		}
	}
}

func get(t *testing.T, c *http.Client, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestRESTThenGRPCThenRESTOnOneConnection(t *testing.T) {
	t.Parallel()
	port := oneporttest.Listen(t, newServer())
	h2 := sharedH2(t, port)
	_, first := get(t, h2.http, port.URL("/conn"))
	if !strings.HasPrefix(first, "http HTTP/2.0 ") || !strings.HasSuffix(first, " tls=true") {
		t.Fatalf("GET /conn: %q", first)
	}
	if msg, code := h2.unary(t, "hello"); code != codes.OK || msg != "hello" {
		t.Fatalf("gRPC after REST on one connection: %q, %v", msg, code)
	}
	_, again := get(t, h2.http, port.URL("/conn"))
	if again != first {
		t.Fatalf("not one connection: %q, then %q", first, again)
	}
}

// One HTTP/2 connection carries 1,000 unary gRPC calls, gRPC streams and REST
// requests, interleaved.
func TestMixedCallsOnOneConnection(t *testing.T) {
	t.Parallel()
	port := oneporttest.Listen(t, newServer())
	h2 := sharedH2(t, port)
	_, before := get(t, h2.http, port.URL("/conn"))

	payload := make([]byte, 200<<10)
	_, _ = rand.Read(payload)
	gate := make(chan struct{}, 80) // the port allows 100 streams
	var calls sync.WaitGroup
	run := func(f func() error) {
		gate <- struct{}{}
		calls.Go(func() {
			defer func() { <-gate }()
			if err := f(); err != nil {
				t.Error(err)
			}
		})
	}
	for i := range 1000 {
		run(func() error {
			want := fmt.Sprint("unary ", i)
			if msg, code := h2.unary(t, want); code != codes.OK || msg != want {
				return fmt.Errorf("unary: got %q, %v", msg, code)
			}
			return nil
		})
		if i%5 == 0 {
			run(func() error { return h2.bidi(t, 20) })
		}
		if i%3 == 0 {
			run(func() error {
				res, err := h2.http.Post(port.URL("/echo"), "application/octet-stream", bytes.NewReader(payload))
				if err != nil {
					return err
				}
				defer res.Body.Close()
				got, err := io.ReadAll(res.Body)
				if err != nil || !bytes.Equal(got, payload) {
					return fmt.Errorf("echo: %d bytes, %w", len(got), err)
				}
				return nil
			})
		}
	}
	calls.Wait()
	if _, after := get(t, h2.http, port.URL("/conn")); after != before {
		t.Errorf("not one connection: %q, then %q", before, after)
	}
}

// One connection of grpc-go's client, which measures the network by PINGs, and one of net/http's have calls
// that go to a gRPC server of an embedder's with a strict policy on those, to net/http, and to servers
// elsewhere that speak HTTP/2 and HTTP/1.1; some of them are given up half-way.
func TestMixedServersOnOneConnection(t *testing.T) {
	t.Parallel()
	far, behind := newServer(), localhost(t)
	serveOn(t, far, router.Listener{Listener: behind, Plaintext: true})
	near := &router.Server{HTTP: newServer().HTTP, GRPC: grpc.NewServer(), Log: slog.New(slog.DiscardHandler)}
	near.Routes = []router.Route{
		{GRPC: "oneport.echo.v1.Echo/Unary", To: reach(t, "h2c://"+behind.Addr().String(), nil)},
		{Path: "/echo", Headers: map[string]string{"X-To": "h2"}, To: reach(t, "h2c://"+behind.Addr().String(), nil)},
		{Path: "/echo", Headers: map[string]string{"X-To": "h1"}, To: reach(t, "http://"+behind.Addr().String(), nil)},
	}
	echov1.RegisterEchoServer(near.GRPC, echo{})
	port := oneporttest.Listen(t, near)
	cc := port.GRPC()
	client, web := echov1.NewEchoClient(cc), sharedH2(t, port).http
	text := strings.Repeat("x", 100<<10)
	get(t, web, port.URL("/conn")) // before others, which would dial

	open, err := client.Bidi(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	say := func() {
		t.Helper()
		if err := open.Send(&echov1.BidiRequest{Message: "here"}); err != nil {
			t.Fatal(err)
		}
		if m, err := open.Recv(); err != nil || m.GetMessage() != "here" {
			t.Fatalf("%v, %v", m, err)
		}
	}
	say()
	for range 20 { // one after the other, so that there is a PING for each
		if _, err := client.Unary(t.Context(), &echov1.UnaryRequest{Message: text}); err != nil {
			t.Fatal(err)
		}
	}

	gate := make(chan struct{}, 30)
	var calls sync.WaitGroup
	run := func(f func(ctx context.Context) error) {
		gate <- struct{}{}
		calls.Go(func() {
			defer func() { <-gate }()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if err := f(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for i := range 60 {
		run(func(ctx context.Context) error { // elsewhere
			m, err := client.Unary(ctx, &echov1.UnaryRequest{Message: text})
			if err != nil || m.GetMessage() != text {
				return fmt.Errorf("unary: %d bytes, %w", len(m.GetMessage()), err)
			}
			return nil
		})
		run(func(ctx context.Context) error { // here
			stream, err := client.Bidi(ctx)
			if err != nil {
				return err
			}
			for range 5 {
				if err := stream.Send(&echov1.BidiRequest{Message: text}); err != nil {
					return err
				}
				if m, err := stream.Recv(); err != nil || m.GetMessage() != text {
					return fmt.Errorf("bidi: %d bytes, %w", len(m.GetMessage()), err)
				}
			}
			return nil // and gives up
		})
		for _, to := range []string{"", "h2", "h1"} {
			run(func(ctx context.Context) error {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, port.URL("/echo"), strings.NewReader(text))
				if err != nil {
					return err
				}
				req.Header.Set("X-To", to)
				res, err := web.Do(req)
				if err != nil {
					return fmt.Errorf("%q: %w", to, err)
				}
				defer res.Body.Close()
				if i%3 == 0 {
					return nil // gives up
				}
				if b, err := io.ReadAll(res.Body); err != nil || string(b) != text {
					return fmt.Errorf("%q: %d, %d bytes, %w", to, res.StatusCode, len(b), err)
				}
				return nil
			})
		}
	}
	calls.Wait()
	say()
	if n := len(near.Conns()); n != 2 {
		t.Errorf("%d connections, want the first two", n)
	}
}

func TestGRPCWebIsNeverGRPC(t *testing.T) {
	t.Parallel()
	port := oneporttest.Start(t, newServer())
	for _, ct := range []string{"application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text", "application/grpcx"} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, port.URL("/oneport.echo.v1.Echo/Unary"), strings.NewReader("\x00\x00\x00\x00\x00"))
		req.Header.Set("Content-Type", ct)
		res, err := port.HTTP2().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusNotFound || res.Header.Get("Grpc-Status") != "" {
			t.Errorf("%s: got %d with grpc-status %q, want Gin's 404", ct, res.StatusCode, res.Header.Get("Grpc-Status"))
		}
	}
}

func TestGRPCContentTypes(t *testing.T) {
	t.Parallel()
	port := oneporttest.Start(t, newServer())
	for _, ct := range []string{"application/grpc", "application/grpc+proto", "application/grpc;x=y", "APPLICATION/gRPC+Proto"} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, port.URL("/oneport.echo.v1.Echo/Unary"), strings.NewReader("\x00\x00\x00\x00\x00"))
		req.Header.Set("Content-Type", ct)
		req.Header.Set("TE", "trailers")
		res, err := port.HTTP2().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if got := res.Trailer.Get("Grpc-Status"); res.StatusCode != http.StatusOK || got != "0" {
			t.Errorf("%s: got %d, grpc-status %q", ct, res.StatusCode, got)
		}
	}
}

func TestGRPCOverHTTP1IsToldWhy(t *testing.T) {
	t.Parallel()
	port := oneporttest.Start(t, newServer())
	res, err := port.HTTP1().Post(port.URL("/oneport.echo.v1.Echo/Unary"), "application/grpc", strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusHTTPVersionNotSupported || !strings.Contains(string(body), "gRPC needs HTTP/2") {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
}

func TestClientCertificateReachesAllProtocols(t *testing.T) {
	t.Parallel()
	srv := newServer()
	srv.WebSocket("/ws/who", func(ctx context.Context, c *ws.Conn) error {
		call := protocols.CallFrom(ctx)
		return c.Write(ws.Text, []byte(call.Protocol.String()+" "+call.Conn.TLS.PeerCertificates[0].Subject.CommonName))
	})
	port := oneporttest.Listen(t, srv)
	port.As("alice")
	who, err := echov1.NewEchoClient(port.GRPC()).Whoami(t.Context(), &echov1.WhoamiRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := who.GetTls().GetClientSubject(); got != "alice" {
		t.Errorf("gRPC handler sees client %q", got)
	}
	_, msg, err := port.WebSocket("/ws/who").ReadMessage()
	if err != nil || string(msg) != "websocket alice" {
		t.Errorf("WebSocket handler sees %q, %v", msg, err)
	}
}

// A panic costs its own call and nothing else.
func TestPanicCostsItsCallAlone(t *testing.T) {
	t.Parallel()
	port := oneporttest.Listen(t, newServer())
	h2 := sharedH2(t, port)
	stream, err := echov1.NewEchoClient(port.GRPC()).Bidi(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	socket := port.WebSocket("/ws")

	if code, _ := get(t, h2.http, port.URL("/panic")); code != http.StatusInternalServerError {
		t.Errorf("h2: got %d", code)
	}
	h1 := port.HTTP1()
	if code, _ := get(t, h1, port.URL("/panic")); code != http.StatusInternalServerError {
		t.Errorf("h1: got %d", code)
	}
	for _, c := range []*http.Client{h1, h2.http} {
		res, err := c.Get(port.URL("/panic-late"))
		if err == nil {
			_, err = io.ReadAll(res.Body)
			_ = res.Body.Close()
		}
		if err == nil {
			t.Error("an answer that broke off looks whole")
		}
	}
	if _, code := h2.unary(t, "panic"); code != codes.Internal {
		t.Errorf("gRPC unary: got %v", code)
	}
	other, err := echov1.NewEchoClient(port.GRPC()).Bidi(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = other.Send(&echov1.BidiRequest{Message: "panic"}) // the answer comes with Recv
	if _, err := other.Recv(); status.Code(err) != codes.Internal {
		t.Errorf("gRPC stream: got %v", err)
	}
	if _, _, err := port.WebSocket("/ws/panic").ReadMessage(); closeCode(err) != ws.CloseInternal {
		t.Errorf("WebSocket: got %v", err)
	}

	// All others go on.
	if err := stream.Send(&echov1.BidiRequest{Message: "still here"}); err != nil {
		t.Error(err)
	}
	if res, err := stream.Recv(); err != nil || res.GetMessage() != "still here" {
		t.Errorf("stream that was open: %v, %v", res, err)
	}
	if err := socket.WriteMessage(int(ws.Text), []byte("me too")); err != nil {
		t.Error(err)
	}
	if _, msg, err := socket.ReadMessage(); err != nil || string(msg) != "me too" {
		t.Errorf("socket that was open: %q, %v", msg, err)
	}
	if code, _ := get(t, h2.http, port.URL("/conn")); code != http.StatusOK {
		t.Errorf("the same h2 connection: got %d", code)
	}
}

func TestForwardingHeadersOfStrangersAreRemoved(t *testing.T) {
	t.Parallel()
	port := oneporttest.Listen(t, newServer())
	for _, c := range []*http.Client{port.HTTP1(), port.HTTP2()} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL("/ip"), nil)
		req.Header.Set("X-Forwarded-For", "203.0.113.9")
		req.Header.Set("X-Real-IP", "203.0.113.9")
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(body) != "127.0.0.1" {
			t.Errorf("Gin believes %q", body)
		}
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL("/ip"), nil)
	req.Header["X_Forwarded_For"] = []string{"203.0.113.9"}
	res, err := port.HTTP1().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("X_Forwarded_For: got %d", res.StatusCode)
	}
}
