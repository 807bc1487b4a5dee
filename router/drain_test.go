package router_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
)

// refused reports whether a call failed only because the port is closed: it
// could not even connect.
func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "connection refused")
}

// Under load a drain fails no call: those in flight end well, and later ones
// either do, too, or find the port closed.
func TestDrainUnderLoad(t *testing.T) {
	srv := newServer()
	srv.Drain = router.Drain{Timeout: 20 * time.Second, Spread: time.Second}
	port := oneporttest.Listen(t, srv)

	var load sync.WaitGroup
	var calls, streams, sockets atomic.Int64
	for range 1000 {
		c := port.WebSocket("/ws")
		load.Go(func() {
			_, _, err := c.ReadMessage()
			if closeCode(err) != ws.CloseGoingAway {
				t.Errorf("WebSocket: %v", err)
			}
			sockets.Add(1)
		})
	}
	payload := bytes.Repeat([]byte("x"), 10_000)
	for i := range 16 {
		c := port.HTTP1()
		if i%2 == 0 {
			c = port.HTTP2()
		}
		load.Go(func() {
			for {
				// POST: a client does not try it again by itself.
				res, err := c.Post(port.URL("/echo"), "application/octet-stream", bytes.NewReader(payload))
				if err == nil {
					var got []byte
					got, err = io.ReadAll(res.Body)
					res.Body.Close()
					if err == nil && (res.StatusCode != http.StatusOK || !bytes.Equal(got, payload)) {
						err = fmt.Errorf("got %d with %d bytes", res.StatusCode, len(got))
					}
				}
				if err != nil {
					if !refused(err) {
						t.Errorf("REST: %v", err)
					}
					return
				}
				calls.Add(1)
			}
		})
	}
	// Streams that are under way when the drain begins, and end after it has.
	drained := make(chan struct{})
	for range 20 {
		stream, err := echov1.NewEchoClient(port.GRPC()).Bidi(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		load.Go(func() {
			for left := 50; left > 0; {
				if err := stream.Send(&echov1.BidiRequest{Message: "ping"}); err != nil {
					t.Errorf("stream: %v", err)
					return
				}
				if _, err := stream.Recv(); err != nil {
					t.Errorf("stream: %v", err)
					return
				}
				streams.Add(1)
				select {
				case <-drained:
					left--
				default:
				}
			}
			stream.CloseSend()
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				t.Errorf("stream ended with %v", err)
			}
		})
	}

	time.Sleep(500 * time.Millisecond) // under load by now
	time.AfterFunc(100*time.Millisecond, func() { close(drained) })
	if err := port.Stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	load.Wait()
	t.Logf("%d REST calls, %d stream messages, %d WebSockets", calls.Load(), streams.Load(), sockets.Load())
	if calls.Load() < 100 || streams.Load() < 1000 || sockets.Load() != 1000 {
		t.Error("that was no load")
	}
	if n := len(srv.Conns()); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// An HTTP/1 client that sends its next request while the port closes gets its
// answer, with the word that it is the last.
func TestLastCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newServer()
		port := oneporttest.Start(t, srv)
		c := port.HTTP1()
		get(t, c, port.URL("/conn"))
		done := make(chan error, 1)
		go func() { done <- port.Stop() }()
		time.Sleep(100 * time.Millisecond)
		if srv.Ready() {
			t.Error("ready while draining")
		}
		res, err := c.Post(port.URL("/echo"), "text/plain", strings.NewReader("last"))
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(res.Body); string(body) != "last" || !res.Close {
			t.Errorf("got %q, close %t", body, res.Close)
		}
		res.Body.Close()
		start := time.Now()
		if err := <-done; err != nil || time.Since(start) > 100*time.Millisecond {
			t.Errorf("drained with %v after %v", err, time.Since(start))
		}
	})
}

// With nothing in flight the drain is over at once; what merely sits there
// does not hold it up.
func TestDrainOfAnIdlePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newServer()
		srv.Drain.NotReady = 5 * time.Second
		port := oneporttest.Start(t, srv)
		start := time.Now()
		if err := port.Stop(); err != nil || time.Since(start) > 0 {
			t.Errorf("nobody there: %v after %v", err, time.Since(start))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		srv := newServer()
		port := oneporttest.Start(t, srv)
		get(t, port.HTTP1(), port.URL("/conn")) // keep-alive
		get(t, port.HTTP2(), port.URL("/conn"))
		port.DialTLS("http/1.1") // a browser's spare connection
		silent, _ := port.Dial(t.Context())
		defer silent.Close()
		time.Sleep(time.Second)
		start := time.Now()
		if err := port.Stop(); err != nil || time.Since(start) > 2*time.Second {
			t.Errorf("idle connections: %v after %v", err, time.Since(start))
		}
	})
}

