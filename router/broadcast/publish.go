package broadcast

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/centrifugal/centrifuge"

	"github.com/oneport-edge/oneport/protocols"
)

// What may be wrong with a call. [Hub.API] and gRPC say it in their words.
var (
	ErrUnknownChannel = errors.New("broadcast: the channel is in no namespace")
	ErrForbidden      = errors.New("broadcast: not allowed")
	ErrMalformed      = errors.New("broadcast: malformed")
	ErrTooBig         = errors.New("broadcast: too big")
	ErrBusy           = errors.New("broadcast: too many calls wait for the broker")
	// ErrAway says that the broker did not answer. A message may have got there: who tries
	// again uses the same idempotency key.
	ErrAway = errors.New("broadcast: the broker is away")
)

// Message is what is published.
type Message struct {
	Channel string
	// Data is JSON.
	Data []byte
	// IdempotencyKey names the message, at most 128 bytes: what was published under a key in
	// the last five minutes is not published again. "" is no name.
	IdempotencyKey string
	// Tags go along with it: at most 16, of at most 64 bytes.
	Tags map[string]string
}

// Position is a place in a channel's history: zero without one. An Epoch is another one when
// a history was lost.
type Position struct {
	Offset uint64 `json:"offset,omitempty"`
	Epoch  string `json:"epoch,omitempty"`
}

// Publish sends a message to all subscribers. When it returns without an error, the message is
// in the channel's history, if that has one. It waits for the broker for some seconds at most.
func (h *Hub) Publish(ctx context.Context, m Message) (Position, error) {
	n := h.namespace(m.Channel)
	if n == nil {
		return Position{}, ErrUnknownChannel
	}
	res, err := h.publish(ctx, n, m, nil)
	return Position(res.StreamPosition), err
}

const (
	mostKey   = 128
	mostTags  = 16
	mostTag   = 64
	keepKeys  = 5 * time.Minute
	mostBatch = 1000
)

func (h *Hub) check(m *Message) error {
	switch {
	case len(m.Data) > h.opts.MessageSize:
		return fmt.Errorf("%w: a message has at most %d bytes", ErrTooBig, h.opts.MessageSize)
	case !json.Valid(m.Data):
		return fmt.Errorf("%w: data is not JSON", ErrMalformed)
	case len(m.IdempotencyKey) > mostKey:
		return fmt.Errorf("%w: an idempotency key has at most %d bytes", ErrMalformed, mostKey)
	case len(m.Tags) > mostTags:
		return fmt.Errorf("%w: a message has at most %d tags", ErrMalformed, mostTags)
	}
	for k, v := range m.Tags {
		if len(k) > mostTag || len(v) > mostTag {
			return fmt.Errorf("%w: a tag has at most %d bytes", ErrMalformed, mostTag)
		}
	}
	return nil
}

func (h *Hub) publish(ctx context.Context, n *Namespace, m Message, by *centrifuge.ClientInfo) (res centrifuge.PublishResult, err error) {
	if err := h.check(&m); err != nil {
		return res, err
	}
	if bytes.ContainsAny(m.Data, "\r\n") { // between its tokens: a line is a message, on the wire
		var b bytes.Buffer
		_ = json.Compact(&b, m.Data) // it is valid
		m.Data = b.Bytes()
	}
	opts := make([]centrifuge.PublishOption, 0, 4)
	if n.HistorySize > 0 {
		opts = append(opts, centrifuge.WithHistory(n.HistorySize, n.HistoryTTL))
	}
	if m.IdempotencyKey != "" {
		opts = append(opts, centrifuge.WithIdempotencyKey(m.IdempotencyKey), centrifuge.WithIdempotentResultTTL(keepKeys))
	}
	if by != nil {
		opts = append(opts, centrifuge.WithClientInfo(by))
	}
	if len(m.Tags) > 0 {
		opts = append(opts, centrifuge.WithTags(m.Tags))
	}
	err = h.use(ctx, func(e *engine) (err error) {
		res, err = e.Publish(m.Channel, m.Data, opts...)
		return err
	})
	return res, err
}

// use asks the broker, which takes some seconds at most. Without Redis it answers at once.
func (h *Hub) use(ctx context.Context, ask func(e *engine) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e := h.node.Load()
	if e == nil {
		return ErrAway
	}
	if h.opts.Redis != nil {
		select {
		case h.using <- struct{}{}:
			defer func() { <-h.using }()
		default:
			return ErrBusy
		}
	}
	err := ask(e)
	var known *centrifuge.Error
	switch {
	case err == nil && h.node.Load() != e:
		return ErrAway // closed meanwhile: nobody may have got it
	case err == nil:
		return nil
	case errors.Is(err, centrifuge.ErrorUnrecoverablePosition):
		return fmt.Errorf("%w: the history does not reach back to that position", ErrMalformed)
	case errors.As(err, &known) && known.Code == centrifuge.ErrorBadRequest.Code:
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	default:
		return fmt.Errorf("%w: %w", ErrAway, err)
	}
}

