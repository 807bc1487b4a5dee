package router_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/upstream"
)

// reach gives the upstream of a URL until the test ends.
func reach(t *testing.T, url string, cfg *tls.Config) *upstream.Upstream {
	t.Helper()
	up, err := upstream.New(url, upstream.Options{TLS: cfg, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(up.Close)
	return up
}

func TestRoutesThatCannotBe(t *testing.T) {
	h1, h2 := reach(t, "http://127.0.0.1:1", nil), reach(t, "h2c://127.0.0.1:1", nil)
	for want, tc := range map[string]struct {
		route    router.Route
		sharedH2 bool
	}{
		"leads nowhere":             {route: router.Route{GRPC: "*"}},
		"or none of them":           {route: router.Route{To: h2}},
		"names GRPC, Path":          {route: router.Route{GRPC: "*", Path: "/", To: h2}},
		"does not begin with /":     {route: router.Route{Path: "api/", To: h2}},
		"names no gRPC service":     {route: router.Route{GRPC: "/a.B/C", To: h2}},
		"status 304":                {route: router.Route{Path: "/", Redirect: "/x", RedirectStatus: 304}},
		"needs HTTP/1.1":            {route: router.Route{WebSocket: "/", To: h2}},
		"gRPC needs HTTP/2":         {route: router.Route{GRPC: "*", To: h1}},
		"need the stream switch":    {route: router.Route{GRPC: "*", To: h2}, sharedH2: true},
		`"a/b/c" names no gRPC ser`: {route: router.Route{GRPC: "a/b/c", To: h2}},
	} {
		srv := &router.Server{Routes: []router.Route{tc.route}, Listeners: []router.Listener{{Listener: localhost(t), Plaintext: true, SharedH2: tc.sharedH2}}}
		if err := srv.ListenAndServe(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want %q", tc.route, err, want)
		}
	}
}

// The first route that matches counts; what none takes is for this process.
func TestRoutesMatch(t *testing.T) {
	far := newServer()
	far.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "far "+r.URL.Path) })
	ln := localhost(t)
	serveOn(t, far, router.Listener{Listener: ln, Plaintext: true})
	up := reach(t, "h2c://"+ln.Addr().String(), nil)
	dead := reach(t, "h2c://127.0.0.1:1", nil)

	near := newServer()
	near.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "near "+r.URL.Path) })
	near.Routes = []router.Route{
		{GRPC: "oneport.echo.v1.Echo/Unary", To: up},
		{GRPC: "oneport.echo.v1.Echo/ServerStream", To: dead},
		{GRPC: "none.Such", To: up},
		{Path: "/exact", To: up},
		{Path: "/api/", To: up},
		{Path: "/api/never", To: dead},
	}
	port := oneporttest.Listen(t, near)
	c := sharedH2(t, port)
	for path, want := range map[string]string{
		"/exact":        "far /exact",
		"/exact/not":    "near /exact/not",
		"/api/":         "far /api/",
		"/api/never?x":  "far /api/never",
		"/api":          "near /api",
		"/oneport.echo": "near /oneport.echo",
	} {
		if _, body := get(t, c.http, port.URL(path)); body != want {
			t.Errorf("%s: %q, want %q", path, body, want)
		}
	}
	calls := len(far.Conns())
	if msg, code := c.unary(t, "hi"); code != codes.OK || msg != "hi" {
		t.Errorf("%q, %v", msg, code)
	}
	if len(far.Conns()) == 0 || calls == 0 {
		t.Error("nothing came by the routes")
	}
	conn := port.GRPC()
	if _, err := echov1.NewEchoClient(conn).Whoami(t.Context(), &echov1.WhoamiRequest{}); err != nil {
		t.Errorf("a method without a route: %v", err)
	}
	stream, err := echov1.NewEchoClient(conn).ServerStream(t.Context(), &echov1.ServerStreamRequest{Count: 1})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("an upstream that is not there: %v", err)
	}
	if err := conn.Invoke(t.Context(), "/none.Such/Method", &echov1.UnaryRequest{}, &echov1.UnaryResponse{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("the far server's answer: %v", err)
	}
}

