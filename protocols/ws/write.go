package ws

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/protocols"
)

// ErrClosed is returned by Write and Send when the session has ended, or its
// close has begun.
var ErrClosed = errors.New("ws: session is closed")

// ErrSlowConsumer is returned by Send and Write when the peer's queue was
// full: the session is being closed with 1013.
var ErrSlowConsumer = errors.New("ws: the peer does not keep up")

// message waits to be written.
type message struct {
	typ  int // a gorilla message type; CloseMessage comes last
	data []byte
	done chan<- error // where Write waits; nil for Send
}

// Write sends a message and waits until the kernel has taken it, at most
// WriteTimeout. Concurrent calls are written in the order they came.
func (c *Conn) Write(typ MessageType, p []byte) error {
	m := message{typ: int(typ), data: p}
	c.mu.Lock()
	if c.closing || c.broken {
		c.mu.Unlock()
		return ErrClosed
	}
	if !c.writing {
		// The common case: nobody else writes, so the caller does.
		c.writing = true
		c.mu.Unlock()
		err := c.putAll([]message{m})
		c.mu.Lock()
		c.wroteLocked()
		c.mu.Unlock()
		return err
	}
	done := make(chan error, 1)
	m.done = done
	err := c.enqueueLocked(m)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return <-done // the writer answers every queued message, one way or the other
}

// Send sends a message and never waits: what the socket does not take at once is written by
// another goroutine. The caller must not change p afterwards; one slice may be sent to many. A
// peer whose queue is full is closed with 1013, and ErrSlowConsumer is returned.
func (c *Conn) Send(typ MessageType, p []byte) error {
	return c.SendAll(typ, p)
}

// SendAll is Send for several messages, in order: they leave together, as far as the
// queue has room for them. It does not keep ps itself.
func (c *Conn) SendAll(typ MessageType, ps ...[]byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.broken {
		return ErrClosed
	}
	for _, p := range ps {
		if err := c.enqueueLocked(message{typ: int(typ), data: p}); err != nil {
			return err
		}
	}
	if len(ps) > 0 {
		c.startLocked()
	}
	return nil
}

// appendFrame appends a whole message in one frame (RFC 6455, 5.2), of a server, which does not mask.
func appendFrame(b []byte, typ int, p []byte) []byte {
	b = append(b, 0x80|byte(typ))
	switch n := len(p); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, p...)
}

// CloseSlow closes a peer that does not keep up with its messages, as Send does when its
// queue is full: for a hub that has a queue of its own before this one.
func (c *Conn) CloseSlow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing && !c.broken {
		c.slowLocked()
	}
}

// Close ends the session with a close frame, behind everything queued. It does
// not wait; the first close counts. A reason longer than 123 bytes is cut.
func (c *Conn) Close(code int, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked(code, reason, closeWait)
}

func (c *Conn) closeLocked(code int, reason string, wait time.Duration) {
	if c.closing || c.broken {
		return
	}
	c.closing, c.code = true, code
	c.queue = append(c.queue, message{typ: websocket.CloseMessage, data: closePayload(code, reason)})
	c.hardEnd = time.AfterFunc(wait, c.abort)
	c.startLocked()
	c.cancel()
}

// abort cuts the connection off.
func (c *Conn) abort() {
	c.mu.Lock()
	if !c.closing {
		c.broken = true
	}
	c.mu.Unlock()
	_ = c.g.Close() // everybody who reads or writes now gets an error
	c.cancel()
}

// slowWait is how long a peer that does not keep up has to take its close frame.
const slowWait = time.Second

// enqueueLocked adds a data message, within the bound.
func (c *Conn) enqueueLocked(m message) error {
	if c.queued+len(m.data) > c.opts.SendQueue {
		c.slowLocked()
		return ErrSlowConsumer
	}
	if c.queue == nil {
		c.queue = c.first[:0] // most often there is no second one
	}
	c.queue = append(c.queue, m)
	c.queued += len(m.data)
	return nil
}

func (c *Conn) slowLocked() {
	c.server.slow.Add(1)
	c.server.dropped.Add(int64(len(c.queue)))
	// What waits would come too late: the close frame is all that leaves.
	c.dropLocked(ErrSlowConsumer)
	c.closeLocked(CloseTryAgainLater, "slow consumer", slowWait)
}

// dropLocked empties the queue and tells those who wait for it.
func (c *Conn) dropLocked(err error) {
	for _, m := range c.queue {
		if m.done != nil {
			m.done <- err
		}
	}
	c.queue, c.queued = nil, 0
}

// startLocked has somebody write the queue if nobody writes.
func (c *Conn) startLocked() {
	switch {
	case c.writing:
		return
	case c.quickLocked():
		c.writing = true
		c.server.pool.add(c)
	default:
		c.writing = true
		go c.flush() // ends when the queue is empty; end waits for that
	}
}

// wroteLocked ends the caller's turn as the writer.
func (c *Conn) wroteLocked() {
	if len(c.queue) > 0 {
		go c.flush() // takes over; writing stays true
		return
	}
	c.writing = false
	c.quiet.Signal()
}

// flush writes the queue until it is empty, and waits for the peer. What has come meanwhile
// leaves together, up to gather bytes in one system call and, with TLS, in one record.
func (c *Conn) flush() {
	err := c.stream.settle() // what a caller of Send has left
	if err != nil {
		c.abort()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.dropLocked(err)
	}
	var batch []message
	for len(c.queue) > 0 {
		batch = c.takeLocked(batch[:0])
		c.mu.Unlock()
		err := c.putAll(batch)
		for _, m := range batch {
			if m.done != nil {
				m.done <- err
			}
		}
		clear(batch)
		c.mu.Lock()
		if err != nil {
			c.dropLocked(err)
		}
	}
	c.queue = nil // an idle session keeps no queue
	c.writing = false
	c.quiet.Signal()
}

