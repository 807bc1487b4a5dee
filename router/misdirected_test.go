package router_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router"
)

func TestMisdirected(t *testing.T) {
	for _, tc := range []struct {
		sni, host string
		want      bool
	}{
		{"a.example.com", "a.example.com", false},
		{"a.example.com", "A.Example.com.", false},
		{"a.example.com", "a.example.com:8443", false},
		{"a.example.com", "b.example.com", true},
		{"a.example.com", "a.example.com.evil", true},
		{"a.example.com", "127.0.0.1", true},
		{"a.example.com", "[::1]:443", true},
		{"a.example.com", "", false},
		{"", "", false},
		{"", "a.example.com", true},
		{"", "localhost:443", true},
		{"", "127.0.0.1:8443", false},
		{"", "127.0.0.1", false},
		{"", "[::1]:8443", false},
		{"", "[::1]", false},
		{"", ":8443", true},
	} {
		if got := router.Misdirected(tc.sni, tc.host); got != tc.want {
			t.Errorf("%q for %q: %t", tc.host, tc.sni, got)
		}
	}
}

// strictPort asks clients for certificates. Its certificate is for localhost too,
// so that clients take the connection for one of that host.
func strictPort(t *testing.T, srv *router.Server) *oneporttest.Port {
	t.Helper()
	ca, err := certs.NewCA("clients")
	if err != nil {
		t.Fatal(err)
	}
	srv.ClientAuth.CAs = certs.CAPool(ca.Pool())
	return oneporttest.Listen(t, srv)
}

