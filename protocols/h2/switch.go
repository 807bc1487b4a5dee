package h2

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// Config is what a Switch needs.
type Config struct {
	// Route says where a stream goes; nil answers 404, or UNIMPLEMENTED. It
	// may change the request's fields. It runs on the connection's reader,
	// under its lock: it must not wait. Required.
	Route func(*Request, *protocols.Conn) Backend
	// Guards are asked in this order whether a call may go on to a server in this
	// process that has Calls, or upstream, unless its Backend has its own ([Guarded]). Those of
	// other servers are asked there. One that is protocols.Quick is asked on the connection's
	// reader, under its lock.
	Guards []protocols.Guard
	// Limits bound what clients may cost.
	Limits Limits
	// Begun is called with each new call, before its server has it. It may
	// register what is to happen at its end (Call.OnDone). It must not wait.
	Begun func(*protocols.Call)
	// Log receives what servers do wrong at Error, and clients at Debug. Nil discards.
	Log *slog.Logger
}

// Switch serves HTTP/2 connections, stream by stream. It is safe for
// concurrent use.
type Switch struct {
	Config
	limits     Limits
	backLimits Limits
	log        *slog.Logger
	prefix     uint64 // of every request id
	seq        atomic.Uint64
	bad        [16]atomic.Int64 // connections ended, by error code
	held       atomic.Int64     // bytes that wait in queues of streams
	deciding   [3]atomic.Int64  // streams whose guards have not decided, by protocol
	backs      atomic.Int64     // connections to servers in this process
	work       sync.WaitGroup   // connections and the sweeper

	mu       sync.Mutex // guards all below; taken before a client's
	clients  map[*client]struct{}
	draining bool
	closed   bool
	sweeping bool
	stop     chan struct{} // closed by Close
	empty    chan struct{} // closed when the last client leaves; nil if nobody waits
}

// New returns a switch.
func New(cfg Config) *Switch {
	sw := &Switch{
		Config: cfg, limits: cfg.Limits.withDefaults(), log: cfg.Log,
		clients: make(map[*client]struct{}), stop: make(chan struct{}),
	}
	if sw.log == nil {
		sw.log = slog.New(slog.DiscardHandler)
	}
	// Servers in this process are believed to be sane.
	sw.backLimits = sw.limits
	sw.backLimits.HeaderBytes, sw.backLimits.HeaderFields, sw.backLimits.Continuations = 1<<20, 10_000, 100
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails (crypto/rand, Go 1.24)
	sw.prefix = binary.BigEndian.Uint64(random[:])
	return sw
}

// Serve serves a connection whose client speaks HTTP/2: a *tls.Conn whose
// handshake is done, or one in plaintext. It returns at once, and owns nc.
func (sw *Switch) Serve(nc net.Conn) {
	c := &client{sw: sw, conn: track(nc), streams: make(map[uint32]*stream), ramp: firstRamp}
	c.attach(nc, c)
	c.link = newLink(&sw.limits, int64(sw.limits.ConnWindow), true)
	c.drained.L = &c.mu
	if c.conn != nil {
		c.facts = c.conn.Facts()
	} else {
		c.facts = strangersFacts(nc)
	}
	c.link.open(
		frame.Setting{ID: frame.MaxConcurrentStreams, Value: uint32(sw.limits.Streams)},
		frame.Setting{ID: frame.InitialWindowSize, Value: uint32(sw.limits.Window)},
		frame.Setting{ID: frame.MaxHeaderListSize, Value: uint32(2 * sw.limits.HeaderBytes)},
	)
	sw.mu.Lock()
	if sw.closed {
		sw.mu.Unlock()
		_ = nc.Close()
		return
	}
	sw.clients[c] = struct{}{}
	if sw.draining {
		c.goAwayLocked() // nobody else has c yet
	}
	if !sw.sweeping {
		sw.sweeping = true
		sw.work.Go(sw.sweep)
	}
	sw.work.Add(1)
	sw.mu.Unlock()
	go func() {
		defer sw.work.Done()
		c.flush()
		c.serve()
		sw.leave(c)
	}()
}

