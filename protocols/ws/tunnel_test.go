package ws_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/protocols/ws"
)

// edge is a server whose only route is a tunnel.
type edge struct {
	sessions *ws.Server
	addr     string
}

// tunnelTo starts an edge before the server at addr.
func tunnelTo(t *testing.T, addr string, opts ws.TunnelOptions) *edge {
	t.Helper()
	return tunnelBy(t, func(h http.Handler) http.Handler { return h }, addr, opts)
}

// tunnelBy is tunnelTo with something before the handshakes.
func tunnelBy(t *testing.T, by func(http.Handler) http.Handler, addr string, opts ws.TunnelOptions) *edge {
	t.Helper()
	if opts.Dial == nil {
		opts.Dial = func(ctx context.Context, _ *http.Request) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	e := &edge{sessions: ws.NewServer(nil)}
	srv := httptest.NewServer(by(e.sessions.Tunnel(opts)))
	e.addr = srv.Listener.Addr().String()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := e.sessions.Drain(ctx, 0); err != nil {
			t.Errorf("drain: %v", err)
		}
		if st := e.sessions.Stats(); st.Open != 0 || st.Tunnels != 0 {
			t.Errorf("after the drain %d sessions are open, %d of them tunnels", st.Open, st.Tunnels)
		}
		srv.Close()
	})
	return e
}

// open is a gorilla client.
func (e *edge) open(t *testing.T, d websocket.Dialer, h http.Header) (*websocket.Conn, *http.Response) {
	t.Helper()
	c, res, err := d.DialContext(t.Context(), "ws://"+e.addr+"/chat?room=1", h)
	if err != nil {
		t.Fatalf("handshake: %v, %v", err, res)
	}
	t.Cleanup(func() { c.Close() })
	return c, res
}

// raw is what tests need that send what is no WebSocket.
var raw = ws.Relay{Mode: ws.Raw}

const handshake = "GET /raw HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + sampleKey + "\r\n\r\n"

const sampleKey = "dGhlIHNhbXBsZSBub25jZQ=="

func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func switching(key string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nConnection: keep-alive, upgrade\r\nKeep-Alive: 5\r\nUpgrade: WebSocket\r\n" +
		"Sec-WebSocket-Accept: " + acceptOf(key) + "\r\nX-From: upstream\r\n\r\n"
}

// rawUpstream is a server that reads the head of one request for each connection.
func rawUpstream(t *testing.T, h func(c net.Conn, br *bufio.Reader, r *http.Request)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(10 * time.Second))
			br := bufio.NewReader(c)
			if r, err := http.ReadRequest(br); err == nil {
				h(c, br, r)
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}

// dial is a client of bytes.
func (e *edge) dial(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c, bufio.NewReader(c)
}

// ask sends a handshake, with more behind it, and reads the answer's head.
func ask(t *testing.T, c net.Conn, br *bufio.Reader, more string) *http.Response {
	t.Helper()
	if _, err := io.WriteString(c, handshake+more); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// echoUpstream is a gorilla server. seen gets each handshake.
func echoUpstream(t *testing.T, seen chan<- *http.Request) string {
	t.Helper()
	up := websocket.Upgrader{
		Subprotocols: []string{"v2"}, EnableCompression: true, CheckOrigin: func(*http.Request) bool { return true },
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if seen != nil {
			seen <- r
		}
		c, err := up.Upgrade(w, r, http.Header{"Set-Cookie": {"a=1", "b=2"}})
		if err != nil {
			return
		}
		defer c.Close()
		for {
			typ, msg, err := c.ReadMessage()
			if err != nil {
				return
			}
			if c.WriteMessage(typ, msg) != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// inBothModes runs a test with a raw tunnel, and with one that is aware and takes large
// messages, and compressed ones.
func inBothModes(t *testing.T, test func(*testing.T, ws.Relay)) {
	t.Helper()
	t.Parallel()
	for name, relay := range map[string]ws.Relay{"raw": raw, "aware": {MessageBytes: 2 << 20, Compression: true}} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, relay) })
	}
}

