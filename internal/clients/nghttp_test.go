//go:build clients

package clients_test

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// nghttp drives one HTTP/2 connection with the client of nghttp2.
func (d *demo) nghttp(t *testing.T) {
	t.Run("many requests on one connection", func(t *testing.T) {
		paths := []string{"/api/hello", "/api/whoami", "/", "/ca.crt", "/demo.js", "/demo.css", "/api/hello?1", "/api/hello?2"}
		args := []string{"-v"}
		for _, path := range paths {
			args = append(args, d.url(path))
		}
		out := d.run(t, 20*time.Second, "nghttp", args...)
		if n := strings.Count(out, "Connected"); n != 1 {
			t.Errorf("%d connections, want one", n)
		}
		if n := strings.Count(out, ":status: 200"); n != len(paths) {
			t.Errorf("%d answers are 200, want %d", n, len(paths))
		}
		for _, bad := range []string{"recv RST_STREAM", "recv GOAWAY", "[ERROR]", "[INVALID"} {
			if strings.Contains(out, bad) {
				t.Errorf("nghttp reports %q", bad)
			}
		}
		if t.Failed() {
			t.Logf("\n%s", out)
		}
	})
	t.Run("upload", func(t *testing.T) {
		body := random(t, 1<<20)
		out := d.run(t, 20*time.Second, "nghttp", "-d", save(t, body), d.url("/api/echo"))
		if !bytes.Equal([]byte(out), body) {
			t.Errorf("%d bytes came back, not the %d that were sent", len(out), len(body))
		}
	})
}

// h2load makes load, and counts what fails.
func (d *demo) h2load(t *testing.T) {
	body := save(t, random(t, 100<<10))
	for _, c := range []struct {
		name, requests string
		args           []string
	}{
		{"GET", "2000", []string{"-c", "10", "-m", "32", d.url("/api/hello")}},
		{"as many streams as are allowed", "2000", []string{"-c", "10", "-m", "100", d.url("/api/whoami")}},
		{"POST", "200", []string{"-c", "4", "-m", "16", "-d", body, d.url("/api/echo")}},
		{"HTTP 1.1", "1000", []string{"-c", "10", "--h1", d.url("/api/hello")}},
		{"prior knowledge", "2000", []string{"-c", "10", "-m", "32", "http://" + d.plain + "/api/hello"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := d.run(t, 30*time.Second, "h2load", append([]string{"-n", c.requests}, c.args...)...)
			for _, want := range []string{
				c.requests + " succeeded, 0 failed, 0 errored, 0 timeout",
				"status codes: " + c.requests + " 2xx",
			} {
				if !strings.Contains(out, want) {
					t.Errorf("want %q in:\n%s", want, out)
				}
			}
		})
	}
}
