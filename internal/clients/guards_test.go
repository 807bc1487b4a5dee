//go:build clients

package clients_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
)

// guardsFile has a route for each way to be refused. gRPC calls choose theirs by x-row.
const guardsFile = `
listen: "127.0.0.1:0"
tls: { certificates: [{ cert: %[1]q, key: %[2]q }] }
upstreams:
  web: { servers: ["http://%[3]s"] }
  h2c: { servers: ["h2c://%[3]s"] }
  rpc: { servers: ["grpc://%[3]s"] }
  gone: { servers: ["http://127.0.0.1:1"] }
auth:
  jwt: { issuer: test, audience: edge, keys: %[4]q, from: [header, "cookie:session", subprotocol, "query:token"] }
  keys: { file: %[5]q }
  forward: { url: "http://%[3]s/decide" }
limits:
  named:
    few: { rate: 1/h, burst: 1, per: all }
    one: { concurrency: 1, per: all }
    wait: { concurrency: 1, queue: 4, wait: 100ms, per: all }
log: { level: debug, format: json, access: true }
drain: { not_ready: 0s, spread: 0s }
routes:
  - { grpc: oneport.echo.v1.Echo, to: rpc, auth: jwt, header: { x-row: in } }
  - { grpc: oneport.echo.v1.Echo, to: rpc, auth: jwt, header: { x-row: admin }, allow: { claims: { role: admin } } }
  - { grpc: oneport.echo.v1.Echo, to: rpc, auth: jwt, header: { x-row: few }, limit: few }
  - { grpc: oneport.echo.v1.Echo, to: rpc, auth: jwt, header: { x-row: one }, limit: one }
  - { grpc: oneport.echo.v1.Echo, to: rpc, auth: jwt, header: { x-row: wait }, limit: wait }
  - { websocket: /in, to: web, auth: jwt }
  - { websocket: /slow, to: web, auth: jwt, message_rate: 20/s }
  - { websocket: /raw, to: web, auth: jwt, mode: raw }
  - { websocket: /admin, to: web, auth: jwt, allow: { claims: { role: admin } } }
  - { websocket: /few, to: web, auth: jwt, limit: few }
  - { websocket: /one, to: web, auth: jwt, limit: one }
  - { websocket: /wait, to: web, auth: jwt, limit: wait }
  - { websocket: /gone, to: gone, auth: jwt }
  - { path: /page, to: web }
  - { path: /in, to: web, auth: jwt }
  - { path: /crash, to: web, auth: jwt }
  - { path: /admin, to: web, auth: jwt, allow: { claims: { role: admin } } }
  - { path: /few, to: web, auth: jwt, limit: few }
  - { path: /one/, to: web, auth: jwt, limit: one }
  - { path: /wait/, to: web, auth: jwt, limit: wait }
  - { path: /h2c, to: h2c, auth: jwt }
  - { path: /mirror, to: web, auth: jwt, mirror: web }
  - { path: /rewrite/, to: web, auth: jwt, rewrite: / }
  - { path: /fallback, to: gone, auth: jwt, fallback: { to: web } }
  - { path: /gone, to: gone, auth: jwt }
  - { path: /forward, to: web, auth: { all: [jwt, forward] } }
  - { path: /either, to: web, auth: [keys, jwt] }
`

// guards are the tokens and the port that the tests of guards have.
type guards struct {
	*demo
	oneport string // the program
	file    string // what it serves
	key     string // that tokens are signed with
	keys    string // the file of API keys
	robot   string // an API key
	witness *witness
}

// token has the program make one: extra are flags.
func (g *guards) token(t *testing.T, extra ...string) string {
	t.Helper()
	args := append([]string{"token", "make", "--key", g.key, "--iss", "test", "--aud", "edge"}, extra...)
	return strings.TrimSpace(g.run(t, time.Minute, g.oneport, args...))
}

