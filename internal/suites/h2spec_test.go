//go:build suites

package suites

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/oneport-edge/oneport/protocols/rest"
	"github.com/oneport-edge/oneport/router"
)

// page reads a request whole and answers with a page. Reading first matters: a
// handler that answers without looking at the body races with the DATA frames
// that h2spec sends behind the head, and "content-length does not equal the
// sum of the DATA frames" then fails one time in three, on net/http as well.
func page(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, strings.Repeat("oneport ", 64)) // not too short: h2spec plays with windows
}

// Every case of h2spec passes on the port, with TLS and without, those included
// that fail on net/http, on a port that stands before net/http, and on "oneport
// serve" before servers of HTTP/1.1 and of h2c. The runs go at once: most of
// their time is waiting for answers that net/http does not give.
func TestH2spec(t *testing.T) {
	source := devCerts(t)
	engine := rest.NewEngine()
	engine.Any("/", page)
	secure, plaintext := start(t, &router.Server{Certs: source, HTTP: engine})
	before := startPlain(t, nil, engine)
	secureProxy, plaintextProxy := startProxy(t, source, before)
	upstreams := "upstreams: { app: { servers: [\"%s://127.0.0.1:" + before + "\"] } }\nroutes: [ { path: /, to: app } ]"
	_, secureHTTP1, plaintextHTTP1 := startServe(t, source, fmt.Sprintf(upstreams, "http"))
	_, secureH2C, plaintextH2C := startServe(t, source, fmt.Sprintf(upstreams, "h2c"))
	withTLS := []string{"--tls", "--insecure"}
	runs := []*h2spec{
		{name: "port", wire: "TLS", port: secure, flags: withTLS},
		{name: "net/http", wire: "TLS", port: startPlain(t, source, engine), flags: withTLS},
		{name: "port", wire: "h2c", port: plaintext},
		{name: "net/http", wire: "h2c", port: before},
		{name: "proxy", wire: "TLS", port: secureProxy, flags: withTLS},
		{name: "proxy", wire: "h2c", port: plaintextProxy},
		{name: "sidecar before HTTP/1.1", wire: "TLS", port: secureHTTP1, flags: withTLS},
		{name: "sidecar before HTTP/1.1", wire: "h2c", port: plaintextHTTP1},
		{name: "sidecar before h2c", wire: "TLS", port: secureH2C, flags: withTLS},
		{name: "sidecar before h2c", wire: "h2c", port: plaintextH2C},
	}
	path, dir := program(t, "h2spec"), t.TempDir()
	var all sync.WaitGroup
	for i, r := range runs {
		all.Go(func() { r.err = r.run(t.Context(), path, filepath.Join(dir, fmt.Sprint(i))) })
	}
	all.Wait()
	for _, r := range runs {
		if r.err != nil {
			t.Fatalf("%s on %s: %v", r.wire, r.name, r.err)
		}
		t.Log(r)
	}
	reference := map[string]*h2spec{"TLS": runs[1], "h2c": runs[3]}
	for _, r := range runs {
		if r != reference[r.wire] {
			compare(t, r, reference[r.wire])
		}
	}
}

// compare reports every case whose verdicts are worth knowing.
func compare(t *testing.T, ours, reference *h2spec) {
	if len(ours.verdicts) != len(reference.verdicts) || len(ours.verdicts) < 140 { // 146 in v2.2.1
		t.Errorf("%s: %d cases of the %s, %d of net/http", ours.wire, len(ours.verdicts), ours.name, len(reference.verdicts))
	}
	for _, name := range slices.Sorted(maps.Keys(reference.verdicts)) {
		a, b := ours.verdicts[name], reference.verdicts[name]
		switch {
		case a != "" && b == "":
			t.Errorf("%s: fails on the %s alone: %s: %s", ours.wire, ours.name, name, a)
		case a == "" && b != "":
			t.Logf("%s: fails on net/http alone: %s: %s", ours.wire, name, b)
		case a != "" && !excused[ours.wire+" "+name]:
			t.Errorf("%s: fails on the %s, as on net/http: %s: %s", ours.wire, ours.name, name, a)
		case a != "":
			t.Logf("%s: fails on both: %s: %s", ours.wire, name, a)
		}
	}
}

// excused are the cases that may fail. On a plaintext port what does not begin
// with the preface is HTTP/1, and is answered as such.
var excused = map[string]bool{"h2c http2/3.5: Sends invalid connection preface": true}

// h2spec is one run of all its cases, the strict ones included, against
// 127.0.0.1:port.
type h2spec struct {
	name, wire, port string
	flags            []string
	verdicts         map[string]string // by section and title: why it failed, or ""
	err              error
}

// String gives the numbers.
func (r *h2spec) String() string {
	failed := 0
	for _, why := range r.verdicts {
		if why != "" {
			failed++
		}
	}
	return fmt.Sprintf("h2spec over %s on %s: %d of %d cases pass", r.wire, r.name, len(r.verdicts)-failed, len(r.verdicts))
}

// run fills in verdicts. h2spec exits with an error when any case failed, so
// only its report counts.
func (r *h2spec) run(ctx context.Context, path, report string) error {
	args := append([]string{"--host", "127.0.0.1", "--port", r.port, "--strict", "--timeout", "2", "--junit-report", report}, r.flags...)
	out, err := run(ctx, path, args...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	b, err := os.ReadFile(report)
	if err != nil {
		return fmt.Errorf("no report: %w\n%s", err, out)
	}
	var junit struct {
		Cases []struct {
			Section string    `xml:"package,attr"`
			Title   string    `xml:"classname,attr"`
			Failure *string   `xml:"failure"` // never used in v2.2.1: it compares types wrongly
			Error   *string   `xml:"error"`
			Skipped *struct{} `xml:"skipped"`
		} `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(b, &junit); err != nil {
		return err
	}
	r.verdicts = make(map[string]string)
	for _, c := range junit.Cases {
		if c.Skipped != nil {
			continue
		}
		why := ""
		for _, s := range []*string{c.Failure, c.Error} {
			if s != nil {
				why += "wants one of the first and got the last of: " + strings.Join(strings.Fields(*s), " ")
			}
		}
		r.verdicts[c.Section+": "+c.Title] = why
	}
	return nil
}
