//go:build faults

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fault is what happens to one of three servers.
type fault struct {
	name       string
	begin, end func(t *testing.T, h *house)
}

var faults = []fault{
	{
		name:  "killed",
		begin: func(t *testing.T, h *house) { h.servers[1].kill(t) },
		end:   func(_ *testing.T, h *house) { h.servers[1].start(h.t) },
	},
	{
		name:  "hung",
		begin: func(t *testing.T, h *house) { h.servers[1].signal(t, syscall.SIGSTOP) },
		end:   func(t *testing.T, h *house) { h.servers[1].signal(t, syscall.SIGCONT) },
	},
	{
		name:  "slowed",
		begin: func(t *testing.T, h *house) { h.servers[1].slow(t) },
		end:   func(t *testing.T, h *house) { h.servers[1].fast(t) },
	},
}

const (
	before = 5 * time.Second
	during = 10 * time.Second
	back   = 5 * time.Second // until the server is taken back for certain
	after  = 5 * time.Second
)

const config = `
listen: "127.0.0.1:0"
tls: { certificates: [{ cert: server.crt, key: server.key }] }
upstreams:
  app:
    servers: [%s]
    health: { path: /api/hello, every: 500ms, timeout: 250ms, unhealthy: 2 }
  greeter:
    servers: [%s]
    health: { grpc: "*", every: 500ms, timeout: 250ms, unhealthy: 2 }
routes:
  - { grpc: "*", to: greeter }
  - { path: /, to: app, answer_timeout: 1s }
drain: { timeout: 5s, spread: 0s, not_ready: 0s }
log: { format: text, access: false }
`

// What callers notice of one bad server among three, and when it is left out and
// taken back.
func TestOneOfThree(t *testing.T) {
	h := newHouse(t)
	var web, rpc []string
	for _, s := range h.servers {
		web, rpc = append(web, `"http://`+s.addr+`"`), append(rpc, `"grpc://`+s.addr+`"`)
	}
	file := filepath.Join(h.dir, "oneport.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, strings.Join(web, ", "), strings.Join(rpc, ", ")), 0o600); err != nil {
		t.Fatal(err)
	}
	edge := h.edge(t, file)
	l := newLoad(t, h.ca, edge.addr)
	var report strings.Builder
	fmt.Fprintf(&report, "| fault | calls | errors before | during | after | p99 before | during | after | left out after | taken back after |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			edge.seen(t)
			began := time.Now()
			time.Sleep(before)
			hit := time.Now()
			f.begin(t, h)
			time.Sleep(during)
			f.end(t, h)
			healed := time.Now()
			time.Sleep(back)
			again := time.Now()
			time.Sleep(after)
			over := time.Now()
			events := edge.seen(t)
			for _, kind := range kinds {
				b, d, a := l.between(kind, began, hit), l.between(kind, hit, healed), l.between(kind, again, over)
				out, in := events.first(kind, hit, "server is not well", "server is left out"), events.last(kind, healed, "server is well again", "server is tried again")
				fmt.Fprintf(&report, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", f.name, kind, b.share(), d.share(), a.share(), ms(b.p99()), ms(d.p99()), ms(a.p99()), out, in)
				if b.errors > 0 || a.errors > 0 {
					t.Errorf("%s: %d errors before, %d after: %s", kind, b.errors, a.errors, l.example(kind))
				}
				if part := float64(d.errors) / float64(d.calls); part > 0.02 {
					t.Errorf("%s: %.1f %% of the calls failed: %s", kind, 100*part, l.example(kind))
				}
				if f.name != "slowed" && (out == never || in == never) {
					t.Errorf("%s: left out after %s, taken back after %s", kind, out, in)
				}
			}
		})
	}
	l.stop()
	t.Logf("one of three servers, %d workers, %d calls/s each; times after the fault began and ended\n%s", 3*workers, rate, report.String())
}

// ms is a duration in milliseconds.
func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
