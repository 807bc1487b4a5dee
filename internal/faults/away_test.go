//go:build faults

package faults

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	broadcastv1 "github.com/oneport-edge/oneport/proto/oneport/broadcast/v1"
)

// 200 messages a second in ten channels, to 500 subscribers at two instances: 10,000 deliveries.
// All of them in one channel would be 100,000, more than two processors encrypt and decrypt.
const (
	awayChannels    = 10
	awayRate        = 20 // messages a second in each channel
	awaySubscribers = 500
	awayFor         = 30 * time.Second
	awayToken       = "a-token-for-publishers"
)

const awayConfig = `
listen: "127.0.0.1:0"
tls: { certificates: [{ cert: server.crt, key: server.key }] }
redis: { url: "unix://%s" }
broadcast:
  listen: "%s"
  token_file: publishers.txt
  namespaces:
    log: { history_size: 100000, history_ttl: 10m, recovery: true, subscribe: [anyone] }
routes:
  - { websocket: /connection/websocket, broadcast: true }
log: { format: text, access: false }
`

// Redis is away twice, hung and killed, and then one of two instances is killed: publishers
// are told, and try again; no message that was acknowledged is lost, none comes twice, and all come
// in order.
func TestRedisAway(t *testing.T) {
	h := &house{t: t, dir: t.TempDir()}
	h.build(t)
	r := newRedis(t)
	r.start(t)
	if err := os.WriteFile(filepath.Join(h.dir, "publishers.txt"), []byte(awayToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var edges [2]*program
	var ports, publishers [2]string
	for i := range edges {
		publishers[i] = freeAddr(t)
		file := filepath.Join(h.dir, fmt.Sprintf("edge%d.yaml", i))
		if err := os.WriteFile(file, fmt.Appendf(nil, awayConfig, r.socket, publishers[i]), 0o600); err != nil {
			t.Fatal(err)
		}
		edges[i] = h.edge(t, file)
		for _, m := range listening.FindAllStringSubmatch(edges[i].log.String(), -1) {
			if m[1] != publishers[i] {
				ports[i] = m[1]
			}
		}
	}
	trust, err := trusting(h.ca)
	if err != nil {
		t.Fatal(err)
	}

	subs := newSubscribers(t, trust, ports)
	pubs := newPublishers(t, publishers)
	phase := func(name string, hit func(), d time.Duration) {
		before := pubs.counts()
		hit()
		time.Sleep(d)
		t.Logf("%s, %s: %s", name, d, pubs.counts().since(before))
	}
	phase("all is well", func() {}, 5*time.Second)
	hung := pubs.counts()
	phase("Redis is stopped", func() { r.signal(t, syscall.SIGSTOP) }, awayFor)
	phase("Redis goes on", func() { r.signal(t, syscall.SIGCONT) }, 10*time.Second)
	killed := pubs.counts()
	phase("Redis is killed", func() { r.kill() }, awayFor)
	phase("Redis is back, with its file", func() { r.start(t) }, 10*time.Second)
	back := pubs.counts()
	if killed.refused == hung.refused || back.refused == killed.refused {
		t.Error("nobody was told that Redis is away")
	}
	lost := time.Now()
	phase("an instance is killed", func() { edges[0].kill(t) }, 10*time.Second)
	pubs.stop()
	if pubs.counts().other > 0 {
		t.Errorf("%d answers of another kind: %s", pubs.counts().other, pubs.example())
	}
	subs.caughtUp(t, pubs)
	t.Logf("%d messages acknowledged in %d channels; subscribers have them once and in order; of %d at the instance that was killed the last was back after %s",
		pubs.counts().acknowledged, awayChannels, awaySubscribers/2, subs.lastBack(lost).Round(10*time.Millisecond))
	if got := subs.lastBack(lost); got > backOffMost+3*time.Second {
		t.Errorf("the last was back after %s, want within the back-off of %s and some", got, backOffMost)
	}
}

// freeAddr is an address that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// redis is a redis-server that writes each command to its file before it answers.
type redis struct {
	socket string
	args   []string
	cmd    *exec.Cmd
}

func newRedis(t *testing.T) *redis {
	t.Helper()
	dir, err := os.MkdirTemp("", "redis") //nolint:usetesting // t.TempDir's name may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	r := &redis{socket: filepath.Join(dir, "s"), args: []string{
		"--port", "0", "--unixsocket", filepath.Join(dir, "s"), "--dir", dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always",
	}}
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
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
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

func (r *redis) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (r *redis) kill() {
	if r.cmd != nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		r.cmd = nil
	}
}

// counts are of answers to publishers.
type counts struct{ acknowledged, refused, unreachable, other int64 }