// Client is a connection that is subscribed.
type Client struct {
	Client string `json:"client"`
	User   string `json:"user,omitempty"`
}

// Presence tells who is subscribed to a channel whose namespace has Presence.
func (h *Hub) Presence(ctx context.Context, channel string) (list []Client, err error) {
	n := h.namespace(channel)
	switch {
	case n == nil:
		return nil, ErrUnknownChannel
	case !n.Presence:
		return nil, fmt.Errorf("%w: the namespace has no presence", ErrMalformed)
	}
	err = h.use(ctx, func(e *engine) error {
		res, err := e.Presence(channel)
		for _, c := range res.Presence {
			list = append(list, Client{c.ClientID, c.UserID})
		}
		return err
	})
	return list, err
}

// mostHistory bounds what one call gives of a history, and how much of a channel who comes back gets at
// once: it is all in memory, and no queue bounds it.
const mostHistory = 1000

// HistoryOptions say what of a history.
type HistoryOptions struct {
	Limit   int       // zero means 100; at most 1000
	Since   *Position // what comes behind it
	Reverse bool      // the newest first
}

// Publication is a message as subscribers get it.
type Publication struct {
	Offset    uint64            `json:"offset,omitempty"`
	Data      json.RawMessage   `json:"data"`
	Tags      map[string]string `json:"tags,omitempty"`
	Publisher *Client           `json:"publisher,omitempty"` // a client, if one has published it
}

// History gives what a channel remembers, and where it stands.
func (h *Hub) History(ctx context.Context, channel string, o HistoryOptions) (list []Publication, at Position, err error) {
	n := h.namespace(channel)
	switch {
	case n == nil:
		return nil, at, ErrUnknownChannel
	case n.HistorySize == 0:
		return nil, at, fmt.Errorf("%w: the namespace has no history", ErrMalformed)
	case o.Limit < 0 || o.Limit > mostHistory:
		return nil, at, fmt.Errorf("%w: limit is 1 to %d", ErrMalformed, mostHistory)
	case o.Limit == 0:
		o.Limit = 100
	}
	f := centrifuge.HistoryFilter{Limit: o.Limit, Reverse: o.Reverse}
	if o.Since != nil {
		f.Since = &centrifuge.StreamPosition{Offset: o.Since.Offset, Epoch: o.Since.Epoch}
	}
	err = h.use(ctx, func(e *engine) error {
		res, err := e.History(channel, centrifuge.WithHistoryFilter(f))
		for _, p := range res.Publications {
			list = append(list, *publicationFrom(p))
		}
		at = Position(res.StreamPosition)
		return err
	})
	return list, at, err
}

// Disconnect ends the connections of a user on all instances, or one of them: those of
// WebSockets with 3503, which SDKs do not come back from. Users are subjects of identities.
func (h *Hub) Disconnect(ctx context.Context, user, client string) error {
	if user == "" {
		return fmt.Errorf("%w: disconnect whom?", ErrMalformed)
	}
	return h.use(ctx, func(e *engine) error {
		opts := []centrifuge.DisconnectOption{centrifuge.WithCustomDisconnect(centrifuge.DisconnectForceNoReconnect)}
		if client != "" {
			opts = append(opts, centrifuge.WithDisconnectClient(client))
		}
		return e.Disconnect(user, opts...)
	})
}

// refusal is err as a call's refusal; nil if it is none that the table knows.
func refusal(err error) *protocols.Refusal {
	switch {
	case errors.Is(err, ErrForbidden):
		return &protocols.Refusal{Reason: protocols.ReasonForbidden}
	case errors.Is(err, ErrTooBig):
		return &protocols.Refusal{Reason: protocols.ReasonTooBig, Text: text(err)}
	case errors.Is(err, ErrBusy), errors.Is(err, ErrAway):
		return &protocols.Refusal{Reason: protocols.ReasonOverloaded, Text: text(err), RetryAfter: time.Second}
	}
	return nil
}

// text is what callers get of err: the broker's own words stay here.
func text(err error) string {
	for _, known := range []error{ErrAway, ErrBusy} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return err.Error()
}
