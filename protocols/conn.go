package protocols

import (
	"context"
	"crypto/tls"
	"net/netip"
	"time"
)

// Kind is how a connection's bytes are framed, decided once by its first
// bytes and by ALPN. It says nothing of the calls on it.
type Kind uint8

// The kinds of connection.
const (
	KindUnknown Kind = iota // not decided yet
	KindHTTP1               // HTTP/1.1 or 1.0, on TLS or plaintext
	KindHTTP2               // HTTP/2 by ALPN
	KindH2C                 // HTTP/2 with prior knowledge, plaintext
	KindTunnel              // passed through by SNI or ALPN, never decrypted
)

// String gives "unknown", "http/1.1", "h2", "h2c" or "tunnel".
func (k Kind) String() string {
	switch k {
	case KindHTTP1:
		return "http/1.1"
	case KindHTTP2:
		return "h2"
	case KindH2C:
		return "h2c"
	case KindTunnel:
		return "tunnel"
	default:
		return "unknown"
	}
}

// Conn is what is known of one client connection. Every handler of every
// protocol finds it in its context ([ConnFrom]), and the connection table
// shows it. The fields never change once a handler can see them; treat them
// as read-only. State and Bytes are live.
type Conn struct {
	// ID names the connection in logs and in the connection table. It is
	// unique within a process and in practice among instances.
	ID string

	// Listener is the address of the listener that accepted it.
	Listener string

	// Remote is the client: the address a trusted PROXY header names, or else
	// the TCP peer. It is the zero value where the transport has no IP address.
	Remote netip.AddrPort

	// Peer is the TCP peer itself. It differs from Remote behind a PROXY header.
	Peer netip.AddrPort

	// Local is the address the client connected to: the PROXY header's
	// destination, or else the socket's own address.
	Local netip.AddrPort

	// Accepted is when the connection was accepted.
	Accepted time.Time

	// Kind is how the bytes are framed.
	Kind Kind

	// SNI is the server name in the ClientHello; empty without TLS or SNI.
	SNI string

	// OfferedALPN is the list of protocols the client offered, in its order.
	// What was selected is TLS.NegotiatedProtocol.
	OfferedALPN []string

	// TLS is the state of the finished handshake; nil on a plaintext
	// connection. Prefer it to [net/http.Request.TLS] for security decisions:
	// net/http may leave that one nil over TLS (golang/go#81384).
	TLS *tls.ConnectionState

	live Live
	open *Calls
}

// Live is the moving part of a connection. protocols/conn implements it.
type Live interface {
	State() State
	Since() time.Time // of the state
	Bytes() (in, out int64)
}

// WithLive returns a copy of c whose State and Bytes come from live, and on which calls are
// of the port that has these open. Either may be nil.
func (c Conn) WithLive(live Live, open *Calls) *Conn {
	c.live, c.open = live, open
	return &c
}

// Calls are the open calls of the connection's port; nil if it has none, as in a test of a guard.
func (c *Conn) Calls() *Calls { return c.open }

// State is where the connection stands now; [StateClosed] if it was never open.
func (c *Conn) State() State {
	if c.live == nil {
		return StateClosed
	}
	return c.live.State()
}

// Since is when the connection came to its state; zero if it was never open.
func (c *Conn) Since() time.Time {
	if c.live == nil {
		return time.Time{}
	}
	return c.live.Since()
}

// Bytes counts what was read from and written to the client's socket so far,
// TLS records included.
func (c *Conn) Bytes() (in, out int64) {
	if c.live == nil {
		return 0, 0
	}
	return c.live.Bytes()
}

type connKey struct{}

// WithConn returns a context that carries c.
func WithConn(ctx context.Context, c *Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// ConnFrom returns the connection that ctx belongs to, or nil.
func ConnFrom(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn) // a Call's context answers with the Call's
	return c
}
