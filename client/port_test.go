package client_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/client"
	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a port whose guard takes one token at a time, and an issuer of them.
type house struct {
	echov1.UnimplementedEchoServer

	good   atomic.Int64 // the number of the token that is taken
	issued atomic.Int64 // of the one that was fetched last

	mu   sync.Mutex // guards the field below
	open map[*protocols.Call]bool
}

func (h *house) fetch(context.Context) (string, error) {
	n := h.good.Load()
	h.issued.Add(1)
	return fmt.Sprint("t", n), nil
}

// Admit implements protocols.Guard.
func (h *house) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	if call.Header("Authorization") != fmt.Sprint("Bearer t", h.good.Load()) {
		return ctx, &protocols.Refusal{Reason: protocols.ReasonUnauthenticated, Challenge: `Bearer realm="test"`}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open[call] = true
	call.OnDone(func(protocols.Result) {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.open, call)
	})
	return ctx, nil
}

// expire ends the token, and the calls that are open with it.
func (h *house) expire() {
	h.good.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	for call := range h.open {
		go call.End(&protocols.Refusal{Reason: protocols.ReasonExpired})
	}
}

func (h *house) Unary(_ context.Context, r *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	return &echov1.UnaryResponse{Message: r.GetMessage()}, nil
}

func (h *house) Bidi(s echov1.Echo_BidiServer) error {
	m, err := s.Recv()
	if err != nil {
		return err
	}
	if err := s.Send(&echov1.BidiResponse{Message: m.GetMessage()}); err != nil {
		return err
	}
	<-s.Context().Done()
	return s.Context().Err()
}

// listen serves a house on a real socket, and gives a client of it.
func listen(t *testing.T, mux *http.ServeMux) (*house, *oneporttest.Port, *client.Client) {
	t.Helper()
	h := &house{open: map[*protocols.Call]bool{}}
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Proto", r.Proto)
		_, _ = io.Copy(w, r.Body)
	})
	srv := &router.Server{Log: slog.New(slog.DiscardHandler), HTTP: mux, Guards: []protocols.Guard{h}}
	echov1.RegisterEchoServer(srv, h)
	srv.WebSocket("/ws", func(_ context.Context, c *ws.Conn) error {
		for {
			kind, p, err := c.Read()
			if err != nil {
				return err
			}
			if err := c.Write(kind, p); err != nil {
				return err
			}
		}
	})
	port := oneporttest.Listen(t, srv)
	c, err := client.New(client.Options{Addr: port.Addr().String(), TLS: port.TLS(), Token: h.fetch})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 { // a second one is harmless
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return h, port, c
}

