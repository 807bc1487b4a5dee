package ws_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
)

// called gives each handshake a call whose credential ends in an hour, and which any token moves by two.
func called(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := &protocols.Call{Protocol: protocols.WebSocket}
		ctx := call.Begin(r.Context(), protocols.NewID(1, 2), "")
		call.Identify(&protocols.Identity{Subject: "alice", Expires: time.Now().Add(time.Hour)})
		call.OnRenew(func(context.Context, string) (time.Time, protocols.NotRenewed) {
			id := &protocols.Identity{Subject: "alice", Expires: time.Now().Add(2 * time.Hour)}
			call.Identify(id)
			return id.Expires, ""
		})
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// heard is what the client gets next.
func heard(t *testing.T, c *websocket.Conn) string {
	t.Helper()
	_, p, err := c.ReadMessage()
	if err != nil {
		return err.Error()
	}
	return string(p)
}

func say(t *testing.T, c *websocket.Conn, text string) {
	t.Helper()
	if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

const inbandHello = `{"oneport":"session","id":"00000000000000010000000000000002","expires_in":3600}`

func TestInbandInProcess(t *testing.T) {
	t.Parallel()
	for _, compress := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			e := serveBy(t, called, ws.Options{PingEvery: -1, Subprotocols: []string{"chat"}, Compression: compress}, func(ctx context.Context, c *ws.Conn) error {
				seen := fmt.Sprintf("%q %q", c.Request().Header["Sec-Websocket-Protocol"], c.Subprotocol())
				if err := c.Write(ws.Text, []byte(seen)); err != nil {
					return err
				}
				return echo(ctx, c)
			})
			c, _, err := e.try(t.Context(), http.Header{"Sec-Websocket-Protocol": {"oneport.auth.v1", "chat"}}, compress)
			if err != nil {
				t.Fatal(err)
			}
			if c.Subprotocol() != "chat" {
				t.Errorf("%q was agreed on", c.Subprotocol())
			}
			if got := heard(t, c); got != inbandHello {
				t.Errorf("first %s", got)
			}
			if got := heard(t, c); got != `["chat"] "chat"` {
				t.Errorf("the handler sees %s", got)
			}
			say(t, c, "hello")
			if got := heard(t, c); got != "hello" {
				t.Errorf("echo: %s", got)
			}
			begin := time.Now()
			if got, after := heard(t, c), time.Since(begin); got != `{"oneport":"token-expires","in":60}` || after != 59*time.Minute {
				t.Errorf("after %s %s", after, got)
			}
			say(t, c, `{"oneport":"refresh","token":"any"}`)
			if got := heard(t, c); got != `{"oneport":"refreshed","expires_in":7200}` {
				t.Errorf("answer %s", got)
			}
			begin = time.Now()
			if got, after := heard(t, c), time.Since(begin); got != `{"oneport":"token-expires","in":60}` || after != 119*time.Minute {
				t.Errorf("after %s %s", after, got)
			}
			say(t, c, `{"oneport":"`+strings.Repeat("x", 17<<10))
			if got := heard(t, c); !strings.Contains(got, "1009") {
				t.Errorf("a large one: %s", got)
			}
			c.Close()
		})
	}
}

// A handler that reads nothing has the messages to the port read all the same.
func TestInbandWithoutReading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := serveBy(t, called, ws.Options{PingEvery: -1}, func(ctx context.Context, c *ws.Conn) error {
			c.CloseRead()
			<-ctx.Done()
			return nil
		})
		c := e.open(t, http.Header{"Sec-Websocket-Protocol": {"oneport.auth.v1"}})
		if c.Subprotocol() != "oneport.auth.v1" {
			t.Errorf("%q was agreed on", c.Subprotocol())
		}
		heard(t, c)
		say(t, c, `{"oneport":"refresh","token":"any"}`)
		if got := heard(t, c); got != `{"oneport":"refreshed","expires_in":7200}` {
			t.Errorf("answer %s", got)
		}
		say(t, c, "for the handler")
		if got := heard(t, c); !strings.Contains(got, "1008") {
			t.Errorf("got %s", got)
		}
		c.Close()
	})
}

// Who does not ask, or asks where no port is, gets nothing, and sends what it likes.
func TestInbandIsAskedFor(t *testing.T) {
	t.Parallel()
	plain := func(h http.Handler) http.Handler { return h }
	for name, tc := range map[string]struct {
		by     func(http.Handler) http.Handler
		offers []string
	}{
		"not asked":      {called, nil},
		"others":         {called, []string{"chat", "oneport.auth.v2"}},
		"without a port": {plain, []string{"oneport.auth.v1"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := serveBy(t, tc.by, ws.Options{PingEvery: -1}, echo)
				c := e.open(t, http.Header{"Sec-Websocket-Protocol": tc.offers})
				say(t, c, `{"oneport":"refresh","token":"any"}`)
				if got := heard(t, c); got != `{"oneport":"refresh","token":"any"}` || c.Subprotocol() != "" {
					t.Errorf("got %s, and %q was agreed on", got, c.Subprotocol())
				}
				time.Sleep(2 * time.Hour)
				say(t, c, "x")
				if got := heard(t, c); got != "x" {
					t.Errorf("then %s", got)
				}
				c.Close()
			})
		})
	}
}

// A tunnel that speaks with its client has nothing compressed, for what is for the port must be
// there to read; a raw one stays as it is.
func TestInbandTunnel(t *testing.T) {
	inBothModes(t, func(t *testing.T, relay ws.Relay) {
		t.Helper()
		seen := make(chan *http.Request, 1)
		e := tunnelBy(t, called, echoUpstream(t, seen), ws.TunnelOptions{
			Relay:   relay,
			Prepare: func(out http.Header, _ *http.Request) { out.Set("Sec-WebSocket-Protocol", "oneport.auth.v1,\tv2") }, // as guards do
		})
		c, res := e.open(t, websocket.Dialer{Subprotocols: []string{"v2", "oneport.auth.v1"}, EnableCompression: true}, nil)
		speaks := relay.Mode == ws.Aware
		r := <-seen
		if got := r.Header["Sec-Websocket-Protocol"]; len(got) != 1 || got[0] != "v2" || c.Subprotocol() != "v2" {
			t.Errorf("the server was offered %q, and %q was agreed on", got, c.Subprotocol())
		}
		if packed := res.Header.Get("Sec-WebSocket-Extensions") != ""; packed == speaks {
			t.Errorf("compressed: %t", packed)
		}
		if speaks {
			if got := heard(t, c); !strings.HasPrefix(got, `{"oneport":"session","id":"`) {
				t.Errorf("first %s", got)
			}
		}
		ours := `{"oneport":"refresh","token":"any"}`
		say(t, c, ours)
		want := ours
		if speaks {
			want = `{"oneport":"refreshed","expires_in":`
		}
		if got := heard(t, c); !strings.HasPrefix(got, want) {
			t.Errorf("got %s", got)
		}
		for _, n := range []int{0, 10, 100_000} {
			if say(t, c, strings.Repeat("x", n)); len(heard(t, c)) != n {
				t.Errorf("%d bytes do not come back", n)
			}
		}
	})
}
