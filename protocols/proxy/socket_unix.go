//go:build unix

package proxy

import (
	"net"
	"syscall"
)

// peeker looks at an idle connection without waiting. The zero value sees nothing.
type peeker struct {
	raw  syscall.RawConn
	look func(fd uintptr) bool // made once: one for each look would be garbage
	n    int
	err  error
}

func (p *peeker) init(nc net.Conn) {
	if inner, ok := nc.(interface{ NetConn() net.Conn }); ok { // *tls.Conn
		nc = inner.NetConn()
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	p.raw = raw
	p.look = func(fd uintptr) bool {
		var b [1]byte
		p.n, p.err = syscall.Read(int(fd), b[:])
		return true
	}
}

// dead reports whether the server has closed an idle connection, or has sent
// something that nobody has asked for. Over TLS too: what belongs to the handshake
// came before the first answer.
func (p *peeker) dead() bool {
	if p.raw == nil {
		return false
	}
	if err := p.raw.Read(p.look); err != nil {
		return true
	}
	return p.n >= 0 || p.err != syscall.EAGAIN && p.err != syscall.EINTR //nolint:errorlint // a number, on the way of each request
}

// abort makes the close of a connection tell its peer that something is missing.
func abort(nc net.Conn) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	})
}
