package mux

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/soheilhy/cmux"

	"github.com/oneport-edge/oneport/protocols/conn"
)

// h2Preface is how every HTTP/2 connection of a client begins (RFC 9113, 3.4).
const h2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// FirstBytes is how many bytes of a connection are read to tell what it is:
// the length of the HTTP/2 preface, which is the longest thing to tell.
const FirstBytes = len(h2Preface)

// The matchers read one byte at a time and stop at the first that decides, so
// that a client never has to send more than its verdict needs. Together they
// leave exactly one place for each connection: a TLS record header begins with
// 0x16, which is no token byte; the preface begins like an HTTP/1 request and
// differs from every other one within its 24 bytes.

// matchTLS matches a TLS handshake record: 0x16, then major version 3.
func matchTLS(r io.Reader) bool {
	b, ok := readByte(r)
	if !ok || b != 0x16 {
		return false
	}
	b, ok = readByte(r)
	return ok && b == 0x03
}

// matchH2C matches the HTTP/2 preface, and fails at the first other byte.
func matchH2C(r io.Reader) bool {
	for i := range len(h2Preface) {
		if b, ok := readByte(r); !ok || b != h2Preface[i] {
			return false
		}
	}
	return true
}

// matchHTTP1 matches whatever begins with an HTTP token byte (RFC 9110,
// 5.6.2): any method, PATCH and those of tomorrow included. The HTTP server
// answers 400 to what turns out to be no request. What could still become the
// preface is not matched: it ended early.
func matchHTTP1(r io.Reader) bool {
	b, ok := readByte(r)
	if !ok || !isToken(b) {
		return false
	}
	for i := 0; i < len(h2Preface) && b == h2Preface[i]; i++ {
		if b, ok = readByte(r); !ok {
			return false
		}
	}
	return true
}

// readByte reads one byte. cmux's reader returns what it remembers together
// with the error that came behind it, so n counts first.
func readByte(r io.Reader) (byte, bool) {
	var p [1]byte
	n, _ := r.Read(p[:])
	return p[0], n == 1
}

func isToken(b byte) bool {
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		return true
	}
	switch b {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~':
		return true
	}
	return false
}

// sniffConn is what cmux gets to see of a connection: at most FirstBytes of
// it, remembered to be read again, behind the PROXY header if there is one.
type sniffConn struct {
	*conn.Conn
	m       *Mux
	relayed bool        // a PROXY header comes first
	gone    atomic.Bool // from cmux, to a handler or closed
	why     conn.Reason
	err     error
	seen    [FirstBytes]byte
	n       int // how many of seen have come
	shown   int // how many of those a matcher has looked at
}

// Read belongs to cmux's matchers. They ask for one byte at a time; what has
// come, up to FirstBytes, is read at once: a system call for each byte was a
// fiftieth of a handshake's CPU.
func (c *sniffConn) Read(p []byte) (int, error) {
	if c.relayed {
		c.relayed = false
		c.why, c.err = relay(c.m.Registry, c.Conn)
	}
	if c.shown == c.n && c.err == nil {
		if c.n == len(c.seen) {
			return 0, io.EOF // no matcher needs more
		}
		var k int
		k, c.err = c.Conn.Read(c.seen[c.n:])
		c.n += k
	}
	if c.shown == c.n {
		return 0, c.err
	}
	k := copy(p, c.seen[c.shown:c.n])
	c.shown += k
	return k, nil
}

// SetReadDeadline ignores cmux: the connection has an absolute deadline.
func (c *sniffConn) SetReadDeadline(time.Time) error { return nil }

// release gives the sniffed bytes back and the connection to its handler.
func (c *sniffConn) release() *conn.Conn {
	c.Unread(c.seen[:c.n])
	c.left()
	return c.Conn
}

// left tells the acceptor that cmux is done with the connection.
func (c *sniffConn) left() {
	if !c.gone.Swap(true) {
		c.m.accept.sniffing.Done()
	}
}

// Close is called by cmux when no matcher matched, and tells why.
func (c *sniffConn) Close() error {
	defer c.left()
	why := c.why
	switch {
	case why != conn.ReasonDone: // the PROXY header said it
	case c.m.ending():
		why = conn.ReasonDrained
	case c.n == 0 && isTimeout(c.err):
		why = conn.ReasonSilentTimeout
	case c.n == 0:
		why = conn.ReasonSilent
	case c.err != nil:
		why = conn.ReasonFirstBytes
	default:
		why = conn.ReasonUnknownBytes
	}
	c.m.drop(c.Conn, why, c.err)
	return nil
}

// subListener is a cmux sub-listener without its traps: closing one closes the
// root, and its two errors at the end are not net.ErrClosed.
type subListener struct{ net.Listener }

func (l *subListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if errors.Is(err, cmux.ErrListenerClosed) || errors.Is(err, cmux.ErrServerClosed) {
		err = net.ErrClosed
	}
	return c, err
}

// Close does nothing: only Mux.Close ends the port.
func (l *subListener) Close() error { return nil }