func (sw *Switch) leave(c *client) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	delete(sw.clients, c)
	if len(sw.clients) == 0 && sw.empty != nil {
		close(sw.empty)
		sw.empty = nil
	}
}

// sweep looks after all connections while there are any.
func (sw *Switch) sweep() {
	tick := sw.limits.tick()
	timer := time.NewTicker(tick)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-sw.stop:
			return
		}
		sw.mu.Lock()
		if len(sw.clients) == 0 {
			sw.sweeping = false
			sw.mu.Unlock()
			return
		}
		all := make([]*client, 0, len(sw.clients))
		for c := range sw.clients {
			all = append(all, c)
		}
		sw.mu.Unlock()
		var list []holder
		var sum int64
		for _, c := range all {
			if n := c.sweep(tick); n > 0 {
				list, sum = append(list, holder{c, n}), sum+int64(n)
			}
		}
		if over := sum - sw.limits.Memory; over > 0 {
			shed(list, over)
		}
	}
}

// holder is a client and how much waits for it.
type holder struct {
	c     *client
	waits int
}

// shed ends the connections that hold most, until it is so many bytes less.
func shed(list []holder, over int64) {
	slices.SortFunc(list, func(a, b holder) int { return b.waits - a.waits })
	for _, h := range list {
		if over <= 0 {
			return
		}
		over -= int64(h.waits)
		h.c.mu.Lock()
		h.c.dieLocked(frame.Err(frame.EnhanceYourCalm, "too much waits for this connection"))
		h.c.unlock()
	}
}

// CloseIdle tells clients to go that have had no stream for so long, those that have not
// for longest first, and no more than most. What they begin before they know is still
// served. It says how many were told.
func (sw *Switch) CloseIdle(most int, quiet time.Duration) int {
	type unused struct {
		c     *client
		ticks int
	}
	var list []unused
	tick := sw.limits.tick()
	sw.mu.Lock()
	for c := range sw.clients {
		c.mu.Lock()
		if c.state == stateOpen && len(c.streams) == 0 && time.Duration(c.bare)*tick > quiet {
			list = append(list, unused{c, c.bare})
		}
		c.mu.Unlock()
	}
	sw.mu.Unlock()
	slices.SortFunc(list, func(a, b unused) int { return b.ticks - a.ticks })
	list = list[:min(len(list), max(most, 0))]
	for _, u := range list {
		u.c.mu.Lock()
		u.c.goAwayLocked()
		u.c.unlock()
		u.c.kickLater()
	}
	return len(list)
}

// Shutdown ends all connections gracefully: clients are told to go, what is in
// flight is served to its end. When ctx ends first, the rest is answered with 503 or
// UNAVAILABLE, or cut off within half a second, and Shutdown returns ctx's error.
func (sw *Switch) Shutdown(ctx context.Context) error {
	sw.mu.Lock()
	sw.draining = true
	empty := make(chan struct{})
	if len(sw.clients) == 0 {
		close(empty)
	} else if sw.empty != nil {
		empty = sw.empty
	} else {
		sw.empty = empty
	}
	all := make([]*client, 0, len(sw.clients))
	for c := range sw.clients {
		all = append(all, c)
	}
	sw.mu.Unlock()
	for _, c := range all {
		c.mu.Lock()
		c.goAwayLocked()
		c.unlock()
		c.kickLater()
	}
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		for _, c := range all {
			c.endAll()
		}
		told := time.NewTimer(toldTime)
		defer told.Stop()
		select {
		case <-empty:
		case <-told.C:
		}
		sw.Close()
		return ctx.Err()
	}
}

