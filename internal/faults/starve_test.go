//go:build faults

package faults

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// idleSockets are WebSockets that do nothing but answer pings. Through an edge each takes two
	// descriptors: where a process may not open that many files, there are fewer (see socketsFor).
	idleSockets = 10_000
	// phase is how long the bystander is measured at a time.
	phase = 10 * time.Second
	// worse is what may become of its p99, unless it stays below quick: clients, servers and the flood
	// share two processors, whose calm p99 differs by the minute.
	worse = 2.0
	quick = 4 * time.Millisecond
	// grownMost is what the flood may cost in memory.
	grownMost = 64 << 20
)

// The bounds: places/callFor = 200 calls a second of Unary, perSec = 40 of ServerStream, and for the others
// what these leave of inFlight, at least 12 places or 60 calls a second.
const (
	callFor  = 200 * time.Millisecond
	inFlight = 80
	places   = 40
	waiting  = 20
	perSec   = 40
	capacity = int(time.Second/callFor) * (inFlight - waiting)
	// offered is what the flood sends each second, of all three kinds about three times what
	// may be served.
	offered = 3 * capacity
)

const starveConfig = `
listen: "127.0.0.1:0"
tls: { certificates: [{ cert: server.crt, key: server.key }] }
upstreams:
  web: { servers: ["http://%s"] }
  sockets: { servers: ["http://%s"] }
  rpc: { servers: ["grpc://%s"] }
routes:
  - { grpc: oneport.echo.v1.Echo/Unary, to: rpc, limit: places }
  - { grpc: oneport.echo.v1.Echo/ServerStream, to: rpc, limit: rate }
  - { grpc: "*", to: rpc }
  - { websocket: /idle, to: sockets }
  - { path: /, to: web }
limits:
  connections: 15000
  in_flight: { grpc: %d, websocket: 12000 }
  named:
    places: { per: all, concurrency: %d, queue: %d }
    rate: { per: all, rate: %d/s, burst: 4 }
drain: { timeout: 5s, spread: 0s, not_ready: 0s }
log: { format: text, access: false }
`

// Idle WebSockets, ten thousand of them, and a gRPC flood at three times what may be served starve no
// REST caller: before a server elsewhere, and in a process that serves all itself.
func TestStarve(t *testing.T) {
	h := newHouse(t)
	t.Run("oneport serve", func(t *testing.T) {
		up := h.act(t, roleUpstream, 10)
		file := filepath.Join(h.dir, "starve.yaml")
		text := fmt.Sprintf(starveConfig, h.servers[0].addr, up.said[0], up.said[1], inFlight, places, waiting, perSec)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		edge := h.edge(t, file)
		h.starve(t, edge.cmd.Process.Pid, edge.addr, 2)
	})
	t.Run("embedded", func(t *testing.T) {
		p := h.act(t, roleEmbedded, 0, envDir+"="+h.dir)
		h.starve(t, p.cmd.Process.Pid, p.said[0], 1)
	})
}

// socketsFor is how many idle WebSockets a process may have that takes some descriptors for
// each.
func socketsFor(t *testing.T, each int) int {
	t.Helper()
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	const others = 200
	n := min(idleSockets, (int(lim.Cur)-others)/each)
	if n < idleSockets {
		t.Logf("%d WebSockets and not %d, for nofile is %d", n, idleSockets, lim.Cur)
	}
	return n
}

// watched is how a bystander and a server fared for a while.
type watched struct {
	name   string
	took   map[string][]time.Duration
	memory int64
	files  int
}

