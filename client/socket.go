package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"
)

// What holds unless options say otherwise.
const (
	pingEvery   = 25 * time.Second
	pongWithin  = 10 * time.Second
	shakeWithin = 10 * time.Second
	writeWithin = 10 * time.Second
	closeWithin = 5 * time.Second
	readLimit   = 1 << 20
	queueLen    = 64
)

// Kind is of a message.
type Kind uint8

// The kinds; the numbers are RFC 6455's.
const (
	Text   Kind = 1
	Binary Kind = 2
)

// Message is one that came.
type Message struct {
	Kind Kind
	Data []byte

	news *Delivery // of a Subscription: what it means
}

// SocketOptions of a socket. The zero value will do.
type SocketOptions struct {
	// Header is sent with each handshake. An Authorization of its own takes the token's place.
	Header http.Header
	// Subprotocols are offered, besides InBand's.
	Subprotocols []string
	// NoInBand does not offer to take a newer token to the server on the open
	// connection. Then the connection ends with its token, and the socket comes back.
	NoInBand bool
	// Backoff is how it comes back.
	Backoff Backoff
	// Again has it come back also after close code 1000, which ends it otherwise.
	Again bool
	// Ping is how often the server is pinged; 0 is 25 s, negative is never. When nothing at
	// all has come for Pong after one (0 is 10 s), the connection is dead.
	Ping, Pong time.Duration
	// Handshake bounds a token's fetch, dialing, TLS, the handshake and OnConnect, together; 0 is 10 s.
	Handshake time.Duration
	// ReadLimit is how many bytes a message may have; 0 is 1 MiB. A larger one ends the socket.
	ReadLimit int64
	// Queue is how many messages wait for Read; 0 is 64. While it is full no more is taken
	// from the connection. Servers end clients that go on like that, oneport with 1013.
	Queue int
	// OnConnect says on each new connection what must be said first, as subscriptions, before
	// the socket is connected and Write goes on. An error ends the connection, and is tried again.
	OnConnect func(ctx context.Context, write func(Kind, []byte) error) error
}

// Socket is a WebSocket that comes back by itself, while somebody is in Run. Read
// and Write may be called concurrently with everything.
type Socket struct {
	c      *Client
	opts   SocketOptions
	target func() string       // path and query of a handshake
	take   func(*Message) bool // sees each message first, in its order; false keeps it from Read
	queue  chan Message        // for Read
	done   chan struct{}       // closed when Run has returned, or never will

	mu      sync.Mutex // guards the fields below
	state   State
	watch   []func(Event)
	cancel  context.CancelFunc // ends Run
	running bool
	closed  bool
	session *session      // to write to, while connected
	change  chan struct{} // closed when session changes
	err     error         // Run's
}

// WebSocket returns a socket for a path, which may have a query. It does nothing
// until Run.
func (c *Client) WebSocket(path string, o SocketOptions) *Socket {
	o.Backoff = o.Backoff.withDefaults()
	o.Ping, o.Pong, o.Handshake = either(o.Ping, pingEvery), either(o.Pong, pongWithin), either(o.Handshake, shakeWithin)
	if o.ReadLimit <= 0 {
		o.ReadLimit = readLimit
	}
	if o.Queue <= 0 {
		o.Queue = queueLen
	}
	return &Socket{
		c: c, opts: o,
		target: func() string { return path },
		take:   func(*Message) bool { return true },
		queue:  make(chan Message, o.Queue),
		done:   make(chan struct{}),
		change: make(chan struct{}),
	}
}

// State is where it stands now.
func (s *Socket) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// OnState has f called with each change of state from here on, one after the other, by
// Run. f must not wait, and may call all but Close.
func (s *Socket) OnState(f func(Event)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch = append(s.watch, f)
}

func (s *Socket) set(e Event) {
	s.mu.Lock()
	s.state = e.State
	watch := s.watch
	s.mu.Unlock()
	for _, f := range watch {
		f(e)
	}
}

// Run connects, and stays connected, until ctx ends, Close is called or the server says
// something final. It waits for all that it has begun. It returns nil after
// Close, or when the server has closed with 1000; ctx's error; or why the socket has
// failed. A socket runs once.
func (s *Socket) Run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	if s.running || s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.running, s.cancel = true, cancel
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
		close(s.done)
	}()
	return s.run(ctx)
}

