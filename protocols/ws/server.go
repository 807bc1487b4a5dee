package ws

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/protocols"
)

// Options configures the sessions of one route. Every zero value is a default
// fit for the Internet.
type Options struct {
	// Origins lists the origins of web pages that may connect, besides those
	// of the same host: "https://app.example.com", "https://*.example.com",
	// or "*" for all. Clients that send no Origin are no browsers, and pass.
	Origins []string
	// Subprotocols lists what the server speaks, in order of preference.
	Subprotocols []string
	// ReadLimit bounds a message, after inflating. Zero means 64 KiB; more is
	// closed with 1009.
	ReadLimit int64
	// PingEvery is how long a peer may be silent before it is pinged. Zero
	// means 25 s; negative never pings.
	PingEvery time.Duration
	// PongWait is how long it then has to send anything. Zero means 10 s.
	PongWait time.Duration
	// SendQueue bounds the bytes that wait to be written. Zero means 1 MiB;
	// a peer whose queue is full is closed with 1013.
	SendQueue int
	// WriteTimeout bounds how long one message may take to write. Zero means 10 s.
	WriteTimeout time.Duration
	// Compression accepts permessage-deflate (RFC 7692) without context
	// takeover. It costs CPU and memory on each message.
	Compression bool
}

func (o Options) withDefaults() Options {
	o.ReadLimit = cmp.Or(o.ReadLimit, 64<<10)
	o.PingEvery = cmp.Or(o.PingEvery, 25*time.Second)
	o.PongWait = cmp.Or(o.PongWait, 10*time.Second)
	o.SendQueue = cmp.Or(o.SendQueue, 1<<20)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 10*time.Second)
	return o
}

// closeWait is how long a peer has to answer a close frame (RFC 6455, 7.1.1).
const closeWait = 5 * time.Second

// A HandlerFunc serves one session. Its context ends when the session does, or
// begins to.
type HandlerFunc func(ctx context.Context, c *Conn) error

// session is what a Server holds: a Conn, or a tunnel.
type session interface {
	Close(code int, reason string) // begins the end, and does not wait
	abort()                        // cuts the connection off
	lastMoved() int64              // when it has moved a message last, on the Server's clock, or neverIdle
}

// Server holds the open sessions of all routes, those of tunnels among them. Its methods may be called
// concurrently.
type Server struct {
	log   *slog.Logger
	epoch time.Time // of now
	mark  [8]byte   // the payload of pings of ours, by which their pongs are known
	write sync.Pool // gorilla's write buffers: idle sessions have none
	pool  pool      // writes to sessions that were sent something

	mu       sync.Mutex // guards the fields below
	open     map[session]struct{}
	arriving int // accepted handshakes that are not in open yet
	draining bool
	idle     chan struct{} // closed when nothing is open or arriving; nil unless awaited

	tunnels atomic.Int64 // open now
	ends    tunnelEnds
	opened  atomic.Int64
	slow    atomic.Int64
	refused [numRefusals]atomic.Int64
	codes   [closeCodes]atomic.Int64

	turn     atomic.Uint32 // of counters
	counters [counterShards]counter
	dropped  atomic.Int64 // messages
}

// NewServer returns a server without sessions. log receives panics at Error;
// nil discards.
func NewServer(log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{log: log, epoch: time.Now(), open: make(map[session]struct{})}
	binary.NativeEndian.PutUint64(s.mark[:], rand.Uint64())
	return s
}

// now is the time since the server was made, in nanoseconds: cheaper than time.Now.
func (s *Server) now() int64 { return int64(time.Since(s.epoch)) }

