package router

import (
	"context"
	"net/netip"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/rest"
)

// errMisdirected refuses a call whose host is not the one that its connection was
// opened for.
var errMisdirected = &protocols.Refusal{
	Reason: protocols.ReasonMisdirected,
	Text:   "this connection was opened for another host; open one for this host",
}

// Misdirected reports whether a request for a host came on a TLS connection that was
// opened for another server name, which matters where clients have certificates:
// what the handshake has asked for, and what a log says that it was for, is of the
// name in the hello, and routes go by the host (RFC 9110, 15.5.20). A browser may use
// one connection for all names of a certificate (RFC 9113, 9.1.1); it opens
// another one at the answer 421.
//
// A hello without a name agrees with hosts that are addresses alone, because those
// have no place in it (RFC 6066, 3). A request without a host, of HTTP/1.0, agrees
// with everything: no route that names a host takes it.
func Misdirected(sni, host string) bool {
	if host == "" {
		return false
	}
	host = strings.TrimSuffix(hostOnly(host), ".")
	if sni == "" {
		_, err := netip.ParseAddr(strings.Trim(host, "[]"))
		return err != nil
	}
	return !strings.EqualFold(sni, host)
}

// strict reports whether hosts must be those that connections were opened for.
func (s *Server) strict() bool { return s.ClientAuth.CAs != nil && !s.AnyHost }

// misdirected reports whether a call is refused for its host. A load balancer's
// connections are for all hosts that it stands before.
func (s *Server) misdirected(host string, from *protocols.Conn) bool {
	return s.strict() && from.TLS != nil && Misdirected(from.SNI, host) && !rest.Trusts(s.TrustedProxies, from.Remote.Addr())
}

// guards are those that net/http's requests are asked by.
func (s *Server) guards() []protocols.Guard {
	if !s.strict() {
		return s.Guards
	}
	first := protocols.GuardFunc(func(ctx context.Context, call *protocols.Call) (context.Context, error) {
		if s.misdirected(call.Host, call.Conn) {
			return nil, errMisdirected
		}
		return ctx, nil
	})
	return append([]protocols.Guard{first}, s.Guards...)
}
