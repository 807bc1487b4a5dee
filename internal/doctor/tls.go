package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/http"
	"time"
)

func tlsProbes() []probe {
	return []probe{
		{"tls", "tls", (*patient).speaksTLS, "Every client of the port needs TLS: look whether the address is the right one, and whether the port has a certificate."},
		{"tls-1.3", "tls", version(tls.VersionTLS13), "TLS 1.3 saves each new client a round trip: switch it on."},
		{"tls-1.2", "tls", version(tls.VersionTLS12), "Clients that are some years old have no TLS 1.3: they cannot connect."},
		{"tls-old", "tls", (*patient).oldVersions, "TLS 1.0 and 1.1 are broken and forbidden (RFC 8996): set the least version to 1.2."},
		{"certificate-chain", "tls", (*patient).chain, "Clients refuse a certificate that no CA they know has issued: send the whole chain, the CA's intermediate certificates too, or give the CA with --ca."},
		{"certificate-names", "tls", (*patient).names, "Clients refuse a certificate for another name: have one issued for this one, or look which certificate the port chooses by SNI."},
		{"certificate-expiry", "tls", (*patient).expiry, "Clients refuse a certificate outside of its time: look why it is not renewed, or not loaded again."},
		{"certificate-staple", "tls", (*patient).staple, "The certificate says that clients must be shown an OCSP answer with it: staple one, or have a certificate without that (CAs have given it up)."},
		{"clock", "tls", (*patient).clock, "Tokens and certificates are judged by the clock: have both machines keep theirs by NTP."},
	}
}

func (p *patient) speaksTLS() Check {
	if p.noTLS != "" {
		return fail("%s", p.noTLS)
	}
	alpn := p.state.NegotiatedProtocol
	if alpn == "" {
		alpn = "nothing"
	}
	return ok("%s, %s; of h2 and http/1.1 it takes %s", tls.VersionName(p.state.Version), tls.CipherSuiteName(p.state.CipherSuite), quoted(alpn))
}

// version asks for one version of TLS alone.
func version(v uint16) func(*patient) Check {
	return func(p *patient) Check {
		if p.noTLS != "" {
			return skip("%s", p.noTLS)
		}
		cfg := p.config("h2", "http/1.1")
		cfg.MinVersion, cfg.MaxVersion = v, v
		c, err := p.secure(1, cfg)
		if err != nil {
			return warn("a client of %s alone cannot connect: %s", tls.VersionName(v), said(err))
		}
		shut(c)
		return ok("a client of %s alone connects", tls.VersionName(v))
	}
}

func (p *patient) oldVersions() Check {
	if p.noTLS != "" {
		return skip("%s", p.noTLS)
	}
	var all []uint16
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		all = append(all, s.ID)
	}
	for _, v := range []uint16{tls.VersionTLS11, tls.VersionTLS10} {
		cfg := p.config("http/1.1")
		cfg.MinVersion, cfg.MaxVersion, cfg.CipherSuites = v, v, all
		c, err := p.secure(1, cfg)
		if err == nil {
			shut(c)
			return warn("a client of %s alone connects", tls.VersionName(v))
		}
	}
	return ok("clients of TLS 1.0 and 1.1 are refused")
}

func (p *patient) leaf() *x509.Certificate {
	if p.noTLS != "" || len(p.state.PeerCertificates) == 0 {
		return nil
	}
	return p.state.PeerCertificates[0]
}

func (p *patient) chain() Check {
	leaf := p.leaf()
	switch {
	case leaf == nil:
		return skip("there is no certificate")
	case p.Insecure:
		return skip("--insecure leaves that out; %s has issued it", quoted(leaf.Issuer.String()))
	}
	between := x509.NewCertPool()
	for _, c := range p.state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	at := time.Now() // whether that is its time another check says
	if at.Before(leaf.NotBefore) || at.After(leaf.NotAfter) {
		at = leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: p.CAs, Intermediates: between, CurrentTime: at})
	if err != nil {
		return fail("%s has issued it, and sends %d certificates: %s", quoted(leaf.Issuer.String()), len(p.state.PeerCertificates), quoted(err.Error()))
	}
	root := chains[0][len(chains[0])-1]
	return ok("%s leads to %s", quoted(leaf.Subject.String()), quoted(root.Subject.String()))
}

func (p *patient) names() Check {
	leaf := p.leaf()
	if leaf == nil {
		return skip("there is no certificate")
	}
	err := leaf.VerifyHostname(p.ServerName)
	switch {
	case err == nil:
		return ok("the certificate is for %s", p.ServerName)
	case p.Insecure:
		return warn("%s", quoted(err.Error()))
	}
	return fail("%s", quoted(err.Error()))
}

func (p *patient) expiry() Check {
	leaf := p.leaf()
	if leaf == nil {
		return skip("there is no certificate")
	}
	now := time.Now()
	left, life := leaf.NotAfter.Sub(now), leaf.NotAfter.Sub(leaf.NotBefore)
	switch {
	case left < 0:
		return fail("it has ended %s ago, on %s", rough(-left), leaf.NotAfter.Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		return fail("it begins in %s, at %s: the issuer's clock or this one is wrong", rough(leaf.NotBefore.Sub(now)), leaf.NotBefore.Format(time.RFC3339))
	case left < life/10:
		return warn("it ends in %s, after a life of %s", rough(left), rough(life))
	}
	return ok("it ends in %s, on %s", rough(left), leaf.NotAfter.Format(time.DateOnly))
}

// rough is a duration in the unit that people would choose.
func rough(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	}
	return d.Round(time.Second).String()
}

// staple: nobody needs an OCSP answer, unless the certificate itself says so (RFC 7633).
func (p *patient) staple() Check {
	leaf := p.leaf()
	if leaf == nil {
		return skip("there is no certificate")
	}
	for _, e := range leaf.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}) && len(p.state.OCSPResponse) == 0 {
			return fail("the certificate must be stapled, and is not")
		}
	}
	if len(p.state.OCSPResponse) > 0 {
		return ok("an OCSP answer of %d bytes is stapled", len(p.state.OCSPResponse))
	}
	return ok("none is stapled, and the certificate needs none")
}

func (p *patient) clock() Check {
	a := p.h1
	if a == nil {
		a = p.h2
	}
	if a == nil || a.header.Get("Date") == "" {
		return skip("no answer has a Date")
	}
	at, err := http.ParseTime(a.header.Get("Date"))
	if err != nil {
		return warn("its Date is none: %s", quoted(a.header.Get("Date")))
	}
	off := at.Sub(a.at).Round(time.Second)
	if off.Abs() > 30*time.Second {
		return warn("its clock is off by %v, as compared with this machine's", off)
	}
	return ok("its clock and this one agree within %v", max(off.Abs(), time.Second))
}
