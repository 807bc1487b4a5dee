package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
)

// HelloBytes bounds what a client may send until its ClientHello is complete.
// Large ones, with a post-quantum key share and a resumption ticket, stay
// below 4 KiB.
const HelloBytes = 16 << 10

// challengeProtocol is selected in handshakes by which a CA sees that a name is
// ours, and in no others. The connection ends behind them (RFC 8737, 3).
const challengeProtocol = "acme-tls/1"

// errNoSlot ends a handshake that found no free slot before its deadline.
var errNoSlot = errors.New("mux: no handshake slot became free in time")

// errPassthrough ends a handshake whose hello is for another server.
var errPassthrough = errors.New("mux: connection is passed through")

// handshake is one TLS handshake as our hook in tls.Config sees it. It is the
// context of the handshake, which is how the hook finds it.
type handshake struct {
	context.Context
	c       *conn.Conn
	hello   bool // a complete ClientHello has been seen
	sni     string
	offered []string
	upward  *Passthrough // the rule that took the connection
}

type handshakeKey struct{}

func (h *handshake) Value(key any) any {
	if key == (handshakeKey{}) {
		return h
	}
	return h.Context.Value(key)
}

// serveTLS takes a connection whose first bytes are a TLS record.
func (m *Mux) serveTLS(c *conn.Conn) {
	if m.TLS == nil {
		m.refuseTLS(c)
		return
	}
	if !c.Step(protocols.StateHandshake) {
		return // closed meanwhile
	}
	deepen()
	c.Budget(HelloBytes)
	if len(m.Passthrough) > 0 {
		c.Record()
	}
	tc := tls.Server(c, m.tls)
	// Background: a context that can end would cost a goroutine for each
	// handshake. The connection's deadline and the registry end it as well.
	h := &handshake{Context: context.Background(), c: c}
	begun := time.Now()
	err := tc.HandshakeContext(h)
	c.Settle() // a handshake that failed before it wrote still holds its slot
	if err != nil {
		if h.upward != nil {
			m.tunnel(c, h)
			return
		}
		why := m.handshakeReason(h, err)
		if why == conn.ReasonClientCert {
			// In TLS 1.3 a client sends its request before it can know, and the
			// alert that crypto/tls has sent would be lost.
			linger(c)
		}
		m.drop(c, why, err)
		return
	}

	state := tc.ConnectionState()
	m.Registry.Handshook(time.Since(begun), state.DidResume)
	if state.NegotiatedProtocol == challengeProtocol {
		_ = tc.CloseWrite() // the CA has seen the certificate
		m.drop(c, conn.ReasonChallenge, nil)
		return
	}
	kind := protocols.KindHTTP1 // no ALPN: node, ws, gorilla and Python offer none
	if state.NegotiatedProtocol == "h2" {
		kind = protocols.KindHTTP2
	}
	c.Learn(func(f *protocols.Conn) {
		f.Kind, f.SNI, f.OfferedALPN, f.TLS = kind, h.sni, h.offered, &state
	})
	if !c.Routed(protocols.StateIdle) {
		return
	}
	if kind == protocols.KindHTTP2 {
		m.HTTP2(tc)
		return
	}
	m.HTTP1(tc)
}

// onHello is tls.Config.GetConfigForClient: the ClientHello is complete.
func (m *Mux) onHello(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	h, ok := hello.Context().Value(handshakeKey{}).(*handshake)
	if !ok {
		return nil, errors.New("mux: handshake outside of serveTLS")
	}
	h.hello, h.sni, h.offered = true, hello.ServerName, hello.SupportedProtos
	if i := slices.IndexFunc(m.Passthrough, func(p Passthrough) bool { return p.Matches(h.sni, h.offered) }); i >= 0 {
		h.upward = &m.Passthrough[i]
		h.c.Mute() // crypto/tls sends an alert now
		return nil, errPassthrough
	}
	h.c.Forget()
	h.c.Budget(math.MaxInt) // from here on crypto/tls has bounds of its own
	if !m.takeSlot(h.c.Deadline()) {
		return nil, errNoSlot
	}
	h.c.OnWrite(m.giveSlot)
	if m.TLS.GetConfigForClient != nil {
		return m.TLS.GetConfigForClient(hello)
	}
	return nil, nil //nolint:nilnil // crypto/tls: nil means the original config
}

// deepen makes the goroutine's stack as deep as a handshake needs it, 16 KiB,
// at once. It would get there anyway, in steps, and each step copies the stack
// from ever deeper calls: a twentieth of a handshake's CPU.
//
//go:noinline
func deepen() {
	var frame [9 << 10]byte
	deepest(&frame)
}

//go:noinline
func deepest(*[9 << 10]byte) {}

// takeSlot waits for a handshake slot: from the complete hello to the first
// write of the answer, when all of the expensive computing is done, so that a
// silent client holds none.
func (m *Mux) takeSlot(deadline time.Time) bool {
	select {
	case m.slots <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	select {
	case m.slots <- struct{}{}:
		return true
	case <-t.C:
		return false
	}
}

func (m *Mux) giveSlot() { <-m.slots }

// handshakeReason derives the counted reason from how a handshake failed.
func (m *Mux) handshakeReason(h *handshake, err error) conn.Reason {
	var cert *tls.CertificateVerificationError
	switch {
	case !h.hello && isTimeout(err):
		return conn.ReasonHelloTimeout
	case !h.hello:
		return conn.ReasonHello
	case errors.Is(err, errNoSlot):
		return conn.ReasonHandshakeSlot
	case isTimeout(err):
		return conn.ReasonHandshakeTimeout
	case len(h.offered) > 0 && !slices.ContainsFunc(h.offered, func(p string) bool { return slices.Contains(m.TLS.NextProtos, p) }):
		return conn.ReasonNoALPN
	case errors.As(err, &cert), strings.Contains(err.Error(), "client didn't provide a certificate"):
		return conn.ReasonClientCert
	}
	return conn.ReasonHandshake
}

// tlsOnPlain is what a TLS client gets from a plaintext listener. HTTP in
// answer to a hello makes every TLS library report "wrong version number" or
// "not a TLS record", which users know; an alert would blame their TLS.
const tlsOnPlain = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" +
	"This port speaks plaintext HTTP, and a TLS hello arrived. Use http://, not https://.\n"

const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 64 << 10
)

// refuseTLS answers TLS on a plaintext listener.
func (m *Mux) refuseTLS(c *conn.Conn) {
	if _, err := io.WriteString(c, tlsOnPlain); err == nil {
		linger(c)
	}
	m.drop(c, conn.ReasonTLSOnPlain, nil)
}

// linger ends our side and reads on for a moment before the close: unread
// input would turn that into a reset, and what was said last would be lost
// (RFC 9112, 9.6).
func linger(c *conn.Conn) {
	_ = c.SetDeadline(time.Now().Add(lingerTime)) // an error shows in what follows
	if c.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c, lingerBytes)
	}
}
