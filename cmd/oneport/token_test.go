package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// What docs/jwt.md shows works: the file is fine with the key that its command makes, and a
// token of that key is good.
func TestTokenPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/jwt.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string) string {
		_, rest, _ := strings.Cut(string(page), "```"+kind+"\n")
		b, _, ok := strings.Cut(rest, "```")
		if !ok {
			t.Fatalf("no block of %s", kind)
		}
		return b
	}
	oneport := func(line string) string {
		t.Helper()
		var stdout, stderr bytes.Buffer
		line, _, _ = strings.Cut(strings.ReplaceAll(line, "\\\n", " "), ">")
		args := strings.Fields(line)
		if len(args) < 2 || args[0] != "oneport" {
			t.Fatalf("no command: %s", line)
		}
		if code := run(t.Context(), args[1:], &stdout, &stderr); code != exitOK {
			t.Fatalf("%s: exit %d: %s", line, code, stderr.String())
		}
		return strings.TrimSpace(stdout.String())
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("oneport.yaml", []byte(block("yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	token := oneport(block("sh"))
	oneport("oneport check -c oneport.yaml")
	if out := oneport("oneport token check " + token + " --key token.pem --issuer https://id.example.com --audience edge"); !strings.Contains(out, `"sub": "alice"`) {
		t.Errorf("the token says %s", out)
	}
}
