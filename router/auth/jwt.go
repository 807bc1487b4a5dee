package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/oneport-edge/oneport/protocols"
)

// JWTOptions configures a [JWT]. Issuer, Audience and Keys are required.
type JWTOptions struct {
	// Name is the guard's, for Identity.By. "" is "jwt".
	Name string
	// Issuer is what the iss of a token must be.
	Issuer string
	// Audience: the aud of a token must have one of them.
	Audience []string
	// Algorithms are those allowed. Empty is RS256, RS384, RS512, PS256, PS384, PS512, ES256,
	// ES384, ES512 and EdDSA; with a Secret it is HS256. A Secret goes with HS256, HS384 and
	// HS512 alone, and they go with nothing else.
	Algorithms []string
	// Leeway is by how much clocks may differ. Zero is 30 s; negative is none.
	Leeway time.Duration
	// From are the places where a token may stand, the first that has one
	// counts. Empty is the Authorization field.
	From []Source
	// Keys check tokens. Whoever makes a JWKS runs it.
	Keys Keys
	// Scopes must all be in a token's scope or scp (RFC 8693, 4.2). A token without them is
	// good, and the call forbidden.
	Scopes []string
	// Require are claims that a token must have, besides iss, aud, exp and sub.
	Require []string
	// Cache is how many tokens are remembered. Zero is 10,000; negative is none.
	Cache int
	// Log receives each refusal at Debug, without the token. Nil discards.
	Log *slog.Logger
}

// JWT is a guard that lets calls in which bring a token of the issuer (RFC 7519). Its
// methods may be called concurrently.
type JWT struct {
	opts     JWTOptions
	parser   *jwt.Parser
	cache    *jwtCache // nil remembers nothing
	refusals [numJWTReasons]*protocols.Refusal

	admitted, remembered atomic.Uint64
	refused              [numJWTReasons]atomic.Uint64
}

var (
	_ protocols.Quick = (*JWT)(nil)
	_ Cleaner         = (*JWT)(nil)
)

// jwtAsymmetric and jwtSymmetric are the algorithms that there are. "none" is not one.
var (
	jwtAsymmetric = []string{algRS256, "RS384", "RS512", "PS256", "PS384", "PS512", algES256, algES384, algES512, algEdDSA}
	jwtSymmetric  = []string{algHS256, "HS384", "HS512"}
)

const jwtLeeway = 30 * time.Second

// NewJWT makes a guard. Its errors are mistakes in opts.
func NewJWT(opts JWTOptions) (*JWT, error) {
	if opts.Issuer == "" || len(opts.Audience) == 0 || slices.Contains(opts.Audience, "") || opts.Keys == nil {
		return nil, errors.New("a JWT guard needs an issuer, an audience and keys: without them it would take tokens that were made for others")
	}
	opts.Name = cmp.Or(opts.Name, "jwt")
	opts.Leeway = max(cmp.Or(opts.Leeway, jwtLeeway), 0)
	opts.Cache = cmp.Or(opts.Cache, 10_000)
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	opts.From, opts.Audience = slices.Clone(opts.From), slices.Clone(opts.Audience)
	if len(opts.From) == 0 {
		opts.From = []Source{SourceHeader()}
	}
	algs, err := jwtAlgorithms(opts.Algorithms, opts.Keys)
	if err != nil {
		return nil, err
	}
	opts.Algorithms = algs
	j := &JWT{opts: opts, refusals: jwtRefusals()}
	j.parser = jwt.NewParser(
		jwt.WithValidMethods(algs), jwt.WithIssuer(opts.Issuer), jwt.WithAudience(opts.Audience...),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(opts.Leeway), jwt.WithStrictDecoding(),
	)
	if opts.Cache > 0 {
		j.cache = newJWTCache(opts.Cache)
	}
	return j, nil
}

func jwtAlgorithms(algs []string, keys Keys) ([]string, error) {
	secret, symmetric := keys.(*Secret)
	known := jwtAsymmetric
	if symmetric {
		known = jwtSymmetric
	}
	switch {
	case len(algs) == 0 && symmetric:
		return []string{algHS256}, nil
	case len(algs) == 0:
		return known, nil
	}
	for _, alg := range algs {
		switch {
		case !slices.Contains(known, alg) && slices.Contains(jwtSymmetric, alg):
			return nil, fmt.Errorf("algorithm %s goes with a secret alone: with public keys it would let anybody make tokens", alg)
		case !slices.Contains(known, alg):
			return nil, fmt.Errorf("algorithm %q: want some of %s", alg, strings.Join(known, ", "))
		case symmetric && len(secret.keys[0].secret) < secretSize(alg):
			return nil, fmt.Errorf("algorithm %s needs a secret of at least %d bytes", alg, secretSize(alg))
		}
	}
	return slices.Clone(algs), nil
}

