package broadcast_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	broadcastv1 "github.com/oneport-edge/oneport/proto/oneport/broadcast/v1"
	"github.com/oneport-edge/oneport/router/broadcast"
)

// A client of gRPC that takes nothing, but answers pings, is a slow consumer: its call ends, and
// Close does not wait for it.
func TestGRPCClientTakesNothing(t *testing.T) {
	synctest.Test(t, testGRPCClientTakesNothing)
}

func testGRPCClientTakesNothing(t *testing.T) {
	p := start(t, broadcast.Options{Queue: 64 << 10})
	s := subscribeGRPC(t, p, &broadcastv1.SubscribeRequest{Channels: []string{"log:a"}})
	big := `"` + strings.Repeat("x", 60<<10) + `"`
	for range 40 {
		p.publish(t, "log:a", big)
	}
	closed := make(chan struct{})
	go func() { defer close(closed); p.hub.Close() }()
	select {
	case <-closed:
	case <-time.After(11 * time.Second):
		t.Error("Close waits for a client that takes nothing")
	}
	for err := error(nil); err == nil; { // within a message it may be, so its status is not looked at
		_, err = s.Recv()
	}
	<-closed
	time.Sleep(2 * time.Second) // in the bubble: centrifuge leaves a channel that is empty a second later
}

// Who has the Hub of before a reload still is told to come back: nothing is lost in it, and nobody
// listens to it.
func TestClosedHub(t *testing.T) {
	p := start(t, broadcast.Options{})
	p.hub.Close()
	if at, err := p.hub.Publish(t.Context(), broadcast.Message{Channel: "log:a", Data: []byte("1")}); !errors.Is(err, broadcast.ErrAway) {
		t.Errorf("Publish: %v, %v, want ErrAway", at, err)
	}
	for _, path := range []string{"/broadcast/stream?channel=log:a", "/connection/websocket"} {
		c := p.WebSocket(path)
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
		if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, 1013) {
			t.Errorf("%s: %v, want 1013", path, err)
		}
	}
}
