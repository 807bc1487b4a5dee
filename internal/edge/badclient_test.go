package edge_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// recorder is a server that notes each request as it reads it, by HTTP/1.1 and h2c.
type recorder struct {
	addr string

	mu   sync.Mutex
	seen []string
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	rec := &recorder{}
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rec.addr = ln.Addr().String()
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols), Handler: rec}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return rec
}

func (rec *recorder) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	line := fmt.Sprintf("%s %s %s %q", r.Method, r.Host, r.RequestURI, b)
	if err != nil {
		line = fmt.Sprintf("%s %s broken off", r.Method, r.RequestURI)
	}
	for name, values := range r.Header {
		if strings.HasPrefix(name, "X-Mine") || strings.Contains(fmt.Sprint(values), "1.2.3.4") {
			line += fmt.Sprintf(" %s=%q", name, values)
		}
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.seen = append(rec.seen, line)
}

// took gives the requests that have come since the last time.
func (rec *recorder) took() []string {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	seen := rec.seen
	rec.seen = nil
	return seen
}

// broken is what servers see of a body that ends too early, if they see anything.
var broken = []string{"POST /a broken off"}

const leading = `
listen: "127.0.0.1:8443"
tls: { dev: true }
upstreams: { app: { servers: ["%s://%s", "%[1]s://%[3]s"] } }
routes: [ { path: /, to: app } ]
`

// raw1 sends text by HTTP/1.1, and gives the statuses of all answers.
func raw1(t *testing.T, port *oneporttest.Port, text string) (answers []int) {
	t.Helper()
	c := port.DialTLS("http/1.1")
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, text)
	br := bufio.NewReader(c)
	for {
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				t.Errorf("%q: neither answered nor closed", text)
			}
			return answers
		}
		_, _ = io.Copy(io.Discard, res.Body)
		answers = append(answers, res.StatusCode)
		if res.Close {
			return answers
		}
	}
}

