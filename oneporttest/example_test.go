package oneporttest_test

import (
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
)

// newServer stands for the function of your program that builds its server.
func newServer() *router.Server {
	srv := &router.Server{HTTP: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello") // the client has left if it fails
	})}
	echov1.RegisterEchoServer(srv, echov1.UnimplementedEchoServer{})
	srv.WebSocket("/ws", func(_ context.Context, c *ws.Conn) error { return c.Write(ws.Text, []byte("hello")) })
	return srv
}

// A test of your program, through the front door, in all three protocols.
// Nothing touches the network, and all is closed and drained when it ends.
func ExampleStart() {
	_ = func(t *testing.T) { // func TestServer(t *testing.T)
		port := oneporttest.Start(t, newServer())

		res, err := port.HTTP2().Get(port.URL("/api/hello"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()

		client := echov1.NewEchoClient(port.GRPC())
		if _, err := client.Whoami(t.Context(), &echov1.WhoamiRequest{}); err != nil {
			t.Error(err)
		}

		_, msg, err := port.WebSocket("/ws").ReadMessage()
		if err != nil || string(msg) != "hello" {
			t.Errorf("%q, %v", msg, err)
		}
	}
}

// Clients with a certificate, signed by the port's own CA.
func ExamplePort_As() {
	_ = func(t *testing.T) {
		port := oneporttest.Start(t, newServer())
		port.As("alice") // clients made from here on
		res, err := port.HTTP1().Get(port.URL("/"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
	}
}

// What a signal does to your server: the drain, and what clients see of it.
func ExamplePort_Stop() {
	_ = func(t *testing.T) {
		port := oneporttest.Start(t, newServer())
		if err := port.Stop(); err != nil {
			t.Errorf("the drain was not clean: %v", err)
		}
	}
}
