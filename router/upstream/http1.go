package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/proxy"
)

// Do has a request answered by one of the servers, which speak HTTP/1.1, or by
// another one where a call may be tried again. Nil means that the client has
// all of the answer; else the error says what it has, see [Refusal].
func (u *Upstream) Do(ctx context.Context, x proxy.Exchange) *proxy.Error {
	o := &observed{Exchange: x}
	call := protocols.CallFrom(ctx)
	a := asking{call, o.field, spanOf(ctx, call)}
	fail := &proxy.Error{Busy: true, Err: errNoServer}
	u.attempt(ctx, &a, func(s *server) (again bool) {
		fail = s.do(ctx, o)
		return fail != nil && o.again(fail)
	})
	return fail
}

// do has a request answered by one server, which has been chosen.
func (s *server) do(ctx context.Context, o *observed) *proxy.Error {
	v := unknown
	defer func() { s.ended(v) }()
	err := s.client.Do(ctx, o)
	if err == nil {
		if v = fine; isBad(o.status) {
			v = bad
		}
		return nil
	}
	fail, ok := errors.AsType[*proxy.Error](err)
	if !ok { // there are no others
		fail = &proxy.Error{Sent: true, Err: err}
	}
	if !fail.Client {
		if !fail.Busy {
			v = bad
		}
		s.up.opts.Log.WarnContext(ctx, "upstream failed", "upstream", s.up.name, "server", s.name, "err", fail.Err)
	}
	return fail
}

// pause waits before a retry. It reports false if the client has left meanwhile.
func (u *Upstream) pause(ctx context.Context, retry int) bool {
	if retry <= 1 {
		return true
	}
	timer := time.NewTimer(rand.N(u.opts.Retries.Backoff << min(retry-2, 4)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// observed is an exchange whose answer's status is noted.
type observed struct {
	proxy.Exchange
	status int
	method string
	length int64
}

func (o *observed) Head(h *protocols.Head) {
	o.Exchange.Head(h)
	o.method, o.length = h.Method, h.Length
}

func (o *observed) Respond(status int, fields []protocols.Field, length int64) error {
	o.status = status
	return o.Exchange.Respond(status, fields, length)
}

// Prepare and AnswerTimeout are those of the exchange, if it has them.
func (o *observed) Prepare(h *protocols.Head) {
	if r, ok := o.Exchange.(proxy.Ruled); ok {
		r.Prepare(h)
	}
}

func (o *observed) AnswerTimeout() time.Duration {
	if r, ok := o.Exchange.(proxy.Ruled); ok {
		return r.AnswerTimeout()
	}
	return 0
}

// OnLeave has f called when the client leaves, if the exchange can tell.
func (o *observed) OnLeave(f func()) {
	if l, ok := o.Exchange.(interface{ OnLeave(f func()) }); ok {
		l.OnLeave(f)
	}
}

// field gives a field of the request.
func (o *observed) field(name string) string {
	var h protocols.Head
	o.Exchange.Head(&h)
	return h.Get(name)
}

// again reports whether the request may be sent to another server.
func (o *observed) again(fail *proxy.Error) bool {
	switch {
	case fail.Answered || fail.Client:
		return false
	case !fail.Sent:
		return true
	}
	return !fail.Timeout && o.length == 0 && idempotent(o.method)
}

// idempotent reports whether a method may be tried twice (RFC 9110, 9.2.2).
func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// Refusal says how a request is answered that has no answer: the status, and a
// text. Zero means not at all, because its client has left or has a part of an answer.
func Refusal(ctx context.Context, x proxy.Exchange, fail *proxy.Error) (status int, text string) {
	switch {
	case fail == nil || fail.Answered:
		return 0, ""
	case fail.Client && errors.Is(fail.Err, ErrTooBig):
		return http.StatusRequestEntityTooLarge, textTooBig
	case fail.Client && fail.Timeout: // whose read was ended by that, which ends the context too
		return http.StatusRequestTimeout, "the request's body stands still"
	case fail.Client && ctx.Err() != nil:
		if why, ok := errors.AsType[*protocols.Refusal](context.Cause(ctx)); ok { // the port does not wait for it
			x.StopReading()
			return http.StatusServiceUnavailable, why.Text
		}
		x.Abort() // it has left
		return 0, ""
	case fail.Client:
		return http.StatusBadRequest, "the request cannot be sent on"
	case errors.Is(fail.Err, errNoServer):
		return http.StatusServiceUnavailable, textNoServer
	case fail.Busy:
		return http.StatusServiceUnavailable, "too many requests wait for the server"
	case fail.Timeout:
		return http.StatusGatewayTimeout, textTimeout
	}
	return http.StatusBadGateway, textUnreachable
}

// What is said in a server's place.
const (
	textUnreachable = "the server cannot be reached"
	textTimeout     = "the server takes too long"
	textNoServer    = "the server is not available"
	textTooBig      = "the request's body is too large"
)

// ErrTooBig is how the Read of a body ends that is longer than its route takes.
var ErrTooBig = errors.New("upstream: the request's body is too large")

// RefuseBody refuses a request for the length that it says its body has.
func RefuseBody(x proxy.Exchange) (status int, text string) {
	x.StopReading()
	return http.StatusRequestEntityTooLarge, textTooBig
}

// Handler is where the switch sends streams for servers that speak HTTP/1.1: to serve,
// on a goroutine that belongs to the Upstream.
func (u *Upstream) Handler(serve func(*h2.Exchange)) h2.Backend { return u.handler.With(serve) }

// passTrailer reports whether a server gets a trailer of a request.
func passTrailer(ctx context.Context, name string) bool {
	var handed []protocols.Field
	if call := protocols.CallFrom(ctx); call != nil {
		handed = call.Handed()
	}
	return !claims(name, handed)
}

// prepareHead tells the server who asks.
func prepareHead(ctx context.Context, h *protocols.Head) {
	if call := protocols.CallFrom(ctx); call != nil {
		forward(headFields{h}, h.Values(forwardedFor), call, spanOf(ctx, call))
		h.Path = call.Shown(h.Path)
		return
	}
	// Nobody knows whose word this is.
	for _, name := range []string{forwardedFor, forwardedProto, forwardedHost, userID} {
		h.Remove(name)
	}
}
