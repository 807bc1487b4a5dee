package doctor

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the handshake's, RFC 6455
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

func websocketProbes() []probe {
	const ws = "websocket"
	return []probe{
		{"websocket-upgrade", ws, (*patient).wsUpgrade, "The handshake is HTTP/1.1 with Upgrade: proxies must hand it on (nginx: proxy_http_version 1.1 and the Upgrade and Connection fields)."},
		{"websocket-ping", ws, (*patient).wsPing, "A ping must be answered (RFC 6455 section 5.5.2): clients and proxies take a connection without pongs for dead."},
		{"websocket-origin", ws, (*patient).wsOrigin, "Browsers let any page open a WebSocket, with the user's cookies: if cookies say who calls, compare Origin with Host."},
		{"websocket-early-frame", ws, (*patient).wsEarly, "What comes right behind the handshake was read with it, and must not be lost on the way to the handler: the frames behind it would be read wrongly (golang/go#80875)."},
		{"websocket-after-rest", ws, (*patient).wsAfterREST, "Clients upgrade connections that they have used for requests: what a call is must be decided for each request, not by the first one."},
	}
}

const (
	opText, opClose, opPing, opPong = 0x1, 0x8, 0x9, 0xa

	mostFrame  = 64 << 10
	mostFrames = 1000 // that are passed over until the one that is waited for
)

// handshake is an upgrade's answer, and its connection.
type handshake struct {
	*answer
	c *conn1
}

