package broadcast

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/prometheus/client_golang/prometheus"
)

// Options configure a Hub.
type Options struct {
	// Namespaces are those of channels; at least one.
	Namespaces []Namespace
	// Redis is where instances meet. Nil is for one instance.
	Redis *Redis
	// Tokens are those of publishers, for API and gRPC; without one nobody is let in there.
	Tokens []string
	// MessageSize bounds the data of a message, in bytes. Zero means 64 KiB.
	MessageSize int
	// Channels bounds how many a connection may be subscribed to. Zero means 128.
	Channels int
	// Queue bounds the bytes that wait for a slow subscriber, before those of its
	// connection. Zero means 1 MiB.
	Queue int
	// Gather is how long messages for one connection are collected to leave together. Zero
	// waits for nothing; what has come meanwhile leaves together all the same.
	Gather time.Duration
	// Log receives what the operator must know. Nil discards.
	Log *slog.Logger
}

// Hub is a broadcast. Its methods may be called concurrently.
type Hub struct {
	opts  Options
	rules atomic.Pointer[rules]
	log   *slog.Logger
	last  [lastEvents]atomic.Pointer[event] // what was decoded last: all subscribers get the same
	seed  maphash.Seed                      // of places in last
	slow  atomic.Int64
	using chan struct{} // a place for each call that waits for the broker

	node atomic.Pointer[engine] // nil while Redis has not been reached yet, and after Close
	ctx  context.Context        //nolint:containedctx // of all that Close ends
	stop context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	streams map[*feed]struct{}
	fans    map[string][]*fan // by channel; more than one after a reload that has given it, or taken from it, a history
	closed  bool
}

// rules are what Update replaces.
type rules struct {
	namespaces
	tokens [][sha256.Size]byte
}

// newRules says what is wrong with them.
func newRules(list []Namespace, tokens []string) (*rules, error) {
	ns, err := newNamespaces(list)
	r := &rules{namespaces: ns}
	for _, t := range tokens {
		if len(t) < minToken {
			return nil, fmt.Errorf("broadcast: a publisher's token has %d characters or more", minToken)
		}
		r.tokens = append(r.tokens, sha256.Sum256([]byte(t)))
	}
	return r, err
}

// Check says what is wrong with namespaces and tokens.
func Check(list []Namespace, tokens []string) error {
	_, err := newRules(list, tokens)
	return err
}

// ReadLimit is what a message of a session may have, as an option of ws: a message to publish, and
// what centrifuge's protocol has around it.
func (h *Hub) ReadLimit() int64 { return int64(h.opts.MessageSize) + frameSlack }

// Update replaces namespaces and tokens. Who is subscribed stays so, and has what held when it
// subscribed.
func (h *Hub) Update(list []Namespace, tokens []string) error {
	r, err := newRules(list, tokens)
	if err == nil {
		h.rules.Store(r)
	}
	return err
}

// namespace gives a channel's; nil if there is none.
func (h *Hub) namespace(channel string) *Namespace { return h.rules.Load().of(channel) }

// engine is a node of centrifuge that runs.
type engine struct {
	*centrifuge.Node
	metrics *prometheus.Registry
	close   func()
}

const (
	// mostUsing bounds the calls that wait for a broker.
	mostUsing = 1024
	// closeFor is how long Close waits for subscribers, and a session for its end.
	closeFor = 5 * time.Second
)

// New makes a Hub, which runs until Close. With Redis it connects in the background; until then
// calls fail with [ErrAway], and connections are told to come back.
func New(o Options) (*Hub, error) {
	r, err := newRules(o.Namespaces, o.Tokens)
	if err != nil {
		return nil, err
	}
	if o.MessageSize < 0 || o.Channels < 0 || o.Queue < 0 || o.Gather < 0 {
		return nil, errors.New("broadcast: a bound below zero")
	}
	o.MessageSize = cmp.Or(o.MessageSize, 64<<10)
	o.Channels = cmp.Or(o.Channels, 128)
	o.Queue = cmp.Or(o.Queue, 1<<20)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &Hub{opts: o, log: o.Log, seed: maphash.MakeSeed(), using: make(chan struct{}, mostUsing), streams: map[*feed]struct{}{}, fans: map[string][]*fan{}}
	h.rules.Store(r)
	h.ctx, h.stop = context.WithCancel(context.Background())
	if o.Redis == nil {
		e, err := h.open()
		if err != nil {
			h.stop()
			return nil, err
		}
		h.node.Store(e)
		return h, nil
	}
	if err := o.Redis.check(); err != nil {
		h.stop()
		return nil, err
	}
	h.work.Go(h.connect)
	return h, nil
}

// minToken is the least length of a token that nobody guesses.
const minToken = 16

