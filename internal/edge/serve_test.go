package edge_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/config"
)

// behind serves the demo in plaintext until the test ends, and returns its address.
func behind(t *testing.T) string {
	t.Helper()
	srv, err := edge.Demo(edge.DemoOptions{CertDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv.Listeners = []router.Listener{{Listener: ln, Plaintext: true}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.ListenAndServe(ctx) }()
	t.Cleanup(func() {
		cancel()
		srv.Close()
		<-done
	})
	return ln.Addr().String()
}

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse("oneport.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// sidecar serves what a file says on a port of the test's own.
func sidecar(t *testing.T, text string) (*edge.Edge, *oneporttest.Port) {
	t.Helper()
	e, err := edge.Serve(parse(t, text), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close) // after the port, whose end is registered behind this
	if err := e.LogTo(io.Discard); err != nil {
		t.Fatal(err)
	}
	e.Server.Listeners, e.Server.Certs = nil, nil
	e.Server.Drain = router.Drain{}
	return e, oneporttest.Listen(t, e.Server)
}

const before = `
listen: "127.0.0.1:8443"
tls: { dev: true }
upstreams:
  web: { servers: ["http://%[1]s"] }
  rpc: { servers: ["grpc://%[1]s"] }
routes:
  - { grpc: "*", to: rpc }
  - { websocket: /, to: web }
  - { path: /old/, redirect: "/api/*" }
  - { path: /api/, to: web, host: [%[2]s, "*.example.com"] }
  - { path: /api/, to: web, header: { X-Canary: "1" }, method: POST }
`

// A file's routes lead where it says, in all three protocols.
func TestSidecar(t *testing.T) {
	addr := behind(t)
	_, port := sidecar(t, fmt.Sprintf(before, addr, oneporttest.Name))
	for version, c := range clients(port) {
		if got := do(t, c, http.MethodGet, port.URL("/api/hello"), "", nil); got.status != http.StatusOK || string(got.body) != `{"message":"Hello from HTTP"}` {
			t.Errorf("%s: %d %q", version, got.status, got.body)
		}
		if got := do(t, c, http.MethodGet, port.URL("/old/hello?x=1"), "", nil); got.status != http.StatusOK || !strings.Contains(string(got.body), "Hello") {
			t.Errorf("%s: a redirect: %d %q", version, got.status, got.body)
		}
		for path, want := range map[string]int{
			"/nowhere": http.StatusNotFound, "/api%2fhello": http.StatusBadRequest, "/api/../nowhere": http.StatusNotFound,
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL("/"), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.URL.Opaque = "//" + req.URL.Host + path
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%s: %s: %d, want %d", version, path, res.StatusCode, want)
			}
		}
	}
	if res, err := echov1.NewEchoClient(port.GRPC()).Unary(t.Context(), &echov1.UnaryRequest{Message: "hi"}); err != nil || res.GetMessage() != "hi" {
		t.Errorf("%v, %v", res, err)
	}
	c := port.WebSocket("/ws")
	if err := c.WriteMessage(websocket.TextMessage, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	if _, msg, err := c.ReadMessage(); err != nil || string(msg) != "hi" {
		t.Errorf("%q, %v", msg, err)
	}
}

// A hundred reloads under load lose nothing: neither calls, nor streams, nor sockets.
func TestReloadUnderLoad(t *testing.T) {
	addr, other := behind(t), behind(t)
	one := fmt.Sprintf(before, addr, oneporttest.Name)
	two := fmt.Sprintf(before, other, oneporttest.Name)
	e, port := sidecar(t, one)
	stop := make(chan struct{})
	var work sync.WaitGroup
	var calls atomic.Int64
	going := func(f func() error) {
		work.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := f(); err != nil {
					t.Errorf("after %d calls: %v", calls.Load(), err)
					return
				}
				calls.Add(1)
				time.Sleep(5 * time.Millisecond) // a rate, not a wait
			}
		})
	}
	for _, c := range clients(port) {
		for range 2 {
			going(func() error {
				res, err := c.Get(port.URL("/api/hello"))
				if err != nil {
					return err
				}
				defer res.Body.Close()
				if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
					return fmt.Errorf("%d, %w", res.StatusCode, err)
				}
				return nil
			})
		}
	}
	echo := echov1.NewEchoClient(port.GRPC())
	for range 20 {
		stream, err := echo.Bidi(context.WithoutCancel(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		going(func() error {
			if err := stream.Send(&echov1.BidiRequest{Message: "hi"}); err != nil {
				return err
			}
			_, err := stream.Recv()
			return err
		})
	}
	for range 20 {
		c := port.WebSocket("/ws")
		going(func() error {
			if err := c.WriteMessage(websocket.TextMessage, []byte("hi")); err != nil {
				return err
			}
			_, _, err := c.ReadMessage()
			return err
		})
	}
	for i := range 100 {
		text := one
		if i%2 == 0 {
			text = two
		}
		if plan, err := e.Reload(parse(t, text)); err != nil || len(plan.Restart) > 0 || len(plan.Upstreams.Changed) != 2 || len(plan.Routes.Same) != 5 {
			t.Fatalf("%+v, %v", plan, err)
		}
		time.Sleep(10 * time.Millisecond) // a rate, not a wait
	}
	close(stop)
	work.Wait()
	t.Logf("%d calls over 100 reloads", calls.Load())
}

// A file that cannot be served changes nothing, and says why.
func TestReloadOfABadFile(t *testing.T) {
	addr := behind(t)
	e, port := sidecar(t, fmt.Sprintf(before, addr, oneporttest.Name))
	for text, want := range map[string]string{
		`upstreams: { web: { servers: ["ftp://x"] } }`:                                                       "the scheme is none of http",
		"upstreams: { web: { servers: [\"http://x\"] } }\nroutes: [{ grpc: \"*\", to: web }]":                "gRPC",
		"upstreams: { web: { servers: [\"http://x\"] } }\nroutes: [{ path: /a, redirect: /b, status: 200 }]": "status",
	} {
		cfg, err := config.Parse("new.yaml", []byte("listen: \"127.0.0.1:8443\"\ntls: { dev: true }\n"+text))
		if err == nil {
			_, err = e.Reload(cfg)
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "new.yaml:") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if got := do(t, port.HTTP2(), http.MethodGet, port.URL("/api/hello"), "", nil); got.status != http.StatusOK {
		t.Errorf("%d", got.status)
	}
	cfg := parse(t, strings.Replace(fmt.Sprintf(before, addr, oneporttest.Name), "8443", "8444", 1))
	for range 2 { // it is not in effect, however often it is loaded
		if plan, err := e.Reload(cfg); err != nil || !slices.Equal(plan.Restart, []string{"listen"}) {
			t.Errorf("%+v, %v", plan, err)
		}
	}
}

// A CA that is to be asked, or another one, waits for a restart.
func TestReloadOfCA(t *testing.T) {
	addr := behind(t)
	text := "listen: \"127.0.0.1:8443\"\ntls: %s\nupstreams: { web: { servers: [\"http://" + addr + "\"] } }\nroutes: [{ path: /, to: web }]\n"
	storage := filepath.Join(t.TempDir(), "acme")
	with := func(more string) string {
		return fmt.Sprintf(text, fmt.Sprintf("{ acme: { domains: [one.test], storage: %q%s } }", storage, more))
	}
	e, err := edge.Serve(parse(t, with("")), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, ok := e.Server.Certs.(certs.Challenged); !ok {
		t.Errorf("certificates come from %T", e.Server.Certs)
	}
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"the same":    {"# a line more\n" + with(""), nil},
		"another CA":  {with(", ca: \"https://ca.test/dir\""), []string{"tls"}},
		"a challenge": {with(", challenges: [http-01]"), []string{"tls"}},
		"no CA":       {fmt.Sprintf(text, "{ dev: true }"), []string{"tls"}},
	} {
		if plan, err := e.Reload(parse(t, tc.text)); err != nil || !slices.Equal(plan.Restart, tc.want) {
			t.Errorf("%s: %+v, %v", name, plan, err)
		}
	}
	if _, err := e.Reload(parse(t, with(", ca_roots: none.pem"))); err == nil || !strings.Contains(err.Error(), "oneport.yaml:2:14: tls.acme: ") {
		t.Errorf("roots that are not there: %v", err)
	}
	if _, err := os.Stat(storage); err == nil {
		t.Error("a check has made the storage")
	}
}