// Close cuts all connections off, and returns when nothing of them is left.
func (sw *Switch) Close() {
	sw.mu.Lock()
	if !sw.closed {
		sw.closed = true
		close(sw.stop)
	}
	for c := range sw.clients {
		c.cut(net.ErrClosed)
	}
	sw.mu.Unlock()
	sw.work.Wait()
}

// Stats are counts at one moment.
type Stats struct {
	// Open is the number of connections.
	Open int
	// Ended counts connections that were ended for what the client did, by the
	// name of the error code in RFC 9113.
	Ended map[string]int64
}

// Stats returns the counts.
func (sw *Switch) Stats() Stats {
	st := Stats{Ended: make(map[string]int64)}
	for i := range sw.bad {
		if n := sw.bad[i].Load(); n > 0 {
			st.Ended[frame.Code(i).String()] = n
		}
	}
	sw.mu.Lock()
	defer sw.mu.Unlock()
	st.Open = len(sw.clients)
	return st
}

func (sw *Switch) ended(c *client, e *frame.Error) {
	sw.bad[min(int(e.Code), len(sw.bad)-1)].Add(1)
	sw.log.Debug("HTTP/2 connection ended", "conn", c.facts.ID, "code", e.Code, "why", e.Why)
}

// begin makes the call of a new stream.
func (sw *Switch) begin(r *Request, facts *protocols.Conn) *protocols.Call {
	call := new(protocols.Call)
	call.Begin(context.Background(), protocols.NewID(sw.prefix, sw.seq.Add(1)), r.Get("traceparent"))
	call.Protocol = protocols.HTTP
	if r.GRPC() {
		call.Protocol = protocols.GRPC
	}
	call.Method, call.Host, call.Version = r.Method, r.Authority, "HTTP/2.0"
	call.Path = decodedPath(r.Path)
	call.Conn, call.Started = facts, time.Now()
	if sw.Begun != nil {
		call.Ask((*asked)(r))
		sw.Begun(call)
		call.Ask(nil)
	}
	return call
}

// decodedPath is a request's path without its query and without escapes, as net/http
// gives it; or with them, if one is broken.
func decodedPath(path string) string {
	path, _, _ = strings.Cut(path, "?")
	if strings.IndexByte(path, '%') < 0 {
		return path
	}
	if plain, err := url.PathUnescape(path); err == nil {
		return plain
	}
	return path
}

// endedCall is a call that has ended and whose OnDone functions have not run:
// they may do anything, and do not run under a lock.
type endedCall struct {
	call *protocols.Call
	res  protocols.Result
}

var endedPool = sync.Pool{New: func() any {
	list := make([]endedCall, 0, 16)
	return &list
}}

func finishCalls(ended *[]endedCall) {
	if ended == nil {
		return
	}
	for _, e := range *ended {
		e.call.Finish(e.res)
	}
	clear(*ended)
	*ended = (*ended)[:0]
	endedPool.Put(ended)
}

// track finds the tracked connection in c, below TLS if need be; nil if there is none.
func track(c net.Conn) tracked {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	t, _ := c.(tracked)
	return t
}

// strangersFacts is for a connection that did not come through protocols/mux.
func strangersFacts(nc net.Conn) *protocols.Conn {
	facts := &protocols.Conn{Kind: protocols.KindH2C, Accepted: time.Now()}
	if tc, ok := nc.(*tls.Conn); ok {
		st := tc.ConnectionState()
		facts.Kind, facts.TLS = protocols.KindHTTP2, &st
	}
	return facts
}

// dieLocked ends the connection for what the client did, noticed elsewhere
// than on its reader.
func (c *client) dieLocked(err error) {
	if c.fatal == nil {
		c.fatal = err
		c.state = stateClose
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
	}
}

// cut ends the connection at once.
func (c *client) cut(err error) {
	c.mu.Lock()
	c.failLocked(err)
	c.unlock()
	// It may wait in a write.
	_ = c.nc.SetDeadline(time.Unix(1, 0))
}
