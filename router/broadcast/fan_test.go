package broadcast_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
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
			var last string
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

// Streams stay that keep up, however fast large messages come: what a fan does not take is no
// queue's.
func TestFanKeepsUp(t *testing.T) {
	p := start(t, broadcast.Options{Queue: 64 << 10})
	c := p.WebSocket("/broadcast/stream?channel=log:a")
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, _, err := c.ReadMessage(); err != nil { // subscribed
		t.Fatal(err)
	}
	const n, ahead = 60, 8 // so many are in the session's own queue, which has room for more
	room := make(chan struct{}, n+ahead)
	for range ahead {
		room <- struct{}{}
	}
	big := `"` + strings.Repeat("x", 60<<10) + `"`
	var publisher sync.WaitGroup
	defer publisher.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	publisher.Go(func() {
		for range n {
			select {
			case <-room:
			case <-ctx.Done():
				return
			}
			_, _ = p.hub.Publish(ctx, broadcast.Message{Channel: "log:a", Data: []byte(big)}) // the reader finds what is missing
		}
	})
	for i := range n {
		if _, m, err := c.ReadMessage(); err != nil || len(m) < len(big) {
			t.Fatalf("message %d: %d bytes, %v", i, len(m), err)
		}
		room <- struct{}{}
	}
}

// A history that a reload brings is there for those who come after it, although others stay.
func TestReloadBringsAHistory(t *testing.T) {
	anyone := []broadcast.Rule{broadcast.Anyone}
	p := start(t, broadcast.Options{Namespaces: []broadcast.Namespace{{Name: "log", Subscribe: anyone}}})
	old := p.stream(t, "channel=log:a", "")
	old.of("subscribed")
	with := []broadcast.Namespace{{Name: "log", HistorySize: 100, HistoryTTL: time.Minute, Recovery: true, Subscribe: anyone}}
	if err := p.hub.Update(with, []string{token}); err != nil {
		t.Fatal(err)
	}
	s := p.stream(t, "channel=log:a", "")
	begun := s.of("subscribed")
	p.publish(t, "log:a", "1")
	for name, e := range map[string]*events{"before": old, "after": s} {
		if got := data(t, e.of("").data); got != "1" {
			t.Errorf("who came %s the reload got %s", name, got)
		}
	}
	if begun.id == "" {
		t.Fatalf("%s: want a position", begun.data)
	}
	_ = s.res.Body.Close()
	p.publish(t, "log:a", "2")
	back := p.stream(t, "channel=log:a", begun.id)
	if b := back.of("subscribed"); !strings.Contains(b.data, "recovered") {
		t.Errorf("%s: want it recovered", b.data)
	}
	for _, want := range []string{"1", "2"} {
		if got := data(t, back.of("").data); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := data(t, old.of("").data); got != "2" {
		t.Errorf("got %s, want 2", got)
	}
}

// A WebSocket that has missed more than its queue holds gets it all the same.
func TestSocketRecoversMuch(t *testing.T) {
	p := start(t, broadcast.Options{})
	here := p.stream(t, "channel=log:a", "").of("subscribed")
	big := `"` + strings.Repeat("x", 60<<10) + `"`
	const n = 40 // 2.4 MB
	for range n {
		p.publish(t, "log:a", big)
	}
	c := p.WebSocket("/broadcast/stream?channel=log:a&since=" + here.id)
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	for i := range n + 1 {
		if _, m, err := c.ReadMessage(); err != nil {
			t.Fatalf("message %d: %d bytes, %v", i, len(m), err)
		}
	}
}