func TestTunnelEcho(t *testing.T) { inBothModes(t, testTunnelEcho) }

func testTunnelEcho(t *testing.T, relay ws.Relay) {
	seen := make(chan *http.Request, 1)
	e := tunnelTo(t, echoUpstream(t, seen), ws.TunnelOptions{
		Relay:   relay,
		Prepare: func(out http.Header, in *http.Request) { out.Set("X-Forwarded-For", in.RemoteAddr) },
	})
	c, res := e.open(t, websocket.Dialer{Subprotocols: []string{"v1", "v2"}, EnableCompression: true}, http.Header{
		"Origin": {"https://elsewhere.example"}, "X-Many": {"1", "2"}, "Te": {"trailers"}, "Proxy-Authorization": {"secret"},
	})
	if c.Subprotocol() != "v2" || !strings.Contains(res.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate") ||
		len(res.Header["Set-Cookie"]) != 2 {
		t.Errorf("answer: %v", res.Header)
	}
	r := <-seen
	if r.Host != e.addr || r.RequestURI != "/chat?room=1" {
		t.Errorf("upstream was asked for %q at %q", r.RequestURI, r.Host)
	}
	for name, want := range map[string]string{
		"Origin": "https://elsewhere.example", "X-Many": "1,2", "Te": "", "Proxy-Authorization": "",
		"X-Forwarded-For": c.LocalAddr().String(), "Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Protocol": "v1, v2",
	} {
		if got := strings.Join(r.Header[name], ","); got != want {
			t.Errorf("%s: upstream got %q, want %q", name, got, want)
		}
	}
	for _, n := range []int{0, 1, 125, 2048, 2047, 16 << 10, 100_000, 2 << 20} {
		for _, typ := range []int{websocket.TextMessage, websocket.BinaryMessage} {
			msg := bytes.Repeat([]byte("x"), n)
			if err := c.WriteMessage(typ, msg); err != nil {
				t.Fatal(err)
			}
			if got, back, err := c.ReadMessage(); err != nil || got != typ || !bytes.Equal(back, msg) {
				t.Fatalf("%d bytes: got type %d, %d bytes, %v", n, got, len(back), err)
			}
		}
	}
	if st := e.sessions.Stats(); st.Open != 1 || st.Tunnels != 1 {
		t.Errorf("%d sessions, %d tunnels, want 1, 1", st.Open, st.Tunnels)
	}
	c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(4321, ""))
	var ce *websocket.CloseError
	if _, _, err := c.ReadMessage(); !errors.As(err, &ce) || ce.Code != 4321 {
		t.Errorf("got %v, want the echo of 4321", err)
	}
}

func TestTunnelRemovesHopByHop(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	e := tunnelTo(t, rawUpstream(t, func(c net.Conn, _ *bufio.Reader, r *http.Request) {
		got <- r.Header
		io.WriteString(c, switching(sampleKey))
	}), ws.TunnelOptions{Relay: raw})
	c, br := e.dial(t)
	io.WriteString(c, strings.Replace(handshake, "Connection: Upgrade\r\n",
		"Connection: close, X-Hop, Upgrade\r\nConnection: x-other\r\nX-Hop: 1\r\nX-Other: 2\r\nX-End: 3\r\nKeep-Alive: 4\r\nContent-Length: 0\r\n", 1))
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(res, err)
	}
	if res.Header.Get("X-From") != "upstream" || res.Header.Get("Keep-Alive") != "" || res.Header.Get("Connection") != "Upgrade" {
		t.Errorf("answer: %v", res.Header)
	}
	h := <-got
	for _, name := range []string{"X-Hop", "X-Other", "Keep-Alive", "Content-Length"} {
		if h[name] != nil {
			t.Errorf("upstream got %s: %q", name, h[name])
		}
	}
	if h.Get("X-End") != "3" {
		t.Error("upstream did not get X-End")
	}
}

