package h2

import (
	"cmp"
	"time"
)

// Limits bound what a client may cost. Every zero value is a default fit for
// the Internet.
type Limits struct {
	// Streams bounds the concurrent streams of a connection. Zero means 100;
	// more are refused with REFUSED_STREAM.
	Streams int
	// Window is the flow-control window of a stream, each way. Zero means 256 KiB.
	Window int
	// ConnWindow is the window of a connection, each way: what the switch
	// holds for a client at most. Zero means 1 MiB.
	ConnWindow int
	// HeaderBytes bounds a header list, as RFC 9113, 6.5.2 counts. Zero means
	// 16 KiB; more is answered 431.
	HeaderBytes int
	// HeaderFields bounds the number of fields. Zero means 100; more is answered 431.
	HeaderFields int
	// Continuations bounds the CONTINUATION frames of a block. Zero means 16.
	Continuations int
	// HeaderTimeout bounds the time to the preface and SETTINGS, and to the
	// end of a header block. Zero means 10 s.
	HeaderTimeout time.Duration
	// Idle closes a connection without streams. Zero means 120 s.
	Idle time.Duration
	// BackIdle closes a connection to a server in this process without streams,
	// one or two looks later when there are very many. Zero means 10 s.
	BackIdle time.Duration
	// Write is how long a client may take nothing of what is written to it.
	// Zero means 60 s, a negative value no limit.
	Write time.Duration
	// BodyIdle is how long the body of an HTTP request that goes upstream may
	// stand still, and Answer how long its server may take to begin its answer
	// after that. Zero means 30 s and 60 s: 408, and 504. gRPC calls may rest.
	BodyIdle, Answer time.Duration
	// BodyRate is how many bytes a second of such a body must come on the average of
	// each BodyIdle that is spent waiting for the client. Zero means 240, a negative
	// value any rate.
	BodyRate int
	// PingAfter is how long a client with streams may be silent before it is
	// asked for a sign of life, and PingTimeout how long it has to give one.
	// Zero means 30 s and 15 s.
	PingAfter, PingTimeout time.Duration
	// Memory is how many bytes all clients together may make the switch hold, of
	// bodies that wait for credit, and of answers that wait to be written. Zero
	// means 256 MiB. Above it those who hold most are cut off, and no stream upstream
	// is begun.
	Memory int64
	// Nuisance is how many frames that bring nothing forward a client may send
	// in a row: resets, PINGs, SETTINGS, empty DATA, tiny window updates. The
	// reset of a stream whose answer has not begun counts twice. A
	// tenth of it is forgiven each second, and all of it bit by bit for
	// answers. Zero means 1,000; more ends the connection with ENHANCE_YOUR_CALM.
	Nuisance int
	// Pace is how long a client's reader waits for each stream of a burst beyond
	// what the client has been seen to need (16, and one for each answer), and twice for
	// each frame that brings nothing forward once there have been a twentieth of Nuisance:
	// what comes all at once would hold up the others. Zero means 100 us, a
	// negative value not at all.
	Pace time.Duration
}

// DefaultLimits are those of zero Limits.
func DefaultLimits() Limits { return Limits{}.withDefaults() }

func (l Limits) withDefaults() Limits {
	l.Streams = cmp.Or(l.Streams, 100)
	l.Window = cmp.Or(l.Window, 256<<10)
	l.ConnWindow = cmp.Or(l.ConnWindow, 1<<20)
	l.HeaderBytes = cmp.Or(l.HeaderBytes, 16<<10)
	l.HeaderFields = cmp.Or(l.HeaderFields, 100)
	l.Continuations = cmp.Or(l.Continuations, 16)
	l.HeaderTimeout = cmp.Or(l.HeaderTimeout, 10*time.Second)
	l.Idle = cmp.Or(l.Idle, 120*time.Second)
	l.BackIdle = cmp.Or(l.BackIdle, 10*time.Second)
	l.Write = cmp.Or(l.Write, 60*time.Second)
	l.BodyIdle = cmp.Or(l.BodyIdle, 30*time.Second)
	l.BodyRate = cmp.Or(l.BodyRate, 240)
	l.Answer = cmp.Or(l.Answer, 60*time.Second)
	l.PingAfter = cmp.Or(l.PingAfter, 30*time.Second)
	l.PingTimeout = cmp.Or(l.PingTimeout, 15*time.Second)
	l.Memory = cmp.Or(l.Memory, 256<<20)
	l.Nuisance = cmp.Or(l.Nuisance, 1000)
	l.Pace = cmp.Or(l.Pace, 100*time.Microsecond)
	return l
}

// tick is how often timeouts are looked at: an eighth of the shortest, and at
// most a second.
func (l *Limits) tick() time.Duration {
	shortest := min(l.HeaderTimeout, l.Idle, l.BackIdle, l.PingAfter, l.PingTimeout, l.BodyIdle, l.Answer, 8*time.Second)
	if l.Write > 0 {
		shortest = min(shortest, l.Write)
	}
	return max(shortest/8, time.Millisecond)
}

const (
	// highWater is how much may wait to be written to a client before servers
	// have to wait.
	highWater = 256 << 10
	// outMost is how much may wait beyond what the windows toward the servers
	// allow. Only frames without flow control get there, from a client that asks
	// for them and does not read.
	outMost = 1 << 20
	// backMost is the same toward a server, beyond what flow control allows:
	// one that does not read is of no use.
	backMost = 1 << 20
	// mostDeciding is how many streams of all clients may wait for guards: gRPC calls and
	// others for themselves, so that a flood of the ones in a limit's queue does not refuse the others.
	mostDeciding = 10_000
	// mostCancels is how many answers from upstream a client may have cancelled
	// of late, before it gets connections that it shares with its like. Fewer than what makes an
	// upstream that is a switch of this kind take a connection slowly (Limits.Pace).
	mostCancels = 16
	// mostIdleBacks is how many connections to servers in this process may be
	// open before idle ones are closed early: each holds some 50 KiB.
	mostIdleBacks = 512
	// mostHaste is how much of what Limits.Pace is for is taken before the wait: with
	// 8, waking up so often cost the others more than it spared them (2026-11-26).
	mostHaste = 32
	// firstRamp is how many streams a new connection may have before more are
	// paced. Each answer allows one more.
	firstRamp = 16
	// tinyUpdate is a WINDOW_UPDATE that costs more than it brings.
	tinyUpdate = 64
)
