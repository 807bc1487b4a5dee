package mux

import (
	"cmp"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/soheilhy/cmux"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
)

// Mux classifies the connections of one listener. Fill in the fields, then
// call Serve once.
type Mux struct {
	// Registry takes every connection under account. Required.
	Registry *conn.Registry

	// TLS makes this a TLS listener; nil makes it a plaintext one. Its
	// GetConfigForClient is called after this package has looked at the hello.
	TLS *tls.Config

	// ProxyFrom lists the peers that must send a PROXY header (v1 or v2)
	// before anything else. Everybody else's is refused as an unknown protocol.
	ProxyFrom []netip.Prefix

	// Passthrough lists the connections that are not terminated here. The
	// first match counts. Only a TLS listener looks at it.
	Passthrough []Passthrough

	// Handshakes bounds how many TLS handshakes compute at once. Zero means 1,024.
	Handshakes int

	// Unacked is how long a client may take nothing of what was written to it
	// before the kernel ends the connection (TCP_USER_TIMEOUT, Linux only).
	// Zero means 60 s; negative leaves the kernel's default, about 15 minutes.
	Unacked time.Duration

	// HTTP1 takes a connection that speaks HTTP/1, HTTP2 one that speaks
	// HTTP/2: a *tls.Conn whose handshake is done, or on a plaintext listener
	// a *conn.Conn. Both must return soon. Required.
	HTTP1, HTTP2 func(net.Conn)

	// Plain takes a connection that speaks plaintext HTTP/1 on a TLS
	// listener, to tell the client so. Nil closes it.
	Plain func(net.Conn)

	// Log receives what an operator must know at Warn, and what strangers do
	// at Debug. Nil discards.
	Log *slog.Logger

	name   string // the listener's address
	accept *acceptor
	slots  chan struct{}
	tls    *tls.Config   // TLS with our hook in it
	done   chan struct{} // closed by Close
	work   sync.WaitGroup
	once   sync.Once
	mu     sync.Mutex // guards closed against a Serve that starts late
	closed bool
}

// Serve accepts and routes connections until Close or until ln fails, and
// returns when every goroutine it started has ended. It returns nil after
// Close. It owns ln and closes it.
func (m *Mux) Serve(ln net.Listener) error {
	if err := m.start(ln); err != nil {
		_ = ln.Close()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		return err
	}
	cm := cmux.New(m.accept)
	// All of it before Serve: cmux guards none of these fields.
	cm.SetReadTimeout(time.Hour) // set as it must be; conn.Conn clamps it to its own deadline
	cm.HandleError(func(error) bool {
		// False makes cmux close the port: only for the end. What went wrong
		// with a connection is counted where its sniffed conn is closed.
		return !m.ending()
	})
	routes := []struct {
		matcher cmux.Matcher
		handle  func(*conn.Conn)
	}{
		{matchTLS, m.serveTLS},
		{matchH2C, m.serveH2C},
		{matchHTTP1, m.serveHTTP1},
	}
	for _, r := range routes {
		sub := &subListener{Listener: cm.Match(r.matcher)}
		m.work.Go(func() { m.dispatch(sub, r.handle) })
	}
	err := cm.Serve()
	m.Close() // after a failed listener, too: the dispatchers must end
	m.work.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (m *Mux) start(ln net.Listener) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return net.ErrClosed
	}
	for _, p := range m.Passthrough {
		if err := p.Validate(); err != nil {
			return err
		}
	}
	if m.Log == nil {
		m.Log = slog.New(slog.DiscardHandler)
	}
	m.name = ln.Addr().String()
	m.Registry.Listens(m.name)
	m.slots = make(chan struct{}, cmp.Or(m.Handshakes, 1024))
	m.done = make(chan struct{})
	m.accept = &acceptor{Listener: ln, m: m}
	if d := cmp.Or(m.Unacked, time.Minute); d > 0 {
		if tcp, ok := ln.(*net.TCPListener); ok {
			if err := limitUnacked(tcp, d); err != nil {
				m.Log.Debug("no limit for clients that stop reading", "listener", m.name, "err", err)
			}
		}
	}
	if m.TLS != nil {
		m.tls = m.TLS.Clone()
		m.tls.GetConfigForClient = m.onHello
	}
	return nil
}

// Close stops accepting. Connections that are being routed go on until their
// deadline, tunnels until they end; the registry closes them earlier.
func (m *Mux) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	if m.accept == nil {
		return
	}
	m.once.Do(func() {
		close(m.done)
		_ = m.accept.Close() // an error here leaves nothing to do
	})
}

func (m *Mux) ending() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

// dispatch hands every connection of one sub-listener to handle, in a
// goroutine of its own, because handle may wait for the client.
func (m *Mux) dispatch(sub net.Listener, handle func(*conn.Conn)) {
	for {
		c, err := sub.Accept()
		if err != nil {
			return
		}
		mc, ok := c.(*cmux.MuxConn)
		if !ok {
			_ = c.Close() // cannot happen: cmux hands out nothing else
			continue
		}
		sniffed, ok := mc.Conn.(*sniffConn)
		if !ok {
			_ = c.Close() // cannot happen: the acceptor hands cmux nothing else
			continue
		}
		m.work.Go(func() { handle(sniffed.release()) })
	}
}

// serveHTTP1 takes a connection whose first byte is an HTTP/1 one.
func (m *Mux) serveHTTP1(c *conn.Conn) {
	deliver := m.HTTP1
	if m.TLS != nil {
		deliver = m.Plain
		if deliver == nil {
			m.drop(c, conn.ReasonPlainOnTLS, nil)
			return
		}
	}
	c.Learn(func(f *protocols.Conn) { f.Kind = protocols.KindHTTP1 })
	if c.Routed(protocols.StateIdle) {
		deliver(c)
	}
}

// serveH2C takes a connection that began with the HTTP/2 preface.
func (m *Mux) serveH2C(c *conn.Conn) {
	if m.TLS != nil {
		m.drop(c, conn.ReasonPlainOnTLS, nil)
		return
	}
	c.Learn(func(f *protocols.Conn) { f.Kind = protocols.KindH2C })
	if c.Routed(protocols.StateIdle) {
		m.HTTP2(c)
	}
}

// drop closes a connection that will not be routed and says why, at debug:
// every port on the Internet sees hundreds of these an hour.
func (m *Mux) drop(c *conn.Conn, why conn.Reason, err error) {
	f := c.Facts()
	m.Log.Debug("connection dropped", "conn", f.ID, "remote", f.Remote, "reason", why, "err", err)
	_ = c.CloseFor(why)
}
