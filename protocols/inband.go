package protocols

import (
	"context"
	"slices"
	"strings"
	"time"
)

// InBand is the subprotocol that a WebSocket's client offers, beside its own, which wants to be
// told by messages when its credential ends, and to show a newer one in a message. The port
// takes it out of the list, and speaks it itself.
const InBand = "oneport.auth.v1"

// OffersInBand reports whether [InBand] is among the subprotocols in those fields.
func OffersInBand(fields []string) bool {
	return slices.ContainsFunc(fields, func(line string) bool {
		for p := range strings.SplitSeq(line, ",") {
			if strings.Trim(p, " \t") == InBand {
				return true
			}
		}
		return false
	})
}

// WithoutInBand gives a list of subprotocols without [InBand]; "" if nothing is left.
func WithoutInBand(fields []string) string {
	var rest []string
	for _, line := range fields {
		for p := range strings.SplitSeq(line, ",") {
			if p = strings.Trim(p, " \t"); p != "" && p != InBand {
				rest = append(rest, p)
			}
		}
	}
	return strings.Join(rest, ", ")
}

// RenewFunc has a call end with a newer credential, which it checks as if it had come with a new
// call, and says when that is, or why not. It may wait, until ctx ends.
type RenewFunc func(ctx context.Context, token string) (expires time.Time, why NotRenewed)

// NotRenewed is why a credential does not take the place of the one that a call has, as its
// client is told: a word of a bounded set. "" is that it was.
type NotRenewed string

// What the port says of credentials.
const (
	NotRenewable      NotRenewed = "not-renewable"   // no token moves the end of this call, or it has none
	NotRenewedToken   NotRenewed = "invalid-token"   // a bad one
	NotRenewedOther   NotRenewed = "other-identity"  // a good one, of another subject, issuer or guard
	NotRenewedSooner  NotRenewed = "not-later"       // it ends no later than the one there is
	NotRenewedRules   NotRenewed = "forbidden"       // the route wants what it does not have
	NotRenewedRevoked NotRenewed = "revoked"         // the identity was
	NotRenewedUnknown NotRenewed = "try-again-later" // it cannot be checked now
)

// OnRenew says how a newer credential is checked that the client brings while the call is
// open. A guard does, while it decides; the last one counts.
func (c *Call) OnRenew(f RenewFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renew = f
}

// Renew has the call end with a newer credential, see [RenewFunc]. Without a guard that can, it is [NotRenewable].
func (c *Call) Renew(ctx context.Context, token string) (expires time.Time, why NotRenewed) {
	c.mu.Lock()
	f := c.renew
	c.mu.Unlock()
	if f == nil {
		return time.Time{}, NotRenewable
	}
	return f(ctx, token)
}
