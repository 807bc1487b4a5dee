package h2

import (
	"math"
	"slices"
	"strconv"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols/h2/encode"
	"github.com/oneport-edge/oneport/protocols/h2/flow"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// link is what all HTTP/2 connections have in common: the client's, those to
// servers in this process, which the client's lock guards, and those upstream,
// which have a lock of their own.
type link struct {
	trunk  *trunk // upstream: whose link it is
	policy bool   // to a server in this process with a policy on PINGs
	out    []byte // frames to be written
	enc    *encode.Encoder
	block  []byte // what enc has encoded last
	in     *blocks
	window int64     // the INITIAL_WINDOW_SIZE of the peer
	most   int64     // and its MAX_HEADER_LIST_SIZE
	send   flow.Half // the connection window that the peer gives: only Allow, Room and Send
	recv   flow.Half // and the one that it is given
	halves []*half   // that wait for the peer's connection window, in turn
}

// newLink returns a link whose peer gets a connection window of that size.
// With remote set, it is worth some time to send it less.
func newLink(l *Limits, window int64, remote bool) link {
	k := link{in: newBlocks(l), enc: encode.New(tableSize, remote), window: frame.DefaultWindow, most: math.MaxInt64}
	k.send = flow.New(frame.DefaultWindow, 0, 0)
	window = max(window, frame.DefaultWindow) // nobody can be given less
	k.recv = flow.New(flow.Unlimited, window, window)
	return k
}

// lock is for those that have the client's lock already: it takes an upstream
// connection's.
func (k *link) lock() {
	if k.trunk != nil {
		k.trunk.mu.Lock()
	}
}

// unlock frees what lock took. What was appended leaves when c is unlocked.
func (k *link) unlock(c *client) {
	if t := k.trunk; t != nil {
		if len(t.out) > 0 && !t.due {
			t.due, t.nextDue, c.due = true, c.due, t
		}
		t.mu.Unlock()
	}
}

// tooLarge reports whether the peer takes no header list of those fields. It might end
// the connection for it, with the streams of others.
func (k *link) tooLarge(fields []hpack.HeaderField) bool {
	if k.most == math.MaxInt64 {
		return false
	}
	var size int64
	for i := range fields {
		size += int64(fields[i].Size())
	}
	return size > k.most
}

// head appends a header block. mark, unless it is zero, goes into it as the
// stream's number in StreamField.
func (k *link) head(stream uint32, fields []hpack.HeaderField, end bool, mark uint32) {
	k.block = k.enc.Begin(k.block[:0])
	for i := range fields {
		k.block = k.enc.Field(k.block, &fields[i])
	}
	if mark != 0 {
		var digits [10]byte
		k.block = k.enc.Once(k.block, StreamField, strconv.AppendUint(digits[:0], uint64(mark), 10))
	}
	k.out = frame.AppendBlock(k.out, stream, k.block, end)
}

// open says hello: settings, and the connection window.
func (k *link) open(list ...frame.Setting) {
	k.out = frame.AppendSettings(k.out, list...)
	if n := k.recv.Credit() - frame.DefaultWindow; n > 0 {
		k.out = frame.AppendWindowUpdate(k.out, 0, uint32(n))
	}
}

// release gives the peer credit back for n bytes that it sent, and that were
// sent on. Upstream connections have theirs back already: many clients share
// them, and none may use up the others' credit.
func (k *link) release(n int) {
	if k.trunk == nil {
		k.giveBack(n)
	}
}

// giveBack gives the peer connection credit back.
func (k *link) giveBack(n int) {
	k.recv.Send(n)
	if n := k.recv.Grant(); n > 0 {
		k.out = frame.AppendWindowUpdate(k.out, 0, uint32(n))
	}
}

// allow takes note of connection credit, and lets those go on that wait for it.
func (k *link) allow(n int64) bool {
	if !k.send.Allow(n) {
		return false
	}
	k.resume()
	return true
}

// resume lets those go on that wait, as far as there is room. Each sends at
// most a frame in its turn, so that none keeps the others waiting. Those that no credit
// was left for are the first next time.
func (k *link) resume() {
	for before := int64(-1); len(k.halves) > 0 && k.send.Room() > 0 && k.send.Room() != before; {
		before = k.send.Room()
		for n := len(k.halves); n > 0 && len(k.halves) > 0 && k.send.Room() > 0; n-- {
			h := k.halves[0]
			k.halves[0] = nil
			k.halves = k.halves[1:]
			h.waits = false
			h.pump(frame.MaxLen)
		}
	}
}

// wait puts h at the end of those that wait for connection credit, or for
// the peer to read. The link is locked.
func (k *link) wait(h *half) {
	if h.waits {
		return
	}
	h.waits = true
	if k.trunk != nil {
		k.trunk.waiting = append(k.trunk.waiting, ref{h.s.c, h.s, h.s.far})
		return
	}
	k.halves = append(k.halves, h)
}

// leave takes h off those that wait.
func (k *link) leave(h *half) {
	if !h.waits {
		return
	}
	h.waits = false
	if t := k.trunk; t != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.waiting = slices.DeleteFunc(t.waiting, func(r ref) bool { return r.s == h.s && r.id == h.s.far })
		return
	}
	k.halves = slices.DeleteFunc(k.halves, func(o *half) bool { return o == h })
}
