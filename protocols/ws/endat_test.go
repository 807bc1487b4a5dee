package ws_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
)

// endsAtOnce ends each handshake's call from outside while the handshake is answered, which is when
// whoever served the request so far could still cut it off.
type endsAtOnce struct{ cut atomic.Bool }

func (e *endsAtOnce) by(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := &protocols.Call{Protocol: protocols.WebSocket}
		ctx := call.Begin(r.Context(), protocols.NewID(1, 2), "")
		call.OnEnd(func(*protocols.Refusal) { e.cut.Store(true) })
		h.ServeHTTP(&endingWriter{ResponseWriter: w, call: call}, r.WithContext(ctx))
	})
}

type endingWriter struct {
	http.ResponseWriter
	call *protocols.Call
}

func (w *endingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, brw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	c = &endingConn{Conn: c, call: w.call}
	return c, bufio.NewReadWriter(brw.Reader, bufio.NewWriter(c)), nil
}

type endingConn struct {
	net.Conn
	call *protocols.Call
	once sync.Once
}

func (c *endingConn) Write(p []byte) (int, error) {
	c.once.Do(func() { c.call.End(&protocols.Refusal{Reason: protocols.ReasonExpired}) })
	return c.Conn.Write(p)
}

func (e *endsAtOnce) check(t *testing.T, c *websocket.Conn) {
	t.Helper()
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
		t.Errorf("the client got %v, want 1008", err)
	}
	if e.cut.Load() {
		t.Error("the session was cut off")
	}
}

// A session that is ended while its handshake is answered is told why, as any other.
func TestSessionsAreEndedAtOnce(t *testing.T) {
	t.Parallel()
	var ends endsAtOnce
	e := serveBy(t, ends.by, ws.Options{PingEvery: -1}, func(_ context.Context, c *ws.Conn) error {
		_, _, err := c.Read()
		return err
	})
	ends.check(t, e.open(t, nil))
}

func TestTunnelsAreEndedAtOnce(t *testing.T) { inBothModes(t, testTunnelsAreEndedAtOnce) }

func testTunnelsAreEndedAtOnce(t *testing.T, relay ws.Relay) {
	var ends endsAtOnce
	e := tunnelBy(t, ends.by, echoUpstream(t, nil), ws.TunnelOptions{Relay: relay})
	c, _ := e.open(t, websocket.Dialer{}, nil)
	ends.check(t, c)
}
