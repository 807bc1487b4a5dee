package ws_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/protocols/ws"
)

// drain begins a drain of e's tunnels. Its result is to be waited for.
func (e *edge) drain(t *testing.T) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
		defer cancel()
		done <- e.sessions.Drain(ctx, 0)
	}()
	return done
}

// Both sides of a tunnel that is drained see a close with 1001.
func TestTunnelDrain(t *testing.T) {
	t.Parallel()
	upstream := make(chan error, 1)
	e := tunnelTo(t, rawUpstream(t, func(c net.Conn, br *bufio.Reader, _ *http.Request) {
		io.WriteString(c, switching(sampleKey)+"\x82\x01x")
		want := "\x88\x82\x00\x00\x00\x00\x03\xe9"
		got, err := io.ReadAll(br)
		if err == nil && string(got) != want {
			err = errors.New("got " + string(got))
		}
		upstream <- err
	}), ws.TunnelOptions{Relay: raw})
	c, br := e.dial(t)
	ask(t, c, br, "")
	first := make([]byte, 3)
	if _, err := io.ReadFull(br, first); err != nil {
		t.Fatal(err)
	}
	done := e.drain(t)
	const going = "\x88\x16\x03\xe9server is going away"
	frame := make([]byte, len(going))
	if _, err := io.ReadFull(br, frame); err != nil || string(frame) != going {
		t.Fatalf("got %x, %v; want a close frame", frame, err)
	}
	io.WriteString(c, "\x88\x82\x00\x00\x00\x00\x03\xe9")
	c.(*net.TCPConn).CloseWrite()
	if err := <-upstream; err != nil {
		t.Errorf("upstream: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("drain: %v", err)
	}
	if st := e.sessions.Stats(); st.Closed[ws.CloseGoingAway] != 1 {
		t.Errorf("closed: %v", st.Closed)
	}
	c2, br2 := e.dial(t)
	if res := ask(t, c2, br2, ""); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a handshake in the drain: %s", res.Status)
	}
}

func TestTunnelDrainGorilla(t *testing.T) { inBothModes(t, testTunnelDrainGorilla) }

func testTunnelDrainGorilla(t *testing.T, relay ws.Relay) {
	e := tunnelTo(t, echoUpstream(t, nil), ws.TunnelOptions{Relay: relay})
	c, _ := e.open(t, websocket.Dialer{}, nil)
	done := e.drain(t)
	var ce *websocket.CloseError
	if _, _, err := c.ReadMessage(); !errors.As(err, &ce) || ce.Code != websocket.CloseGoingAway {
		t.Errorf("got %v, want close 1001", err)
	}
	c.Close()
	if err := <-done; err != nil {
		t.Errorf("drain: %v", err)
	}
}

// The same over TLS on both sides, with the upstream's end handed on.
func TestTunnelTLS(t *testing.T) { inBothModes(t, testTunnelTLS) }

func testTunnelTLS(t *testing.T, relay ws.Relay) {
	hand := func(h http.Handler) *httptest.Server {
		srv := httptest.NewTLSServer(h)
		t.Cleanup(srv.Close)
		return srv
	}
	up := hand(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close() // without a close frame, when told so
		for {
			typ, msg, err := c.ReadMessage()
			if err != nil || string(msg) == "leave" || c.WriteMessage(typ, msg) != nil {
				return
			}
		}
	}))
	roots := up.Client().Transport.(*http.Transport).TLSClientConfig // httptest has one certificate for all
	e := &edge{sessions: ws.NewServer(nil)}
	srv := hand(e.sessions.Tunnel(ws.TunnelOptions{Relay: relay, Dial: func(ctx context.Context, _ *http.Request) (net.Conn, error) {
		return (&tls.Dialer{Config: roots}).DialContext(ctx, "tcp", up.Listener.Addr().String())
	}}))
	open := func() *websocket.Conn {
		d := websocket.Dialer{TLSClientConfig: roots}
		c, _, err := d.DialContext(t.Context(), "wss"+strings.TrimPrefix(srv.URL, "https"), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		msg := bytes.Repeat([]byte("x"), 100_000)
		if err := c.WriteMessage(websocket.BinaryMessage, msg); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.ReadMessage(); err != nil || !bytes.Equal(got, msg) {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
		return c
	}

	c := open()
	c.WriteMessage(websocket.TextMessage, []byte("leave"))
	var ce *websocket.CloseError
	left := websocket.CloseAbnormalClosure // the end of the connection
	if relay.Mode == ws.Aware {
		left = websocket.CloseInternalServerErr
	}
	if _, _, err := c.ReadMessage(); !errors.As(err, &ce) || ce.Code != left {
		t.Errorf("after the upstream has left: %v, want %d", err, left)
	}
	c.Close()

	c = open()
	done := e.drain(t)
	if _, _, err := c.ReadMessage(); !errors.As(err, &ce) || ce.Code != websocket.CloseGoingAway {
		t.Errorf("in the drain: %v, want close 1001", err)
	}
	c.Close()
	if err := <-done; err != nil {
		t.Errorf("drain: %v", err)
	}
}
