package ws

import (
	"cmp"
	"time"

	"github.com/oneport-edge/oneport/protocols/ws/frame"
)

// Mode is how much a tunnel looks at.
type Mode uint8

const (
	// Aware sees frames: it holds Relay's bounds, refuses what breaks RFC 6455 and
	// finds peers that are gone. What it lets pass, it passes unchanged.
	Aware Mode = iota
	// Raw moves bytes, and looks for nothing but where the upstream's frames end, so
	// that a drain can close there.
	Raw
)

// Relay is how a tunnel treats what goes through it. The zero value is fit for the
// Internet. With Raw all but Mode is without meaning.
type Relay struct {
	Mode Mode
	// MessageBytes bounds a message in either direction, over all its frames, and
	// also after inflating. Zero means 64 KiB; more is closed with 1009.
	MessageBytes int64
	// MessageRate bounds how many messages a client may send in a second, control
	// frames and empty fragments among them; more is closed with 1013. Zero means no bound.
	MessageRate float64
	// MessageBurst is how many may come at once. Zero means those of one second.
	MessageBurst int
	// ByteRate bounds how many bytes a client may send in a second, heads of frames
	// included; more is closed with 1013. Zero means no bound.
	ByteRate float64
	// ByteBurst is how many may come at once. Zero means those of one second, and no
	// fewer than the largest message has.
	ByteBurst int
	// PingEvery is how long a peer, on either side, may be silent before it is
	// pinged. Zero means 25 s; negative never pings.
	PingEvery time.Duration
	// PongWait is how long it then has to send anything. Zero means 10 s.
	PongWait time.Duration
	// Compression lets permessage-deflate (RFC 7692) be negotiated. A message that
	// is compressed is held until it is whole and was inflated, which costs CPU, and up
	// to 32 KiB for each direction that refers back to earlier messages. Without it
	// the upstream is not told of what the client offers.
	Compression bool
}

func (o Relay) withDefaults() Relay {
	o.MessageBytes = cmp.Or(o.MessageBytes, 64<<10)
	o.MessageBurst = cmp.Or(o.MessageBurst, max(1, int(o.MessageRate)))
	o.ByteBurst = cmp.Or(o.ByteBurst, int(max(o.ByteRate, float64(o.MessageBytes+frame.MaxHeader))))
	o.PingEvery = cmp.Or(o.PingEvery, 25*time.Second)
	o.PongWait = cmp.Or(o.PongWait, 10*time.Second)
	return o
}

// bucket lets so many things happen. The zero value lets all.
type bucket struct {
	perSecond, most float64
	has             float64
	at              int64 // nanoseconds, when has was right
}

func newBucket(perSecond float64, burst int) bucket {
	return bucket{perSecond: perSecond, most: float64(burst), has: float64(burst)}
}

// take reports whether n more may happen now.
func (b *bucket) take(n float64, now int64) bool {
	if b.perSecond == 0 {
		return true
	}
	b.has = min(b.most, b.has+float64(now-b.at)*b.perSecond/1e9)
	if b.at = now; b.has < n {
		return false
	}
	b.has -= n
	return true
}