// Handler upgrades requests and runs h for each session. It may be mounted in
// any router whose ResponseWriter can be hijacked: net/http's, Gin's. A
// request that is no acceptable handshake is answered with 4xx.
func (s *Server) Handler(h HandlerFunc, opts Options) http.Handler {
	opts = opts.withDefaults()
	up := &websocket.Upgrader{
		ReadBufferSize:    readBuffer,
		WriteBufferSize:   writeBuffer,
		WriteBufferPool:   &s.write,
		Subprotocols:      opts.Subprotocols,
		EnableCompression: opts.Compression,
		CheckOrigin:       func(*http.Request) bool { return true }, // vet has looked at it
		Error:             func(http.ResponseWriter, *http.Request, int, error) {},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if why := s.vet(r, &opts); why != refusedNot {
			s.refused[why].Add(1)
			why.answer(w)
			return
		}
		s.upgrade(w, r, up, &opts, h)
	})
}

// upgrade makes a session of an acceptable handshake, and returns: net/http's
// goroutine, with its stack and its buffers, is not kept for it.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request, up *websocket.Upgrader, opts *Options, h HandlerFunc) {
	call := protocols.CallFrom(r.Context())
	t := &takeover{ResponseWriter: w, call: call}
	asks := asksInband(r, call)
	if asks {
		call.Select(protocols.InBand)
	}
	var header http.Header
	if call != nil && call.Selected() != "" && !slices.ContainsFunc(websocket.Subprotocols(r), func(p string) bool { return slices.Contains(opts.Subprotocols, p) }) {
		bare := *up
		bare.Subprotocols = nil // else it would answer with none
		up, header = &bare, http.Header{fieldSubprotocol: {call.Selected()}}
	}
	g, err := up.Upgrade(t, r, header)
	if err != nil {
		s.refused[refusedHandshake].Add(1)
		s.lost()
		if t.stream == nil { // not hijacked: HTTP can still answer
			refusedHandshake.answer(w)
		}
		return
	}
	// The values of the request's context, without its end, which comes now.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	c := &Conn{g: g, stream: t.stream, server: s, opts: opts, ctx: ctx, cancel: cancel, call: call, count: s.counter()}
	c.moved.Store(s.now())
	t.stream.heard = &c.heard
	t.stream.timeout, t.stream.whole = opts.WriteTimeout, !opts.Compression
	t.stream.attach()
	g.SetReadLimit(opts.ReadLimit)
	if call != nil {
		call.Detach()
	}
	c.quiet.L = &c.mu
	c.request = r.WithContext(ctx)
	c.request.Body = http.NoBody // net/http's holds its buffers
	if asks {
		c.request.Header = r.Header.Clone()
		withoutInband(c.request.Header)
		c.inband = newInband(ctx, call, func(p []byte) { _ = c.Send(Text, p) }) // an error is the session's end
	}
	late := s.add(c)
	go c.run(h) // owned by the server: Drain waits for it
	if late {
		c.Close(CloseGoingAway, "server is going away")
	}
	endable(call, c)
}

// hijack takes the connection from net/http. Whoever has served the call so far does not end it any
// more: that would cut the session off. endable does, from when there is one.
func hijack(w http.ResponseWriter, call *protocols.Call) (net.Conn, *bufio.ReadWriter, error) {
	if call != nil {
		if why := call.OnEnd(nil); why != nil {
			return nil, nil, why
		}
	}
	return http.NewResponseController(w).Hijack()
}

// endable lets a session's call be ended from outside.
func endable(call *protocols.Call, s session) {
	if call == nil {
		return
	}
	if why := call.OnEnd(func(why *protocols.Refusal) { s.Close(why.Close()) }); why != nil {
		s.Close(why.Close())
	}
}

// admit promises a place to a handshake, unless the drain has begun. The
// promise is kept by add or given back by lost.
func (s *Server) admit() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.arriving++
	return true
}

// lost says that an admitted handshake came to nothing.
func (s *Server) lost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arriving--
	s.checkIdleLocked()
}

// add takes c under account and reports whether the drain has begun.
func (s *Server) add(c session) (late bool) {
	s.opened.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arriving--
	s.open[c] = struct{}{}
	return s.draining
}

func (s *Server) remove(c session, code int) {
	s.codes[codeIndex(code)].Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	s.checkIdleLocked()
}

func (s *Server) idleLocked() bool { return len(s.open) == 0 && s.arriving == 0 }

