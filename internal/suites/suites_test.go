//go:build suites

package suites

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/protocols/rest"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/upstream"
)

// built is where the tests build oneport.
var built string

func TestMain(m *testing.M) {
	rest.Quiet()
	dir, err := os.MkdirTemp("", "oneport")
	if err != nil {
		panic(err)
	}
	built = dir
	defer os.RemoveAll(dir)
	m.Run()
}

// program gives the path of a suite's program.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", ".bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: build it with make .bin/suites", err)
	}
	return path
}

// runFor bounds one run of a program; the slowest, h2spec, takes a few seconds.
const runFor = time.Minute

// run runs a program to its end and returns what it printed, standard error
// included. That it exits with an error is an *exec.ExitError.
func run(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, runFor)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("%s: %w after %s", filepath.Base(path), ctx.Err(), runFor)
	}
	return string(out), err
}

// devCerts makes a CA and a certificate for localhost in a directory of the test.
func devCerts(t *testing.T) *certs.DevSource {
	t.Helper()
	source := certs.Dev(t.TempDir())
	if err := source.Load(); err != nil {
		t.Fatal(err)
	}
	return source
}

// start serves srv on 127.0.0.1 until the test ends, and returns the port
// numbers of its TLS and its plaintext listener. The test's programs have
// ended by then, so the drain must be a clean one.
func start(t *testing.T, srv *router.Server) (secure, plaintext string) {
	t.Helper()
	srv.Listeners = []router.Listener{{Addr: "127.0.0.1:0"}, {Addr: "127.0.0.1:0", Plaintext: true}}
	if srv.Log == nil {
		srv.Log = slog.New(slog.DiscardHandler)
	}
	// Not t.Context(): that one ends before the cleanups run.
	ctx, cancel := context.WithCancel(context.Background())
	addrs, err := srv.Listen(ctx)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.ListenAndServe(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the port did not end cleanly: %v", err)
		}
	})
	return portOf(t, addrs[0]), portOf(t, addrs[1])
}

// startProxy serves a port that hands all it gets to the one at 127.0.0.1:behind.
func startProxy(t *testing.T, source certs.Source, behind string) (secure, plaintext string) {
	t.Helper()
	up, err := upstream.New("h2c://127.0.0.1:"+behind, upstream.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(up.Close)
	return start(t, &router.Server{Certs: source, Routes: []router.Route{{GRPC: "*", To: up}, {Path: "/", To: up}}})
}

// startPlain serves h with nothing but net/http, for comparison: with TLS and
// ALPN if there is a source of certificates, or else in plaintext with h2c.
func startPlain(t *testing.T, source certs.Source, h http.Handler) (port string) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var protos http.Protocols
	protos.SetHTTP1(true)
	protos.SetHTTP2(true)
	protos.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler:           h,
		Protocols:         &protos,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	done := make(chan error, 1)
	if source == nil {
		go func() { done <- srv.Serve(ln) }()
	} else {
		srv.TLSConfig = certs.Config(source, certs.Options{})
		go func() { done <- srv.ServeTLS(ln, "", "") }()
	}
	t.Cleanup(func() {
		_ = srv.Close() // the listener is closed in any case
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("net/http: %v", err)
		}
	})
	return portOf(t, ln.Addr())
}

// startGRPC serves srv with nothing but grpc-go until the test ends, and returns its port.
func startGRPC(t *testing.T, srv *grpc.Server) (port string) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Errorf("grpc-go: %v", err)
		}
	})
	return portOf(t, ln.Addr())
}

func portOf(t *testing.T, addr net.Addr) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
