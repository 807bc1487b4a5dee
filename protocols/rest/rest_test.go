package rest_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/rest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve gives the base URL of a server on a listener of its own, and clients
// for HTTP/1 and HTTP/2.
func serve(t *testing.T, opts rest.Options) (base string, h1, h2 *http.Client) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := rest.NewServer(opts)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	client := func(two bool) *http.Client {
		var p http.Protocols
		p.SetHTTP1(!two)
		p.SetUnencryptedHTTP2(two)
		tr := &http.Transport{Protocols: &p}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + ln.Addr().String(), client(false), client(true)
}

func TestIsUpgrade(t *testing.T) {
	for _, tc := range []struct {
		connection, upgrade string
		want                bool
	}{
		{"Upgrade", "websocket", true},
		{"keep-alive, Upgrade", "WebSocket", true},
		{"keep-alive,upgrade", "h2c, websocket", true},
		{"keep-alive", "websocket", false},
		{"Upgrade", "h2c", false},
		{"Upgraded", "websocket", false},
		{"", "", false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Connection", tc.connection)
		r.Header.Set("Upgrade", tc.upgrade)
		if got := rest.IsUpgrade(r); got != tc.want {
			t.Errorf("Connection: %s, Upgrade: %s: %t", tc.connection, tc.upgrade, got)
		}
	}
}

// Handlers find everything that they may ask of a ResponseWriter.
func TestResponseWriterKeepsItsAbilities(t *testing.T) {
	t.Parallel()
	seen := make(chan error, 1)
	base, h1, h2 := serve(t, rest.Options{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var errs []error
		if _, ok := w.(http.Flusher); !ok {
			errs = append(errs, errors.New("no Flusher"))
		}
		if _, ok := w.(http.CloseNotifier); !ok { //nolint:staticcheck // deprecated, and Gin needs it
			errs = append(errs, errors.New("no CloseNotifier, which Gin asserts"))
		}
		rc := http.NewResponseController(w)
		if err := rc.Flush(); err != nil {
			errs = append(errs, err)
		}
		if err := w.(http.Pusher).Push("/x", nil); err == nil {
			errs = append(errs, errors.New("pushed to a client that does not want it"))
		}
		io.WriteString(w, "a")
		w.(io.ReaderFrom).ReadFrom(strings.NewReader("b"))
		w.Write([]byte("c"))
		if r.ProtoMajor == 2 {
			if _, _, err := rc.Hijack(); !errors.Is(err, http.ErrNotSupported) {
				errs = append(errs, err)
			}
		}
		seen <- errors.Join(errs...)
	})})
	for _, c := range []*http.Client{h1, h2} {
		res, err := c.Get(base)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(res.Body); string(body) != "abc" {
			t.Errorf("got %q", body)
		}
		res.Body.Close()
		if err := <-seen; err != nil {
			t.Error(err)
		}
	}
}

func TestTrustedProxies(t *testing.T) {
	t.Parallel()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("X-Forwarded-For")+r.Header.Get("X-Forwarded-Whatever")+r.Header.Get("X-Real-IP")+r.Header.Get("Forwarded"))
	})
	for _, trusted := range []bool{false, true} {
		opts := rest.Options{Handler: h}
		if trusted {
			opts.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}
		s := rest.NewServer(opts)
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- s.Serve(trackedListener{ln}) }()
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ln.Addr().String(), nil)
		for i, name := range []string{"X-Forwarded-For", "X-Forwarded-Whatever", "X-Real-IP", "Forwarded"} {
			req.Header.Set(name, string(rune('a'+i)))
		}
		req.Close = true
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if want := map[bool]string{true: "abcd", false: ""}[trusted]; string(body) != want {
			t.Errorf("trusted %t: handlers see %q", trusted, body)
		}
		s.Close()
		<-done
	}
}

// trackedListener makes connections look as if they came through protocols/mux.
type trackedListener struct{ net.Listener }

func (l trackedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	ap, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	return trackedConn{c, &protocols.Conn{ID: "t", Remote: ap}}, nil
}

