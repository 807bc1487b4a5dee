package ws_test

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/protocols/ws"
)

// A client that leaves the end of the connection to the server, as RFC 6455,
// 7.1.1 wants it and as Chromium does, is not kept waiting.
func TestServerEndsTheConnection(t *testing.T) {
	t.Parallel()
	sessions := ws.NewServer(nil)
	srv := httptest.NewServer(sessions.Handler(func(context.Context, *ws.Conn) error { return nil }, ws.Options{}))
	defer srv.Close()
	c, res, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer res.Body.Close()
	var ce *websocket.CloseError
	if _, _, err := c.ReadMessage(); !errors.As(err, &ce) || ce.Code != websocket.CloseNormalClosure {
		t.Fatalf("got %v, want close 1000", err)
	}
	// gorilla has answered the close frame, and leaves the rest to us.
	if err := c.NetConn().SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.NetConn().Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after both close frames: %d bytes, %v; want the end of the connection", n, err)
	}
}
