package edge_test

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/internal/systemd"
	"github.com/oneport-edge/oneport/router"
)

// open is a socket with the address of another machine's, as far as anybody can see.
type open struct {
	net.Listener
	addr   net.Addr
	closed bool
}

func (o *open) Addr() net.Addr { return o.addr }
func (o *open) Close() error   { o.closed = true; return nil }

func TestAdopt(t *testing.T) {
	for name, tc := range map[string]struct {
		listen  []string // address, or address and name
		sockets []string // address, or address and name
		want    []int    // which socket each listener gets; -1 for none
	}{
		"every address":               {[]string{":443"}, []string{"[::]:443"}, []int{0}},
		"every IPv4 address":          {[]string{"0.0.0.0:443"}, []string{"[::]:443"}, []int{0}},
		"exact first":                 {[]string{"127.0.0.1:443", ":443"}, []string{"[::]:443", "127.0.0.1:443"}, []int{1, 0}},
		"a mapped address":            {[]string{"127.0.0.1:443"}, []string{"[::ffff:127.0.0.1]:443"}, []int{0}},
		"a name":                      {[]string{"localhost:443"}, []string{"127.0.0.1:443"}, []int{0}},
		"another port":                {[]string{":443"}, []string{"[::]:8443"}, []int{-1}},
		"another host":                {[]string{"127.0.0.1:443"}, []string{"127.0.0.2:443"}, []int{-1}},
		"loopback is not all":         {[]string{":443"}, []string{"127.0.0.1:443"}, []int{-1}},
		"by name, any address":        {[]string{":443 web"}, []string{"127.0.0.9:9 web"}, []int{0}},
		"a name and not there":        {[]string{":443 web"}, []string{"[::]:443 other"}, []int{-1}},
		"one socket, once":            {[]string{"127.0.0.1:0 web", "127.0.0.1:0 web"}, []string{"127.0.0.1:5 web"}, []int{0, -1}},
		"names take first":            {[]string{":443", "127.0.0.1:443 web"}, []string{"[::]:443 web"}, []int{-1, 0}},
		"any port":                    {[]string{"127.0.0.1:0"}, []string{"127.0.0.1:443"}, []int{-1}},
		"a socket in the file system": {[]string{":443 web"}, []string{"/run/web.sock web"}, []int{-1}},
	} {
		t.Run(name, func(t *testing.T) {
			var listeners []router.Listener
			var names []string
			for _, l := range tc.listen {
				addr, name, _ := strings.Cut(l, " ")
				listeners, names = append(listeners, router.Listener{Addr: addr}), append(names, name)
			}
			var sockets []systemd.Socket
			for _, s := range tc.sockets {
				addr, name, _ := strings.Cut(s, " ")
				o := &open{addr: &net.UnixAddr{Name: addr, Net: "unix"}}
				if tcp, err := net.ResolveTCPAddr("tcp", addr); err == nil {
					o.addr = tcp
				}
				sockets = append(sockets, systemd.Socket{Name: name, Listener: o})
			}
			var log bytes.Buffer
			edge.Adopt(t.Context(), listeners, names, sockets, slog.New(slog.NewTextHandler(&log, nil)))
			opened := 0
			wanted := map[net.Listener]bool{}
			for i, want := range tc.want {
				var ln net.Listener
				if want >= 0 {
					ln = sockets[want].Listener
					wanted[ln] = true
				}
				if got := listeners[i].Listener; got != ln {
					t.Errorf("listener %d got %v, want socket %d", i, got, want)
				}
				if ln == nil {
					opened++
				}
			}
			if said := strings.Count(log.String(), "opening it"); said != opened {
				t.Errorf("%d listeners without a socket, and the log says %s", opened, log.String())
			}
			for i, s := range sockets {
				if o := s.Listener.(*open); o.closed == wanted[o] {
					t.Errorf("socket %d: closed %t", i, o.closed)
				}
			}
		})
	}
}

// Without systemd nothing is said, and nothing changes.
func TestAdoptNothing(t *testing.T) {
	var log bytes.Buffer
	listeners := []router.Listener{{Addr: ":443"}}
	edge.Adopt(t.Context(), listeners, nil, nil, slog.New(slog.NewTextHandler(&log, nil)))
	if listeners[0].Listener != nil || log.Len() > 0 {
		t.Errorf("%v, %s", listeners[0].Listener, log.String())
	}
}
