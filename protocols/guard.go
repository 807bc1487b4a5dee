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
	ReasonExpired                // the credentials were good, and have ended
)

// reasons says what each reason is in HTTP (RFC 9110, 15), in gRPC, on an open WebSocket
// (RFC 6455, 7.4), and for want of a text.
var reasons = [...]struct {
	http  int
	grpc  int
	close int // of an open WebSocket
	text  string
}{
	ReasonInternal:        {http.StatusInternalServerError, 13, 1011, "internal error"},
	ReasonUnauthenticated: {http.StatusUnauthorized, 16, 1008, "credentials are missing or bad"},
	ReasonForbidden:       {http.StatusForbidden, 7, 1008, "not allowed"},
	ReasonTooMany:         {http.StatusTooManyRequests, 8, 1013, "too many calls"},
	ReasonOverloaded:      {http.StatusServiceUnavailable, 14, 1013, "overloaded"},
	ReasonTooBig:          {http.StatusRequestEntityTooLarge, 8, 1009, "too big"},
	// UNKNOWN is what gRPC's clients make of a bare 421 (its http-grpc-status-mapping.md);
	// UNAVAILABLE would have them try again, on the same connection.
	ReasonMisdirected: {http.StatusMisdirectedRequest, 2, 1008, "this connection is for another host"},
	ReasonExpired:     {http.StatusUnauthorized, 16, 1008, "token-expired"},
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

// RetryLater is when clients may try again what the port itself is too busy for, or a
// server elsewhere: nobody knows when that will have passed.
const RetryLater = time.Second

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
	if r.Reason == ReasonUnauthenticated || r.Reason == ReasonExpired {
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

// Close gives the close code and the reason with which the refusal ends an open
// WebSocket.
func (r *Refusal) Close() (code int, reason string) { return reasons[r.Reason].close, r.text() }

// Quick is a Guard that decides most calls from memory: those need no goroutine of
// their own.
type Quick interface {
	Guard
	// AdmitNow is Admit if that need not wait. It gives ErrMustWait, and has done
	// nothing, if it must.
	AdmitNow(ctx context.Context, call *Call) (context.Context, error)
}

// ErrMustWait says that a guard cannot decide from memory. See [Quick].
var ErrMustWait = errors.New("protocols: the guard must wait")

// AdmitNow asks guards one after the other for as long as none must wait. ctx is what the
// last of them has returned, and rest are those that are still to be asked, by [Admit] in
// a goroutine; err is the first refusal.
func AdmitNow(ctx context.Context, guards []Guard, call *Call) (_ context.Context, rest []Guard, err error) {
	for i, g := range guards {
		q, ok := g.(Quick)
		if !ok {
			return ctx, guards[i:], nil
		}
		in, err := q.AdmitNow(ctx, call)
		switch {
		case err == ErrMustWait: //nolint:errorlint // on the way of each call, and never wrapped
			return ctx, guards[i:], nil
		case err != nil:
			call.refuse(ctx, err)
			return ctx, nil, err
		case in != nil:
			ctx = in
		}
	}
	return ctx, nil, nil
}

// Admit asks guards one after the other. ctx is what the last of them has
// returned; err is the first refusal.
func Admit(ctx context.Context, guards []Guard, call *Call) (context.Context, error) {
	for _, g := range guards {
		in, err := g.Admit(ctx, call)
		if err != nil {
			call.refuse(ctx, err)
			return ctx, err
		}
		if in != nil {
			ctx = in
		}
	}
	return ctx, nil
}

// refuse takes note of why a guard has refused the call, for those who count. The first
// counts; that its client has left is no refusal.
func (c *Call) refuse(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusal == nil {
		c.refusal = RefusalOf(err)
	}
}
