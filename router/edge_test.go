package router_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
	"github.com/oneport-edge/oneport/protocols/mux"
	"github.com/oneport-edge/oneport/router"
)

// REST and then an upgrade on one keep-alive connection over TLS, with the
// first frame in the same packet as the upgrade request.
func TestUpgradeOnAKeepAliveConnection(t *testing.T) {
	t.Parallel()
	port := oneporttest.Listen(t, newServer())
	c := port.DialTLS("http/1.1")
	br := bufio.NewReader(c)
	for range 3 {
		io.WriteString(c, "GET /conn HTTP/1.1\r\nHost: oneport.test\r\n\r\n")
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	c.Write(append([]byte("GET /ws HTTP/1.1\r\nHost: oneport.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"),
		0x81, 0x85, 0, 0, 0, 0, 'e', 'a', 'r', 'l', 'y')) // a masked frame with mask 0
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", res, err)
	}
	got := make([]byte, 7)
	if _, err := io.ReadFull(br, got); err != nil || string(got) != "\x81\x05early" {
		t.Errorf("got %q, %v", got, err)
	}
}

// serveOn serves srv on listeners of its own until the test ends.
func serveOn(t *testing.T, srv *router.Server, listeners ...router.Listener) {
	t.Helper()
	srv.Listeners = listeners
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.ListenAndServe(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	waitFor(t, srv.Ready)
}

func testCA(t *testing.T) (*certs.CA, certs.Source) {
	t.Helper()
	ca, err := certs.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Server(oneporttest.Name)
	if err != nil {
		t.Fatal(err)
	}
	return ca, certs.Static(cert)
}

func localhost(t testing.TB) net.Listener {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func v2Header(cmd byte, src, dst string) string {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x20|cmd, 0x11, 0, 12)
	s4, d4 := s.Addr().As4(), d.Addr().As4()
	b = append(append(b, s4[:]...), d4[:]...)
	return string(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, s.Port()), d.Port()))
}

func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	srv := newServer()
	srv.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := protocols.ConnFrom(r.Context())
		fmt.Fprintf(w, "%s %s %s", r.RemoteAddr, c.Local, c.Peer.Addr())
	})
	ca, source := testCA(t)
	srv.Certs = source
	ln, plain := oneporttest.NewListener(), oneporttest.NewListener()
	trusted := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	serveOn(t, srv, router.Listener{Listener: ln, ProxyProtocol: trusted},
		router.Listener{Listener: plain, Plaintext: true, ProxyProtocol: trusted})

	ask := func(c net.Conn) string {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err.Error()
		}
		body, _ := io.ReadAll(res.Body)
		return string(body)
	}
	const v1 = "PROXY TCP4 203.0.113.9 198.51.100.1 5555 443\r\n"
	for name, tc := range map[string]struct{ header, want string }{
		"v1":         {v1, "203.0.113.9:5555 198.51.100.1:443 192.0.2.2"},
		"v1 IPv6":    {"PROXY TCP6 2001:db8::9 2001:db8::1 5555 443\r\n", "[2001:db8::9]:5555 [2001:db8::1]:443 192.0.2.2"},
		"v1 UNKNOWN": {"PROXY UNKNOWN\r\n", "192.0.2.2:PORT 192.0.2.1:443 192.0.2.2"},
		"v2":         {v2Header(1, "203.0.113.9:5555", "198.51.100.1:443"), "203.0.113.9:5555 198.51.100.1:443 192.0.2.2"},
		"v2 LOCAL":   {v2Header(0, "203.0.113.9:5555", "198.51.100.1:443"), "192.0.2.2:PORT 192.0.2.1:443 192.0.2.2"},
	} {
		for _, l := range []*oneporttest.Listener{ln, plain} {
			raw, err := l.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(raw, tc.header)
			c := raw
			if l == ln {
				c = tls.Client(raw, &tls.Config{RootCAs: ca.Pool(), ServerName: oneporttest.Name})
			}
			got := ask(c)
			_, port, _ := net.SplitHostPort(raw.LocalAddr().String())
			if want := strings.Replace(tc.want, "PORT", port, 1); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
			c.Close()
		}
	}

	// Drip-fed, and with what follows in the same segment.
	raw, _ := plain.Dial(t.Context())
	for _, b := range []byte(v1 + "GET / HTTP/1.1\r\nHost: x\r\n\r\n") {
		raw.Write([]byte{b})
	}
	if res, err := http.ReadResponse(bufio.NewReader(raw), nil); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("drip-fed: %v, %v", res, err)
	}
	raw.Close()

	// Trusted peers must send one, and nobody else may.
	for _, tc := range map[string]struct {
		from net.IP
		data string
		why  conn.Reason
	}{
		"missing":        {net.IPv4(192, 0, 2, 7), "GET / HTTP/1.1\r\n\r\n", conn.ReasonProxyMissing},
		"broken v1":      {net.IPv4(192, 0, 2, 7), "PROXY TCP4 nonsense\r\n", conn.ReasonProxyInvalid},
		"v1 too long":    {net.IPv4(192, 0, 2, 7), "PROXY " + strings.Repeat("x", 200), conn.ReasonProxyInvalid},
		"v2 too long":    {net.IPv4(192, 0, 2, 7), "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff", conn.ReasonProxyInvalid},
		"cut off":        {net.IPv4(192, 0, 2, 7), "PROXY TCP4", conn.ReasonProxyInvalid},
		"v2 of a friend": {net.IPv4(203, 0, 113, 5), v2Header(1, "203.0.113.9:5555", "198.51.100.1:443"), conn.ReasonUnknownBytes},
	} {
		before := srv.Stats().Conns.Ended[tc.why]
		c, err := plain.DialFrom(t.Context(), tc.from)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, tc.data)
		c.(interface{ CloseWrite() error }).CloseWrite()
		patient(t, c)
		waitFor(t, func() bool { return srv.Stats().Conns.Ended[tc.why] == before+1 })
		c.Close()
	}
	c, _ := plain.DialFrom(t.Context(), net.IPv4(203, 0, 113, 5))
	io.WriteString(c, v1+"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("v1 of a stranger: %v, %v", res, err)
	}
	c.Close()
}

