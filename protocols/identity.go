package protocols

import (
	"context"
	"time"
)

// Identity is who a call is made for, as a guard has found out. It is never changed
// once a call has it.
type Identity struct {
	// Subject names the user or the service: the sub of a token, the SPIFFE ID or
	// the subject of a certificate, the name of an API key.
	Subject string
	// Issuer says who vouches for it: the iss of a token. "" for this port itself.
	Issuer string
	// By is the guard that has found out, as it is configured: "jwt", "mtls".
	By string
	// Expires is when the credential ends, and with it what it has opened. Zero
	// means never.
	Expires time.Time
	// Claims is what else the credential says: those of a token, as encoding/json
	// reads them. It may be nil, and is read-only.
	Claims map[string]any
}

// Key is what the identity counts as: two issuers may have subjects of one name.
func (i *Identity) Key() string {
	if i.Issuer == "" {
		return i.By + " " + i.Subject
	}
	return i.Issuer + " " + i.Subject
}

// Identify says who the call is made for. Guards do, while they decide; the last one
// counts.
func (c *Call) Identify(id *Identity) {
	c.mu.Lock()
	c.identity = id
	c.mu.Unlock()
}

// Identity is who the call is made for; nil if no guard has found out.
func (c *Call) Identity() *Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identity
}

// IdentityFrom is who the call is made for that ctx belongs to; nil if nobody knows.
func IdentityFrom(ctx context.Context) *Identity {
	if c := CallFrom(ctx); c != nil {
		return c.Identity()
	}
	return nil
}
