package h2_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// The model of streams upstream: a crowd of clients that share the connections
// to one or two servers. All of them keep books of their own, may stop reading,
// and may leave.

type crowd struct {
	model   *model // for how to send
	fail    modelFail
	sw      *h2.Switch
	limits  h2.Limits
	ln      *oneporttest.Listener
	clients []*crowdEnd
	sites   []*crowdSite
	calls   []*crowdCall // by key, from 1
}

// crowdSite is where a server is.
type crowdSite struct {
	up      *h2.Upstream
	ln      *oneporttest.Listener
	conns   []*crowdEnd
	tells   crowdSettings // on new connections
	fewest  int64         // streams that it has ever taken on a connection
	closed  atomic.Bool   // it cannot be reached
	mu      sync.Mutex    // guards what has been accepted
	arrived []net.Conn
}

// crowdSettings are an end's SETTINGS.
type crowdSettings struct{ window, streams int64 }

// crowdEnd is a client, or a server's end of a connection.
type crowdEnd struct {
	*modelEnd

	site    *crowdSite      // the server's
	agreed  crowdSettings   // the last that were acknowledged
	told    []crowdSettings // and those that are not
	streams int64           // that it takes at once
	next    uint32          // the client's next stream
	last    uint32          // of the server's GOAWAY
	asleep  bool            // it does not read
	since   time.Time       // or does again
	dead    bool
	cancels int
}

// crowdCall is a stream from end to end.
type crowdCall struct {
	key          uint32
	begun        time.Time
	grpc         bool
	client       *crowdEnd
	id           uint32
	up           *modelSide // the client's
	site         *crowdSite
	server       *crowdEnd // nil while the stream waits
	far          uint32    // its id there
	down         *modelSide
	status       bool // the server has answered
	stop         bool // and wants no more
	clientResets bool
	serverResets bool
	whole        bool // the server has gone with its answer behind it
	over         bool // for both, and the switch
	excused      bool // the switch may answer: the server has gone, or cannot be reached
}

// reads reports whether the end gets all that there is for it.
func (e *crowdEnd) reads() bool { return !e.dead && !e.asleep }

// clientDone reports whether the client takes the call for ended.
func (c *crowdCall) clientDone() bool {
	return c.client.dead || c.clientResets || c.up.reset || c.up.heard && c.up.said
}

// serverDone reports the same of the server, or that it does not know of the call.
func (c *crowdCall) serverDone() bool {
	return c.server == nil || c.server.dead || c.far > c.server.last ||
		c.serverResets || c.stop || c.down.reset || c.down.heard && c.down.said
}

// broken reports whether the call does not go its way to the end.
func (c *crowdCall) broken() bool {
	return c.clientResets || c.serverResets || c.client.dead || c.up.reset || c.up.foreign ||
		c.server != nil && (c.server.dead && !c.whole || c.far > c.server.last)
}

// sends reports whether an end of the call may send.
func (c *crowdCall) clientSends() bool { return !c.up.said && !c.clientDone() }
func (c *crowdCall) serverSends() bool { return c.status && !c.down.said && !c.serverDone() }

func newCrowd(fail modelFail, l h2.Limits, up h2.UpstreamLimits, clients, sites int) *crowd {
	w := &crowd{model: &model{fail: fail}, fail: fail, limits: l, ln: oneporttest.NewListener()}
	l.Pace = cmp.Or(l.Pace, -1)
	w.sw = h2.New(h2.Config{Limits: l, Guards: []protocols.Guard{protocols.GuardFunc(admitSlowly)}, Route: func(r *h2.Request, _ *protocols.Conn) h2.Backend {
		site, _ := strconv.Atoi(r.Authority)
		return w.sites[site].up
	}})
	go func() {
		for nc, err := w.ln.Accept(); err == nil; nc, err = w.ln.Accept() {
			w.sw.Serve(h2.Kept(nc, nc.RemoteAddr().(*net.TCPAddr).Port))
		}
	}()
	for range sites {
		s := &crowdSite{ln: oneporttest.NewListener(), tells: crowdSettings{frame.DefaultWindow, 100}, fewest: 100}
		s.up = h2.NewUpstream(h2.UpstreamConfig{Limits: up, Dial: func(ctx context.Context) (net.Conn, error) {
			if s.closed.Load() {
				return nil, errors.New("refused")
			}
			nc, err := s.ln.Dial(ctx)
			if err != nil {
				return nil, err
			}
			return h2.Kept(nc, nc.LocalAddr().(*net.TCPAddr).Port), nil
		}})
		go func() {
			for nc, err := s.ln.Accept(); err == nil; nc, err = s.ln.Accept() {
				s.mu.Lock()
				s.arrived = append(s.arrived, nc)
				s.mu.Unlock()
			}
		}()
		w.sites = append(w.sites, s)
	}
	for range clients {
		w.clients = append(w.clients, w.dial())
	}
	w.settle()
	return w
}

