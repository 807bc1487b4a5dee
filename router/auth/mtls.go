package auth

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/oneport-edge/oneport/protocols"
)

// CertName is which name of a client's certificate is its identity.
type CertName string

// The names. The zero value takes the first kind that a certificate has, in this order; a
// certificate with a SPIFFE ID that is not valid has no identity at all then.
const (
	CertSPIFFE CertName = "spiffe" // the SPIFFE ID (SPIFFE's X509-SVID, 2): the one URI SAN
	CertDNS    CertName = "dns"    // a DNS name of the SAN
	CertEmail  CertName = "email"  // an email address of the SAN
	CertCN     CertName = "cn"     // the subject's common name
	CertDN     CertName = "dn"     // the whole subject, as "CN=alice,O=Example"
)

// MTLSOptions says which client certificates are let in.
type MTLSOptions struct {
	// Name is which name counts.
	Name CertName
	// Allow are the names that are let in, others get 403. None means every certificate
	// that a trusted CA has signed. A SPIFFE ID may end in "*", which stands for the
	// rest of its last path segment: "spiffe://example.org/ns/prod/*". Other names are
	// compared exactly. Of a certificate with several names of a kind the first that
	// is here counts.
	Allow []string
	// By is [protocols.Identity.By]; "" means "mtls".
	By string
}

// MTLS is a guard that knows clients by their certificates. These were verified at the
// handshake, against the CAs of certs.ClientAuth: what was not verified there counts
// as no certificate. A certificate that expires while its connection is open ends
// the gRPC calls and WebSockets it has made, and makes no further ones.
type MTLS struct {
	opts  MTLSOptions
	allow []string
}

// NewMTLS checks the options. An error names the pattern that is wrong.
func NewMTLS(opts MTLSOptions) (*MTLS, error) {
	switch opts.Name {
	case "", CertSPIFFE, CertDNS, CertEmail, CertCN, CertDN:
	default:
		return nil, fmt.Errorf("auth: name %q: want spiffe, dns, email, cn or dn", opts.Name)
	}
	if opts.By == "" {
		opts.By = "mtls"
	}
	m := &MTLS{opts: opts, allow: append([]string(nil), opts.Allow...)}
	for _, p := range m.allow {
		if err := checkCertPattern(p); err != nil {
			return nil, fmt.Errorf("auth: allow %q: %w", p, err)
		}
	}
	return m, nil
}

func checkCertPattern(p string) error {
	rest, isSPIFFE := strings.CutPrefix(p, spiffeScheme)
	switch {
	case p == "":
		return fmt.Errorf("is empty")
	case p == "*":
		return fmt.Errorf("leave allow out to let every certificate in")
	case !isSPIFFE:
		return nil // compared exactly: a DNS name may be a wildcard's
	}
	exact, open := strings.CutSuffix(rest, "*")
	if strings.Contains(exact, "*") {
		return fmt.Errorf(`"*" stands at the end only`)
	}
	if open {
		if !strings.Contains(exact, "/") {
			return fmt.Errorf(`"*" stands in the path only`)
		}
		exact += "x" // any rest will do
	}
	u, err := url.Parse(spiffeScheme + exact)
	if err != nil {
		return fmt.Errorf("is no SPIFFE ID")
	}
	return checkSPIFFE(u)
}

// Admit implements [protocols.Guard].
func (m *MTLS) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	return m.AdmitNow(ctx, call)
}

// AdmitNow implements [protocols.Quick].
func (m *MTLS) AdmitNow(ctx context.Context, call *protocols.Call) (context.Context, error) {
	state := call.Conn.TLS
	if state == nil || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return ctx, &protocols.Refusal{Reason: protocols.ReasonUnauthenticated, Text: "a client certificate is needed"}
	}
	leaf := state.VerifiedChains[0][0]
	now := time.Now()
	if now.Before(leaf.NotBefore) {
		return ctx, &protocols.Refusal{Reason: protocols.ReasonUnauthenticated, Text: "the client certificate is not valid yet"}
	}
	if !now.Before(leaf.NotAfter) { // it was good at the handshake
		return ctx, &protocols.Refusal{Reason: protocols.ReasonExpired, Text: "the client certificate has expired"}
	}
	names, err := certNames(leaf, m.opts.Name)
	if err != nil {
		return ctx, &protocols.Refusal{Reason: protocols.ReasonForbidden, Text: "the client certificate " + err.Error()}
	}
	subject, ok := m.pick(names)
	if !ok {
		return ctx, &protocols.Refusal{Reason: protocols.ReasonForbidden}
	}
	id := &protocols.Identity{Subject: subject, By: m.opts.By, Expires: leaf.NotAfter}
	call.Identify(id)
	endAtExpiry(call, id, time.Now(), 0)
	return ctx, nil
}

