package admin_test

import (
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/admin"
)

// Loopback is no protection: neither a page in a browser nor a name that leads here gets
// anything, and a change needs the token.
func TestRules(t *testing.T) {
	var h house
	h.serve(t, streams(), func(o *admin.Options) { o.Metrics = http.NotFoundHandler() })
	const level, routes, heap = "/api/v1/log-level", "/api/v1/connections", "/debug/pprof/heap"
	for _, c := range []struct {
		method, path, header string
		want                 int
	}{
		{"GET", routes, "", 200},
		{"GET", "/", "", 200},
		{"GET", "/", "Sec-Fetch-Site: cross-site", 200}, // a link leads to the page, which has no data
		{"GET", "/", "Host: evil.example", 403},
		{"GET", "/assets/none", "Sec-Fetch-Site: cross-site", 404},
		{"GET", "/assets/../api/v1/connections", "Sec-Fetch-Site: cross-site", 403},
		{"GET", "/assets/%2e%2e/api/v1/connections", "Sec-Fetch-Site: cross-site", 403},
		{"GET", "/assets%2f..%2fapi/v1/connections", "Sec-Fetch-Site: cross-site", 403},
		{"POST", "/", "", 401},
		{"GET", "/healthz", "", 200},
		{"GET", "/metrics", "", 404}, // asked, without a token; here it has none
		{"GET", "/metrics", "Host: evil.example", 403},
		{"GET", "/metrics", "Sec-Fetch-Site: cross-site", 403},
		{"GET", routes, "Host: localhost", 200},
		{"GET", routes, "Host: LOCALHOST.:9901", 200},
		{"GET", routes, "Host: [::1]:9901", 200},
		{"GET", routes, "Host: 127.1.2.3", 200},
		{"GET", routes, "Host: admin.example:9901", 200},
		{"GET", routes, "Host: evil.example", 403}, // DNS rebinding
		{"GET", routes, "Host: 127.0.0.1.evil.example", 403},
		{"GET", routes, "Host: localhost.evil.example", 403},
		{"GET", routes, "Host: 192.0.2.1", 403},
		{"GET", "/healthz", "Host: evil.example", 403},
		{"GET", routes, "Origin: http://evil.example", 403},
		{"GET", routes, "Origin: null", 403},
		{"GET", routes, "Origin: http://localhost:1", 403}, // another server of this machine
		{"GET", routes, "Origin: " + h.url, 200},
		{"GET", routes, "Sec-Fetch-Site: cross-site", 403},
		{"GET", routes, "Sec-Fetch-Site: same-site", 403},
		{"GET", routes, "Sec-Fetch-Site: none", 200},
		{"GET", routes, "Authorization: Bearer wrong", 401},
		{"GET", routes, bearer, 200},
		{"GET", heap, "", 401},
		{"GET", "//debug/pprof/heap", "", 401},
		{"GET", "/api/v1/../../debug/pprof/heap", "", 401},
		{"GET", heap, bearer, 200},
		{"GET", "/debug/pprof/nothing", bearer, 404},
		{"POST", level, "", 401},
		{"POST", level, "Authorization: Bearer " + token + "x", 401},
		{"POST", level, "Authorization: Bearer", 401},
		{"POST", level, "Authorization: Basic " + token, 401},
		{"POST", level, bearer, 200},
		{"POST", level + "?token=" + token, "", 401},
		{"POST", "/api/v1/drain", bearer, 501}, // this one has none
		{"GET", "/api/v1/kill", bearer, 405},
		{"PUT", level, bearer, 405},
		{"DELETE", routes, "", 401},
		{"HEAD", routes, "", 200},
	} {
		var fields []string
		if c.header != "" {
			fields = []string{c.header}
		}
		body := ""
		if strings.HasPrefix(c.path, level) {
			body = `{"level":"warn"}`
		}
		code, body := h.ask(t, c.method, c.path, body, fields...)
		if strings.Contains(c.path, "..") || strings.HasPrefix(c.path, "//") {
			if code == 200 {
				t.Errorf("%s %s: %d %s", c.method, c.path, code, body)
			}
			continue
		}
		if code != c.want {
			t.Errorf("%s %s, %s: %d %s, want %d", c.method, c.path, c.header, code, body, c.want)
		}
	}
	if _, res, err := websocket.DefaultDialer.DialContext(t.Context(), strings.Replace(h.url, "http", "ws", 1)+"/", http.Header{"Authorization": {"Bearer " + token}}); err == nil || res.StatusCode != http.StatusForbidden {
		t.Error("a WebSocket:", res, err)
	}
}

