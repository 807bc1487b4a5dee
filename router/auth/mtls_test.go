package auth_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

// newCert makes a certificate as the handshake has verified it.
func newCert(cn string, uris ...string) *x509.Certificate {
	c := &x509.Certificate{
		Subject:   pkix.Name{CommonName: cn},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			panic(err)
		}
		c.URIs = append(c.URIs, u)
	}
	return c
}

// newCertCall is a call of a client with that certificate; nil for none.
func newCertCall(t testing.TB, protocol protocols.Protocol, leaf *x509.Certificate) *protocols.Call {
	t.Helper()
	call := newCall(t, protocol, "/")
	call.Conn.TLS = new(tls.ConnectionState)
	if leaf != nil {
		call.Conn.TLS.PeerCertificates = []*x509.Certificate{leaf}
		call.Conn.TLS.VerifiedChains = [][]*x509.Certificate{{leaf}}
	}
	return call
}

func newMTLS(t testing.TB, name auth.CertName, allow ...string) *auth.MTLS {
	t.Helper()
	m, err := auth.NewMTLS(auth.MTLSOptions{Name: name, Allow: allow})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMTLSNames(t *testing.T) {
	with := func(c *x509.Certificate, change func(*x509.Certificate)) *x509.Certificate {
		change(c)
		return c
	}
	const id = "spiffe://example.org/ns/prod/sa/web"
	all := with(newCert("cn", id), func(c *x509.Certificate) {
		c.DNSNames, c.EmailAddresses, c.Subject.Organization = []string{"a.example", "b.example"}, []string{"a@example"}, []string{"Example"}
	})
	names := with(newCert("cn"), func(c *x509.Certificate) { c.DNSNames, c.EmailAddresses = all.DNSNames, all.EmailAddresses })
	email := with(newCert("cn"), func(c *x509.Certificate) { c.EmailAddresses = all.EmailAddresses })
	org := with(newCert(""), func(c *x509.Certificate) { c.Subject.Organization = []string{"Example"} })
	for name, tc := range map[string]struct {
		leaf *x509.Certificate
		name auth.CertName
		want string // "" for 403
	}{
		"SPIFFE first":          {all, "", id},
		"then DNS":              {names, "", "a.example"},
		"then email":            {email, "", "a@example"},
		"then common name":      {newCert("alice"), "", "alice"},
		"then the subject":      {org, "", "O=Example"},
		"SPIFFE":                {all, auth.CertSPIFFE, id},
		"DNS":                   {all, auth.CertDNS, "a.example"},
		"email":                 {all, auth.CertEmail, "a@example"},
		"common name":           {all, auth.CertCN, "cn"},
		"subject":               {all, auth.CertDN, "CN=cn,O=Example"},
		"no SPIFFE":             {newCert("alice"), auth.CertSPIFFE, ""},
		"no DNS":                {newCert("alice"), auth.CertDNS, ""},
		"no name at all":        {newCert(""), "", ""},
		"another URI":           {newCert("alice", "https://example.org/alice"), "", "alice"},
		"two URIs":              {newCert("alice", id, id), "", ""},
		"another URI besides":   {newCert("alice", "https://example.org/alice", id), "", ""},
		"spiffe of a CA":        {with(newCert("", id), func(c *x509.Certificate) { c.IsCA = true }), "", ""},
		"spiffe may sign":       {with(newCert("", id), func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }), "", ""},
		"trust domain alone":    {newCert("", "spiffe://example.org"), "", ""},
		"root path":             {newCert("", "spiffe://example.org/"), "", ""},
		"slash at the end":      {newCert("", id+"/"), "", ""},
		"empty segment":         {newCert("", "spiffe://example.org//web"), "", ""},
		"dots":                  {newCert("", "spiffe://example.org/prod/../web"), "", ""},
		"a query":               {newCert("", id+"?x"), "", ""},
		"an empty query":        {newCert("", id+"?"), "", ""},
		"a fragment":            {newCert("", id+"#x"), "", ""},
		"a port":                {newCert("", "spiffe://example.org:80/web"), "", ""},
		"a user":                {newCert("", "spiffe://u@example.org/web"), "", ""},
		"upper case domain":     {newCert("", "spiffe://Example.org/web"), "", ""},
		"upper case path":       {newCert("", "spiffe://example.org/Web"), "", "spiffe://example.org/Web"},
		"escaped":               {newCert("", "spiffe://example.org/w%65b"), "", ""},
		"an escaped slash":      {newCert("", "spiffe://example.org/a%2Fb"), "", ""},
		"too long":              {newCert("", "spiffe://example.org/"+strings.Repeat("a", 2048)), "", ""},
		"no domain":             {newCert("", "spiffe:///web"), "", ""},
		"opaque":                {newCert("", "spiffe:example.org/web"), "", ""},
		"a SPIFFE ID as CN":     {newCert(id), "", ""},
		"a SPIFFE ID as DNS":    {with(newCert("x"), func(c *x509.Certificate) { c.DNSNames = []string{id} }), "", ""},
		"a line feed":           {newCert("alice\r\nX-Admin: 1"), "", ""},
		"not UTF-8":             {newCert("al\xffice"), "", ""},
		"a long common name":    {newCert(strings.Repeat("a", 3000)), "", ""},
		"one bad name of two":   {with(newCert(""), func(c *x509.Certificate) { c.DNSNames = []string{"a", "b\n"} }), "", ""},
		"other letters than az": {newCert("Zoë"), "", "Zoë"},
	} {
		t.Run(name, func(t *testing.T) {
			call := newCertCall(t, protocols.HTTP, tc.leaf)
			err := askGuard(t, newMTLS(t, tc.name), call)
			if tc.want == "" {
				wantRefusal(t, err, protocols.ReasonForbidden)
				return
			}
			got := call.Identity()
			if err != nil || got == nil || got.Subject != tc.want || got.By != "mtls" || !got.Expires.Equal(tc.leaf.NotAfter) {
				t.Errorf("%v, %+v", err, got)
			}
		})
	}
}

