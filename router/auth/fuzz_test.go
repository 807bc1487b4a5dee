package auth_test

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"unicode"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

// Whatever a query is, no ticket that might be taken from it goes on to a server.
func FuzzTicketQuery(f *testing.F) {
	tickets := auth.NewTickets(auth.TicketsOptions{})
	for _, q := range []string{"ticket=T", "a=1&ticket=T&b", "ticket=T&ticket=T", "%74icket=T", "ticket%=T", "t+icket=T", "&&ticket&=T", "ticket=T;x"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		if strings.Contains(query, "#") {
			return
		}
		ticket := newTicket(t, tickets, &protocols.Identity{Subject: "alice", By: "fuzz" + query})
		path := "/ws?" + strings.ReplaceAll(query, "T", ticket)
		call := newCall(t, protocols.WebSocket, path)
		err := askGuard(t, tickets, call)
		shown := call.Shown(path)
		_, after, _ := strings.Cut(shown, "?")
		if values, _ := url.ParseQuery(after); values.Has("ticket") {
			t.Errorf("%q, refused %v: a server reads a ticket from %q", query, err, shown)
		}
	})
}

// Whatever names a certificate has, an identity is printable, and has a scheme only if that is a
// SPIFFE ID.
func FuzzCertNames(f *testing.F) {
	m, err := auth.NewMTLS(auth.MTLSOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("spiffe://example.org/web", "", "cn")
	f.Add("https://example.org", "a.example", "")
	f.Add("", "", "spiffe://example.org/web")
	f.Add("spiffe://example.org/%2e%2e/a", "x\n", "")
	f.Fuzz(func(t *testing.T, uri, dns, cn string) {
		leaf := newCert(cn)
		if u, err := url.Parse(uri); err == nil && uri != "" {
			leaf.URIs = []*url.URL{u}
		}
		if dns != "" {
			leaf.DNSNames = []string{dns}
		}
		call := newCertCall(t, protocols.HTTP, leaf)
		if askGuard(t, m, call) != nil {
			return
		}
		who := call.Identity().Subject
		if who == "" || len(who) > 2048 || strings.ContainsFunc(who, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("identity %q", who)
		}
		if strings.Contains(who, "://") && (len(leaf.URIs) != 1 || leaf.URIs[0].String() != who || !strings.HasPrefix(who, "spiffe://")) {
			t.Errorf("identity %q of URI %q, DNS %q, CN %q", who, uri, dns, cn)
		}
	})
}

// Whatever an authority says, clients and servers get nothing that breaks a line.
func FuzzVerdict(f *testing.F) {
	f.Add(200, "X-User-Id", "alice", "")
	f.Add(401, "WWW-Authenticate", "Bearer\r\nX: 1", "text\x00")
	f.Add(429, "Retry-After", "99999999999", strings.Repeat("é", 600))
	f.Fuzz(func(t *testing.T, status int, name, value, text string) {
		guard := newForward(t, auth.ForwardOptions{Upstream: []string{"X-User-Id"}, Authority: authorityFunc(func(context.Context, auth.Question) (auth.Verdict, error) {
			return auth.Verdict{Status: status, Text: text, Fields: []protocols.Field{{Name: name, Value: value}}, Remove: []string{name}}, nil
		})})
		call := newCall(t, protocols.GRPC, "/")
		err := askGuard(t, guard, call)
		if (err == nil) && (status < 200 || status > 299) {
			t.Errorf("admitted with %d", status)
		}
		breaks := func(s string) bool { return strings.ContainsAny(s, "\r\n\x00") }
		for _, fd := range call.Handed() {
			if breaks(fd.Value) || breaks(fd.Name) {
				t.Errorf("a server gets %q", fd)
			}
		}
		if r := protocols.RefusalOf(err); err != nil && (breaks(r.Challenge) || breaks(r.Text) || len(r.Text) > 1024) {
			t.Errorf("refusal %+v", r)
		}
	})
}
