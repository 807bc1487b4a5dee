package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// mostChannels is how many one stream may have.
const mostChannels = 16

// Position is a place in a channel's history. The zero value is none: the channel
// has no history, or nothing is known of it.
type Position struct {
	Offset uint64 `json:"offset"`
	Epoch  string `json:"epoch"`
}

// Member is a client of a channel, as the server knows it.
type Member struct {
	Client string `json:"client"`
	User   string `json:"user"`
}

// Delivery is one thing that a channel brings: a publication, somebody who comes
// or goes, or that something was lost.
type Delivery struct {
	Channel string
	// Lost is that publications before this delivery may be missing: the history
	// does not reach back to where the subscription stood, or there is none. What shows the
	// channel asks for its state anew.
	Lost bool
	// Position is where the subscription stands after this delivery. Who keeps it can go on
	// from there in another process, by SubscribeOptions.Since.
	Position Position
	// Data is a publication's, as JSON; nil if this is none.
	Data json.RawMessage
	// Tags and Publisher are a publication's, if it has any.
	Tags      map[string]string
	Publisher *Member
	// Join and Leave are set if somebody comes or goes.
	Join, Leave *Member
}

// SubscribeOptions of a subscription. The zero value will do.
type SubscribeOptions struct {
	SocketOptions

	// Path of the stream; "" is /broadcast/stream.
	Path string
	// Since says where the subscription stood before, by channel.
	Since map[string]Position
}

// Subscription is a socket on oneport's stream of channels (docs/broadcast.md). It
// keeps account of where it stands, says so whenever it comes back, and gives what was
// published meanwhile: each publication once, and those of a channel in their order.
type Subscription struct {
	socket   *Socket
	path     string
	channels []string

	mu    sync.Mutex // guards the field below
	stand map[string]*standing
}

// standing is what is known of one channel.
type standing struct {
	at    Position
	known bool // it has been subscribed to, here or by who gave Since
}

// Subscribe returns a subscription to 1 to 16 channels. It does nothing until Run.
func (c *Client) Subscribe(channels []string, o SubscribeOptions) (*Subscription, error) {
	if len(channels) == 0 || len(channels) > mostChannels {
		return nil, fmt.Errorf("client: %d channels, want 1 to %d", len(channels), mostChannels)
	}
	if o.Path == "" {
		o.Path = "/broadcast/stream"
	}
	s := &Subscription{path: o.Path, channels: slices.Clone(channels), stand: make(map[string]*standing, len(channels))}
	for _, ch := range channels {
		if s.stand[ch] != nil {
			return nil, fmt.Errorf("client: channel %q is there twice", ch)
		}
		at, known := o.Since[ch]
		s.stand[ch] = &standing{at, known}
	}
	s.socket = c.WebSocket("", o.SocketOptions)
	s.socket.target, s.socket.take = s.target, s.take
	return s, nil
}

// Run is [Socket.Run].
func (s *Subscription) Run(ctx context.Context) error { return s.socket.Run(ctx) }

// Close is [Socket.Close].
func (s *Subscription) Close() error { return s.socket.Close() }

// State is [Socket.State].
func (s *Subscription) State() State { return s.socket.State() }

// OnState is [Socket.OnState].
func (s *Subscription) OnState(f func(Event)) { s.socket.OnState(f) }

// Next gives the next delivery. It waits, and ends, as [Socket.Read] does.
func (s *Subscription) Next(ctx context.Context) (Delivery, error) {
	for {
		m, err := s.socket.Read(ctx)
		if err != nil {
			return Delivery{}, err
		}
		if m.news != nil { // always: take lets nothing else through
			return *m.news, nil
		}
	}
}

// target is the handshake's: the channels, and where each stands.
func (s *Subscription) target() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	since := make([]string, len(s.channels))
	some := false
	for i, ch := range s.channels {
		if at := s.stand[ch].at; at.Epoch != "" {
			since[i], some = strconv.FormatUint(at.Offset, 10)+":"+at.Epoch, true
		}
	}
	q := url.Values{"channel": s.channels}
	if some {
		q.Set("since", strings.Join(since, ","))
	}
	sep := "?"
	if strings.Contains(s.path, "?") {
		sep = "&"
	}
	return s.path + sep + q.Encode()
}

// wire is a message of the stream.
type wire struct {
	Channel    string            `json:"channel"`
	Offset     uint64            `json:"offset"`
	Data       json.RawMessage   `json:"data"`
	Tags       map[string]string `json:"tags"`
	Publisher  *Member           `json:"publisher"`
	Join       *Member           `json:"join"`
	Leave      *Member           `json:"leave"`
	Subscribed *struct {
		Position

		Recovered bool `json:"recovered"`
	} `json:"subscribed"`
}

// take says what a message means, and whether it is news. What it notes it has got: the
// queue outlives the connection.
func (s *Subscription) take(m *Message) bool {
	var w wire
	if err := json.Unmarshal(m.Data, &w); err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stand[w.Channel]
	if st == nil {
		return false
	}
	d := &Delivery{Channel: w.Channel}
	switch {
	case w.Subscribed != nil:
		d.Lost = st.known && !w.Subscribed.Recovered
		if !w.Subscribed.Recovered || st.at.Epoch != w.Subscribed.Epoch {
			st.at = w.Subscribed.Position
		}
		st.known = true
		if !d.Lost {
			return false
		}
	case w.Join != nil || w.Leave != nil:
		d.Join, d.Leave = w.Join, w.Leave
	case w.Data == nil:
		return false
	case w.Offset > 0 && w.Offset <= st.at.Offset: // it was here already
		return false
	default:
		if w.Offset > 0 {
			d.Lost = st.at.Epoch != "" && w.Offset > st.at.Offset+1
			st.at.Offset = w.Offset
		}
		d.Data, d.Tags, d.Publisher = w.Data, w.Tags, w.Publisher
	}
	d.Position = st.at
	m.news = d
	return true
}
