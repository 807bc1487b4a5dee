package router_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
)

// Who is idle for longest goes first, of each kind a share each second, and nobody before the overload has lasted, nor after it.
func TestReliefClosesWhoIsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var over atomic.Bool
		var log bytes.Buffer
		srv := newServer()
		srv.Log = slog.New(slog.NewTextHandler(&log, nil))
		srv.Relief = router.Relief{Overloaded: over.Load, Share: 0.5}
		port := oneporttest.Start(t, srv)
		for range 4 {
			get(t, port.HTTP1(), port.URL("/conn"))
			get(t, port.HTTP2(), port.URL("/conn"))
		}
		busy := port.HTTP2()
		type end struct{ code, after int }
		begin := time.Now()
		ends := make(chan end, 4)
		talk := func(c *websocket.Conn) { // a message each second
			for c.WriteMessage(websocket.TextMessage, []byte("x")) == nil {
				time.Sleep(time.Second)
			}
		}
		for i := range 4 {
			c := port.WebSocket("/ws")
			_ = c.SetReadDeadline(time.Time{})
			if i == 0 {
				go talk(c)
			}
			go func() {
				for {
					if _, _, err := c.ReadMessage(); err != nil {
						ends <- end{closeCode(err), int(time.Since(begin) / time.Second)}
						return
					}
				}
			}()
			time.Sleep(time.Second)
		}
		time.Sleep(20 * time.Second)
		over.Store(true)
		time.Sleep(10*time.Second + 500*time.Millisecond)
		get(t, busy, port.URL("/conn"))
		synctest.Wait()
		if st := srv.Stats().Relieved; st != (router.Relieved{}) {
			t.Errorf("closed too early: %+v", st)
		}
		time.Sleep(time.Second)
		get(t, busy, port.URL("/conn"))
		synctest.Wait()
		// Half of 4, of 5, of 4; whom it has told is open until it has answered.
		if st := srv.Stats().Relieved; st != (router.Relieved{HTTP1: 2, HTTP2: 3, WebSockets: 2, Episodes: 1}) {
			t.Errorf("in a second: %+v", st)
		}
		for range 5 {
			time.Sleep(time.Second)
			get(t, busy, port.URL("/conn"))
		}
		synctest.Wait()
		if st := srv.Stats().Relieved; st != (router.Relieved{HTTP1: 4, HTTP2: 4, WebSockets: 3, Episodes: 1}) {
			t.Errorf("all who are idle: %+v", st)
		}
		over.Store(false)
		for range 60 {
			time.Sleep(time.Second)
			get(t, busy, port.URL("/conn"))
		}
		st := srv.Stats()
		if st.Conns.Open[protocols.StateUpgraded] != 1 || st.HTTP2.Open != 1 || st.Conns.Ended[conn.ReasonShed] != 4 || len(srv.Conns()) != 2 {
			t.Errorf("the others: %+v", st)
		}
		for range 3 {
			if e := <-ends; e.code != ws.CloseTryAgainLater || e.after < 34 || e.after > 37 {
				t.Errorf("closed with %d after %d s", e.code, e.after)
			}
		}
		if err := port.Stop(); err != nil {
			t.Error(err)
		}
		<-ends
		time.Sleep(2 * time.Second)
		text := log.String()
		if strings.Count(text, "refusing calls was not enough") != 1 || !strings.Contains(text, `msg="no longer overloaded"`) || !strings.Contains(text, "http1=4 http2=4 websockets=3") {
			t.Errorf("logged: %s", text)
		}
	})
}

// On real sockets, and for tunnels of both kinds: whom it has cut off may come back.
func TestReliefOfTunnels(t *testing.T) {
	for _, relay := range []ws.Relay{{}, {Mode: ws.Raw}} {
		var over atomic.Bool
		srv := newServer()
		srv.HTTP = http.NotFoundHandler()
		srv.Routes = []router.Route{{WebSocket: "/", To: reach(t, echoServer(t), nil), Tunnel: relay}}
		srv.Relief = router.Relief{Overloaded: over.Load, After: time.Nanosecond, Idle: 50 * time.Millisecond}
		port := oneporttest.Listen(t, srv)
		c, _ := socketTo(t, port, false)
		if err := c.WriteMessage(websocket.TextMessage, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.ReadMessage(); err != nil {
			t.Fatal(err)
		}
		over.Store(true)
		wantClose(t, c, websocket.CloseTryAgainLater)
		over.Store(false)
		c, _ = socketTo(t, port, false)
		if err := c.WriteMessage(websocket.TextMessage, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.ReadMessage(); err != nil {
			t.Error(err)
		}
	}
}

// A Server without somebody who says so closes nobody, and one that ends while it is overloaded ends.
func TestReliefEndsWithTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newServer()
		srv.Relief.Overloaded = func() bool { return true }
		port := oneporttest.Start(t, srv)
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := port.Stop(); err != nil || ctx.Err() != nil {
			t.Error(err, ctx.Err())
		}
	})
}
