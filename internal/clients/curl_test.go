//go:build clients

package clients_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// curlLimit bounds one curl.
const curlLimit = 10 * time.Second

// curl sees to it that curl finds its way, whatever it is told to speak.
func (d *demo) curl(t *testing.T) {
	for _, c := range []struct{ flag, version string }{{"--http1.1", "1.1"}, {"--http2", "2"}} {
		t.Run("100 connections"+c.flag, func(t *testing.T) {
			for range 100 {
				out := d.curls(t, c.flag, "-w", " %{http_version} %{http_code}", d.url("/api/hello"))
				if want := `{"message":"Hello from HTTP"} ` + c.version + " 200"; out != want {
					t.Fatalf("got %s, want %s", out, want)
				}
			}
		})
		t.Run("1 MiB"+c.flag, func(t *testing.T) { d.roundTrip(t, c.flag, d.url("/api/echo")) })
		t.Run("client certificate"+c.flag, func(t *testing.T) {
			who := d.curlWhoami(t, c.flag)
			if who.TLS.ClientSubject != "CN=alice" {
				t.Errorf("client_subject is %q, want CN=alice", who.TLS.ClientSubject)
			}
		})
	}
	t.Run("plaintext port", func(t *testing.T) {
		for flag, version := range map[string]string{"--http1.1": "1.1", "--http2-prior-knowledge": "2"} {
			out := d.curls(t, flag, "-w", " %{http_version}", "http://"+d.plain+"/api/hello")
			if want := `{"message":"Hello from HTTP"} ` + version; out != want {
				t.Errorf("%s: got %s, want %s", flag, out, want)
			}
			d.roundTrip(t, flag, "http://"+d.plain+"/api/echo")
		}
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		var who whoami
		out := d.curls(t, "--tlsv1.2", "--tls-max", "1.2", d.url("/api/whoami"))
		if err := json.Unmarshal([]byte(out), &who); err != nil || who.TLS.Version != "TLS 1.2" || who.HTTPVersion != "HTTP/2.0" {
			t.Errorf("got %s (%v), want TLS 1.2 and HTTP/2.0", out, err)
		}
	})
	t.Run("http on the TLS port", func(t *testing.T) {
		out := d.curls(t, "-w", "%{http_code}", "http://"+d.addr+"/api/hello")
		if !strings.HasSuffix(out, "400") || !strings.Contains(out, "Use https://") {
			t.Errorf("got %s, want 400 and what to do", out)
		}
	})
	for _, c := range []struct {
		name string
		args []string
		want string // part of curl's message
	}{
		{"https on the plaintext port", []string{"https://" + d.plain + "/"}, "wrong version number"},
		// SECLEVEL=0, or OpenSSL would refuse before the port can.
		{"TLS 1.1", []string{"--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", d.url("/")}, "alert protocol version"},
		{"client certificate of a stranger", []string{"--cert", d.strangers + "/client.crt", "--key", d.strangers + "/client.key", d.url("/")}, "alert unknown ca"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 20 { // a reset can overtake what the port says
				_, out, code := d.output(t, curlLimit, "curl", d.curlArgs(c.args)...)
				if code == 0 || !strings.Contains(out, c.want) {
					t.Fatalf("exit code %d, %q; want a failure and %q", code, out, c.want)
				}
			}
		})
	}
}

func (d *demo) curlArgs(args []string) []string {
	return append([]string{"-q", "-sS", "--max-time", "8", "--cacert", d.ca()}, args...)
}

// curls runs a curl that has to succeed.
func (d *demo) curls(t *testing.T, args ...string) string {
	t.Helper()
	return d.run(t, curlLimit, "curl", d.curlArgs(args)...)
}

// roundTrip posts a MiB that nothing must touch, and has it sent back.
func (d *demo) roundTrip(t *testing.T, flag, url string) {
	t.Helper()
	body := random(t, 1<<20)
	out := d.curls(t, flag, "-H", "Content-Type: application/octet-stream", "--data-binary", "@"+save(t, body), url)
	if !bytes.Equal([]byte(out), body) {
		t.Errorf("%s: %d bytes came back, not the %d that were sent", flag, len(out), len(body))
	}
}

func random(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// save puts b into a file and gives its path.
func save(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
