package rest

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// asked is a request as guards look at it.
type asked http.Request

func (a *asked) Get(name string) string {
	v, _ := a.Sole(name)
	return v
}
func (a *asked) Values(name string) []string { return a.Header[canonical(name)] }
func (a *asked) Query() string               { return a.URL.RawQuery }

func (a *asked) Sole(name string) (value string, count int) {
	values := a.Header[canonical(name)]
	if len(values) == 0 {
		return "", 0
	}
	return values[0], len(values)
}

// canonical is a name as net/http has it. Those that guards ask for most need not be looked
// at byte by byte, which cost as much as the rest of a guard.
func canonical(name string) string {
	switch name {
	case "authorization":
		return "Authorization"
	case "cookie":
		return "Cookie"
	case "origin":
		return "Origin"
	case "user-agent":
		return "User-Agent"
	}
	return http.CanonicalHeaderKey(name)
}

func (a *asked) Target() string {
	if strings.HasPrefix(a.RequestURI, "/") {
		return a.RequestURI
	}
	return a.URL.RequestURI() // of what a proxy is sent, which names the host as well
}

// admit asks guards about a request.
func admit(ctx context.Context, guards []protocols.Guard, call *protocols.Call, r *http.Request) (context.Context, error) {
	call.Ask((*asked)(r))
	defer call.Ask(nil)
	ctx, rest, err := protocols.AdmitNow(ctx, guards, call)
	if err != nil || len(rest) == 0 {
		return ctx, err
	}
	return protocols.Admit(ctx, rest, call)
}

// Guarded is a handler of what a Server has let in, with guards of its own, which are
// asked behind the Server's. Log gets their failures at Error.
func Guarded(next http.Handler, guards []protocols.Guard, log *slog.Logger) http.Handler {
	if len(guards) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := protocols.CallFrom(r.Context())
		if call == nil { // not reached: all requests come through a Server
			http.Error(w, "no call", http.StatusInternalServerError)
			return
		}
		in, err := admit(r.Context(), guards, call, r)
		if err == nil {
			why := call.OnEnd(func(*protocols.Refusal) { cutOff(w) })
			if why == nil {
				next.ServeHTTP(w, with(r, in, call))
				return
			}
			err = why
		}
		refuse(w, call, err, log)
	})
}

// with is r with a context. Most guards add nothing to the call's own, and then r is not copied. Others'
// contexts are not compared: they need not be of a type that can be.
func with(r *http.Request, ctx context.Context, call *protocols.Call) *http.Request {
	if own := call.Context(); r.Context() == own && ctx == own {
		return r
	}
	return r.WithContext(ctx)
}

// cutOff ends a request from outside: whoever serves it can neither write nor read any more. A
// handler learns of it by its context, which ends with the reads.
func cutOff(w http.ResponseWriter) {
	rc, past := http.NewResponseController(w), time.Unix(1, 0)
	_ = rc.SetWriteDeadline(past) // a dead connection needs none
	_ = rc.SetReadDeadline(past)
}

// refuse says in the call's own protocol that a guard has not let it in.
func refuse(w http.ResponseWriter, call *protocols.Call, err error, log *slog.Logger) {
	refusal := protocols.RefusalOf(err)
	if refusal.Reason == protocols.ReasonInternal {
		log.ErrorContext(call.Context(), "guard failed", "request", call.RequestID(), "path", call.Path, "err", err)
	}
	if call.Protocol == protocols.GRPC {
		code, message := refusal.GRPC()
		h := w.Header()
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", strconv.Itoa(code))
		h.Set("Grpc-Message", strings.ReplaceAll(url.PathEscape(message), "%20", " "))
		if details := refusal.GRPCDetails(); details != "" {
			h.Set("Grpc-Status-Details-Bin", details)
		}
		w.WriteHeader(http.StatusOK)
		return
	}
	status, text := refusal.HTTP(w.Header())
	http.Error(w, text, status)
}
