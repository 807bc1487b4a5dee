package admin

import (
	"fmt"
	"net/http"
	"strings"
)

const (
	pathHealth  = "/healthz"
	pathReady   = "/readyz"
	pathMetrics = "/metrics"
)

// Probes are the answers to a load balancer, a kubelet and Prometheus, and nothing else: /healthz
// while the process serves, /readyz while it should get calls; with ?verbose that says why
// not; and /metrics. They ask for no token.
func (s *Service) Probes() http.Handler {
	mux := http.NewServeMux()
	s.probes(mux)
	return mux
}

func (s *Service) probes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+pathHealth, func(w http.ResponseWriter, _ *http.Request) { probe(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET "+pathReady, s.ready)
	if s.opts.Metrics != nil {
		mux.Handle("GET "+pathMetrics, s.opts.Metrics)
	}
}

func probe(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text)) // the client has left: nothing to tell
}

// ready answers 200 or 503.
func (s *Service) ready(w http.ResponseWriter, r *http.Request) {
	h := s.health()
	code, text := http.StatusOK, "ready\n"
	if !h.GetReady() {
		code, text = http.StatusServiceUnavailable, "not ready\n"
	}
	if !r.URL.Query().Has("verbose") {
		probe(w, code, text)
		return
	}
	var b strings.Builder
	for _, c := range h.GetChecks() {
		mark := "[+]"
		switch {
		case c.GetRed():
			mark = "[-]"
		case !c.GetOk():
			mark = "[!]"
		}
		fmt.Fprintf(&b, "%s %s", mark, c.GetName())
		if c.GetText() != "" {
			fmt.Fprintf(&b, ": %s", c.GetText())
		}
		b.WriteByte('\n')
	}
	probe(w, code, b.String()+text)
}
