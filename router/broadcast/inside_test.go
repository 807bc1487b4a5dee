package broadcast

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge"
)

// counter is a sink that takes everything.
type counter struct{ n, overs atomic.Int64 }

func (c *counter) put(*event)              { c.n.Add(1) }
func (c *counter) catchUp(events []*event) { c.n.Add(int64(len(events))) }
func (c *counter) over()                   { c.overs.Add(1) }

func logHub(t *testing.T) *Hub {
	t.Helper()
	h, err := New(Options{Namespaces: []Namespace{{Name: "log", HistorySize: 100, HistoryTTL: time.Minute, Recovery: true}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func joinLog(t *testing.T, h *Hub, to sink) (leave func(), err error) {
	t.Helper()
	w, err := h.want(t.Context(), true, []string{"log:a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h.join(t.Context(), h.node.Load(), "log:a", w, to)
}

// Who comes while the last one leaves gets in all the same.
func TestFanEnteredWhileTheLastLeaves(t *testing.T) {
	h := logHub(t)
	w, err := h.want(t.Context(), true, []string{"log:a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100_000 {
				f, _ := h.enter("log:a", w)
				h.leave(f)
				h.mu.Lock() // of others, one may be between its two steps
				for _, f := range h.fans["log:a"] {
					if f.users == 0 {
						t.Error("a fan is found that nobody uses any more: it is about to end")
					}
				}
				h.mu.Unlock()
				if t.Failed() {
					return
				}
			}
		})
	}
	all.Wait()
	noClients(t, h)
}

// noClients waits until nothing is subscribed any more.
func noClients(t *testing.T, h *Hub) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		st := h.Stats()
		h.mu.Lock()
		fans := len(h.fans)
		h.mu.Unlock()
		if st.Clients == 0 && st.Subscriptions == 0 && fans == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%+v stays", st)
		}
	}
}

// A fan that has found a message missing which centrifuge has not leaves no client behind.
func TestFanThatFailsEndsItsClient(t *testing.T) {
	h := logHub(t)
	to := new(counter)
	leave, err := joinLog(t, h, to)
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	f := h.fans["log:a"][0]
	h.mu.Unlock()
	f.take(&centrifuge.Publication{Offset: 7, Data: []byte("7")}, f.at.Epoch)
	if to.overs.Load() != 1 {
		t.Error("the stream is not told that messages are missing")
	}
	leave()
	noClients(t, h)
}
