package edge_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/router/auth"
)

// issuer makes tokens, and has a file of the key that checks them.
type issuer struct {
	mint *auth.Mint
	file string
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := auth.GenerateKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{file: filepath.Join(t.TempDir(), "issuer.pem")}
	if i.mint, err = auth.NewMint(key, "ES256"); err != nil {
		t.Fatal(err)
	}
	pem, err := i.mint.PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(i.file, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	return i
}

func (i *issuer) token(t *testing.T, sub string, ttl time.Duration, more map[string]any) string {
	t.Helper()
	claims := map[string]any{"iss": "test", "aud": "edge", "sub": sub, "exp": time.Now().Add(ttl).Unix(), "iat": time.Now().Unix()}
	maps.Copy(claims, more)
	token, err := i.mint.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

const guarded = `
listen: "127.0.0.1:8443"
tls: { dev: true }
upstreams:
  web: { servers: ["http://%[1]s"] }
  rpc: { servers: ["grpc://%[1]s"] }
routes:
  - { grpc: "*", to: rpc, auth: [jwt, keys], limit: %[4]s }
  - { websocket: /ws/whoami, to: web, auth: tickets }
  - { websocket: /, to: web, auth: [jwt, keys], limit: %[4]s }
  - { path: /api/echo, to: web }
  - { path: /ticket, tickets: true, auth: jwt }
  - { path: /api/hello, to: web, auth: jwt, allow: { claims: { role: admin } } }
  - { path: /, to: web, auth: [jwt, keys], limit: %[4]s }
auth:
  jwt: { issuer: test, audience: edge, keys: %[2]q, from: [header, "cookie:session", subprotocol, "query:token"] }
  keys: { file: %[3]q }
limits:
  named:
    wide: { rate: 1000/s }
    narrow: { rate: 5/h, burst: 5 }
`

// calls asks in all protocols, and gives what came: HTTP statuses, a gRPC code.
func calls(t *testing.T, port *oneporttest.Port, path string, header http.Header) (list []string) {
	t.Helper()
	for _, c := range []*http.Client{port.HTTP1(), port.HTTP2()} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL(path), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header.Clone()
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		list = append(list, fmt.Sprint(res.StatusCode))
	}
	ctx := t.Context()
	for name, values := range header {
		ctx = metadata.AppendToOutgoingContext(ctx, strings.ToLower(name), values[0])
	}
	_, err := echov1.NewEchoClient(port.GRPC()).Unary(ctx, &echov1.UnaryRequest{})
	list = append(list, status.Code(err).String())
	c, res, err := port.DialWebSocket(t.Context(), "/ws", header)
	if err != nil && res == nil {
		t.Fatal(err)
	}
	if err == nil {
		_ = c.Close()
	}
	return append(list, fmt.Sprint(res.StatusCode))
}

// What a file says of who may call holds for all protocols, counts together, and is
// replaced by a reload that keeps what callers have used.
func TestGuardsOfAFile(t *testing.T) {
	iss := newIssuer(t)
	key, line, err := auth.NewAPIKey("robot")
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "keys.txt")
	if err := os.WriteFile(keys, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := behind(t)
	e, port := sidecar(t, fmt.Sprintf(guarded, addr, iss.file, keys, "wide"))
	alice := http.Header{"Authorization": {"Bearer " + iss.token(t, "alice", time.Hour, nil)}}
	for name, tc := range map[string]struct {
		path   string
		header http.Header
		want   string
	}{
		"nobody":       {"/api/whoami", http.Header{}, "[401 401 Unauthenticated 401]"},
		"alice":        {"/api/whoami", alice, "[200 200 OK 101]"},
		"robot":        {"/api/whoami", http.Header{"X-Api-Key": {key}}, "[200 200 OK 101]"},
		"a bad token":  {"/api/whoami", http.Header{"Authorization": {"Bearer x.y.z"}}, "[401 401 Unauthenticated 401]"},
		"an old token": {"/api/whoami", http.Header{"Authorization": {"Bearer " + iss.token(t, "alice", -time.Hour, nil)}}, "[401 401 Unauthenticated 401]"},
		"not allowed":  {"/api/hello", alice, "[403 403 OK 101]"},
		"an admin":     {"/api/hello", http.Header{"Authorization": {"Bearer " + iss.token(t, "bob", time.Hour, map[string]any{"role": "admin"})}}, "[200 200 OK 101]"},
		"open":         {"/api/echo", http.Header{}, "[200 200 Unauthenticated 401]"},
	} {
		if got := fmt.Sprint(calls(t, port, tc.path, tc.header)); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}

	plan, err := e.Reload(parse(t, fmt.Sprintf(guarded, addr, iss.file, keys, "narrow")))
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Restart) > 0 {
		t.Errorf("the reload asks for a restart: %v", plan.Restart)
	}
	if got := fmt.Sprint(calls(t, port, "/api/whoami", alice), calls(t, port, "/api/whoami", alice)); got != "[200 200 OK 101] [200 429 ResourceExhausted 429]" {
		t.Errorf("5 calls an hour: %s", got)
	}
	if _, err := e.Reload(parse(t, strings.Replace(fmt.Sprintf(guarded, addr, iss.file, keys, "narrow"), "burst: 5", "burst: 6", 1))); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(calls(t, port, "/api/whoami", alice)); got != "[200 429 ResourceExhausted 429]" {
		t.Errorf("a sixth call, behind a reload: %s", got)
	}
	if plan, err = e.Reload(parse(t, fmt.Sprintf(guarded, addr, iss.file, keys, "wide"))); err != nil || slices.Contains(plan.Guards, "auth.keys") {
		t.Errorf("keys that are as they were: %v, %v", plan.Guards, err)
	}
	if err := os.WriteFile(keys, []byte("# another\n"+line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if plan, err = e.Reload(parse(t, fmt.Sprintf(guarded, addr, iss.file, keys, "wide"))); err != nil || !slices.Equal(plan.Guards, []string{"auth.keys"}) {
		t.Errorf("a file of keys alone has changed: %v, %v", plan.Guards, err)
	}
	if err := os.WriteFile(keys, []byte("garbage\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Reload(parse(t, fmt.Sprintf(guarded, addr, iss.file, keys, "wide"))); err == nil || !strings.Contains(err.Error(), "keys.txt:1") {
		t.Errorf("a broken file of keys: %v", err)
	}
	if got := fmt.Sprint(calls(t, port, "/api/whoami", http.Header{"X-Api-Key": {key}})); got != "[200 200 OK 101]" {
		t.Errorf("a bad reload has cost the robot its key: %s", got)
	}
}

// A session ends when its token does, wherever that has stood.
func TestSessionsEndWithTheirTokens(t *testing.T) {
	iss := newIssuer(t)
	keys := filepath.Join(t.TempDir(), "keys.txt")
	if err := os.WriteFile(keys, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, port := sidecar(t, fmt.Sprintf(guarded, behind(t), iss.file, keys, "wide"))
	token := iss.token(t, "alice", 2*time.Second, nil)
	ends := time.Unix(time.Now().Add(2*time.Second).Unix(), 0)
	origin := "https://" + oneporttest.Name
	sockets := map[string]*websocket.Conn{}
	for name, tc := range map[string]struct {
		path   string
		header http.Header
	}{
		"header":      {"/ws", http.Header{"Authorization": {"Bearer " + token}}},
		"query":       {"/ws?token=" + token, http.Header{}},
		"subprotocol": {"/ws", http.Header{"Sec-Websocket-Protocol": {"bearer, " + token}}},
		"cookie":      {"/ws", http.Header{"Cookie": {"session=" + token}, "Origin": {origin}}},
	} {
		c, res, err := port.DialWebSocket(t.Context(), tc.path, tc.header)
		if err != nil {
			t.Fatal(name, err, res)
		}
		defer c.Close()
		if got := res.Header.Get("Sec-WebSocket-Protocol"); (name == "subprotocol") != (got == "bearer") {
			t.Errorf("%s: the handshake is answered with subprotocol %q", name, got)
		}
		sockets[name] = c
	}
	stream, err := echov1.NewEchoClient(port.GRPC()).Bidi(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token))
	if err != nil {
		t.Fatal(err)
	}
	if _, res, err := port.DialWebSocket(t.Context(), "/ws", http.Header{"Cookie": {"session=" + token}, "Origin": {"https://evil.example"}}); err == nil || res == nil || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a cookie of another origin's page: %v, %v", res, err)
	}
	for name, c := range sockets {
		_ = c.SetReadDeadline(ends.Add(35 * time.Second))
		_, _, err := c.ReadMessage()
		if !websocket.IsCloseError(err, websocket.ClosePolicyViolation) || !strings.Contains(err.Error(), "token-expired") {
			t.Errorf("%s: %v", name, err)
		}
		if late := time.Since(ends); late > time.Second {
			t.Errorf("%s: closed %v late", name, late)
		}
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("gRPC: %v", err)
	}
}

// A page gets a ticket for its token, and a WebSocket for its ticket, once.
func TestTickets(t *testing.T) {
	iss := newIssuer(t)
	keys := filepath.Join(t.TempDir(), "keys.txt")
	if err := os.WriteFile(keys, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, port := sidecar(t, fmt.Sprintf(guarded, behind(t), iss.file, keys, "wide"))
	for version, c := range map[string]*http.Client{"HTTP/1.1": port.HTTP1(), "HTTP/2": port.HTTP2()} {
		ask := func(token string) (int, string) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, port.URL("/ticket"), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+token)
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			var answer struct {
				Ticket string `json:"ticket"`
			}
			_ = json.NewDecoder(res.Body).Decode(&answer) // a refusal is no JSON
			return res.StatusCode, answer.Ticket
		}
		if status, _ := ask("none"); status != http.StatusUnauthorized {
			t.Errorf("%s: a ticket for nothing: %d", version, status)
		}
		status, ticket := ask(iss.token(t, "alice", time.Hour, nil))
		if status != http.StatusOK || ticket == "" {
			t.Fatalf("%s: %d, ticket %q", version, status, ticket)
		}
		c, res, err := port.DialWebSocket(t.Context(), "/ws/whoami?ticket="+ticket, nil)
		if err != nil {
			t.Fatal(version, err, res)
		}
		_ = c.Close()
		if _, res, err := port.DialWebSocket(t.Context(), "/ws/whoami?ticket="+ticket, nil); err == nil || res == nil || res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: a ticket for two: %v, %v", version, res, err)
		}
	}
}

