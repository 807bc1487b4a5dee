package h2_test

import (
	"testing"
	"time"

	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// taken says how long it takes until all that was sent has been.
func (p *peer) taken() (d time.Duration) {
	const look = 10 * time.Millisecond
	before := len(p.of(frame.Ping, 0))
	p.send(frame.AppendPing(nil, false, pingData))
	for ; len(p.of(frame.Ping, 0)) == before; d += look {
		if d > time.Minute {
			p.t.Fatal("a PING is not answered")
		}
		time.Sleep(look)
	}
	return d
}

// streams asks for path on 60 streams at once.
func (p *peer) streams(first uint32, path string) {
	var all [][]byte
	for id := first; id < first+120; id += 2 {
		all = append(all, p.get(id, path))
	}
	p.send(all...)
}

// A client that begins with many streams gets them one after the other; once
// it has had that many answers, at once.
func TestManyStreamsAtOnce(t *testing.T) {
	limits := h2.Limits{Pace: 100 * time.Millisecond}
	inBubble(t, options{limits: limits}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.streams(1, "/wait")
		if took := c.taken(); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("60 streams at once were taken in %v, want 100 ms for each of 32, and the rest at once", took)
		}
	})
	inBubble(t, options{limits: limits}, func(t *testing.T, e *edge) {
		c := e.dial()
		for first := uint32(1); first < 1001; first += 200 {
			c.streams(first, "/hello")
			c.taken()
		}
		c.streams(1001, "/wait")
		if took := c.taken(); took > 0 {
			t.Errorf("60 streams at once were taken in %v, of a client that has had as many answers", took)
		}
	})
}

// What brings nothing forward is taken slowly, once there is a twentieth of what
// ends the connection.
func TestNuisanceIsTakenSlowly(t *testing.T) {
	inBubble(t, options{limits: h2.Limits{Pace: time.Millisecond}}, func(t *testing.T, e *edge) {
		c := e.dial()
		begun := time.Now()
		for range 900 {
			c.send(frame.AppendSettings(nil))
		}
		took := time.Since(begun) + c.taken()
		if took < 1600*time.Millisecond || took > 2*time.Second {
			t.Errorf("900 SETTINGS were taken in %v, want two milliseconds for each of 850", took)
		}
		c.wantOpen()
	})
}
