package edge_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
)

const refreshed = `
listen: "127.0.0.1:8443"
tls: { dev: true }
upstreams:
  web: { servers: ["http://%[1]s"] }
  rpc: { servers: ["grpc://%[1]s"] }
routes:
  - { grpc: "*", to: rpc, auth: [jwt] }
  - { websocket: /ws, to: web, auth: [jwt] }
  - { websocket: /raw, to: web, mode: raw, auth: [jwt] }
  - { path: /refresh, refresh: true, auth: [jwt] }
  - { path: /, to: web, auth: [jwt] }
auth:
  jwt: { issuer: test, audience: edge, keys: %[2]q }
`

// refresh posts a token, and gives the answer.
func refresh(t *testing.T, port *oneporttest.Port, token string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, port.URL("/refresh"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := port.HTTP2().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(res.StatusCode, " ", string(b))
}

// openBoth opens a WebSocket and a gRPC stream with a token, and has each answer once.
func openBoth(t *testing.T, port *oneporttest.Port, token string) (*websocket.Conn, echov1.Echo_BidiClient) {
	t.Helper()
	ws, _, err := port.DialWebSocket(t.Context(), "/ws", http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close() })
	stream, err := echov1.NewEchoClient(port.GRPC()).Bidi(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token))
	if err != nil {
		t.Fatal(err)
	}
	talkBoth(t, ws, stream)
	return ws, stream
}

func talkBoth(t *testing.T, ws *websocket.Conn, stream echov1.Echo_BidiClient) {
	t.Helper()
	_ = ws.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := ws.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Error(err)
	}
	if _, p, err := ws.ReadMessage(); err != nil || string(p) != "hello" {
		t.Errorf("the WebSocket: %q, %v", p, err)
	}
	if err := stream.Send(&echov1.BidiRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Errorf("the stream: %v", err)
	}
}

