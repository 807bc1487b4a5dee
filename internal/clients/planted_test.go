//go:build clients

package clients_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// planted sends credentials in every place, good and bad, through every protocol, with
// servers that crash, a reload and a drain meanwhile. None may be in what the port prints, and
// servers get them in Authorization and Cookie alone.
func (d *demo) planted(t *testing.T) {
	t.TempDir() // made first, it is there until the end
	var g *guards
	var needles []string
	c := newCollector(t)
	t.Cleanup(func() { // behind the end of the port
		g.printed(t, needles)
		c.clean(t, needles)
	})
	g = d.guarded(t, "\ndrain:", "\ntelemetry: { otlp: { endpoint: \"http://"+c.rpc+"\" }, sample: 1, users: true }\ndrain:")
	claim := "planted=a-claim-that-is-nowhere-else"
	tokens := map[string]string{
		"good":    g.token(t, "--sub", "alice", "--claim", claim),
		"expired": g.token(t, "--sub", "bob", "--ttl", "-1h", "--claim", claim),
	}
	head, signature := tokens["good"][:strings.LastIndexByte(tokens["good"], '.')+1], tokens["good"][strings.LastIndexByte(tokens["good"], '.')+1:]
	tokens["broken"] = head + signature[:10] + "PlantedAndBroken00-_" + signature[30:]
	needles = planted(tokens, g.robot)

	for _, token := range tokens {
		for _, version := range []string{"--http1.1", "--http2"} {
			g.plantHTTP(t, version, token, tokens["good"])
		}
		g.plantGRPC(t, token, tokens["good"])
		g.plantGarbage(t, token)
	}
	text, err := json.Marshal(tokens)
	if err != nil {
		t.Fatal(err)
	}
	g.env = append(g.env, "ONEPORT_TOKENS="+string(text))
	t.Logf("\n%s", g.node(t, "planted"))
	g.reload(t)
	g.plantHTTP(t, "--http2", tokens["good"], tokens["good"])
	g.crash(t, tokens["good"])
	g.plantHTTP(t, "--http1.1", tokens["good"], tokens["good"])
	g.plantGRPC(t, tokens["good"], tokens["good"])
	g.went(t, needles)
	for _, form := range []string{"json", "text", "common", "otel"} {
		t.Run("lines as "+form, func(t *testing.T) { d.plantedLines(t, form) })
	}
}

// plantedLines plants tokens before a port whose access lines go to a file, in one of their forms.
func (d *demo) plantedLines(t *testing.T, form string) {
	file := filepath.Join(t.TempDir(), "calls.log")
	var needles []string
	t.Cleanup(func() { // behind the end of the port
		if lines := grep(t, file, needles); lines < 100 {
			t.Errorf("%d lines: the test is blind", lines)
		}
	})
	g := d.guarded(t, "access: true", fmt.Sprintf("access: { form: %s, file: %q }", form, file))
	tokens := map[string]string{"good": g.token(t, "--sub", "alice"), "expired": g.token(t, "--sub", "bob", "--ttl", "-1h")}
	needles = planted(tokens, g.robot)
	for _, token := range tokens {
		g.plantHTTP(t, "--http1.1", token, tokens["good"])
		g.plantHTTP(t, "--http2", token, tokens["good"])
		g.plantGRPC(t, token, tokens["good"])
		g.plantGarbage(t, token)
	}
}

// grep looks for needles in a file, and gives how many lines it has.
func grep(t *testing.T, file string, needles []string) (lines int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
		return 0
	}
	for line := range strings.Lines(string(text)) {
		lines++
		for _, n := range needles {
			if strings.Contains(line, n) {
				t.Errorf("%s is in the log: %s", n, line)
				break
			}
		}
	}
	return lines
}

// clean looks at all that the collector has got.
func (c *collector) clean(t *testing.T, needles []string) {
	text := c.text()
	for _, n := range needles {
		if i := strings.Index(text, n); i >= 0 {
			t.Errorf("the collector has got %s: %s", n, text[max(0, i-200):i])
		}
	}
	for _, want := range []string{"enduser.id", "oneport.refused", "user_agent.original", "websocket session", "oneport.echo.v1.Echo/Unary"} {
		if !strings.Contains(text, want) {
			t.Errorf("the collector has no %s: the test is blind", want)
		}
	}
	t.Logf("%d bytes of spans", len(text))
}

