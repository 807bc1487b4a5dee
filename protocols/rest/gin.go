package rest

import (
	"log/slog"
	"net/http"
	"net/netip"

	"github.com/gin-gonic/gin"
)

// Engine is a Gin engine for the edge's own endpoints. It has no logger (the
// access line is written once, for all protocols) and no recovery (a panic
// ends at the entry, with its stack).
type Engine struct{ gin *gin.Engine }

// NewEngine returns an engine without routes: 404, and 405 for another method
// of a path that has one.
func NewEngine() *Engine {
	e := &Engine{gin.New()}
	e.gin.HandleMethodNotAllowed = true
	return e
}

// Get serves GET and HEAD requests of a Gin path.
func (e *Engine) Get(path string, h http.HandlerFunc) {
	e.gin.Match([]string{http.MethodGet, http.MethodHead}, path, gin.WrapF(h))
}

// Any serves requests of a Gin path with any common method.
func (e *Engine) Any(path string, h http.HandlerFunc) { e.gin.Any(path, gin.WrapF(h)) }

// ServeHTTP makes it a handler.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.gin.ServeHTTP(w, r) }

// Adopt prepares an embedder's handler. A Gin engine is told whom to trust
// (Gin trusts every proxy by default, and takes the client's word for its IP)
// and made to hand the request's context on, so that a *gin.Context finds the
// Call. Everything else is left alone.
func Adopt(h http.Handler, trusted []netip.Prefix, log *slog.Logger) {
	e, ok := h.(*gin.Engine)
	if !ok {
		return
	}
	e.ContextWithFallback = true
	list := make([]string, len(trusted))
	for i, p := range trusted {
		list[i] = p.String()
	}
	if err := e.SetTrustedProxies(list); err != nil {
		// Cannot happen with a valid prefix; without it Gin would trust everybody.
		log.Error("gin refuses the trusted proxies and now trusts nobody", "err", err)
		_ = e.SetTrustedProxies(nil)
	}
}

// Quiet switches Gin to release mode. Gin keeps the mode in a variable of the
// process, so this is for a main program to call.
func Quiet() { gin.SetMode(gin.ReleaseMode) }
