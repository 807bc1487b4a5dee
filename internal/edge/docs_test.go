package edge_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/router/config"
)

// What the pages on guards, and on admin, show of a file is what a file may say: each example is checked as
// "oneport check" does it, with what it leaves out, and with the files it names.
func TestExamplesOfGuards(t *testing.T) {
	dir := t.TempDir()
	iss := newIssuer(t)
	pem, err := os.ReadFile(iss.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := certs.Dev(dir, "localhost").Load(); err != nil {
		t.Fatal(err)
	}
	for name, of := range map[string]string{"clients.crt": "ca.crt", "tls.crt": "server.crt", "tls.key": "server.key"} {
		if err := os.Rename(filepath.Join(dir, of), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"token.pem": string(pem), "redis.pass": "secret\n", "publishers.txt": "the-token-of-a-publisher\n", "admin.token": "0123456789abcdef\n",
		"keys.txt": "ci:ed2c5b0e593681e33e8d8730605b1af599eb76e01e2d5e722c59a0d5385f9c9b\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	for _, page := range []string{"auth", "jwt", "limits", "admin", "broadcast", "tracing"} {
		text, err := os.ReadFile("../../docs/" + page + ".md")
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range strings.Split(string(text), "```yaml\n")[1:] {
			example, _, _ := strings.Cut(block, "```")
			seen++
			t.Run(fmt.Sprint(page, " ", i+1), func(t *testing.T) {
				cfg, err := config.Parse(filepath.Join(dir, "oneport.yaml"), completed(example))
				if err != nil {
					t.Fatal(err)
				}
				if len(cfg.Warnings) > 0 {
					t.Errorf("warnings: %v", cfg.Warnings)
				}
				if err := edge.Check(cfg); err != nil {
					t.Error(err)
				}
			})
		}
	}
	if seen < 10 {
		t.Errorf("the pages have %d examples", seen)
	}
}

// completed is an example with what it leaves out.
func completed(example string) []byte {
	upstreams := `upstreams: { app: { servers: ["http://127.0.0.1:8080"] } }`
	if strings.Contains(example, "greeter") {
		upstreams = `upstreams: { app: { servers: ["http://127.0.0.1:8080"] }, greeter: { servers: ["grpc://127.0.0.1:8081"] } }`
	}
	for key, text := range map[string]string{
		"listen":    `listen: "127.0.0.1:8443"`,
		"tls":       "tls: { dev: true }",
		"upstreams": upstreams,
		"routes":    "routes: [{ path: /, to: app }]",
		"auth":      `auth: { jwt: { issuer: "https://id.example.com", audience: edge, keys: token.pem } }`,
	} {
		if !strings.Contains("\n"+example, "\n"+key+":") {
			example += text + "\n"
		}
	}
	return []byte(example)
}

// named is a package and tests of it, as docs/security.md names them.
var named = regexp.MustCompile("`([a-z0-9/]+)`: (`Test[A-Za-z0-9]+`(?:, `Test[A-Za-z0-9]+`)*)")

// The tests that are said to hold what the page on security claims are there.
func TestSecurityIsHeldByTests(t *testing.T) {
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	known := 0
	for _, found := range named.FindAllStringSubmatch(string(text), -1) {
		files, err := filepath.Glob("../../" + found[1] + "/*_test.go")
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no tests: %v", found[1], err)
		}
		var code strings.Builder
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			code.Write(b)
		}
		for test := range strings.SplitSeq(strings.ReplaceAll(found[2], "`", ""), ", ") {
			known++
			if !strings.Contains(code.String(), "\nfunc "+test+"(t *testing.T) {\n") {
				t.Errorf("%s has no %s", found[1], test)
			}
		}
	}
	if all := strings.Count(string(text), "`Test"); known != all || all < 30 {
		t.Errorf("the page names %d tests, of which %d have a package", all, known)
	}
}
