package auth_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/auth"
)

// subjectOf is who a call is made for, as handlers see it.
func subjectOf(ctx context.Context) string {
	id := protocols.IdentityFrom(ctx)
	if id == nil {
		return "nobody"
	}
	return id.By + " " + id.Subject
}

type subjectServer struct{ echov1.UnimplementedEchoServer }

func (subjectServer) Unary(ctx context.Context, _ *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	return &echov1.UnaryResponse{Message: subjectOf(ctx)}, nil
}

// askPort makes a request; the answer is its status and body.
func askPort(t *testing.T, client *http.Client, method, url string, fields ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Add(fields[i], fields[i+1])
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
	return res.StatusCode, string(body), res.Header
}

// One list of guards holds for all protocols, over real connections: a certificate, a key, or
// a ticket that was made with one of these.
func TestGuardsOnAPort(t *testing.T) {
	key, line := newAPIKey(t, "ci")
	tickets := auth.NewTickets(auth.TicketsOptions{})
	mux := http.NewServeMux()
	mux.Handle("/ticket", tickets)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, subjectOf(r.Context())) })
	srv := &router.Server{
		Log: slog.New(slog.DiscardHandler), HTTP: mux,
		Guards: []protocols.Guard{
			auth.Any(newMTLS(t, ""), apiKeysOf(t, auth.APIKeysOptions{}, line), tickets),
			&auth.Require{Subjects: []string{"ci", "alice"}},
		},
	}
	echov1.RegisterEchoServer(srv, subjectServer{})
	srv.WebSocket("/ws", func(ctx context.Context, c *ws.Conn) error { return c.Write(ws.Text, []byte(subjectOf(ctx))) })
	port := oneporttest.Listen(t, srv)

	check := func(as, httpWant, rpcWant string, fields ...string) {
		t.Helper()
		for _, client := range []*http.Client{port.HTTP1(), port.HTTP2()} {
			if code, body, _ := askPort(t, client, "GET", port.URL("/"), fields...); code != http.StatusOK || body != httpWant {
				t.Errorf("%s: %d %s", as, code, body)
			}
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), fields...)
		if res, err := echov1.NewEchoClient(port.GRPC()).Unary(ctx, &echov1.UnaryRequest{}); err != nil || res.GetMessage() != rpcWant {
			t.Errorf("%s: %v, %v", as, res, err)
		}
	}
	check("a key", "keys ci", "keys ci", "Authorization", "Bearer "+key)
	check("a key in its field", "keys ci", "keys ci", "X-API-Key", key)

	code, _, header := askPort(t, port.HTTP2(), "GET", port.URL("/"))
	if code != http.StatusUnauthorized || header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("nobody: %d, %v", code, header)
	}
	if _, err := echov1.NewEchoClient(port.GRPC()).Unary(t.Context(), &echov1.UnaryRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("nobody: %v", err)
	}

	// A ticket for a browser, which has a key by other means, and takes it to a WebSocket.
	var answer struct {
		Ticket string `json:"ticket"`
	}
	code, body, _ := askPort(t, port.HTTP2(), "POST", port.URL("/ticket"), "X-API-Key", key)
	if err := json.Unmarshal([]byte(body), &answer); err != nil || code != http.StatusOK {
		t.Fatalf("%d %s: %v", code, body, err)
	}
	if code, _, _ := askPort(t, port.HTTP1(), "GET", port.URL("/?ticket="+answer.Ticket)); code != http.StatusUnauthorized {
		t.Errorf("a ticket with an ordinary request: %d", code)
	}
	c, _, err := port.DialWebSocket(t.Context(), "/ws?ticket="+answer.Ticket, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, msg, err := c.ReadMessage(); err != nil || string(msg) != "keys ci" {
		t.Errorf("WebSocket: %q, %v", msg, err)
	}
	c.Close()
	if _, res, err := port.DialWebSocket(t.Context(), "/ws?ticket="+answer.Ticket, nil); err == nil || res == nil || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("the ticket again: %v, %v", res, err)
	}
}

// Certificates are verified at the handshake, and name their clients in all protocols.
func TestMTLSOnAPort(t *testing.T) {
	srv := &router.Server{
		Log:    slog.New(slog.DiscardHandler),
		HTTP:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, subjectOf(r.Context())) }),
		Guards: []protocols.Guard{newMTLS(t, auth.CertCN, "alice")},
	}
	echov1.RegisterEchoServer(srv, subjectServer{})
	srv.WebSocket("/ws", func(ctx context.Context, c *ws.Conn) error { return c.Write(ws.Text, []byte(subjectOf(ctx))) })
	port := oneporttest.Listen(t, srv)
	for as, want := range map[string]struct {
		http int
		grpc codes.Code
	}{"": {401, codes.Unauthenticated}, "bob": {403, codes.PermissionDenied}, "alice": {200, codes.OK}} {
		port.As(as)
		for _, client := range []*http.Client{port.HTTP1(), port.HTTP2()} {
			if code, body, _ := askPort(t, client, "GET", port.URL("/")); code != want.http || code == http.StatusOK && body != "mtls alice" {
				t.Errorf("%q: %d %s", as, code, body)
			}
		}
		res, err := echov1.NewEchoClient(port.GRPC()).Unary(t.Context(), &echov1.UnaryRequest{})
		if status.Code(err) != want.grpc || err == nil && res.GetMessage() != "mtls alice" {
			t.Errorf("%q: %v, %v", as, res, err)
		}
		c, answer, err := port.DialWebSocket(t.Context(), "/ws", nil)
		if want.http != http.StatusOK {
			if err == nil || answer == nil || answer.StatusCode != want.http {
				t.Errorf("%q: WebSocket: %v, %v", as, answer, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, msg, err := c.ReadMessage(); err != nil || string(msg) != "mtls alice" {
			t.Errorf("%q: WebSocket: %q, %v", as, msg, err)
		}
		c.Close()
	}
}