// guarded starts "oneport serve" with guards before a witness. What replaced replaces by pairs is so in its file.
func (d *demo) guarded(t *testing.T, pairs ...string) *guards {
	t.Helper()
	dir := t.TempDir()
	g := &guards{demo: d, oneport: d.cmd.Path, file: filepath.Join(dir, "oneport.yaml"), key: filepath.Join(dir, "token.key"), witness: newWitness(t)}
	public := filepath.Join(dir, "token.pem")
	g.keys = filepath.Join(dir, "keys")
	g.token(t, "--sub", "nobody", "--generate", "--public", public)
	var line string
	g.robot, line = apiKey(t, g)
	for path, text := range map[string]string{
		g.keys: line + "\n",
		g.file: fmt.Sprintf(replaced(t, guardsFile, pairs...), filepath.Join(d.certs, "server.crt"), filepath.Join(d.certs, "server.key"), g.witness.addr, public, g.keys),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := serve(t, g.oneport, []string{"serve", "-c", g.file}, 1)
	p.certs, p.plain = d.certs, p.addr // a plaintext port is not asked for
	p.env = append(slices.Clone(d.env), "ONEPORT_ADDR="+p.addr)
	g.demo = p
	return g
}

// apiKey has the program make a key and the line for it.
func apiKey(t *testing.T, g *guards) (key, line string) {
	t.Helper()
	_, out, _ := g.output(t, time.Minute, g.oneport, "apikey", "robot")
	key = regexp.MustCompile(`op_\w+`).FindString(out)
	line = regexp.MustCompile(`robot:[0-9a-f]{64}`).FindString(out)
	if key == "" || line == "" {
		t.Fatalf("oneport apikey printed %q", out)
	}
	return key, line
}

// guards holds what the port says of who may call against what clients understand, in all
// three protocols.
func (d *demo) guards(t *testing.T) {
	g := d.guarded(t)
	tokens := map[string]string{
		"alice":   g.token(t, "--sub", "alice"),
		"admin":   g.token(t, "--sub", "root", "--claim", "role=admin"),
		"expired": g.token(t, "--sub", "alice", "--ttl", "-1h"),
		"broken":  "x.y.z",
	}
	g.revoke(t)
	g.hold(t, tokens["alice"])
	t.Run("curl", func(t *testing.T) { g.curlRefusals(t, tokens) })
	t.Run("grpcurl", func(t *testing.T) { g.grpcurlRefusals(t, tokens) })
	t.Run("sources", func(t *testing.T) { g.sources(t, tokens["alice"]) })
	text, err := json.Marshal(tokens)
	if err != nil {
		t.Fatal(err)
	}
	g.env = append(g.env, "ONEPORT_TOKENS="+string(text), "ONEPORT_PROGRAM="+g.oneport, "ONEPORT_TOKEN_KEY="+g.key, "ONEPORT_SERVER="+filepath.Join(g.certs, "server"))
	for _, script := range []string{"guards", "guards_browser"} {
		t.Run(script, func(t *testing.T) { t.Logf("\n%s", g.node(t, script)) })
	}
	log, err := os.ReadFile(g.log)
	if err != nil {
		t.Fatal(err)
	}
	// A foreign page's cookie did come: the browser has not kept it back.
	if !strings.Contains(string(log), `"reason":"cross-origin","guard":"jwt","protocol":"websocket"`) {
		t.Error("no WebSocket was refused for a cookie of another origin's page")
	}
}

// revoke takes a key back: its file is read again when the port is told to, though the one
// that names it is as it was.
func (g *guards) revoke(t *testing.T) {
	t.Helper()
	ask := []string{"-o", "/dev/null", "-w", "%{http_code}", "-H", "X-API-Key: " + g.robot, g.url("/either")}
	if got := g.curls(t, ask...); got != "200" {
		t.Errorf("an API key: %s", got)
	}
	if err := os.WriteFile(g.keys, []byte("# nobody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !g.says(t, `"guards_changed":"auth.keys"`) {
		t.Error("the file of keys is not read again")
	}
	if got := g.curls(t, ask...); got != "401" {
		t.Errorf("an API key that was taken back: %s", got)
	}
}

// hold takes the one place that each of two limits has, and the one call of a third,
// for the rest of the test.
func (g *guards) hold(t *testing.T, token string) {
	t.Helper()
	auth := "Authorization: Bearer " + token
	for _, path := range []string{"/one/hold", "/wait/hold"} {
		cmd := g.command(t, time.Minute, "curl", "-q", "-sS", "-N", "--cacert", g.ca(), "-H", auth, g.url(path))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it was killed
		})
		select {
		case <-g.witness.held:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s does not arrive", path)
		}
	}
	if out := g.curls(t, "-H", auth, "-w", "%{http_code}", g.url("/few")); out != "served\n200" {
		t.Fatalf("the one call of an hour: %s", out)
	}
}

