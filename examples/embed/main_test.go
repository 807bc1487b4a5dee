package main

import (
	"io"
	"net/http"
	"testing"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAllThreeProtocols(t *testing.T) {
	port := oneporttest.Start(t, newServer())

	for version, c := range map[string]*http.Client{"HTTP/1.1": port.HTTP1(), "HTTP/2.0": port.HTTP2()} {
		res, err := c.Get(port.URL("/api/hello"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.Proto != version || string(body) != `{"message":"Hello from Gin"}` {
			t.Errorf("%s: %s %s, %v", version, res.Proto, body, err)
		}
	}

	answer, err := echov1.NewEchoClient(port.GRPC()).Unary(t.Context(), &echov1.UnaryRequest{Message: "hi"})
	if err != nil || answer.GetMessage() != "hi" {
		t.Errorf("gRPC: %v, %v", answer, err)
	}

	socket := port.WebSocket("/ws")
	if err := socket.WriteMessage(websocket.TextMessage, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	if typ, msg, err := socket.ReadMessage(); err != nil || typ != websocket.TextMessage || string(msg) != "hi" {
		t.Errorf("WebSocket: type %d %q, %v", typ, msg, err)
	}

	// What Ctrl-C does.
	drained := make(chan error, 1)
	go func() { drained <- port.Stop() }()
	if _, _, err := socket.ReadMessage(); !websocket.IsCloseError(err, ws.CloseGoingAway) {
		t.Errorf("while draining: %v, want close 1001", err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}