// A client over its bound is closed; others are served, and so is it when it
// has fewer.
func TestPerIPBound(t *testing.T) {
	t.Parallel()
	srv := newServer()
	srv.Limits.Connections = conn.Bounds{PerIP: 2, Exempt: []netip.Prefix{}}
	ln := localhost(t)
	serveOn(t, srv, router.Listener{Listener: ln, Plaintext: true})
	dial := func(ip string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		c, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	served := func(c net.Conn) bool {
		io.WriteString(c, "GET /conn HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err := http.ReadResponse(bufio.NewReader(c), nil)
		return err == nil
	}
	a, b := dial("127.0.0.2"), dial("127.0.0.2")
	if !served(a) || !served(b) || served(dial("127.0.0.2")) || !served(dial("127.0.0.3")) {
		t.Error("the bound does not hold as it should")
	}
	a.Close()
	waitFor(t, func() bool { return served(dial("127.0.0.2")) })
	if n := srv.Stats().Conns.Ended[conn.ReasonOverPerIP]; n == 0 {
		t.Error("refusals are not counted")
	}
}

// A connection that is passed through arrives byte for byte, in both
// directions, with half-closes, and is never decrypted.
func TestPassthrough(t *testing.T) {
	t.Parallel()
	up := localhost(t)
	defer up.Close()
	srv := newServer()
	ca, source := testCA(t)
	srv.Certs = source
	srv.Passthrough = []mux.Passthrough{
		{SNI: "*.pass.test", To: up.Addr().String()},
		{ALPN: "acme-tls/1", To: up.Addr().String()},
		{SNI: "dead.test", To: "127.0.0.1:1"},
	}
	ln := localhost(t)
	serveOn(t, srv, router.Listener{Listener: ln})

	// TLS end to end: the upstream's certificate, not the port's.
	other, err := certs.NewCA("upstream's")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := other.Server("a.pass.test")
	if err != nil {
		t.Fatal(err)
	}
	echo := func(c net.Conn) {
		defer c.Close()
		io.Copy(c, c)
		if cw, ok := c.(interface{ CloseWrite() error }); ok {
			cw.CloseWrite()
		}
	}
	go func() {
		c, err := up.Accept()
		if err != nil {
			return
		}
		echo(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}))
	}()
	c, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: other.Pool(), ServerName: "a.pass.test"})
	if err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 3<<20)
	rand.Read(big)
	go func() {
		c.Write(big)
		c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, big) {
		t.Errorf("echo through the tunnel: %d bytes, %v", len(got), err)
	}
	c.Close()

	// Byte for byte: what the client sends is what arrives, hello included.
	arrived := make(chan []byte, 1)
	go func() {
		c, err := up.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		all, _ := io.ReadAll(c)
		io.WriteString(c, "answer after your end") // half-closed, the other way is open
		arrived <- all
	}()
	raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	sent := append(helloFor(t, "other.test", "acme-tls/1"), big[:100_000]...)
	for part := range slices.Chunk(sent, 1000) {
		raw.Write(part)
	}
	raw.(*net.TCPConn).CloseWrite()
	if got := <-arrived; !bytes.Equal(got, sent) {
		t.Errorf("%d bytes arrived, %d were sent", len(got), len(sent))
	}
	if got, err := io.ReadAll(raw); err != nil || string(got) != "answer after your end" {
		t.Errorf("after the half-close: %q, %v", got, err)
	}
	raw.Close()

	// Others are terminated as ever, and a dead upstream closes its clients.
	ours := &tls.Config{RootCAs: ca.Pool(), ServerName: oneporttest.Name}
	if c, err := tls.Dial("tcp", ln.Addr().String(), ours); err != nil {
		t.Errorf("another name: %v", err)
	} else {
		c.Close()
	}
	if _, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{ServerName: "dead.test"}); err == nil {
		t.Error("a dead upstream answered")
	}
	waitFor(t, func() bool { return srv.Stats().Conns.Ended[conn.ReasonTunnelDial] == 1 })
}

