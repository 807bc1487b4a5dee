package router_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
)

// echoServer is a port of gorilla's that does what a message says, or sends it back.
func echoServer(t *testing.T) string {
	t.Helper()
	ln := localhost(t)
	up := websocket.Upgrader{EnableCompression: true, CheckOrigin: func(*http.Request) bool { return true }}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			typ, msg, err := c.ReadMessage()
			switch {
			case err != nil, string(msg) == "leave":
				return
			case string(msg) == "ping me":
				err = c.WriteControl(websocket.PingMessage, []byte("from the server"), time.Now().Add(time.Second))
			case string(msg) == "large":
				err = c.WriteMessage(typ, make([]byte, 1<<20))
			default:
				err = c.WriteMessage(typ, msg)
			}
			if err != nil {
				return
			}
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return "http://" + ln.Addr().String()
}

// tunnelled is a port whose WebSockets lead to an echoServer.
func tunnelled(t *testing.T, relay ws.Relay) (*router.Server, *oneporttest.Port) {
	t.Helper()
	srv := newServer()
	srv.HTTP = http.NotFoundHandler()
	srv.Routes = []router.Route{{WebSocket: "/", To: reach(t, echoServer(t), nil), Tunnel: relay}}
	return srv, oneporttest.Listen(t, srv)
}

// socketTo opens a session.
func socketTo(t *testing.T, port *oneporttest.Port, compression bool) (*websocket.Conn, *http.Response) {
	t.Helper()
	d := websocket.Dialer{NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return port.Dial(ctx) }, TLSClientConfig: port.TLS("http/1.1"), EnableCompression: compression}
	c, res, err := d.DialContext(t.Context(), "wss"+strings.TrimPrefix(port.URL("/"), "https"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	return c, res
}

// wantClose reads until the session ends, with that code.
func wantClose(t *testing.T, c *websocket.Conn, code int) {
	t.Helper()
	for {
		_, _, err := c.ReadMessage()
		if err == nil {
			continue
		}
		if ce, ok := errors.AsType[*websocket.CloseError](err); !ok || ce.Code != code {
			t.Errorf("got %v, want close %d", err, code)
		}
		return
	}
}

func TestTunnelModes(t *testing.T) {
	for name, relay := range map[string]ws.Relay{"raw": {Mode: ws.Raw}, "aware": {}, "aware, with compression": {Compression: true}} {
		t.Run(name, func(t *testing.T) {
			srv, port := tunnelled(t, relay)
			c, res := socketTo(t, port, true)
			deflate := res.Header.Get("Sec-WebSocket-Extensions") != ""
			if want := relay.Mode == ws.Raw || relay.Compression; deflate != want {
				t.Errorf("extensions: %q, want some: %t", res.Header.Get("Sec-WebSocket-Extensions"), want)
			}
			pinged := make(chan string, 1)
			pong := c.PingHandler()
			c.SetPingHandler(func(s string) error { pinged <- s; return pong(s) })
			ponged := make(chan string, 1)
			c.SetPongHandler(func(s string) error { ponged <- s; return nil })
			_ = c.WriteControl(websocket.PingMessage, []byte("from the client"), time.Now().Add(time.Second))
			_ = c.WriteMessage(websocket.TextMessage, []byte("ping me"))
			for _, n := range []int{0, 1, 1000, 64 << 10} { // gorilla sends fragments of 4 KiB
				msg := bytes.Repeat([]byte("words "), n/6+1)[:n]
				w, err := c.NextWriter(websocket.TextMessage)
				if err == nil {
					_, err = w.Write(msg)
				}
				if err == nil {
					err = w.Close()
				}
				if err != nil {
					t.Fatal(err)
				}
				if _, got, err := c.ReadMessage(); err != nil || !bytes.Equal(got, msg) {
					t.Fatalf("%d bytes: got %d, %v", n, len(got), err)
				}
			}
			if got := <-pinged; got != "from the server" {
				t.Errorf("pinged with %q", got)
			}
			if got := <-ponged; got != "from the client" {
				t.Errorf("ponged with %q", got)
			}
			_ = c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(3456, "bye"))
			wantClose(t, c, 3456)

			for _, large := range []bool{false, true} { // from the client, and from the server
				c, _ := socketTo(t, port, true)
				if large {
					_ = c.WriteMessage(websocket.TextMessage, []byte("large"))
				} else {
					_ = c.WriteMessage(websocket.BinaryMessage, make([]byte, 1<<20))
				}
				if relay.Mode == ws.Raw {
					if _, got, err := c.ReadMessage(); err != nil || len(got) != 1<<20 {
						t.Errorf("1 MiB: got %d bytes, %v", len(got), err)
					}
					continue
				}
				wantClose(t, c, websocket.CloseMessageTooBig)
			}

			c, _ = socketTo(t, port, false)
			_ = c.WriteMessage(websocket.TextMessage, []byte("leave"))
			if relay.Mode == ws.Raw {
				wantClose(t, c, websocket.CloseAbnormalClosure)
			} else {
				wantClose(t, c, websocket.CloseInternalServerErr)
			}

			c, _ = socketTo(t, port, false)
			stopped := make(chan error, 1)
			go func() { stopped <- port.Stop() }()
			wantClose(t, c, websocket.CloseGoingAway)
			_ = c.Close()
			if err := <-stopped; err != nil {
				t.Errorf("drain: %v", err)
			}
			st := srv.Stats().Tunnels
			if st.Closed["1001"] < 1 || st.Ended["drain"] < 1 || st.Closed["other"] != 1 || relay.Mode == ws.Aware && (st.Ended["client_too_big"] != 1 || st.Ended["upstream_too_big"] != 1 || st.Ended["upstream_lost"] != 1) {
				t.Errorf("counted: %+v", st)
			}
		})
	}
}