// What clients of HTTP/1.1 send that may be read in two ways reaches servers in one, or
// not at all; servers of HTTP/1.1 and of HTTP/2, in pools of two.
func TestBadRequests(t *testing.T) {
	const last = "GET /last HTTP/1.1\r\nHost: oneport.test\r\nConnection: close\r\n\r\n"
	post := func(fields, body string) string {
		return "POST /a HTTP/1.1\r\nHost: oneport.test\r\n" + fields + "\r\n" + body
	}
	get := func(target, fields string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: oneport.test\r\n" + fields + "\r\n"
	}
	gone := func(reading string) []string { return []string{reading} }
	also := func(reading string) []string { return []string{reading, `GET oneport.test /last ""`} }
	for name, tc := range map[string]struct {
		send string // and last behind it
		want []int
		seen []string
	}{
		// Chunks count (RFC 9112, 6.3); no length goes on.
		"length and chunks":          {post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), []int{200, 200}, also(`POST oneport.test /a ""`)},
		"chunks and length":          {post("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", "3\r\nabc\r\n0\r\n\r\n"), []int{200, 200}, also(`POST oneport.test /a "abc"`)},
		"two lengths":                {post("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"), []int{400}, nil},
		"a list of lengths":          {post("Content-Length: 3, 4\r\n", "abcd"), []int{400}, nil},
		"a signed length":            {post("Content-Length: +3\r\n", "abc"), []int{400}, nil},
		"unknown coding":             {post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), []int{501}, nil},
		"chunked twice":              {post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), []int{501}, nil},
		"a blank before the colon":   {post("Transfer-Encoding : chunked\r\nContent-Length: 3\r\n", "abc"), []int{400}, nil},
		"a control in the coding":    {post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), []int{400}, nil},
		"underscores: length":        {post("Content_Length: 50\r\nContent-Length: 3\r\n", "abc"), []int{200, 200}, also(`POST oneport.test /a "abc"`)},
		"a folded line":              {get("/a", "X-Mine: a\r\n b\r\n"), []int{200, 200}, also(`GET oneport.test /a "" X-Mine=["a b"]`)},
		"a folded coding":            {post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), []int{200, 200}, also(`POST oneport.test /a ""`)},
		"a folded first line":        {"GET /a HTTP/1.1\r\n X: y\r\nHost: oneport.test\r\n\r\n", []int{400}, nil},
		"bare LF":                    {"GET /a HTTP/1.1\nHost: oneport.test\nX-Mine: a\n\n", []int{200, 200}, also(`GET oneport.test /a "" X-Mine=["a"]`)},
		"bare CR in a value":         {get("/a", "X-Mine: a\rX-Mine2: b\r\n"), []int{400}, nil},
		"NUL in a value":             {get("/a", "X-Mine: a\x00b\r\n"), []int{400}, nil},
		"bare LF in a chunk":         {post("Transfer-Encoding: chunked\r\n", "3;x\nabc\r\n0\r\n\r\n"), []int{400}, broken},
		"an endless chunk":           {post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"), []int{400}, broken},
		"encoded slash":              {get("/a%2fb", ""), []int{400, 200}, gone(`GET oneport.test /last ""`)},
		"encoded backslash":          {get("/a%5Cb", ""), []int{400, 200}, gone(`GET oneport.test /last ""`)},
		"NUL in the path":            {get("/a%00b", ""), []int{400, 200}, gone(`GET oneport.test /last ""`)},
		"a blank in the target":      {get("/a b", ""), []int{400}, nil},
		"two hosts":                  {get("/a", "Host: other.test\r\n"), []int{400}, nil},
		"no host":                    {"GET /a HTTP/1.1\r\n\r\n", []int{400}, nil},
		"two hosts in one":           {"GET http://other.test/a HTTP/1.1\r\nHost: oneport.test\r\n\r\n", []int{200, 200}, also(`GET other.test /a ""`)},
		"user information":           {"GET http://a@other.test/a HTTP/1.1\r\nHost: oneport.test\r\n\r\n", []int{200, 200}, also(`GET other.test /a ""`)},
		"who it is":                  {get("/a", "X-Real-IP: 1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\n"), []int{200, 200}, also(`GET oneport.test /a ""`)},
		"who it is, underscores":     {get("/a", "X_Real_IP: 1.2.3.4\r\n"), []int{400, 200}, gone(`GET oneport.test /last ""`)},
		"who it is, one underscore":  {get("/a", "X-Forwarded_For: 1.2.3.4\r\n"), []int{400, 200}, gone(`GET oneport.test /last ""`)},
		"HTTP/1.0 with chunks":       {"POST /a HTTP/1.0\r\nHost: oneport.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{200}, gone(`POST oneport.test /a ""`)},
		"a version there is none of": {"GET /a HTTP/3.1\r\nHost: oneport.test\r\n\r\n", []int{505}, nil},
	} {
		for _, scheme := range []string{"http", "h2c"} {
			t.Run(name+" to "+scheme, func(t *testing.T) {
				t.Parallel()
				rec, too := newRecorder(t), newRecorder(t)
				_, port := sidecar(t, fmt.Sprintf(leading, scheme, rec.addr, too.addr))
				got := raw1(t, port, tc.send+last)
				seen := append(rec.took(), too.took()...)
				slices.Sort(seen)
				want := slices.Sorted(slices.Values(tc.seen))
				if slices.Equal(want, broken) { // if it has begun
					want = seen[:min(len(seen), 1)]
					if len(want) > 0 && want[0] != broken[0] {
						want = broken
					}
					if slices.Equal(got, []int{http.StatusBadGateway}) {
						got = tc.want
					}
				}
				if !slices.Equal(got, tc.want) || !slices.Equal(seen, want) {
					t.Errorf("answered %v, want %v; forwarded %q, want %q", got, tc.want, seen, want)
				}
			})
		}
	}
}

