package auth

import (
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
	for _, one := range s.of(whoIs(id)) {
		was := one.call.Identity()
		switch {
		case request != "" && one.call.RequestID() != request:
		case was == nil || was.By != id.By || was.Issuer != id.Issuer || was.Expires.IsZero():
		case !id.Expires.After(was.Expires):
			done.Later++
		case one.rules != nil && !one.rules.holds(id):
			done.Forbidden++
		default:
			one.call.Identify(id)
			done.Moved++
		}
	}
	s.moved.Add(uint64(done.Moved))
	return done
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
