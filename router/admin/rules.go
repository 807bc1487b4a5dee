package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/admin/page"
)

// RulesOptions configures Rules.
type RulesOptions struct {
	// Token is what changes need, of at least 16 characters. "" refuses all changes.
	Token string
	// Hosts are names that the API may be asked by, without ports, besides "localhost"
	// and addresses.
	Hosts []string
	// Open says that others than this machine reach it: all needs the token then,
	// and any address may stand in Host, not only a loopback one.
	Open bool
}

// leastToken is how short a token may be. What is made here has 26 characters: 130 bits.
const leastToken = 16

// Rules say who may ask for what. They are a guard for the port that serves the API, and
// hold for HTTP and gRPC alike.
type Rules struct {
	sum   [sha256.Size]byte
	token bool
	hosts []string
	open  bool
}

// NewRules makes rules.
func NewRules(opts RulesOptions) (*Rules, error) {
	if opts.Token != "" && len(opts.Token) < leastToken {
		return nil, fmt.Errorf("admin: the token has %d characters: want at least %d", len(opts.Token), leastToken)
	}
	r := &Rules{sum: sha256.Sum256([]byte(opts.Token)), token: opts.Token != "", open: opts.Open}
	for _, h := range opts.Hosts {
		r.hosts = append(r.hosts, strings.ToLower(h))
	}
	return r, nil
}

// Admit implements protocols.Guard.
func (r *Rules) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	return r.AdmitNow(ctx, call)
}

// AdmitNow implements protocols.Quick.
func (r *Rules) AdmitNow(ctx context.Context, call *protocols.Call) (context.Context, error) {
	switch {
	case call.Protocol == protocols.WebSocket:
		return ctx, forbidden("there are no WebSockets here")
	case !r.knows(call.Host):
		return ctx, forbidden("this host is not known here; admin.hosts lists further ones")
	case still(call):
		return ctx, nil // the same for everyone; a link may lead to it
	case foreign(call):
		return ctx, forbidden("a page of another origin asks")
	}
	switch given := call.Headers("Authorization"); {
	case len(given) > 0 && (len(given) > 1 || !r.is(given[0])):
		return ctx, unauthenticated("the token is not the one of admin.token_file")
	case len(given) == 0 && (r.open || !reads(call)):
		return ctx, unauthenticated("this needs the token: Authorization: Bearer ...")
	}
	return ctx, nil
}

func forbidden(text string) error {
	return &protocols.Refusal{Reason: protocols.ReasonForbidden, Text: text}
}

func unauthenticated(text string) error {
	return &protocols.Refusal{Reason: protocols.ReasonUnauthenticated, Text: text, Challenge: `Bearer realm="oneport admin"`}
}

// is compares a token, in a time that says nothing of it.
func (r *Rules) is(given string) bool {
	scheme, token, ok := strings.Cut(given, " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	same := subtle.ConstantTimeCompare(sum[:], r.sum[:]) == 1
	return ok && r.token && same && strings.EqualFold(scheme, "Bearer")
}

// knows reports whether the API may be asked by that host. A page that a browser shows may
// have a name of its own lead here (DNS rebinding), but cannot have another's address.
func (r *Rules) knows(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if a, err := netip.ParseAddr(host); err == nil {
		return r.open || a.Unmap().IsLoopback()
	}
	return host == "localhost" || slices.Contains(r.hosts, host)
}

// foreign reports whether a browser says that a page asks which did not come from here
// (RFC 6454; Fetch Metadata).
func foreign(call *protocols.Call) bool {
	if site := call.Header("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return true
	}
	for _, origin := range call.Headers("Origin") {
		if !strings.EqualFold(origin, "http://"+call.Host) && !strings.EqualFold(origin, "https://"+call.Host) {
			return true
		}
	}
	return false
}

// still reports whether a call is for the page or its files, which have no data: what it shows
// it asks for, with the token if that is needed.
func still(call *protocols.Call) bool {
	return call.Protocol == protocols.HTTP && (call.Method == http.MethodGet || call.Method == http.MethodHead) &&
		len(call.Headers("Authorization")) == 0 &&
		(call.Path == "/" || strings.HasPrefix(call.Path, page.Prefix) && !strings.Contains(call.Path, "..") && !strings.ContainsAny(call.Path, "%\\"))
}

// reads reports whether a call only looks. What it does not know does more.
func reads(call *protocols.Call) bool {
	if call.Protocol == protocols.GRPC {
		service, method, _ := strings.Cut(strings.TrimPrefix(call.Path, "/"), "/")
		switch service {
		case "oneport.admin.v1.Admin":
			return strings.HasPrefix(method, "List") || strings.HasPrefix(method, "Get") || strings.HasPrefix(method, "Watch")
		case "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection":
			return true
		}
		return false
	}
	if call.Method != http.MethodGet && call.Method != http.MethodHead {
		return false
	}
	switch call.Path {
	case "/", pathHealth, pathReady, pathMetrics:
		return true
	}
	return strings.HasPrefix(call.Path, apiPrefix)
}
