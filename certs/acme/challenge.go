package acme

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// answer is to one challenge, as it is given.
type answer struct {
	path, text string           // HTTP-01
	cert       *tls.Certificate // TLS-ALPN-01
}

func newAnswer(ch acme.Challenge) (a answer, err error) {
	if ch.Type == TLSALPN01 {
		a.cert, err = acmez.TLSALPN01ChallengeCert(ch)
		return a, err
	}
	return answer{path: ch.HTTP01ResourcePath(), text: ch.KeyAuthorization}, nil
}

// solver makes the answers to one kind of challenge available: to this instance
// in memory, to others that share the storage in a file. It is an acmez.Solver.
type solver struct{ *Source }

// Present makes the answer available.
func (s solver) Present(ctx context.Context, ch acme.Challenge) error {
	a, err := newAnswer(ch)
	if err != nil {
		return err
	}
	file, err := json.Marshal(ch)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.answers[ch.Type+" "+ch.Identifier.Value] = a
	s.mu.Unlock()
	return s.storage.Store(ctx, s.challengeKey(ch.Type, ch.Identifier.Value), file)
}

// CleanUp forgets the answer, also when ctx has ended.
func (s solver) CleanUp(ctx context.Context, ch acme.Challenge) error {
	s.mu.Lock()
	delete(s.answers, ch.Type+" "+ch.Identifier.Value)
	s.mu.Unlock()
	return s.storage.Delete(context.WithoutCancel(ctx), s.challengeKey(ch.Type, ch.Identifier.Value))
}

func (s *Source) challengeKey(kind, name string) string {
	return path.Join("acme", s.issuerKey(), "challenges", kind, certmagic.StorageKeys.Safe(name)+".json")
}

// errNoChallenge ends a handshake that answers no challenge.
var errNoChallenge = errors.New("certs/acme: no challenge is open for this name")

// answer gives the answer to a challenge that this instance or another one has
// been set. Strangers may ask: it costs the read of a small file, for our domains alone.
func (s *Source) answer(ctx context.Context, kind, name string) (answer, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if s.byName[name] == nil {
		return answer{}, errNoChallenge
	}
	s.mu.Lock()
	a, ok := s.answers[kind+" "+name]
	s.mu.Unlock()
	if ok {
		return a, nil
	}
	file, err := s.storage.Load(ctx, s.challengeKey(kind, name))
	if err != nil {
		return answer{}, errNoChallenge
	}
	var ch acme.Challenge
	if err := json.Unmarshal(file, &ch); err != nil || ch.Type != kind || ch.Identifier.Value != name {
		return answer{}, fmt.Errorf("%w: its file cannot be used", errNoChallenge)
	}
	return newAnswer(ch)
}

// ChallengeCertificate is the answer to a TLS-ALPN-01 challenge.
func (s *Source) ChallengeCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	a, err := s.answer(hello.Context(), TLSALPN01, hello.ServerName)
	return a.cert, err
}

// ChallengeText is the answer to an HTTP-01 challenge; false if the request of
// that path is for no challenge that is open.
func (s *Source) ChallengeText(ctx context.Context, host, path string) (string, bool) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	a, err := s.answer(ctx, HTTP01, host)
	if err != nil || a.path != path {
		return "", false
	}
	return a.text, true
}
