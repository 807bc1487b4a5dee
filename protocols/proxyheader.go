package protocols

import "net/netip"

// AppendProxyHeader appends a PROXY protocol header, version 2, which tells a server
// that a connection is a client's: from is the client, to is where it connected
// to. If one of them is not valid, or they are of different families, the header
// says that the connection is the proxy's own (LOCAL).
// Source: haproxy.org, The PROXY protocol, section 2.2.
func AppendProxyHeader(b []byte, from, to netip.AddrPort) []byte {
	const (
		local, proxy = 0x20, 0x21
		tcp4, tcp6   = 0x11, 0x21
	)
	b = append(b, "\r\n\r\n\x00\r\nQUIT\n"...)
	src, dst := from.Addr().Unmap(), to.Addr().Unmap()
	switch {
	case src.Is4() && dst.Is4():
		b = append(b, proxy, tcp4, 0, 12)
	case src.Is6() && dst.Is6():
		b = append(b, proxy, tcp6, 0, 36)
	default:
		return append(b, local, 0, 0, 0)
	}
	b = append(b, src.AsSlice()...)
	b = append(b, dst.AsSlice()...)
	b = append(b, byte(from.Port()>>8), byte(from.Port()))
	return append(b, byte(to.Port()>>8), byte(to.Port()))
}
