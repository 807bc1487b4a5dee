package certs

import (
	"context"
	"crypto/tls"
	"log/slog"
	"strings"
	"sync"
)

// Challenged is a Source that answers the challenges by which a CA sees that a
// name is ours: certs/acme. Strangers may call both, concurrently.
type Challenged interface {
	Source
	// ChallengeCertificate is for a handshake whose only protocol is acme-tls/1
	// (RFC 8737). An error ends it.
	ChallengeCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	// ChallengeText answers a plaintext GET below /.well-known/acme-challenge/
	// (RFC 8555, 8.3); false leaves the request to others.
	ChallengeText(ctx context.Context, host, path string) (string, bool)
}

// challengeProtocol is the ALPN protocol of handshakes that are challenges.
const challengeProtocol = "acme-tls/1"

// isChallenge reports whether a handshake is a challenge: it offers that
// protocol and no other.
func isChallenge(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == challengeProtocol
}

// answerChallenges gives handshakes that are challenges a tls.Config of their
// own: a CA shows no client certificate, and no other client is to select the protocol.
func answerChallenges(base *tls.Config, src Challenged) {
	challenge := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		CipherSuites:           suites(),
		NextProtos:             []string{challengeProtocol},
		GetCertificate:         src.ChallengeCertificate,
		SessionTicketsDisabled: true,
	}
	others := base.GetConfigForClient
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch {
		case isChallenge(hello):
			return challenge, nil
		case others == nil:
			return nil, nil //nolint:nilnil // crypto/tls: nil means the original config
		}
		return others(hello)
	}
}

// joined is two sources.
type joined struct{ first, second Source }

// challenged is two sources the second of which answers challenges.
type challenged struct {
	joined
	answers Challenged
}

func (c *challenged) ChallengeCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.answers.ChallengeCertificate(hello)
}

func (c *challenged) ChallengeText(ctx context.Context, host, path string) (string, bool) {
	return c.answers.ChallengeText(ctx, host, path)
}

// Join gives the certificates of first for the names that they are for, and
// those of second for others. When second has none for a name, the choice is
// first's.
func Join(first, second Source) Source {
	j := joined{first, second}
	if c, ok := second.(Challenged); ok {
		return &challenged{j, c}
	}
	return &j
}

func (j *joined) Load() error {
	if err := j.first.Load(); err != nil {
		return err
	}
	return j.second.Load()
}

func (j *joined) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if name := strings.ToLower(strings.TrimSuffix(hello.ServerName, ".")); name != "" && !named(j.first.Names(), name) {
		if cert, err := j.second.Certificate(hello); cert != nil || err != nil {
			return cert, err
		}
	}
	return j.first.Certificate(hello)
}

// named reports whether name is among names, or one label below a wildcard there.
func named(names []string, name string) bool {
	_, rest, _ := strings.Cut(name, ".")
	for _, n := range names {
		if n == name || n == "*."+rest {
			return true
		}
	}
	return false
}

func (j *joined) Names() []string {
	names := append([]string(nil), j.first.Names()...)
	for _, n := range j.second.Names() {
		if !named(names, n) {
			names = append(names, n)
		}
	}
	return names
}

func (j *joined) Watch(ctx context.Context, log *slog.Logger) {
	var work sync.WaitGroup
	work.Go(func() { j.first.Watch(ctx, log) })
	work.Go(func() { j.second.Watch(ctx, log) })
	work.Wait()
}
