package h2_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2/hpack"
	"pgregory.net/rapid"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// The model: a client and a server that keep books of their own, and a switch
// between them. Each step is taken once nothing moves any more (synctest), so
// that the books are exact.

// modelFail is how a step fails: by the test's Fatalf.
type modelFail = func(format string, args ...any)

// modelEnd is a client or a server.
type modelEnd struct {
	name   string
	nc     net.Conn
	dir    int // of what it sends: 0 is up, 1 is down
	enc    *hpack.Encoder
	dec    *hpack.Decoder
	encBuf bytes.Buffer
	block  []byte              // of HEADERS that are not complete
	fields []hpack.HeaderField // of the last ones that are

	gate  chan struct{} // the reader goes on while there is something in it
	mu    sync.Mutex    // guards what the reader leaves
	inbox []modelFrame
	err   error

	connCredit int64 // for what it sends
	connWindow int64 // for what it receives
	theirs     int64 // the INITIAL_WINDOW_SIZE that it was told
	ours       int64 // and the one it told
	sides      map[uint32]*modelSide
	acks       int  // SETTINGS that are not acknowledged
	leaving    bool // its connection may end at any time
	lastGrant  int64
}

type modelFrame struct {
	frame.Header
	p []byte
}

// modelSide is a stream as one end sees it.
type modelSide struct {
	credit   int64 // for what it sends
	window   int64 // for what it receives
	sent     int64
	received int64
	said     bool // it has sent END_STREAM
	heard    bool // it has got END_STREAM
	trailers string
	got      string // trailers
	head     bool   // it has got HEADERS
	key      uint32 // what the bytes depend on; zero means the stream's id
	foreign  bool   // what it gets is the switch's own answer
	reset    bool   // it has got RST_STREAM
	code     frame.Code
}

func (e *modelEnd) read() {
	var head [frame.HeaderLen]byte
	for {
		<-e.gate
		e.gate <- struct{}{}
		_, err := io.ReadFull(e.nc, head[:])
		f := modelFrame{Header: frame.Parse(head[:])}
		if err == nil {
			f.p = make([]byte, f.Length)
			_, err = io.ReadFull(e.nc, f.p)
		}
		e.mu.Lock()
		if err != nil {
			e.err = err
			e.mu.Unlock()
			return
		}
		e.inbox = append(e.inbox, f)
		e.mu.Unlock()
	}
}

func (e *modelEnd) write(fail modelFail, b []byte) {
	if _, err := e.nc.Write(b); err != nil && !e.leaving {
		fail("the %s cannot write: %v", e.name, err)
	}
}

func (e *modelEnd) head(stream uint32, end bool, pairs ...string) []byte {
	e.encBuf.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = e.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return frame.AppendBlock(nil, stream, e.encBuf.Bytes(), end)
}

// modelByte is the i-th byte of a stream.
func modelByte(stream uint32, dir int, i int64) byte {
	return byte(i*31 + i>>8 + int64(stream)*7 + int64(dir))
}

// take enters what has come in the books.
func (e *modelEnd) take(fail modelFail) {
	e.mu.Lock()
	inbox, err := e.inbox, e.err
	e.inbox = nil
	e.mu.Unlock()
	for _, f := range inbox {
		e.frame(fail, f)
	}
	if err != nil {
		fail("the %s's connection has ended: %v", e.name, err)
	}
}

