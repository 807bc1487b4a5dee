package edge_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols/rest"
	"github.com/oneport-edge/oneport/protocols/ws"
)

func TestMain(m *testing.M) {
	rest.Quiet()
	// A centrifuge node's last goroutines end within a second of its end.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/centrifugal/centrifuge.(*Node).unsubscribeFromBrokerWhenEmpty.func1"),
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1")) // it sleeps for a second while Redis is away
}

// demo serves the demo on a port in memory, with the certificates of that port.
func demo(t *testing.T) *oneporttest.Port {
	t.Helper()
	srv, err := edge.Demo(edge.DemoOptions{CertDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	srv.Certs, srv.ClientAuth = nil, certs.ClientAuth{}
	return oneporttest.Start(t, srv)
}

// answer is a response that was read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func do(t *testing.T, c *http.Client, method, url, contentType string, body io.Reader) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, b}
}

// clients are both versions of HTTP.
func clients(port *oneporttest.Port) map[string]*http.Client {
	return map[string]*http.Client{"HTTP/1.1": port.HTTP1(), "HTTP/2.0": port.HTTP2()}
}

func TestHello(t *testing.T) {
	port := demo(t)
	for version, c := range clients(port) {
		got := do(t, c, http.MethodGet, port.URL("/api/hello"), "", nil)
		if got.status != http.StatusOK || string(got.body) != `{"message":"Hello from HTTP"}` || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d, %s, %q", version, got.status, got.header.Get("Content-Type"), got.body)
		}
		if got := do(t, c, http.MethodHead, port.URL("/api/hello"), "", nil); got.status != http.StatusOK || len(got.body) != 0 {
			t.Errorf("%s: HEAD: %d, %q", version, got.status, got.body)
		}
		if got := do(t, c, http.MethodPost, port.URL("/api/hello"), "", nil); got.status != http.StatusMethodNotAllowed {
			t.Errorf("%s: POST: %d", version, got.status)
		}
		if got := do(t, c, http.MethodGet, port.URL("/nowhere"), "", nil); got.status != http.StatusNotFound {
			t.Errorf("%s: /nowhere: %d", version, got.status)
		}
	}
}

func TestEchoAnswersWhatItIsSent(t *testing.T) {
	port := demo(t)
	noise := make([]byte, 1<<20)
	_, _ = rand.Read(noise)
	for _, tt := range []struct {
		method, contentType, wantType string
		body                          []byte
	}{
		{http.MethodPost, "application/json", "application/json", []byte(`{"a":1}`)},
		{http.MethodPost, "text/html; charset=utf-8", "text/html; charset=utf-8", []byte("<script>alert(1)</script>")},
		{http.MethodPost, "", "application/octet-stream", []byte("<html>")},
		{http.MethodPost, "application/x-www-form-urlencoded", "application/x-www-form-urlencoded", []byte("a=1&b=2")},
		{http.MethodPut, "application/octet-stream", "application/octet-stream", noise},
		{http.MethodPatch, "image/png", "image/png", []byte{0x89, 'P', 'N', 'G', 0}},
		{http.MethodDelete, "text/plain", "text/plain", []byte("bye")},
		{http.MethodGet, "", "application/octet-stream", nil},
		{http.MethodOptions, "text/plain", "text/plain", []byte("?")},
	} {
		for version, c := range clients(port) {
			got := do(t, c, tt.method, port.URL("/api/echo"), tt.contentType, bytes.NewReader(tt.body))
			if got.status != http.StatusOK || !bytes.Equal(got.body, tt.body) {
				t.Errorf("%s %s %q: %d with %d bytes, want %d", version, tt.method, tt.contentType, got.status, len(got.body), len(tt.body))
			}
			if ct := got.header.Get("Content-Type"); ct != tt.wantType {
				t.Errorf("%s %s: content type %q, want %q", version, tt.method, ct, tt.wantType)
			}
			if csp := got.header.Get("Content-Security-Policy"); !strings.Contains(csp, "sandbox") || got.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s %s: what a stranger sent could run as a page: %q", version, tt.method, csp)
			}
		}
	}
}