// pick gives the name that counts of those a certificate has.
func (m *MTLS) pick(names []string) (string, bool) {
	if len(m.allow) == 0 {
		return names[0], true
	}
	for _, name := range names {
		for _, p := range m.allow {
			if matchCertName(p, name) {
				return name, true
			}
		}
	}
	return "", false
}

func matchCertName(pattern, name string) bool {
	if prefix, open := strings.CutSuffix(pattern, "*"); open && strings.HasPrefix(pattern, spiffeScheme) {
		rest, ok := strings.CutPrefix(name, prefix)
		return ok && !strings.Contains(rest, "/")
	}
	return pattern == name
}

// certNames gives the names of one kind that a certificate has, at least one. An error goes
// on behind "the client certificate".
func certNames(leaf *x509.Certificate, kind CertName) ([]string, error) {
	var names []string
	isSPIFFE := false
	for _, u := range leaf.URIs {
		isSPIFFE = isSPIFFE || u.Scheme == "spiffe"
	}
	subject := func() []string {
		if leaf.Subject.CommonName == "" {
			return nil
		}
		return []string{leaf.Subject.CommonName}
	}
	whole := func() []string {
		if dn := leaf.Subject.String(); dn != "" {
			return []string{dn}
		}
		return nil
	}
	switch kind {
	case CertSPIFFE:
		return spiffeName(leaf)
	case CertDNS:
		names = leaf.DNSNames
	case CertEmail:
		names = leaf.EmailAddresses
	case CertCN:
		names = subject()
	case CertDN:
		names = whole()
	default:
		switch {
		case isSPIFFE:
			return spiffeName(leaf)
		case len(leaf.DNSNames) > 0:
			names = leaf.DNSNames
		case len(leaf.EmailAddresses) > 0:
			names = leaf.EmailAddresses
		default:
			if names = subject(); names == nil {
				names = whole()
			}
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("has no name of the kind that counts here")
	}
	for _, name := range names {
		if err := checkCertName(name); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// maxCertName is what a name may have in bytes: as SPIFFE says of its own.
const maxCertName = 2048

// checkCertName refuses names that could be taken for others: a common name is whatever a
// client has asked its CA for, and names end up in logs and fields.
func checkCertName(name string) error {
	switch {
	case len(name) > maxCertName:
		return fmt.Errorf("has a name that is too long")
	case name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("has a name that is not printable")
	case strings.TrimSpace(name) != name: // servers do not read the blanks around a field's value
		return fmt.Errorf("has a name with blanks around it")
	case strings.Contains(name, "://"):
		return fmt.Errorf("has a URI where another name belongs")
	}
	return nil
}

const spiffeScheme = "spiffe://"

// spiffeName gives the SPIFFE ID of a certificate (SPIFFE's X509-SVID, 2 to 5).
func spiffeName(leaf *x509.Certificate) ([]string, error) {
	if len(leaf.URIs) != 1 {
		return nil, fmt.Errorf("must have one URI to have a SPIFFE ID, and has %d", len(leaf.URIs))
	}
	if leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return nil, fmt.Errorf("may sign others, which a SPIFFE leaf may not")
	}
	u := leaf.URIs[0]
	if err := checkSPIFFE(u); err != nil {
		return nil, err
	}
	return []string{spiffeScheme + u.Host + u.Path}, nil
}

// checkSPIFFE says whether u is the SPIFFE ID of a workload (SPIFFE-ID, 2).
func checkSPIFFE(u *url.URL) error {
	if u.Scheme != "spiffe" {
		return fmt.Errorf("has no SPIFFE ID")
	}
	plain := func(s, more string) bool {
		return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune(more, r)
		})
	}
	const upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	ok := u.Opaque == "" && u.User == nil && u.RawQuery == "" && !u.ForceQuery && u.Fragment == "" && u.RawPath == "" &&
		len(u.Host) <= 255 && len(u.Host)+len(u.Path)+len(spiffeScheme) <= maxCertName && plain(u.Host, ".-_") &&
		strings.HasPrefix(u.Path, "/")
	if ok {
		for segment := range strings.SplitSeq(u.Path[1:], "/") {
			ok = ok && plain(segment, ".-_"+upper) && segment != "." && segment != ".."
		}
	}
	if !ok {
		return fmt.Errorf("has a SPIFFE ID that is not valid")
	}
	return nil
}