// Admit lets a call in that brings a good token, and says who it is made for.
func (j *JWT) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	token, why := sourceFind(call, j.opts.From)
	if why != 0 {
		return ctx, j.refuse(ctx, call, why)
	}
	now := time.Now()
	e, why := j.recall(token, now)
	if e == nil && why == 0 {
		e, why = j.verify(ctx, token)
		now = time.Now() // keys may have had to be fetched
	}
	if why != 0 {
		return ctx, j.refuse(ctx, call, why)
	}
	j.let(call, e, now)
	return ctx, nil
}

// AdmitNow implements protocols.Quick: it decides on tokens that were checked before, and
// on what no key is needed for.
func (j *JWT) AdmitNow(ctx context.Context, call *protocols.Call) (context.Context, error) {
	token, why := sourceFind(call, j.opts.From)
	if why != 0 {
		return ctx, j.refuse(ctx, call, why)
	}
	now := call.Began()
	e, why := j.recall(token, now)
	switch {
	case why != 0:
		return ctx, j.refuse(ctx, call, why)
	case e == nil && strings.Count(token, ".") != 2:
		return ctx, j.refuse(ctx, call, JWTMalformed)
	case e == nil:
		return ctx, protocols.ErrMustWait
	}
	j.let(call, e, now)
	return ctx, nil
}

// Check says who a token is for. It does what Admit does once it has found a token,
// and is not counted. Its errors are of type *JWTError.
func (j *JWT) Check(ctx context.Context, token string) (*protocols.Identity, error) {
	if len(token) > tokenLimit {
		return nil, &JWTError{JWTTooLong}
	}
	e, why := j.recall(token, time.Now())
	if e == nil && why == 0 {
		e, why = j.verify(ctx, token)
	}
	if why != 0 {
		return nil, &JWTError{why}
	}
	return e.id, nil
}

// recall gives what is remembered of a token: nil if nothing, a reason if it is not
// good any more.
func (j *JWT) recall(token string, now time.Time) (*jwtEntry, JWTReason) {
	if j.cache == nil {
		return nil, 0
	}
	e := j.cache.get(token)
	switch {
	case e == nil || e.generation != j.opts.Keys.Generation():
		return nil, 0
	case !now.Before(e.until):
		return nil, JWTExpired
	case now.Before(e.from): // a clock was set back
		return nil, JWTNotYetValid
	}
	j.remembered.Add(1)
	return e, 0
}

// Clean implements [Cleaner]: tokens in URLs and lists of subprotocols go no further.
func (j *JWT) Clean(call *protocols.Call) { sourceSpend(call, j.opts.From) }

// let lets the call in.
func (j *JWT) let(call *protocols.Call, e *jwtEntry, now time.Time) {
	j.Clean(call)
	call.Identify(e.id)
	j.admitted.Add(1)
	endAtExpiry(call, e.id, now, j.opts.Leeway)
}

func (j *JWT) refuse(ctx context.Context, call *protocols.Call, why JWTReason) error {
	j.refused[why].Add(1)
	if j.opts.Log.Enabled(ctx, slog.LevelDebug) {
		j.opts.Log.DebugContext(ctx, "token refused", "reason", why.String(), "guard", j.opts.Name, "protocol", call.Protocol.String(), "request", call.RequestID())
	}
	return j.refusals[why]
}

// JWTStats are counts since the guard was made.
type JWTStats struct {
	Admitted   uint64            // calls let in
	Remembered uint64            // tokens that did not have to be checked
	Refused    map[string]uint64 // calls refused, by JWTReason; all reasons are in it
	Cached     int               // tokens remembered now
}

// Stats returns the counts.
func (j *JWT) Stats() JWTStats {
	st := JWTStats{Admitted: j.admitted.Load(), Remembered: j.remembered.Load(), Refused: make(map[string]uint64, numJWTReasons)}
	for _, r := range JWTReasons() {
		st.Refused[r.String()] = j.refused[r].Load()
	}
	if j.cache != nil {
		st.Cached = j.cache.len()
	}
	return st
}
