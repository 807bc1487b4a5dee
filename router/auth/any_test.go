package auth_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

// fakeGuard is a guard that does as it is told.
type fakeGuard struct {
	err     error
	id      *protocols.Identity
	field   string // set to "by the guard" when it lets in, and taken out otherwise
	waits   bool
	asked   int
	valueOf any // put into the context
}

type fakeGuardKey struct{}

func (f *fakeGuard) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	f.asked++
	if f.id != nil {
		call.Identify(f.id)
	}
	if f.field != "" {
		call.Hand(f.field, "by the guard")
	}
	if f.valueOf != nil {
		ctx = context.WithValue(ctx, fakeGuardKey{}, f.valueOf)
	}
	return ctx, f.err
}

func (f *fakeGuard) AdmitNow(ctx context.Context, call *protocols.Call) (context.Context, error) {
	if f.waits {
		return ctx, protocols.ErrMustWait
	}
	return f.Admit(ctx, call)
}

func (f *fakeGuard) Clean(call *protocols.Call) {
	if f.field != "" {
		call.Hand(f.field, "")
	}
}

func fakeRefusal(challenge string) error {
	return &protocols.Refusal{Reason: protocols.ReasonUnauthenticated, Challenge: challenge, Text: challenge + "!"}
}

func TestAny(t *testing.T) {
	forbidden := &protocols.Refusal{Reason: protocols.ReasonForbidden}
	expired := &protocols.Refusal{Reason: protocols.ReasonExpired, Text: "too old"}
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		errs      []error
		asked     int
		reason    protocols.Reason // if no guard lets in
		challenge string
		text      string
		admitted  bool
	}{
		"the first":            {errs: []error{nil, nil}, asked: 1, admitted: true},
		"the second":           {errs: []error{fakeRefusal("A"), nil}, asked: 2, admitted: true},
		"behind an expired":    {errs: []error{expired, nil}, asked: 2, admitted: true},
		"nobody":               {errs: []error{fakeRefusal(""), fakeRefusal("B"), fakeRefusal("C"), fakeRefusal("B")}, asked: 4, reason: protocols.ReasonUnauthenticated, challenge: "B, C", text: "B!"},
		"no challenges":        {errs: []error{fakeRefusal("")}, asked: 1, reason: protocols.ReasonUnauthenticated, text: "!"},
		"expired counts":       {errs: []error{fakeRefusal("A"), expired}, asked: 2, reason: protocols.ReasonExpired, challenge: "A", text: "too old"},
		"forbidden ends it":    {errs: []error{fakeRefusal("A"), forbidden, nil}, asked: 2, reason: protocols.ReasonForbidden},
		"an error ends it":     {errs: []error{broken, nil}, asked: 1, reason: protocols.ReasonInternal},
		"no guard lets nobody": {},
	} {
		t.Run(name, func(t *testing.T) {
			var guards []protocols.Guard
			var fakes []*fakeGuard
			for _, err := range tc.errs {
				f := &fakeGuard{err: err}
				fakes, guards = append(fakes, f), append(guards, f)
			}
			err := askGuard(t, auth.Any(guards...), newCall(t, protocols.HTTP, "/"))
			if (err == nil) != tc.admitted {
				t.Fatalf("err %v", err)
			}
			asked := 0
			for _, f := range fakes {
				asked += f.asked
			}
			if asked != tc.asked {
				t.Errorf("%d guards were asked, want %d", asked, tc.asked)
			}
			if err == nil {
				return
			}
			r := wantRefusal(t, err, tc.reason)
			if r.Challenge != tc.challenge || r.Text != tc.text {
				t.Errorf("challenge %q, text %q; want %q, %q", r.Challenge, r.Text, tc.challenge, tc.text)
			}
		})
	}
	if !errors.Is(askGuard(t, auth.Any(&fakeGuard{err: broken}), newCall(t, protocols.HTTP, "/")), broken) {
		t.Error("the error is lost")
	}
	if forbidden.Challenge != "" || expired.Challenge != "" {
		t.Error("a guard's refusal was changed")
	}
}