// rawClient is a client of HTTP/2 that says hello, and what it is told.
func rawClient(t *testing.T, port *oneporttest.Port) net.Conn {
	t.Helper()
	c := port.DialTLS("h2")
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = c.Write(append([]byte(frame.Preface), frame.AppendSettings(nil)...))
	return c
}

// outcome reads until stream 1 or the connection has ended, and says how.
func outcome(c net.Conn) string {
	dec := hpack.NewDecoder(4096, nil)
	for br := bufio.NewReader(c); ; {
		var head [frame.HeaderLen]byte
		if _, err := io.ReadFull(br, head[:]); err != nil {
			return err.Error()
		}
		h := frame.Parse(head[:])
		p := make([]byte, h.Length)
		if _, err := io.ReadFull(br, p); err != nil {
			return err.Error()
		}
		switch h.Type {
		case frame.Headers:
			list, err := dec.DecodeFull(p)
			if err != nil {
				return err.Error()
			}
			return list[0].Value
		case frame.RSTStream:
			return "RST " + frame.Code(binary.BigEndian.Uint32(p)).String()
		case frame.GoAway:
			return "GOAWAY " + frame.Code(binary.BigEndian.Uint32(p[4:])).String()
		default:
		}
	}
}

// The same by HTTP/2, where all framing is clear, and what would be unclear by HTTP/1.1.
func TestBadStreams(t *testing.T) {
	head := func(method, path string, pairs ...string) []string {
		return append([]string{":method", method, ":scheme", "https", ":authority", "oneport.test", ":path", path}, pairs...)
	}
	const malformed = "RST PROTOCOL_ERROR"
	for name, tc := range map[string]struct {
		head []string
		body string
		want string
		seen []string
	}{
		"as it should be":           {head("POST", "/a", "x-mine", "a"), "abc", "200", []string{`POST oneport.test /a "abc" X-Mine=["a"]`}},
		"more than its length":      {head("POST", "/a", "content-length", "3"), "abcd", malformed, broken},
		"less than its length":      {head("POST", "/a", "content-length", "5"), "abc", malformed, broken},
		"two lengths":               {head("POST", "/a", "content-length", "3", "content-length", "4"), "abc", malformed, nil},
		"a signed length":           {head("POST", "/a", "content-length", "+3"), "abc", malformed, nil},
		"chunks":                    {head("POST", "/a", "transfer-encoding", "chunked"), "0\r\n\r\n", malformed, nil},
		"a connection":              {head("POST", "/a", "connection", "close"), "abc", malformed, nil},
		"te":                        {head("POST", "/a", "te", "chunked"), "abc", malformed, nil},
		"a line in a value":         {head("POST", "/a", "x-mine", "a\r\nX-Mine2: b"), "abc", malformed, nil},
		"a line in a name":          {head("POST", "/a", "x-mine: a\r\nx-mine2", "b"), "abc", malformed, nil},
		"NUL in a value":            {head("POST", "/a", "x-mine", "a\x00b"), "abc", malformed, nil},
		"a blank before a value":    {head("POST", "/a", "x-mine", " a"), "abc", malformed, nil},
		"upper case":                {head("POST", "/a", "X-Mine", "a"), "abc", malformed, nil},
		"another host":              {head("POST", "/a", "host", "other.test"), "abc", malformed, nil},
		"a line in the path":        {head("POST", "/a HTTP/1.1\r\nX-Mine: a"), "abc", malformed, nil},
		"a line in the method":      {head("POST /b HTTP/1.1\r\nX: y", "/a"), "abc", malformed, nil},
		"a blank in the path":       {head("POST", "/a b"), "abc", malformed, nil},
		"encoded slash":             {head("POST", "/a%2fb"), "abc", "400", nil},
		"encoded backslash":         {head("POST", "/a%5cb"), "abc", "400", nil},
		"NUL in the path":           {head("POST", "/a%00b"), "abc", "400", nil},
		"who it is":                 {head("POST", "/a", "x-real-ip", "1.2.3.4", "x-forwarded-for", "1.2.3.4"), "abc", "200", []string{`POST oneport.test /a "abc"`}},
		"who it is, underscores":    {head("POST", "/a", "x_real_ip", "1.2.3.4", "x_forwarded_for", "1.2.3.4"), "abc", "200", []string{`POST oneport.test /a "abc"`}},
		"who it is, one underscore": {head("POST", "/a", "x-forwarded_for", "1.2.3.4"), "abc", "200", []string{`POST oneport.test /a "abc"`}},
	} {
		for _, scheme := range []string{"http", "h2c"} {
			t.Run(name+" to "+scheme, func(t *testing.T) {
				t.Parallel()
				rec, too := newRecorder(t), newRecorder(t)
				_, port := sidecar(t, fmt.Sprintf(leading, scheme, rec.addr, too.addr))
				c := rawClient(t, port)
				_, _ = c.Write(slices.Concat(fields(1, false, tc.head...), chunk(1, true, tc.body)))
				got := outcome(c)
				seen := append(rec.took(), too.took()...)
				if slices.Equal(tc.seen, broken) && len(seen) == 0 {
					seen = broken
				}
				if got != tc.want || !slices.Equal(seen, tc.seen) {
					t.Errorf("%s, want %s; forwarded %q, want %q", got, tc.want, seen, tc.seen)
				}
			})
		}
	}
}