// gather bounds what one system call takes: a TLS record has 16 KiB.
const gather = 16 << 10

// takeLocked moves what comes next from the queue to batch: at least one message, and a
// close frame alone.
func (c *Conn) takeLocked(batch []message) []message {
	size := 0
	for len(c.queue) > 0 {
		m := c.queue[0]
		size += len(m.data) + mostHeader
		if len(batch) > 0 && (size > gather || m.typ == websocket.CloseMessage) {
			break
		}
		c.queue[0] = message{}
		c.queue = c.queue[1:]
		c.queued -= dataLen(m)
		batch = append(batch, m)
	}
	return batch
}

// mostHeader is how long a frame's header may be that a server sends.
const mostHeader = 10

// putAll writes messages together, and waits for the socket. Only the writer calls it.
func (c *Conn) putAll(batch []message) error {
	one := &batch[0]
	switch {
	case one.typ == websocket.CloseMessage || len(batch) == 1 && len(one.data) > gather:
		return c.put(*one) // gorilla writes large ones without a copy, in two pieces
	case !c.stream.whole:
		return c.putHeld(batch)
	}
	_, err := c.putFrames(batch, true)
	return err
}

// putFrames writes messages of at most about gather bytes together. Without wait it may
// leave some to be flushed.
func (c *Conn) putFrames(batch []message, wait bool) (kept bool, err error) {
	b, _ := heldPool.Get().(*[]byte)
	size := 0
	for i := range batch {
		*b = appendFrame(*b, batch[i].typ, batch[i].data)
		size += len(batch[i].data)
	}
	kept, err = c.stream.put(*b, wait)
	giveBack(b)
	switch {
	case err == nil:
		for i := range batch {
			c.count.out.add(int64(len(batch[i].data)))
		}
		c.mu.Lock()
		c.sent += int64(size)
		c.mu.Unlock()
		for i := range batch {
			c.wrote(&batch[i])
		}
	case !errors.Is(err, ErrClosed): // gorilla answered the peer's close meanwhile
		c.abort()
	}
	return kept, err
}

// putHeld is putAll for messages that gorilla compresses.
func (c *Conn) putHeld(batch []message) error {
	if len(batch) == 1 && len(batch[0].data) <= writeBuffer-mostHeader {
		return c.put(batch[0])
	}
	c.stream.hold()
	for _, m := range batch {
		if err := c.put(m); err != nil {
			_ = c.stream.release() // nothing leaves any more
			return err
		}
	}
	if err := c.stream.release(); err != nil {
		c.abort()
		return err
	}
	return nil
}

func dataLen(m message) int {
	if m.typ == websocket.CloseMessage {
		return 0
	}
	return len(m.data)
}

// put writes one message. Only the writer calls it.
func (c *Conn) put(m message) error {
	deadline := time.Now().Add(c.opts.WriteTimeout)
	var err error
	if m.typ == websocket.CloseMessage {
		err = c.g.WriteControl(m.typ, m.data, deadline)
	} else {
		_ = c.g.SetWriteDeadline(deadline) // only stores it
		err = c.g.WriteMessage(m.typ, m.data)
	}
	if err == nil {
		c.moved.Store(c.server.now())
		if m.typ != websocket.CloseMessage {
			c.count.out.add(int64(len(m.data)))
		}
		c.mu.Lock()
		c.sent += int64(len(m.data))
		c.mu.Unlock()
		c.wrote(&m)
		return nil
	}
	if errors.Is(err, websocket.ErrCloseSent) {
		return ErrClosed // gorilla answered the peer's close meanwhile
	}
	c.abort()
	return err
}

// wrote has a message recorded, if the session is.
func (c *Conn) wrote(m *message) {
	if span := c.span(); span != nil && m.typ != websocket.CloseMessage {
		span.Message(protocols.Message{Text: m.typ == websocket.TextMessage, Bytes: int64(len(m.data))})
	}
}

// startPings begins to watch over the peer.
func (c *Conn) startPings() {
	if c.opts.PingEvery < 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing && !c.broken {
		c.g.SetPongHandler(c.ponged) // nobody reads yet
		c.ping = time.AfterFunc(c.opts.PingEvery, c.tick)
	}
}

// ponged runs with the reader, when a pong has come.
func (c *Conn) ponged(string) error {
	if at := c.asked.Swap(0); at != 0 {
		c.count.ponged(time.Duration(c.server.now() - at))
	}
	return nil
}

// tick runs on the ping timer, in two turns: ask a silent peer for a sign of
// life, then look whether one came. Anything that arrives is one.
func (c *Conn) tick() {
	heard := c.heard.Swap(false)
	c.mu.Lock()
	pinged := c.pinged
	c.pinged = !heard && !pinged
	ask, dead, done := c.pinged, pinged && !heard, c.closing || c.broken
	c.mu.Unlock()
	switch {
	case done:
		return
	case dead:
		c.abort()
		return
	case ask:
		c.asked.Store(max(1, c.server.now()))
		// An error means that the writer has found the connection broken, or
		// is stuck: then the peer is found dead next time.
		_ = c.g.WriteControl(websocket.PingMessage, nil, time.Now().Add(c.opts.PongWait))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.broken {
		return
	}
	if ask {
		c.ping.Reset(c.opts.PongWait)
	} else {
		c.ping.Reset(c.opts.PingEvery)
	}
}
