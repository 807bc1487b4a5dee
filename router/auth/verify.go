package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/oneport-edge/oneport/protocols"
)

const (
	kidLimit     = 256  // bytes of a key's name
	subjectLimit = 1024 // bytes of a sub, which becomes a header field
	jwtDepth     = 32   // of nested JSON
	latestDate   = 1e11 // the year 5138: beyond, seconds would not fit a time.Duration's arithmetic
)

// claimScope is the claim with a token's scopes, and the reason if one is not among them.
const claimScope = "scope"

// jwtHead is what counts of a token's header (RFC 7515, 4.1).
type jwtHead struct{ alg, kid string }

// verify checks a token, and remembers it if it is good.
func (j *JWT) verify(ctx context.Context, token string) (*jwtEntry, JWTReason) {
	head, body, why := jwtSplit(token)
	if why != 0 {
		return nil, why
	}
	h, why := jwtReadHead(head)
	switch {
	case why != 0:
		return nil, why
	case !slices.Contains(j.opts.Algorithms, h.alg):
		return nil, JWTAlgorithm
	case !jwtUnambiguous(body):
		return nil, JWTMalformed
	}

	generation := j.opts.Keys.Generation() // before the keys: if they change meanwhile, it is an old one
	keys, err := j.opts.Keys.Find(ctx, h.kid)
	switch {
	case errors.Is(err, ErrUnknownKey) || err == nil && len(keys) == 0:
		return nil, JWTUnknownKey
	case err != nil:
		return nil, JWTKeysUnavailable
	}
	var fit jwt.VerificationKeySet
	for i := range keys {
		if keys[i].fits(h.alg) {
			fit.Keys = append(fit.Keys, keys[i].verifier())
		}
	}
	switch {
	case len(fit.Keys) == 0:
		return nil, JWTAlgorithm
	case len(fit.Keys) > mostTried:
		return nil, JWTUnknownKey
	}

	claims := jwt.MapClaims{}
	parsed, err := j.parser.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return fit, nil })
	switch {
	case err == nil && parsed.Valid:
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return nil, JWTSignature
	case errors.Is(err, jwt.ErrTokenInvalidClaims):
	default:
		return nil, JWTMalformed
	}
	// golang-jwt has looked at the claims, and this is what it means; but it takes for a date
	// what is none, and for an absent claim one of the wrong type.
	e, why := j.read(claims, time.Now())
	switch {
	case why != 0:
		return nil, why
	case err != nil:
		return nil, JWTClaims // it found what was not found here
	}
	// A copy: the field it stood in may be a piece of a larger buffer.
	e.token, e.generation = strings.Clone(token), generation
	if j.cache != nil {
		j.cache.put(e)
	}
	return e, 0
}

// jwtSplit takes a token apart without believing any of it.
func jwtSplit(token string) (head, body []byte, why JWTReason) {
	for i := range len(token) {
		c := token[i] // base64 of the standard library overlooks line ends
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return nil, nil, JWTMalformed
		}
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" {
		return nil, nil, JWTMalformed
	}
	head, err := base64.RawURLEncoding.Strict().DecodeString(parts[0])
	if err != nil {
		return nil, nil, JWTMalformed
	}
	body, err = base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return nil, nil, JWTMalformed
	}
	return head, body, 0
}

// jwtReadHead reads a token's header. Keys that it brings along are not looked at.
func jwtReadHead(b []byte) (h jwtHead, why JWTReason) {
	if !jwtUnambiguous(b) {
		return h, JWTMalformed
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return h, JWTMalformed
	}
	if _, has := m["crit"]; has {
		return h, JWTCritical // none is understood here (RFC 7515, 4.1.11)
	}
	if _, has := m["b64"]; has {
		return h, JWTCritical // RFC 7797
	}
	if _, has := m["enc"]; has {
		return h, JWTMalformed // a JWE's
	}
	var ok bool
	if h.alg, ok = m["alg"].(string); !ok {
		return h, JWTAlgorithm
	}
	if kid, has := m["kid"]; has {
		if h.kid, ok = kid.(string); !ok || len(h.kid) > kidLimit {
			return h, JWTMalformed
		}
	}
	if typ, has := m["typ"]; has && !jwtAccess(typ) {
		return h, JWTType
	}
	return h, 0
}

// jwtAccess reports whether a typ is that of a token for access, and not of one that is for
// logging out or proves the possession of a key (RFC 8725, 3.11; RFC 9068, 2.1).
func jwtAccess(typ any) bool {
	s, ok := typ.(string)
	if !ok {
		return false
	}
	s = strings.TrimPrefix(strings.ToLower(s), "application/")
	return s == "jwt" || s == "at+jwt"
}