// A client that resets all its streams is sent away, and nobody else notices.
func TestManyResets(t *testing.T) {
	for _, scheme := range []string{"http", "h2c"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			rec, too := newRecorder(t), newRecorder(t)
			_, port := sidecar(t, fmt.Sprintf(leading, scheme, rec.addr, too.addr))
			other := port.HTTP2()
			c := rawClient(t, port)
			gone := make(chan string, 1)
			go func() { gone <- outcome(c) }()
			for i := range uint32(1000) {
				id := 2*i + 1
				_, err := c.Write(slices.Concat(fields(id, true, ":method", "GET", ":scheme", "https", ":authority", "oneport.test", ":path", "/a"), frame.AppendReset(nil, id, frame.Cancel)))
				if err != nil {
					break
				}
				if i%100 == 0 {
					if got := ask(t, other, http.MethodGet, port.URL("/b")); got != "200 " {
						t.Errorf("another client: %s", got)
					}
				}
			}
			if got := <-gone; got != "GOAWAY ENHANCE_YOUR_CALM" {
				t.Errorf("the client is told %s", got)
			}
			if got := ask(t, other, http.MethodGet, port.URL("/b")); got != "200 " {
				t.Errorf("another client, in the end: %s", got)
			}
		})
	}
}

// What no route takes is refused in the protocol's own words.
func TestNoRoute(t *testing.T) {
	rec := newRecorder(t)
	_, port := sidecar(t, fmt.Sprintf(`
listen: "127.0.0.1:8443"
tls: { dev: true }
upstreams: { app: { servers: ["http://%s"] }, rpc: { servers: ["grpc://%[1]s"] } }
routes:
  - { path: /api/, to: app }
  - { websocket: /ws, to: app }
  - { grpc: oneport.echo.v1.Echo/Unary, to: rpc }
`, rec.addr))
	for version, c := range clients(port) {
		for path, want := range map[string]string{"/": "404", "/ws": "404", "/api": "404", "/oneport.echo.v1.Echo/Unary": "404", "/api/x": "200 "} {
			if got := ask(t, c, http.MethodGet, port.URL(path)); got != want {
				t.Errorf("%s %s: %s, want %s", version, path, got, want)
			}
		}
	}
	if got := talk(t, port, "/other"); got != "404" {
		t.Errorf("a WebSocket: %s", got)
	}
	if got := talk(t, port, "/api/x"); got != "404" {
		t.Errorf("a WebSocket where a path route is: %s", got)
	}
	_, err := echov1.NewEchoClient(port.GRPC()).Whoami(t.Context(), &echov1.WhoamiRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a call: %v", err)
	}
}
