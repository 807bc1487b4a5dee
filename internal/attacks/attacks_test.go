//go:build attacks

package attacks

import (
	"testing"
	"time"
)

const (
	attackFor = 10 * time.Second
	// memoryBound is what all of one attack may cost the server.
	memoryBound = 64 << 20
	// worse is what an attack may make of a bystander's p99, unless it stays below
	// quick: clients, attackers and servers share two processors, whose calm p99
	// is 0.9 to 2 ms by the minute.
	worse = 2.0
	quick = 4 * time.Millisecond
)

func TestAttacks(t *testing.T) {
	h := newHouse(t)
	for _, p := range []*program{h.demo, h.proxy} {
		t.Run(p.name, func(t *testing.T) {
			by := h.bystander(t, p)
			by.measure(2 * time.Second) // warm
			for _, a := range attacks() {
				t.Run(a.name, func(t *testing.T) { h.run(t, p, by, a) })
			}
		})
	}
}

// run attacks p for ten seconds, between two looks at how a bystander fares without.
func (h *house) run(t *testing.T, p *program, by *bystander, a attack) {
	calm := by.measure(attackFor / 2)
	before, cpu := h.memory(t), h.cpu(t)
	stop := make(chan struct{})
	most := make(chan int64, 1)
	go func() {
		peak := before
		for {
			select {
			case <-stop:
				most <- peak
				return
			case <-time.After(100 * time.Millisecond):
				peak = max(peak, h.memory(t))
			}
		}
	}()
	ended := h.attackFromOutside(t, p, a)
	during := by.measure(attackFor - time.Second)
	ends := ended()
	close(stop)
	grown := <-most - before
	busy := h.cpu(t) - cpu
	without := p99(append(calm, by.measure(attackFor/2)...))
	with := p99(during)
	ratio := float64(with) / float64(without)
	t.Logf("p99 %v, %v without (%.2f); servers' CPU %v; memory +%d KiB; connections: %v", with, without, ratio, busy, grown>>10, ends)
	if ratio > worse && with > quick {
		t.Errorf("a bystander's p99 is %v, without the attack it was %v", with, without)
	}
	if grown > memoryBound {
		t.Errorf("%d KiB of memory", grown>>10)
	}
	checkEnds(t, a, ends)
}

// checkEnds looks whether the attacker's connections were ended as they should.
func checkEnds(t *testing.T, a attack, ends map[string]int) {
	t.Helper()
	for end := range ends {
		ok := end == stopped || end == cutOff && (a.deaf || a.codes == nil)
		for _, code := range a.codes {
			ok = ok || end == code.String()
		}
		if !ok {
			t.Errorf("connections ended with %q, want %v", end, a.codes)
		}
	}
	if len(a.codes) > 0 && len(ends) == 1 && ends[stopped] > 0 {
		t.Error("no connection was ended")
	}
}
