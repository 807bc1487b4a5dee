package auth_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

// opened is a call of somebody's that Sessions were asked about.
type opened struct {
	*protocols.Call
	ended *protocols.Refusal
	err   error
}

// openAs begins a call for an identity.
func openAs(t testing.TB, s *auth.Sessions, p protocols.Protocol, id *protocols.Identity, rules *auth.Require) *opened {
	t.Helper()
	o := &opened{Call: newCall(t, p, "/x")}
	o.Identify(id)
	o.OnEnd(func(why *protocols.Refusal) { o.ended = why })
	o.err = askGuard(t, s.Guard(rules), o.Call)
	return o
}

func issuedAt(at time.Time) map[string]any { return map[string]any{"iat": float64(at.Unix())} }

func TestSessionsAreKnownByIdentity(t *testing.T) {
	s := auth.NewSessions()
	alice := &protocols.Identity{Subject: "alice", Issuer: "a", By: "jwt"}
	one := openAs(t, s, protocols.WebSocket, alice, nil)
	two := openAs(t, s, protocols.GRPC, alice, nil)
	three := openAs(t, s, protocols.WebSocket, alice, nil)
	openAs(t, s, protocols.HTTP, alice, nil) // is over soon
	openAs(t, s, protocols.WebSocket, nil, nil)
	other := openAs(t, s, protocols.WebSocket, &protocols.Identity{Subject: "alice", Issuer: "b", By: "jwt"}, nil)
	robot := openAs(t, s, protocols.GRPC, &protocols.Identity{Subject: "robot", By: "keys"}, nil)
	if st := s.Stats(); st.Open != 5 {
		t.Errorf("%+v", st)
	}
	if got := fmt.Sprint(s.Holders(2), s.Holders(-1)); got != "[{a alice 3} {b alice 1}] []" {
		t.Errorf("holders: %s", got)
	}
	if calls := s.Calls("a", "alice"); len(calls) != 3 || calls[0] != three.Call {
		t.Errorf("alice has %v", calls)
	}
	two.Finish(protocols.Result{})
	three.Finish(protocols.Result{})
	why := &protocols.Refusal{Reason: protocols.ReasonForbidden}
	if n := s.End("a", "alice", why); n != 1 || one.ended != why || two.ended != nil || other.ended != nil {
		t.Errorf("%d ended: %v, %v, %v", n, one.ended, two.ended, other.ended)
	}
	if n := s.End("keys", "robot", why); n != 1 || robot.ended != why {
		t.Errorf("the robot: %d, %v", n, robot.ended)
	}
	for _, o := range []*opened{one, other, robot} {
		o.Finish(protocols.Result{})
	}
	if st := s.Stats(); st.Open != 0 || len(s.Holders(9)) != 0 || st.Ended != 2 {
		t.Errorf("in the end: %+v", st)
	}
}

