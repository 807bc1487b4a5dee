package router_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/upstream"
)

// A session's WebSockets go where its requests go.
func TestWebSocketsAreHashedToo(t *testing.T) {
	var urls []string
	for i := range 3 {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !websocket.IsWebSocketUpgrade(r) {
				fmt.Fprint(w, i)
				return
			}
			c, err := new(websocket.Upgrader).Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer c.Close()
			_ = c.WriteMessage(websocket.TextMessage, fmt.Append(nil, i))
		}))
		t.Cleanup(srv.Close)
		urls = append(urls, srv.URL)
	}
	up, err := upstream.NewPool(urls, upstream.Options{Balance: upstream.Hash, HashBy: upstream.HashKey{Cookie: "session"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(up.Close)
	srv := newServer()
	srv.Routes = []router.Route{{Path: "/", To: up}, {WebSocket: "/", To: up}}
	port := oneporttest.Start(t, srv)
	seen := map[string]bool{}
	for i := range 20 {
		cookie := fmt.Sprint("session=", i)
		_, want := told(t, port.HTTP2(), http.MethodGet, "/", "", "Cookie", cookie)
		c, res, err := port.DialWebSocket(t.Context(), "/", http.Header{"Cookie": {cookie}})
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		_, got, err := c.ReadMessage()
		if err != nil || string(got) != want {
			t.Errorf("%s: the request went to %s, the WebSocket to %s, %v", cookie, want, got, err)
		}
		_ = c.Close()
		seen[want] = true
	}
	if len(seen) != 3 {
		t.Errorf("the sessions are at %v", seen)
	}
}
