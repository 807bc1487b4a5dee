package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
)

// pool makes an upstream of so many servers, called a, b and so on. Nothing is
// dialed.
func pool(t *testing.T, n int, opts Options) *Upstream {
	t.Helper()
	var urls []string
	for i := range n {
		urls = append(urls, fmt.Sprintf("grpc://127.0.0.1:%d", 'a'+i))
	}
	opts.Log = slog.New(slog.DiscardHandler)
	u, err := NewPool(urls, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

// letter names a server by its port.
func letter(s *server) string {
	if s == nil {
		return "-"
	}
	port := netip.MustParseAddrPort(s.target.addr).Port()
	return string(rune(port))
}

// drawn chooses servers for so many calls that do not end, and counts them.
func drawn(u *Upstream, n int, a asking) map[string]int {
	got := map[string]int{}
	for range n {
		got[letter(u.choose(&a, nil))]++
	}
	return got
}

func anybody() asking { return asking{get: func(string) string { return "" }} }

// inField is a call with one field.
func inField(name, value string) asking {
	return asking{get: func(n string) string {
		if n == name {
			return value
		}
		return ""
	}}
}

func TestLeastRequest(t *testing.T) {
	u := pool(t, 4, Options{})
	for name, n := range drawn(u, 400, anybody()) {
		if n < 90 || n > 110 { // two choices keep the difference at a few calls
			t.Errorf("%s has %d of 400 calls", name, n)
		}
	}
	one := pool(t, 1, Options{})
	if got := drawn(one, 3, anybody()); got["a"] != 3 {
		t.Errorf("a pool of one gives %v", got)
	}
}

// A server that does not answer keeps its calls in flight, and so gets no more.
func TestLeastRequestLeavesTheSlowAlone(t *testing.T) {
	u := pool(t, 3, Options{})
	a := anybody()
	slow := 0
	for range 3000 {
		s := u.choose(&a, nil)
		if letter(s) == "b" {
			slow++
		} else {
			s.ended(fine)
		}
	}
	if slow > 3 {
		t.Errorf("the slow server got %d calls", slow)
	}
}

func TestRoundRobin(t *testing.T) {
	u := pool(t, 3, Options{Balance: RoundRobin})
	a := anybody()
	var got []string
	for range 7 {
		got = append(got, letter(u.choose(&a, nil)))
	}
	for i, name := range got[3:] {
		if got[i] != name || got[i] == got[i+1] {
			t.Fatalf("the calls went to %s", got)
		}
	}
}

// The same key leads to the same server. When one goes, only its keys move.
func TestHash(t *testing.T) {
	keys := func(u *Upstream) map[string]string {
		at := map[string]string{}
		for i := range 3000 {
			key := fmt.Sprint("user-", i)
			a := inField("x-user", key)
			s := u.choose(&a, nil)
			at[key] = letter(s)
			s.ended(fine)
		}
		return at
	}
	opts := Options{Balance: Hash, HashBy: HashKey{Header: "X-User"}}
	first, second, fewer := keys(pool(t, 3, opts)), keys(pool(t, 3, opts)), keys(pool(t, 2, opts))
	count := map[string]int{}
	for key, at := range first {
		count[at]++
		if second[key] != at {
			t.Errorf("%s is at %s, and at %s in another instance", key, at, second[key])
		}
		if at != "c" && fewer[key] != at {
			t.Errorf("%s moved from %s to %s when c left", key, at, fewer[key])
		}
	}
	for name, n := range count {
		if n < 850 || n > 1150 {
			t.Errorf("%s has %d of 3000 keys", name, n)
		}
	}
}

func TestHashKeys(t *testing.T) {
	from := func(addr string) asking {
		a := anybody()
		a.call = &protocols.Call{Conn: &protocols.Conn{Remote: netip.MustParseAddrPort(addr)}}
		return a
	}
	for _, test := range []struct {
		key        HashKey
		a, b       asking
		same, none bool
	}{
		{key: HashKey{Header: "X-A"}, a: inField("x-a", "1"), b: inField("x-a", "1"), same: true},
		{key: HashKey{Header: "X-A"}, a: inField("x-a", "1"), b: inField("x-a", "2")},
		{key: HashKey{Header: "X-A"}, a: inField("x-b", "1"), b: anybody(), same: true, none: true},
		{key: HashKey{Cookie: "s"}, a: inField("cookie", "a=1; s=x; b=2"), b: inField("cookie", "s=x"), same: true},
		{key: HashKey{Cookie: "s"}, a: inField("cookie", "ss=x; xs=1"), b: anybody(), same: true, none: true},
		{key: HashKey{}, a: from("192.0.2.1:1"), b: from("192.0.2.1:2"), same: true},
		{key: HashKey{ClientIP: true}, a: from("192.0.2.1:1"), b: from("192.0.2.2:1")},
		{key: HashKey{}, a: from("[::ffff:192.0.2.1]:1"), b: from("192.0.2.1:2"), same: true},
		{key: HashKey{}, a: anybody(), b: anybody(), same: true, none: true},
	} {
		a, b := test.key.key(&test.a), test.key.key(&test.b)
		if (a == b) != test.same || (a == "") != test.none {
			t.Errorf("%+v: %q and %q", test.key, a, b)
		}
	}
}

func TestRequestsBound(t *testing.T) {
	u := pool(t, 2, Options{Requests: 2})
	if got := drawn(u, 6, anybody()); got["a"] != 2 || got["b"] != 2 || got["-"] != 2 {
		t.Errorf("the calls went to %v", got)
	}
}

// fail has a call at the server of that name fail.
func fail(t *testing.T, u *Upstream, name string) {
	t.Helper()
	for _, s := range u.servers {
		if letter(s) == name {
			s.active.Add(1)
			s.Done(h2.Outcome{Status: -1, Fault: h2.Broken})
			return
		}
	}
	t.Fatalf("no server %s", name)
}

// wantServers checks where calls go now.
func wantServers(t *testing.T, u *Upstream, names string) {
	t.Helper()
	a := anybody()
	seen := map[string]bool{}
	for range 200 {
		s := u.choose(&a, nil)
		seen[letter(s)] = true
		if s != nil {
			s.ended(unknown)
		}
	}
	var got []string
	for name := range seen {
		got = append(got, name)
	}
	slices.Sort(got)
	if s := strings.Join(got, ""); s != names {
		t.Errorf("calls go to %q; want %q", s, names)
	}
}

// A server that fails is left out, longer each time in a row, and is tried again.
func TestEject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := pool(t, 3, Options{})
		for range 4 {
			fail(t, u, "b")
		}
		wantServers(t, u, "abc")
		fail(t, u, "b")
		wantServers(t, u, "ac")
		if st := u.Servers()[1]; !st.Ejected || st.Faults != 5 {
			t.Errorf("%+v", st)
		}
		time.Sleep(10*time.Second - 1)
		wantServers(t, u, "ac")
		time.Sleep(time.Nanosecond)
		wantServers(t, u, "abc")
		fail(t, u, "b") // one is enough now
		wantServers(t, u, "ac")
		time.Sleep(20*time.Second - 1)
		wantServers(t, u, "ac")
		time.Sleep(time.Nanosecond)
		wantServers(t, u, "abc")
		u.servers[1].active.Add(1)
		u.servers[1].Done(h2.Outcome{Status: 0, GRPC: true})
		for range 4 {
			fail(t, u, "b")
		}
		wantServers(t, u, "abc")
		fail(t, u, "b")
		time.Sleep(10 * time.Second)
		wantServers(t, u, "abc")
		if tries := u.Tries(); tries != (Tries{Ejections: 3}) {
			t.Errorf("%+v", tries)
		}
	})
}

