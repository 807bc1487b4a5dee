package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// Refreshed is what became of the sessions of an identity.
type Refreshed struct {
	// Moved end with the new credential.
	Moved int
	// Later ended with it already, or end later.
	Later int
	// Forbidden are on routes whose rules the new credential does not satisfy. They end with
	// the one they have.
	Forbidden int
}

// Refresh moves the end of open gRPC calls and WebSockets to that of a newer credential:
// of those that are for the same one, by the same guard and issuer, and expire. The end only
// moves away. request names one of them, by its [protocols.Call.RequestID]; "" means all.
// For who was revoked nothing moves. Handlers find id as the call's identity from then on.
func (s *Sessions) Refresh(id *protocols.Identity, request string) (done Refreshed) {
	if id.Expires.IsZero() || !time.Now().Before(id.Expires) || s.Revoked(id) {
		return done
	}
	w := whoIs(id)
	for _, call := range s.Calls(w.issuer, w.subject) {
		if request != "" && call.RequestID() != request {
			continue
		}
		switch s.move(call, id) {
		case "":
			done.Moved++
		case protocols.NotRenewedSooner:
			done.Later++
		case protocols.NotRenewedRules:
			done.Forbidden++
		default:
		}
	}
	s.moved.Add(uint64(done.Moved))
	return done
}

// move has a session end with a newer credential, or says why not.
func (s *Sessions) move(call *protocols.Call, id *protocols.Identity) protocols.NotRenewed {
	s.moving.Lock() // two newer ones may come at once: the one that ends later is to stay
	defer s.moving.Unlock()
	was := call.Identity()
	rules, held := s.rulesOf(call)
	switch {
	case !held || was == nil || was.Expires.IsZero():
		return protocols.NotRenewable
	case was.By != id.By || was.Issuer != id.Issuer || was.Subject != id.Subject:
		return protocols.NotRenewedOther
	case !id.Expires.After(was.Expires):
		return protocols.NotRenewedSooner
	case rules != nil && !rules.holds(id):
		return protocols.NotRenewedRules
	}
	call.Identify(id)
	return ""
}

// Checker is a guard that says of a token alone for whom it is, as [JWT] does.
type Checker interface {
	Check(ctx context.Context, token string) (*protocols.Identity, error)
}

// SetCheckers names the guards that check the tokens which WebSockets bring in band, see
// [protocols.InBand]: those that a route for [Sessions.ServeHTTP] would have. They are for all sessions,
// those that are open too. Without any, none can be renewed so.
func (s *Sessions) SetCheckers(c ...Checker) { s.checkers.Store(&c) }

// renew is what Refresh is for a token that comes in band: it moves the end of that session.
func (s *Sessions) renew(ctx context.Context, call *protocols.Call, token string) (expires time.Time, why protocols.NotRenewed) {
	why = protocols.NotRenewable
	for _, c := range *s.checkers.Load() {
		id, err := c.Check(ctx, token)
		switch {
		case err != nil:
			why = notRenewed(err)
			continue
		case id.Expires.IsZero() || !time.Now().Before(id.Expires): // by leeway; it opens calls, but moves none
			why = protocols.NotRenewedSooner
			continue
		case s.Revoked(id):
			why = protocols.NotRenewedRevoked
		default:
			why = s.move(call, id)
		}
		switch why {
		case "":
			s.moved.Add(1)
			return id.Expires, ""
		case protocols.NotRenewedOther: // another guard of the same kind may know it
		default:
			return time.Time{}, why
		}
	}
	return time.Time{}, why
}

// notRenewed is what the client is told of a token that is not good.
func notRenewed(err error) protocols.NotRenewed {
	why, ok := errors.AsType[*JWTError](err)
	switch {
	case !ok || why.Reason == JWTKeysUnavailable:
		return protocols.NotRenewedUnknown
	case why.Reason == JWTScope:
		return protocols.NotRenewedRules
	}
	return protocols.NotRenewedToken
}

// ServeHTTP answers a POST by moving the end of the caller's sessions to that of the
// credential which the POST has brought, see Refresh: {"sessions": 2, "expires_in": 3600}. The query may name
// one: "?session=" and its request id. Guards before it have to find out who asks. Where nothing moves it answers
// 404 for want of a session, 409 if none of them ends sooner, 403 if the rules of their routes forbid it.
func (s *Sessions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if r.Method != http.MethodPost {
		h.Set("Allow", http.MethodPost)
		http.Error(w, "want POST", http.StatusMethodNotAllowed)
		return
	}
	id := protocols.IdentityFrom(r.Context())
	switch {
	case id == nil:
		status, text := (&protocols.Refusal{Reason: protocols.ReasonUnauthenticated}).HTTP(h)
		http.Error(w, text, status)
		return
	case s.Revoked(id):
		status, text := errRevoked.HTTP(h)
		http.Error(w, text, status)
		return
	case id.Expires.IsZero():
		http.Error(w, "these credentials have no end: nothing of theirs needs a newer one", http.StatusConflict)
		return
	}
	done := s.Refresh(id, r.URL.Query().Get("session"))
	switch {
	case done.Moved > 0:
	case done.Forbidden > 0:
		http.Error(w, "the new credentials do not suffice for the open sessions", http.StatusForbidden)
		return
	case done.Later > 0:
		http.Error(w, "no session ends before these credentials do", http.StatusConflict)
		return
	default:
		http.Error(w, "no such session of this identity is open", http.StatusNotFound)
		return
	}
	h.Set("Content-Type", "application/json")
	// A client that has gone needs no answer.
	_, _ = fmt.Fprintf(w, "{\"sessions\":%d,\"expires_in\":%d}\n", done.Moved, int(time.Until(id.Expires)/time.Second))
}
