package edge

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/oneport-edge/oneport/internal/systemd"
	"github.com/oneport-edge/oneport/router"
)

// lookUpTime bounds looking up the host of a listener.
const lookUpTime = 5 * time.Second

// Adopt gives the listeners that are not open yet the sockets that systemd has opened
// for them: by name, where names has one, else by address. Each socket goes to one
// listener. A listener without a socket will be opened as ever; a socket
// without a listener is closed here, and an error in the log, as its
// clients wait in vain: systemd holds it open.
func Adopt(ctx context.Context, listeners []router.Listener, names []string, sockets []systemd.Socket, log *slog.Logger) {
	if len(sockets) == 0 {
		return
	}
	take := func(i int, fits func(systemd.Socket) bool) {
		if listeners[i].Listener != nil {
			return
		}
		if at := slices.IndexFunc(sockets, fits); at >= 0 {
			listeners[i].Listener = sockets[at].Listener
			sockets = slices.Delete(sockets, at, at+1)
		}
	}
	sockets = slices.Clone(sockets)
	name := func(i int) string {
		if i < len(names) {
			return names[i]
		}
		return ""
	}
	for i := range listeners {
		if want := name(i); want != "" {
			take(i, func(s systemd.Socket) bool { return s.Name == want && tcpAddr(s).IsValid() })
		}
	}
	// Exact addresses first: with sockets for 127.0.0.1:443 and [::]:443 each goes to its own.
	for i, l := range listeners {
		if name(i) == "" {
			take(i, func(s systemd.Socket) bool { return tcpAddr(s).IsValid() && tcpAddr(s).String() == l.Addr })
		}
	}
	for i, l := range listeners {
		if name(i) == "" && l.Listener == nil {
			fits := addressed(ctx, l.Addr)
			take(i, func(s systemd.Socket) bool { return fits(tcpAddr(s)) })
		}
	}
	for i, l := range listeners {
		if l.Listener == nil {
			log.Warn("systemd has no socket for this address, opening it", "address", l.Addr, "socket", name(i))
		}
	}
	for _, s := range sockets {
		log.Error("systemd has a socket that no listener wants: its clients wait in vain", "address", s.Listener.Addr().String(), "socket", s.Name)
		_ = s.Listener.Close() // ours alone; nothing is lost
	}
}

// tcpAddr is the address of a socket; not valid if it is not a TCP one.
func tcpAddr(s systemd.Socket) netip.AddrPort {
	tcp, ok := s.Listener.Addr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// addressed reports whether a socket is what listening on addr would open. All
// ways to say "every address" are one: ListenStream=443 gives [::]:443.
func addressed(ctx context.Context, addr string) func(netip.AddrPort) bool {
	host, text, err := net.SplitHostPort(addr)
	port, perr := strconv.ParseUint(text, 10, 16)
	if err != nil || perr != nil || port == 0 {
		return func(netip.AddrPort) bool { return false }
	}
	ips := []netip.Addr{netip.IPv6Unspecified()}
	if host != "" {
		ctx, cancel := context.WithTimeout(ctx, lookUpTime)
		defer cancel()
		if ips, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
			ips = nil // opening it will say why
		}
	}
	every := slices.ContainsFunc(ips, func(ip netip.Addr) bool { return ip.Unmap().IsUnspecified() })
	return func(s netip.AddrPort) bool {
		if s.Port() != uint16(port) {
			return false
		}
		return every && s.Addr().IsUnspecified() || slices.ContainsFunc(ips, func(ip netip.Addr) bool { return ip.Unmap() == s.Addr() })
	}
}