// A key that a reload takes away ends what it has opened; one that stays does not.
func TestKeysThatGoEndTheirCalls(t *testing.T) {
	iss := newIssuer(t)
	var secrets, lines []string
	for _, name := range []string{"stays", "goes"} {
		key, line, err := auth.NewAPIKey(name)
		if err != nil {
			t.Fatal(err)
		}
		secrets, lines = append(secrets, key), append(lines, line+"\n")
	}
	keys := filepath.Join(t.TempDir(), "keys.txt")
	if err := os.WriteFile(keys, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(guarded, behind(t), iss.file, keys, "wide")
	e, port := sidecar(t, text)
	var sockets []*websocket.Conn
	for _, key := range secrets {
		c, res, err := port.DialWebSocket(t.Context(), "/ws", http.Header{"X-Api-Key": {key}})
		if err != nil {
			t.Fatal(err, res)
		}
		defer c.Close()
		sockets = append(sockets, c)
	}
	if err := os.WriteFile(keys, []byte(lines[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Reload(parse(t, text)); err != nil {
		t.Fatal(err)
	}
	_ = sockets[1].SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, _, err := sockets[1].ReadMessage(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
		t.Errorf("the key that goes: %v", err)
	}
	_ = sockets[0].SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := sockets[0].WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, msg, err := sockets[0].ReadMessage(); err != nil || !strings.Contains(string(msg), "hello") {
		t.Errorf("the key that stays: %q, %v", msg, err)
	}
	// The key that stays is of another file's guard now, and still ends its calls.
	if err := os.WriteFile(keys, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Reload(parse(t, text)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := sockets[0].ReadMessage(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
		t.Errorf("the key that went later: %v", err)
	}
}