func TestTriesCountRetries(t *testing.T) {
	u := pool(t, 2, Options{})
	for range 11 {
		u.budget.spend()
	}
	if tries := u.Tries(); tries != (Tries{Retries: 10, Denied: 1}) {
		t.Errorf("%+v", tries)
	}
}

// The last one stays: it may serve some, and nobody else serves any.
func TestEjectNotTheLast(t *testing.T) {
	u := pool(t, 2, Options{})
	for range 10 {
		fail(t, u, "a")
	}
	for range 10 {
		fail(t, u, "b")
	}
	wantServers(t, u, "b")
	never := pool(t, 2, Options{Eject: Eject{Failures: -1}})
	for range 100 {
		fail(t, never, "a")
	}
	wantServers(t, never, "ab")
}

// What counts as a failure, and what ends a row of them.
func TestVerdicts(t *testing.T) {
	for _, test := range []struct {
		out  h2.Outcome
		want int32 // failures in a row, after one
	}{
		{h2.Outcome{Status: 200}, 0},
		{h2.Outcome{Status: 500}, 0},
		{h2.Outcome{Status: 502}, 2},
		{h2.Outcome{Status: 503}, 2},
		{h2.Outcome{Status: 504}, 2},
		{h2.Outcome{Status: 505}, 0},
		{h2.Outcome{Status: -1}, 1},
		{h2.Outcome{Status: 0, GRPC: true}, 0},
		{h2.Outcome{Status: 13, GRPC: true}, 0},
		{h2.Outcome{Status: 14, GRPC: true}, 2},
		{h2.Outcome{Status: -1, Fault: h2.Slow}, 2},
		{h2.Outcome{Status: 200, Fault: h2.Broken}, 2},
	} {
		u := pool(t, 2, Options{})
		s := u.servers[0]
		fail(t, u, "a")
		s.active.Add(1)
		s.Done(test.out)
		if got := s.fails.Load(); got != test.want || s.active.Load() != 0 {
			t.Errorf("%+v: %d failures in a row, %d in flight; want %d, 0", test.out, got, s.active.Load(), test.want)
		}
	}
}

