package h2

import (
	"encoding/binary"

	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

func (c *client) reset(h frame.Header, p []byte) error {
	switch {
	case h.Stream == 0:
		return frame.Err(frame.ProtocolError, "RST_STREAM on stream 0")
	case h.Length != 4:
		return frame.Err(frame.FrameSizeError, "RST_STREAM of a wrong length")
	case c.idle(h.Stream):
		return frame.Err(frame.ProtocolError, "RST_STREAM on an idle stream")
	}
	s := c.streams[h.Stream]
	if s == nil && c.closed.remove(h.Stream) {
		return nil // it was refused, and the client did not know yet
	}
	if err := c.annoy(s.price()); err != nil {
		return err
	}
	if s != nil {
		s.reset(frame.Code(binary.BigEndian.Uint32(p)), sideServer)
	}
	return nil
}

func (c *client) settings(h frame.Header, p []byte) error {
	switch {
	case h.Stream != 0:
		return frame.Err(frame.ProtocolError, "SETTINGS on a stream")
	case h.Flags.Has(frame.Ack):
		if h.Length != 0 {
			return frame.Err(frame.FrameSizeError, "SETTINGS ack with a payload")
		}
		c.acked = true
		return c.annoy(1)
	case h.Length%6 != 0:
		return frame.Err(frame.FrameSizeError, "SETTINGS of a wrong length")
	}
	if err := c.annoy(1 + h.Length/60); err != nil {
		return err
	}
	window := c.window
	for ; len(p) > 0; p = p[6:] {
		switch s := frame.ParseSetting(p); s.ID {
		case frame.HeaderTableSize:
			c.enc.SetTableSize(s.Value)
		case frame.EnablePush:
			if s.Value > 1 {
				return frame.Err(frame.ProtocolError, "ENABLE_PUSH is neither 0 nor 1")
			}
		case frame.InitialWindowSize:
			if s.Value > frame.MaxWindow {
				return frame.Err(frame.FlowControlError, "INITIAL_WINDOW_SIZE too large")
			}
			window = int64(s.Value)
		case frame.MaxHeaderListSize:
			c.most = int64(s.Value)
		case frame.MaxFrameSize: // ours stay as small as all peers take
			if s.Value < 1<<14 || s.Value > 1<<24-1 {
				return frame.Err(frame.ProtocolError, "MAX_FRAME_SIZE out of bounds")
			}
		}
	}
	c.out = frame.AppendSettingsAck(c.out)
	c.settled = true
	return c.resize(window)
}

// resize takes a new INITIAL_WINDOW_SIZE from the client, and hands it on.
func (c *client) resize(window int64) error {
	delta := window - c.window
	if delta == 0 {
		return nil
	}
	c.window = window
	for _, b := range c.backs {
		b.mirrorLocked()
	}
	for _, s := range c.streams {
		if !s.down.allow(delta) {
			return frame.Err(frame.FlowControlError, "INITIAL_WINDOW_SIZE overflows a window")
		}
	}
	return nil
}

func (c *client) ping(h frame.Header, p []byte) error {
	switch {
	case h.Stream != 0:
		return frame.Err(frame.ProtocolError, "PING on a stream")
	case h.Length != 8:
		return frame.Err(frame.FrameSizeError, "PING of a wrong length")
	}
	data := [8]byte(p)
	if h.Flags.Has(frame.Ack) {
		if data == keepalive {
			c.pinged = false
		}
		if data == drainPing && c.state == stateDrain {
			c.lastGoAway()
			return nil
		}
		return c.annoy(1)
	}
	// A client that measures the network sends one for what it gets.
	if c.pingsInRow++; c.pingsInRow > c.sw.limits.Nuisance {
		return frame.Err(frame.EnhanceYourCalm, "too many PINGs")
	}
	// A server with a policy of its own on PINGs, as grpc-go has, gets to see
	// those that are meant for it: only what it has sent itself counts there. It answers
	// nothing that the client waits for: one that is blocked would make the client take
	// the connection for dead, with the streams of others.
	here := c.pingHere
	c.pingHere = false
	if b := c.pingBack(); b != nil && !here && b.pings < mostPings {
		b.pings, b.pinged = b.pings+1, true
		b.out = frame.AppendPing(b.out, false, data)
	}
	c.out = frame.AppendPing(c.out, true, data)
	return nil
}

// sent takes note that the client gets something that no server with a policy on PINGs has
// just sent. A client that measures the network sends a PING for it.
func (c *client) sent() { c.pingsInRow, c.pingHere = 0, true }

// pingBack returns the connection to the server that the client's PINGs are
// for: the one that has sent something last, even if it takes no more streams. It is
// none that has no streams while others have: it may forbid PINGs to clients without.
func (c *client) pingBack() *back {
	if b := c.pingTo; b != nil && !b.dead && b.minds() {
		return b
	}
	for _, b := range c.backs {
		if b.server.pings && b.usable() && b.minds() {
			return b
		}
	}
	return nil
}

func (b *back) minds() bool { return b.count > 0 || len(b.c.streams) == 0 }

// mostPings bounds the client's PINGs that a server has not answered; it does not
// get to see more.
const mostPings = 16

var (
	keepalive = [8]byte{'o', 'n', 'e', 'p', 'o', 'r', 't', 'k'}
	drainPing = [8]byte{'o', 'n', 'e', 'p', 'o', 'r', 't', 'd'}
)

func (c *client) windowUpdate(h frame.Header, p []byte) error {
	if h.Length != 4 {
		return frame.Err(frame.FrameSizeError, "WINDOW_UPDATE of a wrong length")
	}
	n := int64(binary.BigEndian.Uint32(p) & frame.MaxStream)
	if h.Stream == 0 {
		if n == 0 {
			return frame.Err(frame.ProtocolError, "WINDOW_UPDATE of 0")
		}
		if !c.allow(n) {
			return frame.Err(frame.FlowControlError, "the connection's window overflows")
		}
	} else {
		s := c.streams[h.Stream]
		if s == nil {
			if c.idle(h.Stream) {
				return frame.Err(frame.ProtocolError, "WINDOW_UPDATE on an idle stream")
			}
			return c.annoy(1)
		}
		if n == 0 {
			return c.streamError(h.Stream, frame.ProtocolError)
		}
		if !s.down.allow(n) {
			return c.streamError(h.Stream, frame.FlowControlError)
		}
	}
	if n < tinyUpdate {
		return c.annoy(1)
	}
	return nil
}
