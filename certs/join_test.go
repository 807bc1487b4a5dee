package certs_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"testing"

	"github.com/oneport-edge/oneport/certs"
)

// authority is a Challenged with a certificate for one name, and another name that has none yet.
type authority struct{ certs.Source }

func (a authority) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	switch hello.ServerName {
	case "late.test":
		return nil, certs.ErrNoCertificate
	case "own.test", "both.test":
		return a.Source.Certificate(hello)
	}
	return nil, nil //nolint:nilnil // not its name
}

func (a authority) ChallengeCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return a.Source.Certificate(hello)
}

func (a authority) ChallengeText(_ context.Context, host, path string) (string, bool) {
	return host + path, true
}

// Of two sources the first is for its names, and for those that nobody has.
func TestJoin(t *testing.T) {
	ca := newCA(t)
	file, _ := ca.Server("file.test", "*.wild.test", "both.test")
	own, _ := ca.Server("own.test", "both.test")
	src := certs.Join(certs.Static(file), authority{certs.Static(own)})
	if err := src.Load(); err != nil {
		t.Fatal(err)
	}
	cfg := certs.Config(src, certs.Options{})
	if err := certs.Check(cfg, []string{"file.test", "a.wild.test", "both.test", "own.test"}); err != nil {
		t.Error(err)
	}
	for sni, want := range map[string]*tls.Certificate{
		"file.test": &file, "a.wild.test": &file, "a.b.wild.test": &file, "both.test": &file, "own.test": &own, "other.test": &file, "": &file, "late.test": nil,
	} {
		state, err := shown(t, cfg, &tls.Config{ServerName: sni, InsecureSkipVerify: true})
		if (err == nil) != (want != nil) || want != nil && !state.PeerCertificates[0].Equal(want.Leaf) {
			t.Errorf("%q: %v", sni, err)
		}
	}
	if got := len(src.Names()); got != 4 {
		t.Errorf("names: %v", src.Names())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	src.Watch(ctx, slog.New(slog.DiscardHandler))

	answers, ok := src.(certs.Challenged)
	if !ok {
		t.Fatal("answers no challenges")
	}
	if text, ok := answers.ChallengeText(ctx, "own.test", "/x"); !ok || text != "own.test/x" {
		t.Errorf("answers %q", text)
	}
	state, err := shown(t, cfg, &tls.Config{ServerName: "own.test", InsecureSkipVerify: true, NextProtos: []string{"acme-tls/1"}})
	if err != nil || state.NegotiatedProtocol != "acme-tls/1" {
		t.Errorf("a challenge: %q, %v", state.NegotiatedProtocol, err)
	}

	plain := certs.Join(certs.Static(file), certs.Static(own))
	if _, ok := plain.(certs.Challenged); ok {
		t.Error("two sources without a CA answer challenges")
	}
	if err := plain.Load(); err != nil {
		t.Fatal(err)
	}
	if _, err := shown(t, certs.Config(plain, certs.Options{}), &tls.Config{ServerName: "own.test", InsecureSkipVerify: true, NextProtos: []string{"acme-tls/1"}}); err == nil {
		t.Error("a challenge is answered without a CA")
	}
	if err := certs.Join(certs.Static(), plain).Load(); err == nil {
		t.Error("the first source's mistake is hidden")
	}
}
