package broadcast_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/router/broadcast"
)

// Streams that leave and come back all the time, while much is published, have everything once
// and in order; in the end nothing of them stays.
func TestStreamsComeBackUnderLoad(t *testing.T) {
	p := start(t, broadcast.Options{})
	const streams, n = 12, 800
	var all sync.WaitGroup
	begun := make(chan struct{}, streams)
	for range streams {
		all.Go(func() {
			e := p.stream(t, "channel=log:a", "")
			last := ""
			e.of("subscribed")
			begun <- struct{}{}
			for next := 0; next < n; {
				s, err := e.read()
				if err != nil {
					t.Error(err)
					return
				}
				last = s.id
				if s.event != "" {
					continue
				}
				if got := data(t, s.data); got != fmt.Sprint(next) {
					t.Errorf("got %s, want %d", got, next)
					return
				}
				if next++; next%60 == 0 && next < n {
					_ = e.res.Body.Close()
					e = p.stream(t, "channel=log:a", last)
				}
			}
			_ = e.res.Body.Close()
		})
	}
	for range streams {
		<-begun
	}
	for i := range n {
		if _, err := p.hub.Publish(t.Context(), broadcast.Message{Channel: "log:a", Data: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			time.Sleep(5 * time.Millisecond) // let some of them come back before the end
		}
	}
	all.Wait()
	eventually(t, "streams stay that have gone", func() bool {
		st := p.hub.Stats()
		return st.Clients == 0 && st.Subscriptions == 0 && st.Channels == 0
	})
}

// A place that the history does not lead from is said to be lost; what comes then is there.
func TestStreamWhosePlaceIsLost(t *testing.T) {
	p := start(t, broadcast.Options{})
	for i := range 3 {
		p.publish(t, "log:a", fmt.Sprint(i))
	}
	here := p.stream(t, "channel=log:a", "").of("subscribed")
	for name, last := range map[string]string{"another history": "2:other", "ahead": "9" + here.id[1:]} {
		t.Run(name, func(t *testing.T) {
			back := p.stream(t, "channel=log:a", last)
			if s := back.of("subscribed"); s.data != here.data {
				t.Errorf("got %s, want %s", s.data, here.data)
			}
		})
	}
	back := p.stream(t, "channel=log:a", "1"+here.id[1:])
	if s := back.of("subscribed"); s.data == here.data {
		t.Errorf("not recovered: %s", s.data)
	}
	for i := 1; i < 5; i++ {
		if i >= 3 {
			p.publish(t, "log:a", fmt.Sprint(i))
		}
		if got := data(t, back.of("").data); got != fmt.Sprint(i) {
			t.Errorf("got %s, want %d", got, i)
		}
	}
}

// A disconnected user loses streams as well, and others of the same channel do not.
func TestStreamsOfADisconnectedUser(t *testing.T) {
	p := start(t, broadcast.Options{})
	as := func(user string) *websocket.Conn {
		c, _, err := p.DialWebSocket(t.Context(), "/broadcast/stream?channel=log:a", http.Header{"X-User": {user}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	alice, bob := as("alice"), as("bob")
	for _, c := range []*websocket.Conn{alice, bob} {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, _, err := c.ReadMessage(); err != nil { // subscribed
			t.Fatal(err)
		}
	}
	if err := p.hub.Disconnect(t.Context(), "alice", ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := alice.ReadMessage(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
		t.Errorf("alice: %v, want 1008", err)
	}
	p.publish(t, "log:a", "1")
	if _, m, err := bob.ReadMessage(); err != nil || data(t, string(m)) != "1" {
		t.Errorf("bob: %s, %v", m, err)
	}
}
