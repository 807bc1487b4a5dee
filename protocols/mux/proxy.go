package mux

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/pires/go-proxyproto"

	"github.com/oneport-edge/oneport/protocols/conn"
)

// Bounds of a PROXY header (PROXY protocol 2.1 and 2.2): a v1 line is at most
// 107 bytes, a v2 header 16 plus its length field, of which we take 4,096 as
// the parser does (proxyproto.MaxV2HeaderSize, a variable).
const (
	proxyV1Most  = 107
	proxyV2Fixed = 16
	proxyV2Most  = proxyV2Fixed + 4096
)

var (
	errNoProxyHeader  = errors.New("mux: no PROXY header")
	errBadProxyHeader = errors.New("mux: broken PROXY header")
)

// proxyLen says how long the PROXY header at the start of p is. It gives 0
// and no error when more bytes are needed to know.
func proxyLen(p []byte) (int, error) {
	switch {
	case hasPrefix(p, proxyproto.SIGV1):
		line := p[:min(len(p), proxyV1Most)]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			return i + 1, nil
		}
		if len(line) == proxyV1Most {
			return 0, errBadProxyHeader
		}
		return 0, nil
	case hasPrefix(p, proxyproto.SIGV2):
		if len(p) < proxyV2Fixed {
			return 0, nil
		}
		n := proxyV2Fixed + int(binary.BigEndian.Uint16(p[proxyV2Fixed-2:]))
		if n > proxyV2Most {
			return 0, errBadProxyHeader
		}
		return n, nil
	}
	return 0, errNoProxyHeader
}

// hasPrefix reports whether p begins with sig, or may still do so.
func hasPrefix(p, sig []byte) bool {
	n := min(len(p), len(sig))
	return bytes.Equal(p[:n], sig[:n])
}

// readProxyHeader reads one PROXY header from r, however it is cut into
// segments, and returns it with what was read behind it. When reading fails,
// rest is what had arrived.
func readProxyHeader(r io.Reader) (h *proxyproto.Header, rest []byte, err error) {
	buf := make([]byte, 0, 256)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		size, lenErr := proxyLen(buf)
		switch {
		case len(buf) == 0 && err != nil:
			return nil, nil, err
		case lenErr != nil:
			return nil, buf, lenErr
		case size > 0 && len(buf) >= size:
			// The parser must see the whole header at once: it refuses a v1
			// line that is not buffered in full.
			h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(buf[:size]), size))
			if err != nil {
				err = fmt.Errorf("%w: %w", errBadProxyHeader, err)
			}
			return h, buf[size:], err
		case err != nil:
			return nil, buf, err
		case size > cap(buf):
			buf = append(make([]byte, 0, size), buf...)
		}
	}
}

// relay takes the PROXY header off c and makes the client it names the
// connection's Remote.
func relay(reg *conn.Registry, c *conn.Conn) (conn.Reason, error) {
	h, rest, err := readProxyHeader(c)
	switch {
	case err == nil:
	case errors.Is(err, errNoProxyHeader):
		return conn.ReasonProxyMissing, err
	case errors.Is(err, errBadProxyHeader) || len(rest) > 0:
		return conn.ReasonProxyInvalid, err
	case isTimeout(err):
		return conn.ReasonSilentTimeout, err
	default:
		return conn.ReasonSilent, err
	}
	c.Unread(rest)
	f := c.Facts()
	remote, local := f.Peer, f.Local
	if src, dst, ok := h.TCPAddrs(); ok && !h.Command.IsLocal() {
		remote, local = conn.AddrPort(src), conn.AddrPort(dst)
	}
	// Otherwise it is the proxy's own health check, or a client without an IP
	// address: the peer speaks for itself (PROXY protocol, 2.2).
	if !reg.Relay(c, remote, local) {
		return conn.ReasonOverPerIP, errors.New("mux: too many connections of this client")
	}
	return conn.ReasonDone, nil
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}
