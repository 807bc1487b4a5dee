//go:build faults

package faults

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"

	"github.com/oneport-edge/oneport/certs"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/limit"
)

// The test's program is started again for those who bring processors of their own: what it is
// then, the environment says. It says a line when it is ready, works until its standard
// input ends, and then what came of it.
const (
	envRole  = "ONEPORT_FAULTS_ROLE"
	envAddr  = "ONEPORT_FAULTS_ADDR"
	envCA    = "ONEPORT_FAULTS_CA"
	envCount = "ONEPORT_FAULTS_COUNT"
	envDir   = "ONEPORT_FAULTS_DIR"

	roleUpstream = "upstream"
	roleEmbedded = "embedded"
	roleSockets  = "sockets"
	roleFlood    = "flood"
)

var roles = map[string]func(ctx context.Context, ready func(...any)) (any, error){
	roleUpstream: beUpstream,
	roleEmbedded: beEmbedded,
	roleSockets:  beSockets,
	roleFlood:    beFlood,
}

func TestMain(m *testing.M) {
	role := os.Getenv(envRole)
	if role == "" {
		os.Exit(m.Run())
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	res, err := roles[role](ctx, func(what ...any) { fmt.Println(what...) })
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(res)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
}

// actor is a process of this program.
type actor struct {
	cmd  *exec.Cmd
	in   io.Closer
	out  *bufio.Reader
	said []string // when it was ready
}

// act starts one.
func (h *house) act(t *testing.T, role string, nice int, env ...string) *actor {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a := &actor{cmd: exec.Command("nice", "-n", strconv.Itoa(nice), exe)}
	a.cmd.Env = append(append(os.Environ(), env...), envRole+"="+role)
	a.cmd.Stderr = os.Stderr
	in, err := a.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	a.in, a.out = in, bufio.NewReader(out)
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.in.Close()
		late := time.AfterFunc(10*time.Second, func() { _ = a.cmd.Process.Signal(syscall.SIGKILL) })
		_ = a.cmd.Wait()
		late.Stop()
	})
	line, err := a.out.ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", role, err)
	}
	a.said = strings.Fields(line)
	return a
}

// end ends one, and reads what came of it.
func (a *actor) end(t *testing.T, res any) {
	t.Helper()
	_ = a.in.Close()
	line, err := a.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, res)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// trusting is a client's side of TLS that trusts the CA in a file.
func trusting(ca string) (*tls.Config, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", ca)
	}
	return &tls.Config{RootCAs: roots, ServerName: "localhost"}, nil
}

// slow is a server whose calls take their time, and no processor.
type slow struct{ echov1.UnimplementedEchoServer }

func rest(ctx context.Context) error {
	select {
	case <-time.After(callFor):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (slow) Unary(ctx context.Context, req *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	return &echov1.UnaryResponse{Message: req.GetMessage()}, rest(ctx)
}

func (slow) ServerStream(req *echov1.ServerStreamRequest, out grpc.ServerStreamingServer[echov1.ServerStreamResponse]) error {
	if err := rest(out.Context()); err != nil {
		return err
	}
	return out.Send(&echov1.ServerStreamResponse{Message: req.GetMessage()})
}

func (slow) ClientStream(in grpc.ClientStreamingServer[echov1.ClientStreamRequest, echov1.ClientStreamResponse]) error {
	if err := rest(in.Context()); err != nil {
		return err
	}
	return in.SendAndClose(&echov1.ClientStreamResponse{})
}

// beUpstream is the servers elsewhere for WebSockets and gRPC.
func beUpstream(ctx context.Context, ready func(...any)) (any, error) {
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	rpc, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	up := websocket.Upgrader{ReadBufferSize: 256, WriteBufferSize: 256}
	sockets := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for err == nil {
			_, _, err = c.ReadMessage()
		}
	})}
	greeter := grpc.NewServer()
	echov1.RegisterEchoServer(greeter, slow{})
	failed := make(chan error, 2)
	go func() { failed <- sockets.Serve(web) }()
	go func() { failed <- greeter.Serve(rpc) }()
	ready(web.Addr(), rpc.Addr())
	select {
	case err := <-failed:
		return nil, err
	case <-ctx.Done():
		return "done", nil
	}
}

// byPath asks the guard of a call's path, if there is one, as the routes of a file do.
type byPath map[string]protocols.Quick

func (g byPath) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	if of := g[call.Path]; of != nil {
		return of.Admit(ctx, call)
	}
	return ctx, nil
}

func (g byPath) AdmitNow(ctx context.Context, call *protocols.Call) (context.Context, error) {
	if of := g[call.Path]; of != nil {
		return of.AdmitNow(ctx, call)
	}
	return ctx, nil
}

// beEmbedded is a program that serves all itself, with the bounds of starveConfig.
func beEmbedded(ctx context.Context, ready func(...any)) (any, error) {
	source := certs.Dev(os.Getenv(envDir))
	if err := source.Load(); err != nil {
		return nil, err
	}
	unary, err := limit.New(limit.Options{Per: limit.PerAll, Concurrency: places, Queue: waiting})
	if err != nil {
		return nil, err
	}
	stream, err := limit.New(limit.Options{Per: limit.PerAll, Rate: limit.Rate{Calls: perSec, Every: time.Second}, Burst: 4})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/hello", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	srv := &router.Server{
		Certs: source,
		HTTP:  mux,
		Guards: []protocols.Guard{
			limit.NewBulkheads(limit.Bounds{GRPC: inFlight, WebSocket: 12_000}),
			byPath{echov1.Echo_Unary_FullMethodName: unary, echov1.Echo_ServerStream_FullMethodName: stream},
		},
		Limits: router.Limits{Connections: conn.Bounds{Total: 15_000}},
		Drain:  router.Drain{Timeout: 5 * time.Second},
		Log:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}
	echov1.RegisterEchoServer(srv, slow{})
	srv.WebSocket("/idle", func(_ context.Context, c *ws.Conn) error {
		for {
			if _, _, err := c.Read(); err != nil {
				return err
			}
		}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ready(ln.Addr())
	return nil, srv.Serve(ctx, ln)
}

// beSockets is clients of WebSockets that do nothing. What came of it is how many were closed.
func beSockets(ctx context.Context, ready func(...any)) (any, error) {
	trust, err := trusting(os.Getenv(envCA))
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(os.Getenv(envCount))
	if err != nil {
		return nil, err
	}
	d := websocket.Dialer{TLSClientConfig: trust, HandshakeTimeout: 30 * time.Second, ReadBufferSize: 256, WriteBufferSize: 256}
	var closed atomic.Int64
	var work, all sync.WaitGroup
	var begun atomic.Int64
	failed := make(chan error, 1)
	for range 8 {
		work.Go(func() {
			for begun.Add(1) <= int64(n) {
				c, res, err := d.DialContext(ctx, "wss://"+os.Getenv(envAddr)+"/idle", nil)
				if err != nil {
					select {
					case failed <- err:
					default:
					}
					return
				}
				_ = res.Body.Close()
				all.Go(func() {
					stop := context.AfterFunc(ctx, func() { _ = c.Close() })
					defer stop()
					for err == nil {
						_, _, err = c.ReadMessage() // it answers pings
					}
					if ctx.Err() == nil {
						closed.Add(1)
					}
				})
			}
		})
	}
	work.Wait()
	select {
	case err := <-failed:
		return nil, err
	default:
	}
	ready(n)
	<-ctx.Done()
	lost := closed.Load()
	all.Wait()
	return lost, nil
}