// journal keeps what is logged. A tunnel's line may come after the port's end.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// ask sends a request for a host over the connections of c.
func ask(t *testing.T, c *http.Client, port *oneporttest.Port, host string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL("/conn"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// Where clients have certificates, a call for another host than its connection's
// is refused: in each protocol, here and upstream, before any guard. The
// connection goes on for its own host.
func TestMisdirectedCalls(t *testing.T) {
	t.Parallel()
	far := namedServer()
	ln := localhost(t)
	serveOn(t, far, router.Listener{Listener: ln, Plaintext: true})
	h2c, h1 := reach(t, "h2c://"+ln.Addr().String(), nil), reach(t, "http://"+ln.Addr().String(), nil)
	for name, routes := range map[string][]router.Route{
		"here":             nil,
		"upstream":         {{GRPC: "*", To: h2c}, {Path: "/", To: h2c}, {WebSocket: "/", To: h1}},
		"upstream, HTTP/1": {{GRPC: "*", To: h2c}, {Path: "/", To: h1}, {WebSocket: "/", To: h1}},
	} {
		t.Run(name, func(t *testing.T) {
			var guarded atomic.Int64
			lines := new(journal)
			srv := namedServer()
			if routes != nil {
				srv = &router.Server{Log: srv.Log, Routes: routes}
			}
			srv.Access = slog.New(slog.NewTextHandler(lines, nil))
			srv.Guards = []protocols.Guard{protocols.GuardFunc(func(ctx context.Context, _ *protocols.Call) (context.Context, error) {
				guarded.Add(1)
				return ctx, nil
			})}
			port := strictPort(t, srv)
			for version, c := range map[string]*http.Client{"HTTP/1.1": port.HTTP1(), "HTTP/2": port.HTTP2()} {
				for range 2 {
					if code, body := ask(t, c, port, "localhost"); code != http.StatusMisdirectedRequest || !strings.Contains(body, "another host") {
						t.Errorf("%s: %d %q, want 421", version, code, body)
					}
					if code, body := ask(t, c, port, ""); code != http.StatusOK {
						t.Errorf("%s: its own host: %d %q", version, code, body)
					}
				}
			}
			echo := echov1.NewEchoClient(port.GRPC())
			for range 2 {
				_, err := echo.Unary(t.Context(), &echov1.UnaryRequest{}, grpc.CallAuthority("localhost"))
				if st := status.Convert(err); st.Code() != codes.Unknown || !strings.Contains(st.Message(), "another host") {
					t.Errorf("gRPC: %v, want UNKNOWN", err)
				}
				if _, err := echo.Unary(t.Context(), &echov1.UnaryRequest{}); err != nil {
					t.Errorf("gRPC: its own host: %v", err)
				}
			}
			_, res, err := port.DialWebSocket(t.Context(), "/ws", http.Header{"Host": {"localhost"}})
			if err == nil || res == nil || res.StatusCode != http.StatusMisdirectedRequest {
				t.Errorf("WebSocket: %v, %v, want 421", res, err)
			}
			port.WebSocket("/ws").Close()
			if n := guarded.Load(); n != 7 {
				t.Errorf("the guard was asked %d times, want 7: of calls for the connection's own host alone", n)
			}
			if err := port.Stop(); err != nil {
				t.Error(err)
			}
			if http, grpc := strings.Count(lines.String(), " status=421 "), strings.Count(lines.String(), " status=2 "); http != 5 || grpc != 2 {
				t.Errorf("%d access lines of 421 and %d of UNKNOWN, want 5 and 2:\n%s", http, grpc, lines.String())
			}
		})
	}
}

// A hello without a name is for an address.
func TestMisdirectedWithoutSNI(t *testing.T) {
	t.Parallel()
	port := strictPort(t, newServer())
	for host, want := range map[string]int{
		"127.0.0.1:8443": http.StatusOK, "[::1]": http.StatusOK, "localhost": http.StatusMisdirectedRequest, oneporttest.Name: http.StatusMisdirectedRequest,
	} {
		for _, alpn := range []string{"http/1.1", "h2"} {
			cfg := port.TLS(alpn)
			cfg.ServerName, cfg.InsecureSkipVerify = "", true
			var protos http.Protocols
			protos.SetHTTP1(alpn == "http/1.1")
			protos.SetHTTP2(alpn == "h2")
			tr := &http.Transport{Protocols: &protos, DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				nc, err := port.Dial(ctx)
				if err != nil {
					return nil, err
				}
				c := tls.Client(nc, cfg)
				return c, c.HandshakeContext(ctx)
			}}
			if code, body := ask(t, &http.Client{Transport: tr}, port, host); code != want {
				t.Errorf("%s over %s: %d %q, want %d", host, alpn, code, body, want)
			}
			tr.CloseIdleConnections()
		}
	}
}

// Nobody else is asked which host a connection was for: not without client
// certificates, not with AnyHost, not of load balancers, and not in plaintext.
func TestMisdirectedIsForClientCertificates(t *testing.T) {
	t.Parallel()
	careless, balanced := newServer(), newServer()
	careless.AnyHost = true
	balanced.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for name, port := range map[string]*oneporttest.Port{
		"without ClientAuth": oneporttest.Listen(t, newServer()),
		"AnyHost":            strictPort(t, careless),
		"TrustedProxies":     strictPort(t, balanced),
	} {
		for _, c := range []*http.Client{port.HTTP1(), port.HTTP2()} {
			if code, body := ask(t, c, port, "localhost"); code != http.StatusOK {
				t.Errorf("%s: %d %q", name, code, body)
			}
		}
	}
	srv := newServer()
	ca, err := certs.NewCA("clients")
	if err != nil {
		t.Fatal(err)
	}
	srv.ClientAuth.CAs = certs.CAPool(ca.Pool())
	ln := localhost(t)
	serveOn(t, srv, router.Listener{Listener: ln, Plaintext: true})
	c, res, err := websocket.DefaultDialer.Dial("ws://"+ln.Addr().String()+"/ws", http.Header{"Host": {"a.example.com"}})
	if err != nil {
		t.Fatal(err, res)
	}
	c.Close()
}

// net/http in the switch's place refuses the same.
func TestMisdirectedUnderSharedH2(t *testing.T) {
	t.Parallel()
	srv := namedServer()
	ca, err := certs.NewCA("clients")
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.Server("a.test", "b.test")
	if err != nil {
		t.Fatal(err)
	}
	srv.Certs, srv.ClientAuth.CAs = certs.Static(server), certs.CAPool(ca.Pool())
	ln := localhost(t)
	serveOn(t, srv, router.Listener{Listener: ln, SharedH2: true})
	cc, err := grpc.NewClient("passthrough:///"+ln.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: ca.Pool(), ServerName: "a.test"})))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	_, err = echov1.NewEchoClient(cc).Unary(t.Context(), &echov1.UnaryRequest{}, grpc.CallAuthority("b.test"))
	if st := status.Convert(err); st.Code() != codes.Unknown || !strings.Contains(st.Message(), "another host") {
		t.Errorf("%v, want UNKNOWN", err)
	}
	if _, err := echov1.NewEchoClient(cc).Unary(t.Context(), &echov1.UnaryRequest{}, grpc.CallAuthority("a.test")); err != nil {
		t.Error(err)
	}
}
