//go:build clients

package clients_test

import (
	"bufio"
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// late looks at a port that goes away: what is in flight is served, what comes on open
// connections too, and when the drain's time is over the rest is cut off.
func (d *demo) late(t *testing.T) {
	g := d.mapped(t)
	g.exit = 3 // the drain is not finished in time

	type running struct {
		what string
		cmd  *exec.Cmd
		out  bytes.Buffer
	}
	begin := func(what, arrives string, cmd *exec.Cmd) *running {
		r := &running{what: what, cmd: cmd}
		cmd.Stdout, cmd.Stderr = &r.out, &r.out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		g.arrived(t, arrives)
		return r
	}
	curl := func(version, path string) *running {
		args := g.curlArgs([]string{"--max-time", "20", version, "-i", g.url(path)})
		return begin("curl "+version+" "+path, path, g.command(t, 30*time.Second, "curl", args...))
	}
	served := []*running{curl("--http1.1", "/late"), curl("--http2", "/late"), curl("--http2", "/h2c/late")}
	cut := []*running{curl("--http1.1", "/stay/hold"), curl("--http2", "/stay/hold")}
	call := begin("grpcurl", "a gRPC call", g.command(t, 30*time.Second, "../../.bin/grpcurl", "-cacert", g.ca(), "-format-error", "-import-path", "../../proto",
		"-proto", "oneport/echo/v1/echo.proto", "-d", `{"message":"hi"}`, "-H", "x-row: hold-on", g.addr, "oneport.echo.v1.Echo/Unary"))

	script := g.command(t, 30*time.Second, "node", "node/late.mjs")
	stdin, err := script.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := script.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	script.Stderr = &stderr
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("node/late.mjs says %q", lines.Text())
	}
	g.terminate(t)
	if !g.says(t, `"msg":"draining"`) {
		t.Fatal("it does not drain")
	}
	begun := time.Now()
	if _, err := stdin.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	close(g.witness.release)
	var out strings.Builder
	for lines.Scan() {
		out.WriteString("\n" + lines.Text())
	}
	if err := script.Wait(); err != nil {
		t.Errorf("%v: %s%s", err, stderr.Bytes(), out.String())
	}
	t.Log(out.String())

	for _, r := range served {
		err := r.cmd.Wait()
		got := strings.ToLower(r.out.String())
		if err != nil || !strings.Contains(got, " 200") || !strings.Contains(got, "late\n") {
			t.Errorf("%s, while the port drains: %v: %s", r.what, err, got)
		}
		if strings.HasPrefix(got, "http/1.1") != strings.Contains(got, "connection: close") {
			t.Errorf("%s, while the port drains: %s", r.what, got)
		}
	}
	for _, r := range cut {
		err := r.cmd.Wait()
		got := r.out.String()
		_, status, _ := strings.Cut(got, " ")
		got = strings.ToLower(got)
		if err != nil || !strings.HasPrefix(status, "503") || !strings.Contains(got, "retry-after: 1") {
			t.Errorf("%s: %v, want 503: %s", r.what, err, got)
		}
		if strings.HasPrefix(got, "http/1.1") != strings.Contains(got, "connection: close") {
			t.Errorf("%s, when the drain's time is over: %s", r.what, got)
		}
	}
	if err := call.cmd.Wait(); call.cmd.ProcessState.ExitCode() != 64+14 {
		t.Errorf("a gRPC call that outlasts the drain: %v: %s", err, call.out.String())
	}
	if took := time.Since(begun); took < 3*time.Second || took > 8*time.Second {
		t.Errorf("the rest was cut off after %v, want 4s", took)
	}
}
