package flow

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

func TestGrant(t *testing.T) {
	tests := []struct {
		name                    string
		allowed, granted, depth int64
		do                      func(h *Half)
		credit, room, grant     int64
	}{
		{"at first the sender has what it was given", 100, 60, 80, func(*Half) {}, 60, 100, 0},
		{"a sender with more than half gets nothing", 100, 60, 80, func(h *Half) { h.Receive(29, 0); h.Send(29) }, 31, 71, 0},
		{"with half it is topped up to what the receiver allows", 100, 60, 80, func(h *Half) { h.Receive(30, 0); h.Send(30) }, 30, 70, 40},
		{"or to depth beyond what was sent on", 1000, 60, 80, func(h *Half) { h.Receive(30, 0); h.Send(30) }, 30, 970, 50},
		{"what waits takes from it", 1000, 60, 80, func(h *Half) { h.Receive(60, 0); h.Send(10) }, 0, 990, 30},
		{"nothing while depth waits", 1000, 80, 80, func(h *Half) { h.Receive(80, 0) }, 0, 1000, 0},
		{"padding is given back by itself", 60, 60, 60, func(h *Half) { h.Receive(0, 40) }, 20, 60, 40},
		{"padding, and what the receiver has not taken yet", 60, 60, 60, func(h *Half) { h.Receive(20, 40) }, 0, 60, 40},
		{"SETTINGS of the sender give it credit", 100, 0, 100, func(h *Half) { h.Shift(50) }, 50, 100, 0},
		{"and take it", 100, 50, 100, func(h *Half) { h.Shift(-70) }, -20, 100, 120},
		{"SETTINGS of the receiver take credit: the sender keeps what it has", 100, 100, 100, func(h *Half) { h.Allow(-60) }, 100, 40, 0},
		{"and its room may be less than none", 100, 100, 100, func(h *Half) { h.Receive(80, 0); h.Send(80); h.Allow(-60) }, 20, -40, 0},
		{"a window of nothing", 0, 0, 100, func(*Half) {}, 0, 0, 0},
		{"a window of nothing, opened", 0, 0, 100, func(h *Half) { h.Allow(1) }, 0, 1, 1},
		{"a receiver without limit", Unlimited, 10, 10, func(h *Half) { h.Receive(10, 0); h.Send(10) }, 0, Unlimited - 10, 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := New(tt.allowed, tt.granted, tt.depth)
			tt.do(&h)
			if got := h.Credit(); got != tt.credit {
				t.Errorf("credit is %d, want %d", got, tt.credit)
			}
			if got := h.Room(); got != tt.room {
				t.Errorf("room is %d, want %d", got, tt.room)
			}
			if got := h.Grant(); got != tt.grant {
				t.Errorf("granted %d, want %d", got, tt.grant)
			}
			if got := h.Credit(); got != tt.credit+tt.grant {
				t.Errorf("credit is %d behind the grant, want %d", got, tt.credit+tt.grant)
			}
			if got := h.Grant(); got != 0 {
				t.Errorf("granted %d more at once", got)
			}
		})
	}
}

func TestReceiveBeyondCredit(t *testing.T) {
	for _, tt := range []struct {
		n, padding int
		want       bool
	}{{10, 0, true}, {11, 0, false}, {0, 10, true}, {5, 5, true}, {5, 6, false}} {
		h := New(100, 10, 100)
		if got := h.Receive(tt.n, tt.padding); got != tt.want {
			t.Errorf("%d bytes and %d of padding: %v, want %v", tt.n, tt.padding, got, tt.want)
		}
		if h.Received() != int64(tt.n) || h.Queued() != int64(tt.n) {
			t.Errorf("received %d, queued %d, want %d: padding is not sent on", h.Received(), h.Queued(), tt.n)
		}
	}
}

