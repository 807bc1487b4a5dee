//go:build clients

package clients_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// readme runs what the README tells its readers to type, as it stands there
// but for the port and the directory of the certificates.
func (d *demo) readme(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	bin, err := filepath.Abs(filepath.Join("..", "..", ".bin"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	ran := map[string]int{}
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		for line := range strings.Lines(block[1]) {
			name, _, _ := strings.Cut(line, " ")
			if name == "make" {
				continue // .ci/run runs these
			}
			if name == "./oneport" {
				command, _, _ := strings.Cut(line, " #")
				d.listens(t, strings.Fields(command)[1:])
				continue
			}
			line = strings.NewReplacer("127.0.0.1:8443", d.addr, "certs/dev", d.certs).Replace(strings.TrimSpace(line))
			if !strings.Contains(line, d.addr) {
				t.Errorf("does not call the demo: %s", line)
				continue
			}
			if name == "curl" {
				line = strings.Replace(line, "curl", "curl --fail-with-body -sS", 1)
			}
			out := d.run(t, 10*time.Second, "sh", "-c", line)
			if strings.TrimSpace(out) == "" {
				t.Errorf("%s: printed nothing", line)
			}
			ran[name]++
		}
	}
	for _, command := range []string{"proxy", "serve", "check", "explain"} {
		if !strings.Contains(string(page), "./oneport "+command) {
			t.Errorf("the README does not show %q any more", command)
		}
	}
	if ran["curl"] < 2 || ran["grpcurl"] < 3 {
		t.Errorf("found only %v", ran)
	}
}

// listens checks that a command that serves starts to, that check is content, and
// that explain explains.
func (d *demo) listens(t *testing.T, args []string) {
	t.Helper()
	for i, arg := range args {
		switch {
		case arg == "127.0.0.1:8443":
			args[i] = "127.0.0.1:0"
		case strings.HasSuffix(arg, ".yaml"):
			text, err := os.ReadFile(filepath.Join("..", "..", arg))
			if err != nil {
				t.Fatal(err)
			}
			args[i] = filepath.Join(t.TempDir(), "oneport.yaml")
			pair := fmt.Sprintf("certificates: [{ cert: %[1]s/server.crt, key: %[1]s/server.key }]", d.certs)
			config := strings.NewReplacer("127.0.0.1:8443", "127.0.0.1:0", "dev: true", pair).Replace(string(text))
			if err := os.WriteFile(args[i], []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	switch args[0] {
	case "check", "explain":
		want := map[string]string{"check": "fine", "explain": "answer    308 /api/v2/users"}[args[0]]
		if out := d.run(t, 10*time.Second, d.cmd.Path, args...); !strings.Contains(out, want) {
			t.Errorf("%v: %s", args, out)
		}
		return
	case "proxy":
		args = append(args, "--certs", d.certs)
	}
	p := serve(t, d.cmd.Path, args, 1)
	out := d.run(t, 10*time.Second, "curl", "-sS", "--cacert", d.ca(), "-w", "%{http_code}", "https://"+p.addr+"/")
	if !strings.Contains(out, "502") { // nobody is behind it here
		t.Errorf("%v: %s", args, out)
	}
}