// A connection of a WebSocket's says nothing of its server: one that hangs takes connections, too.
func TestConnectionsAreNoSuccess(t *testing.T) {
	u := pool(t, 2, Options{})
	s := u.servers[0]
	fail(t, u, "a")
	s.active.Add(1)
	near, far := net.Pipe()
	defer far.Close()
	_ = (&tracked{Conn: near, server: s}).Close()
	if s.fails.Load() != 1 || s.active.Load() != 0 {
		t.Errorf("%d failures in a row, %d in flight; want 1, 0", s.fails.Load(), s.active.Load())
	}
}

// A copy goes out only if it is whole.
func TestCopyOfAPart(t *testing.T) {
	for _, test := range []struct {
		length int64
		err    error
		want   int64
	}{{-1, nil, 0}, {-1, io.EOF, 1}, {5, nil, 1}, {6, nil, 0}} {
		u, err := New("http://127.0.0.1:1", Options{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		u.cancel() // nothing is dialed
		c := u.Copy(t.Context())
		c.Head(&protocols.Head{Method: "POST", Path: "/", Length: test.length})
		c.Body([]byte("hello"), test.err)
		u.mu.Lock() // a copy that is sent waits for it
		done := make(chan struct{})
		go func() { defer close(done); c.Send() }()
		for range 1000 {
			if u.copies.Load() == test.want && test.want > 0 {
				break
			}
			runtime.Gosched()
		}
		if got := u.copies.Load(); got != test.want {
			t.Errorf("%+v: %d copies are sent", test, got)
		}
		u.mu.Unlock()
		<-done
		u.Close()
	}
}

// A server that comes back gets a growing share.
func TestSlowStart(t *testing.T) {
	for _, balance := range []Balance{LeastRequest, RoundRobin} {
		synctest.Test(t, func(t *testing.T) {
			u := pool(t, 2, Options{SlowStart: time.Minute, Balance: balance})
			share := func() int {
				n := 0
				a := anybody()
				for range 2000 {
					s := u.choose(&a, nil)
					if letter(s) == "b" {
						n++
					}
					s.ended(unknown)
				}
				return n / 20 // in percent
			}
			if n := share(); n < 40 || n > 60 {
				t.Errorf("at the start b gets %d %%", n)
			}
			u.setSick(u.servers[1], true, errors.New("test"))
			u.setSick(u.servers[1], false, nil)
			young := share()
			time.Sleep(30 * time.Second)
			middle := share()
			time.Sleep(31 * time.Second)
			old := share()
			if young > 15 || middle < 15 || middle > 40 || old < 40 || young == 0 {
				t.Errorf("%d: b gets %d, %d, %d %%", balance, young, middle, old)
			}
		})
	}
}

// When a server is the only one, being new does not count.
func TestSlowStartAlone(t *testing.T) {
	u := pool(t, 2, Options{SlowStart: time.Hour})
	u.setSick(u.servers[1], true, errors.New("test"))
	u.setSick(u.servers[1], false, nil)
	u.setSick(u.servers[0], true, errors.New("test"))
	wantServers(t, u, "b")
	u.setSick(u.servers[1], true, errors.New("test"))
	wantServers(t, u, "-")
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := pool(t, 1, Options{Breaker: Breaker{Share: 0.5, Calls: 10}})
		well := func() {
			u.servers[0].active.Add(1)
			u.servers[0].ended(fine)
		}
		for range 6 {
			well()
		}
		for range 5 {
			fail(t, u, "a")
		}
		wantServers(t, u, "a")
		fail(t, u, "a") // six of twelve
		wantServers(t, u, "-")
		time.Sleep(5*time.Second - 1)
		wantServers(t, u, "-")
		time.Sleep(time.Nanosecond)
		a := anybody()
		if one, two := u.choose(&a, nil), u.choose(&a, nil); one == nil || two != nil {
			t.Errorf("half open it lets %v and %v through", one, two)
		}
		fail(t, u, "a")
		wantServers(t, u, "-")
		time.Sleep(5 * time.Second)
		if u.choose(&a, nil) == nil {
			t.Error("it does not try again")
		}
		well()
		wantServers(t, u, "a")
		for range 9 {
			fail(t, u, "a")
		}
		time.Sleep(10 * time.Second) // forgotten
		fail(t, u, "a")
		wantServers(t, u, "a")
	})
}