// An open tunnel is listed, counted, and can be closed; the upstream sees it.
func TestTunnelIsListed(t *testing.T) {
	t.Parallel()
	up := localhost(t)
	defer up.Close()
	srv := newServer()
	_, srv.Certs = testCA(t)
	srv.Passthrough = []mux.Passthrough{{SNI: "pass.test", To: up.Addr().String()}}
	ln := localhost(t)
	serveOn(t, srv, router.Listener{Listener: ln})
	raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.Write(helloFor(t, "pass.test"))
	c, err := up.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "hello, client")
	io.ReadFull(raw, make([]byte, 13))
	waitFor(t, func() bool {
		list := srv.Conns()
		return len(list) == 1 && list[0].State() == protocols.StateTunnel
	})
	tunnel := srv.Conns()[0]
	waitFor(t, func() bool { // bytes count once they have left
		_, out := tunnel.Bytes()
		return out > 0
	})
	if _, out := tunnel.Bytes(); tunnel.Kind != protocols.KindTunnel || tunnel.SNI != "pass.test" || out != 13 {
		t.Errorf("listed as %+v, %d bytes out", tunnel, out)
	}
	srv.CloseConn(tunnel.ID)
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, c); err != nil && errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the upstream was not told: %v", err)
	}
}

// helloFor gives a ClientHello as crypto/tls sends it.
func helloFor(t *testing.T, sni string, alpn ...string) []byte {
	t.Helper()
	a, b := net.Pipe()
	go func() {
		tls.Client(a, &tls.Config{ServerName: sni, NextProtos: alpn}).HandshakeContext(context.Background())
		a.Close()
	}()
	buf := make([]byte, 8192)
	n, err := b.Read(buf)
	b.Close()
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func TestRequiredClientCertificate(t *testing.T) {
	t.Parallel()
	srv := newServer()
	srv.ClientAuth.Required = true
	port := oneporttest.Listen(t, srv)
	if _, err := port.HTTP1().Get(port.URL("/conn")); err == nil {
		t.Error("served without a certificate")
	}
	waitFor(t, func() bool { return srv.Stats().Conns.Ended[conn.ReasonClientCert] == 1 })
	port.As("carol")
	if code, _ := get(t, port.HTTP2(), port.URL("/conn")); code != http.StatusOK {
		t.Errorf("with one: got %d", code)
	}
}