// No byte is lost around the upgrade, whoever does not wait for it.
func TestTunnelEarlyBytes(t *testing.T) {
	t.Parallel()
	early := strings.Repeat("0123456789", 300)
	e := tunnelTo(t, rawUpstream(t, func(c net.Conn, br *bufio.Reader, _ *http.Request) {
		io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+switching(sampleKey)+"first,"+early)
		io.CopyN(c, br, int64(len(early)+len(",last")))
	}), ws.TunnelOptions{Relay: raw})
	c, br := e.dial(t)
	if res := ask(t, c, br, early); res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(res.Status)
	}
	io.WriteString(c, ",last")
	got, err := io.ReadAll(br)
	if want := "first," + early + early + ",last"; err != nil || string(got) != want {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
	}
}

// An answer that is no upgrade is the client's, and the connection goes on.
func TestTunnelUpstreamRefuses(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("no entry ", 20_000)
	e := tunnelTo(t, rawUpstream(t, func(c net.Conn, _ *bufio.Reader, _ *http.Request) {
		fmt.Fprintf(c, "HTTP/1.1 403 Forbidden\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-Why: guest\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}), ws.TunnelOptions{Relay: raw})
	c, br := e.dial(t)
	for range 2 {
		res := ask(t, c, br, "")
		got, err := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusForbidden || string(got) != body || err != nil {
			t.Fatalf("got %s, %d bytes, %v", res.Status, len(got), err)
		}
		if res.Header.Get("X-Why") != "guest" || res.Header.Get("X-Hop") != "" || res.Close {
			t.Errorf("answer: %v", res.Header)
		}
	}
	if st := e.sessions.Stats(); st.Refused["upstream_refused"] != 2 {
		t.Errorf("refused: %v", st.Refused)
	}
}

// A refusal that breaks off is not made to look whole.
func TestTunnelRefusalBreaksOff(t *testing.T) {
	t.Parallel()
	e := tunnelTo(t, rawUpstream(t, func(c net.Conn, _ *bufio.Reader, _ *http.Request) {
		io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	}), ws.TunnelOptions{Relay: raw})
	c, br := e.dial(t)
	if _, err := io.WriteString(c, handshake); err != nil {
		t.Fatal(err)
	}
	if res, err := http.ReadResponse(br, nil); err == nil {
		if got, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("got a whole answer, %q", got)
		}
	}
}

func TestTunnelUpstreamFails(t *testing.T) {
	t.Parallel()
	accept := "Sec-WebSocket-Accept: " + acceptOf(sampleKey) + "\r\n"
	for name, tc := range map[string]struct {
		says   string
		status int
		reason string
	}{
		"hangs":            {"", http.StatusGatewayTimeout, "upstream_late"},
		"hangs within":     {"HTTP/1.1 101 Sw", http.StatusGatewayTimeout, "upstream_late"},
		"wrong accept":     {switching("AAAAAAAAAAAAAAAAAAAAAA=="), http.StatusBadGateway, "upstream_invalid"},
		"no accept":        {"HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", http.StatusBadGateway, "upstream_invalid"},
		"no upgrade":       {"HTTP/1.1 101 OK\r\nConnection: Upgrade\r\n" + accept + "\r\n", http.StatusBadGateway, "upstream_invalid"},
		"no connection":    {"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\n" + accept + "\r\n", http.StatusBadGateway, "upstream_invalid"},
		"garbage":          {"SSH-2.0-OpenSSH_9.6\r\n\r\n", http.StatusBadGateway, "upstream_invalid"},
		"status too small": {"HTTP/1.1 007 Bond\r\n\r\n", http.StatusBadGateway, "upstream_invalid"},
		"endless 1xx":      {strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 10), http.StatusBadGateway, "upstream_invalid"},
		"endless head":     {"HTTP/1.1 101 OK\r\nA: " + strings.Repeat("a", 70_000), http.StatusBadGateway, "upstream_invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := tunnelTo(t, rawUpstream(t, func(c net.Conn, br *bufio.Reader, _ *http.Request) {
				io.WriteString(c, tc.says)
				io.Copy(io.Discard, br) // until the edge leaves
			}), ws.TunnelOptions{Relay: raw, Timeout: 300 * time.Millisecond})
			c, br := e.dial(t)
			res := ask(t, c, br, "")
			io.Copy(io.Discard, res.Body)
			if st := e.sessions.Stats(); res.StatusCode != tc.status || st.Refused[tc.reason] != 1 || res.Close {
				t.Errorf("got %s, %v; want %d, %s", res.Status, st.Refused, tc.status, tc.reason)
			}
		})
	}
}