// admitSlowly is a guard that takes its time for some calls.
func admitSlowly(ctx context.Context, call *protocols.Call) (context.Context, error) {
	if strings.HasSuffix(call.Path, "3") {
		select {
		case <-time.After(guardTime):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return ctx, nil
}

const guardTime = 500 * time.Millisecond

func (w *crowd) newEnd(name string, nc net.Conn, dir int) *crowdEnd {
	e := &crowdEnd{modelEnd: newModelEnd(name, nc, dir), next: 1, last: frame.MaxStream}
	e.agreed = crowdSettings{frame.DefaultWindow, 1 << 31}
	_ = nc.SetWriteDeadline(time.Now().Add(1000 * time.Hour)) // the switch always reads
	return e
}

// dial connects a client.
func (w *crowd) dial() *crowdEnd {
	nc, err := w.ln.Dial(context.Background())
	if err != nil {
		w.fail("dial: %v", err)
	}
	e := w.newEnd("client "+nc.LocalAddr().String(), nc, 0)
	e.write(w.fail, []byte(frame.Preface))
	e.tell(w.fail, crowdSettings{frame.DefaultWindow, 0})
	go e.read()
	return e
}

// accept takes connections that have come to a server.
func (w *crowd) accept(s *crowdSite) (some bool) {
	s.mu.Lock()
	list := s.arrived
	s.arrived = nil
	s.mu.Unlock()
	for _, nc := range list {
		e := w.newEnd(fmt.Sprint("server ", slices.Index(w.sites, s), " of ", nc.RemoteAddr()), nc, 1)
		e.site = s
		s.conns = append(s.conns, e)
		go func() {
			_, _ = io.ReadFull(nc, make([]byte, len(frame.Preface)))
			e.read()
		}()
		e.tell(w.fail, s.tells)
	}
	return len(list) > 0
}

// tell sends SETTINGS. The larger of old and new is in force until they are
// acknowledged.
func (e *crowdEnd) tell(fail modelFail, s crowdSettings) {
	e.told = append(e.told, s)
	e.acks++
	e.resize()
	list := []frame.Setting{{ID: frame.InitialWindowSize, Value: uint32(s.window)}}
	if e.site != nil {
		list = append(list, frame.Setting{ID: frame.MaxConcurrentStreams, Value: uint32(s.streams)})
		e.site.fewest = min(e.site.fewest, s.streams)
	}
	e.write(fail, frame.AppendSettings(nil, list...))
}

func (e *crowdEnd) resize() {
	window := e.agreed.window
	e.streams = e.agreed.streams
	for _, s := range e.told {
		window, e.streams = max(window, s.window), max(e.streams, s.streams)
	}
	for _, s := range e.sides {
		s.window += window - e.ours
	}
	e.ours = window
}

// ends are all that have not gone.
func (w *crowd) ends() (list []*crowdEnd) {
	list = append(list, w.clients...)
	for _, s := range w.sites {
		list = append(list, s.conns...)
	}
	return list
}

// settle waits until nothing moves, and brings the books up to date.
func (w *crowd) settle() {
	for quiet := false; !quiet; {
		synctest.Wait()
		quiet = true
		for _, s := range w.sites {
			if w.accept(s) {
				quiet = false
			}
		}
		for _, e := range w.ends() {
			if w.take(e) {
				quiet = false
			}
		}
	}
	for _, s := range w.sites {
		if s.closed.Load() {
			w.excuse(s, nil)
		}
	}
	for _, c := range w.calls {
		c.over = c.clientDone() && c.serverDone()
	}
}

// take enters what has come in the books.
func (w *crowd) take(e *crowdEnd) (some bool) {
	e.mu.Lock()
	inbox, err := e.inbox, e.err
	e.inbox, e.err = nil, nil
	e.mu.Unlock()
	for _, f := range inbox {
		w.frame(e, f)
	}
	if err == nil {
		return len(inbox) > 0
	}
	if !e.leaving || slices.ContainsFunc(w.calls, func(c *crowdCall) bool { return c.server == e && !c.serverDone() }) {
		w.fail("the %s has lost its connection: %v", e.name, err)
	}
	w.bury(e)
	return true
}

// bury takes a connection that has ended off.
func (w *crowd) bury(e *crowdEnd) {
	e.dead = true
	w.wake(e)
	_ = e.nc.Close()
	for _, c := range w.calls {
		c.whole = c.whole || c.server == e && c.down.said && !c.serverResets
	}
	if s := e.site; s != nil {
		s.conns = slices.DeleteFunc(s.conns, func(o *crowdEnd) bool { return o == e })
	}
}

func (w *crowd) frame(e *crowdEnd, f modelFrame) {
	e.frame(w.fail, f)
	s := e.sides[f.Stream]
	switch {
	case f.Type == frame.Settings && f.Flags.Has(frame.Ack):
		e.agreed, e.told = e.told[0], e.told[1:]
		e.resize()
	case f.Type == frame.Data && s.foreign:
		s.got += string(f.p) // says why
	case f.Type != frame.Headers && f.Type != frame.Continuation || !f.Flags.Has(frame.EndHeaders):
	case e.site != nil && s.key == 0:
		w.arrives(e, f.Stream, s)
	case e.site == nil && e.fields[0].Name == ":status":
		if s.foreign = len(e.fields) < 2 || e.fields[1].Value != fmt.Sprint(s.key); s.foreign {
			s.got = e.fields[len(e.fields)-1].Value
		}
	}
}

// arrives takes note of a stream that has come to a server.
func (w *crowd) arrives(e *crowdEnd, far uint32, s *modelSide) {
	for _, f := range e.fields {
		if f.Name == ":path" {
			key, _ := strconv.Atoi(f.Value[1:])
			s.key = uint32(key)
		}
	}
	if s.key == 0 || int(s.key) > len(w.calls) {
		w.fail("the %s gets a stream of nobody: %v", e.name, e.fields)
	}
	c := w.calls[s.key-1]
	if c.site != e.site || c.server != nil {
		w.fail("the %s gets the stream of another, or one that was sent already: %v", e.name, e.fields)
	}
	c.server, c.far, c.down = e, far, s
	c.excused = c.excused || far > e.last // it has crossed GOAWAY
	open := int64(0)
	for _, c := range w.calls {
		if c.server == e && !c.serverDone() {
			open++
		}
	}
	if open > e.streams {
		w.fail("the %s gets %d streams, and takes %d", e.name, open, e.streams)
	}
}

// excuse lets the switch answer calls that have no server, and those that f accepts.
func (w *crowd) excuse(s *crowdSite, f func(*crowdCall) bool) {
	for _, c := range w.calls {
		if c.site == s && (c.server == nil || f != nil && f(c)) {
			c.excused = true
		}
	}
}

// pick chooses one that f accepts; nil if there is none.
func pick[T any](t *rapid.T, what string, list []*T, f func(*T) bool) *T {
	var some []*T
	for _, v := range list {
		if f(v) {
			some = append(some, v)
		}
	}
	if len(some) == 0 {
		return nil
	}
	return rapid.SampledFrom(some).Draw(t, what)
}

func (c *crowdCall) String() string   { return fmt.Sprintf("call %d of the %s", c.key, c.client) }
func (c *crowdCall) GoString() string { return c.String() }
func (e *crowdEnd) String() string    { return e.name }
func (e *crowdEnd) GoString() string  { return e.name }

func (w *crowd) call(t *rapid.T, f func(*crowdCall) bool) *crowdCall {
	return pick(t, "call", w.calls, f)
}

// openOf counts the calls of a client that the switch may still have.
func (w *crowd) openOf(e *crowdEnd) (n int) {
	for _, c := range w.calls {
		if c.client == e && !c.clientResets && !c.up.reset && !c.over {
			n++
		}
	}
	return n
}

func (w *crowd) open(t *rapid.T) {
	e := pick(t, "client", w.clients, func(e *crowdEnd) bool { return w.openOf(e) < w.limits.Streams })
	if e != nil {
		site := rapid.IntRange(0, len(w.sites)-1).Draw(t, "site")
		w.start(e, site, rapid.Bool().Draw(t, "grpc"), rapid.IntRange(0, 3).Draw(t, "end") == 3)
	}
}

func (w *crowd) start(e *crowdEnd, site int, grpc, end bool) *crowdCall {
	c := &crowdCall{key: uint32(len(w.calls) + 1), begun: time.Now(), client: e, id: e.next, site: w.sites[site], grpc: grpc}
	c.up = &modelSide{key: c.key, credit: e.theirs, window: e.ours, said: end}
	e.next += 2
	e.sides[c.id] = c.up
	w.calls = append(w.calls, c)
	fields := []string{":method", "POST", ":scheme", "https", ":path", fmt.Sprint("/", c.key), ":authority", strconv.Itoa(site)}
	if grpc {
		fields = append(fields, "content-type", "application/grpc")
	}
	e.write(w.fail, e.head(c.id, end, fields...))
	return c
}

func (w *crowd) clientSends(t *rapid.T) {
	if c := w.call(t, (*crowdCall).clientSends); c != nil {
		w.model.sendMany(t, c.client.modelEnd, c.id, c.up)
	}
}

func (w *crowd) serverSends(t *rapid.T) {
	if c := w.call(t, (*crowdCall).serverSends); c != nil {
		w.model.sendMany(t, c.server.modelEnd, c.far, c.down)
	}
}

func (w *crowd) answers(t *rapid.T) {
	if c := w.call(t, func(c *crowdCall) bool { return !c.status && !c.serverDone() }); c != nil {
		w.answer(c, rapid.IntRange(0, 7).Draw(t, "end") == 7)
	}
}

func (w *crowd) answer(c *crowdCall, end bool) {
	c.status, c.down.said = true, end
	c.server.write(w.fail, c.server.head(c.far, end, ":status", "200", "x-key", fmt.Sprint(c.key)))
}

func (w *crowd) trailers(t *rapid.T) {
	if rapid.Bool().Draw(t, "client's") {
		if c := w.call(t, (*crowdCall).clientSends); c != nil && rapid.IntRange(0, 3).Draw(t, "now") == 3 {
			c.up.said, c.up.trailers = true, fmt.Sprint("up ", c.key)
			c.client.write(w.fail, c.client.head(c.id, true, "x-end", c.up.trailers))
		}
	} else if c := w.call(t, (*crowdCall).serverSends); c != nil {
		c.down.said, c.down.trailers = true, fmt.Sprint("down ", c.key)
		c.server.write(w.fail, c.server.head(c.far, true, "x-end", c.down.trailers))
	}
}

// credit gives window, of a stream or the connection.
func (w *crowd) credit(t *rapid.T) {
	n := rapid.OneOf(rapid.Int64Range(1, 100), rapid.Int64Range(1, 1<<17), rapid.Just[int64](1<<17)).Draw(t, "credit")
	if rapid.Bool().Draw(t, "connection") {
		if e := pick(t, "end", w.ends(), func(*crowdEnd) bool { return true }); e != nil {
			e.give(w.fail, 0, &e.connWindow, n)
		}
		return
	}
	c := w.call(t, func(c *crowdCall) bool { return !c.clientDone() || !c.serverDone() })
	switch {
	case c == nil:
	case !c.serverDone() && !c.down.heard && (c.clientDone() || rapid.Bool().Draw(t, "server's")):
		c.server.give(w.fail, c.far, &c.down.window, n)
	case !c.clientDone() && !c.up.heard:
		c.client.give(w.fail, c.id, &c.up.window, n)
	}
}

func (e *crowdEnd) give(fail modelFail, stream uint32, window *int64, n int64) {
	*window += n
	e.write(fail, frame.AppendWindowUpdate(nil, stream, uint32(n)))
}

// settings change INITIAL_WINDOW_SIZE, and a server's MAX_CONCURRENT_STREAMS.
func (w *crowd) settings(t *rapid.T) {
	s := crowdSettings{
		window:  rapid.OneOf(rapid.SampledFrom([]int64{0, 100, 1 << 15, 1 << 18}), rapid.Int64Range(0, 1<<19)).Draw(t, "window"),
		streams: rapid.SampledFrom([]int64{0, 1, 2, 3, 5, 100}).Draw(t, "streams"),
	}
	e := pick(t, "end", w.ends(), func(*crowdEnd) bool { return true })
	e.tell(w.fail, s)
	if e.site != nil {
		e.site.tells = s
	}
}

func (w *crowd) resets(t *rapid.T) {
	if rapid.IntRange(0, 2).Draw(t, "now") < 2 {
		return
	}
	if rapid.Bool().Draw(t, "client's") {
		if c := w.call(t, func(c *crowdCall) bool { return !c.clientDone() }); c != nil {
			c.clientResets = true
			c.client.cancels++
			c.client.write(w.fail, frame.AppendReset(nil, c.id, frame.Cancel))
		}
	} else if c := w.call(t, func(c *crowdCall) bool { return !c.serverDone() }); c != nil {
		c.serverResets = true
		c.server.write(w.fail, frame.AppendReset(nil, c.far, frame.InternalError))
	}
}

// stops says that a server wants nothing more, its answer being whole (RFC 9113, 8.1).
func (w *crowd) stops(t *rapid.T) {
	if c := w.call(t, func(c *crowdCall) bool { return !c.serverDone() && c.down.said }); c != nil {
		c.stop = true
		c.server.write(w.fail, frame.AppendReset(nil, c.far, frame.NoError))
	}
}

// sleeps has an end read nothing for a while.
func (w *crowd) sleeps(t *rapid.T) {
	e := pick(t, "end", w.ends(), func(e *crowdEnd) bool { return !e.asleep && !e.leaving })
	if e != nil && rapid.Bool().Draw(t, "now") {
		e.asleep, e.since = true, time.Now()
		<-e.gate
	}
}

func (w *crowd) wakes(t *rapid.T) {
	if e := pick(t, "end", w.ends(), func(e *crowdEnd) bool { return e.asleep }); e != nil {
		w.wake(e)
	}
}

func (w *crowd) wake(e *crowdEnd) {
	if e.asleep {
		e.gate <- struct{}{}
		e.asleep, e.since = false, time.Now()
	}
}

// trouble is what does not happen every day.
func (w *crowd) trouble(t *rapid.T) {
	w.settle()
	defer w.settle()
	switch rapid.IntRange(0, 15).Draw(t, "what") {
	case 15:
		if e := w.server(t); e != nil {
			w.dies(e)
		}
	case 14:
		if e := w.server(t); e != nil && e.reads() && !e.leaving {
			w.goesAway(t, e)
		}
	case 13:
		s := rapid.SampledFrom(w.sites).Draw(t, "site")
		s.closed.Store(!s.closed.Load())
	case 12:
		i := rapid.IntRange(0, len(w.clients)-1).Draw(t, "client")
		w.bury(w.clients[i])
		w.clients[i] = w.dial()
	case 11, 10, 9:
		time.Sleep(time.Duration(rapid.IntRange(1, 2000).Draw(t, "ms")) * time.Millisecond)
	}
}

func (w *crowd) server(t *rapid.T) *crowdEnd {
	return pick(t, "server", w.ends(), func(e *crowdEnd) bool { return e.site != nil })
}

// dies ends a server's connection, without a word.
func (w *crowd) dies(e *crowdEnd) {
	w.excuse(e.site, func(c *crowdCall) bool { return c.server == e && !c.down.said })
	w.bury(e)
}

// goesAway sends GOAWAY, and takes none of the last streams.
func (w *crowd) goesAway(t *rapid.T, e *crowdEnd) {
	least, most := uint32(0), uint32(0)
	for _, c := range w.calls {
		if c.server == e {
			if most = max(most, c.far); c.status || c.serverDone() {
				least = max(least, c.far)
			}
		}
	}
	last := uint32(rapid.IntRange(int(least), int(most)).Draw(t, "last"))
	e.last, e.leaving = last, true
	w.excuse(e.site, func(c *crowdCall) bool { return c.server == e && c.far > last })
	e.write(w.fail, frame.AppendGoAway(nil, last, frame.NoError, ""))
}

// check compares the books.
func (w *crowd) check() {
	w.settle()
	for _, e := range w.ends() {
		if e.reads() && len(e.told) > 0 {
			w.fail("%d SETTINGS of the %s are not acknowledged", len(e.told), e)
		}
		w.checkCredit(e)
	}
	for _, c := range w.calls {
		w.checkEnds(c)
		w.checkResets(c)
		if c.server == nil {
			w.checkWaits(c)
		} else {
			w.checkUp(c)
			w.checkDown(c)
		}
	}
}

// checkCredit checks that an end gets its connection credit back.
func (w *crowd) checkCredit(e *crowdEnd) {
	var all map[string]h2.Account
	var addr string
	size := int64(4 << 20)
	if e.site != nil {
		all, addr = e.site.up.Accounts(), e.nc.RemoteAddr().String()
	} else {
		all, _ = w.sw.Accounts()
		addr, size = e.nc.LocalAddr().String(), int64(max(w.limits.ConnWindow, frame.DefaultWindow))
	}
	a, ok := all[addr]
	switch {
	case !ok:
		w.fail("the switch does not have the %s", e)
	case a.Lost != 0:
		w.fail("the %s does not get connection credit back for %d bytes", e, a.Lost)
	case e.reads() && a.Credit != e.connCredit:
		w.fail("the %s's connection credit is %d, the switch has %d", e, e.connCredit, a.Credit)
	case a.Credit+a.Due <= size/2 || a.Credit+a.Due > size:
		w.fail("the %s's connection credit is %d of %d, and %d bytes wait", e, a.Credit, size, a.Due)
	}
}

// lost is the switch's trailers for a gRPC call whose server has gone.
const lost = "14"

// checkEnds checks that what ends is whole, at both ends.
func (w *crowd) checkEnds(c *crowdCall) {
	up, down := c.up, c.down
	switch {
	case !up.heard:
	case up.foreign || up.got == lost:
		if !c.excused {
			w.fail("%v: the switch answers %q", c, up.got)
		}
	case down == nil || !down.said:
		w.fail("%v: END_STREAM of nobody", c)
	case up.received != down.sent || up.got != down.trailers:
		w.fail("%v: the answer ends at %d of %d bytes, with the trailers %q, want %q", c, up.received, down.sent, up.got, down.trailers)
	}
	if down != nil && down.heard {
		if !up.said || down.received != up.sent || down.got != up.trailers {
			w.fail("%v: the request ends at %d of %d bytes, with the trailers %q, want %q", c, down.received, up.sent, down.got, up.trailers)
		}
	}
}

// checkResets checks that both ends learn of resets, and of nothing else.
func (w *crowd) checkResets(c *crowdCall) { //nolint:gocyclo // a list of who may reset what
	up, down := c.up, c.down
	if up.reset {
		switch {
		case c.serverResets && up.code == frame.InternalError:
		case (c.stop || c.excused || c.whole) && up.code == frame.NoError && up.heard:
		case c.excused && (up.code == frame.InternalError || up.code == frame.RefusedStream):
		default:
			w.fail("%v: the client gets RST_STREAM %v", c, up.code)
		}
	}
	if down != nil && down.reset && (!c.clientResets && !c.client.dead || down.code != frame.Cancel) {
		w.fail("%v: the server gets RST_STREAM %v", c, down.code)
	}
	if (c.clientResets || c.client.dead) && !c.serverDone() && c.server.reads() {
		w.fail("%v: the server is not told of the client's reset", c)
	}
	if c.server == nil || c.clientDone() || !c.client.reads() || up.foreign {
		return
	}
	if (c.stop || c.whole) && up.heard {
		w.fail("%v: the client is not told to stop", c)
	}
	if c.serverResets && !c.down.said || c.far > c.server.last || c.server.dead && !c.grpc && !c.whole {
		w.fail("%v: the client is not told of the server's reset", c)
	}
}

// checkWaits checks that a call does not wait without a reason. If a server
// does not read, it may have the call.
func (w *crowd) checkWaits(c *crowdCall) {
	asleep := func(e *crowdEnd) bool { return e.asleep || time.Since(e.since) < 2*time.Second }
	if c.broken() || c.excused || c.client.cancels > 40 || time.Since(c.begun) <= guardTime || slices.ContainsFunc(c.site.conns, asleep) {
		return
	}
	mine := int64(0)
	for _, o := range w.calls {
		if o.client == c.client && o.server != nil && !(o.clientDone() && o.serverDone()) {
			mine++
		}
	}
	if mine > 0 && mine >= c.site.fewest/2 { // a fair share
		return
	}
	for _, e := range c.site.conns {
		open := int64(0)
		for _, o := range w.calls {
			if o.server == e && !o.serverDone() {
				open++
			}
		}
		if !e.leaving && open < e.streams {
			w.fail("%v waits, and the %s has %d of %d streams", c, e, open, e.streams)
		}
	}
}

// checkUp checks that the request goes on if it can.
func (w *crowd) checkUp(c *crowdCall) {
	up, down, e := c.up, c.down, c.server
	if c.broken() || c.whole || c.stop || !e.reads() {
		return
	}
	switch n := up.sent - down.received; {
	case n < 0:
		w.fail("%v: %d more bytes of the request arrive than were sent", c, -n)
	case n > int64(w.limits.Window):
		w.fail("%v: %d bytes of the request wait, more than %d", c, n, w.limits.Window)
	case n > 0 && down.window > 0 && e.connWindow > 0:
		w.fail("%v: the request stalls with %d bytes and a window of %d, the connection's is %d", c, n, down.window, e.connWindow)
	case n == 0 && up.said && !down.heard:
		w.fail("%v: the request's END_STREAM got lost", c)
	case n == 0 && !up.said && down.window > 0 && up.credit <= 0 && c.client.reads():
		w.fail("%v: the request stalls: the server takes %d, the client's credit is %d", c, down.window, up.credit)
	}
}

// checkDown checks that the answer goes on if it can.
func (w *crowd) checkDown(c *crowdCall) {
	up, down, e := c.up, c.down, c.client
	if c.broken() || !e.reads() {
		return
	}
	most := max(int64(w.limits.Window), 32<<10)
	switch n := down.sent - up.received; {
	case n < 0:
		w.fail("%v: %d more bytes of the answer arrive than were sent", c, -n)
	case n > most:
		w.fail("%v: %d bytes of the answer wait, more than %d", c, n, most)
	case n > 0 && up.window > 0 && e.connWindow > 0:
		w.fail("%v: the answer stalls with %d bytes and a window of %d, the connection's is %d", c, n, up.window, e.connWindow)
	case n == 0 && c.status && !up.head:
		w.fail("%v: the answer's head got lost", c)
	case n == 0 && down.said && !up.heard:
		w.fail("%v: the answer's END_STREAM got lost", c)
	case n == 0 && !down.said && up.window > 0 && down.credit <= 0 && c.server.reads():
		w.fail("%v: the answer stalls: the client takes %d, the server's credit is %d", c, up.window, down.credit)
	}
}

// finish has everyone read and give credit, until all calls have ended: then
// the switch owes nobody anything, and new calls go their way, one with a flood.
func (w *crowd) finish(flood bool) {
	w.settle()
	for _, s := range w.sites {
		s.closed.Store(false)
		s.tells.streams = 100
	}
	w.drain()
	for _, e := range w.ends() {
		if e.leaving {
			w.fail("the %s has gone away, and is not closed", e)
		}
	}
	accounts, held := w.sw.Accounts()
	for name, a := range accounts {
		if a.Held != 0 || a.Lent != 0 || held != 0 {
			w.fail("at the end the client %s holds %d bytes, and is lent %d; all hold %d", name, a.Held, a.Lent, held)
		}
	}
	first := len(w.calls)
	for _, e := range w.clients {
		for i := range w.sites {
			if c := w.start(e, i, true, false); c.up.credit != int64(w.limits.Window) {
				w.fail("%v begins with a credit of %d", c, c.up.credit)
			}
		}
	}
	time.Sleep(time.Second) // guards
	if w.settle(); flood {
		w.flood(w.calls[first])
	}
	w.drain()
	for _, c := range w.calls[first:] {
		if c.broken() || c.server == nil {
			w.fail("%v, the last, does not get through", c)
		}
	}
}

// flood sends an answer that is larger than the window of its connection.
func (w *crowd) flood(c *crowdCall) {
	for w.answer(c, false); c.down.sent < 5<<20; {
		c.client.give(w.fail, 0, &c.client.connWindow, frame.MaxLen)
		c.client.give(w.fail, c.id, &c.up.window, frame.MaxLen)
		w.check()
		c.server.put(w.fail, c.far, c.down, min(c.down.credit, c.server.connCredit, frame.MaxLen), -1, false)
	}
}

func (w *crowd) drain() {
	for round := 0; ; round++ {
		for _, e := range w.ends() {
			w.wake(e)
			if n := 1<<20 - e.connWindow; n > 0 {
				e.give(w.fail, 0, &e.connWindow, n)
			}
			if e.site != nil && e.streams < 100 && !e.leaving {
				e.tell(w.fail, crowdSettings{e.ours, 100})
			}
		}
		time.Sleep(time.Second) // as long as no other connection is opened behind one that failed
		w.check()
		left := 0
		for _, c := range w.calls {
			if !c.clientDone() || !c.serverDone() {
				left++
				w.wind(c)
			}
		}
		switch {
		case left == 0:
			return
		case round > 100:
			w.fail("%d calls do not end", left)
		}
		w.check()
	}
}

// wind brings a call to its end.
func (w *crowd) wind(c *crowdCall) {
	if n := 1<<20 - c.up.window; !c.clientDone() && !c.up.heard && n > 0 {
		c.client.give(w.fail, c.id, &c.up.window, n)
	}
	if !c.serverDone() && !c.down.heard && c.down.window < 1<<20 {
		c.server.give(w.fail, c.far, &c.down.window, 1<<20-c.down.window)
	}
	if c.clientSends() {
		c.up.said, c.up.trailers = true, "up"
		c.client.write(w.fail, c.client.head(c.id, true, "x-end", "up"))
	}
	if c.serverDone() {
		return
	}
	if !c.status {
		w.answer(c, false)
	}
	if c.serverSends() {
		c.down.said = true
		c.server.write(w.fail, frame.AppendData(nil, c.far, nil, true))
	}
}

func (w *crowd) close() {
	for _, e := range w.ends() {
		w.wake(e)
		_ = e.nc.Close()
	}
	_ = w.ln.Close()
	w.sw.Close()
	for _, s := range w.sites {
		_ = s.ln.Close()
		s.up.Close()
		for _, nc := range s.arrived {
			_ = nc.Close()
		}
	}
}

// Whatever many clients and the servers that they share do to each other: no
// byte is lost or gets astray, no credit is lost or made up, nobody has to wait
// for another who stands still, and everything ends.
func TestUpstreamModel(t *testing.T) {
	const long = 1000 * time.Hour
	rapid.Check(t, func(rt *rapid.T) {
		l := h2.Limits{
			Streams: rapid.IntRange(2, 6).Draw(rt, "streams"), Nuisance: 1 << 30,
			Window:        rapid.SampledFrom([]int{256 << 10, 64 << 10, 16 << 10, 1000}).Draw(rt, "window"),
			ConnWindow:    rapid.SampledFrom([]int{64 << 10, 256 << 10, 1 << 20}).Draw(rt, "connection window"),
			HeaderTimeout: long, Idle: long, BodyIdle: long, Answer: long, PingAfter: long, PingTimeout: long, Write: -1,
		}
		up := h2.UpstreamLimits{Conns: rapid.IntRange(1, 3).Draw(rt, "connections"), Wait: long, Connect: long, Idle: long, Write: -1}
		clients, sites := rapid.IntRange(2, 4).Draw(rt, "clients"), rapid.IntRange(1, 2).Draw(rt, "sites")
		inModel(t, rt, func(fail modelFail) {
			w := newCrowd(fail, l, up, clients, sites)
			defer w.close()
			actions := map[string]func(*rapid.T){
				"open":           w.open,
				"open 2":         w.open,
				"answers":        w.answers,
				"answers 2":      w.answers,
				"client sends":   w.clientSends,
				"client sends 2": w.clientSends,
				"client sends 3": w.clientSends,
				"server sends":   w.serverSends,
				"server sends 2": w.serverSends,
				"server sends 3": w.serverSends,
				"trailers":       w.trailers,
				"credit":         w.credit,
				"credit 2":       w.credit,
				"settings":       w.settings,
				"resets":         w.resets,
				"stops":          w.stops,
				"sleeps":         w.sleeps,
				"wakes":          w.wakes,
				"trouble":        w.trouble,
				"": func(t *rapid.T) { // in between all goes on at once
					if rapid.Bool().Draw(t, "check") {
						w.check()
					}
				},
			}
			for range 3 { // rapid's own idea of many steps is about 30
				rt.Repeat(actions)
			}
			w.finish(rapid.IntRange(0, 15).Draw(rt, "flood") == 15)
		})
	})
}