// starve measures what is at addr, alone, with idle WebSockets, with the flood, and without it again.
func (h *house) starve(t *testing.T, pid int, addr string, filesEach int) {
	by := newBystander(t, h.ca, addr)
	by.measure(t, phase/4) // warm
	var all []watched
	watch := func(name string) watched {
		w := watched{name, by.measure(t, phase), resident(t, pid), openFiles(t, pid)}
		all = append(all, w)
		return w
	}
	alone := watch("alone")

	n := socketsFor(t, filesEach)
	crowd := h.act(t, roleSockets, 19, envAddr+"="+addr, envCA+"="+h.ca, envCount+"="+strconv.Itoa(n))
	idle := watch(fmt.Sprintf("%d idle WebSockets", n))
	if idle.files < n*filesEach {
		t.Errorf("%d files are open, of %d WebSockets", idle.files, n)
	}
	flood := h.act(t, roleFlood, 19, envAddr+"="+addr, envCA+"="+h.ca)
	during := watch("and the flood")
	var f flooded
	flood.end(t, &f)
	after := watch("after the flood")
	var lost int
	crowd.end(t, &lost)
	for deadline := time.Now().Add(10 * time.Second); openFiles(t, pid) > alone.files+50; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("%d files are open when all have gone, %d were before", openFiles(t, pid), alone.files)
			break
		}
	}
	again := watch("alone again")
	t.Logf("capacity %d gRPC calls/s, %d offered\n%s\nflood: %s\nWebSockets lost: %d", capacity, offered, table(all), &f, lost)

	for _, kind := range kinds[:2] {
		calm := slices.Sorted(slices.Values(slices.Concat(alone.took[kind], again.took[kind])))
		for _, w := range []watched{idle, during, after} {
			if with, without := p99(w.took[kind]), p99(calm); float64(with) > worse*float64(without) && with > quick {
				t.Errorf("%s, %s: p99 is %v, alone it was %v", kind, w.name, with, without)
			}
		}
	}
	if grown := max(during.memory, after.memory) - idle.memory; grown > grownMost {
		t.Errorf("the flood took %d KiB of memory", grown>>10)
	}
	if lost > 0 {
		t.Errorf("%d WebSockets were closed", lost)
	}
	f.check(t)
}

// table has a row for each.
func table(all []watched) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| | REST h1 calls | p50 | p99 | REST h2 calls | p50 | p99 | resident | files |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, w := range all {
		fmt.Fprintf(&b, "| %s |", w.name)
		for _, kind := range kinds[:2] {
			took := w.took[kind]
			fmt.Fprintf(&b, " %d | %s | %s |", len(took), ms(took[len(took)/2]), ms(p99(took)))
		}
		fmt.Fprintf(&b, " %d MiB | %d |\n", w.memory>>20, w.files)
	}
	return b.String()
}

// p99 is the 99th percentile of sorted times.
func p99(took []time.Duration) time.Duration { return took[len(took)*99/100] }

// bystander is an honest client with a connection of HTTP/1.1 and one of HTTP/2.
type bystander struct {
	get map[string]func() error
}

func newBystander(t *testing.T, ca, addr string) *bystander {
	t.Helper()
	trust, err := trusting(ca)
	if err != nil {
		t.Fatal(err)
	}
	b := &bystander{map[string]func() error{}}
	l := &load{}
	for i, kind := range kinds[:2] {
		transport := &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: i == 1}
		t.Cleanup(transport.CloseIdleConnections)
		get := l.get(&http.Client{Transport: transport, Timeout: patience}, "https://"+addr+"/api/hello")
		b.get[kind] = func() error { return get(t.Context()) }
	}
	return b
}

// measure calls for that long, some 250 times a second, and returns how long calls took, sorted.
func (b *bystander) measure(t *testing.T, d time.Duration) map[string][]time.Duration {
	t.Helper()
	took := map[string][]time.Duration{}
	tick := time.NewTicker(4 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		for kind, get := range b.get {
			begun := time.Now()
			if err := get(); err != nil {
				t.Errorf("a bystander's call failed: %s: %v", kind, err)
			}
			took[kind] = append(took[kind], time.Since(begun))
		}
	}
	for _, list := range took {
		slices.Sort(list)
	}
	return took
}

// resident is what a process has in memory, in bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// openFiles is how many descriptors a process has.
func openFiles(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
