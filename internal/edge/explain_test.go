package edge_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/router/config"
)

// Every route redirects elsewhere, so that an answer says which one it was.
const telling = `
listen: "127.0.0.1:8443"
tls: { dev: true }
routes:
  - { path: /, redirect: "/1/*", header: { X-Env: canary, X-Any: "" } }
  - { path: /a/, redirect: "/2/*", method: [POST, PUT] }
  - { path: /a/b, redirect: "/3", host: [%[1]s, "[::1]"] }
  - { path: /a/, redirect: "/4/*", host: ["*.example.com", "www.example.org"], status: 302 }
  - { path: /a/, redirect: "/5/*", header: { X-Forwarded-For: "" } }
  - { path: /c, redirect: "/6", status: 307 }
  - { path: "/ü x/", redirect: "/7/*" }
`

// What is explained is what a running server does, over HTTP/1.1 and HTTP/2.
func TestExplainIsTrue(t *testing.T) {
	text := fmt.Sprintf(telling, oneporttest.Name)
	cfg := parse(t, text)
	_, port := sidecar(t, text)
	routes := make(map[string]bool)
	for _, q := range []struct {
		method, host, path string
		header             []string
	}{
		{"GET", oneporttest.Name, "/a/b", nil},
		{"GET", oneporttest.Name, "/a/b/", nil},
		{"GET", oneporttest.Name, "/a/./x/../b", nil},
		{"GET", "[::1]:8443", "/a/b", nil},
		{"GET", "other.org", "/a/b", nil},
		{"POST", "other.org", "/a/b?x=1&y=2", nil},
		{"PUT", "other.org", "/a/", nil},
		{"DELETE", "A.Example.COM:443", "/a/b", nil},
		{"GET", "a.example.com.", "/a/b", nil},
		{"GET", "a.b.example.com", "/a/b", nil},
		{"GET", "www.example.org", "/a/b/c%20d/", nil},
		{"GET", "www.example.org", "/a%2fb", nil},
		{"GET", "www.example.org", "/a/%2e%2e/c", nil},
		{"GET", "www.example.org", "/%C3%BC%20x/y", nil},
		{"GET", "other.org", "/a/b", []string{"X-Env: canary", "X-Any: 1"}},
		{"GET", "other.org", "/a/b", []string{"X-Env: canary"}},
		{"GET", "other.org", "/a/b", []string{"X-Env: prod", "x-any: 1"}},
		{"GET", "other.org", "/a/b", []string{"X-Forwarded-For: 10.0.0.1"}},
		{"GET", "other.org", "//c", nil},
		{"GET", "other.org", "/c/", nil},
		{"GET", "other.org", "/", nil},
	} {
		ask := edge.Question{Target: "https://" + oneporttest.Name + q.path, Method: q.method, Header: append([]string{"Host: " + q.host}, q.header...)}
		x, err := edge.Explain(cfg, ask)
		if err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		if x.Route != nil {
			routes[x.Route.Name] = true
		}
		for version, c := range clients(port) {
			c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			req, err := http.NewRequestWithContext(t.Context(), q.method, port.URL("/"), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host, req.URL.Opaque = q.host, "//"+q.host+q.path
			for _, f := range q.header {
				name, value, _ := strings.Cut(f, ": ")
				req.Header.Set(name, value)
			}
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			got := strings.TrimSpace(fmt.Sprint(res.StatusCode, " ", res.Header.Get("Location")))
			if want, _, _ := strings.Cut(x.Redirect+x.Answer, ": "); got != want {
				t.Errorf("%s %s %s %v over %s: got %s, explained as %s", q.method, q.host, q.path, q.header, version, got, want)
			}
		}
	}
	if len(routes) != 6 { // all but the one that wants what strangers may not say
		t.Errorf("routes %v were asked for, want all but routes[4]", routes)
	}
}

func TestExplainOfWrongQuestions(t *testing.T) {
	cfg := parse(t, fmt.Sprintf(telling, oneporttest.Name))
	for want, q := range map[string]edge.Question{
		"want a URL, as https://":        {Target: "/api/"},
		`"example.com": want a URL`:      {Target: "example.com"},
		`"": want a URL`:                 {},
		"none of http, https":            {Target: "ftp://example.com/"},
		"want a URL":                     {Target: "https:///x"},
		`"https://a b/": want`:           {Target: "https://a b/"},
		"user or a password":             {Target: "https://me:secret@example.com/"},
		"not both":                       {Target: "wss://example.com/", GRPC: true},
		"is a GET, not a POST":           {Target: "wss://example.com/", Method: "POST"},
		"is a POST of application/grpc,": {Target: "a.B/C", Method: "GET"},
		"'Name: value'":                  {Target: "https://example.com/", Header: []string{"X-Env"}},
		"of text/plain":                  {Target: "a.B/C", Header: []string{"Content-Type: text/plain"}},
	} {
		if x, err := edge.Explain(cfg, q); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v, %v, want %q", q, x, err, want)
		}
	}
}

// What comes of a connection before any route is asked.
func TestExplainOfConnections(t *testing.T) {
	for _, tc := range []struct {
		config string
		target string
		header string
		want   string
	}{
		{`listen: ":443"`, "http://example.com/", "", "400: every listener has TLS"},
		{`listen: [{ address: ":80", tls: off }]`, "https://example.com/", "", "400: every listener has tls: off"},
		{`listen: [{ address: ":80", tls: off }]`, "a.B/C", "", "UNIMPLEMENTED: no route takes it"},
		{`listen: ":443"`, "wss://example.com/", "", "404: no route takes it"},
		{"MTLS", "https://example.com/", "", "404: no route takes it"},
		{"MTLS", "https://example.com/", "Host: example.org", "421: the connection is for example.com, the call for example.org, and clients have certificates"},
		{"MTLS", "https://127.0.0.1/", "", "404: no route takes it"},
		{"MTLS", "https://127.0.0.1/", "Host: example.org", "421: the connection is for no name, the call for example.org, and clients have certificates"},
		{"MTLS", "a.B/C", "Host: example.org", "UNIMPLEMENTED: no route takes it"},
		{"MTLS any", "https://example.com/", "Host: example.org", "404: no route takes it"},
	} {
		text := strings.NewReplacer(
			"MTLS any", "listen: \":443\"\ntls: { dev: true, client_ca: a.crt, client_auth: required, any_host: true }",
			"MTLS", "listen: \":443\"\ntls: { dev: true, client_ca: a.crt, client_auth: required }",
		).Replace(tc.config)
		if !strings.Contains(text, "tls:") {
			text += "\ntls: { dev: true }"
		}
		cfg, err := config.Parse("oneport.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		q := edge.Question{Target: tc.target}
		if tc.header != "" {
			q.Header = []string{tc.header}
		}
		if x, err := edge.Explain(cfg, q); err != nil || x.Answer != tc.want {
			t.Errorf("%s %s: %+v, %v, want %s", tc.target, tc.header, x, err, tc.want)
		}
	}
}