// A receiver's window must not get larger than 2^31-1 (RFC 9113, 6.9.1).
func TestAllowBeyondTheLargestWindow(t *testing.T) {
	h := New(frame.DefaultWindow, 100, 100)
	if !h.Allow(frame.MaxWindow - frame.DefaultWindow) {
		t.Error("a window of 2^31-1 is refused")
	}
	if h.Allow(1) {
		t.Error("a window of 2^31 is taken")
	}
	h = New(frame.MaxWindow, 100, 100)
	h.Receive(10, 0)
	h.Send(10)
	if !h.Allow(10) || h.Sent() != 10 {
		t.Error("what was sent makes no room for credit")
	}
}

// machine drives a Half as a switch does, beside a plain model of both peers.
type machine struct {
	h     Half
	depth int64

	senders   int64 // the sender's window, as the sender has it
	receivers int64 // the receiver's window, as the receiver has it
	waiting   int64 // bytes between the two
	allowed   int64 // all the receiver ever gave
	sent      int64
	padding   int64
	given     int64 // all the sender was ever given
	shifts    int64 // the sum of the sender's SETTINGS
	low       int64 // the smallest that sum has been
	rise      int64 // the most by which it has risen above that
}

func newMachine(t *rapid.T) *machine {
	size := rapid.OneOf(rapid.Int64Range(0, 8), rapid.Int64Range(0, 1<<16), rapid.Int64Range(0, 1<<20))
	m := &machine{depth: max(1, size.Draw(t, "depth")), allowed: size.Draw(t, "allowed")}
	granted := min(m.allowed, m.depth, size.Draw(t, "granted"))
	m.h = New(m.allowed, granted, m.depth)
	m.senders, m.given, m.receivers = granted, granted, m.allowed
	return m
}

func (m *machine) Send(t *rapid.T) {
	n := rapid.Int64Range(0, max(0, m.senders)).Draw(t, "bytes")
	padding := rapid.Int64Range(0, min(256, max(0, m.senders-n))).Draw(t, "padding")
	m.senders -= n + padding
	m.waiting += n
	m.padding += padding
	if !m.h.Receive(int(n), int(padding)) {
		if m.senders >= 0 {
			t.Fatal("the sender had credit, and is accused")
		}
	}
	m.grant(t)
}

func (m *machine) Forward(t *rapid.T) {
	room := min(m.waiting, max(0, m.h.Room()))
	n := rapid.Int64Range(0, room).Draw(t, "bytes")
	m.forward(t, n)
}

func (m *machine) forward(t *rapid.T, n int64) {
	m.h.Send(int(n))
	m.waiting -= n
	m.receivers -= n
	m.sent += n
	if n > 0 && m.receivers < 0 {
		t.Fatalf("the receiver got %d bytes more than its window", -m.receivers)
	}
	m.grant(t)
}

func (m *machine) Allow(t *rapid.T) {
	n := rapid.OneOf(rapid.Int64Range(0, 16), rapid.Int64Range(0, 1<<20)).Draw(t, "credit")
	m.allow(t, n)
}

func (m *machine) allow(t *rapid.T, n int64) {
	m.receivers += n
	m.allowed += n
	if ok := m.h.Allow(n); ok != (m.receivers <= frame.MaxWindow) {
		t.Fatalf("a window of %d: %v", m.receivers, ok)
	}
	m.grant(t)
}

// Resize is a SETTINGS frame of the receiver, of which the sender is told in
// another one, for as much as its windows may be.
func (m *machine) Resize(t *rapid.T) {
	delta := rapid.Int64Range(-1<<17, 1<<17).Draw(t, "delta")
	told := rapid.Int64Range(min(0, delta), max(0, delta)).Draw(t, "told")
	m.h.Shift(told)
	m.senders += told
	m.given += told
	m.shifts += told
	m.low = min(m.low, m.shifts)
	m.rise = max(m.rise, m.shifts-m.low)
	m.allow(t, delta)
}

func (m *machine) grant(t *rapid.T) {
	before := m.h.Credit()
	n := m.h.Grant()
	switch {
	case n < 0:
		t.Fatalf("granted %d", n)
	case n > 0:
		if got, most := m.given+n, min(m.allowed, m.sent+m.depth)+m.padding; got > most {
			t.Fatalf("the sender was given %d in all: more than %d", got, most)
		}
	case before <= 0 && m.given < min(m.allowed, m.sent+m.depth)+m.padding:
		t.Fatalf("the sender has a credit of %d, and gets nothing", before)
	}
	m.senders += n
	m.given += n
}

