package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
)

// Passthrough sends TLS connections to another server without terminating
// them: that server sees the ClientHello and everything behind it, byte for
// byte. A connection matches if it fits each condition that is set.
type Passthrough struct {
	// SNI is a server name, or "*.example.com" for any name one label below.
	SNI string
	// ALPN is a protocol that the client must offer.
	ALPN string
	// To is the upstream's host:port.
	To string
	// ProxyHeader begins what the upstream gets with a PROXY header, version 2, that
	// tells it who the client is.
	ProxyHeader bool
}

// Validate reports a rule that could never work.
func (p Passthrough) Validate() error {
	if p.SNI == "" && p.ALPN == "" {
		return errors.New("passthrough: set sni or alpn; without a condition every connection would match")
	}
	if _, _, err := net.SplitHostPort(p.To); err != nil {
		return fmt.Errorf("passthrough to %q: want host:port: %w", p.To, err)
	}
	return nil
}

// Matches reports whether a connection is passed through that asks for a server
// name and offers some protocols.
func (p Passthrough) Matches(sni string, offered []string) bool {
	return (p.SNI == "" || matchName(p.SNI, sni)) &&
		(p.ALPN == "" || slices.Contains(offered, p.ALPN))
}

// matchName compares host names as certificates do: a leading "*." stands for
// exactly one label (RFC 6125, 6.4.3).
func matchName(pattern, name string) bool {
	if rest, ok := strings.CutPrefix(pattern, "*"); ok {
		i := strings.IndexByte(name, '.')
		return i > 0 && strings.EqualFold(name[i:], rest)
	}
	return strings.EqualFold(pattern, name)
}

// tunnel passes c through to its upstream, until both directions have ended.
func (m *Mux) tunnel(c *conn.Conn, h *handshake) {
	ctx, cancel := context.WithCancel(h)
	defer cancel()
	c.OnClose(cancel) // a client that is closed meanwhile waits for no upstream
	up, err := (&net.Dialer{Deadline: c.Deadline()}).DialContext(ctx, "tcp", h.upward.To)
	if err != nil {
		m.Log.Warn("passthrough upstream cannot be reached", "upstream", h.upward.To, "sni", h.sni, "err", err)
		c.Unmute()
		m.drop(c, conn.ReasonTunnelDial, err)
		return
	}
	defer up.Close()
	hello := c.Replay()
	if h.upward.ProxyHeader {
		facts := c.Facts()
		hello = append(protocols.AppendProxyHeader(nil, facts.Remote, facts.Local), hello...)
	}
	c.Learn(func(f *protocols.Conn) {
		f.Kind, f.SNI, f.OfferedALPN = protocols.KindTunnel, h.sni, h.offered
	})
	if !c.Routed(protocols.StateTunnel) {
		return
	}
	if _, err := up.Write(hello); err != nil {
		_ = c.CloseFor(conn.ReasonTunnelDial)
		return
	}

	down := make(chan error, 1)
	m.work.Go(func() { down <- pump(c.Raw(), up, func(n int64) { c.Count(0, n) }) })
	errUp := pump(up, c.Raw(), func(n int64) { c.Count(n, 0) })
	if errUp != nil {
		_ = up.Close() // broken, not ended: the other direction must not linger
	}
	if err := <-down; err != nil {
		m.Log.Debug("tunnel broke", "conn", c.Facts().ID, "err", err)
	}
	_ = c.Close()
}

// pump moves bytes from src to dst until src ends, and hands the end on as a
// half-close. On a broken direction it closes both.
func pump(dst, src net.Conn, count func(int64)) error {
	err := move(dst, src, count)
	if err != nil {
		_ = dst.Close()
		_ = src.Close()
		return err
	}
	if cw, ok := dst.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}

// copyChunk is how much is moved between two updates of the byte counts where
// the kernel does not tell how much there is.
const copyChunk = 256 << 10

// moveAny is move for connections that are not both TCP.
func moveAny(dst, src net.Conn, count func(int64)) error {
	for {
		n, err := io.CopyN(dst, src, copyChunk)
		count(n)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
