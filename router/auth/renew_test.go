package auth_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

// renewable opens a WebSocket of alice's by a guard of tokens, whose client offers those subprotocols.
func renewable(t *testing.T, s *auth.Sessions, g protocols.Guard, rules *auth.Require, offers string, claims map[string]any) *protocols.Call {
	t.Helper()
	call := newCall(t, protocols.WebSocket, "/ws", "Authorization", "Bearer "+jwtGood(claims), "Sec-WebSocket-Protocol", offers)
	for _, g := range []protocols.Guard{g, s.Guard(rules)} {
		if err := askGuard(t, g, call); err != nil {
			t.Fatal(err)
		}
	}
	return call
}

// noKeys are keys that cannot be had.
type noKeys struct{}

func (noKeys) Find(context.Context, string) ([]auth.Key, error) { return nil, auth.ErrKeysUnavailable }
func (noKeys) Generation() uint64                               { return 0 }

// A token that comes in band counts for as much as one that a request brings.
func TestRenewInBand(t *testing.T) {
	g := jwtGuard(t, nil)
	scoped := jwtGuard(t, func(o *auth.JWTOptions) { o.Scopes = []string{"chat"} })
	down := jwtGuard(t, func(o *auth.JWTOptions) { o.Keys = noKeys{} })
	other := jwtGuard(t, func(o *auth.JWTOptions) { o.Name = "other" })
	editors := &auth.Require{Claims: map[string][]string{"role": {"editor"}}}
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, tc := range map[string]struct {
		checkers []auth.Checker
		rules    *auth.Require
		open     func(*auth.Sessions) error
		claims   map[string]any
		token    string // instead of one with claims
		want     protocols.NotRenewed
	}{
		"newer":             {claims: map[string]any{"exp": at(2 * time.Hour)}},
		"behind another":    {checkers: []auth.Checker{down, other, g}, claims: map[string]any{"exp": at(2 * time.Hour)}},
		"older":             {claims: map[string]any{"exp": at(time.Minute)}, want: "not-later"},
		"the same end":      {claims: map[string]any{"exp": at(time.Hour), "jti": "2"}, want: "not-later"},
		"ended, but leeway": {claims: map[string]any{"exp": at(-5 * time.Second)}, want: "not-later"},
		"ended":             {claims: map[string]any{"exp": at(-5 * time.Minute)}, want: "invalid-token"},
		"another's":         {claims: map[string]any{"sub": "bob", "exp": at(2 * time.Hour)}, want: "other-identity"},
		"another issuer":    {claims: map[string]any{"iss": "https://evil.example", "exp": at(2 * time.Hour)}, want: "invalid-token"},
		"another audience":  {claims: map[string]any{"aud": "other", "exp": at(2 * time.Hour)}, want: "invalid-token"},
		"another guard":     {checkers: []auth.Checker{other}, claims: map[string]any{"exp": at(2 * time.Hour)}, want: "other-identity"},
		"garbage":           {token: "a.b.c", want: "invalid-token"},
		"rules":             {rules: editors, claims: map[string]any{"exp": at(2 * time.Hour), "role": "reader"}, want: "forbidden"},
		"rules that hold":   {rules: editors, claims: map[string]any{"exp": at(2 * time.Hour), "role": "editor"}},
		"scope":             {checkers: []auth.Checker{scoped}, claims: map[string]any{"exp": at(2 * time.Hour)}, want: "forbidden"},
		"no keys":           {checkers: []auth.Checker{down}, claims: map[string]any{"exp": at(2 * time.Hour)}, want: "try-again-later"},
		"no guard":          {checkers: []auth.Checker{}, claims: map[string]any{"exp": at(2 * time.Hour)}, want: "not-renewable"},
		"revoked": {claims: map[string]any{"exp": at(2 * time.Hour)}, want: "revoked", open: func(s *auth.Sessions) error {
			_, err := s.Revoke(jwtIssuer, "alice", time.Time{})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := auth.NewSessions()
			if s.SetCheckers(g); tc.checkers != nil {
				s.SetCheckers(tc.checkers...)
			}
			call := renewable(t, s, g, tc.rules, "chat, oneport.auth.v1", map[string]any{"role": "editor", "exp": at(time.Hour)})
			was := call.Identity()
			if tc.open != nil {
				if err := tc.open(s); err != nil {
					t.Fatal(err)
				}
			}
			if tc.token == "" {
				tc.token = jwtGood(tc.claims)
			}
			expires, why := call.Renew(t.Context(), tc.token)
			moved := s.Stats().Moved
			switch is := call.Identity(); {
			case why != tc.want:
				t.Errorf("%q, want %q", why, tc.want)
			case why != "" && (is != was || moved != 0):
				t.Errorf("moved all the same, to %s", is.Expires)
			case why == "" && (expires.Unix() != tc.claims["exp"] || !is.Expires.Equal(expires) || moved != 1):
				t.Errorf("says %s, is %s, %d moved", expires, is.Expires, moved)
			}
		})
	}
}

// A call can be renewed whose client has asked for it, while it is open.
func TestRenewIsAskedFor(t *testing.T) {
	g, s := jwtGuard(t, nil), auth.NewSessions()
	s.SetCheckers(g)
	newer := jwtGood(map[string]any{"exp": time.Now().Add(2 * time.Hour).Unix()})
	for offers, want := range map[string]protocols.NotRenewed{"": "not-renewable", "chat, oneport.auth.v10": "not-renewable", "oneport.auth.v1": "", "a,\toneport.auth.v1 ,b": ""} {
		if _, why := renewable(t, s, g, nil, offers, nil).Renew(t.Context(), newer); why != want {
			t.Errorf("%q: %q, want %q", offers, why, want)
		}
	}
	call := renewable(t, s, g, nil, protocols.InBand, nil)
	call.Finish(protocols.Result{})
	if _, why := call.Renew(t.Context(), newer); why != protocols.NotRenewable {
		t.Errorf("when it is over: %q", why)
	}
}

// What moves one session moves no other, and a session by ticket moves like any.
func TestRenewMovesOneSession(t *testing.T) {
	g, s := jwtGuard(t, nil), auth.NewSessions()
	s.SetCheckers(g)
	one := renewable(t, s, g, nil, protocols.InBand, nil)
	two := renewable(t, s, g, nil, protocols.InBand, nil)
	tickets := auth.NewTickets(auth.TicketsOptions{})
	ticket, err := tickets.Issue(t.Context(), one.Identity())
	if err != nil {
		t.Fatal(err)
	}
	three := newCall(t, protocols.WebSocket, "/ws?ticket="+ticket, "Sec-WebSocket-Protocol", protocols.InBand)
	if err := errors.Join(askGuard(t, tickets, three), askGuard(t, s.Guard(nil), three)); err != nil {
		t.Fatal(err)
	}
	was := two.Identity().Expires
	newer := jwtGood(map[string]any{"exp": time.Now().Add(2 * time.Hour).Unix()})
	for _, call := range []*protocols.Call{one, three} {
		if expires, why := call.Renew(t.Context(), newer); why != "" || !call.Identity().Expires.Equal(expires) {
			t.Errorf("%q", why)
		}
	}
	if !two.Identity().Expires.Equal(was) {
		t.Error("another was moved as well")
	}
}