// refusals are the rows of the table of refusals that guards give.
var refusals = []struct {
	row, token string
	http       string
	field      string // in lower case; a pattern
	grpc       string
	message    string
	retry      string // RetryInfo; a pattern
}{
	{"in", "", "401", `www-authenticate: bearer realm="oneport"\r`, "Unauthenticated", "credentials are missing or bad", ""},
	{"in", "broken", "401", `www-authenticate: bearer realm="oneport", error="invalid_token"\r`, "Unauthenticated", "credentials are missing or bad", ""},
	{"in", "expired", "401", `www-authenticate: bearer realm="oneport", error="invalid_token"\r`, "Unauthenticated", "credentials are missing or bad", ""},
	{"admin", "alice", "403", "", "PermissionDenied", "not allowed", ""},
	{"few", "alice", "429", `retry-after: 3[56]\d\d\r`, "ResourceExhausted", "too many calls", `59m\d+s|1h0m0s`},
	{"one/", "alice", "503", `retry-after: 1\r`, "Unavailable", "too many calls at a time", "1s"},
	{"wait/", "alice", "503", `retry-after: 1\r`, "Unavailable", "too many calls at a time", "1s"},
	{"nowhere", "alice", "404", "", "Unimplemented", "unknown service", ""},
	{"in", "alice", "200", "", "", "", ""},
	{"admin", "admin", "200", "", "", "", ""},
}

func (g *guards) curlRefusals(t *testing.T, tokens map[string]string) {
	for _, version := range []string{"--http1.1", "--http2"} {
		for _, r := range refusals {
			args := []string{version, "-i", g.url("/" + r.row)}
			if r.token != "" {
				args = append(args, "-H", "Authorization: Bearer "+tokens[r.token])
			}
			out := g.curls(t, args...)
			status, rest, _ := strings.Cut(out, "\n")
			head, _, _ := strings.Cut(rest, "\r\n\r\n")
			head = strings.ToLower(head) + "\r"
			if f := strings.Fields(status); len(f) < 2 || f[1] != r.http {
				t.Errorf("%s /%s %s: %s, want %s", version, r.row, r.token, status, r.http)
			}
			if !regexp.MustCompile(r.field).MatchString(head) {
				t.Errorf("%s /%s %s: want %s in\n%s", version, r.row, r.token, r.field, head)
			}
			if r.field == "" && (strings.Contains(head, "retry-after") || strings.Contains(head, "www-authenticate")) {
				t.Errorf("%s /%s %s: these fields do not belong to %s:\n%s", version, r.row, r.token, r.http, head)
			}
		}
	}
}

// grpcurl calls Unary with fields.
func (g *guards) grpcurl(t *testing.T, row string, fields ...string) (both string, code int) {
	t.Helper()
	protos, err := filepath.Abs("../../proto")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-cacert", g.ca(), "-format-error", "-max-time", "8", "-import-path", protos, "-proto", "oneport/echo/v1/echo.proto", "-d", `{"message":"hi"}`, "-H", "x-row: " + row}
	for _, f := range fields {
		args = append(args, "-H", f)
	}
	_, both, code = g.output(t, 10*time.Second, "../../.bin/grpcurl", append(args, g.addr, "oneport.echo.v1.Echo/Unary")...)
	return both, code
}