// Who is revoked loses what is open, and gets in again with a token of afterwards, when the time is over, or when it is lifted.
func TestRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := auth.NewSessions()
		token := &protocols.Identity{Subject: "alice", Issuer: "a", By: "jwt", Claims: issuedAt(time.Now())}
		key := &protocols.Identity{Subject: "alice", By: "keys"}
		socket, keyed := openAs(t, s, protocols.WebSocket, token, nil), openAs(t, s, protocols.GRPC, key, nil)
		time.Sleep(time.Second / 2)
		n, err := s.Revoke("a", "alice", time.Now().Add(time.Hour))
		if err != nil || n != 1 || keyed.ended != nil {
			t.Fatalf("%d ended, %v, %v", n, err, keyed.ended)
		}
		if code, reason := socket.ended.Close(); code != 1008 || reason != "revoked" {
			t.Errorf("closed with %d %q", code, reason)
		}
		for _, p := range []protocols.Protocol{protocols.HTTP, protocols.GRPC, protocols.WebSocket} {
			again := openAs(t, s, p, token, nil)
			if r := protocols.RefusalOf(again.err); again.err == nil || r.Reason != protocols.ReasonUnauthenticated {
				t.Errorf("%s with the old token: %v", p, again.err)
			}
			again.Finish(protocols.Result{})
		}
		for _, iat := range []any{nil, "x", true} {
			none := &protocols.Identity{Subject: "alice", Issuer: "a", By: "jwt", Claims: map[string]any{"iat": iat}}
			if !s.Revoked(none) {
				t.Errorf("iat %v lets in", iat)
			}
		}
		time.Sleep(time.Second / 2)
		fresh := &protocols.Identity{Subject: "alice", Issuer: "a", By: "jwt", Claims: issuedAt(time.Now())}
		if o := openAs(t, s, protocols.HTTP, fresh, nil); o.err != nil {
			t.Errorf("a token of afterwards: %v", o.err)
		}
		if list := s.Revocations(); len(list) != 1 || list[0].Subject != "alice" || list[0].Issuer != "a" {
			t.Errorf("revocations: %+v", list)
		}
		time.Sleep(time.Hour)
		if s.Revoked(token) || len(s.Revocations()) != 0 {
			t.Error("revoked for longer than asked for")
		}
		if _, err := s.Revoke("keys", "alice", time.Time{}); err != nil || keyed.ended == nil {
			t.Errorf("the key: %v, %v", err, keyed.ended)
		}
		time.Sleep(1000 * time.Hour)
		if !s.Revoked(key) || !s.Unrevoke("keys", "alice") || s.Unrevoke("keys", "alice") || s.Revoked(key) {
			t.Error("a revocation without an end is not until it is lifted")
		}
	})
}

func TestRevocationsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := auth.NewSessions()
		auth.FillRevocations(s, time.Now().Add(time.Minute))
		if _, err := s.Revoke("a", "one more", time.Time{}); err != auth.ErrTooManyRevocations { //nolint:errorlint // not wrapped
			t.Errorf("got %v", err)
		}
		if _, err := s.Revoke("a", "0", time.Time{}); err != nil {
			t.Errorf("one that is there: %v", err)
		}
		time.Sleep(time.Minute)
		if _, err := s.Revoke("a", "one more", time.Time{}); err != nil || len(s.Revocations()) != 2 {
			t.Errorf("with room again: %v, %d", err, len(s.Revocations()))
		}
	})
}

// A call does not slip in between a revocation's two halves.
func TestRevokeUnderRace(t *testing.T) {
	s := auth.NewSessions()
	id := &protocols.Identity{Subject: "alice", By: "keys"}
	for range 200 {
		var mu sync.Mutex
		var out, let int
		var work sync.WaitGroup
		for range 4 {
			work.Go(func() {
				call := newCall(t, protocols.WebSocket, "/x")
				call.Identify(id)
				call.OnEnd(func(*protocols.Refusal) { mu.Lock(); out++; mu.Unlock() })
				if _, err := s.Guard(nil).AdmitNow(context.Background(), call); err == nil {
					mu.Lock()
					let++
					mu.Unlock()
				}
			})
		}
		if _, err := s.Revoke("keys", "alice", time.Time{}); err != nil {
			t.Fatal(err)
		}
		work.Wait()
		if out < let {
			t.Fatalf("%d let in, %d ended", let, out)
		}
		for _, call := range s.Calls("keys", "alice") {
			call.Finish(protocols.Result{})
		}
		s.Unrevoke("keys", "alice")
	}
}