// jwtUnambiguous reports whether b is a JSON object that everybody reads in the same
// way: UTF-8, no name twice in an object (RFC 7519, 4), nothing behind it, not very deep.
func jwtUnambiguous(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	type level struct {
		names map[string]bool // nil in an array
		value bool            // a name was read
	}
	var open []level
	for first := true; ; first = false {
		t, err := dec.Token()
		if err != nil {
			return errors.Is(err, io.EOF) && !first && len(open) == 0
		}
		if len(open) == 0 && (!first || t != json.Delim('{')) {
			return false // no object, or something behind it
		}
		if n := len(open); n > 0 && open[n-1].names != nil {
			top := &open[n-1]
			if name, ok := t.(string); ok && !top.value {
				if top.names[name] {
					return false
				}
				top.names[name], top.value = true, true
				continue
			}
			top.value = false
		}
		switch t {
		case json.Delim('{'):
			open = append(open, level{names: make(map[string]bool)})
		case json.Delim('['):
			open = append(open, level{})
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		}
		if len(open) > jwtDepth {
			return false
		}
	}
}

// read makes an entry of a token's claims, or says what is wrong with them.
func (j *JWT) read(c jwt.MapClaims, now time.Time) (*jwtEntry, JWTReason) {
	if iss, _ := c["iss"].(string); iss != j.opts.Issuer {
		return nil, JWTIssuer
	}
	if !j.addressed(c["aud"]) {
		return nil, JWTAudience
	}
	exp, has, ok := jwtDate(c, "exp")
	nbf, _, ok1 := jwtDate(c, "nbf")
	iat, _, ok2 := jwtDate(c, "iat")
	switch {
	case !has:
		return nil, JWTNoExpiry
	case !ok || !ok1 || !ok2:
		return nil, JWTMalformed
	}
	e := &jwtEntry{until: exp.Add(j.opts.Leeway), from: nbf}
	if iat.After(nbf) {
		e.from = iat
	}
	e.from = e.from.Add(-j.opts.Leeway)
	switch {
	case !now.Before(e.until):
		return nil, JWTExpired
	case now.Before(e.from):
		return nil, JWTNotYetValid
	}
	sub, _ := c["sub"].(string)
	if !jwtSubject(sub) {
		return nil, JWTClaims
	}
	for _, name := range j.opts.Require {
		if c[name] == nil {
			return nil, JWTClaims
		}
	}
	if !j.scoped(c) {
		return nil, JWTScope
	}
	e.id = &protocols.Identity{Subject: sub, Issuer: j.opts.Issuer, By: j.opts.Name, Expires: exp, Claims: c}
	return e, 0
}

// jwtSubject reports whether a sub names somebody, and the same one once it stands in a
// header field, whose readers trim blanks. Those who are nobody would share their limits.
func jwtSubject(sub string) bool {
	return sub != "" && len(sub) <= subjectLimit && strings.Trim(sub, " ") == sub &&
		!strings.ContainsFunc(sub, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// addressed reports whether aud, a string or a list of them, has one of ours.
func (j *JWT) addressed(aud any) bool {
	switch aud := aud.(type) {
	case string:
		return slices.Contains(j.opts.Audience, aud)
	case []any:
		found := false
		for _, a := range aud {
			s, ok := a.(string)
			if !ok {
				return false
			}
			found = found || slices.Contains(j.opts.Audience, s)
		}
		return found
	}
	return false
}

// scoped reports whether a token has all scopes: of a list in one string, as scope is (RFC
// 8693, 4.2), or in an array, as some issuers' scp is.
func (j *JWT) scoped(c jwt.MapClaims) bool {
	if len(j.opts.Scopes) == 0 {
		return true
	}
	var has []string
	for _, name := range []string{claimScope, "scp"} {
		switch v := c[name].(type) {
		case string:
			has = append(has, strings.Fields(v)...)
		case []any:
			for _, s := range v {
				if s, ok := s.(string); ok {
					has = append(has, s)
				}
			}
		}
	}
	return !slices.ContainsFunc(j.opts.Scopes, func(s string) bool { return !slices.Contains(has, s) })
}

// jwtDate reads a NumericDate (RFC 7519, 2): seconds since 1970, perhaps with a fraction,
// which is cut off. The zero time, without one, is before everything.
func jwtDate(c jwt.MapClaims, name string) (t time.Time, has, ok bool) {
	v, has := c[name]
	if !has {
		return t, false, true
	}
	f, ok := v.(float64)
	if !ok || math.IsNaN(f) || math.Abs(f) > latestDate {
		return t, true, false
	}
	return time.Unix(int64(f), 0), true, true
}