func TestTunnelUpstreamDown(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	e := tunnelTo(t, ln.Addr().String(), ws.TunnelOptions{Relay: raw})
	c, br := e.dial(t)
	for range 2 {
		res := ask(t, c, br, "")
		if body, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusBadGateway || string(body) != "the server cannot be reached\n" {
			t.Errorf("got %s, %q", res.Status, body)
		}
	}
}

// What is no handshake does not reach the upstream.
func TestTunnelVets(t *testing.T) {
	t.Parallel()
	e := tunnelTo(t, "", ws.TunnelOptions{Relay: raw, Dial: func(context.Context, *http.Request) (net.Conn, error) {
		t.Error("dialed")
		return nil, errors.New("no")
	}})
	for reason, req := range map[string]string{
		"no_upgrade": strings.Replace(handshake, "Upgrade: websocket", "Upgrade: h2c", 1),
		"method":     strings.Replace(handshake, "GET", "PUT", 1),
		"ws_version": strings.Replace(handshake, "13", "12", 1),
		"key":        strings.Replace(handshake, sampleKey, "short", 1),
		"body":       strings.Replace(handshake, "\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello", 1),
	} {
		c, br := e.dial(t)
		io.WriteString(c, req)
		res, err := http.ReadResponse(br, nil)
		if err != nil || res.StatusCode < 400 || e.sessions.Stats().Refused[reason] != 1 {
			t.Errorf("%s: %v, %v", reason, res, err)
		}
	}
}

// A client that leaves while the upstream thinks takes the wait with it.
func TestTunnelClientLeavesEarly(t *testing.T) {
	t.Parallel()
	asked, left := make(chan struct{}), make(chan error, 1)
	e := tunnelTo(t, rawUpstream(t, func(_ net.Conn, br *bufio.Reader, _ *http.Request) {
		close(asked)
		_, err := br.ReadByte()
		left <- err
	}), ws.TunnelOptions{Relay: raw})
	c, _ := e.dial(t)
	io.WriteString(c, handshake)
	<-asked
	c.Close()
	if err := <-left; !errors.Is(err, io.EOF) {
		t.Errorf("upstream: %v, want the end of the connection", err)
	}
}

func TestTunnelHandsEndsOn(t *testing.T) {
	t.Parallel()
	t.Run("upstream", func(t *testing.T) {
		t.Parallel()
		e := tunnelTo(t, rawUpstream(t, func(c net.Conn, _ *bufio.Reader, _ *http.Request) {
			io.WriteString(c, switching(sampleKey)+"bye")
		}), ws.TunnelOptions{Relay: raw})
		c, br := e.dial(t)
		ask(t, c, br, "")
		if got, err := io.ReadAll(br); string(got) != "bye" || err != nil {
			t.Errorf("client: %q, %v", got, err)
		}
	})
	t.Run("client", func(t *testing.T) {
		t.Parallel()
		// A half-close: the upstream still has something to say.
		e := tunnelTo(t, rawUpstream(t, func(c net.Conn, br *bufio.Reader, _ *http.Request) {
			io.WriteString(c, switching(sampleKey))
			got, err := io.ReadAll(br)
			fmt.Fprintf(c, "got %q, %v", got, err)
		}), ws.TunnelOptions{Relay: raw})
		c, br := e.dial(t)
		ask(t, c, br, "hel")
		io.WriteString(c, "lo")
		c.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(br); string(got) != `got "hello", <nil>` || err != nil {
			t.Errorf("client: %q, %v", got, err)
		}
	})
}
