package router_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
	"github.com/oneport-edge/oneport/router"
)

// challengedSource answers every challenge for one.test.
type challengedSource struct{ certs.Source }

func (s challengedSource) ChallengeCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.Certificate(hello)
}

func (s challengedSource) ChallengeText(_ context.Context, host, path string) (string, bool) {
	return "answer", host == "one.test" && path == "/.well-known/acme-challenge/token"
}

// pendingSource has no certificate yet.
type pendingSource struct{ challengedSource }

func (pendingSource) Load() error     { return nil }
func (pendingSource) Names() []string { return nil }
func (pendingSource) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return nil, nil //nolint:nilnil // none yet
}

// serveBoth serves srv on a TLS port and a plaintext one until the test ends.
func serveBoth(t *testing.T, srv *router.Server) (secure, plain *oneporttest.Listener) {
	t.Helper()
	secure, plain = oneporttest.NewListener(), oneporttest.NewListener()
	srv.Listeners = []router.Listener{{Listener: secure}, {Listener: plain, Plaintext: true}}
	srv.Log = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.ListenAndServe(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return secure, plain
}

// say sends a request as it stands on a connection of its own.
func say(t *testing.T, ln *oneporttest.Listener, cfg *tls.Config, method, host, path string) (status int, body string) {
	t.Helper()
	c, err := ln.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if cfg != nil {
		c = tls.Client(c, cfg)
	}
	if _, err := io.WriteString(c, method+" "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// A CA's challenges are answered on all listeners, before guards and handlers;
// what is no challenge goes its usual way.
func TestChallenges(t *testing.T) {
	ca, err := certs.NewCA("test CA")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Server("one.test")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	srv := &router.Server{
		Certs:         challengedSource{certs.Static(cert)},
		Guards:        []protocols.Guard{tokens(&asked)},
		RedirectPlain: true,
	}
	secure, plain := serveBoth(t, srv)
	const token, other = "/.well-known/acme-challenge/token", "/.well-known/acme-challenge/other"
	client := &tls.Config{RootCAs: ca.Pool(), ServerName: "one.test"}
	for _, tc := range []struct {
		ln                 *oneporttest.Listener
		cfg                *tls.Config
		method, host, path string
		want               int
		guarded            int64
	}{
		{plain, nil, http.MethodGet, "one.test", token, http.StatusOK, 0},
		{plain, nil, http.MethodGet, "one.test", other, http.StatusUnauthorized, 1},
		{plain, nil, http.MethodGet, "two.test", token, http.StatusUnauthorized, 1},
		{plain, nil, http.MethodPost, "one.test", token, http.StatusUnauthorized, 1},
		{secure, nil, http.MethodGet, "one.test", token, http.StatusOK, 0},
		{secure, nil, http.MethodGet, "one.test", other, http.StatusPermanentRedirect, 0},
		{secure, client, http.MethodGet, "one.test", token, http.StatusUnauthorized, 1},
	} {
		before := asked.Load()
		status, body := say(t, tc.ln, tc.cfg, tc.method, tc.host, tc.path)
		if status != tc.want || asked.Load()-before != tc.guarded || status == http.StatusOK && body != "answer" {
			t.Errorf("%s %s%s, TLS %t: %d %q, guards asked %d times", tc.method, tc.host, tc.path, tc.cfg != nil, status, body, asked.Load()-before)
		}
	}

	c, err := secure.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	tc := tls.Client(c, &tls.Config{RootCAs: ca.Pool(), ServerName: "one.test", NextProtos: []string{"acme-tls/1"}})
	if err := tc.HandshakeContext(t.Context()); err != nil || tc.ConnectionState().NegotiatedProtocol != "acme-tls/1" {
		t.Fatalf("%v, selected %q", err, tc.ConnectionState().NegotiatedProtocol)
	}
	if n, err := tc.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // crypto/tls gives it as it is, for a clean end alone
		t.Errorf("behind the challenge: %d bytes, %v", n, err)
	}
	waitFor(t, func() bool { return srv.Stats().Conns.Ended[conn.ReasonChallenge] == 1 })
}

// The port opens before there is a certificate.
func TestServesBeforeTheCertificate(t *testing.T) {
	srv := &router.Server{Certs: pendingSource{challengedSource{certs.Static()}}}
	secure, plain := serveBoth(t, srv)
	if status, body := say(t, plain, nil, http.MethodGet, "one.test", "/.well-known/acme-challenge/token"); status != http.StatusOK || body != "answer" {
		t.Errorf("%d %q", status, body)
	}
	c, err := secure.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if err := tls.Client(c, &tls.Config{ServerName: "one.test", MinVersion: tls.VersionTLS13}).HandshakeContext(t.Context()); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("a handshake without a certificate: %v", err)
	}
}
