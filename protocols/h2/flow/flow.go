package flow

import "github.com/oneport-edge/oneport/protocols/h2/frame"

// Half is one direction: of a stream, or of a connection. All four totals only
// ever grow, but for the credit that a SETTINGS frame takes back.
//
// What is between the two sides, Queued, is bounded: a sender never has credit
// for more than the receiver's, and never for more than depth bytes beyond what
// has been sent on. Padding takes credit and is never sent on: it is given
// back by itself.
type Half struct {
	allowed  int64 // credit the receiver has ever given
	sent     int64 // bytes sent on to it
	received int64 // bytes taken from the sender, without padding
	padding  int64 // padding taken from the sender
	granted  int64 // credit the sender has ever been given
	depth    int64 // how far the sender may be ahead of the receiver
	low      int64 // credit of the sender that is few enough to be given more
}

// New returns a Half: the receiver has given allowed, the sender has been given granted.
func New(allowed, granted, depth int64) Half {
	return Half{allowed: allowed, granted: granted, depth: depth, low: min(granted, depth) / 2}
}

// Unlimited is as much credit as nobody ever uses.
const Unlimited = 1 << 62

// Allow takes note of credit that the receiver gives, or by SETTINGS takes
// back. It reports false if its window gets larger than may be.
func (h *Half) Allow(n int64) bool {
	h.allowed += n
	return h.allowed-h.sent <= frame.MaxWindow
}

// Receive takes note of bytes from the sender. It reports false if it had no
// credit for them.
func (h *Half) Receive(n, padding int) bool {
	h.received += int64(n)
	h.padding += int64(padding)
	return h.received+h.padding <= h.granted
}

// Send takes note of bytes sent on to the receiver.
func (h *Half) Send(n int) { h.sent += int64(n) }

// Room is how much the receiver takes now; less than zero after SETTINGS took credit back.
func (h *Half) Room() int64 { return h.allowed - h.sent }

// Credit is how much the sender may send now.
func (h *Half) Credit() int64 { return h.granted - h.received - h.padding }

// Overrun is how much the sender has sent without credit.
func (h *Half) Overrun() int64 { return -h.Credit() }

// Queued is how much was received and not sent on.
func (h *Half) Queued() int64 { return h.received - h.sent }

// Sent is how much was sent on.
func (h *Half) Sent() int64 { return h.sent }

// Received is how much came, without padding.
func (h *Half) Received() int64 { return h.received }

// Shift takes note of a change of the sender's window that it learns by other
// means: by a SETTINGS frame.
func (h *Half) Shift(n int64) { h.granted += n }

// Lent is how much is queued, or may come to be.
func (h *Half) Lent() int64 { return h.granted - h.sent - h.padding }

// Grant returns how much credit to give to the sender now, and takes note that
// it was. It is zero as long as the sender has enough.
func (h *Half) Grant() int64 { return h.GrantWithin(h.depth) }

// GrantWithin is Grant with a depth for this once.
func (h *Half) GrantWithin(depth int64) int64 {
	if h.Credit() > h.low {
		return 0
	}
	n := min(h.allowed, h.sent+depth) + h.padding - h.granted
	if n <= 0 {
		return 0
	}
	h.granted += n
	return n
}