// run tries, and tries again.
func (s *Socket) run(ctx context.Context) error {
	p := progress{}
	for {
		p.try++
		s.set(Event{State: Connecting, Try: p.try})
		err := s.connect(ctx, &p)
		if ctx.Err() != nil {
			s.set(Event{State: Disconnected, Final: true})
			return s.ended(ctx)
		}
		next, delay, why := s.after(&p, err)
		if next == actClosed {
			s.set(Event{State: Disconnected, Try: p.try, Final: true, Err: err})
			return nil
		}
		if next == actFinal {
			s.set(Event{State: Failed, Try: p.try, Final: true, Err: why})
			return why
		}
		s.set(Event{State: Disconnected, Try: p.try, Delay: delay, Err: err})
		if !wait(ctx, delay) {
			s.set(Event{State: Disconnected, Final: true})
			return s.ended(ctx)
		}
	}
}

// progress is what Run knows of its tries.
type progress struct {
	try     int    // in a row
	ends    int    // of connections and tries, in a row
	stale   string // a token that was refused, to be replaced; "" if none was
	renewed bool   // it was replaced because of a 401, and no handshake has succeeded since
	token   string // the one last used
}

// after says what follows err, and when.
func (s *Socket) after(p *progress, err error) (next action, delay time.Duration, why error) {
	b := s.opts.Backoff
	p.ends++
	next = decide(err)
	if next == actAgain {
		if p.renewed || s.c.tokens.fetch == nil || s.opts.Header.Get("Authorization") != "" {
			return actFinal, 0, err
		}
		p.renewed, p.stale = true, p.token
	}
	switch {
	case next == actClosed && s.opts.Again:
		next = actRetry
	case next == actRenew && s.c.tokens.fetch == nil:
		return actFinal, 0, err
	case next == actRenew:
		p.stale = p.token
	}
	switch {
	case next == actFinal, next == actClosed:
		return next, 0, err
	case b.Tries > 0 && p.try >= b.Tries:
		return actFinal, 0, fmt.Errorf("%w after %d tries: %w", ErrGaveUp, p.try, err)
	case next == actAgain:
		return next, 0, err
	}
	delay = s.c.jitter(b.window(p.ends))
	if refused, ok := errors.AsType[*HandshakeError](err); ok {
		delay += refused.RetryAfter // no earlier, and not all at once
	}
	return next, delay, err
}

// ended is what Run returns because its context has ended.
func (s *Socket) ended(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	return ctx.Err()
}

// wait reports whether d has passed, and ctx not ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// Close ends the socket, with 1000 if it is connected, and waits until Run has
// returned. Messages that have come can still be read.
func (s *Socket) Close() error {
	s.mu.Lock()
	first, running := !s.closed, s.running
	s.closed = true
	if running {
		s.cancel()
	}
	s.mu.Unlock()
	if !running {
		if first {
			close(s.done)
		}
		return nil
	}
	<-s.done
	return nil
}

// Read gives the next message. It waits, also while the socket is not connected, until
// ctx ends. Once the socket has ended and all messages are read it gives why:
// ErrClosed, or what Run returns.
func (s *Socket) Read(ctx context.Context) (Message, error) {
	select {
	case m := <-s.queue: // what has come counts before all else
		return m, nil
	default:
	}
	select {
	case m := <-s.queue:
		return m, nil
	case <-ctx.Done():
		return Message{}, ctx.Err()
	case <-s.done:
	}
	select {
	case m := <-s.queue:
		return m, nil
	default:
		return Message{}, s.why()
	}
}

func (s *Socket) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	return ErrClosed
}

// Write sends a message. While the socket is not connected, or another Write is not
// done, it waits until ctx ends: nothing is kept, so that nothing is sent later that
// its caller has given up. Once a message has begun to leave, ctx does not stop it: a server
// that does not take it within 10 s loses the connection. nil is that the message was handed
// to the network, not that the server has it; after an error it may have arrived. It is
// not sent twice.
func (s *Socket) Write(ctx context.Context, k Kind, p []byte) error {
	if k != Binary && !utf8.Valid(p) {
		return errors.New("client: a text message is not UTF-8")
	}
	for {
		s.mu.Lock()
		now, change := s.session, s.change
		s.mu.Unlock()
		if now != nil {
			if err := now.write(ctx, k, p); !errors.Is(err, errGone) {
				return err
			}
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.done:
			return s.why()
		}
	}
}

// serves says where Write goes.
func (s *Socket) serves(now *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session = now
	close(s.change)
	s.change = make(chan struct{})
}
