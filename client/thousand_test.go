package client

import (
	"math"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A thousand clients that a server throws off at once come back spread over the
// window, and spread wider while it is away.
func TestThousandReturnSpread(t *testing.T) {
	const clients = 1000
	for name, tc := range map[string]struct {
		base   time.Duration
		away   time.Duration // refuses for so long after it has thrown them off
		window time.Duration // in which they come
		slot   time.Duration
	}{
		"at once":           {time.Second, 0, time.Second, 100 * time.Millisecond},
		"a wide window":     {30 * time.Second, 0, 30 * time.Second, time.Second},
		"away for a minute": {time.Second, time.Minute, 0, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var up atomic.Int64
				gone := make(chan struct{})
				var back time.Time // when it answers again
				srv := newScript(t, upgraded(func(s *script, c *websocket.Conn) {
					if !back.IsZero() {
						stays(s, c)
						return
					}
					up.Add(1)
					<-gone
					_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1001, ""), time.Now().Add(time.Second))
					_, _, _ = c.ReadMessage()
				}))
				upgrade := srv.steps[0]
				var tries []time.Duration // guarded by srv.mu
				var off time.Time
				srv.steps[0] = func(s *script, w http.ResponseWriter, r *http.Request) {
					if !off.IsZero() {
						s.mu.Lock()
						tries = append(tries, time.Since(off))
						s.mu.Unlock()
						if time.Now().Before(back) {
							answers(503)(s, w, r)
							return
						}
					}
					upgrade(s, w, r)
				}
				c := srv.client(Options{})
				c.jitter = fullJitter
				sockets := make([]*Socket, clients)
				ended := make([]chan error, clients)
				for i := range sockets {
					sockets[i] = c.WebSocket("/ws", SocketOptions{Ping: -1, Backoff: Backoff{Base: tc.base, Max: max(tc.base, 30*time.Second), Tries: -1}})
					_, ended[i] = running(t, sockets[i])
				}
				time.Sleep(time.Minute)
				if up.Load() != clients {
					t.Fatalf("%d are connected", up.Load())
				}
				off = time.Now()
				back = off.Add(tc.away)
				close(gone)
				time.Sleep(5 * time.Minute)
				for i, s := range sockets {
					if s.State() != Connected {
						t.Fatalf("%d is %v", i, s.State())
					}
					s.Close()
					<-ended[i]
				}
				looksSpread(t, tries, tc.window, tc.slot, tc.away)
			})
		})
	}
}

func looksSpread(t *testing.T, tries []time.Duration, window, slot, away time.Duration) {
	t.Helper()
	slices.Sort(tries)
	slots := map[int]int{}
	for _, at := range tries {
		slots[int(at/slot)]++
	}
	if away == 0 { // all came once, within the window
		if len(tries) != 1000 || tries[len(tries)-1] > window {
			t.Fatalf("%d tries, the last after %v", len(tries), tries[len(tries)-1])
		}
		n := int(window / slot)
		fair := 1000 / float64(n)
		// Six standard deviations: once in some 10^8 slots.
		few, many := fair-6*math.Sqrt(fair), fair+6*math.Sqrt(fair)
		for i := range n {
			if got := float64(slots[i]); got > many || got < few {
				t.Errorf("slot %d of %v has %v clients, the fair share is %v", i, slot, got, fair)
			}
		}
		return
	}
	// By then each waits up to 30 s, so that a second has some 1000/15 tries at most, however
	// they stand: the mean wait is 15 s.
	for i := int(away / slot); i < int(away/slot)+60; i++ {
		if got := float64(slots[i]); got > 1000/15.0+6*math.Sqrt(1000/15.0) {
			t.Errorf("second %d has %v tries", i, got)
		}
	}
}
