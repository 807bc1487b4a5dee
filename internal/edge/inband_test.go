package edge_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/oneporttest"
)

const inband = `
listen: "127.0.0.1:8443"
tls: { dev: true }
upstreams:
  web: { servers: ["http://%[1]s"] }
routes:
  - { websocket: /ws, to: web, auth: [jwt, tickets], allow: { claims: { role: [user] } } }
  - { websocket: /raw, to: web, mode: raw, auth: [jwt] }
  - { websocket: /open, to: web }
  - { path: /refresh, refresh: true, auth: [jwt] }
auth:
  jwt: { issuer: %[3]s, audience: edge, keys: %[2]q, from: [header, subprotocol] }
`

// tellsOffers serves WebSockets that speak "chat", tell what they were offered, and echo.
func tellsOffers(t *testing.T) string {
	t.Helper()
	up := websocket.Upgrader{Subprotocols: []string{"chat"}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		msg := fmt.Appendf(nil, "offered %q", r.Header["Sec-Websocket-Protocol"])
		for err == nil && c.WriteMessage(websocket.TextMessage, msg) == nil {
			_, msg, err = c.ReadMessage()
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// offering opens a WebSocket, and gives the subprotocol that was agreed on.
func offering(t *testing.T, port *oneporttest.Port, path, token, offers string) (*websocket.Conn, string) {
	t.Helper()
	header := http.Header{"Sec-Websocket-Protocol": {offers}}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	ws, res, err := port.DialWebSocket(t.Context(), path, header)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
	return ws, res.Header.Get("Sec-WebSocket-Protocol")
}

// told is the next message.
func told(t *testing.T, ws *websocket.Conn) string {
	t.Helper()
	_, p, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

// show sends a token in band, and gives the answer.
func show(t *testing.T, ws *websocket.Conn, token string) string {
	t.Helper()
	if err := ws.WriteJSON(map[string]string{"oneport": "refresh", "token": token}); err != nil { // names in order
		t.Fatal(err)
	}
	return told(t, ws)
}

// waits lets time pass: there are sockets of the kernel, and no other clock.
func waits(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// A session is told when its token ends, shows newer ones in messages, and ends with the last;
// the server behind notices nothing.
func TestSessionsAreRefreshedInBand(t *testing.T) {
	t.Parallel()
	iss := newIssuer(t)
	user := map[string]any{"role": "user"}
	e, port := sidecar(t, fmt.Sprintf(inband, tellsOffers(t), iss.file, "test"))
	first := time.Unix(time.Now().Add(4*time.Second).Unix(), 0)
	ws, chosen := offering(t, port, "/ws", iss.token(t, "alice", 4*time.Second, user), "chat, oneport.auth.v1")
	var hello struct {
		Oneport   string `json:"oneport"`
		ID        string `json:"id"`
		ExpiresIn int    `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(told(t, ws)), &hello); err != nil || hello.Oneport != "session" || hello.ExpiresIn < 2 || hello.ExpiresIn > 3 {
		t.Errorf("first: %+v, %v", hello, err)
	}
	if got := told(t, ws); got != `offered ["chat"]` || chosen != "chat" {
		t.Errorf("the server was %s, and %q was agreed on", got, chosen)
	}
	if got := told(t, ws); got != `{"oneport":"token-expires","in":2}` {
		t.Errorf("the warning: %s", got)
	}
	if got := show(t, ws, iss.token(t, "bob", time.Hour, user)); got != `{"oneport":"refused","reason":"other-identity"}` {
		t.Errorf("another's token: %s", got)
	}
	waits(t, 1100*time.Millisecond) // one a second
	if got := show(t, ws, iss.token(t, "alice", 5*time.Second, user)); !strings.HasPrefix(got, `{"oneport":"refreshed","expires_in":`) {
		t.Fatalf("a newer one: %s", got)
	}
	waits(t, time.Until(first)+300*time.Millisecond)
	if err := ws.WriteMessage(websocket.TextMessage, []byte("still there")); err != nil {
		t.Error(err)
	}
	for got := told(t, ws); got != "still there"; got = told(t, ws) {
		if !strings.HasPrefix(got, `{"oneport":"token-expires","in":`) {
			t.Errorf("got %s", got)
		}
	}

	// The id is what a request for this session wants.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, port.URL("/refresh?session="+hello.ID), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+iss.token(t, "alice", 6*time.Second, user))
	res, err := port.HTTP2().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("by a request: %s", res.Status)
	}
	waits(t, 1100*time.Millisecond)
	if got := show(t, ws, iss.token(t, "alice", time.Hour, nil)); got != `{"oneport":"refused","reason":"forbidden"}` {
		t.Errorf("a token that the route does not take: %s", got)
	}

	// Another file has another issuer: its tokens count, and no others.
	other := newIssuer(t)
	if _, err := e.Reload(parse(t, fmt.Sprintf(inband, tellsOffers(t), other.file, "another"))); err != nil {
		t.Fatal(err)
	}
	waits(t, 1100*time.Millisecond)
	if got := show(t, ws, iss.token(t, "alice", time.Hour, user)); got != `{"oneport":"refused","reason":"invalid-token"}` {
		t.Errorf("a token of the file before: %s", got)
	}
	for {
		_, p, err := ws.ReadMessage()
		if err == nil {
			if !strings.HasPrefix(string(p), `{"oneport":"token-expires","in":`) {
				t.Errorf("got %s", p)
			}
			continue
		}
		if ce, ok := errors.AsType[*websocket.CloseError](err); !ok || ce.Code != websocket.ClosePolicyViolation || ce.Text != "token-expired" {
			t.Errorf("ended with %v", err)
		}
		break
	}
	if st := e.Sessions().Stats(); st.Moved != 2 {
		t.Errorf("%+v", st)
	}
}

// What is agreed on, and where nothing is said.
func TestInBandIsAgreedOn(t *testing.T) {
	t.Parallel()
	iss := newIssuer(t)
	_, port := sidecar(t, fmt.Sprintf(inband, tellsOffers(t), iss.file, "test"))
	token := iss.token(t, "alice", time.Hour, map[string]any{"role": "user"})
	for name, tc := range map[string]struct {
		path, token, offers string
		chosen, offered     string
		speaks              bool
	}{
		"alone":           {"/ws", token, "oneport.auth.v1", "oneport.auth.v1", "[]", true},
		"others first":    {"/ws", token, "other, chat, oneport.auth.v1", "chat", `["other, chat"]`, true},
		"none is spoken":  {"/ws", token, "oneport.auth.v1, other", "oneport.auth.v1", `["other"]`, true},
		"beside a token":  {"/ws", "", "chat, oneport.auth.v1, bearer, " + token, "chat", `["chat"]`, true},
		"with a token":    {"/ws", "", "bearer, " + token + ", oneport.auth.v1", "oneport.auth.v1", "[]", true},
		"not asked for":   {"/ws", token, "chat", "chat", `["chat"]`, false},
		"raw":             {"/raw", token, "chat, oneport.auth.v1", "chat", `["chat"]`, false},
		"raw, alone":      {"/raw", token, "oneport.auth.v1", "oneport.auth.v1", "[]", false},
		"without a guard": {"/open", "", "oneport.auth.v1, chat", "chat", `["oneport.auth.v1, chat"]`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ws, chosen := offering(t, port, tc.path, tc.token, tc.offers)
			if chosen != tc.chosen {
				t.Errorf("%q was agreed on, want %q", chosen, tc.chosen)
			}
			if tc.speaks {
				if got := told(t, ws); !strings.HasPrefix(got, `{"oneport":"session","id":"`) {
					t.Errorf("first %s", got)
				}
			}
			if got := told(t, ws); got != "offered "+tc.offered {
				t.Errorf("the server was %s, want %s", got, tc.offered)
			}
			msg := `{"oneport":"refresh","token":""}`
			want := msg
			if tc.speaks {
				want = `{"oneport":"refused","reason":"malformed"}`
			}
			if err := ws.WriteMessage(websocket.TextMessage, []byte(msg)); err != nil {
				t.Fatal(err)
			}
			if got := told(t, ws); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}