// connect tries until Redis is there.
func (h *Hub) connect() {
	const most = 2 * time.Second
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, most) {
		e, err := h.open()
		if err == nil {
			h.mu.Lock()
			closed := h.closed
			if !closed {
				h.node.Store(e)
			}
			h.mu.Unlock()
			if closed {
				e.close()
			} else {
				h.log.Info("broadcast has reached Redis")
			}
			return
		}
		if wait == most/40 {
			h.log.Warn("broadcast waits for Redis", "err", err)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-h.ctx.Done():
			t.Stop()
			return
		}
	}
}

// open makes an engine and runs it.
func (h *Hub) open() (*engine, error) {
	e := &engine{metrics: prometheus.NewRegistry()}
	node, err := centrifuge.New(centrifuge.Config{
		LogLevel: centrifuge.LogLevelWarn, LogHandler: h.logged,
		ClientQueueMaxSize: h.opts.Queue, ClientChannelLimit: h.opts.Channels, ChannelMaxLength: mostChannel,
		HistoryMaxPublicationLimit: mostHistory, RecoveryMaxPublicationLimit: mostHistory, UseSingleFlight: true,
		// Messages that Redis has taken and not handed on, while a connection to it was lost, are
		// found missing within the sum of the two; and at once when the channel's next one comes.
		// One look for each channel is for all its subscribers.
		ClientChannelPositionCheckDelay: 5 * time.Second,
		ClientPresenceUpdateInterval:    10 * time.Second,
		GetChannelMediumOptions: func(channel string) centrifuge.ChannelMediumOptions {
			n := h.namespace(channel)
			return centrifuge.ChannelMediumOptions{SharedPositionSync: n != nil && n.HistorySize > 0}
		},
		Metrics: centrifuge.MetricsConfig{RegistererGatherer: e.metrics},
	})
	if err != nil {
		return nil, fmt.Errorf("broadcast: %w", err)
	}
	e.Node = node
	node.OnConnecting(h.connecting)
	node.OnConnect(h.connected)
	var closeBroker func()
	var broker centrifuge.Broker
	if h.opts.Redis != nil {
		broker, closeBroker, err = h.opts.Redis.attach(node)
	} else {
		broker, err = centrifuge.NewMemoryBroker(node, centrifuge.MemoryBrokerConfig{})
	}
	if err != nil {
		return nil, fmt.Errorf("broadcast: %w", err)
	}
	node.SetBroker(&tap{broker, h})
	e.close = func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeFor)
		defer cancel()
		_ = node.Shutdown(ctx) // late clients find their connections closed
		if closeBroker != nil {
			closeBroker()
		}
	}
	if err := node.Run(); err != nil {
		e.close()
		return nil, fmt.Errorf("broadcast: %w", err)
	}
	return e, nil
}

// logged writes what centrifuge has to say.
func (h *Hub) logged(e centrifuge.LogEntry) {
	level := slog.LevelWarn
	if e.Level < centrifuge.LogLevelWarn {
		level = slog.LevelDebug
	}
	if e.Level >= centrifuge.LogLevelError {
		level = slog.LevelError
	}
	attrs := make([]any, 0, 2*len(e.Fields))
	for k, v := range e.Fields {
		attrs = append(attrs, k, v)
	}
	h.log.Log(h.ctx, level, "broadcast: "+e.Message, attrs...)
}

// Close ends all subscriptions, and then what the Hub has open. It waits for some seconds at
// most. Connections are told to come back.
func (h *Hub) Close() {
	h.mu.Lock()
	closed := h.closed
	h.closed = true
	h.mu.Unlock()
	if closed {
		return
	}
	h.stop()
	h.Drain()
	h.work.Wait()
	if e := h.node.Swap(nil); e != nil { // first: nobody is to come to one that has ended
		e.close()
	}
}

// Drain ends the streams that have no end of their own, Server-Sent Events and those of gRPC: their
// clients come back, to another instance. WebSockets are the server's to drain.
func (h *Hub) Drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for f := range h.streams {
		f.end(errGoing)
	}
}

// Stats are counts at one moment.
type Stats struct {
	Connected     bool // to Redis, once; true without Redis
	Clients       int  // connections of all kinds
	Channels      int  // with subscribers here
	Subscriptions int
	Slow          int64 // connections closed so far because they did not keep up, but those that ws has counted
}

// Stats returns the counts.
func (h *Hub) Stats() Stats {
	st := Stats{Slow: h.slow.Load()}
	if e := h.node.Load(); e != nil {
		hub := e.Hub()
		st.Connected, st.Clients, st.Channels, st.Subscriptions = true, hub.NumClients(), hub.NumChannels(), hub.NumSubscriptions()
	}
	h.mu.Lock()
	fans := slices.Concat(slices.Collect(maps.Values(h.fans))...)
	h.mu.Unlock()
	for _, f := range fans {
		one, all := f.count()
		st.Clients, st.Subscriptions = st.Clients-one, st.Subscriptions-one+all
	}
	return st
}

// Metrics are centrifuge's own, of the engine that runs; nil while there is none.
func (h *Hub) Metrics() prometheus.Gatherer {
	if e := h.node.Load(); e != nil {
		return e.metrics
	}
	return nil
}
