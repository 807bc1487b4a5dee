//go:build clients

package clients_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
)

// witness is a server behind the port, for all three protocols, that writes down the heads
// it gets.
type witness struct {
	addr string
	rpc  *grpc.Server
	held chan string // the path of a request that is held open
	http *http.Server

	release chan struct{} // closed to have requests for /late answered

	mu    sync.Mutex // guards the fields below
	heads []head
}

// head is a request's head as it came.
type head struct {
	uri    string
	fields http.Header
}

// newWitness starts one for as long as the test runs.
func newWitness(t *testing.T) *witness {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{addr: ln.Addr().String(), rpc: grpc.NewServer(), held: make(chan string, 16), release: make(chan struct{})}
	echov1.RegisterEchoServer(w.rpc, witnessEcho{})
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	w.http = &http.Server{Handler: w, Protocols: both}
	done := make(chan error, 1)
	go func() { done <- w.http.Serve(ln) }()
	t.Cleanup(func() {
		w.crash()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		w.rpc.Stop()
	})
	return w
}

// crash ends it at once, with all its connections.
func (w *witness) crash() { _ = w.http.Close() }

const witnessPage = "<!doctype html><meta charset=utf-8><title>page</title><link rel=icon href=data:,>"

func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.heads = append(w.heads, head{r.RequestURI, r.Header.Clone()})
	w.mu.Unlock()
	switch {
	case strings.HasSuffix(r.URL.Path, "/crash"), r.Header.Get("X-Crash") != "":
		panic(http.ErrAbortHandler)
	case strings.HasSuffix(r.URL.Path, "/hold"), strings.HasPrefix(r.Header.Get("X-Row"), "hold"):
		w.held <- r.URL.Path
		<-r.Context().Done()
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
		w.rpc.ServeHTTP(rw, r)
	case websocket.IsWebSocketUpgrade(r):
		w.echo(rw, r)
	case strings.HasSuffix(r.URL.Path, "/late"):
		w.held <- r.URL.Path
		<-w.release
		_, _ = io.WriteString(rw, "late\n")
	case r.URL.Path == "/page":
		rw.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(rw, witnessPage)
	default:
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(rw, "served\n")
	}
}

// echo sends messages back, and ends the connection when it is told to leave.
func (*witness) echo(rw http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }} // the port's business here
	c, err := up.Upgrade(rw, r, nil)
	if err != nil {
		return // it has answered
	}
	defer c.Close()
	for {
		typ, msg, err := c.ReadMessage()
		if err != nil || string(msg) == "leave" {
			return
		}
		if c.WriteMessage(typ, msg) != nil {
			return
		}
	}
}

// seen gives the heads so far.
func (w *witness) seen() []head {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clip(w.heads)
}

type witnessEcho struct {
	echov1.UnimplementedEchoServer
}

func (witnessEcho) Unary(_ context.Context, r *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	return &echov1.UnaryResponse{Message: r.GetMessage()}, nil
}

func (witnessEcho) Bidi(stream echov1.Echo_BidiServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&echov1.BidiResponse{Message: m.GetMessage()}); err != nil {
			return err
		}
	}
}