// Servers learn who asks; what strangers say of it themselves does not get there.
func TestUpstreamLearnsOfTheClient(t *testing.T) {
	heads := make(chan http.Header, 1)
	far := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		r.Header.Set("Host", r.Host)
		heads <- r.Header
	})}
	far.Protocols.SetHTTP1(true)
	far.Protocols.SetUnencryptedHTTP2(true)
	ln := localhost(t)
	go func() { _ = far.Serve(ln) }()
	t.Cleanup(func() { _ = far.Close() })

	for _, trusted := range []bool{false, true} {
		edge := &router.Server{Log: slog.New(slog.DiscardHandler), Routes: []router.Route{
			{Path: "/h2", To: reach(t, "h2c://"+ln.Addr().String(), nil)},
			{Path: "/h1", To: reach(t, "http://"+ln.Addr().String(), nil)},
		}}
		if trusted {
			edge.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
		}
		port := oneporttest.Listen(t, edge)
		for _, path := range []string{"/h1", "/h2"} {
			for _, client := range []*http.Client{sharedH2(t, port).http, port.HTTP1()} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL(path), nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("X-Forwarded-For", "198.51.100.7")
				req.Header.Set("X-Request-ID", "mine")
				req.Header.Set("Oneport-Stream", "1")
				res, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				got := <-heads
				from := got.Get("X-Forwarded-For")
				if trusted != strings.HasPrefix(from, "198.51.100.7, ") || strings.Count(from, ",") > 1 {
					t.Errorf("%s, %s, trusted %v: X-Forwarded-For %q", path, res.Proto, trusted, from)
				}
				if got.Get("X-Forwarded-Proto") != "https" || got.Get("X-Forwarded-Host") != req.URL.Host || got.Get("Host") != req.URL.Host {
					t.Errorf("%s, %s: %v", path, res.Proto, got)
				}
				if id := got.Get("X-Request-ID"); len(id) != 32 {
					t.Errorf("%s, %s: X-Request-ID %q", path, res.Proto, id)
				}
				if got.Get("Oneport-Stream") != "" && path == "/h2" && res.ProtoMajor == 2 {
					t.Errorf("%s: a stream's number reaches the server: %v", path, got)
				}
			}
		}
	}
}

// A server with TLS, and one behind a socket.
func TestUpstreamWires(t *testing.T) {
	dir := t.TempDir()
	source := certs.Dev(dir)
	far := newServer()
	far.Certs = source
	socket, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	secure := localhost(t)
	serveOn(t, far, router.Listener{Listener: secure}, router.Listener{Listener: socket, Plaintext: true})
	roots := x509.NewCertPool()
	if pem, err := os.ReadFile(source.CACert()); err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatal(err)
	}
	_, at, err := net.SplitHostPort(secure.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for url, code := range map[string]codes.Code{
		"grpcs://localhost:" + at:                       codes.OK,
		"grpc+unix://" + filepath.Join(dir, "app.sock"): codes.OK,
		"grpc://localhost:" + at:                        codes.Unavailable, // TLS is spoken there
	} {
		port := oneporttest.Listen(t, &router.Server{Log: slog.New(slog.DiscardHandler), Routes: []router.Route{{GRPC: "*", To: reach(t, url, &tls.Config{RootCAs: roots})}}})
		if _, got := sharedH2(t, port).unary(t, "hi"); got != code {
			t.Errorf("%s: %v, want %v", url, got, code)
		}
	}
	port := oneporttest.Listen(t, &router.Server{Log: slog.New(slog.DiscardHandler), Routes: []router.Route{{GRPC: "*", To: reach(t, "grpcs://localhost:"+at, nil)}}})
	if _, got := sharedH2(t, port).unary(t, "hi"); got != codes.Unavailable {
		t.Errorf("a certificate that nobody trusts: %v", got)
	}
}

