package ws

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/protocols"
)

// MessageType tells text from binary.
type MessageType int

// The types of message (RFC 6455, 5.6).
const (
	Text   MessageType = websocket.TextMessage   // UTF-8, which Read has checked
	Binary MessageType = websocket.BinaryMessage // bytes
)

// Conn is one session. Read belongs to one goroutine, the handler's as a
// rule; all other methods may be called concurrently.
type Conn struct {
	g      *websocket.Conn
	stream *stream
	server *Server
	opts   *Options
	ctx    context.Context
	cancel context.CancelFunc
	call   *protocols.Call // nil outside of a port
	inband *inband         // nil unless the client has asked for it
	reader sync.WaitGroup  // CloseRead's goroutine
	heard  atomic.Bool     // something arrived since the last look
	moved  atomic.Int64    // when a message was read or written last, on the Server's clock
	asked  atomic.Int64    // when a ping was sent that no pong has answered, on that clock; 0 for none
	count  *counter

	mu      sync.Mutex    // guards the fields below
	request *http.Request // nil once reading has begun
	quiet   sync.Cond     // on mu: writing became false
	queue   []message
	first   [1]message // where queue begins
	queued  int        // bytes in queue
	writing bool       // somebody writes: a caller of Write, or the flusher
	closing bool       // a close frame is queued or was sent: nothing may follow
	broken  bool       // the connection is of no use any more
	unread  bool       // CloseRead: messages are not expected
	ended   bool       // reading has come to its end
	pinged  bool       // waiting for a sign of life
	ping    *time.Timer
	hardEnd *time.Timer // cuts the connection off when closing takes too long
	code    int         // the close code that ended the session, whoever sent it first
	sent    int64       // bytes of messages written
}

// Context is the handler's context: it carries the [protocols.Call] and ends
// when the session does or begins to.
func (c *Conn) Context() context.Context { return c.ctx }

// Request is the handshake: its query, headers, cookies and path values. Its
// body is empty and its context is the session's. Take it, or what you need of
// it, before the first Read or CloseRead: from then on Request is nil, because
// idle sessions would keep a kilobyte each for it.
func (c *Conn) Request() *http.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.request
}

// Subprotocol is the one that was agreed on, or "".
func (c *Conn) Subprotocol() string {
	if p := c.g.Subprotocol(); p != protocols.InBand {
		return p
	}
	return "" // it was agreed on with the port
}

// errCloseRead is a mistake in the handler.
var errCloseRead = errors.New("ws: Read after CloseRead")

// Read waits for the next message. The slice is the caller's. An error is
// final: a *[CloseError] when the session was closed, or else what broke the
// connection.
func (c *Conn) Read() (MessageType, []byte, error) {
	c.mu.Lock()
	unread := c.unread
	c.request = nil
	c.mu.Unlock()
	if unread {
		return 0, nil, errCloseRead
	}
	return c.read()
}

// read waits for the next message that is not for the port.
func (c *Conn) read() (MessageType, []byte, error) {
	for {
		typ, msg, err := c.readAny()
		switch {
		case err != nil || c.inband == nil || typ != Text || !bytes.HasPrefix(msg, inbandMark):
			if err == nil {
				c.count.in.add(int64(len(msg)))
			}
			return typ, msg, err
		case len(msg) > inbandMost:
			return 0, nil, c.refuse(CloseTooBig, inbandTooBig)
		}
		c.inband.take(msg)
	}
}

func (c *Conn) readAny() (MessageType, []byte, error) {
	typ, r, err := c.g.NextReader()
	if err != nil {
		return 0, nil, c.readEnded(err)
	}
	msg, err := readAll(r, c.opts.ReadLimit)
	if err != nil {
		return 0, nil, c.readEnded(err)
	}
	c.moved.Store(c.server.now())
	if typ == websocket.TextMessage && !utf8.Valid(msg) {
		return 0, nil, c.refuse(CloseInvalidData, "text is not UTF-8")
	}
	if span := c.span(); span != nil {
		span.Message(protocols.Message{FromClient: true, Text: typ == websocket.TextMessage, Bytes: int64(len(msg))})
	}
	return MessageType(typ), msg, nil
}

// span is what records the session; nil for nothing.
func (c *Conn) span() protocols.Span {
	if c.call == nil {
		return nil
	}
	return c.call.Span()
}

