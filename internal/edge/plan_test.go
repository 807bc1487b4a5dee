package edge_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/router/config"
	"github.com/oneport-edge/oneport/router/upstream"
)

const planned = `
listen: "127.0.0.1:8443"
tls: { dev: true }
upstreams:
  web: { servers: ["http://127.0.0.1:1"] }
  old: { servers: ["http://127.0.0.1:2"] }
  rpc: { servers: ["grpc://127.0.0.1:3"] }
routes:
  - { grpc: a.B, to: rpc }
  - { path: /one, to: web }
  - { path: /two, to: old, host: a.example.com }
  - { name: three, path: /three, to: web }
  - { path: /, to: web, header: { X-Env: canary } }
`

// Each edit of a file is said by what it changes, and nothing else is.
func TestCompare(t *testing.T) {
	for name, tc := range map[string]struct {
		edit []string // pairs: what, by what
		want string
	}{
		"nothing":  {nil, ""},
		"comments": {[]string{"routes:\n", "# more\n\nroutes:\n"}, ""},
		"server":   {[]string{"http://127.0.0.1:1", "http://127.0.0.1:9"}, "upstreams_changed=web (servers)"},
		"limits":   {[]string{`"http://127.0.0.1:1"] }`, `"http://127.0.0.1:1"], limits: { requests: 5 }, slow_start: 5s }`}, "upstreams_changed=web (limits, slow_start)"},
		"balance":  {[]string{`"http://127.0.0.1:1"] }`, `"http://127.0.0.1:1"], balance: hash, hash: { cookie: a } }`}, "upstreams_changed=web (balance, hash)"},
		"split":    {[]string{"/one, to: web", "/one, to: { web: 9, old: 1 }"}, "routes_changed=path /one (to)"},
		"weights":  {[]string{"{ name: three, path: /three, to: web }", "{ name: three, path: /three, to: web, rewrite: /3, cors: { origins: [\"*\"] } }"}, "routes_changed=three (rewrite, cors)"},
		"socket": {
			[]string{"{ path: /one, to: web }", "{ websocket: /one, to: web }", "{ name: three, path: /three", "{ name: three, websocket: /three, ping: 5s"},
			"routes_added=websocket /one routes_changed=three (websocket, path, mode) routes_removed=path /one",
		},
		"upstream renamed": {
			[]string{"  old:", "  new:", "to: old", "to: new"},
			"upstreams_added=new upstreams_removed=old routes_changed=path /two, host a.example.com (to)",
		},
		"route added":        {[]string{"routes:\n", "routes:\n  - { path: /zero, to: web }\n"}, "routes_added=path /zero"},
		"route removed":      {[]string{"  - { path: /one, to: web }\n", ""}, "routes_removed=path /one"},
		"route moved":        {[]string{"  - { path: /one, to: web }\n", "", "  - { name: three", "  - { path: /one, to: web }\n  - { name: three"}, "routes_reordered=true"},
		"route leads away":   {[]string{"/one, to: web", "/one, redirect: /two"}, "routes_changed=path /one (to, redirect, status)"},
		"named route":        {[]string{"path: /three, to: web", "path: /3/, to: old, method: GET"}, "routes_changed=three (path, method, to)"},
		"header":             {[]string{"canary", "beta"}, "routes_added=path /, header X-Env: beta routes_removed=path /, header X-Env: canary"},
		"listener and limit": {[]string{":8443", ":8444", "routes:", "limits: { connections: 5 }\nroutes:"}, "restart=listen,limits"},
		"client auth":        {[]string{"dev: true", "dev: true, client_ca: a, client_auth: required"}, "restart=tls"},
		"passthrough":        {[]string{"routes:\n", "routes:\n  - { sni: x.org, passthrough: \"127.0.0.1:1\" }\n"}, "routes_added=sni x.org restart=routes with passthrough"},
		"drain and log":      {[]string{"routes:", "drain: { timeout: 40s }\nlog: { level: warn }\nroutes:"}, "restart=drain,log"},
	} {
		t.Run(name, func(t *testing.T) {
			plan := edge.Compare(parse(t, planned), parse(t, strings.NewReplacer(tc.edit...).Replace(planned)))
			var got []string
			for pair := range slices.Chunk(plan.Attrs(), 2) {
				got = append(got, fmt.Sprintf("%v=%v", pair...))
			}
			if len(plan.Restart) > 0 {
				got = append(got, "restart="+strings.Join(plan.Restart, ","))
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("got %s\nwant %s", s, tc.want)
			}
			if plan.Nothing() != (tc.want == "") {
				t.Errorf("nothing: %t\n%s", plan.Nothing(), plan.Text())
			}
		})
	}
}

// A field of a route or an upstream that has no key would be called by a wrong name.
func TestChangesNameKeys(t *testing.T) {
	schema := string(config.Schema())
	for _, of := range []any{config.Route{}, config.Upstream{}, upstream.Options{}, config.Tunnel{}} {
		typ := reflect.TypeOf(of)
		for f := range typ.Fields() {
			if f.IsExported() && f.Name != "Options" && f.Name != "Log" && f.Type != reflect.TypeFor[config.Pos]() {
				if key := edge.KeyOf(f.Name); !strings.Contains(schema, `"`+key+`": {`) {
					t.Errorf("%v.%s is called %q, which is no key", typ, f.Name, key)
				}
			}
		}
	}
}

// An edge counts what was loaded, and remembers why it was not.
func TestLoads(t *testing.T) {
	text := fmt.Sprintf(before, "127.0.0.1:1", oneporttest.Name)
	e, _ := sidecar(t, text)
	check := func(good, failed int, err error) {
		t.Helper()
		if got := e.Loads(); got.Good != good || got.Failed != failed || !errors.Is(got.Err, err) || got.At.IsZero() {
			t.Errorf("%+v, want %d, %d, %v", got, good, failed, err)
		}
	}
	check(1, 0, nil)
	broken := errors.New("broken")
	e.LoadFailed(broken)
	check(1, 1, broken)
	cfg := parse(t, strings.Replace(text, "{ dev: true }", "{ certificates: [{ cert: nowhere.crt, key: nowhere.key }] }", 1))
	_, err := e.Reload(cfg)
	if err == nil {
		t.Fatal("loaded without certificates")
	}
	check(1, 2, err)
	// What is compared with is what is in effect, not what was tried.
	plan, err := e.Reload(parse(t, strings.Replace(text, "127.0.0.1:1", "127.0.0.1:2", 1)))
	if err != nil || len(plan.Upstreams.Changed) != 1 || len(plan.Restart) > 0 {
		t.Errorf("%+v, %v", plan, err)
	}
	check(2, 2, nil)
	if plan, err := e.Reload(parse(t, text)); err != nil || len(plan.Upstreams.Changed) != 1 {
		t.Errorf("%+v, %v", plan, err)
	}
	check(3, 2, nil)
}