func post(t *testing.T, c *client.Client, url string, body io.Reader) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.HTTP().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// One address, one token, three protocols; and each goes on when the token ends.
func TestThreeProtocols(t *testing.T) {
	h, port, c := listen(t, http.NewServeMux())
	url := "https://" + port.Addr().String() + "/echo"
	echo := echov1.NewEchoClient(c.GRPC())
	s := c.WebSocket("/ws", client.SocketOptions{Backoff: client.Backoff{Base: 10 * time.Millisecond}})
	var states []string
	s.OnState(func(e client.Event) { states = append(states, e.State.String()) })
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()

	for round := range 3 {
		res, body := post(t, c, url, strings.NewReader("hello"))
		if res.StatusCode != http.StatusOK || body != "hello" || res.Header.Get("X-Proto") != "HTTP/2.0" {
			t.Errorf("round %d: HTTP %s %q over %s", round, res.Status, body, res.Header.Get("X-Proto"))
		}
		answer, err := echo.Unary(t.Context(), &echov1.UnaryRequest{Message: "hello"})
		if err != nil || answer.GetMessage() != "hello" {
			t.Errorf("round %d: gRPC %v, %v", round, answer, err)
		}
		// What was written to a connection that was about to end has no answer: it is asked again.
		for answered := false; !answered; {
			if err := s.Write(t.Context(), client.Text, []byte("hello")); err != nil {
				continue
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			m, err := s.Read(ctx)
			cancel()
			if answered = err == nil; answered && string(m.Data) != "hello" {
				t.Errorf("round %d: WebSocket %q", round, m.Data)
			}
		}
		if got := h.issued.Load(); got != int64(round)+1 {
			t.Errorf("round %d: %d tokens were fetched", round, got)
		}
		h.expire()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := strings.Join(states, " "); strings.Count(got, "disconnected connecting connected") < 2 || strings.Contains(got, "failed") {
		t.Error(got)
	}
}

// A body that cannot be read again is not sent again; the next request has the newer token.
func TestBodyThatIsGone(t *testing.T) {
	h, port, c := listen(t, http.NewServeMux())
	url := "https://" + port.Addr().String() + "/echo"
	post(t, c, url, nil)
	h.expire()
	gone := func() io.Reader { return io.MultiReader(bytes.NewReader([]byte("once"))) }
	if res, _ := post(t, c, url, gone()); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("the first was answered with %s", res.Status)
	}
	if res, body := post(t, c, url, gone()); res.StatusCode != http.StatusOK || body != "once" {
		t.Errorf("the second was answered with %s %q", res.Status, body)
	}
}

// The token goes nowhere else, wherever redirects lead.
func TestTokenStaysAtHome(t *testing.T) {
	var seen atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		if got := r.Header.Get("Authorization"); got != "" {
			t.Errorf("%s came to another host", got)
		}
	}))
	defer other.Close()
	mux := http.NewServeMux()
	mux.Handle("/away", http.RedirectHandler(other.URL, http.StatusFound))
	mux.Handle("/near", http.RedirectHandler("/echo", http.StatusFound))
	_, port, c := listen(t, mux)
	for path, want := range map[string]int64{"/away": 1, "/near": 1} {
		res, err := c.HTTP().Get("https://" + port.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK || seen.Load() > want {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
	for _, url := range []string{other.URL, strings.Replace(other.URL, "127.0.0.1", "localhost", 1)} {
		if res, err := c.HTTP().Get(url); err == nil {
			res.Body.Close()
		}
	}
	if seen.Load() < 2 {
		t.Errorf("the other host saw %d requests", seen.Load())
	}
}

// A stream ends with its token, and the next has a newer one. A caller's own is left alone.
func TestGRPCStreams(t *testing.T) {
	h, _, c := listen(t, http.NewServeMux())
	echo := echov1.NewEchoClient(c.GRPC())
	for round := range 2 {
		s, err := echo.Bidi(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(&echov1.BidiRequest{Message: "hello"}); err != nil {
			t.Fatal(err)
		}
		if m, err := s.Recv(); err != nil || m.GetMessage() != "hello" {
			t.Fatalf("round %d: %v, %v", round, m, err)
		}
		h.expire()
		if _, err := s.Recv(); status.Code(err) != codes.Unauthenticated {
			t.Errorf("round %d: the stream ended with %v", round, err)
		}
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer mine")
	before := h.issued.Load()
	if _, err := echo.Unary(ctx, &echov1.UnaryRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a caller's own token: %v", err)
	}
	if h.issued.Load() != before {
		t.Error("another token was fetched for it")
	}
}

// A unary call is made once more with a newer token, and with no other.
func TestGRPCOnceMore(t *testing.T) {
	h, _, c := listen(t, http.NewServeMux())
	echo := echov1.NewEchoClient(c.GRPC())
	for round := range 3 {
		if _, err := echo.Unary(t.Context(), &echov1.UnaryRequest{}); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if got := h.issued.Load(); got != int64(round)+1 {
			t.Errorf("round %d: %d tokens were fetched", round, got)
		}
		h.expire()
	}
}

// Addresses that are none.
func TestNewRefusesAddresses(t *testing.T) {
	for _, addr := range []string{"", ":443", "a b:443", "https://example.com", "example.com/path", "user@example.com:443"} {
		if c, err := client.New(client.Options{Addr: addr}); err == nil {
			c.Close()
			t.Errorf("%q was taken", addr)
		}
	}
	for _, addr := range []string{"example.com", "example.com:8443", "127.0.0.1", "[::1]:443", "::1"} {
		c, err := client.New(client.Options{Addr: addr})
		if err != nil {
			t.Errorf("%q: %v", addr, err)
			continue
		}
		c.Close()
	}
}

// Who refuses whatever the token does not have one fetched for each call.
func TestIssuerIsLeftInPeace(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/never", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	h, port, _ := listen(t, mux)
	var fetched atomic.Int64
	c, err := client.New(client.Options{Addr: port.Addr().String(), TLS: port.TLS(), Token: func(context.Context) (string, error) {
		h.good.Store(fetched.Add(1))
		return fmt.Sprint("t", h.good.Load()), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 20 {
		if res, _ := post(t, c, "https://"+port.Addr().String()+"/never", nil); res.StatusCode != http.StatusUnauthorized {
			t.Error(res.Status)
		}
	}
	if n := fetched.Load(); n != 2 {
		t.Errorf("%d tokens were fetched, want the first and one more", n)
	}
}