func TestEchoIsBounded(t *testing.T) {
	port := demo(t)
	const limit = 16 << 20
	for version, c := range clients(port) {
		for _, size := range []int64{limit, limit + 1} {
			// Once with a Content-Length, once without.
			for _, body := range []io.Reader{
				bytes.NewReader(make([]byte, size)),
				io.LimitReader(zeros{}, size),
			} {
				got := do(t, c, http.MethodPost, port.URL("/api/echo"), "application/octet-stream", body)
				switch {
				case size <= limit && (got.status != http.StatusOK || int64(len(got.body)) != size):
					t.Errorf("%s: %d bytes: %d with %d bytes", version, size, got.status, len(got.body))
				case size > limit && (got.status != http.StatusRequestEntityTooLarge || !strings.Contains(string(got.body), "larger than")):
					t.Errorf("%s: %d bytes: %d %.80q", version, size, got.status, got.body)
				}
			}
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// keys lists the names in a JSON object, those of inner objects dotted.
func keys(t *testing.T, object []byte) []string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(object, &m); err != nil {
		t.Fatalf("%v in %q", err, object)
	}
	var walk func(prefix string, m map[string]any) []string
	walk = func(prefix string, m map[string]any) (names []string) {
		for name, v := range m {
			names = append(names, prefix+name)
			if inner, ok := v.(map[string]any); ok {
				names = append(names, walk(prefix+name+".", inner)...)
			}
		}
		return names
	}
	names := walk("", m)
	slices.Sort(names)
	return names
}

// whoami asks in all four ways.
func whoami(t *testing.T, port *oneporttest.Port) map[string][]byte {
	t.Helper()
	answers := make(map[string][]byte)
	for version, c := range clients(port) {
		answers[version] = do(t, c, http.MethodGet, port.URL("/api/whoami"), "", nil).body
	}
	res, err := echov1.NewEchoClient(port.GRPC()).Whoami(t.Context(), &echov1.WhoamiRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if answers["grpc"], err = protojson.Marshal(res); err != nil {
		t.Fatal(err)
	}
	socket := port.WebSocket("/ws/whoami")
	typ, msg, err := socket.ReadMessage()
	if err != nil || typ != websocket.TextMessage {
		t.Fatalf("/ws/whoami: type %d, %v", typ, err)
	}
	answers["websocket"] = msg
	if _, _, err := socket.ReadMessage(); !websocket.IsCloseError(err, ws.CloseNormal) {
		t.Errorf("/ws/whoami: after its message %v, want close 1000", err)
	}
	return answers
}

func TestWhoamiIsTheSameInAllProtocols(t *testing.T) {
	port := demo(t)
	port.As("alice")
	want := []string{
		"connection_id", "http_version", "identity", "protocol", "remote", "request_id",
		"tls", "tls.alpn", "tls.client_subject", "tls.sni", "tls.version", "trace_id",
	}
	expected := map[string]struct{ protocol, version, alpn string }{
		"HTTP/1.1":  {"http", "HTTP/1.1", "http/1.1"},
		"HTTP/2.0":  {"http", "HTTP/2.0", "h2"},
		"grpc":      {"grpc", "HTTP/2.0", "h2"},
		"websocket": {"websocket", "HTTP/1.1", ""}, // gorilla offers no ALPN
	}
	connections, requests := map[string]bool{}, map[string]bool{}
	for how, b := range whoami(t, port) {
		if got := keys(t, b); !slices.Equal(got, want) {
			t.Errorf("%s: fields %v\nwant %v", how, got, want)
		}
		var who echov1.WhoamiResponse
		if err := protojson.Unmarshal(b, &who); err != nil {
			t.Fatal(err)
		}
		x := expected[how]
		if who.GetProtocol() != x.protocol || who.GetHttpVersion() != x.version || who.GetTls().GetAlpn() != x.alpn {
			t.Errorf("%s: %s", how, b)
		}
		if tl := who.GetTls(); tl.GetVersion() != "TLS 1.3" || tl.GetSni() != oneporttest.Name || tl.GetClientSubject() != "CN=alice" {
			t.Errorf("%s: TLS facts %v", how, tl)
		}
		if !strings.HasPrefix(who.GetRemote(), "192.0.2.2:") {
			t.Errorf("%s: remote %q", how, who.GetRemote())
		}
		connections[who.GetConnectionId()], requests[who.GetRequestId()] = true, true
	}
	if len(connections) != len(expected) || len(requests) != len(expected) {
		t.Errorf("ids are not unique: connections %v, requests %v", slices.Collect(maps.Keys(connections)), slices.Collect(maps.Keys(requests)))
	}
}

// Fields do not come and go with what is known: no client certificate, nobody's identity.
func TestWhoamiOfAStrangerHasAllFields(t *testing.T) {
	port := demo(t)
	var first []string
	for how, b := range whoami(t, port) {
		got := keys(t, b)
		if first == nil {
			first = got
		}
		if !slices.Contains(got, "tls.client_subject") || !slices.Contains(got, "identity") || !slices.Equal(got, first) {
			t.Errorf("%s: fields %v", how, got)
		}
	}
}

func TestWhoamiKnowsItsTrace(t *testing.T) {
	port := demo(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, port.URL("/api/whoami"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	res, err := port.HTTP2().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var who struct {
		TraceID string `json:"trace_id"`
	}
	if err := json.NewDecoder(res.Body).Decode(&who); err != nil || who.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" {
		t.Errorf("trace %q, %v", who.TraceID, err)
	}
}

func TestSocketEchoesTextAndBinary(t *testing.T) {
	port := demo(t)
	socket := port.WebSocket("/ws")
	for _, m := range []struct {
		typ  int
		data string
	}{{websocket.TextMessage, "grüße"}, {websocket.BinaryMessage, "\x00\xff"}, {websocket.TextMessage, ""}, {websocket.BinaryMessage, strings.Repeat("x", 64<<10)}} {
		if err := socket.WriteMessage(m.typ, []byte(m.data)); err != nil {
			t.Fatal(err)
		}
		typ, data, err := socket.ReadMessage()
		if err != nil || typ != m.typ || string(data) != m.data {
			t.Errorf("type %d with %d bytes, %v; want type %d with %d", typ, len(data), err, m.typ, len(m.data))
		}
	}
	if err := socket.WriteMessage(websocket.BinaryMessage, make([]byte, 64<<10+1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := socket.ReadMessage(); !websocket.IsCloseError(err, ws.CloseTooBig) {
		t.Errorf("over the limit: %v, want close 1009", err)
	}
	if got := do(t, port.HTTP1(), http.MethodGet, port.URL("/ws"), "", nil); got.status != http.StatusNotFound {
		t.Errorf("a plain GET of /ws: %d", got.status)
	}
}

var (
	link   = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	inline = regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script(?:\s[^>]*)?>[^<]`)
)

func TestPageLoadsOnlyItsOwn(t *testing.T) {
	port := demo(t)
	c := port.HTTP2()
	page := do(t, c, http.MethodGet, port.URL("/"), "", nil)
	if page.status != http.StatusOK || page.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d, %q", page.status, page.header.Get("Content-Type"))
	}
	if found := inline.Find(page.body); found != nil {
		t.Errorf("the page's own policy forbids %q", found)
	}
	icon := false
	links := link.FindAllSubmatch(page.body, -1)
	for _, m := range links {
		path := string(m[1])
		if strings.HasPrefix(path, "data:") {
			icon = true
			continue
		}
		if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
			t.Errorf("the page links to %q", path)
			continue
		}
		got := do(t, c, http.MethodGet, port.URL(path), "", nil)
		if got.status != http.StatusOK || len(got.body) == 0 {
			t.Errorf("%s: %d with %d bytes", path, got.status, len(got.body))
		}
		want := map[string]string{".js": "javascript", ".css": "text/css", ".crt": "x509-ca-cert"}[filepath.Ext(path)]
		if ct := got.header.Get("Content-Type"); want == "" || !strings.Contains(ct, want) {
			t.Errorf("%s: content type %q", path, ct)
		}
	}
	if !icon || len(links) < 4 {
		t.Errorf("icon %t, links %q", icon, links)
	}
	for _, path := range []string{"/", "/demo.js", "/demo.css"} {
		h := do(t, c, http.MethodGet, port.URL(path), "", nil).header
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src data:"} {
			if !slices.Contains(strings.Split(csp, "; "), want) {
				t.Errorf("%s: policy %q lacks %s", path, csp, want)
			}
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: header %v", path, h)
		}
	}
}

// The demo on a TCP port of its own: who downloads ca.crt and trusts it can talk to it.
func TestDownloadedCAVerifiesTheDemo(t *testing.T) {
	dir := t.TempDir()
	srv, err := edge.Demo(edge.DemoOptions{
		Listen: "127.0.0.1:0", Plaintext: "127.0.0.1:0", CertDir: dir, Hosts: []string{"dev.example.com"},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := srv.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.ListenAndServe(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	plain := &http.Client{Transport: &http.Transport{}}
	defer plain.CloseIdleConnections()
	ca := do(t, plain, http.MethodGet, "http://"+addrs[1].String()+"/ca.crt", "", nil)
	file, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil || !bytes.Equal(ca.body, file) || ca.header.Get("Content-Type") != "application/x-x509-ca-cert" {
		t.Fatalf("ca.crt: %d, %q, %v", ca.status, ca.header.Get("Content-Type"), err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca.body) {
		t.Fatalf("ca.crt is not PEM: %q", ca.body)
	}
	for _, name := range []string{"", "localhost", "dev.example.com"} {
		url := "https://" + addrs[0].String() + "/api/hello"
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
		if name != "" {
			url = "https://" + name + "/api/hello"
			tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", addrs[0].String())
			}
		}
		c := &http.Client{Transport: tr}
		if got := do(t, c, http.MethodGet, url, "", nil); got.status != http.StatusOK {
			t.Errorf("%q: %d", name, got.status)
		}
		c.CloseIdleConnections()
	}

	// Whoami of a plaintext call has no TLS facts.
	got := do(t, plain, http.MethodGet, "http://"+addrs[1].String()+"/api/whoami", "", nil)
	if slices.Contains(keys(t, got.body), "tls") {
		t.Errorf("plaintext: %s", got.body)
	}
}