func (e *modelEnd) frame(fail modelFail, f modelFrame) {
	if f.Length > frame.MaxLen {
		fail("the %s gets a frame of %d bytes", e.name, f.Length)
	}
	s := e.sides[f.Stream]
	if s == nil && f.Stream != 0 {
		if e.dir == 0 || f.Type != frame.Headers {
			fail("the %s gets a frame of type %d on stream %d", e.name, f.Type, f.Stream)
		}
		s = &modelSide{credit: e.theirs, window: e.ours}
		e.sides[f.Stream] = s
	}
	if s != nil && s.reset {
		fail("the %s gets a frame of type %d on stream %d behind RST_STREAM", e.name, f.Type, f.Stream)
	}
	switch f.Type {
	case frame.Data:
		e.data(fail, f, s)
	case frame.Headers, frame.Continuation:
		e.block = append(e.block, f.p...)
		if f.Type == frame.Headers && s.heard {
			fail("the %s gets HEADERS on stream %d behind END_STREAM", e.name, f.Stream)
		}
		if f.Flags.Has(frame.EndStream) && f.Type == frame.Headers {
			s.heard = true
		}
		if f.Flags.Has(frame.EndHeaders) {
			fields, err := e.dec.DecodeFull(e.block)
			if err != nil {
				fail("the %s cannot decode a block: %v", e.name, err)
			}
			e.block, e.fields = e.block[:0], fields
			if s.head {
				s.got = fields[0].Value
			}
			s.head = true
		}
	case frame.RSTStream:
		s.reset, s.code = true, frame.Code(binary.BigEndian.Uint32(f.p))
	case frame.Settings:
		if f.Flags.Has(frame.Ack) {
			if e.acks--; e.acks < 0 {
				fail("the %s gets one SETTINGS ack too many", e.name)
			}
			return
		}
		for p := f.p; len(p) > 0; p = p[6:] {
			if set := frame.ParseSetting(p); set.ID == frame.InitialWindowSize {
				delta := int64(set.Value) - e.theirs
				e.theirs += delta
				for _, s := range e.sides {
					s.credit += delta
				}
			}
		}
		e.write(fail, frame.AppendSettingsAck(nil))
	case frame.WindowUpdate:
		n := int64(binary.BigEndian.Uint32(f.p))
		if n == 0 {
			fail("the %s gets a WINDOW_UPDATE of 0", e.name)
		}
		credit := &e.connCredit
		if s != nil {
			credit = &s.credit
		} else {
			e.lastGrant = n
		}
		if *credit += n; *credit > frame.MaxWindow {
			fail("the %s gets a window of %d on stream %d", e.name, *credit, f.Stream)
		}
	default:
		fail("the %s gets a frame of type %d: %q", e.name, f.Type, f.p)
	}
}

func (e *modelEnd) data(fail modelFail, f modelFrame, s *modelSide) {
	n := int64(len(f.p))
	if f.Flags.Has(frame.Padded) {
		fail("the %s gets padding", e.name)
	}
	if n > 0 && (s.window < n || e.connWindow < n) {
		fail("the %s gets %d bytes on stream %d in a window of %d, the connection's is %d", e.name, n, f.Stream, s.window, e.connWindow)
	}
	if s.heard {
		fail("the %s gets DATA on stream %d behind END_STREAM", e.name, f.Stream)
	}
	for i, c := range f.p {
		if want := modelByte(cmp.Or(s.key, f.Stream), 1-e.dir, s.received+int64(i)); c != want && !s.foreign {
			fail("the %s: byte %d of stream %d is %#x, want %#x", e.name, s.received+int64(i), f.Stream, c, want)
		}
	}
	s.window -= n
	e.connWindow -= n
	s.received += n
	s.heard = f.Flags.Has(frame.EndStream)
}

// model is the whole.
type model struct {
	fail   modelFail
	sw     *h2.Switch
	window int64 // Limits
	conn   int64
	most   int // streams
	client *modelEnd
	server *modelEnd
	fake   *h2.Server
	next   uint32
	live   map[uint32]*modelStream
	gone   []uint32 // streams that were reset, and by whom
	byWhom map[uint32]*modelEnd
	rise   int64 // the most that SETTINGS have added to what the server may send
	low    int64
}

// modelStream is what the model knows of a stream beyond its two sides.
type modelStream struct {
	id     uint32
	up     *modelSide // the client's
	down   *modelSide // the server's
	status bool       // the server has answered
	stop   bool       // and wants no more
}