func (c counts) since(b counts) string {
	return fmt.Sprintf("%d acknowledged, %d times 503 or UNAVAILABLE, %d times nobody there", c.acknowledged-b.acknowledged, c.refused-b.refused, c.unreachable-b.unreachable)
}

// publishersOf publish to a channel each, by REST or gRPC: the next message when the one
// before was acknowledged, and the same again, under the same key, until it is.
type publishersOf struct {
	cancel context.CancelFunc
	work   sync.WaitGroup
	last   [awayChannels]atomic.Int64 // acknowledged of each channel

	acknowledged, refused, unreachable, other atomic.Int64
	text                                      atomic.Pointer[string]
}

func newPublishers(t *testing.T, addrs [2]string) *publishersOf {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &publishersOf{cancel: cancel}
	t.Cleanup(p.stop)
	var apis [2]broadcastv1.BroadcastClient
	for i, addr := range addrs {
		cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cc.Close() })
		apis[i] = broadcastv1.NewBroadcastClient(cc)
	}
	for c := range awayChannels {
		p.work.Go(func() {
			tick := time.NewTicker(time.Second / awayRate)
			defer tick.Stop()
			at := c // an instance, the other one after each failure
			for n := int64(1); ctx.Err() == nil; n++ {
				for ctx.Err() == nil {
					// Whoever is stopped has its answer first.
					one, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
					ok := p.publish(one, addrs[at%2], apis[at%2], c, n)
					done()
					if ok {
						p.last[c].Store(n)
						break
					}
					at++
					pause(ctx, 200*time.Millisecond)
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return p
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func channelOf(c int) string { return fmt.Sprintf("log:%d", c) }

// publish publishes by REST in channels of odd numbers, and by gRPC in the others.
func (p *publishersOf) publish(ctx context.Context, addr string, api broadcastv1.BroadcastClient, c int, n int64) (ok bool) {
	key := fmt.Sprintf("%d-%d", c, n)
	var err error
	var refused, unreachable bool
	if c%2 == 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+awayToken)
		_, err = api.Publish(ctx, &broadcastv1.PublishRequest{Channel: channelOf(c), Data: fmt.Appendf(nil, `%d`, n), IdempotencyKey: key})
		unreachable = err != nil && (strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "EOF") || strings.Contains(err.Error(), "reset"))
		refused = status.Code(err) == codes.Unavailable && !unreachable
	} else {
		var res *http.Response
		req, errReq := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/broadcast/publish",
			strings.NewReader(fmt.Sprintf(`{"channel":%q,"data":%d,"idempotency_key":%q}`, channelOf(c), n, key)))
		if errReq != nil {
			return false
		}
		req.Header.Set("Authorization", "Bearer "+awayToken)
		req.Header.Set("Content-Type", "application/json")
		res, err = http.DefaultClient.Do(req)
		unreachable = err != nil
		if err == nil {
			var body []byte
			body, err = io.ReadAll(res.Body)
			_ = res.Body.Close()
			unreachable = err != nil
			if refused = res.StatusCode == http.StatusServiceUnavailable; err == nil && res.StatusCode != http.StatusOK {
				err = fmt.Errorf("%d %s", res.StatusCode, bytes.TrimSpace(body))
			}
		}
	}
	switch {
	case err == nil:
		p.acknowledged.Add(1)
	case refused:
		p.refused.Add(1)
	case unreachable:
		p.unreachable.Add(1)
	default:
		p.other.Add(1)
		text := err.Error()
		p.text.Store(&text)
	}
	return err == nil
}

func (p *publishersOf) counts() counts {
	return counts{p.acknowledged.Load(), p.refused.Load(), p.unreachable.Load(), p.other.Load()}
}

func (p *publishersOf) example() string {
	if text := p.text.Load(); text != nil {
		return *text
	}
	return ""
}

func (p *publishersOf) stop() {
	p.cancel()
	p.work.Wait()
}

// newSubscribers opens all subscribers, half of them at each instance.
func newSubscribers(t *testing.T, trust *tls.Config, ports [2]string) *subscribers {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &subscribers{trust: trust, ports: ports}
	t.Cleanup(func() {
		cancel()
		c.work.Wait()
	})
	for i := range awaySubscribers {
		s := &subscriber{crowd: c, channel: i / 2 % awayChannels, at: i % 2}
		c.all = append(c.all, s)
		c.work.Go(func() { s.run(ctx) })
	}
	for end := time.Now().Add(30 * time.Second); c.subscribed.Load() < awaySubscribers; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d are subscribed", c.subscribed.Load())
		}
	}
	return c
}
