package auth

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
)

// Cleaner is a guard whose credentials go no further than this port, or that sets fields
// of the request that a server elsewhere gets. Clean takes these out of the request: what
// clients send under such a name must not reach a server, whichever guard lets the
// call in. [Any] and [All] call it for each of their guards before they ask the first,
// and again for one that has refused. It may be called more than once for a call.
type Cleaner interface {
	Clean(call *protocols.Call)
}

func cleanFor(g protocols.Guard, call *protocols.Call) {
	if c, ok := g.(Cleaner); ok {
		c.Clean(call)
	}
}

// onceAsker is a guard that is not to be asked a second time for the same call after it
// has let it in, as one that takes a ticket.
type onceAsker interface{ onceAsked() bool }

func anyOnceAsked(guards []protocols.Guard) bool {
	return slices.ContainsFunc(guards, func(g protocols.Guard) bool {
		o, ok := g.(onceAsker)
		return ok && o.onceAsked()
	})
}

// errNoGuards refuses every call: a list that has become empty by mistake must not open a
// route.
var errNoGuards = errors.New("auth: no guard to ask")

// Any gives a guard that lets a call in if one of guards does. They are asked in order. One
// that refuses for want of good credentials (ReasonUnauthenticated, ReasonExpired)
// lets the next try; any other refusal and any error ends it, since it says that
// somebody is known and not allowed, or that nobody can tell.
//
// If none lets the call in, the refusal has the challenges of all, and is otherwise that of the first
// whose credentials have expired, or else of the first with a challenge. What a guard that
// has refused has said of the call's identity does not hold; its credentials, and the
// fields it would have set, reach no server, and neither do those of guards that were not
// asked (see [Cleaner]).
//
// AdmitNow gives ErrMustWait if a guard that is to be asked must wait. Those before
// it have refused by then, and are asked again by Admit.
func Any(guards ...protocols.Guard) protocols.Quick {
	if len(guards) == 1 {
		if g, ok := guards[0].(protocols.Quick); ok {
			return g // what is more to it is for when others may let the call in
		}
	}
	return anyOf(slices.Clone(guards))
}

type anyOf []protocols.Guard

func (a anyOf) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	return a.admit(ctx, call, askWaiting)
}

func (a anyOf) AdmitNow(ctx context.Context, call *protocols.Call) (context.Context, error) {
	return a.admit(ctx, call, askNow)
}

// Clean implements [Cleaner].
func (a anyOf) Clean(call *protocols.Call) {
	for _, g := range a {
		cleanFor(g, call)
	}
}

func (a anyOf) onceAsked() bool { return anyOnceAsked(a) }

type askGuard func(ctx context.Context, g protocols.Guard, call *protocols.Call) (context.Context, error)

func askWaiting(ctx context.Context, g protocols.Guard, call *protocols.Call) (context.Context, error) {
	return g.Admit(ctx, call)
}

func askNow(ctx context.Context, g protocols.Guard, call *protocols.Call) (context.Context, error) {
	q, ok := g.(protocols.Quick)
	if !ok {
		return ctx, protocols.ErrMustWait
	}
	return q.AdmitNow(ctx, call)
}

func (a anyOf) admit(ctx context.Context, call *protocols.Call, ask askGuard) (context.Context, error) {
	if len(a) == 0 {
		return ctx, errNoGuards
	}
	a.Clean(call)
	before := call.Identity()
	var refused []*protocols.Refusal
	for _, g := range a {
		in, err := ask(ctx, g, call)
		if err == nil {
			if in == nil {
				in = ctx
			}
			return in, nil
		}
		call.Identify(before)
		cleanFor(g, call)
		if err == protocols.ErrMustWait { //nolint:errorlint // on the way of each call, and never wrapped
			return ctx, err
		}
		r := protocols.RefusalOf(err)
		if r.Reason != protocols.ReasonUnauthenticated && r.Reason != protocols.ReasonExpired {
			return ctx, err
		}
		refused = append(refused, r)
	}
	return ctx, anyRefusal(refused)
}

// anyRefusal makes one refusal of several, of which there is at least one.
func anyRefusal(refused []*protocols.Refusal) *protocols.Refusal {
	var challenges []string
	for _, r := range refused {
		if r.Challenge != "" && !slices.Contains(challenges, r.Challenge) {
			challenges = append(challenges, r.Challenge)
		}
	}
	i := slices.IndexFunc(refused, func(r *protocols.Refusal) bool { return r.Reason == protocols.ReasonExpired })
	if i < 0 {
		i = slices.IndexFunc(refused, func(r *protocols.Refusal) bool { return r.Challenge != "" })
	}
	one := *refused[max(i, 0)]
	one.Challenge = strings.Join(challenges, ", ") // RFC 9110, 11.6.1
	return &one
}

// All gives a guard that lets a call in if all of guards do. They are asked in order, and
// the first refusal counts. The identity is the one that the last guard with one has found
// out, and it expires when the first of all that were found out does. If one refuses, no
// identity remains of those before it, nor any field they have set.
//
// What a guard has arranged for later is not undone: within Any, a credential that was good
// beside another that was not ends the call when it expires, even if another guard has
// let it in.
//
// AdmitNow gives ErrMustWait if one of them must wait; those before it are asked again by
// Admit. A guard that takes what can be taken once ([Tickets]) is therefore asked by Admit
// alone.
func All(guards ...protocols.Guard) protocols.Quick { return allOf(slices.Clone(guards)) }

type allOf []protocols.Guard

func (a allOf) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	return a.admit(ctx, call, askWaiting)
}

func (a allOf) AdmitNow(ctx context.Context, call *protocols.Call) (context.Context, error) {
	if len(a) > 1 && a.onceAsked() {
		return ctx, protocols.ErrMustWait
	}
	return a.admit(ctx, call, askNow)
}

// Clean implements [Cleaner].
func (a allOf) Clean(call *protocols.Call) { anyOf(a).Clean(call) }

func (a allOf) onceAsked() bool { return anyOnceAsked(a) }

func (a allOf) admit(ctx context.Context, call *protocols.Call, ask askGuard) (context.Context, error) {
	if len(a) == 0 {
		return ctx, errNoGuards
	}
	a.Clean(call)
	before := call.Identity()
	in := ctx
	first := before // the identity that expires first
	for _, g := range a {
		next, err := ask(in, g, call)
		if err != nil {
			call.Identify(before)
			a.Clean(call)
			return ctx, err
		}
		if next != nil {
			in = next
		}
		if id := call.Identity(); id != nil && !id.Expires.IsZero() &&
			(first == nil || first.Expires.IsZero() || id.Expires.Before(first.Expires)) {
			first = id
		}
	}
	if id := call.Identity(); id != nil && first != nil && !first.Expires.IsZero() && first != id && first.Expires != id.Expires {
		sooner := *id
		sooner.Expires = first.Expires
		call.Identify(&sooner)
	}
	return in, nil
}