// upgrade asks for a WebSocket without ALPN, as gorilla, ws and Python do. early is sent
// right behind the handshake. The connection is the caller's only if the answer is 101.
func (p *patient) upgrade(c *conn1, origin string, early []byte) (*handshake, error) {
	var err error
	if c == nil {
		if c, err = p.open1(2); err != nil {
			return nil, err
		}
	}
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // which never fails
	key := base64.StdEncoding.EncodeToString(nonce)
	req := p.head(p.WebSocketPath, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: "+key, "Origin: "+origin)
	if _, err = c.Write(append(req, early...)); err == nil {
		var a *answer
		if a, err = c.read(); err == nil {
			if a.status != http.StatusSwitchingProtocols {
				shut(c)
				return &handshake{answer: a}, nil
			}
			sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
			if a.header.Get("Sec-WebSocket-Accept") == base64.StdEncoding.EncodeToString(sum[:]) {
				return &handshake{a, c}, nil
			}
			err = errors.New("Sec-WebSocket-Accept is not the one of the key")
		}
	}
	shut(c)
	return nil, err
}

// frame is one of a client's: masked, with a payload of less than 126 bytes.
func frame(op byte, payload string) []byte {
	mask := [4]byte{1, 2, 3, 4}
	b := append([]byte{0x80 | op, 0x80 | byte(len(payload))}, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

// readFrame reads one of a server's.
func readFrame(r io.Reader) (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := uint64(head[1] & 0x7f)
	switch size {
	case 126:
		var n [2]byte
		_, err = io.ReadFull(r, n[:])
		size = uint64(binary.BigEndian.Uint16(n[:]))
	case 127:
		var n [8]byte
		_, err = io.ReadFull(r, n[:])
		size = binary.BigEndian.Uint64(n[:])
	}
	switch {
	case err != nil:
		return 0, nil, err
	case head[1]&0x80 != 0:
		return 0, nil, errors.New("it masks its frames")
	case size > mostFrame:
		return 0, nil, fmt.Errorf("it sends a frame of %d bytes", size)
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(r, payload)
	return head[0] & 0xf, payload, err
}

// pong waits for the answer to a ping.
func (h *handshake) pong(payload string) error {
	for range mostFrames {
		op, got, err := readFrame(h.c.r)
		switch {
		case err != nil:
			return err
		case op == opPong && string(got) == payload:
			return nil
		case op == opClose && len(got) >= 2:
			return fmt.Errorf("it closes with %d %s", binary.BigEndian.Uint16(got), quoted(string(got[2:])))
		case op == opClose:
			return errors.New("it closes without a code")
		}
	}
	return errors.New("it sends a thousand frames, and no pong")
}

// part says goodbye.
func (h *handshake) part() {
	_, _ = h.c.Write(frame(opClose, "\x03\xe8")) // it may have left
	shut(h.c)
}

// noWS says why there is nothing to look at; nil if there is a WebSocket.
func (p *patient) noWS() *Check {
	var c Check
	switch {
	case p.wsErr != nil:
		c = skip("the upgrade fails")
	case p.ws.status != http.StatusSwitchingProtocols:
		c = skip("there is no WebSocket at %s (%d)", p.WebSocketPath, p.ws.status)
	default:
		return nil
	}
	return &c
}

func (p *patient) wsUpgrade() Check {
	switch {
	case p.wsErr != nil && p.h1Err != nil && !p.wsAsked:
		return skip("HTTP/1.1 does not work")
	case p.wsErr != nil:
		return fail("the upgrade at %s: %s", p.WebSocketPath, said(p.wsErr))
	case p.ws.status == http.StatusSwitchingProtocols:
		return ok("the upgrade at %s works without ALPN", p.WebSocketPath)
	case p.ws.status == http.StatusUnauthorized, p.ws.status == http.StatusForbidden, p.ws.status == http.StatusTooManyRequests:
		return skip("the upgrade at %s gets %d: it wants to know who calls", p.WebSocketPath, p.ws.status)
	case p.wsAsked:
		return fail("the upgrade at %s gets %d", p.WebSocketPath, p.ws.status)
	}
	return skip("there is no WebSocket at %s (%d); --ws-path says where one is", p.WebSocketPath, p.ws.status)
}

func (p *patient) wsPing() Check {
	if c := p.noWS(); c != nil {
		return *c
	}
	h, err := p.upgrade(nil, "https://"+p.authority, nil)
	if err != nil || h.c == nil {
		return fail("a second upgrade fails")
	}
	defer h.part()
	if _, err = h.c.Write(frame(opPing, "doctor")); err == nil {
		err = h.pong("doctor")
	}
	if err != nil {
		return fail("a ping gets no pong: %s", said(err))
	}
	return ok("a ping gets its pong")
}

func (p *patient) wsOrigin() Check {
	if c := p.noWS(); c != nil {
		return *c
	}
	h, err := p.upgrade(nil, "https://elsewhere.invalid", nil)
	switch {
	case err != nil:
		return ok("a page of another origin is refused: %s", said(err))
	case h.status != http.StatusSwitchingProtocols:
		return ok("a page of another origin is refused: %d", h.status)
	}
	h.part()
	return warn("a page of another origin may open a WebSocket")
}

// wsEarly sends frames in one piece with the handshake. A client is to wait (RFC 6455
// section 4.1), so that a server may refuse that; it must not lose them.
func (p *patient) wsEarly() Check {
	if c := p.noWS(); c != nil {
		return *c
	}
	h, err := p.upgrade(nil, "https://"+p.authority, bytes.Repeat(frame(opPing, "early"), 2))
	switch {
	case err != nil:
		return ok("frames in one piece with the handshake are refused, as they may be: %s", said(err))
	case h.c == nil:
		return ok("frames in one piece with the handshake are refused, as they may be: %d", h.status)
	}
	defer h.part()
	if _, err = h.c.Write(frame(opPing, "late")); err == nil {
		err = h.pong("early")
	}
	switch {
	case err == nil:
		return ok("frames in one piece with the handshake are read")
	case strings.HasPrefix(err.Error(), "it closes"), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return warn("frames in one piece with the handshake end the session: %s", said(err))
	}
	return fail("frames in one piece with the handshake are lost: %s", said(err))
}

func (p *patient) wsAfterREST() Check {
	if c := p.noWS(); c != nil {
		return *c
	}
	c, err := p.open1(2, "http/1.1")
	if err != nil {
		return fail("a connection: %s", said(err))
	}
	a, err := c.do(p.Path)
	if err != nil || a.close || !a.whole {
		shut(c)
		return skip("the connection is not kept after an ordinary request")
	}
	h, err := p.upgrade(c, "https://"+p.authority, nil)
	switch {
	case err != nil:
		return fail("an upgrade behind an ordinary request: %s", said(err))
	case h.c == nil:
		return fail("an upgrade behind an ordinary request gets %d, alone 101", h.status)
	}
	h.part()
	return ok("an upgrade behind an ordinary request, on one connection, works")
}