// What a guard that has refused did is undone, and what belongs to one that was not asked
// reaches nobody.
func TestAnyLeavesNothingBehind(t *testing.T) {
	first := &fakeGuard{err: fakeRefusal("A"), id: &protocols.Identity{Subject: "first"}, field: "X-First"}
	second := &fakeGuard{field: "X-Second", valueOf: "second"}
	third := &fakeGuard{field: "X-Third"}
	call := newCall(t, protocols.HTTP, "/", "X-First", "client", "X-Second", "client", "X-Third", "client", "X-Other", "client")
	ctx, err := auth.Any(first, second, third).AdmitNow(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	if call.Identity() != nil {
		t.Errorf("identity %v of a guard that has refused", call.Identity())
	}
	if ctx.Value(fakeGuardKey{}) != "second" {
		t.Error("what the guard has put into the context is lost")
	}
	for name, want := range map[string]string{"X-First": "", "X-Second": "by the guard", "X-Third": "", "X-Other": "client"} {
		if got := serverGets(call, name); got != want {
			t.Errorf("%s: a server gets %q, want %q", name, got, want)
		}
	}
}

func TestAnyWaits(t *testing.T) {
	slow := &fakeGuard{waits: true}
	for name, tc := range map[string]struct {
		first *fakeGuard
		waits bool
	}{
		"the first decides":     {&fakeGuard{}, false},
		"the slow one is asked": {&fakeGuard{err: fakeRefusal("")}, true},
	} {
		_, err := auth.Any(tc.first, slow).AdmitNow(t.Context(), newCall(t, protocols.HTTP, "/"))
		if errors.Is(err, protocols.ErrMustWait) != tc.waits {
			t.Errorf("%s: %v", name, err)
		}
		if slow.asked != 0 {
			t.Fatal("a guard that must wait was asked at once")
		}
	}
	notQuick := protocols.GuardFunc(func(ctx context.Context, _ *protocols.Call) (context.Context, error) { return nil, ctx.Err() })
	guard := auth.Any(notQuick)
	if _, err := guard.AdmitNow(t.Context(), newCall(t, protocols.HTTP, "/")); !errors.Is(err, protocols.ErrMustWait) {
		t.Errorf("a guard that may wait: %v", err)
	}
	if ctx, err := guard.Admit(t.Context(), newCall(t, protocols.HTTP, "/")); err != nil || ctx == nil {
		t.Errorf("Admit: %v, %v", ctx, err)
	}
}

func TestAll(t *testing.T) {
	soon, late := time.Now().Add(time.Minute), time.Now().Add(time.Hour)
	one := &fakeGuard{id: &protocols.Identity{Subject: "one", Expires: soon}, field: "X-One"}
	two := &fakeGuard{id: &protocols.Identity{Subject: "two", Expires: late}, field: "X-Two"}
	call := newCall(t, protocols.HTTP, "/")
	if err := askGuard(t, auth.All(one, two), call); err != nil {
		t.Fatal(err)
	}
	if id := call.Identity(); id.Subject != "two" || !id.Expires.Equal(soon) || !two.id.Expires.Equal(late) {
		t.Errorf("identity %v, want the last one, until the first ends", id)
	}
	if serverGets(call, "X-One") != "by the guard" || serverGets(call, "X-Two") != "by the guard" {
		t.Errorf("handed %v", call.Handed())
	}

	before := &protocols.Identity{Subject: "before"}
	call = newCall(t, protocols.HTTP, "/", "X-One", "client")
	call.Identify(before)
	last := &fakeGuard{}
	wantRefusal(t, askGuard(t, auth.All(one, &fakeGuard{err: fakeRefusal("B")}, last), call), protocols.ReasonUnauthenticated)
	if last.asked != 0 || call.Identity() != before || serverGets(call, "X-One") != "" {
		t.Errorf("asked %d, identity %v, handed %v", last.asked, call.Identity(), call.Handed())
	}
	if err := askGuard(t, auth.All(), newCall(t, protocols.HTTP, "/")); err == nil {
		t.Error("no guards let in")
	}
	if _, err := auth.All(&fakeGuard{}, &fakeGuard{waits: true}).AdmitNow(t.Context(), newCall(t, protocols.HTTP, "/")); !errors.Is(err, protocols.ErrMustWait) {
		t.Errorf("a guard that must wait: %v", err)
	}
}

// A guard list within another: what one alternative has done does not count for the next.
func TestAllWithinAny(t *testing.T) {
	first := auth.All(&fakeGuard{id: &protocols.Identity{Subject: "half"}, field: "X-User"}, &fakeGuard{err: fakeRefusal("A")})
	call := newCall(t, protocols.HTTP, "/", "X-User", "client")
	if err := askGuard(t, auth.Any(first, &fakeGuard{}), call); err != nil {
		t.Fatal(err)
	}
	if call.Identity() != nil || serverGets(call, "X-User") != "" {
		t.Errorf("identity %v, X-User %q", call.Identity(), serverGets(call, "X-User"))
	}
}

// A ticket beside a guard that must wait is taken once, not by AdmitNow and again by Admit.
func TestAllTakesATicketOnce(t *testing.T) {
	tickets := auth.NewTickets(auth.TicketsOptions{})
	ticket, err := tickets.Issue(t.Context(), &protocols.Identity{Subject: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	slow := protocols.GuardFunc(func(ctx context.Context, _ *protocols.Call) (context.Context, error) { return ctx, nil })
	call := newCall(t, protocols.WebSocket, "/ws?ticket="+ticket)
	if err := askGuard(t, auth.All(auth.Any(tickets), slow), call); err != nil || call.Identity().Subject != "alice" {
		t.Errorf("%v, %v", err, call.Identity())
	}
}
