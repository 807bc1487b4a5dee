package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// issuer gives "t1", "t2" and so on.
type issuer struct{ n atomic.Int64 }

func (i *issuer) token(context.Context) (string, error) { return fmt.Sprint("t", i.n.Add(1)), nil }

// shown are the tokens of a script's handshakes.
func (s *script) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, h := range s.heads {
		all = append(all, strings.TrimPrefix(h.Get("Authorization"), "Bearer "))
	}
	return strings.Join(all, " ")
}

// When a token is refused, or has ended, which ones are shown, and what becomes of the socket.
func TestTokens(t *testing.T) {
	expired := closes(1008, "token-expired", time.Minute)
	for name, tc := range map[string]struct {
		steps []step
		want  string
		shown string
	}{
		"good":                    {[]step{upgraded(stays)}, "connecting connected", "t1"},
		"refused once":            {[]step{answers(401), upgraded(stays)}, "connecting 0s connecting connected", "t1 t2"},
		"refused twice":           {[]step{answers(401)}, "connecting 0s connecting failed", "t1 t2"},
		"refused, busy, refused":  {[]step{answers(401), answers(503), answers(401)}, "connecting 0s connecting 2s connecting failed", "t1 t2 t2"},
		"refused again later":     {[]step{answers(401), closes(1012, "", time.Minute), answers(401), upgraded(stays)}, "connecting 0s connecting connected 1s connecting 0s connecting connected", "t1 t2 t2 t3"},
		"expired":                 {[]step{expired, upgraded(stays)}, "connecting connected 1s connecting connected", "t1 t2"},
		"expired twice":           {[]step{expired, expired, upgraded(stays)}, "connecting connected 1s connecting connected 1s connecting connected", "t1 t2 t3"},
		"kept over another close": {[]step{closes(1001, "", time.Minute), upgraded(stays)}, "connecting connected 1s connecting connected", "t1 t1"},
		"not allowed":             {[]step{closes(1008, "forbidden", time.Minute)}, "connecting connected failed", "t1"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				srv := newScript(t, tc.steps...)
				s := srv.client(Options{Token: new(issuer).token}).WebSocket("/ws", SocketOptions{})
				st, ended := running(t, s)
				time.Sleep(5 * time.Minute)
				if got := st.String(); got != tc.want {
					t.Errorf("got %s\nwant %s", got, tc.want)
				}
				if got := srv.shown(); got != tc.shown {
					t.Errorf("showed %s, want %s", got, tc.shown)
				}
				s.Close()
				<-ended
			})
		})
	}
}

// What a token's fetch has to say.
func TestTokenFetchFails(t *testing.T) {
	for name, tc := range map[string]struct {
		fetch func(context.Context) (string, error)
		want  string
	}{
		"for now":     {func(context.Context) (string, error) { return "", errors.New("down") }, "connecting 1s connecting 2s connecting 4s connecting 8s"},
		"for good":    {func(context.Context) (string, error) { return "", fmt.Errorf("logged out: %w", ErrNoToken) }, "connecting failed"},
		"with none":   {func(context.Context) (string, error) { return "", nil }, "connecting failed"},
		"and hangs":   {func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }, "connecting"},
		"not at once": {func(context.Context) (string, error) { time.Sleep(5 * time.Second); return "t", nil }, "connecting connected"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				srv := newScript(t, upgraded(stays))
				s := srv.client(Options{Token: tc.fetch}).WebSocket("/ws", SocketOptions{})
				st, ended := running(t, s)
				time.Sleep(9 * time.Second)
				if got := st.String(); got != tc.want {
					t.Errorf("got %s, want %s", got, tc.want)
				}
				s.Close()
				<-ended
			})
		})
	}
}

// However many want a newer one, it is fetched once, and a caller that goes does not end it for others.
func TestTokenIsFetchedOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var is issuer
		tokens := newTokens(func(ctx context.Context) (string, error) {
			time.Sleep(time.Second)
			return is.token(ctx)
		})
		for round, old := range []string{"", "t1"} {
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					if got, err := tokens.renew(t.Context(), old); err != nil || got != fmt.Sprint("t", round+1) {
						t.Errorf("round %d: %q, %v", round, got, err)
					}
				})
			}
			short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			if _, err := tokens.renew(short, old); err == nil && round > 0 {
				t.Log("the one with little time was first")
			}
			cancel()
			all.Wait()
		}
	})
}