func (g *guards) grpcurlRefusals(t *testing.T, tokens map[string]string) {
	codes := map[string]int{"": 0, "PermissionDenied": 7, "ResourceExhausted": 8, "Unimplemented": 12, "Unavailable": 14, "Unauthenticated": 16}
	for _, r := range refusals {
		var fields []string
		if r.token != "" {
			fields = append(fields, "authorization: Bearer "+tokens[r.token])
		}
		both, exit := g.grpcurl(t, strings.TrimSuffix(r.row, "/"), fields...)
		if r.grpc == "" {
			if exit != 0 || !strings.Contains(both, `"message": "hi"`) {
				t.Errorf("%s, %s: %d: %s", r.row, r.token, exit, both)
			}
			continue
		}
		var got struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
			Details []struct {
				Type  string `json:"@type"`
				Value []byte `json:"@value"` // of a type that grpcurl has not linked
			} `json:"details"`
		}
		if err := json.Unmarshal([]byte(both), &got); err != nil {
			t.Errorf("%s, %s: %v in %s", r.row, r.token, err, both)
			continue
		}
		if got.Code != codes[r.grpc] || exit != 64+got.Code || !strings.Contains(got.Message, r.message) {
			t.Errorf("%s, %s: exit code %d, %+v; want %s", r.row, r.token, exit, got, r.grpc)
		}
		retry := ""
		if len(got.Details) == 1 && got.Details[0].Type == "type.googleapis.com/google.rpc.RetryInfo" {
			var info errdetails.RetryInfo
			if err := proto.Unmarshal(got.Details[0].Value, &info); err != nil {
				t.Error(err)
			}
			retry = info.GetRetryDelay().AsDuration().Truncate(time.Second).String()
		}
		if !regexp.MustCompile("^(" + r.retry + ")$").MatchString(retry) {
			t.Errorf("%s, %s: RetryInfo %q, want %q: %s", r.row, r.token, retry, r.retry, both)
		}
	}
}

// sources holds where a token may stand in HTTP and gRPC against where it counts;
// node/guards.mjs does it for WebSocket.
func (g *guards) sources(t *testing.T, token string) {
	here, foreign := "Origin: "+strings.TrimSuffix(g.url("/"), "/"), "Origin: https://evil.example"
	cookie, stream := "Cookie: session="+token, "Accept: text/event-stream"
	for _, c := range []struct {
		method, query string
		fields        []string
		want          string
	}{
		{"GET", "", []string{"Authorization: Bearer " + token}, "200"},
		{"GET", "", []string{cookie}, "200"},
		{"GET", "", []string{cookie, stream}, "401"},
		{"GET", "", []string{cookie, stream, foreign}, "401"},
		{"GET", "", []string{cookie, stream, here}, "200"},
		{"POST", "", []string{cookie}, "401"},
		{"POST", "", []string{cookie, foreign}, "401"},
		{"POST", "", []string{cookie, here, "Sec-Fetch-Site: cross-site"}, "401"},
		{"POST", "", []string{cookie, here}, "200"},
		{"POST", "", []string{cookie, "Sec-Fetch-Site: same-origin"}, "200"},
		{"GET", "", []string{"Sec-WebSocket-Protocol: bearer, " + token}, "401"},
		{"GET", "?token=" + token, nil, "401"},
	} {
		for _, version := range []string{"--http1.1", "--http2"} {
			args := []string{version, "-X", c.method, "-o", "/dev/null", "-w", "%{http_code}", g.url("/in" + c.query)}
			for _, f := range c.fields {
				args = append(args, "-H", f)
			}
			if got := g.curls(t, args...); got != c.want {
				t.Errorf("%s %s %q %q: %s, want %s", version, c.method, c.query, c.fields, got, c.want)
			}
		}
	}
	for field, want := range map[string]int{
		"authorization: Bearer " + token:           0,
		"cookie: session=" + token:                 64 + 16,
		"sec-websocket-protocol: bearer, " + token: 64 + 16,
	} {
		if both, code := g.grpcurl(t, "in", field, strings.ToLower(here)); code != want {
			t.Errorf("gRPC, %q: exit code %d, want %d: %s", field, code, want, both)
		}
	}
	if got := g.curlGRPC(t, "?token="+token); !strings.Contains(got, "grpc-status: 16") {
		t.Errorf("gRPC, in the query: %s", got)
	}
}

// curlGRPC calls Unary as no gRPC client does, with a query, and gives the answer's head. It
// sends no message: curl 7.88 fails if the answer comes before it has sent its body.
func (g *guards) curlGRPC(t *testing.T, query string, fields ...string) string {
	t.Helper()
	args := []string{
		"--http2", "-X", "POST", "-D", "-", "-o", "/dev/null", "-H", "Content-Type: application/grpc", "-H", "TE: trailers", "-H", "x-row: in",
		g.url("/oneport.echo.v1.Echo/Unary" + query),
	}
	for _, f := range fields {
		args = append(args, "-H", f)
	}
	return g.curls(t, args...)
}