// readPool has buffers for messages while they arrive.
var readPool = sync.Pool{New: func() any { return new([4 << 10]byte) }}

// readAll reads a message of at most limit bytes into a slice of its size.
// The limit counts what comes out of the inflater; gorilla's own counts what
// goes in, so that 254 kB can become 256 MB.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	first, _ := readPool.Get().(*[4 << 10]byte)
	defer readPool.Put(first)
	b := first[:]
	for n := 0; ; {
		if n == len(b) {
			b = append(b, make([]byte, min(len(b), int(limit)+1-len(b)))...)
		}
		k, err := r.Read(b[n:])
		if n += k; int64(n) > limit {
			return nil, websocket.ErrReadLimit
		}
		if err == io.EOF {
			return append([]byte(nil), b[:n]...), nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// readEnded takes note of how reading ended and gives the error to report.
func (c *Conn) readEnded(err error) error {
	var ce *websocket.CloseError
	var corrupt flate.CorruptInputError
	switch {
	case errors.As(err, &ce): // 1006 if the connection broke
		c.mu.Lock()
		c.ended = true
		if !c.closing { // the peer was first, and gorilla has answered
			c.closing, c.code = true, ce.Code
		}
		c.mu.Unlock()
		c.cancel()
		return &CloseError{Code: ce.Code, Reason: ce.Text}
	case errors.Is(err, websocket.ErrReadLimit):
		return c.refuse(CloseTooBig, "message too big")
	case errors.As(err, &corrupt):
		return c.refuse(CloseInvalidData, "message cannot be inflated")
	case isProtocolError(err):
		return c.refuse(CloseProtocol, err.Error())
	}
	c.mu.Lock()
	c.ended = true
	c.broken = c.broken || !c.closing
	c.mu.Unlock()
	c.cancel()
	return err
}

// refuse closes because of what the peer sent. Where gorilla has sent a close
// frame already, ours is not sent again.
func (c *Conn) refuse(code int, reason string) error {
	c.Close(code, reason)
	return &CloseError{Code: code, Reason: reason}
}

// isProtocolError reports whether gorilla says that the peer broke the
// protocol. It has no type for that, only its prefix, which its close error
// has as well; it will not read on.
func isProtocolError(err error) bool {
	var ce *websocket.CloseError
	return !errors.As(err, &ce) && strings.HasPrefix(err.Error(), "websocket: ")
}

// CloseRead is for handlers that expect no messages: pings, pongs and the
// peer's close are taken care of in the background, and a message ends the
// session with 1008. The handler goes on until its context ends.
func (c *Conn) CloseRead() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unread || c.closing {
		return
	}
	c.unread, c.request = true, nil
	c.reader.Go(func() {
		if _, _, err := c.read(); err == nil {
			c.Close(ClosePolicy, "no messages expected")
		}
		c.discard()
	})
}

// discardMost bounds what is read of a peer that was told to go away.
const discardMost = 1 << 20

// discard reads until the peer has closed, or the connection is cut off.
func (c *Conn) discard() {
	for !c.isEnded() {
		_, _, err := c.g.NextReader()
		if err == nil {
			continue
		}
		_ = c.readEnded(err) // noted; there is nobody left to tell
		if isProtocolError(err) {
			// gorilla is done. Input left unread would turn the close into a
			// reset, and the peer would never see the close frame.
			_, _ = io.CopyN(io.Discard, c.stream, discardMost)
			return
		}
	}
}

func (c *Conn) isEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// end closes what is still open once the handler has returned err.
func (c *Conn) end(err error) {
	code, reason := closeFor(err)
	c.Close(code, reason)
	c.mu.Lock()
	if c.ping != nil {
		c.ping.Stop()
	}
	unread := c.unread
	c.mu.Unlock()
	if !unread {
		// The server closes the TCP connection, but only when the peer has
		// seen the close frame (RFC 6455, 7.1.1); hardEnd bounds the wait.
		c.discard()
	}
	c.reader.Wait()
	c.mu.Lock()
	for c.writing {
		c.quiet.Wait()
	}
	if c.hardEnd != nil {
		c.hardEnd.Stop()
	}
	c.mu.Unlock()
	_ = c.g.Close() // all that was to be said has been said
	c.cancel()
}

// outcome is how the session ended and how many bytes of messages it was sent.
func (c *Conn) outcome() (code int, sent int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return CloseAbnormal, c.sent
	}
	return c.code, c.sent
}