func (m *machine) Check(t *rapid.T) {
	if got := m.h.Credit(); got != m.senders {
		t.Fatalf("credit is %d, the sender has %d", got, m.senders)
	}
	if got := m.h.Room(); got != m.receivers {
		t.Fatalf("room is %d, the receiver has %d", got, m.receivers)
	}
	if got := m.h.Queued(); got != m.waiting {
		t.Fatalf("queued is %d, %d wait", got, m.waiting)
	}
	// What a SETTINGS frame adds to the sender's window comes on top, whoever had
	// used up the rest.
	if most := m.depth + m.rise; m.waiting > most {
		t.Fatalf("%d wait, more than %d", m.waiting, most)
	}
}

// drain lets both peers go on until the sender has sent n bytes more.
func (m *machine) drain(t *rapid.T, n int64) {
	if m.receivers < m.waiting+n {
		m.allow(t, m.waiting+n-m.receivers)
	}
	for rounds := 0; n > 0 || m.waiting > 0; rounds++ {
		if rounds > 100_000 {
			t.Fatalf("%d bytes are stuck at a credit of %d, %d wait, room is %d", n, m.senders, m.waiting, m.receivers)
		}
		m.forward(t, min(m.waiting, m.receivers))
		step := min(n, max(0, m.senders))
		if step == 0 && m.waiting == 0 && n > 0 {
			t.Fatalf("stalled: everything was sent on, the receiver takes %d, and the sender has a credit of %d", m.receivers, m.senders)
		}
		m.senders -= step
		m.waiting += step
		m.h.Receive(int(step), 0)
		m.grant(t)
		n -= step
	}
}

// Any interleaving of data, padding, credit and SETTINGS keeps the account, is
// bounded, and never stalls.
func TestCreditIsConserved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		t.Repeat(map[string]func(*rapid.T){"send": m.Send, "forward": m.Forward, "allow": m.Allow, "resize": m.Resize, "": m.Check})
		m.drain(t, rapid.Int64Range(1, 1000).Draw(t, "rest"))
		m.Check(t)
	})
}

// Without SETTINGS the bound is a simple one.
func TestQueueIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		first := m.given
		t.Repeat(map[string]func(*rapid.T){"send": m.Send, "forward": m.Forward, "allow": m.Allow, "": func(t *rapid.T) {
			m.Check(t)
			if got, most := m.given, max(first, min(m.allowed, m.sent+m.depth)+m.padding); got > most {
				t.Fatalf("the sender was given %d, more than %d", got, most)
			}
			if most := max(first, m.depth); m.waiting > most {
				t.Fatalf("%d wait, more than %d", m.waiting, most)
			}
		}})
	})
}

// A connection's window is given back as data leaves: Unlimited, and release.
func TestConnectionWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		window := rapid.Int64Range(1, 1<<20).Draw(t, "window")
		h := New(Unlimited, window, window)
		senders, waiting := window, int64(0)
		t.Repeat(map[string]func(*rapid.T){
			"receive": func(t *rapid.T) {
				n := rapid.Int64Range(0, senders).Draw(t, "bytes")
				padding := rapid.Int64Range(0, min(256, senders-n)).Draw(t, "padding")
				if !h.Receive(int(n), int(padding)) {
					t.Fatal("the sender had credit, and is accused")
				}
				senders -= n + padding
				waiting += n
				senders += h.Grant()
			},
			"release": func(t *rapid.T) {
				n := rapid.Int64Range(0, waiting).Draw(t, "bytes")
				waiting -= n
				h.Send(int(n))
				senders += h.Grant()
			},
			"": func(t *rapid.T) {
				if senders != h.Credit() || senders+waiting > window || waiting == 0 && senders == 0 {
					t.Fatalf("window %d: credit %d (the sender has %d), %d wait", window, h.Credit(), senders, waiting)
				}
			},
		})
	})
}