// A trial whose client left does not keep the breaker open for ever.
func TestBreakerForgetsATrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := pool(t, 1, Options{Breaker: Breaker{Share: 0.5, Calls: 1}})
		fail(t, u, "a")
		time.Sleep(5 * time.Second)
		a := anybody()
		u.choose(&a, nil).ended(unknown)
		if u.choose(&a, nil) != nil {
			t.Error("a second trial at once")
		}
		time.Sleep(5 * time.Second)
		if u.choose(&a, nil) == nil {
			t.Error("no second trial")
		}
	})
}

func TestRetryBudget(t *testing.T) {
	u := pool(t, 3, Options{})
	spend := func() (n int) {
		for range 100 {
			r := h2.Request{}
			if m := u.pickStream(&r, nil, []h2.Member{u.servers[0]}); m != nil {
				if m == h2.Member(u.servers[0]) {
					t.Error("the server that was tried is tried again")
				}
				n++
			}
		}
		return n
	}
	if n := spend(); n != 10 {
		t.Errorf("%d retries at once", n)
	}
	for range 20 {
		r := h2.Request{}
		u.pickStream(&r, nil, nil)
	}
	if n := spend(); n != 4 {
		t.Errorf("%d retries for 20 calls", n)
	}
}

// names is a resolver.
type names struct {
	mu    sync.Mutex
	addrs []netip.Addr
	err   error
}

func (n *names) lookup(context.Context, string, string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.addrs), n.err
}

func (n *names) set(addrs []netip.Addr, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs, n.err = addrs, err
}

func addrs(list ...string) (all []netip.Addr) {
	for _, s := range list {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

// Each address of a name is a server. Those that were there stay what they are.
func TestResolve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := new(names)
		dns.set(nil, errors.New("no network yet"))
		u, err := New("grpc://app.test:81", Options{Log: slog.New(slog.DiscardHandler), lookup: dns.lookup})
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		want := func(list ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for _, st := range u.Servers() {
				got = append(got, strings.TrimPrefix(st.Name, "grpc://app.test:81 "))
			}
			slices.Sort(got)
			if !slices.Equal(got, list) {
				t.Errorf("the servers are %q; want %q", got, list)
			}
		}
		want("grpc://app.test:81")
		dns.set(addrs("192.0.2.2", "192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2"), nil)
		time.Sleep(10 * time.Second)
		want("(192.0.2.1)", "(192.0.2.2)")
		servers := func() (first *server, removed int) {
			synctest.Wait()
			u.mu.Lock()
			defer u.mu.Unlock()
			return u.servers[0], len(u.removed)
		}
		goes, _ := servers()
		a := anybody()
		leaves := u.choose(&a, func(s *server) bool { return s != goes })
		dns.set(addrs("2001:db8::1", "192.0.2.2"), nil)
		time.Sleep(10 * time.Second)
		want("(192.0.2.2)", "(2001:db8::1)")
		if s, _ := servers(); s == goes || s.since.Load() != 0 {
			t.Error("a server that stays was made anew")
		}
		for _, err := range []error{errors.New("broken"), nil} {
			dns.set(nil, err)
			time.Sleep(10 * time.Second)
			want("(192.0.2.2)", "(2001:db8::1)")
		}
		time.Sleep(time.Minute)
		if _, removed := servers(); u.InFlight() != 1 || removed != 1 {
			t.Errorf("%d in flight, %d removed; want the one whose call goes on", u.InFlight(), removed)
		}
		leaves.ended(fine)
		time.Sleep(10 * time.Second)
		if _, removed := servers(); removed != 0 {
			t.Error("a server without calls is not closed")
		}
	})
}
