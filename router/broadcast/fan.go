package broadcast

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge"
)

// fan is a channel's one-way subscribers. One client of centrifuge's, which they share, holds
// the subscription; what the broker has for the channel the fan gives to each of them, in the
// goroutine that brings it, so that who publishes more than they get is held up. So there is
// no queue and no goroutine of centrifuge's for each, which cost a third of what a delivery to a WebSocket
// does. Channels with presence, or that tell who comes, have no fan: their subscribers are clients themselves.
type fan struct {
	oneWay
	users int           // guarded by Hub.mu: those who are in it, come to it or leave it
	ready chan struct{} // closed when it is subscribed, or has failed

	mu      sync.Mutex // guards the fields below
	members []*member
	begun   bool
	at      Position // zero without a history
	early   []*event // what has come before begun
	err     error    // why it has ended
	end     func()   // ends its client; nil until it has one
}

// sink is where a stream's events go. It ends by itself if it cannot keep up.
type sink interface {
	put(e *event)            // does not wait
	catchUp(events []*event) // with a history, for which there is more time than room: it may wait, and is called under no lock
	over()                   // the subscription is: its client is to come back
}

// member is a stream in a fan.
type member struct {
	to    sink
	place int    // in members
	had   uint64 // the last that it has had of the history, which may be ahead of the fan
	// While a member that comes back gets what it has missed, what is new waits.
	holds bool
	held  []*event
	size  int // bytes in held
}

// join subscribes a stream to a channel, from a place in its history if it names one. leave ends that.
func (h *Hub) join(ctx context.Context, e *engine, channel string, w *wanted, to sink) (leave func(), err error) {
	f, first := h.enter(channel, w)
	if first {
		f.begin(e)
	}
	m := &member{to: to}
	leave = func() {
		f.remove(m)
		h.leave(f)
	}
	select {
	case <-f.ready:
	case <-h.ctx.Done():
		h.leave(f)
		return nil, ErrAway
	case <-ctx.Done():
		h.leave(f)
		return nil, ctx.Err()
	}
	since, comesBack := w.since[channel]
	comesBack = comesBack && w.fans[channel].EnableRecovery
	at, err := f.add(m, comesBack)
	if err != nil {
		h.leave(f)
		return nil, err
	}
	if !comesBack {
		return leave, nil
	}
	if err := f.catchUp(ctx, e, m, since, at); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// enter gives a channel's fan, and whether it is the caller's to begin.
func (h *Hub) enter(channel string, w *wanted) (f *fan, first bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := w.fans[channel]
	for _, there := range h.fans[channel] {
		if is := there.options[channel]; is.EnablePositioning == o.EnablePositioning && is.EnableRecovery == o.EnableRecovery {
			f = there
		}
	}
	if f == nil {
		own := &wanted{channels: []string{channel}, options: map[string]centrifuge.SubscribeOptions{channel: o}}
		f, first = &fan{oneWay: oneWay{h, "fan", own}, ready: make(chan struct{})}, true
		h.fans[channel] = append(slices.Clip(h.fans[channel]), f)
	}
	f.users++
	return f, first
}

// leave ends a fan that nobody uses any more.
func (h *Hub) leave(f *fan) {
	h.mu.Lock()
	f.users--
	last := f.users == 0
	if last {
		h.forgetLocked(f) // at once: nobody is to come to one that ends
	}
	h.mu.Unlock()
	if !last {
		return
	}
	f.fail(errGoing)
	f.mu.Lock()
	end := f.end
	f.end = nil
	f.mu.Unlock()
	if end != nil {
		end()
	}
}

// forgetLocked has who comes from now on begin another fan.
func (h *Hub) forgetLocked(f *fan) {
	channel := f.channels[0]
	left := slices.DeleteFunc(slices.Clone(h.fans[channel]), func(is *fan) bool { return is == f })
	if h.fans[channel] = left; len(left) == 0 {
		delete(h.fans, channel)
	}
}

// begin subscribes. It may wait for the broker.
func (f *fan) begin(e *engine) {
	end, err := f.hub.client(f.hub.ctx, e, f, nil)
	if err != nil {
		f.fail(err)
		return
	}
	f.mu.Lock()
	f.end = end // the last who leaves calls it, also if the fan has failed already
	f.mu.Unlock()
}

// fail ends the fan: streams that are in it are told, and who comes from now on begins another. Its
// client is ended by the last who leaves: that may wait for what it is writing, and who publishes calls fail.
func (f *fan) fail(err error) {
	h := f.hub
	h.mu.Lock()
	h.forgetLocked(f)
	h.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return
	}
	for _, m := range f.members {
		m.to.over()
	}
	f.err, f.members, f.early = err, nil, nil
	f.readyLocked()
}

