package broadcast

import (
	"bytes"
	"encoding/json"
	"hash/maphash"
	"sync"

	broadcastv1 "github.com/oneport-edge/oneport/proto/oneport/broadcast/v1"
)

// event is what one-way subscribers get of a push of centrifuge's. It is made once and shared.
type event struct {
	src     []byte // the push
	channel string
	pub     *Publication
	epoch   string // of the history that pub is in, if a fan has it
	join    *Client
	leave   *Client
	subbed  *subscribed
	begin   []*event // of the push that comes first: what it holds
	over    bool     // the subscription has ended: the client is to come back
	text    []byte   // JSON

	once  sync.Once
	proto *broadcastv1.SubscribeResponse // by message
}

// subscribed comes first, once for each channel.
type subscribed struct {
	Position
	Recovered bool
}

// MarshalJSON has an offset where there is an epoch, also that of an empty history.
func (s *subscribed) MarshalJSON() ([]byte, error) {
	w := struct {
		Offset    *uint64 `json:"offset,omitempty"`
		Epoch     string  `json:"epoch,omitempty"`
		Recovered bool    `json:"recovered,omitempty"`
	}{nil, s.Epoch, s.Recovered}
	if s.Epoch != "" {
		w.Offset = &s.Offset
	}
	return json.Marshal(w)
}

// wire is an event as subscribers read it.
type wire struct {
	Channel    string            `json:"channel"`
	Offset     uint64            `json:"offset,omitempty"`
	Data       json.RawMessage   `json:"data,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	Publisher  *Client           `json:"publisher,omitempty"`
	Join       *Client           `json:"join,omitempty"`
	Leave      *Client           `json:"leave,omitempty"`
	Subscribed *subscribed       `json:"subscribed,omitempty"`
}

// push is one of centrifuge's, in JSON.
type push struct {
	Channel     string          `json:"channel"`
	Pub         *pushed         `json:"pub"`
	Join        *pushedInfo     `json:"join"`
	Leave       *pushedInfo     `json:"leave"`
	Unsubscribe json.RawMessage `json:"unsubscribe"`
	Connect     *struct {
		Subs map[string]struct {
			Epoch        string   `json:"epoch"`
			Offset       uint64   `json:"offset"`
			Recovered    bool     `json:"recovered"`
			Publications []pushed `json:"publications"`
		} `json:"subs"`
	} `json:"connect"`
}

type pushed struct {
	Data   json.RawMessage   `json:"data"`
	Info   *Client           `json:"info"`
	Offset uint64            `json:"offset"`
	Tags   map[string]string `json:"tags"`
}

type pushedInfo struct {
	Info Client `json:"info"`
}

func (p *pushed) publication() *Publication {
	return &Publication{Offset: p.Offset, Data: p.Data, Tags: p.Tags, Publisher: p.Info}
}

// lastEvents is how many pushes are remembered: a burst has several, and several channels are
// busy at once.
const lastEvents = 256

// decode gives the event of a push, which many subscribers get one after the other. It is nil
// if it is nothing to them.
func (h *Hub) decode(p []byte) *event {
	if len(p) == 0 {
		return nil
	}
	last := &h.last[maphash.Bytes(h.seed, p)%lastEvents]
	if e := last.Load(); e != nil && bytes.Equal(e.src, p) { // most often the same slice, which is found at once
		return e
	}
	e := decode(p)
	if e != nil && e.begin == nil {
		last.Store(e)
	}
	return e
}

func decode(p []byte) *event {
	var in push
	if json.Unmarshal(p, &in) != nil {
		return nil
	}
	e := &event{src: p, channel: in.Channel}
	switch {
	case in.Pub != nil:
		e.pub = in.Pub.publication()
	case in.Join != nil:
		e.join = &in.Join.Info
	case in.Leave != nil:
		e.leave = &in.Leave.Info
	case in.Unsubscribe != nil:
		e.over = true
	case in.Connect != nil:
		for channel, s := range in.Connect.Subs {
			at := &subscribed{Position{s.Offset, s.Epoch}, s.Recovered}
			if len(s.Publications) > 0 { // what follows leads up to s.Offset
				at.Offset = s.Publications[0].Offset - 1
			}
			e.begin = append(e.begin, (&event{channel: channel, subbed: at}).written())
			for i := range s.Publications {
				e.begin = append(e.begin, (&event{channel: channel, pub: s.Publications[i].publication()}).written())
			}
		}
		if len(e.begin) == 0 {
			return nil // a stream whose channels all have fans
		}
		return e
	default:
		return nil
	}
	return e.written()
}

// written gives e its text.
func (e *event) written() *event {
	w := wire{Channel: e.channel, Join: e.join, Leave: e.leave, Subscribed: e.subbed}
	if p := e.pub; p != nil {
		w.Offset, w.Data, w.Tags, w.Publisher = p.Offset, p.Data, p.Tags, p.Publisher
	}
	if b, err := json.Marshal(w); err == nil { // always: what is raw has been read as JSON
		e.text = b
	}
	return e
}

// message is the event in protocol buffers.
func (e *event) message() *broadcastv1.SubscribeResponse {
	e.once.Do(func() {
		m := &broadcastv1.SubscribeResponse{Channel: e.channel}
		switch {
		case e.pub != nil:
			m.Event = &broadcastv1.SubscribeResponse_Publication{Publication: publicationOf(e.pub)}
		case e.join != nil:
			m.Event = &broadcastv1.SubscribeResponse_Join{Join: clientOf(e.join)}
		case e.leave != nil:
			m.Event = &broadcastv1.SubscribeResponse_Leave{Leave: clientOf(e.leave)}
		case e.subbed != nil:
			m.Event = &broadcastv1.SubscribeResponse_Subscribed{Subscribed: &broadcastv1.Subscribed{
				Position: positionOf(e.subbed.Position), Recovered: e.subbed.Recovered,
			}}
		}
		e.proto = m
	})
	return e.proto
}

func publicationOf(p *Publication) *broadcastv1.Publication {
	m := &broadcastv1.Publication{Data: p.Data, Offset: p.Offset, Tags: p.Tags}
	if p.Publisher != nil {
		m.Publisher = clientOf(p.Publisher)
	}
	return m
}

func clientOf(c *Client) *broadcastv1.ClientInfo {
	return &broadcastv1.ClientInfo{Client: c.Client, User: c.User}
}

// positionOf is nil for a channel without history.
func positionOf(p Position) *broadcastv1.Position {
	if p == (Position{}) {
		return nil
	}
	return &broadcastv1.Position{Offset: p.Offset, Epoch: p.Epoch}
}
