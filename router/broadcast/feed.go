package broadcast

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/centrifugal/centrifuge"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
)

// mostStream is how many channels a one-way stream may have.
const mostStream = 16

// errGoing ends streams whose clients are to come back.
var errGoing = errors.New("broadcast: the server is going away")

// errSlow ends those of clients that do not keep up.
var errSlow = errors.New("broadcast: slow consumer")

// wanted is what a one-way subscriber asks for.
type wanted struct {
	channels []string
	since    map[string]Position
	options  map[string]centrifuge.SubscribeOptions
	fans     map[string]centrifuge.SubscribeOptions // those of channels that have a fan
}

// want looks whether a subscriber may have channels; with all rights if it is a publisher.
func (h *Hub) want(ctx context.Context, publisher bool, channels []string, since map[string]Position) (*wanted, error) {
	if len(channels) == 0 || len(channels) > mostStream {
		return nil, fmt.Errorf("%w: want 1 to %d channels", ErrMalformed, mostStream)
	}
	w := &wanted{channels: channels, since: since, options: map[string]centrifuge.SubscribeOptions{}, fans: map[string]centrifuge.SubscribeOptions{}}
	id := protocols.IdentityFrom(ctx)
	for i, channel := range channels {
		if slices.Contains(channels[:i], channel) {
			return nil, fmt.Errorf("%w: a channel is named twice", ErrMalformed)
		}
		n := h.namespace(channel)
		if n == nil {
			return nil, ErrUnknownChannel
		}
		if !publisher && !allowed(n.Subscribe, id, channel) {
			return nil, ErrForbidden
		}
		o := n.subscription()
		if n.HistorySize > 0 {
			o.EnablePositioning = true
		}
		if n.Presence || n.JoinLeave {
			w.options[channel] = o
		} else {
			w.fans[channel] = o
		}
	}
	return w, nil
}

// parseSince reads positions as event ids have them, one for each channel: "12:abcd,,7:efgh".
func parseSince(s string, channels []string) (map[string]Position, error) {
	if s == "" {
		return nil, nil //nolint:nilnil // nothing is known, which is no error
	}
	bad := fmt.Errorf("%w: the position is not one of these channels", ErrMalformed)
	parts := strings.Split(s, ",")
	if len(s) > mostSince || len(parts) != len(channels) {
		return nil, bad
	}
	since := map[string]Position{}
	for i, part := range parts {
		if part == "" {
			continue
		}
		offset, epoch, _ := strings.Cut(part, ":")
		n, err := strconv.ParseUint(offset, 10, 64)
		if err != nil || epoch == "" || len(epoch) > mostEpoch || !valid(epoch) {
			return nil, bad
		}
		since[channels[i]] = Position{n, epoch}
	}
	return since, nil
}

const (
	mostEpoch = 64
	mostSince = mostStream * (mostEpoch + 22)
)

// places are where a stream stands, in the order of its channels.
type places struct {
	channels []string
	at       []Position
}

func (p *places) note(e *event) {
	i := slices.Index(p.channels, e.channel)
	switch {
	case i < 0:
	case e.subbed != nil:
		p.at[i] = e.subbed.Position
	case e.pub != nil && e.pub.Offset > 0:
		p.at[i].Offset = e.pub.Offset
	}
}

// appendID writes what parseSince reads; nothing if no channel has a history.
func (p *places) appendID(b []byte) []byte {
	begin := len(b)
	for i, at := range p.at {
		if i > 0 {
			b = append(b, ',')
		}
		if at.Epoch != "" {
			b = strconv.AppendUint(b, at.Offset, 10)
			b = append(b, ':')
			b = append(b, at.Epoch...)
		}
	}
	if len(b)-begin < len(p.at) { // commas alone
		return b[:begin]
	}
	return b
}

// oneWay is what transports have in common whose clients only listen.
type oneWay struct {
	hub  *Hub
	name string
	*wanted
}

// Name implements centrifuge.Transport.
func (t *oneWay) Name() string { return t.name }

// AcceptProtocol implements centrifuge.Transport.
func (t *oneWay) AcceptProtocol() string { return "" }

// Protocol implements centrifuge.Transport.
func (t *oneWay) Protocol() centrifuge.ProtocolType { return centrifuge.ProtocolTypeJSON }

// ProtocolVersion implements centrifuge.Transport.
func (t *oneWay) ProtocolVersion() centrifuge.ProtocolVersion { return centrifuge.ProtocolVersion2 }

// Unidirectional implements centrifuge.Transport.
func (t *oneWay) Unidirectional() bool { return true }

// Emulation implements centrifuge.Transport.
func (t *oneWay) Emulation() bool { return false }

// DisabledPushFlags implements centrifuge.Transport: how the stream ends says why.
func (t *oneWay) DisabledPushFlags() uint64 { return centrifuge.PushFlagDisconnect }

// PingPongConfig implements centrifuge.Transport: streams have heartbeats of their own.
func (t *oneWay) PingPongConfig() centrifuge.PingPongConfig {
	return centrifuge.PingPongConfig{PingInterval: -1, PongTimeout: -1}
}

func (t *oneWay) subscriptions() map[string]centrifuge.SubscribeOptions { return t.options }

// subscribe has a stream get what it wants. done ends that.
func (h *Hub) subscribe(ctx context.Context, t interface {
	centrifuge.Transport
	sink
}, w *wanted,
) (done func(), err error) {
	e := h.node.Load()
	if e == nil {
		return nil, ErrAway
	}
	end, err := h.client(ctx, e, t, w.since)
	if err != nil {
		return nil, err
	}
	leave, err := h.joinAll(ctx, e, w, t)
	if err != nil {
		end()
		return nil, err
	}
	return func() { leave(); end() }, nil
}