func (f *fan) readyLocked() {
	select {
	case <-f.ready:
	default:
		close(f.ready)
	}
}

// add lets a stream in, and says where the channel stands.
func (f *fan) add(m *member, holds bool) (at Position, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return at, f.err
	}
	m.place, m.holds = len(f.members), holds
	f.members = append(f.members, m)
	if !holds {
		m.to.put(f.begins(f.at, false))
	}
	return f.at, nil
}

// begins is the event that comes first.
func (f *fan) begins(at Position, recovered bool) *event {
	return (&event{channel: f.channels[0], subbed: &subscribed{at, recovered}}).written()
}

func (f *fan) remove(m *member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.place >= len(f.members) || f.members[m.place] != m {
		return // the fan has ended
	}
	last := len(f.members) - 1
	f.members[m.place] = f.members[last]
	f.members[m.place].place = m.place
	f.members[last] = nil
	f.members = f.members[:last]
}

// catchUp gives a stream what it has missed since a place, and then what has come meanwhile. at is
// where the channel stood when the stream came.
func (f *fan) catchUp(ctx context.Context, e *engine, m *member, since, at Position) error {
	res, err := f.hub.missed(ctx, e, f.channels[0], since)
	if err != nil {
		return err
	}
	list, recovered := missedSince(res, since)
	now := Position(res.StreamPosition)
	recovered = recovered && now.Epoch == at.Epoch && now.Offset >= at.Offset
	if recovered {
		events := make([]*event, 0, len(list)+1)
		events = append(events, f.begins(since, true)) // what follows leads up to now
		for _, p := range list {
			events = append(events, (&event{channel: f.channels[0], pub: publicationFrom(p)}).written())
		}
		m.to.catchUp(events)
	} else {
		now = at
		m.to.put(f.begins(at, false))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	m.had = now.Offset
	for _, e := range m.held {
		if e.pub.Offset > m.had {
			m.to.put(e)
		}
	}
	m.holds, m.held = false, nil
	return nil
}

// placeFor is how long a stream that comes back waits for others that ask the broker; then its
// client is to try again.
const placeFor = 10 * time.Second

// missed reads a channel's history from a place on.
func (h *Hub) missed(ctx context.Context, e *engine, channel string, since Position) (res centrifuge.HistoryResult, err error) {
	if h.opts.Redis != nil { // as many may come back at once as there are, and each has to be answered
		late := time.NewTimer(placeFor)
		defer late.Stop()
		select {
		case h.using <- struct{}{}:
			defer func() { <-h.using }()
		case <-late.C:
			return res, ErrBusy
		case <-h.ctx.Done():
			return res, ErrAway
		case <-ctx.Done():
			return res, ctx.Err()
		}
	}
	at := &centrifuge.StreamPosition{Offset: since.Offset, Epoch: since.Epoch}
	res, err = e.History(channel, centrifuge.WithHistoryFilter(centrifuge.HistoryFilter{Limit: mostHistory, Since: at}))
	if err != nil && !errors.Is(err, centrifuge.ErrorUnrecoverablePosition) {
		return res, fmt.Errorf("%w: %w", ErrAway, err)
	}
	return res, nil
}

// missedSince is what a history has behind a place: nothing if it does not lead from there to its end.
func missedSince(res centrifuge.HistoryResult, since Position) (list []*centrifuge.Publication, whole bool) {
	list = res.Publications
	switch {
	case res.Epoch != since.Epoch:
		return nil, false
	case len(list) == 0:
		return nil, res.Offset == since.Offset
	case list[0].Offset != since.Offset+1 || list[len(list)-1].Offset != res.Offset:
		return nil, false
	}
	return list, true
}

// Write implements centrifuge.Transport.
func (f *fan) Write(p []byte) error { return f.WriteMany(p) }

// DisabledPushFlags implements centrifuge.Transport. Publications come by take: the client checks that none is missing,
// but has them in no queue, which a burst could fill for all.
func (f *fan) DisabledPushFlags() uint64 {
	return f.oneWay.DisabledPushFlags() | centrifuge.PushFlagPublication
}

// WriteMany implements centrifuge.Transport. Of what the client gets, where it begins and that it is over
// count.
func (f *fan) WriteMany(ps ...[]byte) error {
	for _, p := range ps {
		switch e := f.hub.decode(p); {
		case e == nil:
		case e.over:
			f.fail(errGoing)
			return errGoing // upon which centrifuge ends the client
		case e.begin != nil:
			f.subscribed(e.begin)
		}
	}
	return nil
}

// subscribed is when the fan is.
func (f *fan) subscribed(begin []*event) {
	f.mu.Lock()
	for _, e := range begin {
		if e.subbed != nil {
			f.at = e.subbed.Position
		}
	}
	early := f.early
	f.begun, f.early = true, nil
	whole := f.deliverLocked(early...)
	f.readyLocked()
	f.mu.Unlock()
	if !whole {
		f.fail(errGoing)
	}
}

// tap is between a broker and centrifuge's node, and gives publications to fans.
type tap struct {
	centrifuge.Broker
	hub *Hub
}

// RegisterBrokerEventHandler implements centrifuge.Broker.
func (t *tap) RegisterBrokerEventHandler(to centrifuge.BrokerEventHandler) error {
	return t.Broker.RegisterBrokerEventHandler(&tapped{to, t.hub})
}

// Close implements centrifuge.Closer.
func (t *tap) Close(ctx context.Context) error {
	if c, ok := t.Broker.(centrifuge.Closer); ok {
		return c.Close(ctx)
	}
	return nil
}

type tapped struct {
	centrifuge.BrokerEventHandler
	hub *Hub
}

// HandlePublication implements centrifuge.BrokerEventHandler. The publications of a channel
// come one after the other.
func (t *tapped) HandlePublication(channel string, pub *centrifuge.Publication, at centrifuge.StreamPosition, delta bool, before *centrifuge.Publication) error {
	t.hub.mu.Lock()
	fans := t.hub.fans[channel] // replaced as a whole
	t.hub.mu.Unlock()
	for _, f := range fans {
		f.take(pub, at.Epoch)
	}
	return t.BrokerEventHandler.HandlePublication(channel, pub, at, delta, before)
}

// take gives a publication to all. After one that is missing, or with a history that is another one, the fan has
// ended: who comes back gets what there is.
func (f *fan) take(pub *centrifuge.Publication, epoch string) {
	e := (&event{channel: f.channels[0], pub: publicationFrom(pub), epoch: epoch}).written()
	f.mu.Lock()
	whole := true
	switch {
	case f.err != nil:
	case f.begun:
		whole = f.deliverLocked(e)
	case len(f.early) < mostHistory:
		f.early = append(f.early, &event{pub: &Publication{Offset: pub.Offset}, epoch: epoch}) // nobody is in it yet: its place is all that counts
	default:
		whole = false
	}
	f.mu.Unlock()
	if !whole {
		f.fail(errGoing)
	}
}

// deliverLocked gives publications to all, but for those that have been there. It says whether none
// is missing.
func (f *fan) deliverLocked(events ...*event) (whole bool) {
	for _, e := range events {
		if offset := e.pub.Offset; f.at.Epoch != "" && offset > 0 {
			switch {
			case e.epoch != f.at.Epoch || offset > f.at.Offset+1:
				return false
			case offset <= f.at.Offset:
				continue
			}
			f.at.Offset = offset
		}
		for _, m := range f.members {
			switch {
			case !m.holds && e.pub.Offset <= m.had && m.had > 0:
			case !m.holds:
				m.to.put(e)
			case m.size+len(e.text) > f.hub.opts.Queue:
				m.held, m.size = nil, f.hub.opts.Queue // nor is the rest for it
				m.to.over()
			default:
				m.held, m.size = append(m.held, e), m.size+len(e.text)
			}
		}
	}
	return true
}

// Close implements centrifuge.Transport.
func (f *fan) Close(d centrifuge.Disconnect) error {
	if d.Code == centrifuge.DisconnectShutdown.Code { // which clients of the streams' own are told too, and say so
		f.mu.Lock()
		f.members = nil
		f.mu.Unlock()
	}
	f.fail(errGoing)
	return nil
}

// count is how many clients of centrifuge's the fan has, and for how many streams.
func (f *fan) count() (clients, streams int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.end != nil {
		clients = 1
	}
	return clients, len(f.members)
}

// publicationFrom is one of a history.
func publicationFrom(p *centrifuge.Publication) *Publication {
	pub := &Publication{Offset: p.Offset, Data: p.Data, Tags: p.Tags}
	if p.Info != nil {
		pub.Publisher = &Client{p.Info.ClientID, p.Info.UserID}
	}
	return pub
}

// joinAll subscribes a stream to all of its channels that have a fan. leave ends that.
func (h *Hub) joinAll(ctx context.Context, e *engine, w *wanted, to sink) (leave func(), err error) {
	var left []func()
	leave = func() {
		for _, f := range slices.Backward(left) {
			f()
		}
	}
	for _, channel := range w.channels {
		if _, ok := w.fans[channel]; !ok {
			continue
		}
		f, err := h.join(ctx, e, channel, w, to)
		if err != nil {
			leave()
			return nil, err
		}
		left = append(left, f)
	}
	return leave, nil
}
