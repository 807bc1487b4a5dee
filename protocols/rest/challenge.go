package rest

import (
	"context"
	"io"
	"net/http"
	"strings"
)

// challengePath is where a CA asks whether a host is ours (RFC 8555, 8.3).
const challengePath = "/.well-known/acme-challenge/"

// Challenge gives the answer to a CA's request; false if it has none.
type Challenge func(ctx context.Context, host, path string) (string, bool)

// answer answers a CA's request, or reports false and has done nothing.
func (c Challenge) answer(w http.ResponseWriter, r *http.Request) bool {
	if c == nil || r.Method != http.MethodGet || !strings.HasPrefix(r.URL.Path, challengePath) {
		return false
	}
	text, ok := c(r.Context(), r.Host, r.URL.Path)
	if !ok {
		return false
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = io.WriteString(w, text) // the CA has left: it will say so itself
	return true
}
