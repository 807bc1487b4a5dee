package protocols

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// Guard admits calls, or refuses them: HTTP requests, gRPC calls and WebSocket
// handshakes alike. It must be safe for concurrent use.
type Guard interface {
	// Admit returns a context for the call, ctx itself or one on top of it,
	// whose values its handlers find in theirs. An error refuses the call: a
	// *Refusal says how, any other is an internal error whose text stays here. It
	// may wait, which holds up nobody but this call; ctx ends with the call,
	// and Admit must return then. What is to happen when the call has ended it
	// registers with Call.OnDone.
	Admit(ctx context.Context, call *Call) (context.Context, error)
}

// GuardFunc is a function as a Guard.
type GuardFunc func(ctx context.Context, call *Call) (context.Context, error)

// Admit calls f.
func (f GuardFunc) Admit(ctx context.Context, call *Call) (context.Context, error) {
	return f(ctx, call)
}

// Reason is why a call is refused.
type Reason uint8

// The reasons. The zero value is an internal error.
const (
	ReasonInternal        Reason = iota
	ReasonUnauthenticated        // no credentials, or bad ones
	ReasonForbidden              // good ones that do not suffice
	ReasonTooMany                // more calls than allowed
	ReasonOverloaded             // the server is busy
	ReasonTooBig                 // of a message or a body
	ReasonMisdirected            // its host is not its connection's
)

// reasons says what each reason is in HTTP, in gRPC, and for want of a text.
var reasons = [...]struct {
	http int
	grpc int
	text string
}{
	ReasonInternal:        {http.StatusInternalServerError, 13, "internal error"},
	ReasonUnauthenticated: {http.StatusUnauthorized, 16, "credentials are missing or bad"},
	ReasonForbidden:       {http.StatusForbidden, 7, "not allowed"},
	ReasonTooMany:         {http.StatusTooManyRequests, 8, "too many calls"},
	ReasonOverloaded:      {http.StatusServiceUnavailable, 14, "overloaded"},
	ReasonTooBig:          {http.StatusRequestEntityTooLarge, 8, "too big"},
	// UNKNOWN is what gRPC's clients make of a bare 421 (its http-grpc-status-mapping.md);
	// UNAVAILABLE would have them try again, on the same connection.
	ReasonMisdirected: {http.StatusMisdirectedRequest, 2, "this connection is for another host"},
}

// Refusal is why a call is not let in, for each protocol to say in its words.
type Refusal struct { //nolint:errname // what it is to those who write guards
	Reason Reason
	// Text is for the client; "" for what the reason says.
	Text string
	// Challenge is the WWW-Authenticate field of a ReasonUnauthenticated in HTTP.
	Challenge string
	// RetryAfter is when to try again; zero says nothing of it.
	RetryAfter time.Duration
}

func (r *Refusal) Error() string { return "refused: " + r.text() }

func (r *Refusal) text() string {
	if r.Text != "" {
		return r.Text
	}
	return reasons[r.Reason].text
}

// RefusalOf gives the refusal in err, or an internal one.
func RefusalOf(err error) *Refusal {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	return &Refusal{}
}

// HTTP gives the refusal's status and text (RFC 9110, 15), and adds its fields to h.
func (r *Refusal) HTTP(h http.Header) (status int, text string) {
	if r.Reason == ReasonUnauthenticated {
		challenge := r.Challenge
		if challenge == "" {
			challenge = "Bearer"
		}
		h.Set("WWW-Authenticate", challenge)
	}
	if r.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((r.RetryAfter+time.Second-1)/time.Second), 10))
	}
	return reasons[r.Reason].http, r.text()
}

// GRPC gives the refusal's status code and message.
func (r *Refusal) GRPC() (code int, message string) { return reasons[r.Reason].grpc, r.text() }

// Admit asks guards one after the other. ctx is what the last of them has
// returned; err is the first refusal.
func Admit(ctx context.Context, guards []Guard, call *Call) (context.Context, error) {
	for _, g := range guards {
		in, err := g.Admit(ctx, call)
		if err != nil {
			return ctx, err
		}
		if in != nil {
			ctx = in
		}
	}
	return ctx, nil
}
