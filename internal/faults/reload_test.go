//go:build faults

package faults

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
)

const (
	reloads     = 100
	streams     = 200
	sockets     = 1000
	restWorkers = 20 // of 25 requests a second each
)

const reloadConfig = `
listen: "127.0.0.1:0"
tls: { certificates: [{ cert: server.crt, key: server.key }] }
upstreams:
  web: { servers: ["http://%[1]s"] }
  rpc: { servers: ["grpc://%[1]s"] }
  moving: { servers: ["http://%[2]s"] }
routes:
  - { grpc: "*", to: rpc }
  - { websocket: /ws, to: web }
  - { path: /api/whoami, to: moving }
  - { path: /, to: web }
drain: { timeout: 5s, spread: 0s, not_ready: 0s }
log: { format: text, access: false }
`

// A hundred reloads that move a route between two servers, under REST at 500/s, 200 gRPC streams and
// 1,000 WebSockets: no call fails, and no connection ends.
func TestReload(t *testing.T) {
	h := newHouse(t)
	file := filepath.Join(h.dir, "oneport.yaml")
	write := func(i int) {
		text := fmt.Sprintf(reloadConfig, h.servers[0].addr, h.servers[1+i%2].addr)
		// As editors and Kubernetes do: the file is whole at each moment.
		if err := errors.Join(os.WriteFile(file+".new", []byte(text), 0o600), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	edge := h.edge(t, file)
	c := newCrowd(t, h.ca, edge.addr)
	c.start(t)
	began := time.Now()
	for i := range reloads {
		write(i + 1)
		edge.signal(t, syscall.SIGHUP)
		time.Sleep(100 * time.Millisecond)
	}
	took := time.Since(began)
	c.stop()
	loaded := strings.Count(edge.log.String(), `msg="configuration loaded"`)
	t.Logf("%d of %d reloads in %v: %d REST requests (%.0f/s), %d messages of %d gRPC streams, %d of %d WebSockets; %d failures %v",
		loaded, reloads, took.Round(time.Second), c.requests.Load(), float64(c.requests.Load())/took.Seconds(), c.messages.Load(), streams, c.echoes.Load(), sockets, c.failed.Load(), c.example.Load())
	if c.failed.Load() > 0 {
		t.Errorf("%d failures: %v", c.failed.Load(), c.example.Load())
	}
	if loaded < reloads*9/10 { // two signals at once are one
		t.Errorf("%d of %d reloads", loaded, reloads)
	}
	if n := c.requests.Load(); float64(n)/took.Seconds() < 400 || c.messages.Load() < streams || c.echoes.Load() < sockets {
		t.Error("the load was not what it was to be")
	}
}

// crowd is callers of all three protocols.
type crowd struct {
	addr   string
	tls    *tls.Config
	ctx    context.Context //nolint:containedctx // it ends with the test
	cancel context.CancelFunc
	work   sync.WaitGroup

	requests, messages, echoes, failed atomic.Int64
	example                            atomic.Value // the first failure
}

func newCrowd(t *testing.T, ca, addr string) *crowd {
	t.Helper()
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	c := &crowd{addr: addr, tls: &tls.Config{RootCAs: pool, ServerName: "localhost"}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	t.Cleanup(c.stop)
	return c
}

func (c *crowd) stop() {
	c.cancel()
	c.work.Wait()
}

// fail takes note of what must not be.
func (c *crowd) fail(what string, err error) {
	if c.ctx.Err() == nil && err != nil {
		c.failed.Add(1)
		c.example.CompareAndSwap(nil, what+": "+err.Error())
	}
}

// start has everybody connect, and call from then on.
func (c *crowd) start(t *testing.T) {
	t.Helper()
	l := &load{}
	for i := range restWorkers {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: c.tls.Clone(), ForceAttemptHTTP2: i%2 == 0}}
		get := []func(context.Context) error{l.get(client, "https://"+c.addr+"/api/hello"), l.get(client, "https://"+c.addr+"/api/whoami")}
		c.every(time.Second/rate, func(n int) {
			c.fail("REST", get[n%2](c.ctx))
			c.requests.Add(1)
		})
	}
	var ready sync.WaitGroup
	for i := range 8 {
		cc, err := grpc.NewClient(c.addr, grpc.WithTransportCredentials(credentials.NewTLS(c.tls)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cc.Close() })
		for range streams / 8 {
			ready.Add(1)
			c.stream(i, echov1.NewEchoClient(cc), ready.Done)
		}
	}
	ready.Wait()
	for range sockets {
		c.socket(t)
	}
}

// every calls f again and again.
func (c *crowd) every(d time.Duration, f func(n int)) {
	c.work.Go(func() {
		tick := time.NewTicker(d)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
				f(n)
			case <-c.ctx.Done():
				return
			}
		}
	})
}

// stream is a gRPC stream that echoes a message each second.
func (c *crowd) stream(_ int, echo echov1.EchoClient, ready func()) {
	s, err := echo.Bidi(c.ctx)
	c.fail("stream", err)
	ready()
	if err != nil {
		return
	}
	c.every(time.Second, func(int) {
		if err := s.Send(&echov1.BidiRequest{Message: "still there?"}); err != nil {
			_, err = s.Recv()
			c.fail("stream", err)
			return
		}
		_, err := s.Recv()
		c.fail("stream", err)
		c.messages.Add(1)
	})
}

// socket is a WebSocket that echoes a message each two seconds.
func (c *crowd) socket(t *testing.T) {
	t.Helper()
	d := websocket.Dialer{TLSClientConfig: c.tls.Clone(), HandshakeTimeout: 10 * time.Second}
	ws, res, err := d.DialContext(c.ctx, "wss://"+c.addr+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	c.work.Go(func() {
		<-c.ctx.Done()
		_ = ws.Close()
	})
	c.every(2*time.Second, func(int) {
		err := ws.WriteMessage(websocket.TextMessage, []byte("still there?"))
		if err == nil {
			_, _, err = ws.ReadMessage()
		}
		c.fail("WebSocket", err)
		c.echoes.Add(1)
	})
}
