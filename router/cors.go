package router

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols/h2"
)

// CORS says which pages of other origins may read the answers of a route (Fetch
// Standard, 3.2). Preflights are answered here, and do not reach the server; what a
// server says of CORS itself is replaced. A route's guards are not asked of a preflight, which
// brings no credentials; those of the Server are, and one that wants some has to let OPTIONS in.
type CORS struct {
	// Origins lists them: "https://app.example.com", or "*" for all. Required.
	Origins []string
	// Methods lists those beside GET, HEAD and POST. Empty means all that are asked for.
	Methods []string
	// Headers lists fields that requests may have. Empty means all that are asked for.
	Headers []string
	// Expose lists fields that pages may read.
	Expose []string
	// Credentials lets pages send cookies. Not with "*" among Origins.
	Credentials bool
	// MaxAge is how long a browser may remember a preflight. Zero means 2 h, which is
	// as long as Chromium does.
	MaxAge time.Duration
}

func (c *CORS) validate() error {
	if len(c.Origins) == 0 {
		return errors.New("CORS without origins")
	}
	for _, o := range c.Origins {
		scheme, host, ok := strings.Cut(o, "://")
		switch {
		case o == "*" && c.Credentials:
			return errors.New(`CORS with credentials for the origin "*": any page could act for the user`)
		case o == "*":
		case !ok || scheme == "" || host == "" || strings.ContainsAny(host, "/ *"):
			return fmt.Errorf("CORS: %q is no origin: want scheme and host, as https://app.example.com", o)
		}
	}
	return nil
}

// allows gives the value of Access-Control-Allow-Origin; "" if there is none.
func (c *CORS) allows(origin string) string {
	switch {
	case origin == "":
		return ""
	case slices.Contains(c.Origins, "*"):
		return "*"
	case slices.ContainsFunc(c.Origins, func(o string) bool { return strings.EqualFold(o, origin) }):
		return origin
	}
	return ""
}

// The fields of CORS, but for the origin's.
const (
	corsPrefix  = "access-control-"
	corsOrigin  = corsPrefix + "allow-origin"
	fieldVary   = "vary"
	fieldOrigin = "origin"
	fieldWants  = "access-control-request-method"
	fieldFields = "access-control-request-headers"
)

// isPreflight reports whether a request asks what another one might.
func isPreflight(method string, h interface{ Get(name string) string }) bool {
	return method == http.MethodOptions && h.Get(fieldOrigin) != "" && h.Get(fieldWants) != ""
}

// answer puts into an answer what a page of that origin may do with it.
func (c *CORS) answer(h head, origin string) {
	h.Drop(func(name string) bool {
		return len(name) > len(corsPrefix) && strings.EqualFold(name[:len(corsPrefix)], corsPrefix)
	})
	if !slices.Contains(c.Origins, "*") {
		h.Add(fieldVary, "Origin")
	}
	allowed := c.allows(origin)
	if allowed == "" {
		return
	}
	h.Add(corsOrigin, allowed)
	if c.Credentials {
		h.Add(corsPrefix+"allow-credentials", "true")
	}
	if len(c.Expose) > 0 {
		h.Add(corsPrefix+"expose-headers", strings.Join(c.Expose, ", "))
	}
}

// preflight is the answer to what a browser asks before: method and fields are those it
// asks for.
func (c *CORS) preflight(origin, method, fields string) (answer []pair) {
	answer = []pair{{fieldVary, "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}}
	allowed := c.allows(origin)
	if allowed == "" {
		return answer
	}
	answer = append(answer, pair{corsOrigin, allowed})
	methods := strings.Join(c.Methods, ", ")
	if methods == "" {
		methods = method
	}
	answer = append(answer, pair{corsPrefix + "allow-methods", methods})
	names := strings.Join(c.Headers, ", ")
	if names == "" {
		names = fields
	}
	if names != "" {
		answer = append(answer, pair{corsPrefix + "allow-headers", names})
	}
	if c.Credentials {
		answer = append(answer, pair{corsPrefix + "allow-credentials", "true"})
	}
	age := c.MaxAge
	if age == 0 {
		age = 2 * time.Hour
	}
	return append(answer, pair{corsPrefix + "max-age", strconv.Itoa(int(age / time.Second))})
}

// handler answers a preflight that net/http has taken.
func (c *CORS) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, p := range c.preflight(r.Header.Get("Origin"), r.Header.Get("Access-Control-Request-Method"), r.Header.Get("Access-Control-Request-Headers")) {
			w.Header().Set(p.name, p.value)
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// stream answers a preflight that came as a stream.
func (c *CORS) stream(r *h2.Request) h2.Backend {
	a := &h2.Static{Status: http.StatusNoContent}
	for _, p := range c.preflight(r.Get(fieldOrigin), r.Get(fieldWants), r.Get(fieldFields)) {
		a.Fields = append(a.Fields, hpack.HeaderField{Name: p.name, Value: p.value})
	}
	return a
}