type trackedConn struct {
	net.Conn
	facts *protocols.Conn
}

func (c trackedConn) Facts() *protocols.Conn    { return c.facts }
func (c trackedConn) Step(protocols.State) bool { return true }

func TestPlainServer(t *testing.T) {
	t.Parallel()
	s := rest.NewPlainServer(true, nil, nil)
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	for request, want := range map[string]string{
		"GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n":              "https://h/a?b=c",
		"PUT // HTTP/1.1\r\nHost: h:1\r\n\r\n":                "https://h:1//",
		"GET http://evil/x HTTP/1.1\r\nHost: h\r\n\r\n":       "https://evil/x", // absolute form names the host
		"GET / HTTP/1.0\r\n\r\n":                              "",
		"GET /%0d%0aSet-Cookie:x HTTP/1.1\r\nHost: h\r\n\r\n": "https://h/%0d%0aSet-Cookie:x",
	} {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, request)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Header.Get("Location"); got != want || (want == "") != (res.StatusCode == http.StatusBadRequest) || !res.Close {
			t.Errorf("%q: %d to %q", request, res.StatusCode, got)
		}
		c.Close()
	}
	s.Close()
	<-done
}

func TestAdopt(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.GET("/", func(c *gin.Context) { c.String(http.StatusOK, c.ClientIP()) })
	rest.Adopt(e, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, slog.New(slog.DiscardHandler))
	for remote, want := range map[string]string{"192.0.2.7:1": "203.0.113.9", "198.51.100.7:1": "198.51.100.7"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = remote
		r.Header.Set("X-Forwarded-For", "203.0.113.9")
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		if w.Body.String() != want {
			t.Errorf("from %s: Gin believes %s", remote, w.Body)
		}
	}
	rest.Adopt(http.NotFoundHandler(), nil, nil) // not Gin: left alone
}

func TestEngine(t *testing.T) {
	rest.Quiet()
	e := rest.NewEngine()
	e.Get("/get", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "got") })
	e.Any("/any", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Method) })
	for _, tc := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/get", 200}, {"HEAD", "/get", 200}, {"POST", "/get", 405}, {"PATCH", "/any", 200}, {"GET", "/none", 404},
	} {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest(tc.method, tc.path, nil))
		if w.Code != tc.want {
			t.Errorf("%s %s: %d", tc.method, tc.path, w.Code)
		}
	}
}

// What the entry costs a request, beside a handler that does nothing.
func BenchmarkEntry(b *testing.B) {
	s := rest.NewServer(rest.Options{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })})
	handler := rest.HandlerOf(s)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r = r.WithContext(protocols.WithConn(context.Background(), &protocols.Conn{}))
	for _, h := range []string{"Accept", "Accept-Encoding", "Accept-Language", "User-Agent", "Cookie", "Referer"} {
		r.Header.Set(h, "x")
	}
	w := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		handler.ServeHTTP(w, r)
	}
}

// ends hands on how calls end, as an Observer.
type ends chan protocols.Result

func (ends) Begin(*protocols.Call)                       {}
func (e ends) End(_ *protocols.Call, r protocols.Result) { e <- r }

// An HTTP/1 client that has nothing more to say has not left, whatever its version is: it gets the rest.
func TestHalfClosedClientsHaveNotLeft(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"HTTP/1.0", "HTTP/1.1"} {
		ended := make(ends, 1)
		base, _, _ := serve(t, rest.Options{Observers: []protocols.Observer{ended}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "begun")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
			io.WriteString(w, " and done")
		})})
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET / "+version+"\r\nHost: x\r\n\r\n")
		c.(*net.TCPConn).CloseWrite()
		answer, _ := io.ReadAll(c)
		c.Close()
		if res := <-ended; res.Status != http.StatusOK || res.Err != nil || !strings.Contains(string(answer), " and done") {
			t.Errorf("%s: status %d, %v, %q", version, res.Status, res.Err, answer)
		}
	}
}
