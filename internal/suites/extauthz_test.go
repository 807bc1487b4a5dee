//go:build suites

package suites

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/auth"
	"github.com/oneport-edge/oneport/router/auth/extauthz"
)

// A service on Envoy's own types understands what we ask, and we understand it.
func TestExtAuthz(t *testing.T) {
	addr := "127.0.0.1:" + strconv.Itoa(freePort(t))
	process := startProcess(t, nil, program(t, "ext-authz"), "-listen", addr)
	await(t, 20*time.Second, "ext-authz listens", func() bool { return process.out.count("listening on") > 0 })
	service, err := extauthz.New(extauthz.Options{Target: addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = service.Close() })
	guard, err := auth.NewForward(auth.ForwardOptions{Authority: service, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ca, err := certs.NewCA("clients")
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.Client("alice")
	if err != nil {
		t.Fatal(err)
	}
	source := devCerts(t)
	secure, plaintext := start(t, &router.Server{
		Certs: source, Guards: []protocols.Guard{guard}, ClientAuth: certs.ClientAuth{CAs: certs.CAPool(ca.Pool())},
		HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if id := protocols.IdentityFrom(r.Context()); id != nil {
				_, _ = io.WriteString(w, id.Subject)
			}
		}),
	})
	pem, err := os.ReadFile(source.CACert())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{client}}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	web := &http.Client{Transport: tr}
	for _, tc := range []struct {
		url, token string
		status     int
		want       string // a part of the body
	}{
		{
			"https://localhost:" + secure + "/a%20b?x=1&y", "Bearer good", 200,
			`GET https://localhost:` + secure + `/a%20b?x=1&y HTTP/2 from 127.0.0.1 to port ` + secure + ` as "CN=alice" sni "localhost" at 1 fields :authority,:method,:path,authorization unknown 0`,
		},
		{
			"http://127.0.0.1:" + plaintext + "/", "Bearer good", 200,
			`GET http://127.0.0.1:` + plaintext + `/ HTTP/1.1 from 127.0.0.1 to port ` + plaintext + ` as "" sni "" at 1 fields :authority,:method,:path,authorization unknown 0`,
		},
		{"https://localhost:" + secure, "Bearer raw", 200, "raw"},
		{"https://localhost:" + secure, "", 401, "log in"},
		{"https://localhost:" + secure, "Bearer poor", 403, "not allowed"},
		{"https://localhost:" + secure, "Bearer broken", 503, "overloaded"},
		{"https://localhost:" + secure, "Bearer empty", 503, "overloaded"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tc.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tc.token != "" {
			req.Header.Set("Authorization", tc.token)
		}
		res, err := web.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != tc.status || !strings.Contains(string(body), tc.want) {
			t.Errorf("%s, %q: %d %s, %v; want %d %s", tc.url, tc.token, res.StatusCode, body, err, tc.status, tc.want)
		}
		if challenge := res.Header.Get("WWW-Authenticate"); tc.status == http.StatusUnauthorized && challenge != `Bearer realm="ext-authz"` {
			t.Errorf("challenge %q", challenge)
		}
	}
}
