package edge_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/internal/edge"
	broadcastv1 "github.com/oneport-edge/oneport/proto/oneport/broadcast/v1"
)

const broadcasting = `
listen: "127.0.0.1:8443"
tls: { dev: true }
routes:
  - { websocket: /connection/websocket, broadcast: true, auth: [jwt] }
  - { websocket: /broadcast/stream, broadcast: true }
  - { path: /broadcast/stream, broadcast: true }
auth:
  jwt: { issuer: test, audience: edge, keys: %[1]q }
broadcast:
  listen: "127.0.0.1:0"
  token_file: %[2]q
  namespaces:
    news: { history_size: 10, history_ttl: 1m, recovery: true, subscribe: [anyone], publish: ["claim:role=editor"] }
%[3]s
`

// lines reads a stream, and gives the next line that has a text.
type lines struct {
	t  *testing.T
	in *bufio.Reader
}

func (l *lines) with(text string) {
	l.t.Helper()
	for {
		line, err := l.in.ReadString('\n')
		if err != nil {
			l.t.Fatalf("want %q: %v", text, err)
		}
		if strings.Contains(line, text) {
			return
		}
	}
}

// post publishes at the publishers' listener.
func post(t *testing.T, e *edge.Edge, token, channel string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+e.Publishers.Listeners[0].Listener.Addr().String()+"/broadcast/publish",
		strings.NewReader(fmt.Sprintf(`{"channel":%q,"data":{"by":"rest"}}`, channel)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	tr := &http.Transport{DisableKeepAlives: true}
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// A file's broadcast: publishers with a token at a listener of their own, subscribers on
// the port. A reload changes who may, and nobody has to come back for that.
func TestBroadcast(t *testing.T) {
	issuer := newIssuer(t)
	tokens := filepath.Join(t.TempDir(), "publishers.txt")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(tokens, []byte("# publishers\n"+s+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const one, two = "the-first-of-the-tokens", "the-second-of-the-tokens"
	write(one)
	text := func(more string) string { return fmt.Sprintf(broadcasting, issuer.file, tokens, more) }
	e, port := sidecar(t, text(""))
	if err := e.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-e.Publishers.Serving():
	case <-time.After(10 * time.Second):
		t.Fatal("publishers are not served")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, port.URL("/broadcast/stream?channel=news:today"), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := port.HTTP2().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	sse := &lines{t, bufio.NewReader(res.Body)}
	sse.with(`"subscribed"`)

	if got := post(t, e, two, "news:today"); got != http.StatusUnauthorized {
		t.Errorf("another token: %d, want 401", got)
	}
	if got := post(t, e, one, "news:today"); got != http.StatusOK {
		t.Errorf("publish: %d", got)
	}
	sse.with(`{"by":"rest"}`)
	if got := post(t, e, one, "sport:today"); got != http.StatusNotFound {
		t.Errorf("a channel of no namespace: %d, want 404", got)
	}

	cc, err := grpc.NewClient(e.Publishers.Listeners[0].Listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	api := broadcastv1.NewBroadcastClient(cc)
	pub := &broadcastv1.PublishRequest{Channel: "news:today", Data: []byte(`{"by":"grpc"}`)}
	if _, err := api.Publish(ctx, pub); status.Code(err) != codes.Unauthenticated {
		t.Errorf("gRPC without a token: %v", err)
	}
	if _, err := api.Publish(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+one), pub); err != nil {
		t.Error(err)
	}
	sse.with(`{"by":"grpc"}`)

	// The port itself has no publishers' side.
	if got := do(t, port.HTTP2(), http.MethodPost, port.URL("/broadcast/publish"), "", nil); got.status != http.StatusNotFound {
		t.Errorf("publish at the port: %d, want 404", got.status)
	}
	// Who may connect, the route says; who may publish, the namespace.
	if _, res, err := port.DialWebSocket(ctx, "/connection/websocket", nil); err == nil || res == nil || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: %v, %v: want 401", res, err)
	}
	c, _, err := port.DialWebSocket(ctx, "/connection/websocket", http.Header{"Authorization": {"Bearer " + issuer.token(t, "alice", time.Minute, map[string]any{"role": "editor"})}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, command := range []string{`{"id":1,"connect":{}}`, `{"id":2,"publish":{"channel":"news:today","data":{"by":"alice"}}}`} {
		if err := c.WriteMessage(1, []byte(command)); err != nil {
			t.Fatal(err)
		}
		if _, p, err := c.ReadMessage(); err != nil || strings.Contains(string(p), "error") {
			t.Fatalf("%s: %s, %v", command, p, err)
		}
	}
	sse.with(`{"by":"alice"}`)

	// Another namespace and another token: the stream goes on.
	write(two)
	if _, err := e.Reload(parse(t, text("    sport: { subscribe: [anyone] }"))); err != nil {
		t.Fatal(err)
	}
	if got := post(t, e, two, "sport:today"); got != http.StatusOK {
		t.Errorf("publish to the new namespace: %d", got)
	}
	if got := post(t, e, one, "news:today"); got != http.StatusUnauthorized {
		t.Errorf("the old token: %d, want 401", got)
	}
	if got := post(t, e, two, "news:today"); got != http.StatusOK {
		t.Errorf("publish: %d", got)
	}
	sse.with(`{"by":"rest"}`)

	// Without a token in the file nothing changes.
	write("")
	if _, err := e.Reload(parse(t, text(""))); err == nil || !strings.Contains(err.Error(), "no token") {
		t.Errorf("%v: want an error about tokens", err)
	}
}