// A newer token moves the end of what the older one has opened: its timer, a ticket's, and not a certificate's.
func TestRefreshMovesTheEnd(t *testing.T) {
	jwtMade()
	synctest.Test(t, func(t *testing.T) {
		g, s := jwtGuard(t, nil), auth.NewSessions()
		begin := time.Now()
		token := func(ttl time.Duration, more map[string]any) string {
			claims := map[string]any{"exp": begin.Add(ttl).Unix(), "role": "admin"}
			maps.Copy(claims, more)
			return jwtGood(claims)
		}
		var mu sync.Mutex
		ends := map[string]time.Duration{}
		open := func(name, token string, rules *auth.Require) *protocols.Call {
			call, ctx := jwtCall(protocols.WebSocket, "Authorization: Bearer "+token)
			call.OnEnd(func(*protocols.Refusal) {
				mu.Lock()
				ends[name] = time.Since(begin)
				mu.Unlock()
				call.Finish(protocols.Result{})
			})
			if why := jwtTry(t, g, call, ctx); why != "" {
				t.Fatal(why)
			}
			if err := askGuard(t, s.Guard(rules), call); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { call.Finish(protocols.Result{}) })
			return call
		}
		first := token(time.Minute, nil)
		open("alice", first, nil)
		open("admin", first, &auth.Require{Claims: map[string][]string{"role": {"admin"}}})
		open("long", token(3*time.Hour, nil), nil)
		open("bob", token(time.Minute, map[string]any{"sub": "bob"}), nil)
		time.Sleep(30 * time.Second)
		id := func(token string) *protocols.Identity {
			id, err := g.Check(t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		if done := s.Refresh(id(first), ""); done != (auth.Refreshed{Later: 3}) {
			t.Errorf("the same token: %+v", done)
		}
		if done := s.Refresh(id(token(time.Hour, map[string]any{"role": "none"})), ""); done != (auth.Refreshed{Moved: 1, Later: 1, Forbidden: 1}) {
			t.Errorf("a newer one: %+v", done)
		}
		if done := s.Refresh(id(token(2*time.Hour, nil)), "nobody's"); done != (auth.Refreshed{}) {
			t.Errorf("by name: %+v", done)
		}
		time.Sleep(50 * time.Minute)
		if done := s.Refresh(id(token(2*time.Hour, nil)), ""); done != (auth.Refreshed{Moved: 1, Later: 1}) {
			t.Errorf("once more: %+v", done)
		}
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		want := map[string]time.Duration{"alice": 2 * time.Hour, "admin": time.Minute, "long": 3 * time.Hour, "bob": time.Minute}
		if fmt.Sprint(ends) != fmt.Sprint(want) {
			t.Errorf("ended after %v, want %v", ends, want)
		}
		if n := s.Stats().Moved; n != 2 {
			t.Errorf("%d moved", n)
		}
	})
}

// What opened a call beside the token that is refreshed still ends it.
func TestRefreshLeavesOtherCredentials(t *testing.T) {
	jwtMade()
	synctest.Test(t, func(t *testing.T) {
		g, s := jwtGuard(t, nil), auth.NewSessions()
		begin := time.Now()
		token := jwtGood(map[string]any{"exp": begin.Add(2 * time.Minute).Unix()})
		id, err := g.Check(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		tickets := auth.NewTickets(auth.TicketsOptions{})
		ticket, err := tickets.Issue(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		ended := map[string]time.Duration{}
		end := func(name string, call *protocols.Call) {
			call.OnEnd(func(*protocols.Refusal) { mu.Lock(); defer mu.Unlock(); ended[name] = time.Since(begin) })
			if err := askGuard(t, s.Guard(nil), call); err != nil {
				t.Fatal(err)
			}
		}
		byTicket := newCall(t, protocols.WebSocket, "/ws?ticket="+ticket)
		if err := askGuard(t, tickets, byTicket); err != nil {
			t.Fatal(err)
		}
		end("ticket", byTicket)
		both, ctx := jwtCall(protocols.WebSocket, "Authorization: Bearer "+token)
		short := jwtGuard(t, func(o *auth.JWTOptions) { o.Name = "other" })
		if _, err := auth.All(short, g).Admit(ctx, both); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { both.Finish(protocols.Result{}) })
		end("both", both)
		newer, err := g.Check(t.Context(), jwtGood(map[string]any{"exp": begin.Add(time.Hour).Unix()}))
		if err != nil {
			t.Fatal(err)
		}
		if done := s.Refresh(newer, ""); done.Moved != 2 {
			t.Errorf("%+v", done)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if want := map[string]time.Duration{"ticket": time.Hour, "both": 2 * time.Minute}; fmt.Sprint(ended) != fmt.Sprint(want) {
			t.Errorf("ended after %v, want %v", ended, want)
		}
	})
}

func TestRefreshAnswers(t *testing.T) {
	soon, later := time.Now().Add(time.Minute), time.Now().Add(time.Hour)
	as := func(expires time.Time) *protocols.Identity {
		return &protocols.Identity{Subject: "alice", Issuer: "a", By: "jwt", Expires: expires}
	}
	admins := &auth.Require{Claims: map[string][]string{"role": {"admin"}}}
	for name, tc := range map[string]struct {
		method string
		who    *protocols.Identity
		open   func(s *auth.Sessions)
		query  string
		status int
		text   string
	}{
		"GET":            {method: http.MethodGet, who: as(later), status: 405, text: "want POST"},
		"nobody":         {status: 401, text: "credentials"},
		"no end":         {who: as(time.Time{}), status: 409, text: "no end"},
		"nothing open":   {who: as(later), status: 404, text: "no such session"},
		"another's name": {who: as(later), open: func(s *auth.Sessions) { openAs(t, s, protocols.GRPC, as(soon), nil) }, query: "?session=x", status: 404, text: "no such session"},
		"by name": {
			who: as(later), open: func(s *auth.Sessions) { openAs(t, s, protocols.GRPC, as(soon), nil) },
			query: "?session=" + protocols.NewID(1, 2).String(), status: 200, text: `{"sessions":1,"expires_in":3599}`,
		},
		"all":         {who: as(later), open: func(s *auth.Sessions) { openAs(t, s, protocols.GRPC, as(soon), nil) }, status: 200, text: `"sessions":1`},
		"ends sooner": {who: as(soon), open: func(s *auth.Sessions) { openAs(t, s, protocols.GRPC, as(later), nil) }, status: 409, text: "no session ends before"},
		"forbidden":   {who: as(later), open: func(s *auth.Sessions) { openAs(t, s, protocols.GRPC, as(soon), admins) }, status: 403, text: "do not suffice"},
		"revoked": {who: as(later), open: func(s *auth.Sessions) {
			openAs(t, s, protocols.GRPC, as(soon), nil)
			if _, err := s.Revoke("a", "alice", time.Time{}); err != nil {
				t.Error(err)
			}
		}, status: 401, text: "revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			s := auth.NewSessions()
			if tc.open != nil {
				tc.open(s)
			}
			call := new(protocols.Call)
			ctx := call.Begin(t.Context(), protocols.NewID(3, 4), "")
			call.Identify(tc.who)
			if tc.method == "" {
				tc.method = http.MethodPost
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequestWithContext(ctx, tc.method, "/refresh"+tc.query, nil))
			if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.text) || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
		})
	}
}

func BenchmarkSessions(b *testing.B) {
	id := &protocols.Identity{Subject: "alice", Issuer: "a", By: "jwt"}
	for _, p := range []protocols.Protocol{protocols.HTTP, protocols.GRPC} {
		b.Run(p.String(), func(b *testing.B) {
			g := auth.NewSessions().Guard(nil)
			on := protocols.Conn{}.WithLive(nil, protocols.NewCalls())
			b.ReportAllocs()
			for b.Loop() {
				call := &protocols.Call{Protocol: p, Conn: on}
				call.Identify(id)
				if _, err := g.AdmitNow(b.Context(), call); err != nil {
					b.Fatal(err)
				}
				call.Finish(protocols.Result{})
			}
		})
	}
}

// The end of a session moves away only, also when two newer credentials come at once.
func TestRefreshedAtOnce(t *testing.T) {
	s := auth.NewSessions()
	in := func(d time.Duration) *protocols.Identity {
		return &protocols.Identity{Subject: "alice", Issuer: "a", By: "jwt", Expires: time.Now().Add(d)}
	}
	// Looking at many rules takes a while, in which the other one is done.
	rules := &auth.Require{Claims: map[string][]string{}}
	claims := map[string]any{}
	for i := range 100 {
		name := fmt.Sprint(i)
		rules.Claims[name], claims[name] = []string{name}, name
	}
	for range 500 {
		was := in(time.Minute)
		was.Claims = claims
		o := openAs(t, s, protocols.WebSocket, was, rules)
		var both sync.WaitGroup
		for _, d := range []time.Duration{time.Hour, 2 * time.Hour} {
			both.Go(func() {
				id := in(d)
				id.Claims = claims
				s.Refresh(id, "")
			})
		}
		both.Wait()
		if left := time.Until(o.Identity().Expires); left < 90*time.Minute {
			t.Fatalf("it ends in %s, want two hours", left)
		}
		o.Finish(protocols.Result{})
	}
}
