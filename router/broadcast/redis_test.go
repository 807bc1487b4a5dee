package broadcast_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/router/broadcast"
	"github.com/oneport-edge/oneport/router/redisstore"
)

// ignored are goroutines of centrifuge's that nobody waits for: a node's last ones end within
// seconds of its end.
func ignored() []goleak.Option {
	const of = "github.com/centrifugal/centrifuge"
	return []goleak.Option{
		goleak.IgnoreAnyFunction(of + ".(*Node).unsubscribeFromBrokerWhenEmpty.func1"),
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"), // of a cluster's client
	}
}

// redis is a redis-server that lives as long as a test, on a socket of its own.
type redis struct {
	socket string
	args   []string
	cmd    *exec.Cmd
}

// newRedis is one that has not been started.
func newRedis(t *testing.T, args ...string) *redis {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if asked {
			t.Fatal(err)
		}
		t.Skip("there is no redis-server here; make test-clients installs it")
	}
	dir, err := os.MkdirTemp("", "redis") //nolint:usetesting // t.TempDir's name may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	r := &redis{socket: filepath.Join(dir, "s"), args: append([]string{
		"--port", "0", "--unixsocket", filepath.Join(dir, "s"), "--dir", dir, "--save", "", "--appendonly", "no",
	}, args...)}
	t.Cleanup(func() {
		r.kill()
		_ = os.RemoveAll(dir)
	})
	return r
}

func (r *redis) start(t *testing.T) {
	t.Helper()
	r.cmd = exec.Command("redis-server", r.args...)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); ; <-tick.C {
		c, err := net.Dial("unix", r.socket)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("redis-server: %v", err)
		}
	}
}

func (r *redis) kill() {
	if r.cmd != nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		r.cmd = nil
	}
}

func (r *redis) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (r *redis) options() *broadcast.Redis {
	return &broadcast.Redis{Options: redisstore.Options{URL: "unix://" + r.socket}}
}

// instance is a port whose hub meets others at r.
func (r *redis) instance(t *testing.T) *port {
	t.Helper()
	p := start(t, broadcast.Options{Redis: r.options()})
	connected(t, p.hub)
	return p
}

// connected waits until a hub has reached Redis.
func connected(t *testing.T, hub *broadcast.Hub) {
	t.Helper()
	eventually(t, "the hub has not reached Redis", func() bool { return hub.Stats().Connected })
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !is(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// Two instances and a Redis: what is published at one arrives at the other, by all ways in and
// out, in order.
func TestTwoInstances(t *testing.T) {
	r := newRedis(t)
	r.start(t)
	a, b := r.instance(t), r.instance(t)
	inOrder(t, a, b, "news:today", 20)
	inOrder(t, b, a, "news:tomorrow", 20)

	// Presence, and who is told to go, are of both.
	alice := b.client(t, "alice")
	alice.subscribe("news:today")
	if _, answer, _ := a.post(t, "presence", `{"channel":"news:today"}`); !strings.Contains(answer, "alice") {
		t.Errorf("presence: %s", answer)
	}
	if status, answer, _ := a.post(t, "disconnect", `{"user":"alice"}`); status != http.StatusOK {
		t.Errorf("disconnect: %d %s", status, answer)
	}
	for {
		if _, err := alice.next(); err != nil {
			break // within ten seconds, or it is a timeout
		}
	}
	eventually(t, "alice is still connected", func() bool {
		_, answer, _ := a.post(t, "presence", `{"channel":"news:today"}`)
		return !strings.Contains(answer, "alice")
	})
}

// An instance goes; its client comes back to the other one with its position, and has
// everything, once and in order.
func TestInstanceGoes(t *testing.T) {
	r := newRedis(t)
	r.start(t)
	a, b := r.instance(t), r.instance(t)
	const n = 200
	sse := a.stream(t, "channel=log:a", "")
	last := sse.of("subscribed").id
	published := make(chan struct{})
	go func() {
		defer close(published)
		for i := range n {
			if _, err := b.hub.Publish(t.Context(), broadcast.Message{Channel: "log:a", Data: fmt.Append(nil, i)}); err != nil {
				t.Error(err)
			}
		}
	}()
	var got []string
	for len(got) < n/4 {
		s := sse.of("")
		got, last = append(got, data(t, s.data)), s.id
	}
	a.hub.Close()
	if err := a.Stop(); err != nil {
		t.Error(err)
	}
	for { // what was on its way
		s, err := sse.read()
		if err != nil {
			break
		}
		got, last = append(got, data(t, s.data)), s.id
	}
	got = append(got, b.follow(t, "channel=log:a", b.stream(t, "channel=log:a", last), last, n-len(got))...)
	<-published
	for i, s := range got {
		if s != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, s)
		}
	}
	if len(got) != n {
		t.Errorf("%d messages, want %d", len(got), n)
	}
}

// A key that one instance has used is known to the other.
func TestIdempotencyBetweenInstances(t *testing.T) {
	r := newRedis(t)
	r.start(t)
	a, b := r.instance(t), r.instance(t)
	body := `{"channel":"log:a","data":1,"idempotency_key":"k"}`
	_, one, _ := a.post(t, "publish", body)
	_, two, _ := b.post(t, "publish", body)
	if one != two || !strings.Contains(one, `"offset":1`) {
		t.Errorf("%s, then %s: want the same position", one, two)
	}
}

// Redis is not there at the start: calls are refused at once, and served when it is.
func TestRedisDownAtStart(t *testing.T) {
	r := newRedis(t)
	p := start(t, broadcast.Options{Redis: r.options()})
	status, answer, header := p.post(t, "publish", `{"channel":"log:a","data":1}`)
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") != "1" || !strings.Contains(answer, "unavailable") {
		t.Errorf("%d %s, Retry-After %q: want 503 and 1", status, answer, header.Get("Retry-After"))
	}
	c := p.WebSocket("/connection/websocket")
	if _, _, err := c.ReadMessage(); !strings.Contains(fmt.Sprint(err), "1013") {
		t.Errorf("%v: want 1013", err)
	}
	r.start(t)
	connected(t, p.hub)
	p.publish(t, "log:a", "1")
}

// Redis stands still: publishing fails within seconds, and works again when it goes on. Who
// is subscribed has all of it, once and in order.
func TestRedisStandsStill(t *testing.T) {
	r := newRedis(t)
	r.start(t)
	p := r.instance(t)
	sse := p.stream(t, "channel=log:a", "")
	first := sse.of("subscribed")
	p.publish(t, "log:a", "1")
	r.signal(t, syscall.SIGSTOP)
	begun := time.Now()
	body := `{"channel":"log:a","data":2,"idempotency_key":"two"}`
	status, answer, _ := p.post(t, "publish", body)
	if took := time.Since(begun); status != http.StatusServiceUnavailable || took > 5*time.Second {
		t.Errorf("%d %s after %s: want 503 within 5 s", status, answer, took)
	}
	r.signal(t, syscall.SIGCONT)
	eventually(t, "publishing does not work again", func() bool {
		status, answer, _ = p.post(t, "publish", body)
		return status == http.StatusOK
	})
	if !strings.Contains(answer, `"offset":2`) {
		t.Errorf("%s: want offset 2, however often it was tried", answer)
	}
	p.publish(t, "log:a", "3")
	if got := strings.Join(p.follow(t, "channel=log:a", sse, first.id, 3), " "); got != "1 2 3" {
		t.Errorf("got %s, want 1 2 3", got)
	}
}
