package protocols

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Call is one unit of work that a client asks for: an HTTP request, a gRPC
// call, or a WebSocket handshake together with the session behind it. Its
// fields are read-only for handlers.
type Call struct {
	Protocol Protocol
	Method   string // the HTTP method: POST for gRPC, GET for a WebSocket
	Host     string // the authority the client asked for
	Path     string // decoded, without the query; "/pkg.Service/Method" for gRPC
	Version  string // "HTTP/1.1" or "HTTP/2.0"
	Conn     *Conn  // the connection it came on; never nil
	Started  time.Time

	asked Asked // while guards decide

	id          ID
	traceparent string // the client's; "" if it is not valid
	agent       string // while somebody observes the call
	observers   []Observer
	tracer      Tracer // set by an Observer, and never changed
	span        Span

	to    atomic.Pointer[Destination]
	meter *Meter   // nil if nobody counts; set by Begin of it, and read by Finish
	open  openCall // in and as are guarded by mu, the rest by in.mu

	admitted context.Context // what the guards of a call with contexts of its own have added

	mu       sync.Mutex      // guards the fields below
	request  context.Context // the request's, until Detach
	identity *Identity
	handed   []Field
	hidden   []string
	selected string
	done     []func(Result) // the first of them in few
	few      [3]func(Result)
	onEnd    func(*Refusal)
	renew    RenewFunc
	ended    *Refusal
	cut      bool     // ended, and onEnd was called
	settled  bool     // it has ended by itself, and nobody else ends it
	refusal  *Refusal // by guards; the first counts
	finished bool
	detached bool
}

// Result is how a call ended.
type Result struct {
	// Status is the HTTP status, the gRPC status code, or the WebSocket close
	// code (RFC 6455 section 7.4), as the call's protocol has it.
	Status int
	// Sent counts the bytes of the answer's body; -1 where nobody counted.
	Sent int64
	// Err is why a call ended early: a panic, a lost connection. Nil if it ended well.
	Err error
	// At is when. Finish sets it for a [Meter] and for Observers; others find it zero.
	At time.Time
}

// ID names a call: 128 bits, unique without coordination.
type ID [16]byte

// NewID builds an ID of a random prefix and a counter.
func NewID(prefix, seq uint64) (id ID) {
	binary.BigEndian.PutUint64(id[:8], prefix)
	binary.BigEndian.PutUint64(id[8:], seq)
	return id
}

// String gives 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ID is the RequestID as bytes.
func (c *Call) ID() ID { return c.id }

// RequestID names this call in logs and to the handlers of all protocols.
func (c *Call) RequestID() string { return c.id.String() }

// TraceID is the trace this call belongs to: that of its [Span], the one of a valid W3C
// traceparent header (Trace Context level 1, section 3.2), or else the
// RequestID, so that a call always has one.
func (c *Call) TraceID() string {
	if c.span != nil {
		return c.span.Traceparent()[3:35]
	}
	if c.traceparent != "" {
		return c.traceparent[3:35]
	}
	return c.RequestID()
}

// Traceparent is what a server that the call is handed on to gets as its traceparent: what
// records the call here, if that is sampled; or the client's if it is a valid one; or else one
// that begins with this call, and is not sampled.
func (c *Call) Traceparent() string {
	if c.span != nil {
		return c.span.Traceparent()
	}
	if c.traceparent != "" {
		return c.traceparent
	}
	id := c.id.String()
	return "00-" + id + "-" + id[16:] + "-00"
}

