package mux

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/oneport-edge/oneport/protocols/conn"
)

const (
	backoffFirst = 5 * time.Millisecond
	backoffMost  = time.Second
)

// acceptor is the listener below cmux: it backs off when the process is out
// of file descriptors (cmux alone called Accept 518,000 times in 200 ms),
// applies the bounds, and gives cmux connections that it can do no harm to.
type acceptor struct {
	net.Listener
	m        *Mux
	sniffing sync.WaitGroup // connections whose first bytes are waited for
}

// Accept gives cmux its next connection. When the port closes, it answers once no
// connection is being sniffed any more: cmux closes those at its end, and their
// clients have been promised an answer. Their deadline bounds the wait.
func (a *acceptor) Accept() (net.Conn, error) {
	c, err := a.next()
	if errors.Is(err, net.ErrClosed) {
		a.sniffing.Wait()
	}
	return c, err
}

func (a *acceptor) next() (net.Conn, error) {
	var wait time.Duration
	for {
		raw, err := a.Listener.Accept()
		if err != nil {
			if a.m.ending() {
				return nil, net.ErrClosed
			}
			if !temporary(err) {
				return nil, err
			}
			wait = min(max(backoffFirst, 2*wait), backoffMost)
			a.m.Log.Warn("cannot accept, waiting", "listener", a.m.name, "err", err, "wait", wait)
			if !a.pause(wait) {
				return nil, net.ErrClosed
			}
			continue
		}
		wait = 0
		relayed := a.trusts(raw)
		c, why := a.m.Registry.Add(raw, conn.Origin{Listener: a.m.name, Relayed: relayed})
		if c == nil {
			a.m.Log.Debug("connection refused", "remote", raw.RemoteAddr(), "reason", why)
			_ = raw.Close() // nothing was promised to this client
			continue
		}
		a.sniffing.Add(1)
		return &sniffConn{Conn: c, m: a.m, relayed: relayed}, nil
	}
}

// pause waits, unless the port closes.
func (a *acceptor) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-a.m.done:
		return false
	}
}

// temporary reports whether Accept may work again: the process or the host is
// out of something, or the client hung up before we looked.
func temporary(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR, syscall.EPERM, syscall.EPROTO,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func (a *acceptor) trusts(raw net.Conn) bool {
	if len(a.m.ProxyFrom) == 0 {
		return false
	}
	ip := conn.AddrPort(raw.RemoteAddr()).Addr()
	return slices.ContainsFunc(a.m.ProxyFrom, func(p netip.Prefix) bool { return p.Contains(ip) })
}