// overBoth waits for the end of both.
func overBoth(t *testing.T, ws *websocket.Conn, stream echov1.Echo_BidiClient, reason string) {
	t.Helper()
	_ = ws.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) || err.(*websocket.CloseError).Text != reason { //nolint:errorlint // it is one
		t.Errorf("the WebSocket ended with %v", err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unauthenticated || status.Convert(err).Message() != reason {
		t.Errorf("the stream ended with %v", err)
	}
}

// What a token has opened outlives it with a newer one, and ends with that.
func TestSessionsAreRefreshed(t *testing.T) {
	iss := newIssuer(t)
	e, port := sidecar(t, fmt.Sprintf(refreshed, behind(t), iss.file))
	first := time.Unix(time.Now().Add(2*time.Second).Unix(), 0)
	ws, stream := openBoth(t, port, iss.token(t, "alice", 2*time.Second, nil))
	if got := refresh(t, port, iss.token(t, "bob", time.Hour, nil)); got != "404 no such session of this identity is open\n" {
		t.Errorf("another's token: %s", got)
	}
	second := iss.token(t, "alice", 4*time.Second, nil)
	if got := refresh(t, port, second); got[:4] != "200 " {
		t.Fatalf("a newer token: %s", got)
	}
	if got := refresh(t, port, second); got != "409 no session ends before these credentials do\n" {
		t.Errorf("the same again: %s", got)
	}
	select { // sockets of the kernel: no other clock
	case <-time.After(time.Until(first) + 500*time.Millisecond):
	case <-t.Context().Done():
	}
	talkBoth(t, ws, stream)
	if st := e.Sessions().Stats(); st.Open != 2 || st.Moved != 2 {
		t.Errorf("%+v", st)
	}
	overBoth(t, ws, stream, "token-expired")
}

// Who is revoked loses what is open, and gets nothing more with that token.
func TestSessionsAreRevoked(t *testing.T) {
	iss := newIssuer(t)
	e, port := sidecar(t, fmt.Sprintf(refreshed, behind(t), iss.file))
	token := iss.token(t, "alice", time.Hour, nil)
	ws, stream := openBoth(t, port, token)
	if _, err := e.Reload(parse(t, fmt.Sprintf(refreshed, behind(t), iss.file))); err != nil {
		t.Fatal(err)
	}
	if n := len(e.Sessions().Calls("test", "alice")); n != 2 {
		t.Errorf("after a reload alice has %d", n)
	}
	n, err := e.Sessions().Revoke("test", "alice", time.Time{})
	if err != nil || n != 2 {
		t.Errorf("%d ended, %v", n, err)
	}
	overBoth(t, ws, stream, "revoked")
	header := http.Header{"Authorization": {"Bearer " + token}}
	if got := fmt.Sprint(calls(t, port, "/api/whoami", header)); got != "[401 401 Unauthenticated 401]" {
		t.Errorf("the revoked token: %s", got)
	}
	if got := refresh(t, port, iss.token(t, "alice", 2*time.Hour, nil)); got != "401 revoked\n" {
		t.Errorf("a token of before: %s", got)
	}
	fresh := http.Header{"Authorization": {"Bearer " + iss.token(t, "alice", time.Hour, map[string]any{"iat": time.Now().Add(time.Second).Unix()})}}
	if got := fmt.Sprint(calls(t, port, "/api/whoami", fresh)); got != "[200 200 OK 101]" {
		t.Errorf("a token of afterwards: %s", got)
	}
	if !e.Sessions().Unrevoke("test", "alice") {
		t.Error("nothing was lifted")
	}
	if got := fmt.Sprint(calls(t, port, "/api/whoami", header)); got != "[200 200 OK 101]" {
		t.Errorf("lifted: %s", got)
	}
}

// An operator revokes over the admin API.
func TestAdminRevokes(t *testing.T) {
	iss := newIssuer(t)
	e, port := sidecar(t, fmt.Sprintf(refreshed, behind(t), iss.file)+"admin: { listen: \"127.0.0.1:9901\" }\n")
	a := administer(t, edge.AdminOptions{Edge: e})
	token := iss.token(t, "alice", time.Hour, nil)
	ws, stream := openBoth(t, port, token)
	if code, body := a.post(t, "/api/v1/kill", `{"identity": {"subject": "alice", "issuer": "test"}, "revoke": "60s"}`); code != 200 || !strings.Contains(body, "2") {
		t.Fatalf("%d %s, want 2 calls ended", code, body)
	}
	overBoth(t, ws, stream, "revoked")
	if got := fmt.Sprint(calls(t, port, "/api/whoami", http.Header{"Authorization": {"Bearer " + token}})); got != "[401 401 Unauthenticated 401]" {
		t.Errorf("the revoked token: %s", got)
	}
	other := http.Header{"Authorization": {"Bearer " + iss.token(t, "bob", time.Hour, nil)}}
	if got := fmt.Sprint(calls(t, port, "/api/whoami", other)); got != "[200 200 OK 101]" {
		t.Errorf("somebody else: %s", got)
	}

	// It is listed, and lifted by who has the token.
	code, body := a.ask(t, http.MethodGet, a.url+"/api/v1/revocations")
	for _, want := range []string{`"subject": "alice"`, `"issuer": "test"`, `"until": "20`, `"total": 1`} {
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("%d %s, want %s", code, body, want)
		}
	}
	stranger := *a
	stranger.token = "somebody else's"
	const alice = `{"subject": "alice", "issuer": "test"}`
	if code, body := stranger.post(t, "/api/v1/unrevoke", alice); code != 401 {
		t.Errorf("without the token: %d %s", code, body)
	}
	for _, tt := range []struct {
		body, want string
		code       int
	}{
		{`{"subject": "alice"}`, "issuer", 400},
		{`{"subject": "alice", "issuer": "other"}`, "not revoked", 404},
		{alice, "{}", 200},
		{alice, "not revoked", 404},
	} {
		if code, body := a.post(t, "/api/v1/unrevoke", tt.body); code != tt.code || !strings.Contains(body, tt.want) {
			t.Errorf("%s: %d %s, want %d and %s", tt.body, code, body, tt.code, tt.want)
		}
	}
	if code, body := a.ask(t, http.MethodGet, a.url+"/api/v1/revocations"); code != 200 || !strings.Contains(body, `"revocations": []`) {
		t.Errorf("%d %s, want none", code, body)
	}
	if got := fmt.Sprint(calls(t, port, "/api/whoami", http.Header{"Authorization": {"Bearer " + token}})); got != "[200 200 OK 101]" {
		t.Errorf("lifted: %s", got)
	}
}

// What sheds calls also says when who is idle has to go.
func TestShedAllRelieves(t *testing.T) {
	addr := behind(t)
	for limits, want := range map[string]bool{"limits: { shed: all }": true, "limits: { shed: off }": false, `limits: { shed: "off" }`: false} {
		e, _ := sidecar(t, fmt.Sprintf("listen: \"127.0.0.1:8443\"\ntls: { dev: true }\nupstreams: { web: { servers: [\"http://%s\"] } }\nroutes: [{ path: /, to: web }]\n%s\n", addr, limits))
		if over := e.Server.Relief.Overloaded; (over != nil) != want {
			t.Errorf("%s: relieves %v", limits, over != nil)
		}
	}
}