// A client that answers no ping is cut off, and one that does is not.
func TestTunnelDeadClient(t *testing.T) {
	srv, port := tunnelled(t, ws.Relay{PingEvery: 100 * time.Millisecond, PongWait: 100 * time.Millisecond})
	dead, _ := socketTo(t, port, false)
	dead.SetPingHandler(func(string) error { return nil })
	alive, _ := socketTo(t, port, false)
	read := make(chan error, 1)
	go func() { _, _, err := alive.ReadMessage(); read <- err }()
	wantClose(t, dead, websocket.CloseGoingAway)
	if err := alive.WriteMessage(websocket.TextMessage, []byte("here")); err != nil {
		t.Error(err)
	}
	if err := <-read; err != nil {
		t.Errorf("who answers: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for srv.Stats().Tunnels.Ended["client_dead"] != 1 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if ctx.Err() != nil {
		t.Errorf("counted: %+v", srv.Stats().Tunnels)
	}
}

func TestTunnelsThatCannotBe(t *testing.T) {
	t.Parallel()
	h1 := reach(t, "http://127.0.0.1:1", nil)
	for want, route := range map[string]router.Route{
		"that is for WebSocket alone":     {Path: "/", Tunnel: ws.Relay{Mode: ws.Raw}},
		"a mode that there is not":        {WebSocket: "/", Tunnel: ws.Relay{Mode: 7}},
		"nobody would look at them":       {WebSocket: "/", Tunnel: ws.Relay{Mode: ws.Raw, MessageBytes: 1}},
		"a bound below zero":              {WebSocket: "/", Tunnel: ws.Relay{MessageRate: -1}},
		"ByteBurst and no ByteRate":       {WebSocket: "/", Tunnel: ws.Relay{ByteBurst: 1}},
		"MessageBurst and no MessageRate": {WebSocket: "/", Tunnel: ws.Relay{MessageBurst: 1}},
	} {
		route.To = h1
		if err := route.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
