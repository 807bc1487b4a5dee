package mux_test

import (
	"bufio"
	"bytes"
	"net/netip"
	"testing"

	"github.com/pires/go-proxyproto"

	"github.com/oneport-edge/oneport/protocols"
)

// What is written another implementation reads.
func TestProxyHeader(t *testing.T) {
	for _, test := range []struct{ from, to, wantFrom, wantTo string }{
		{"192.0.2.1:1234", "198.51.100.2:443", "192.0.2.1:1234", "198.51.100.2:443"},
		{"[::ffff:192.0.2.1]:1234", "198.51.100.2:443", "192.0.2.1:1234", "198.51.100.2:443"},
		{"[2001:db8::1]:65535", "[2001:db8::2]:1", "[2001:db8::1]:65535", "[2001:db8::2]:1"},
		{"192.0.2.1:1234", "[2001:db8::2]:1", "", ""},
		{"", "198.51.100.2:443", "", ""},
		{"", "", "", ""},
	} {
		from, _ := netip.ParseAddrPort(test.from)
		to, _ := netip.ParseAddrPort(test.to)
		r := bufio.NewReader(bytes.NewReader(append(protocols.AppendProxyHeader(nil, from, to), "rest"...)))
		h, err := proxyproto.Read(r)
		if err != nil {
			t.Errorf("%+v: %v", test, err)
			continue
		}
		if rest, _ := r.ReadString(0); rest != "rest" {
			t.Errorf("%+v: %q is left", test, rest)
		}
		if test.wantFrom == "" {
			if h.Command != proxyproto.LOCAL {
				t.Errorf("%+v: %v", test, h)
			}
			continue
		}
		if h.SourceAddr.String() != test.wantFrom || h.DestinationAddr.String() != test.wantTo || h.Command != proxyproto.PROXY || h.Version != 2 {
			t.Errorf("%+v: %v from %v to %v", test, h.Command, h.SourceAddr, h.DestinationAddr)
		}
	}
}