func newModel(fail modelFail, l h2.Limits) *model {
	m := &model{
		fail: fail, window: int64(l.Window), conn: int64(max(l.ConnWindow, frame.DefaultWindow)), most: l.Streams,
		next: 1, live: make(map[uint32]*modelStream), byWhom: make(map[uint32]*modelEnd),
	}
	addr := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}
	m.fake = h2.NewServer(addr, h2.ServerOptions{})
	l.Pace = cmp.Or(l.Pace, -1)
	m.sw = h2.New(h2.Config{Limits: l, Route: func(*h2.Request, *protocols.Conn) h2.Backend { return m.fake }})
	ln := oneporttest.NewListener()
	go func() {
		nc, err := ln.Accept()
		if err == nil {
			m.sw.Serve(nc)
		}
		_ = ln.Close()
	}()
	nc, err := ln.Dial(context.Background())
	if err != nil {
		fail("dial: %v", err)
	}
	m.client = newModelEnd("client", nc, 0)
	m.client.acks = 1
	m.client.write(fail, frame.AppendSettings([]byte(frame.Preface)))
	go m.client.read()
	m.settle()
	return m
}

func newModelEnd(name string, nc net.Conn, dir int) *modelEnd {
	e := &modelEnd{
		name: name, nc: nc, dir: dir, dec: hpack.NewDecoder(4096, nil), sides: make(map[uint32]*modelSide),
		connCredit: frame.DefaultWindow, connWindow: frame.DefaultWindow, theirs: frame.DefaultWindow, ours: frame.DefaultWindow,
	}
	e.enc = hpack.NewEncoder(&e.encBuf)
	e.gate = make(chan struct{}, 1)
	e.gate <- struct{}{}
	return e
}

// accept takes the switch's connection.
func (m *model) accept() {
	nc, err := m.fake.Accept()
	if err != nil {
		m.fail("accept: %v", err)
	}
	m.server = newModelEnd("server", nc, 1)
	m.server.acks = 1
	go func() {
		_, _ = io.ReadFull(nc, make([]byte, len(frame.Preface)))
		m.server.read()
	}()
	m.server.write(m.fail, frame.AppendSettings(nil))
}

// settle waits until nothing moves, and brings the books up to date.
func (m *model) settle() {
	for {
		synctest.Wait()
		m.client.take(m.fail)
		quiet := true
		if m.server != nil {
			m.server.take(m.fail)
		}
		synctest.Wait()
		for _, e := range []*modelEnd{m.client, m.server} {
			if e != nil {
				e.mu.Lock()
				quiet = quiet && len(e.inbox) == 0 && e.err == nil
				e.mu.Unlock()
			}
		}
		if quiet {
			break
		}
	}
	m.prune()
}

// prune takes streams off the list that have ended.
func (m *model) prune() {
	for id, s := range m.live {
		switch {
		case s.up.reset && s.up.code == frame.NoError && s.stop:
			if !s.up.heard {
				m.fail("stream %d: told to stop before the answer's end", id)
			}
			m.lost(id, m.server)
		case s.up.reset:
			m.fail("stream %d: the client gets RST_STREAM %v", id, s.up.code)
		case s.down.reset:
			m.fail("stream %d: the server gets RST_STREAM %v", id, s.down.code)
		case s.up.heard && s.down.heard, s.up.heard && s.stop && s.up.said:
			delete(m.live, id)
		}
	}
}

// lost takes a stream off that was reset by one end.
func (m *model) lost(id uint32, by *modelEnd) {
	delete(m.live, id)
	m.gone = append(m.gone, id)
	m.byWhom[id] = by
}

