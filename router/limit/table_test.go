package limit

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/oneport-edge/oneport/protocols"
)

// The table is a map that forgets what passes first when it is full.
func TestTableIsItsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		most := rapid.IntRange(1, 12).Draw(rt, "most")
		tab := table{most: most, index: make(map[uint64]int32)}
		model := map[uint64]int64{}
		for range rapid.IntRange(1, 200).Draw(rt, "steps") {
			if rapid.IntRange(0, 30).Draw(rt, "what") == 0 {
				bound := rapid.Int64Range(0, 5000).Draw(rt, "bound")
				tab.clamp(bound)
				for k := range model {
					model[k] = min(model[k], bound)
				}
			}
			key := rapid.Uint64Range(0, 30).Draw(rt, "key")
			i := tab.find(key)
			if _, ok := model[key]; ok != (i >= 0) || ok && tab.tat(i) != model[key] {
				rt.Fatalf("key %d: %d %d, want %d, %v", key, i, tab.tat(i), model[key], ok)
			}
			// Times are all different, or which goes first would be open.
			tat := (tab.tat(i)/100+rapid.Int64Range(1, 50).Draw(rt, "more"))*100 + int64(key)
			if _, ok := model[key]; !ok && len(model) == most {
				low := int64(1<<63 - 1)
				for _, at := range model {
					low = min(low, at)
				}
				tab.set(i, key, tat, 0)
				gone := 0
				for k, at := range model {
					if tab.find(k) < 0 {
						if at != low {
							rt.Fatalf("%d went, %d was first", at, low)
						}
						delete(model, k)
						gone++
					}
				}
				if gone != 1 {
					rt.Fatalf("%d keys went", gone)
				}
			} else {
				tab.set(i, key, tat, 0)
			}
			model[key] = tat
			if len(tab.entries) != len(model) || len(tab.index) != len(model) || len(tab.heap) != len(model) {
				rt.Fatalf("%d, %d, %d entries, want %d", len(tab.entries), len(tab.index), len(tab.heap), len(model))
			}
		}
	})
}

// Nobody gets rid of what they owe by calling as many others.
func TestFloodForgetsNoDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys = 1000
		l := newLimiter(t, Options{Rate: Rate{10, time.Hour}, Burst: 5, Per: PerIP, Keys: keys})
		owes := begun(protocols.HTTP, "192.0.2.1", "")
		for range 5 {
			mustAdmit(t, l, owes)
		}
		mustRefuse(t, l, owes, protocols.ReasonTooMany)
		for i := range 20 * keys {
			mustAdmit(t, l, begun(protocols.HTTP, fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff), ""))
		}
		mustRefuse(t, l, owes, protocols.ReasonTooMany)
		st := l.Stats()
		if st.Keys > keys || st.Evicted == 0 {
			t.Errorf("%+v", st)
		}

		// Once the others owe nothing any more, they make room without a word.
		time.Sleep(time.Hour)
		for i := range keys / 2 {
			mustAdmit(t, l, begun(protocols.HTTP, fmt.Sprintf("10.0.%d.%d", i>>8, i&0xff), ""))
		}
		if again := l.Stats().Evicted; again != st.Evicted {
			t.Errorf("%d keys were forgotten that owed something", again-st.Evicted)
		}
	})
}

func TestTableStaysOrderedUnderAFlood(t *testing.T) {
	tab := table{most: 100, index: make(map[uint64]int32)}
	for k := range uint64(10_000) {
		tab.set(tab.find(k), k, int64(k*7919%10_000), 0)
	}
	top := slices.MaxFunc(tab.entries, func(a, b entry) int { return cmp.Compare(a.tat, b.tat) })
	if top.tat != 9999 || len(tab.entries) != 100 {
		t.Errorf("%+v, %d entries", top, len(tab.entries))
	}
}
