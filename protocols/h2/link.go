package h2

import (
	"slices"
	"strconv"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols/h2/encode"
	"github.com/oneport-edge/oneport/protocols/h2/flow"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// link is what both kinds of HTTP/2 connection have in common: the client's,
// and those to servers. The client connection's lock guards it.
type link struct {
	out    []byte // frames to be written
	enc    *encode.Encoder
	block  []byte // what enc has encoded last
	in     *blocks
	window int64     // the INITIAL_WINDOW_SIZE of the peer
	send   flow.Half // the connection window that the peer gives: only Allow, Room and Send
	recv   flow.Half // and the one that it is given
	halves []*half   // that wait for the peer's connection window, in turn
}

// newLink returns a link whose peer gets a connection window of that size.
// With remote set, it is worth some time to send it less.
func newLink(l *Limits, window int64, remote bool) link {
	k := link{in: newBlocks(l), enc: encode.New(tableSize, remote), window: frame.DefaultWindow}
	k.send = flow.New(frame.DefaultWindow, 0, 0)
	window = max(window, frame.DefaultWindow) // nobody can be given less
	k.recv = flow.New(flow.Unlimited, window, window)
	return k
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

// release gives the peer credit back for n bytes that it sent.
func (k *link) release(n int) {
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
	// Each sends at most a frame in its turn, so that none keeps the others waiting.
	for len(k.halves) > 0 && k.send.Room() > 0 {
		h := k.halves[0]
		k.halves[0] = nil
		k.halves = k.halves[1:]
		h.waits = false
		h.pump(frame.MaxLen)
	}
	return true
}

// wait puts h at the end of those that wait for connection credit.
func (k *link) wait(h *half) {
	if !h.waits {
		h.waits = true
		k.halves = append(k.halves, h)
	}
}

// leave takes h off those that wait.
func (k *link) leave(h *half) {
	if h.waits {
		h.waits = false
		k.halves = slices.DeleteFunc(k.halves, func(o *half) bool { return o == h })
	}
}