// validTraceparent reports whether a traceparent header is one that has
// version "-" 32 hex "-" 16 hex "-" 2 hex, in lower case and not all zero.
func validTraceparent(h string) bool {
	if len(h) < 55 || h[2] != '-' || h[35] != '-' || h[52] != '-' || h[:2] == "ff" {
		return false
	}
	if h[:2] == "00" && len(h) != 55 || len(h) > 55 && h[55] != '-' {
		return false
	}
	return lowerHex(h[:2]) && lowerHex(h[3:35]) && lowerHex(h[36:52]) && lowerHex(h[53:55]) &&
		!allZero(h[3:35]) && !allZero(h[36:52])
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func allZero(s string) bool {
	for i := range len(s) {
		if s[i] != '0' {
			return false
		}
	}
	return true
}

// Begin starts a zero Call and returns a context that has it, on top of ctx.
// The protocol package that accepts a call does this once, fills in the exported
// fields before anybody else sees the call, and ends it with [Call.Finish].
// traceparent is the client's header of that name, valid or not.
func (c *Call) Begin(ctx context.Context, id ID, traceparent string) context.Context {
	c.id, c.request = id, ctx
	if validTraceparent(traceparent) {
		c.traceparent = traceparent
	}
	return (*callContext)(c)
}

// Began is when the call did; now if nobody has said. Guards that decide at once take it for
// the time: reading the clock is a tenth of what they cost.
func (c *Call) Began() time.Time {
	if c.Started.IsZero() {
		return time.Now()
	}
	return c.Started
}

// Context is what [Call.Begin] has returned.
func (c *Call) Context() context.Context { return (*callContext)(c) }

// OnDone registers f to run when the call has ended, the last registered
// first. If it has ended already, f runs at once with a zero Result.
func (c *Call) OnDone(f func(Result)) {
	c.mu.Lock()
	if !c.finished {
		if c.done == nil {
			c.done = c.few[:0]
		}
		c.done = append(c.done, f)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	f(Result{})
}

// Detach says that the call outlives its HTTP handler, as a WebSocket session
// does. Whoever detaches a call must Finish it. From then on the call's context
// has the call and the connection, but no end of its own, and nothing of what
// net/http put in: half a kilobyte for each idle session.
func (c *Call) Detach() {
	c.mu.Lock()
	c.detached, c.request = true, context.Background()
	c.mu.Unlock()
	if c.span != nil {
		c.span.Detached()
	}
}

// Detached reports whether Detach was called.
func (c *Call) Detached() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.detached
}

// Finish ends the call and runs what OnDone registered. Only the first Finish
// counts.
func (c *Call) Finish(res Result) {
	c.mu.Lock()
	done := c.done
	open := c.open.in
	first, refused := !c.finished, c.refusal
	c.done, c.onEnd, c.renew, c.finished, c.open.in = nil, nil, nil, true, nil
	c.mu.Unlock()
	if open != nil {
		open.remove(c)
	}
	for _, d := range slices.Backward(done) {
		d(res)
	}
	if !first || c.meter == nil && len(c.observers) == 0 {
		return
	}
	res.At = time.Now()
	for _, o := range slices.Backward(c.observers) {
		o.End(c, res)
	}
	if c.meter != nil {
		c.meter.end(c, refused, res)
	}
}

type callKey struct{}

// callContext is a Call as a context: one allocation for both, because every
// request pays for it.
type callContext Call

func (c *callContext) parent() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.request
}

func (c *callContext) Deadline() (time.Time, bool) { return c.parent().Deadline() }
func (c *callContext) Done() <-chan struct{}       { return c.parent().Done() }
func (c *callContext) Err() error                  { return c.parent().Err() }

func (c *callContext) Value(key any) any {
	switch key {
	case callKey{}:
		return (*Call)(c)
	case connKey{}:
		return c.Conn
	}
	if v := c.parent().Value(key); v != nil {
		return v
	}
	return (*Call)(c).traced(key)
}

// In returns ctx with the call and its connection in it, for a server that has
// contexts of its own.
func (c *Call) In(ctx context.Context) context.Context { return &ofCall{ctx, c, c.admitted} }

// Admitted hands the values of ctx, as its guards have returned it, to the
// contexts that [Call.In] makes. It is called once, before them.
func (c *Call) Admitted(ctx context.Context) { c.admitted = ctx }

type ofCall struct {
	context.Context
	call     *Call
	admitted context.Context
}

func (c *ofCall) Value(key any) any {
	switch key {
	case callKey{}:
		return c.call
	case connKey{}:
		return c.call.Conn
	}
	if c.admitted != nil {
		if v := c.admitted.Value(key); v != nil {
			return v
		}
	}
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.call.traced(key)
}

// CallFrom returns the call that ctx belongs to, or nil outside of one.
func CallFrom(ctx context.Context) *Call {
	c, _ := ctx.Value(callKey{}).(*Call)
	return c
}