// client makes one of centrifuge's of a transport. end ends it.
func (h *Hub) client(ctx context.Context, e *engine, t centrifuge.Transport, since map[string]Position) (end func(), err error) {
	client, done, err := centrifuge.NewClient(ctx, e.Node, t)
	if err != nil {
		return nil, fmt.Errorf("broadcast: %w", err)
	}
	end = func() { _ = done() } // its error is always nil
	req := centrifuge.ConnectRequest{Subs: map[string]centrifuge.SubscribeRequest{}}
	for channel, at := range since {
		req.Subs[channel] = centrifuge.SubscribeRequest{Recover: true, Offset: at.Offset, Epoch: at.Epoch}
	}
	if err := client.ConnectNoErrorToDisconnect(req); err != nil {
		end()
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	return end, nil
}

// socket is a one-way stream over a WebSocket.
type socket struct {
	oneWay
	c    *ws.Conn
	once sync.Once
}

// Write implements centrifuge.Transport.
func (t *socket) Write(p []byte) error { return t.WriteMany(p) }

// WriteMany implements centrifuge.Transport.
func (t *socket) WriteMany(ps ...[]byte) error {
	for _, p := range ps {
		switch e := t.hub.decode(p); {
		case e == nil:
		case e.over:
			t.over()
			return ws.ErrClosed
		case e.begin != nil:
			t.catchUp(e.begin)
		default:
			t.put(e)
		}
	}
	return nil
}

func (t *socket) put(e *event) { _ = t.c.Send(ws.Text, e.text) } // the session ends by itself

func (t *socket) catchUp(events []*event) {
	size := 0
	for i, e := range events { // the session's queue has no room for all: so much leaves together, and is waited for
		if size += len(e.text); size < sendTogether && i < len(events)-1 {
			t.put(e)
			continue
		}
		if size = 0; t.c.Write(ws.Text, e.text) != nil {
			return
		}
	}
}

// sendTogether is how many bytes of a history are sent at once.
const sendTogether = 16 << 10

func (t *socket) over() { t.c.Close(ws.CloseTryAgainLater, "subscription is over") }

// Close implements centrifuge.Transport.
func (t *socket) Close(d centrifuge.Disconnect) error {
	t.once.Do(func() {
		if d.Code >= 3000 && d.Code < 3500 && d.Code != centrifuge.DisconnectConnectionClosed.Code && d.Code != centrifuge.DisconnectSlow.Code && d.Code != centrifuge.DisconnectShutdown.Code {
			t.c.Close(ws.CloseTryAgainLater, d.Reason) // these clients know nothing of centrifuge's codes
			return
		}
		if d.Code >= 3500 {
			t.c.Close(ws.ClosePolicy, d.Reason)
			return
		}
		closeConn(t.c, d)
	})
	return nil
}

// feed is a one-way stream whose events its own goroutine writes.
type feed struct {
	oneWay
	ready chan struct{} // has one when something is new

	mu    sync.Mutex // guards the fields below
	queue []*event
	size  int // bytes in queue
	err   error
}

func (h *Hub) newFeed(name string, w *wanted) *feed {
	return &feed{oneWay: oneWay{h, name, w}, ready: make(chan struct{}, 1)}
}

// open subscribes, and has Drain end the stream.
func (f *feed) open(ctx context.Context) (done func(), err error) {
	h := f.hub
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, ErrAway
	}
	h.streams[f] = struct{}{}
	h.work.Add(1)
	h.mu.Unlock()
	leave := func() {
		h.mu.Lock()
		delete(h.streams, f)
		h.mu.Unlock()
		h.work.Done()
	}
	end, err := h.subscribe(ctx, f, f.wanted)
	if err != nil {
		leave()
		return nil, err
	}
	return func() { end(); leave() }, nil
}

// Write implements centrifuge.Transport.
func (f *feed) Write(p []byte) error { return f.WriteMany(p) }

// WriteMany implements centrifuge.Transport. It does not wait.
func (f *feed) WriteMany(ps ...[]byte) error {
	for _, p := range ps {
		switch e := f.hub.decode(p); {
		case e == nil:
		case e.over:
			f.over()
		case e.begin != nil:
			f.catchUp(e.begin)
		default:
			f.put(e)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *feed) put(e *event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return
	}
	f.queue = append(f.queue, e)
	if f.size += len(e.text); f.size > f.hub.opts.Queue {
		f.hub.slow.Add(1)
		f.endLocked(errSlow)
		return
	}
	f.wake()
}

// catchUp does not wait, nor does what it adds count for the queue's bound: it is mostHistory at most for each channel, once.
func (f *feed) catchUp(events []*event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.queue = append(f.queue, events...)
		f.wake()
	}
}

func (f *feed) over() { f.end(errGoing) }

// Close implements centrifuge.Transport.
func (f *feed) Close(d centrifuge.Disconnect) error {
	switch {
	case d.Code == centrifuge.DisconnectSlow.Code:
		f.hub.slow.Add(1)
		f.end(errSlow)
	case d.Code >= 3500 && d.Code < 4000:
		f.end(ErrForbidden)
	default:
		f.end(errGoing)
	}
	return nil
}

func (f *feed) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endLocked(err)
}

func (f *feed) endLocked(err error) {
	if f.err == nil {
		f.err, f.queue, f.size = err, nil, 0
	}
	f.wake()
}

func (f *feed) wake() {
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// take gives what waits, or why there will be no more.
func (f *feed) take() ([]*event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	list := f.queue
	f.queue, f.size = nil, 0
	return list, nil
}
