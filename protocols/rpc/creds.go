package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"

	"google.golang.org/grpc/credentials"

	"github.com/oneport-edge/oneport/protocols"
)

// transportCredentials report the TLS handshake that has happened already.
// Behind net/http grpc-go does the same from Request.TLS; these are for
// connections that it reads itself.
type transportCredentials struct{}

// ServerHandshake takes a *tls.Conn whose handshake is done, or a plaintext
// connection, and reports what it is.
func (transportCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	var state *tls.ConnectionState
	switch c := c.(type) {
	case *tls.Conn:
		s := c.ConnectionState()
		state = &s
	case interface{ Facts() *protocols.Conn }:
		state = c.Facts().TLS
	}
	if state == nil {
		return c, plaintext{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}, nil
	}
	return c, credentials.TLSInfo{
		State:          *state,
		SPIFFEID:       spiffeID(state),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

// spiffeID is the one URI in the client's certificate, if it is a SPIFFE ID
// (SPIFFE X509-SVID, section 2: exactly one URI).
func spiffeID(state *tls.ConnectionState) *url.URL {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	uris := state.PeerCertificates[0].URIs
	if len(uris) != 1 || uris[0].Scheme != "spiffe" || uris[0].Host == "" {
		return nil
	}
	return uris[0]
}

// ClientHandshake is never called on a server.
func (transportCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("rpc: these credentials are for servers")
}

func (transportCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (c transportCredentials) Clone() credentials.TransportCredentials { return c }

func (transportCredentials) OverrideServerName(string) error { return nil }

// plaintext is the AuthInfo of a connection without TLS.
type plaintext struct{ credentials.CommonAuthInfo }

// AuthType names it as grpc's own insecure credentials do.
func (plaintext) AuthType() string { return "insecure" }
