package limit

// table remembers when callers have paid for their calls: the theoretical arrival time of
// GCRA's virtual scheduling, for each key. It holds a bounded number of keys; when that many are there, the
// one whose time passes first makes room. So a key that owes nothing goes before any
// that does, and one that owes little, as each of a flood of new keys, before one that owes much.
//
// The order is kept by a heap that calls do not touch: it is sorted by what a time was when
// the heap last looked (floor). Times only grow, so the first of the heap is the first of all if
// it has not grown since; if it has, it is put where it belongs, which its calls have paid for.
type table struct {
	most    int
	index   map[uint64]int32
	entries []entry
	heap    []int32 // indices of entries, by floor
	evicted uint64  // which owed something
}

type entry struct {
	key   uint64
	tat   int64
	floor int64
	owed  int // calls that a store does not know of
}

// find gives a key's entry; -1 if there is none.
func (t *table) find(key uint64) int32 {
	if i, ok := t.index[key]; ok {
		return i
	}
	return -1
}

// tat is the time of an entry that find has given.
func (t *table) tat(i int32) int64 {
	if i < 0 {
		return 0
	}
	return t.entries[i].tat
}

// set moves a key's time on. i is what find gave.
func (t *table) set(i int32, key uint64, tat, now int64) {
	switch {
	case i >= 0:
		t.entries[i].tat = tat
	case len(t.entries) < t.most:
		t.index[key] = int32(len(t.entries))
		t.heap = append(t.heap, int32(len(t.entries)))
		t.entries = append(t.entries, entry{key, tat, tat, 0})
		t.up(len(t.heap) - 1)
	default:
		i = t.first()
		if t.entries[i].tat > now {
			t.evicted++
		}
		delete(t.index, t.entries[i].key)
		t.index[key] = i
		t.entries[i] = entry{key, tat, tat, 0}
		t.down(0)
	}
}

// first brings the entry whose time passes first to the top of the heap.
func (t *table) first() int32 {
	for {
		e := &t.entries[t.heap[0]]
		if e.floor == e.tat {
			return t.heap[0]
		}
		e.floor = e.tat
		t.down(0)
	}
}

// clamp bounds what keys owe, for a limit that has changed: their times go back.
func (t *table) clamp(most int64) {
	for i := range t.entries {
		e := &t.entries[i]
		e.tat = min(e.tat, most)
		e.floor = e.tat
	}
	for i := len(t.heap)/2 - 1; i >= 0; i-- {
		t.down(i)
	}
}

func (t *table) less(i, j int) bool { return t.entries[t.heap[i]].floor < t.entries[t.heap[j]].floor }

func (t *table) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !t.less(i, parent) {
			return
		}
		t.heap[i], t.heap[parent] = t.heap[parent], t.heap[i]
		i = parent
	}
}

func (t *table) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(t.heap) {
			return
		}
		if child+1 < len(t.heap) && t.less(child+1, child) {
			child++
		}
		if !t.less(child, i) {
			return
		}
		t.heap[i], t.heap[child] = t.heap[child], t.heap[i]
		i = child
	}
}
