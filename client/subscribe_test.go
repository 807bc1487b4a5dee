package client

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// says is a step that sends messages, and then ends the connection with 1012.
func says(messages ...string) step {
	return upgraded(func(_ *script, c *websocket.Conn) {
		for _, m := range messages {
			_ = c.WriteMessage(websocket.TextMessage, []byte(m))
		}
		time.Sleep(time.Second)
		_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1012, ""), time.Now().Add(time.Second))
		_, _, _ = c.ReadMessage()
	})
}

func subscribedAt(channel string, offset uint64, epoch string, recovered bool) string {
	b, _ := json.Marshal(map[string]any{"channel": channel, "subscribed": map[string]any{"offset": offset, "epoch": epoch, "recovered": recovered}})
	return string(b)
}

func published(channel string, offset uint64) string {
	return fmt.Sprintf(`{"channel":%q,"offset":%d,"data":%d}`, channel, offset, offset)
}

// What a subscription asks for when it comes back, and what it gives: each
// publication once, in order, and where some were lost.
func TestSubscription(t *testing.T) {
	sub := subscribedAt
	pub := published
	for name, tc := range map[string]struct {
		steps []step
		opts  SubscribeOptions
		asked []string
		want  string
	}{
		"recovers": {
			steps: []step{says(sub("a", 41, "x", false), pub("a", 42), pub("a", 43)), says(sub("a", 43, "x", true), pub("a", 44))},
			asked: []string{"", "43:x"}, want: "a42 a43 a44",
		},
		"recovers what it has": { // the server says what it has more of than was asked for
			steps: []step{says(sub("a", 41, "x", false), pub("a", 42), pub("a", 43)), says(sub("a", 41, "x", true), pub("a", 42), pub("a", 43), pub("a", 44))},
			asked: []string{"", "43:x"}, want: "a42 a43 a44",
		},
		"history is too short": {
			steps: []step{says(sub("a", 41, "x", false), pub("a", 42)), says(sub("a", 99, "x", false), pub("a", 100))},
			asked: []string{"", "42:x"}, want: "a42 lost-a a100",
		},
		"another epoch": {
			steps: []step{says(sub("a", 41, "x", false), pub("a", 42)), says(sub("a", 0, "y", false), pub("a", 1)), says(sub("a", 1, "y", true), pub("a", 2))},
			asked: []string{"", "42:x", "1:y"}, want: "a42 lost-a a1 a2",
		},
		"no history": {
			steps: []step{says(sub("a", 0, "", false), pub("a", 0)), says(sub("a", 0, "", false), pub("a", 0))},
			asked: []string{"", ""}, want: "a0 lost-a a0",
		},
		"a gap": {
			steps: []step{says(sub("a", 41, "x", false), pub("a", 42), pub("a", 44), pub("a", 43))},
			asked: []string{""}, want: "a42 lost-a44",
		},
		"from before": {
			steps: []step{says(sub("a", 7, "x", true), pub("a", 8)), says(sub("a", 8, "x", true))},
			opts:  SubscribeOptions{Since: map[string]Position{"a": {7, "x"}}},
			asked: []string{"7:x", "8:x"}, want: "a8",
		},
		"from before, in vain": {
			steps: []step{says(sub("a", 1, "y", false), pub("a", 2))},
			opts:  SubscribeOptions{Since: map[string]Position{"a": {7, "x"}}},
			asked: []string{"7:x"}, want: "lost-a a2",
		},
		"two channels": {
			steps: []step{says(sub("a", 1, "x", false), sub("b", 5, "z", false), pub("b", 6), pub("a", 2)), says(sub("a", 2, "x", true), sub("b", 6, "z", true), pub("b", 7))},
			asked: []string{"", "2:x,6:z"}, want: "b6 a2 b7",
		},
		"one of two has a history": {
			steps: []step{says(sub("a", 0, "", false), sub("b", 5, "z", false)), says(sub("a", 0, "", false), sub("b", 5, "z", true))},
			asked: []string{"", ",5:z"}, want: "lost-a",
		},
		"comes and goes, and noise": {
			steps: []step{says(sub("a", 1, "x", false), `{"channel":"a","join":{"client":"1","user":"ann"}}`, `{"channel":"c","data":1}`, `no JSON`, `{"channel":"a"}`, `{"channel":"a","leave":{"client":"1","user":"ann"}}`)},
			asked: []string{""}, want: "+ann -ann",
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				srv := newScript(t, append(tc.steps, upgraded(stays))...)
				channels := []string{"a"}
				if strings.Contains(name, "two") {
					channels = append(channels, "b")
				}
				s, err := srv.client(Options{}).Subscribe(channels, tc.opts)
				if err != nil {
					t.Fatal(err)
				}
				_, ended := running(t, s.socket)
				time.Sleep(time.Minute)
				s.Close()
				<-ended
				var got []string
				for {
					d, err := s.Next(t.Context())
					if err != nil {
						break
					}
					word := d.Channel + string(d.Data)
					switch {
					case d.Join != nil:
						word = "+" + d.Join.User
					case d.Leave != nil:
						word = "-" + d.Leave.User
					case d.Lost:
						word = "lost-" + word
					}
					got = append(got, word)
				}
				if got := strings.Join(got, " "); got != tc.want {
					t.Errorf("got %s\nwant %s", got, tc.want)
				}
				for i, want := range tc.asked {
					q := srv.queries(t, i)
					if q.Get("since") != want || strings.Join(q["channel"], ",") != strings.Join(channels, ",") {
						t.Errorf("try %d asked %v, want since %q", i, q, want)
					}
				}
			})
		})
	}
}

func TestSubscribeWantsChannels(t *testing.T) {
	c := &Client{}
	for _, channels := range [][]string{nil, {"a", "a"}, make([]string, 17)} {
		if _, err := c.Subscribe(channels, SubscribeOptions{}); err == nil {
			t.Errorf("%q was taken", channels)
		}
	}
}

// Whatever a server says, positions only grow but where it says that it begins anew.
func FuzzTake(f *testing.F) {
	f.Add(subscribedAt("a", 1, "x", false), published("a", 2))
	f.Add(published("a", 7), published("a", 7))
	f.Add(`{"channel":"a","subscribed":{}}`, `{"channel":"a","offset":18446744073709551615,"data":1}`)
	f.Add(`{"channel":"a","data":null}`, `[`)
	f.Fuzz(func(t *testing.T, one, two string) {
		s, err := (&Client{}).Subscribe([]string{"a"}, SubscribeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{one, two, one} {
			before := s.stand["a"].at
			m := &Message{Kind: Text, Data: []byte(p)}
			took := s.take(m)
			after := s.stand["a"].at
			if took != (m.news != nil) {
				t.Errorf("%q: taken %v, news %v", p, took, m.news)
			}
			if took && m.news.Data != nil && after.Offset < before.Offset {
				t.Errorf("%q: from %v to %v", p, before, after)
			}
			_ = s.target()
		}
	})
}
