package rest

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"
)

// plainTimeout bounds everything a plaintext client may do on a TLS port.
const plainTimeout = 10 * time.Second

// NewPlainServer returns a server for plaintext HTTP/1 requests that arrived
// on a TLS port. It answers 400 and says so, or with redirect 308 to the same
// place over https; 308 keeps method and body (RFC 9110, 15.4.9). What challenge
// answers comes first; it may be nil.
func NewPlainServer(redirect bool, challenge Challenge, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{log: log}
	s.base, s.cut = context.WithCancelCause(context.Background())
	s.http = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			if challenge.answer(w, r) {
				return
			}
			if !redirect || r.Host == "" {
				http.Error(w, "This port speaks TLS, and a plaintext HTTP request arrived. Use https://, not http://.", http.StatusBadRequest)
				return
			}
			to := url.URL{Scheme: "https", Host: r.Host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
			w.Header().Set("Location", to.String())
			w.WriteHeader(http.StatusPermanentRedirect)
		}),
		ReadTimeout:    plainTimeout,
		WriteTimeout:   plainTimeout,
		MaxHeaderBytes: defaultHeaderBytes,
		ErrorLog:       debugLog(log),
		BaseContext:    func(net.Listener) context.Context { return s.base },
		ConnState:      connState,
	}
	return s
}