// planted are the parts of credentials that nothing else has: a log may cut a
// token short, or print a part.
func planted(tokens map[string]string, key string) (needles []string) {
	for _, token := range tokens {
		parts := strings.Split(token, ".")
		needles = append(needles, parts[2], parts[2][len(parts[2])-16:])
		for p := parts[1]; len(p) >= 24; p = p[24:] {
			needles = append(needles, p[:24])
		}
	}
	head, _, _ := strings.Cut(tokens["good"], ".")
	return append(needles, head, key, key[len(key)/2:])
}

// wheres are the routes that requests go by: straight on, and all that changes heads.
var wheres = []string{"/in", "/h2c", "/mirror", "/rewrite/in", "/fallback", "/forward", "/either", "/gone", "/admin", "/crash", "/nowhere"}

// plantHTTP sends a token in each place; again beside a good one, with which it gets further.
func (g *guards) plantHTTP(t *testing.T, version, token, good string) {
	t.Helper()
	authorized := "Authorization: Bearer " + good
	for _, c := range []struct {
		query  string
		fields []string
	}{
		{"", []string{"Authorization: Bearer " + token}},
		{"", []string{"Authorization: Bearer " + token, authorized}},
		{"", []string{"Cookie: a=b; session=" + token}},
		{"", []string{"Sec-WebSocket-Protocol: bearer, " + token}},
		{"", []string{"Sec-WebSocket-Protocol: v1, bearer, " + token, authorized}},
		{"?token=" + token, nil},
		{"?a=b&%74oken=" + strings.ReplaceAll(token, ".", "%2E"), []string{authorized}},
		{"?token=" + token + "&token=" + token, []string{authorized, "Referer: " + g.url("/page?token="+token+"&a=b")}},
		{"?token=" + token, []string{"X-API-Key: " + g.robot}},
		{"?token=" + token, []string{"Authorization: Bearer " + g.robot, "Referer: " + g.url("/page?token="+token)}},
	} {
		args := []string{version}
		for _, f := range c.fields {
			args = append(args, "-H", f)
		}
		for _, path := range wheres {
			args = append(args, "-o", "/dev/null", g.url(path+c.query))
		}
		// A server that crashes may end an HTTP/1.1 exchange early: what counts is what is said of it.
		if _, both, code := g.output(t, curlLimit, "curl", g.curlArgs(args)...); code != 0 {
			t.Fatalf("curl %s %q: %d: %s", version, c.fields, code, both)
		}
	}
}

func (g *guards) plantGRPC(t *testing.T, token, good string) {
	t.Helper()
	authorized := "authorization: Bearer " + good
	for _, fields := range [][]string{
		{"authorization: Bearer " + token},
		{"cookie: session=" + token},
		{"sec-websocket-protocol: bearer, " + token},
		{"sec-websocket-protocol: bearer, " + token, authorized},
		{authorized, "x-crash: yes"},
	} {
		for _, row := range []string{"in", "admin", "nowhere"} {
			g.grpcurl(t, row, fields...)
		}
	}
	g.curlGRPC(t, "?token="+token)
	g.curlGRPC(t, "?a=b&token="+token, authorized, "Referer: "+g.url("/page?token="+token))
}

// plantGarbage sends tokens in what is no request, or none for this port.
func (g *guards) plantGarbage(t *testing.T, token string) {
	t.Helper()
	long := strings.Repeat(token, 20<<10/len(token))
	for _, args := range [][]string{
		{"http://" + g.addr + "/in?token=" + token},
		{"--http1.1", "-X", "BAD{" + token, g.url("/in")},
		{"--http1.1", "-H", "Bad Field " + token + ": x", g.url("/in")},
		{"--http1.1", "-H", "Authorization: Bearer " + long, g.url("/in")},
		{"--http2", "-H", "Authorization: Bearer " + long, g.url("/in")},
		{"--http1.1", "-H", "Transfer-Encoding: " + token, "-d", "x", g.url("/in")},
		{"--http1.1", "--request-target", "/in?token=" + token + "%zz;", g.url("/")},
		{"--http1.1", "--request-target", "/%zz?token=" + token, g.url("/")},
		{"--http1.1", "--request-target", "in?token=" + token, g.url("/")},
		{"--http2", "-H", "Connection: x", "-H", "TE: " + token, g.url("/in?token=" + token)},
	} {
		g.output(t, curlLimit, "curl", g.curlArgs(append(args, "-o", "/dev/null"))...) // some get no answer
	}
}

