package auth

import "github.com/oneport-edge/oneport/protocols"

// JWTReason is why a token is refused: a bounded set, fit for a label. The zero value
// is none.
type JWTReason uint8

// The reasons.
const (
	JWTMissing         JWTReason = 1 + iota // no credential where one may stand
	JWTDuplicate                            // more than one in one place
	JWTCrossOrigin                          // a cookie with a foreign page's request
	JWTTooLong                              // more than 16 KiB
	JWTMalformed                            // no token, or one that two readers could read in two ways
	JWTType                                 // of another kind (typ): not for access
	JWTCritical                             // it asks for what is not understood here (crit, b64)
	JWTAlgorithm                            // not one of those allowed, or not the key's
	JWTUnknownKey                           // no key of that name
	JWTKeysUnavailable                      // no keys to check it with
	JWTSignature                            // not made by the key
	JWTIssuer                               // another issuer's
	JWTAudience                             // for somebody else
	JWTNoExpiry                             // without an end
	JWTExpired                              // ended
	JWTNotYetValid                          // not begun, or made in the future
	JWTClaims                               // without a claim that must be there
	JWTScope                                // good, but without a scope that must be there
	numJWTReasons
)

var jwtReasons = [numJWTReasons]string{
	JWTMissing: "missing", JWTDuplicate: "duplicate", JWTCrossOrigin: "cross-origin", JWTTooLong: "too-long",
	JWTMalformed: "malformed", JWTType: "type", JWTCritical: "critical", JWTAlgorithm: "algorithm",
	JWTUnknownKey: "unknown-key", JWTKeysUnavailable: "keys-unavailable", JWTSignature: "signature",
	JWTIssuer: "issuer", JWTAudience: "audience", JWTNoExpiry: "no-expiry", JWTExpired: "expired",
	JWTNotYetValid: "not-yet-valid", JWTClaims: "claims", JWTScope: claimScope,
}

// String is the reason's name in counts and logs.
func (r JWTReason) String() string {
	if r >= numJWTReasons {
		return "unknown"
	}
	return jwtReasons[r]
}

// JWTReasons are all reasons there are.
func JWTReasons() []JWTReason {
	all := make([]JWTReason, 0, numJWTReasons-1)
	for r := JWTMissing; r < numJWTReasons; r++ {
		all = append(all, r)
	}
	return all
}

// JWTError is the error of [JWT.Check]. It does not have the token in it.
type JWTError struct{ Reason JWTReason }

func (e *JWTError) Error() string { return "token refused: " + e.Reason.String() }

// jwtRetry is when to try again once keys could not be had.
const jwtRetry = 5e9

// jwtRefusals are what clients are told: that a credential is missing, bad or does not suffice,
// and no more (RFC 6750, 3).
func jwtRefusals() (all [numJWTReasons]*protocols.Refusal) {
	missing := &protocols.Refusal{Reason: protocols.ReasonUnauthenticated, Challenge: `Bearer realm="oneport"`}
	bad := &protocols.Refusal{Reason: protocols.ReasonUnauthenticated, Challenge: `Bearer realm="oneport", error="invalid_token"`}
	for r := range all {
		all[r] = bad
	}
	all[JWTMissing] = missing
	all[JWTScope] = &protocols.Refusal{Reason: protocols.ReasonForbidden}
	// Not the client's fault: a 401 would have it log out.
	all[JWTKeysUnavailable] = &protocols.Refusal{
		Reason: protocols.ReasonOverloaded, Text: "credentials cannot be checked now", RetryAfter: jwtRetry,
	}
	return all
}