func (s *Server) checkIdleLocked() {
	if s.idle != nil && s.idleLocked() {
		close(s.idle)
		s.idle = nil
	}
}

// run is a session from the upgrade to its end.
func (c *Conn) run(h HandlerFunc) {
	c.startPings()
	if c.inband != nil {
		c.inband.start()
	}
	err := c.protect(h)
	c.end(err)
	if c.inband != nil {
		c.inband.stop()
	}
	code, sent := c.outcome()
	c.server.remove(c, code)
	if c.call != nil {
		c.call.Finish(protocols.Result{Status: code, Sent: sent, Err: sessionError(err)})
	}
}

// protect runs the handler and turns a panic into an error.
func (c *Conn) protect(h HandlerFunc) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			attrs := []any{"panic", p, "stack", string(debug.Stack())}
			if c.call != nil {
				attrs = append(attrs, "path", c.call.Path, "request", c.call.RequestID(), "conn", c.call.Conn.ID)
			}
			c.server.log.Error("handler panicked", attrs...)
		}
	}()
	return h(c.ctx, c)
}

// Drain refuses new sessions with 503, closes the open ones with 1001 at
// random moments within spread, and waits until all have ended or ctx has.
// Those still open then are cut off, and ctx's error is returned.
func (s *Server) Drain(ctx context.Context, spread time.Duration) error {
	s.mu.Lock()
	s.draining = true
	conns := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()

	rand.Shuffle(len(conns), func(i, j int) { conns[i], conns[j] = conns[j], conns[i] })
	start := time.Now()
	for i, c := range conns {
		// Evenly over the window, in random order: no reconnect storm.
		if !sleep(ctx, time.Until(start.Add(spread*time.Duration(i)/time.Duration(len(conns))))) {
			break
		}
		c.Close(CloseGoingAway, "server is going away")
	}
	select {
	case <-s.empty():
		return nil
	case <-ctx.Done():
	}
	// The time is over: whoever was not told yet is told now, and then cut off.
	s.each(func(c session) { c.Close(CloseGoingAway, "server is going away") })
	if s.emptyWithin(abortWait) {
		return ctx.Err()
	}
	s.each(session.abort)
	s.emptyWithin(abortWait) // a handler that does not return now is left behind
	return ctx.Err()
}

// abortWait is how long sessions have to end once the drain's time is over,
// and once more when they were cut off.
const abortWait = 500 * time.Millisecond

// each calls f for every open session.
func (s *Server) each(f func(session)) {
	s.mu.Lock()
	conns := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, c := range conns {
		f(c)
	}
}

// emptyWithin waits for the sessions to end, and reports whether they did.
func (s *Server) emptyWithin(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.empty():
		return true
	case <-t.C:
		return false
	}
}

// sleep waits for d and reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// empty returns a channel that is closed once no session is open or arriving.
func (s *Server) empty() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idleLocked() {
		done := make(chan struct{})
		close(done)
		return done
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	return s.idle
}

// Stats are counts at one moment.
type Stats struct {
	Open    int              // sessions open now
	Tunnels int              // those of Open that lead to a server elsewhere
	Opened  int64            // sessions opened so far
	Slow    int64            // sessions closed because their queue was full
	Refused map[string]int64 // handshakes refused so far, by reason: a bounded set
	Closed  map[int]int64    // sessions ended so far, by close code; 0 for codes outside 1000-1015
}

// Stats returns the counts. What never occurred is left out.
func (s *Server) Stats() Stats {
	st := Stats{Tunnels: int(s.tunnels.Load()), Opened: s.opened.Load(), Slow: s.slow.Load(), Refused: map[string]int64{}, Closed: map[int]int64{}}
	s.mu.Lock()
	st.Open = len(s.open)
	s.mu.Unlock()
	for r := range s.refused {
		if n := s.refused[r].Load(); n != 0 {
			st.Refused[refusal(r).String()] = n
		}
	}
	for i := range s.codes {
		if n := s.codes[i].Load(); n != 0 {
			st.Closed[codeAt(i)] = n
		}
	}
	return st
}