// reload changes the file, then breaks it.
func (g *guards) reload(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(g.file)
	if err != nil {
		t.Fatal(err)
	}
	changed := replaced(t, string(text), "{ path: /gone, ", "{ path: /gone2, ", "burst: 1", "burst: 2")
	for _, step := range []struct{ text, said string }{
		{changed, `"msg":"configuration loaded"`},
		{replaced(t, changed, "audience: edge", "audience: 1"), `"msg":"configuration not loaded, the old one stays"`},
	} {
		if err := os.WriteFile(g.file, []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if !g.says(t, step.said) {
			t.Fatalf("the log has no %s", step.said)
		}
	}
}

// crash ends the server in the middle of requests.
func (g *guards) crash(t *testing.T, token string) {
	t.Helper()
	for _, version := range []string{"--http1.1", "--http2"} {
		args := []string{version, "-N", "-o", "/dev/null", "-H", "Authorization: Bearer " + token, g.url("/rewrite/hold?token=" + token)}
		cmd := g.command(t, curlLimit, "curl", g.curlArgs(args)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Wait() }) // however it went
		select {
		case <-g.witness.held:
		case <-time.After(10 * time.Second):
			t.Fatal("the request does not arrive")
		}
	}
	g.witness.crash()
}

// says waits until the log has a text.
func (g *guards) says(t *testing.T, text string) bool {
	t.Helper()
	for range 1000 {
		log, err := os.ReadFile(g.log)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(log), text) {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// went looks at what servers were sent.
func (g *guards) went(t *testing.T, needles []string) {
	t.Helper()
	found := map[string]int{}
	for _, h := range g.witness.seen() {
		plain, err := url.PathUnescape(h.uri)
		if err != nil {
			plain = h.uri
		}
		for _, n := range needles {
			if strings.Contains(plain, n) {
				t.Errorf("a server is asked for %s", h.uri)
			}
		}
		for name, values := range h.fields {
			i := slices.IndexFunc(needles, func(n string) bool { return strings.Contains(strings.Join(values, "\n"), n) })
			if i < 0 {
				continue
			}
			if found[name]++; name != "Authorization" && name != "Cookie" || needles[i] == g.robot {
				t.Errorf("a server gets %s: %q, for %s", name, values, h.uri)
			}
		}
		found[http.MethodGet+" "+strings.TrimSuffix(plain, "?a=b")]++
	}
	t.Logf("servers got %v", found)
	if found["Authorization"] == 0 || found["Cookie"] == 0 {
		t.Error("what must go on does not: the test is blind")
	}
	for _, path := range []string{"/in", "/h2c", "/mirror", "/fallback", "/forward", "/either", "/decide", "/raw", "/oneport.echo.v1.Echo/Unary"} {
		if found["GET "+path] == 0 {
			t.Errorf("no server was asked for %s", path)
		}
	}
}

// printed looks at all that the port has printed from its start to its end.
func (g *guards) printed(t *testing.T, needles []string) {
	if g == nil {
		return
	}
	text, err := os.ReadFile(g.log)
	if err != nil {
		t.Error(err)
		return
	}
	log := string(text)
	t.Logf("%d lines of log, %d needles", grep(t, g.log, needles), len(needles))
	for _, want := range []string{
		`"reason":"expired"`, `"reason":"signature"`, `"reason":"missing"`, `"reason":"cross-origin"`, `"reason":"duplicate"`,
		`"protocol":"grpc"`, `"protocol":"websocket"`, `"status":1006`, `"status":502`, `"msg":"drained"`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %s: it is not what the test takes it for", want)
		}
	}
}