// A server that is replaced loses no call: what it has begun it ends, what it
// did not take is tried again by gRPC clients themselves.
func TestUpstreamIsReplaced(t *testing.T) {
	ln := localhost(t)
	addr := ln.Addr().String()
	conns := make(chan net.Conn)
	go func() {
		defer close(conns)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns <- c
		}
	}()
	serve := func() *grpc.Server {
		srv := grpc.NewServer()
		echov1.RegisterEchoServer(srv, echo{})
		go func() { _ = srv.Serve(&sharedListener{Listener: ln, conns: conns, done: make(chan struct{})}) }()
		return srv
	}
	old := serve()
	port := oneporttest.Listen(t, &router.Server{Log: slog.New(slog.DiscardHandler), Routes: []router.Route{{GRPC: "*", To: reach(t, "grpc://"+addr, nil)}}})
	client := echov1.NewEchoClient(port.GRPC())
	stop, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 16)
	calls := make(chan int, 16)
	for range 16 {
		go func() {
			n := 0
			for ; stop.Err() == nil; n++ {
				if _, err := client.Unary(t.Context(), &echov1.UnaryRequest{Message: "x"}, grpc.WaitForReady(true)); err != nil {
					failed <- err
					break
				}
			}
			calls <- n
		}()
	}
	for range 3 {
		time.Sleep(100 * time.Millisecond)
		// As a rolling restart does it: the next one listens before this one leaves.
		next := serve()
		old.GracefulStop()
		old = next
	}
	time.Sleep(100 * time.Millisecond)
	cancel()
	sum := 0
	for range 16 {
		sum += <-calls
	}
	old.Stop()
	_ = ln.Close()
	select {
	case err := <-failed:
		t.Errorf("a call was lost: %v", err)
	default:
		t.Logf("%d calls, none lost", sum)
	}
}