// pick chooses a stream that f accepts; nil if there is none.
func (m *model) pick(t *rapid.T, f func(*modelStream) bool) *modelStream {
	var ids []uint32
	for _, id := range slices.Sorted(maps.Keys(m.live)) {
		if f(m.live[id]) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return m.live[rapid.SampledFrom(ids).Draw(t, "stream")]
}

func (m *model) open(t *rapid.T) {
	if len(m.live) >= m.most {
		return
	}
	id := m.next
	m.next += 2
	end := rapid.IntRange(0, 3).Draw(t, "end") == 3
	s := &modelStream{id: id, up: &modelSide{credit: m.client.theirs, window: m.client.ours, said: end}}
	m.client.sides[id] = s.up
	m.client.write(m.fail, m.client.head(id, end, ":method", "POST", ":scheme", "https", ":path", "/", ":authority", "a.test"))
	if m.server == nil {
		m.accept()
		m.low = min(m.client.ours, m.window)
	}
	synctest.Wait()
	m.server.take(m.fail)
	if s.down = m.server.sides[id]; s.down == nil {
		m.fail("stream %d does not get to the server", id)
	}
	m.live[id] = s
}

// chunk draws how much to send, with how much padding: -1 is none at all.
func (m *model) chunk(t *rapid.T, e *modelEnd, credit int64) (n, padding int64) {
	room := min(credit, e.connCredit, frame.MaxLen)
	padding = -1
	if room > 0 && rapid.IntRange(0, 3).Draw(t, "padded") == 3 {
		padding = rapid.Int64Range(0, min(255, room-1)).Draw(t, "padding")
		room -= padding + 1
	}
	if room <= 0 {
		return 0, padding
	}
	n = rapid.OneOf(rapid.Just(room), rapid.Just(room), rapid.Int64Range(0, room)).Draw(t, "bytes")
	return n, padding
}

// send sends DATA, with padding or without.
func (m *model) send(t *rapid.T, e *modelEnd, id uint32, s *modelSide, end bool) {
	n, padding := m.chunk(t, e, s.credit)
	e.put(m.fail, id, s, n, padding, end)
}

// put sends n bytes on a stream.
func (e *modelEnd) put(fail modelFail, id uint32, s *modelSide, n, padding int64, end bool) {
	p := make([]byte, 0, n+padding+1)
	h := frame.Header{Type: frame.Data, Stream: id}
	if padding >= 0 {
		h.Flags |= frame.Padded
		p = append(p, byte(padding))
	}
	for i := range n {
		p = append(p, modelByte(cmp.Or(s.key, id), e.dir, s.sent+i))
	}
	p = append(p, make([]byte, max(0, padding))...)
	if end {
		h.Flags |= frame.EndStream
	}
	h.Length = len(p)
	s.sent += n
	s.said = end
	s.credit -= int64(len(p))
	e.connCredit -= int64(len(p))
	e.write(fail, append(h.Append(nil), p...))
}

// sendMany sends a frame, or as many as the windows take.
func (m *model) sendMany(t *rapid.T, e *modelEnd, id uint32, s *modelSide) {
	for range rapid.SampledFrom([]int{1, 5, 20}).Draw(t, "frames") {
		if m.send(t, e, id, s, false); s.credit <= 0 || e.connCredit <= 0 {
			break
		}
	}
	if rapid.IntRange(0, 11).Draw(t, "end") == 11 {
		m.send(t, e, id, s, true)
	}
}

func (m *model) clientSends(t *rapid.T) {
	if s := m.pick(t, func(s *modelStream) bool { return !s.up.said }); s != nil {
		m.sendMany(t, m.client, s.id, s.up)
	}
}

func (m *model) serverSends(t *rapid.T) {
	if s := m.pick(t, func(s *modelStream) bool { return s.status && !s.down.said }); s != nil {
		m.sendMany(t, m.server, s.id, s.down)
	}
}

func (m *model) serverAnswers(t *rapid.T) {
	if s := m.pick(t, func(s *modelStream) bool { return !s.status }); s != nil {
		s.status = true
		m.server.write(m.fail, m.server.head(s.id, false, ":status", "200"))
	}
}

func (m *model) trailers(t *rapid.T) {
	switch rapid.IntRange(0, 7).Draw(t, "who") {
	case 7:
		if s := m.pick(t, func(s *modelStream) bool { return !s.up.said }); s != nil {
			s.up.said, s.up.trailers = true, fmt.Sprint("up ", s.id)
			m.client.write(m.fail, m.client.head(s.id, true, "x-end", s.up.trailers))
		}
	case 6, 5:
		if s := m.pick(t, func(s *modelStream) bool { return s.status && !s.down.said }); s != nil {
			s.down.said, s.down.trailers = true, fmt.Sprint("down ", s.id)
			m.server.write(m.fail, m.server.head(s.id, true, "x-end", s.down.trailers))
		}
	}
}

// credit gives window, of a stream or the connection.
func (m *model) credit(t *rapid.T) {
	e := m.client
	if m.server != nil && rapid.Bool().Draw(t, "server's") {
		e = m.server
	}
	n := rapid.OneOf(rapid.Int64Range(1, 100), rapid.Int64Range(1, 1<<17), rapid.Just[int64](1<<15), rapid.Just[int64](1<<17)).Draw(t, "credit")
	if rapid.Bool().Draw(t, "connection") {
		if e.connWindow+n <= frame.MaxWindow {
			e.connWindow += n
			e.write(m.fail, frame.AppendWindowUpdate(nil, 0, uint32(n)))
		}
		return
	}
	s := m.pick(t, func(s *modelStream) bool { return !m.receiver(e, s).heard })
	if s == nil {
		return
	}
	side := m.receiver(e, s)
	side.window += n
	e.write(m.fail, frame.AppendWindowUpdate(nil, s.id, uint32(n)))
}

func (m *model) receiver(e *modelEnd, s *modelStream) *modelSide {
	if e == m.client {
		return s.up
	}
	return s.down
}

// settings change a peer's INITIAL_WINDOW_SIZE, and with it the windows of all streams.
func (m *model) settings(t *rapid.T) {
	e := m.client
	if m.server != nil && rapid.Bool().Draw(t, "server's") {
		e = m.server
	}
	size := rapid.OneOf(rapid.SampledFrom([]int64{0, 100, 1 << 15, 1 << 18}), rapid.Int64Range(0, 1<<19)).Draw(t, "window")
	delta := size - e.ours
	e.ours = size
	for _, s := range e.sides {
		s.window += delta
	}
	if e == m.client {
		told := min(size, m.window)
		m.low = min(m.low, told)
		m.rise = max(m.rise, told-m.low)
	}
	e.acks++
	e.write(m.fail, frame.AppendSettings(nil, frame.Setting{ID: frame.InitialWindowSize, Value: uint32(size)}))
}

func (m *model) resets(t *rapid.T) {
	switch rapid.IntRange(0, 7).Draw(t, "who") {
	case 7:
		m.clientResets(t)
	case 6:
		m.serverResets(t)
	}
}

func (m *model) clientResets(t *rapid.T) {
	s := m.pick(t, func(*modelStream) bool { return true })
	if s == nil {
		return
	}
	m.lost(s.id, m.client)
	m.client.write(m.fail, frame.AppendReset(nil, s.id, frame.Cancel))
	m.settle()
	if !s.down.reset && !(s.down.heard && s.down.said) && !s.stop {
		m.fail("stream %d: the server is not told of the client's reset", s.id)
	}
}

func (m *model) serverResets(t *rapid.T) {
	s := m.pick(t, func(s *modelStream) bool { return !s.stop && !(s.down.said && s.down.heard) })
	if s == nil {
		return
	}
	m.lost(s.id, m.server)
	m.server.write(m.fail, frame.AppendReset(nil, s.id, frame.InternalError))
	m.settle()
	if !s.up.reset || s.up.code != frame.InternalError {
		m.fail("stream %d: the client is not told of the server's reset", s.id)
	}
}

// serverStops says that the server wants nothing more, its answer being whole (RFC 9113, 8.1).
func (m *model) serverStops(t *rapid.T) {
	s := m.pick(t, func(s *modelStream) bool { return s.down.said && !s.down.heard && !s.stop })
	if s == nil {
		return
	}
	s.stop = true
	m.server.write(m.fail, frame.AppendReset(nil, s.id, frame.NoError))
}

// late sends DATA on a stream that the other end has reset, as happens when
// the two cross: its credit must come back.
func (m *model) late(t *rapid.T) {
	if len(m.gone) == 0 {
		return
	}
	id := rapid.SampledFrom(m.gone).Draw(t, "stream")
	e := m.client
	if m.byWhom[id] == m.client {
		e = m.server
	}
	s := e.sides[id]
	if s.said {
		return
	}
	s.reset = false // what follows may be answered
	m.send(t, e, id, s, false)
	m.settle()
	s.reset = true
}

// check compares the books.
func (m *model) check() {
	m.settle()
	if m.server == nil {
		return
	}
	for _, e := range []*modelEnd{m.client, m.server} {
		if e.acks != 0 {
			m.fail("%d SETTINGS of the %s are not acknowledged", e.acks, e.name)
		}
	}
	idle := [2]bool{true, true} // directions in which nothing waits
	var waiting [2]int64
	for id, s := range m.live {
		for dir, to := range []*modelEnd{m.server, m.client} {
			from, at, depth := s.up, s.down, m.window
			if dir == 1 {
				from, at, depth = s.down, s.up, m.window+m.rise
			}
			if dir == 0 && s.stop {
				continue
			}
			n := from.sent - at.received
			waiting[dir] += n
			name := fmt.Sprintf("stream %d to the %s", id, to.name)
			switch {
			case n < 0:
				m.fail("%s: %d more bytes arrive than were sent", name, -n)
			case n > depth:
				m.fail("%s: %d bytes wait, more than %d", name, n, depth)
			case n > 0:
				idle[dir] = false
				if at.window > 0 && to.connWindow > 0 {
					m.fail("%s: stalled with %d bytes and a window of %d, the connection's is %d", name, n, at.window, to.connWindow)
				}
				if at.heard {
					m.fail("%s: END_STREAM has overtaken %d bytes", name, n)
				}
			case from.said && !at.heard:
				m.fail("%s: END_STREAM got lost", name)
			case from.said && from.trailers != at.got:
				m.fail("%s: trailers are %q, want %q", name, at.got, from.trailers)
			case !from.said && at.heard:
				m.fail("%s: END_STREAM of nobody", name)
			case !from.said && at.window > 0 && from.credit <= 0:
				m.fail("%s: stalled, everything was sent on, the receiver takes %d, the sender's credit is %d", name, at.window, from.credit)
			}
		}
	}
	for dir, e := range []*modelEnd{m.client, m.server} {
		if e.connCredit+waiting[dir] > m.conn {
			m.fail("the %s's connection window is %d with %d bytes waiting, of %d", e.name, e.connCredit, waiting[dir], m.conn)
		}
		if idle[dir] && e.connCredit <= m.conn/2 {
			m.fail("the %s's connection window is %d of %d, and nothing waits", e.name, e.connCredit, m.conn)
		}
	}
}

// finish lets all streams end, and looks at whether the connections' windows
// are what they were.
func (m *model) finish(t *rapid.T) {
	if m.server == nil {
		m.open(t)
	}
	for range 200 {
		m.check()
		if len(m.live) == 0 {
			break
		}
		for _, e := range []*modelEnd{m.client, m.server} {
			if n := 1<<20 - e.connWindow; n > 0 {
				e.connWindow += n
				e.write(m.fail, frame.AppendWindowUpdate(nil, 0, uint32(n)))
			}
		}
		for _, id := range slices.Sorted(maps.Keys(m.live)) {
			if s := m.live[id]; s != nil {
				m.wind(s)
				m.check()
			}
		}
	}
	if len(m.live) > 0 {
		m.fail("%d streams do not end", len(m.live))
	}
	if m.window >= frame.MaxLen { // else it takes too long
		m.conserved(m.client, m.server)
		m.conserved(m.server, m.client)
	}
}

// wind brings a stream to its end.
func (m *model) wind(s *modelStream) {
	for _, e := range []*modelEnd{m.client, m.server} {
		if side := m.receiver(e, s); !side.heard && side.window < 1<<20 {
			n := 1<<20 - side.window
			side.window += n
			e.write(m.fail, frame.AppendWindowUpdate(nil, s.id, uint32(n)))
		}
	}
	m.settle()
	if m.live[s.id] == nil {
		return
	}
	if !s.status {
		s.status = true
		m.server.write(m.fail, m.server.head(s.id, false, ":status", "200"))
	}
	if !s.up.said {
		s.up.said = true
		m.client.write(m.fail, frame.AppendData(nil, s.id, nil, true))
	}
	if !s.down.said {
		s.down.said = true
		m.server.write(m.fail, frame.AppendData(nil, s.id, nil, true))
	}
}

// conserved sends on a new stream until the connection's window is topped up:
// then not a byte of it may be missing.
func (m *model) conserved(from, to *modelEnd) {
	id := m.next
	m.next += 2
	s := &modelStream{id: id, up: &modelSide{credit: m.client.theirs, window: m.client.ours}, status: true}
	m.client.sides[id] = s.up
	m.client.write(m.fail, m.client.head(id, false, ":method", "POST", ":scheme", "https", ":path", "/"))
	m.settle()
	s.down = m.server.sides[id]
	m.live[id] = s
	m.server.write(m.fail, m.server.head(id, false, ":status", "200"))
	from.lastGrant = 0
	sender, receiver := s.up, s.down
	if from == m.server {
		sender, receiver = s.down, s.up
	}
	for from.lastGrant == 0 {
		if n := 1<<20 - receiver.window; n > 0 {
			receiver.window += n
			to.write(m.fail, frame.AppendWindowUpdate(nil, id, uint32(n)))
		}
		if n := 1<<20 - to.connWindow; n > 0 {
			to.connWindow += n
			to.write(m.fail, frame.AppendWindowUpdate(nil, 0, uint32(n)))
		}
		m.check()
		n := min(sender.credit, from.connCredit, frame.MaxLen)
		if n <= 0 {
			m.fail("the %s stalls on a new stream: its credit is %d, the connection's %d", from.name, sender.credit, from.connCredit)
		}
		from.put(m.fail, id, sender, n, -1, false)
		m.settle()
	}
	if from.connCredit != m.conn {
		m.fail("the %s's connection window is topped up to %d, want %d", from.name, from.connCredit, m.conn)
	}
	m.wind(s)
	m.check()
}

func (m *model) close() {
	_ = m.client.nc.Close()
	m.sw.Close()
	if m.server != nil {
		_ = m.server.nc.Close()
	}
	_ = m.fake.Close()
}

// modelFailure is what a step panics with: rapid and synctest both want to see
// a failure on the goroutine of their own.
type modelFailure string

// inModel runs a property in a bubble of its own, which ends when all
// goroutines in it have.
func inModel(t *testing.T, rt *rapid.T, property func(fail modelFail)) {
	var failed any
	var stack []byte
	synctest.Test(t, func(*testing.T) {
		defer func() {
			if failed = recover(); failed != nil {
				stack = debug.Stack()
			}
		}()
		property(func(format string, args ...any) { panic(modelFailure(fmt.Sprintf(format, args...))) })
	})
	switch kind := fmt.Sprintf("%T", failed); {
	case failed == nil:
	case kind == "rapid.invalidData": // how rapid gives an attempt up
		panic(failed)
	default:
		if _, ok := failed.(modelFailure); !ok {
			t.Logf("%s", stack)
		}
		rt.Fatal(failed)
	}
}

// Any interleaving of data, padding, window updates, SETTINGS, trailers and
// resets, both ways: no byte is lost, no credit is lost or made up, what waits
// is bounded, nothing stalls, and everything ends.
func TestSwitchModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := h2.Limits{
			Streams: rapid.IntRange(1, 5).Draw(rt, "streams"), Nuisance: 1 << 30,
			Window:     rapid.SampledFrom([]int{256 << 10, 64 << 10, 16 << 10, 100, 1}).Draw(rt, "window"),
			ConnWindow: rapid.SampledFrom([]int{64 << 10, 256 << 10, 1}).Draw(rt, "connection window"),
		}
		inModel(t, rt, func(fail modelFail) {
			m := newModel(fail, l)
			defer m.close()
			m.open(rt)
			actions := map[string]func(*rapid.T){
				"open":           m.open,
				"client sends":   m.clientSends,
				"client sends 2": m.clientSends,
				"client sends 3": m.clientSends,
				"server answers": m.serverAnswers,
				"server sends":   m.serverSends,
				"server sends 2": m.serverSends,
				"server sends 3": m.serverSends,
				"trailers":       m.trailers,
				"credit":         m.credit,
				"settings":       m.settings,
				"resets":         m.resets,
				"server stops":   m.serverStops,
				"late":           m.late,
				"":               func(*rapid.T) { m.check() },
			}
			for range 5 { // rapid's own idea of many steps is about 30
				rt.Repeat(actions)
			}
			m.finish(rt)
		})
	})
}