// The red phase: not ready, gRPC health says so, and the port still accepts.
func TestRedPhase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newServer()
		srv.Drain.NotReady = 5 * time.Second
		port := oneporttest.Start(t, srv)
		health := grpc_health_v1.NewHealthClient(port.GRPC())
		check := func() grpc_health_v1.HealthCheckResponse_ServingStatus {
			res, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			return res.GetStatus()
		}
		if check() != grpc_health_v1.HealthCheckResponse_SERVING || !srv.Ready() {
			t.Error("not healthy before the drain")
		}
		done := make(chan error, 1)
		go func() { done <- port.Stop() }()
		time.Sleep(4 * time.Second)
		if check() != grpc_health_v1.HealthCheckResponse_NOT_SERVING || srv.Ready() {
			t.Error("healthy in the red phase")
		}
		if code, _ := get(t, port.HTTP1(), port.URL("/conn")); code != http.StatusOK {
			t.Errorf("a newcomer in the red phase got %d", code)
		}
		time.Sleep(time.Second + 10*time.Millisecond)
		if c, err := port.Dial(t.Context()); err == nil {
			t.Error("the port is still open after the red phase")
			c.Close()
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What does not end in time is cut off, each in the words of its protocol.
func TestDrainHardEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newServer()
		srv.Drain.Timeout = 3 * time.Second
		release := make(chan struct{})
		srv.HTTP = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })
		port := oneporttest.Start(t, srv)
		rest := make(chan error, 1)
		go func() {
			res, err := port.HTTP1().Get(port.URL("/"))
			if err == nil {
				res.Body.Close()
			}
			rest <- err
		}()
		stream, err := echov1.NewEchoClient(port.GRPC()).Bidi(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stream.Send(&echov1.BidiRequest{Message: "x"})
		stream.Recv()
		synctest.Wait()

		start := time.Now()
		if err := port.Stop(); !errors.Is(err, router.ErrDrainTimeout) {
			t.Errorf("Serve: %v", err)
		}
		if d := time.Since(start); d < 3*time.Second || d > 5*time.Second {
			t.Errorf("cut off after %v", d)
		}
		if err := <-rest; err == nil {
			t.Error("REST call was answered")
		}
		if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("gRPC stream: %v", err)
		}
		close(release)
	})
}

// endless is a gRPC service whose stream ends only when the port drains.
type endless struct {
	echov1.UnimplementedEchoServer
	srv *router.Server
}

func (e endless) ServerStream(_ *echov1.ServerStreamRequest, out grpc.ServerStreamingServer[echov1.ServerStreamResponse]) error {
	if err := out.Send(&echov1.ServerStreamResponse{Message: "here"}); err != nil {
		return err
	}
	select {
	case <-e.srv.Draining():
		return status.Error(codes.Unavailable, "come back")
	case <-out.Context().Done():
		return out.Context().Err()
	}
}

// A stream without an end of its own learns of the drain, when the red phase
// is over, and does not hold it up.
func TestEndlessStreamsLearnOfTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &router.Server{Log: slog.New(slog.DiscardHandler), Drain: router.Drain{NotReady: 5 * time.Second}}
		echov1.RegisterEchoServer(srv, endless{srv: srv})
		port := oneporttest.Start(t, srv)
		stream, err := echov1.NewEchoClient(port.GRPC()).ServerStream(t.Context(), &echov1.ServerStreamRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		start := time.Now()
		go func() {
			_, err := stream.Recv()
			if d := time.Since(start); d < 5*time.Second {
				t.Errorf("ended in the red phase, after %v", d)
			}
			ended <- err
		}()
		if err := port.Stop(); err != nil || time.Since(start) > 8*time.Second {
			t.Errorf("the drain ended with %v after %v", err, time.Since(start))
		}
		if err := <-ended; status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "come back" {
			t.Errorf("the stream ended with %v", err)
		}
	})
}

// Close cuts a drain short.
func TestCloseEndsTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newServer()
		port := oneporttest.Start(t, srv)
		stream, err := echov1.NewEchoClient(port.GRPC()).Bidi(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stream.Send(&echov1.BidiRequest{Message: "x"})
		stream.Recv()
		time.AfterFunc(time.Second, srv.Close)
		start := time.Now()
		if err := port.Stop(); !errors.Is(err, router.ErrDrainTimeout) || time.Since(start) > 2*time.Second {
			t.Errorf("ended with %v after %v", err, time.Since(start))
		}
	})
}

// A listener that breaks ends Serve with its error, after a drain.
func TestListenerBreaks(t *testing.T) {
	t.Parallel()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := newServer()
	done := make(chan error, 1)
	go func() { done <- srv.Serve(context.Background(), ln) }()
	waitFor(t, srv.Ready)
	ln.Close()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "a listener failed") {
		t.Errorf("Serve: %v", err)
	}
}