// sharedListener is one of several that take turns at a socket's connections.
type sharedListener struct {
	net.Listener
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *sharedListener) Accept() (net.Conn, error) {
	select {
	case <-l.done: // first: no connection is for one that has closed
		return nil, net.ErrClosed
	default:
	}
	select {
	case c, ok := <-l.conns:
		if !ok {
			return nil, net.ErrClosed
		}
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *sharedListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// WebSockets, hosts, methods, headers and redirects; and what replaces them all
// while the port serves.
func TestRoutesNarrowed(t *testing.T) {
	far := newServer()
	far.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "far "+r.URL.Path) })
	ln := localhost(t)
	serveOn(t, far, router.Listener{Listener: ln, Plaintext: true})
	h1, h2 := reach(t, "http://"+ln.Addr().String(), nil), reach(t, "h2c://"+ln.Addr().String(), nil)

	near := newServer()
	near.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "near "+r.URL.Path) })
	near.Routes = []router.Route{
		{Path: "/host", Hosts: []string{"other.example.com"}, To: h2},
		{Path: "/host1", Hosts: []string{oneporttest.Name}, To: h1},
		{Path: "/method", Methods: []string{"POST"}, To: h2},
		{Path: "/header", Headers: map[string]string{"X-Canary": "1"}, To: h2},
		{Path: "/old/", Redirect: "/new/*", RedirectStatus: http.StatusFound},
		{WebSocket: "/far/", To: h1},
	}
	port := oneporttest.Listen(t, near)
	for version, c := range map[string]*http.Client{"1.1": port.HTTP1(), "2": port.HTTP2()} {
		for path, want := range map[string]string{
			"/host": "near /host", "/host1": "far /host1", "/method": "near /method", "/header": "near /header", "/old/x?y=z": "near /new/x",
		} {
			if _, body := get(t, c, port.URL(path)); body != want {
				t.Errorf("HTTP/%s: %s: %q, want %q", version, path, body, want)
			}
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL("/header"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Canary", "1")
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(body) != "far /header" {
			t.Errorf("HTTP/%s: with the header: %q", version, body)
		}
	}
	if err := near.SetRoutes([]router.Route{{Path: "/header", To: h1}, {Path: "bad", To: h1}}); err == nil || !strings.Contains(err.Error(), "does not begin with /") {
		t.Errorf("bad routes: %v", err)
	}
	if _, body := get(t, port.HTTP2(), port.URL("/host1")); body != "far /host1" {
		t.Errorf("bad routes have changed something: %q", body)
	}
	if err := near.SetRoutes([]router.Route{{Path: "/", To: h2}}); err != nil {
		t.Fatal(err)
	}
	if _, body := get(t, port.HTTP2(), port.URL("/method")); body != "far /method" {
		t.Errorf("new routes: %q", body)
	}
}

func TestRoutePathsThatAreTheSame(t *testing.T) {
	far := newServer()
	far.HTTP = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "far") })
	ln := localhost(t)
	serveOn(t, far, router.Listener{Listener: ln, Plaintext: true})
	for _, scheme := range []string{"h2c://", "http://"} {
		near := newServer()
		near.HTTP = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "near") })
		near.Routes = []router.Route{{Path: "/admin/", To: reach(t, scheme+ln.Addr().String(), nil)}}
		port := oneporttest.Listen(t, near)
		for version, c := range map[string]*http.Client{"1.1": port.HTTP1(), "2": port.HTTP2()} {
			for path, want := range map[string]string{
				"/admin/": "far", "/%61dmin/": "far", "/x/..//admin/": "far", "/./admin/": "far", "/x/../admin/": "far", "/x/%2e%2e/admin/": "far",
				"/admin/../x": "near", "/admin": "near", "/admin%2fx": "400", "/admin/%5cx": "400", "/admin/%00": "400",
			} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL("/"), nil)
				if err != nil {
					t.Fatal(err)
				}
				req.URL.Opaque = path // as it is
				res, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				_ = res.Body.Close()
				got := string(body)
				if res.StatusCode != http.StatusOK {
					got = strings.Fields(res.Status)[0]
				}
				if got != want {
					t.Errorf("%s by HTTP/%s: %s: %q, want %q", scheme, version, path, got, want)
				}
			}
		}
	}
}

// What a server has sent of its answer reaches the client, and not only when there is much of it: over all
// ways, whether it has said how long the answer is or not.
func TestAnswersAreNotKept(t *testing.T) {
	t.Parallel()
	next := make(chan struct{}, 1)
	far := newServer()
	far.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/known") {
			w.Header().Set("Content-Length", "10")
		}
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-next:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "later")
	})
	ln := localhost(t)
	serveOn(t, far, router.Listener{Listener: ln, Plaintext: true})
	near := newServer()
	near.Routes = []router.Route{
		{Path: "/h1/", To: reach(t, "http://"+ln.Addr().String(), nil)}, {Path: "/h2c/", To: reach(t, "h2c://"+ln.Addr().String(), nil)},
	}
	port := oneporttest.Listen(t, near)
	for version, c := range map[string]*http.Client{"1.1": port.HTTP1(), "2": port.HTTP2()} {
		for _, path := range []string{"/h1/known", "/h1/unknown", "/h2c/known", "/h2c/unknown"} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, port.URL(path), nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := c.Do(req)
			if err != nil {
				t.Errorf("HTTP/%s: %s: %v", version, path, err)
				continue
			}
			var got [5]byte
			if _, err := io.ReadFull(res.Body, got[:]); err != nil {
				t.Errorf("HTTP/%s: %s: %v before the rest is sent", version, path, err)
			}
			next <- struct{}{}
			if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "later" {
				t.Errorf("HTTP/%s: %s: %q, %v", version, path, rest, err)
			}
			_ = res.Body.Close()
		}
	}
}