// The whole of an in-band exchange, and what of it the application sees: nothing.
func TestInBand(t *testing.T) {
	type exchange func(say func(string), hear func() string)
	for name, tc := range map[string]struct {
		does  exchange
		reads string
		shown string // by the next handshake, which follows token-expired
	}{
		"refreshed": {func(say func(string), hear func() string) {
			say(`{"oneport":"session","id":"1","expires_in":120}`)
			say("one")
			time.Sleep(time.Minute)
			say(`{"oneport":"token-expires","in":60}`)
			if got := hear(); got != `{"oneport":"refresh","token":"t2"}` {
				t.Error(got)
			}
			say("two")
			say(`{"oneport":"refreshed","expires_in":3600}`)
			say(`{"oneport":"something new"}`)
		}, `one two {"oneport":"something new"}`, "t1 t3"},
		"refused": {func(say func(string), hear func() string) {
			say(`{"oneport":"session"}`)
			say(`{"oneport":"token-expires","in":60}`)
			hear()
			say(`{"oneport":"refused","reason":"forbidden"}`)
		}, "", "t1 t2"},
		"try again later": {func(say func(string), hear func() string) {
			say(`{"oneport":"session"}`)
			say(`{"oneport":"token-expires","in":60}`)
			hear()
			asked := time.Now()
			say(`{"oneport":"refused","reason":"try-again-later"}`)
			if got := hear(); got != `{"oneport":"refresh","token":"t2"}` || time.Since(asked) != inBandAgain {
				t.Error(got, time.Since(asked))
			}
			say(`{"oneport":"refreshed","expires_in":3600}`)
		}, "", "t1 t3"},
		"not spoken": {func(say func(string), _ func() string) {
			say("hello")
			say(`{"oneport":"session"}`)
			say(`{"oneport":"token-expires","in":60}`)
		}, `hello {"oneport":"session"} {"oneport":"token-expires","in":60}`, "t1 t2"},
		"no JSON": {func(say func(string), _ func() string) { say(`{"oneport":"session"`) }, `{"oneport":"session"`, "t1 t2"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				first := upgraded(func(_ *script, c *websocket.Conn) {
					tc.does(func(m string) { _ = c.WriteMessage(websocket.TextMessage, []byte(m)) }, func() string {
						_, p, _ := c.ReadMessage()
						return string(p)
					})
					time.Sleep(time.Minute)
					_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1008, "token-expired"), time.Now().Add(time.Second))
					_, _, _ = c.ReadMessage()
				})
				srv := newScript(t, first, upgraded(stays))
				s := srv.client(Options{Token: new(issuer).token}).WebSocket("/ws", SocketOptions{Subprotocols: []string{"chat"}, Ping: -1})
				_, ended := running(t, s)
				time.Sleep(5 * time.Minute)
				s.Close()
				<-ended
				var reads []string
				for {
					m, err := s.Read(t.Context())
					if err != nil {
						break
					}
					reads = append(reads, string(m.Data))
				}
				if got := strings.Join(reads, " "); got != tc.reads {
					t.Errorf("read %s\nwant %s", got, tc.reads)
				}
				if got := srv.shown(); got != tc.shown {
					t.Errorf("showed %s, want %s", got, tc.shown)
				}
				if got := srv.heads[0].Get("Sec-WebSocket-Protocol"); got != "chat, oneport.auth.v1" {
					t.Errorf("offered %s", got)
				}
			})
		})
	}
}

// Nothing is offered where it could not be used, and the application cannot speak to the port.
func TestInBandIsFenced(t *testing.T) {
	for name, tc := range map[string]struct {
		token func(context.Context) (string, error)
		opts  SocketOptions
		offer string
	}{
		"no token":     {nil, SocketOptions{}, ""},
		"own header":   {new(issuer).token, SocketOptions{Header: http.Header{"Authorization": {"Basic eA=="}}}, ""},
		"not wanted":   {new(issuer).token, SocketOptions{NoInBand: true, Subprotocols: []string{"chat"}}, "chat"},
		"with a token": {new(issuer).token, SocketOptions{}, inBandName},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				srv := newScript(t, upgraded(func(s *script, c *websocket.Conn) {
					_ = c.WriteMessage(websocket.TextMessage, []byte(`{"oneport":"session"}`))
					stays(s, c)
				}))
				s := srv.client(Options{Token: tc.token}).WebSocket("/ws", tc.opts)
				_, ended := running(t, s)
				time.Sleep(time.Second)
				err := s.Write(t.Context(), Text, []byte(`{"oneport":"refresh","token":"mine"}`))
				if on := tc.offer == inBandName; (err != nil) != on {
					t.Errorf("Write: %v", err)
				}
				s.Close()
				<-ended
				if got := srv.heads[0].Get("Sec-WebSocket-Protocol"); got != tc.offer {
					t.Errorf("offered %q, want %q", got, tc.offer)
				}
			})
		})
	}
}

// Whatever comes first and then: what the mode does not know reaches the application.
func FuzzInBand(f *testing.F) {
	f.Add(`{"oneport":"session","id":"1","expires_in":3600}`, `{"oneport":"token-expires","in":60}`)
	f.Add(`{"oneport":"session"}`, `{"oneport":"refused","reason":"try-again-later"}`)
	f.Add(`hello`, `{"oneport":"refreshed"}`)
	f.Add(`{"oneport":{}}`, `{"oneport":`)
	f.Fuzz(func(t *testing.T, first, then string) {
		n := &session{s: (&Client{}).WebSocket("/", SocketOptions{})}
		n.inband.begin("t1")
		on := n.own(Message{Kind: Text, Data: []byte(first)}, true)
		if on && !strings.HasPrefix(first, string(inBandMark)) {
			t.Errorf("%q began the mode", first)
		}
		took := n.own(Message{Kind: Text, Data: []byte(then)}, false)
		if took && (!on || !strings.HasPrefix(then, string(inBandMark))) {
			t.Errorf("%q was taken behind %q", then, first)
		}
		if n.own(Message{Kind: Binary, Data: []byte(then)}, false) {
			t.Errorf("%q was taken, and is binary", then)
		}
	})
}

// Whatever a server says, it is a time within bounds.
func FuzzRetryAfter(f *testing.F) {
	for _, v := range []string{"", "0", "120", "-1", "1e9", "99999999999999999999", "Sat, 01 Jan 2000 00:00:30 GMT", "soon"} {
		f.Add(v)
	}
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, v string) {
		if d := retryAfter(http.Header{"Retry-After": {v}}, now); d < 0 || d > mostRetryAfter {
			t.Errorf("%q is %v", v, d)
		}
	})
}