func TestRulesOfGRPC(t *testing.T) {
	var h house
	h.serve(t, streams(), nil)
	ctx := t.Context()
	with := func(kv ...string) (err error) {
		_, err = h.grpc.SetLogLevel(metadata.AppendToOutgoingContext(ctx, kv...), &adminv1.SetLogLevelRequest{Level: "warn"})
		return err
	}
	if _, err := h.grpc.ListConnections(ctx, &adminv1.ListConnectionsRequest{}); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		err  error
		want codes.Code
	}{
		"no token":    {with(), codes.Unauthenticated},
		"wrong":       {with("authorization", "Bearer wrong"), codes.Unauthenticated},
		"twice":       {with("authorization", "Bearer "+token, "authorization", "Bearer "+token), codes.Unauthenticated},
		"right":       {with("authorization", "bearer "+token), codes.OK},
		"from a page": {with("authorization", "Bearer "+token, "origin", "http://evil.example"), codes.PermissionDenied},
		"read and page": {func() error {
			_, err := h.grpc.GetHealth(metadata.AppendToOutgoingContext(ctx, "origin", "null"), &adminv1.GetHealthRequest{})
			return err
		}(), codes.PermissionDenied},
		"not here": {func() error {
			_, err := h.grpc.ListRoutes(ctx, &adminv1.ListRoutesRequest{})
			return err
		}(), codes.Unimplemented},
	} {
		if status.Code(c.err) != c.want {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
	if res, err := h.grpc.GetLogLevel(ctx, &adminv1.GetLogLevelRequest{}); err != nil || res.GetLevel() != "warn" {
		t.Error(res, err)
	}
}

// Where others reach the API, all needs the token, and any address may be in Host.
func TestRulesWhereOthersCome(t *testing.T) {
	rules, err := admin.NewRules(admin.RulesOptions{Token: token, Open: true})
	if err != nil {
		t.Fatal(err)
	}
	srv := &router.Server{HTTP: http.NotFoundHandler(), Log: slog.New(slog.DiscardHandler)}
	srv.Guards = append(srv.Guards, rules)
	h := house{url: "http://" + listen(t, srv)}
	for header, want := range map[string]int{"": 401, bearer: 404, bearer + "\nHost: 192.0.2.1": 404, bearer + "\nHost: evil.example": 403} {
		var fields []string
		if header != "" {
			fields = strings.Split(header, "\n")
		}
		if code, body := h.ask(t, http.MethodGet, "/api/v1/connections", "", fields...); code != want {
			t.Errorf("%q: %d %s, want %d", header, code, body, want)
		}
	}
	for path, want := range map[string]int{
		"/": 404, "/assets/x": 404, "/assets/../api/v1/connections": 401, "/assets/%2e%2e/api/v1/connections": 401, "//api/v1/connections": 401, "/healthz": 401, // the page itself asks for the token
	} {
		if code, body := h.ask(t, http.MethodGet, path, ""); code != want {
			t.Errorf("%s: %d %s, want %d", path, code, body, want)
		}
	}
}

// Browsers get the page, and others a list of what there is.
func TestPageIsForBrowsers(t *testing.T) {
	var h house
	h.serve(t, streams(), nil)
	for accept, want := range map[string]string{"text/html,application/xhtml+xml,*/*;q=0.8": "<!doctype html>", "*/*": "oneport admin\n", "application/json": "oneport admin\n"} {
		if code, body := h.ask(t, http.MethodGet, "/", "", "Accept: "+accept); code != http.StatusOK || !strings.HasPrefix(body, want) {
			t.Errorf("%s: %d %.40q, want %q", accept, code, body, want)
		}
	}
}

func TestShortTokens(t *testing.T) {
	if _, err := admin.NewRules(admin.RulesOptions{Token: "short"}); err == nil {
		t.Error("a short token is taken")
	}
	rules, err := admin.NewRules(admin.RulesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	srv := &router.Server{HTTP: http.NotFoundHandler(), Log: slog.New(slog.DiscardHandler)}
	srv.Guards = append(srv.Guards, rules)
	h := house{url: "http://" + listen(t, srv)}
	for _, header := range []string{"Authorization: Bearer ", "Authorization: Bearer x"} {
		if code, _ := h.ask(t, http.MethodPost, "/api/v1/drain", "", header); code != 401 {
			t.Errorf("without a token %q gets %d", header, code)
		}
	}
}

// revoker notes what it is asked for.
type revoker struct{ asked []string }

func (r *revoker) Revoke(issuer, subject string, until time.Time) (int, error) {
	r.asked = append(r.asked, subject+" of "+issuer+" for "+time.Until(until).Round(time.Minute).String())
	return 0, nil
}

func (r *revoker) Unrevoke(issuer, subject string) bool {
	r.asked = append(r.asked, subject+" of "+issuer+" lifted")
	return true
}

func TestKillAsksForWhatItNeeds(t *testing.T) {
	var h house
	rev := new(revoker)
	h.serve(t, streams(), func(o *admin.Options) { o.Revoker = rev })
	for body, want := range map[string]string{
		``:                                    "want one of",
		`{"upstream": ""}`:                    "name",
		`{"identity": {}}`:                    "subject",
		`{"connection": "x", "revoke": "5s"}`: "goes with identity",
		`{"identity": {"subject": "a"}, "revoke": "0s"}`:      "from 1s",
		`{"identity": {"subject": "a"}, "revoke": "48h"}`:     "invalid",
		`{"identity": {"subject": "a"}, "revoke": "172800s"}`: "to 24h",
		`{"identity": {"subject": "a"}, "revoke": "5s"}`:      "issuer",
		`{"connection": "x", "upstream": "y"}`:                "oneof",
		`{"user": "x"}`:                                       "unknown field",
		strings.Repeat(" ", 70<<10):                           "larger than",
		`{"connection": "` + strings.Repeat("[", 1000) + `"`:  "unexpected EOF",
	} {
		if code, got := h.ask(t, http.MethodPost, "/api/v1/kill", body, bearer); code != 400 || !strings.Contains(got, want) {
			t.Errorf("%.60s: %d %s, want %s", body, code, got, want)
		}
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
	if _, err := h.grpc.Kill(ctx, &adminv1.KillRequest{
		What: &adminv1.KillRequest_Identity{Identity: &adminv1.KillIdentity{Subject: "alice", Issuer: "test"}}, Revoke: durationpb.New(time.Minute),
	}); err != nil || len(rev.asked) != 1 || rev.asked[0] != "alice of test for 1m0s" {
		t.Error(rev.asked, err)
	}
}

// Probes are open to all, and serve nothing else.
func TestProbes(t *testing.T) {
	var check atomic.Pointer[adminv1.Check]
	check.Store(&adminv1.Check{Name: "upstream web", Ok: true})
	open := streams()
	api, err := admin.New(admin.Options{Port: open, Calls: protocols.NewCalls(), Checks: func() []*adminv1.Check { return []*adminv1.Check{check.Load()} }})
	if err != nil {
		t.Fatal(err)
	}
	h := house{url: "http://" + listen(t, &router.Server{HTTP: api.Probes(), Log: slog.New(slog.DiscardHandler)})}
	for _, c := range []struct {
		ok, red bool
		path    string
		code    int
		want    string
	}{
		{true, false, "/healthz", 200, "ok\n"},
		{true, false, "/readyz", 200, "ready\n"},
		{true, false, "/readyz?verbose", 200, "[+] upstream web\nready\n"},
		{false, false, "/readyz?verbose", 200, "[!] upstream web: why\nready\n"},
		{false, true, "/readyz?verbose", 503, "[-] upstream web: why\nnot ready\n"},
		{false, true, "/readyz", 503, "not ready\n"},
		{false, true, "/healthz", 200, "ok\n"},
		{true, false, "/api/v1/connections", 404, "404 page not found\n"},
		{true, false, "/debug/pprof/heap", 404, "404 page not found\n"},
	} {
		is := &adminv1.Check{Name: "upstream web", Ok: c.ok, Red: c.red}
		if !c.ok {
			is.Text = "why"
		}
		check.Store(is)
		if code, body := h.ask(t, http.MethodGet, c.path, "", "Host: 10.0.0.1:9902", "Origin: http://x"); code != c.code || body != c.want {
			t.Errorf("%s: %d %q, want %d %q", c.path, code, body, c.code, c.want)
		}
	}
}
