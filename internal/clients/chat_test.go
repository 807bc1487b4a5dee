//go:build clients

package clients_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const chatPage = "../../examples/chat/README.md"

// TestChat has two instances of examples/chat meet at a Redis: as its README says, and in two
// windows of Chromium, of which one loses its instance.
func TestChat(t *testing.T) {
	dir := t.TempDir()
	c := &chat{demo: demo{certs: filepath.Join(dir, "certs")}, program: filepath.Join(dir, "chat"), redis: redisServer(t)}
	c.run(t, 5*time.Minute, "go", "build", "-tags", "nomsgpack", "-o", c.program, "github.com/oneport-edge/oneport/examples/chat")
	one, two := freeAddr(t), freeAddr(t)
	c.serve(t, one)
	second := c.serve(t, two)
	c.addr, c.plain = one, one // a plaintext port is not asked for
	c.settings(t, t.ArtifactDir())
	c.env = append(c.env, "ONEPORT_CERT="+c.certs+"/server.crt", "ONEPORT_KEY="+c.certs+"/server.key") // no client shows one

	t.Run("README", func(t *testing.T) { c.readme(t, one, two) })
	t.Run("chromium", func(t *testing.T) { c.windows(t, one, two, second) })
}

// chat is what instances of the example have in common.
type chat struct {
	demo
	program, redis string
}

// serve starts an instance, which has taken its first connection when it returns.
func (c *chat) serve(t *testing.T, addr string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(c.program, "--addr", addr, "--certs", c.certs, "--redis", c.redis)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	dial(t, "tcp", addr)
	return cmd
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // an error if it was killed before
}

// dial waits until somebody listens.
func dial(t *testing.T, network, addr string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); ; <-tick.C {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), network, addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// freeAddr is an address that nobody listens on: an instance that was killed has to come back to its own.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// redisServer starts one, and gives its URL.
func redisServer(t *testing.T) string {
	t.Helper()
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: internal/clients/setup.sh installs it", err)
	}
	t.Cleanup(func() { kill(cmd) })
	dial(t, "tcp", addr)
	return "redis://" + addr + "/0"
}

// readme runs what the example's README tells its readers to type, in one shell, as it stands there
// but for the addresses and the directory of the certificates. A command that watches is given three seconds.
func (c *chat) readme(t *testing.T, one, two string) {
	page, err := os.ReadFile(chatPage)
	if err != nil {
		t.Fatal(err)
	}
	bin, err := filepath.Abs("../../.bin")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	script := []string{"set -e"}
	ran := map[string]int{}
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		for line := range strings.Lines(block[1]) {
			line = strings.TrimSpace(line)
			name, _, _ := strings.Cut(line, " ")
			switch {
			case name == "redis-server":
				continue // c.redis is one
			case strings.HasPrefix(line, "go run ./examples/chat"):
				c.flags(t, line)
				continue
			}
			line = strings.NewReplacer("127.0.0.1:8445", one, "127.0.0.1:8446", two, "certs/dev", c.certs).Replace(line)
			if strings.Contains(line, "Feed/Watch") {
				line = "timeout 3 " + line + " || [ $? = 124 ]"
			}
			script = append(script, strings.ReplaceAll(line, "curl --cacert", "curl --fail-with-body -sS --cacert"))
			ran[name]++
		}
	}
	if ran["curl"] < 3 || ran["grpcurl"] < 2 {
		t.Errorf("found only %v", ran)
	}
	out := c.run(t, 30*time.Second, "sh", "-c", strings.Join(script, "\n"))
	for _, want := range []string{`"text":"hi by REST"`, `"name":"Cleo"`, `"text": "hi by gRPC"`, `"via": "http"`, `"people":[`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in what they print:\n%s", want, out)
		}
	}
}

// flags checks that the program takes the flags that the README gives it.
func (c *chat) flags(t *testing.T, line string) {
	t.Helper()
	usage, both, _ := c.output(t, 10*time.Second, c.program, "--help")
	for arg := range strings.FieldsSeq(line) {
		if flag, ok := strings.CutPrefix(arg, "--"); ok && !strings.Contains(usage+both, "  -"+flag+" ") {
			t.Errorf("%s: there is no flag %s:\n%s", line, arg, both)
		}
	}
}

// windows runs node/chat.mjs, and does to the second instance what it asks for.
func (c *chat) windows(t *testing.T, one, two string, second *exec.Cmd) {
	grpcurl, err := filepath.Abs("../../.bin/grpcurl")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	node := c.command(t, 5*time.Minute, "node", "node/chat.mjs")
	node.Env = append(node.Env, "CHAT_ADDRS="+one+","+two, "CHAT_GRPCURL="+grpcurl)
	node.Stderr = t.Output()
	in, err := node.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	defer node.Wait()
	for lines := bufio.NewScanner(out); lines.Scan() && ctx.Err() == nil; {
		switch lines.Text() {
		case "! kill":
			kill(second)
		case "! start":
			second = c.serve(t, two)
		default:
			t.Log(lines.Text())
			continue
		}
		if _, err := fmt.Fprintln(in, "done"); err != nil {
			t.Fatal(err)
		}
	}
	if err := node.Wait(); err != nil {
		t.Errorf("the windows: %v", err)
	}
}
