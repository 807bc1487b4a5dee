package auth

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/oneport-edge/oneport/protocols"
)

// Require is a guard that lets in whom it is told to, of those whom guards before it have
// found out. What is not said does not count: the zero value lets in everybody with an
// identity. Its fields are not changed once it has been asked.
type Require struct {
	// Subjects are those of whom the identity must have one.
	Subjects []string
	// Issuers are those of whom the identity must have one. "" is this port itself.
	Issuers []string
	// Claims are what the identity must say, all of it. The key is a claim's name, with
	// dots for those within others: "realm_access.roles"; a name that has dots itself
	// is found as well. The values are those of which one must be there, in an array one of its
	// elements: strings as they are, numbers in digits, "true" or "false". "scope" and
	// "scp" are split at spaces (RFC 8693, 4.2). Without values nobody is let in.
	Claims map[string][]string

	admitted, unknown, subject, issuer, claim atomic.Uint64
}

// RequireCounts says how often a [Require] has decided what.
type RequireCounts struct {
	Admitted uint64
	Unknown  uint64 // without an identity
	Subject  uint64 // refused for its subject
	Issuer   uint64 // refused for its issuer
	Claim    uint64 // refused for a claim
}

// Counts says how often the guard has decided what, until now.
func (r *Require) Counts() RequireCounts {
	return RequireCounts{r.admitted.Load(), r.unknown.Load(), r.subject.Load(), r.issuer.Load(), r.claim.Load()}
}

// Admit implements [protocols.Guard].
func (r *Require) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	return r.AdmitNow(ctx, call)
}

// AdmitNow implements [protocols.Quick].
func (r *Require) AdmitNow(ctx context.Context, call *protocols.Call) (context.Context, error) {
	id := call.Identity()
	switch {
	case id == nil:
		r.unknown.Add(1)
		return ctx, &protocols.Refusal{Reason: protocols.ReasonUnauthenticated}
	case len(r.Issuers) > 0 && !slices.Contains(r.Issuers, id.Issuer):
		r.issuer.Add(1)
	case len(r.Subjects) > 0 && !slices.Contains(r.Subjects, id.Subject):
		r.subject.Add(1)
	case !r.claimed(id):
		r.claim.Add(1)
	default:
		r.admitted.Add(1)
		return ctx, nil
	}
	return ctx, &protocols.Refusal{Reason: protocols.ReasonForbidden}
}

// holds says whether an identity satisfies the rules, and counts nothing.
func (r *Require) holds(id *protocols.Identity) bool {
	return (len(r.Issuers) == 0 || slices.Contains(r.Issuers, id.Issuer)) &&
		(len(r.Subjects) == 0 || slices.Contains(r.Subjects, id.Subject)) && r.claimed(id)
}

func (r *Require) claimed(id *protocols.Identity) bool {
	for path, wanted := range r.Claims {
		if !ruleClaimHas(id.Claims, path, wanted) {
			return false
		}
	}
	return true
}

// ruleClaimHas looks a claim up, and whether it has one of the wanted values. A name with
// dots may be split at any of them.
func ruleClaimHas(claims map[string]any, path string, wanted []string) bool {
	if v, ok := claims[path]; ok {
		return ruleValueHas(v, path == "scope" || path == "scp", wanted)
	}
	for i := range len(path) {
		if path[i] != '.' {
			continue
		}
		if within, ok := claims[path[:i]].(map[string]any); ok && ruleClaimHas(within, path[i+1:], wanted) {
			return true
		}
	}
	return false
}

func ruleValueHas(v any, split bool, wanted []string) bool {
	switch v := v.(type) {
	case string:
		if split {
			for word := range strings.SplitSeq(v, " ") {
				if word != "" && slices.Contains(wanted, word) {
					return true
				}
			}
			return false
		}
		return slices.Contains(wanted, v)
	case bool:
		return slices.Contains(wanted, strconv.FormatBool(v))
	case float64: // as encoding/json reads numbers
		return slices.Contains(wanted, strconv.FormatFloat(v, 'f', -1, 64))
	case json.Number:
		return slices.Contains(wanted, v.String())
	case []any:
		return slices.ContainsFunc(v, func(e any) bool {
			_, nested := e.([]any)
			return !nested && ruleValueHas(e, false, wanted)
		})
	case []string:
		return slices.ContainsFunc(v, func(e string) bool { return slices.Contains(wanted, e) })
	}
	return false
}