func TestMTLSAllow(t *testing.T) {
	web, api := newCert("", "spiffe://example.org/ns/prod/web-1"), newCert("", "spiffe://example.org/ns/prod/api")
	two := newCert("cn")
	two.DNSNames = []string{"a.example", "*.b.example"}
	for _, tc := range []struct {
		leaf  *x509.Certificate
		allow []string
		want  string
	}{
		{web, []string{"spiffe://example.org/ns/prod/web-1"}, web.URIs[0].String()},
		{web, []string{"spiffe://example.org/ns/prod/*"}, web.URIs[0].String()},
		{web, []string{"alice", "spiffe://example.org/ns/prod/web-*"}, web.URIs[0].String()},
		{api, []string{"spiffe://example.org/ns/prod/web-*"}, ""},
		{web, []string{"spiffe://example.org/ns/*"}, ""},
		{web, []string{"spiffe://example.org/*"}, ""},
		{web, []string{"spiffe://example.org/ns/prod/web"}, ""},
		{web, []string{"spiffe://example.org/ns/prod/web-1/x"}, ""},
		{two, []string{"*.b.example"}, "*.b.example"},
		{two, []string{"x.b.example", "cn"}, ""},
		{newCert("alice"), []string{"bob", "alice"}, "alice"},
		{newCert("alice"), []string{"Alice", "alic*"}, ""},
	} {
		call := newCertCall(t, protocols.HTTP, tc.leaf)
		err := askGuard(t, newMTLS(t, "", tc.allow...), call)
		if tc.want == "" {
			wantRefusal(t, err, protocols.ReasonForbidden)
		} else if err != nil || call.Identity().Subject != tc.want {
			t.Errorf("%v: %v, %v", tc.allow, err, call.Identity())
		}
	}
	for _, bad := range []string{
		"", "*", "spiffe://*", "spiffe://example.org*", "spiffe://example.org/*/web", "spiffe://example.org/a*b", "spiffe://example.org",
		"spiffe://example.org/", "spiffe://Example.org/web", "spiffe://example.org/web/", "spiffe://example.org/%2", "spiffe://example.org/a//*",
	} {
		if _, err := auth.NewMTLS(auth.MTLSOptions{Allow: []string{bad}}); err == nil {
			t.Errorf("pattern %q is taken", bad)
		}
	}
	if _, err := auth.NewMTLS(auth.MTLSOptions{Name: "san"}); err == nil {
		t.Error("name san is taken")
	}
}

func TestMTLSWithoutCertificate(t *testing.T) {
	m := newMTLS(t, "")
	plain := newCall(t, protocols.HTTP, "/")
	unverified := newCertCall(t, protocols.HTTP, newCert("alice"))
	unverified.Conn.TLS.VerifiedChains = nil
	later, gone := newCert("alice"), newCert("alice")
	later.NotBefore = time.Now().Add(time.Minute)
	gone.NotAfter = time.Now().Add(-time.Second)
	for name, tc := range map[string]struct {
		call *protocols.Call
		want protocols.Reason
	}{
		"plaintext":      {plain, protocols.ReasonUnauthenticated},
		"no certificate": {newCertCall(t, protocols.HTTP, nil), protocols.ReasonUnauthenticated},
		"not verified":   {unverified, protocols.ReasonUnauthenticated},
		"not yet valid":  {newCertCall(t, protocols.HTTP, later), protocols.ReasonUnauthenticated},
		"expired since":  {newCertCall(t, protocols.HTTP, gone), protocols.ReasonExpired},
	} {
		t.Run(name, func(t *testing.T) {
			wantRefusal(t, askGuard(t, m, tc.call), tc.want)
			if tc.call.Identity() != nil {
				t.Errorf("identity %v", tc.call.Identity())
			}
		})
	}
}

// What a certificate has opened ends when it expires, and not before.
func TestMTLSEndsWhatItHasOpened(t *testing.T) {
	for protocol, ends := range map[protocols.Protocol]bool{protocols.GRPC: true, protocols.WebSocket: true, protocols.HTTP: false} {
		synctest.Test(t, func(t *testing.T) {
			leaf := newCert("alice")
			call, finished := newCertCall(t, protocol, leaf), newCertCall(t, protocol, leaf)
			m := newMTLS(t, "")
			var told atomic.Pointer[protocols.Refusal]
			for _, c := range []*protocols.Call{call, finished} {
				if err := askGuard(t, m, c); err != nil {
					t.Fatal(err)
				}
				c.OnEnd(told.Store)
			}
			finished.Finish(protocols.Result{})
			time.Sleep(time.Hour - time.Second)
			synctest.Wait()
			if why := told.Load(); why != nil {
				t.Fatalf("%v: ended early: %v", protocol, why)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			ended := told.Load()
			if (ended != nil) != ends {
				t.Fatalf("%v: ended: %v", protocol, ended)
			}
			if ends {
				if code, reason := ended.Close(); code != 1008 || reason != "token-expired" {
					t.Errorf("%v: closed with %d %q", protocol, code, reason)
				}
			}
			wantRefusal(t, askGuard(t, m, newCertCall(t, protocol, leaf)), protocols.ReasonExpired)
		})
	}
}
