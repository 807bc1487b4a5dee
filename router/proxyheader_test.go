package router_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/mux"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/upstream"
)

// A server that reads PROXY headers sees each client's address, whatever the client
// speaks.
func TestProxyHeaderToServers(t *testing.T) {
	far := newServer()
	far.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, protocols.ConnFrom(r.Context()).Remote)
	})
	ln := localhost(t)
	serveOn(t, far, router.Listener{Listener: ln, Plaintext: true, ProxyProtocol: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	up, err := upstream.New("http://"+ln.Addr().String(), upstream.Options{ProxyHeader: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(up.Close)

	near := newServer()
	near.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, protocols.ConnFrom(r.Context()).Remote) })
	near.Routes = []router.Route{{Path: "/far/", To: up}}
	port := oneporttest.Listen(t, near)
	for version, c := range map[string]*http.Client{"HTTP/1.1": port.HTTP1(), "HTTP/2.0": port.HTTP2()} {
		for range 2 {
			_, here := told(t, c, http.MethodGet, "/near", "")
			_, there := told(t, c, http.MethodGet, "/far/", "")
			if here == "" || here != there {
				t.Errorf("%s: the client is %q, and the server was told %q", version, here, there)
			}
		}
	}
	if _, err := upstream.New("grpc://127.0.0.1:1", upstream.Options{ProxyHeader: true}); err == nil {
		t.Error("shared connections are said to be one client's")
	}
}

// So does one that connections are passed through to.
func TestProxyHeaderToPassthrough(t *testing.T) {
	ca, source := testCA(t)
	far := newServer()
	far.Certs = source
	far.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, protocols.ConnFrom(r.Context()).Remote) })
	behind, before := localhost(t), localhost(t)
	serveOn(t, far, router.Listener{Listener: behind, ProxyProtocol: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	near := newServer()
	near.Certs = source
	near.Passthrough = []mux.Passthrough{{SNI: oneporttest.Name, To: behind.Addr().String(), ProxyHeader: true}}
	serveOn(t, near, router.Listener{Listener: before})

	var mine string
	c := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), ServerName: oneporttest.Name},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, "tcp", before.Addr().String())
			if err == nil {
				mine = nc.LocalAddr().String()
			}
			return nc, err
		},
	}}
	defer c.CloseIdleConnections()
	if _, got := told(t, c, http.MethodGet, "/", ""); got != mine || mine == "" {
		t.Errorf("the server was told %q; the client is %q", got, mine)
	}
}
