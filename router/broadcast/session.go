package broadcast

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
)

// Subprotocols are those that a route for [Hub.WebSocket] offers: the second is centrifuge's
// protocol in protocol buffers, all else is JSON.
func Subprotocols() []string { return []string{"centrifuge-json", protobufName} }

const protobufName = "centrifuge-protobuf"

const pingEvery = 25 * time.Second

// maxFrame is how many messages leave in one frame of centrifuge's protocol.
const maxFrame = 128

// WebSocket serves centrifuge's protocol, version 2: its SDKs connect to it. It is JSON, or
// protocol buffers if the subprotocol or "cf_protocol=protobuf" in the query says so.
func (h *Hub) WebSocket(ctx context.Context, c *ws.Conn) error {
	t := &transport{c: c, kind: centrifuge.ProtocolTypeJSON}
	if c.Subprotocol() == protobufName {
		t.kind = centrifuge.ProtocolTypeProtobuf
	} else if r := c.Request(); r != nil && r.URL.RawQuery != "" {
		if q := r.URL.Query(); q.Get("cf_protocol") == "protobuf" || q.Get("format") == "protobuf" {
			t.kind = centrifuge.ProtocolTypeProtobuf
		}
	}
	e := h.node.Load()
	if e == nil {
		return errComeBack
	}
	client, done, err := centrifuge.NewClient(ctx, e.Node, t)
	if err != nil {
		return err
	}
	defer func() { _ = done() }() // its error is always nil
	limit := h.ReadLimit()
	for {
		_, p, err := c.Read()
		if err != nil {
			return err
		}
		if !centrifuge.HandleReadFrame(client, bytes.NewReader(p), limit) {
			// Its transport is being closed with what is wrong, by another goroutine.
			late := time.NewTimer(closeFor)
			defer late.Stop()
			select {
			case <-ctx.Done():
				return nil
			case <-late.C: // nobody reads here, so nothing else would end it soon
				return &ws.CloseError{Code: int(centrifuge.DisconnectBadRequest.Code), Reason: centrifuge.DisconnectBadRequest.Reason}
			}
		}
	}
}

// frameSlack is what a command may have around its message.
const frameSlack = 4 << 10

// errComeBack closes sessions while there is no broker.
var errComeBack = &ws.CloseError{Code: ws.CloseTryAgainLater, Reason: "broker is away"}

// identity is who a subscriber is.
func identity(ctx context.Context) (*protocols.Identity, *centrifuge.Credentials) {
	id := protocols.IdentityFrom(ctx)
	if id == nil {
		return nil, &centrifuge.Credentials{}
	}
	return id, &centrifuge.Credentials{UserID: id.Subject}
}

// connecting is asked about each new client. When its credential ends, its call does.
func (h *Hub) connecting(ctx context.Context, e centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
	_, who := identity(ctx)
	reply := centrifuge.ConnectReply{
		Credentials: who, MaxMessagesInFrame: maxFrame, WriteDelay: h.opts.Gather, WriteWithTimer: h.opts.Gather > 0,
	}
	if f, ok := e.Transport.(interface {
		subscriptions() map[string]centrifuge.SubscribeOptions
	}); ok {
		reply.Subscriptions = f.subscriptions()
	}
	return reply, nil
}

// connected says what a client may do.
func (h *Hub) connected(c *centrifuge.Client) {
	if h.node.Load() == nil { // Close may have told all others already
		c.Disconnect(centrifuge.DisconnectShutdown)
		return
	}
	if c.Transport().Unidirectional() {
		return
	}
	id := protocols.IdentityFrom(c.Context())
	c.OnSubscribe(func(e centrifuge.SubscribeEvent, done centrifuge.SubscribeCallback) {
		n, err := h.subscribable(id, e.Channel)
		if err != nil {
			done(centrifuge.SubscribeReply{}, clientError(err))
			return
		}
		if e.Type != centrifuge.SubscriptionTypeStream {
			done(centrifuge.SubscribeReply{}, centrifuge.ErrorNotAvailable)
			return
		}
		done(centrifuge.SubscribeReply{Options: n.subscription()}, nil)
	})
	c.OnPublish(func(e centrifuge.PublishEvent, done centrifuge.PublishCallback) {
		res, err := h.clientPublish(c.Context(), id, e)
		if err != nil {
			done(centrifuge.PublishReply{}, clientError(err))
			return
		}
		done(centrifuge.PublishReply{Result: &res}, nil)
	})
	// Only subscribers of a channel may ask.
	may := func(channel string, is func(*Namespace) bool) error {
		if n := h.namespace(channel); n == nil || !is(n) {
			return centrifuge.ErrorNotAvailable
		}
		if !c.IsSubscribed(channel) {
			return centrifuge.ErrorPermissionDenied
		}
		return nil
	}
	presence := func(n *Namespace) bool { return n.Presence }
	c.OnPresence(func(e centrifuge.PresenceEvent, done centrifuge.PresenceCallback) {
		done(centrifuge.PresenceReply{}, may(e.Channel, presence))
	})
	c.OnPresenceStats(func(e centrifuge.PresenceStatsEvent, done centrifuge.PresenceStatsCallback) {
		done(centrifuge.PresenceStatsReply{}, may(e.Channel, presence))
	})
	c.OnHistory(func(e centrifuge.HistoryEvent, done centrifuge.HistoryCallback) {
		done(centrifuge.HistoryReply{}, may(e.Channel, func(n *Namespace) bool { return n.Recovery }))
	})
}

// subscribable gives the namespace of a channel that id may listen to.
func (h *Hub) subscribable(id *protocols.Identity, channel string) (*Namespace, error) {
	n := h.namespace(channel)
	if n == nil {
		return nil, ErrUnknownChannel
	}
	if !allowed(n.Subscribe, id, channel) {
		return nil, ErrForbidden
	}
	return n, nil
}

func (h *Hub) clientPublish(ctx context.Context, id *protocols.Identity, e centrifuge.PublishEvent) (centrifuge.PublishResult, error) {
	n := h.namespace(e.Channel)
	if n == nil {
		return centrifuge.PublishResult{}, ErrUnknownChannel
	}
	if !allowed(n.Publish, id, e.Channel) {
		return centrifuge.PublishResult{}, ErrForbidden
	}
	return h.publish(ctx, n, Message{Channel: e.Channel, Data: e.Data}, e.ClientInfo)
}

// clientError is err in centrifuge's words.
func clientError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrUnknownChannel):
		return centrifuge.ErrorUnknownChannel
	case errors.Is(err, ErrForbidden):
		return centrifuge.ErrorPermissionDenied
	case errors.Is(err, ErrMalformed):
		return centrifuge.ErrorBadRequest
	case errors.Is(err, ErrTooBig):
		return centrifuge.ErrorLimitExceeded
	default:
		return errTemporary
	}
}

// errTemporary has clients try again.
var errTemporary = &centrifuge.Error{Code: 503, Message: "broker is away", Temporary: true}

// transport is a session as centrifuge writes to it. Nothing of it waits: the session has
// a queue of its own.
type transport struct {
	c    *ws.Conn
	kind centrifuge.ProtocolType
	once sync.Once
}

// Name implements centrifuge.Transport.
func (t *transport) Name() string { return "websocket" }

// AcceptProtocol implements centrifuge.Transport.
func (t *transport) AcceptProtocol() string { return "" }

// Protocol implements centrifuge.Transport.
func (t *transport) Protocol() centrifuge.ProtocolType { return t.kind }

// ProtocolVersion implements centrifuge.Transport.
func (t *transport) ProtocolVersion() centrifuge.ProtocolVersion {
	return centrifuge.ProtocolVersion2
}

// Unidirectional implements centrifuge.Transport.
func (t *transport) Unidirectional() bool { return false }

// Emulation implements centrifuge.Transport.
func (t *transport) Emulation() bool { return false }

// DisabledPushFlags implements centrifuge.Transport: a close frame says why.
func (t *transport) DisabledPushFlags() uint64 { return centrifuge.PushFlagDisconnect }

// PingPongConfig implements centrifuge.Transport. Browsers do not tell scripts of a session's
// pings, so SDKs get theirs, and find out by them that a server is gone. They need not answer: the
// session finds out by its own that a client is.
func (t *transport) PingPongConfig() centrifuge.PingPongConfig {
	return centrifuge.PingPongConfig{PingInterval: pingEvery, PongTimeout: -1}
}

// Write sends one message, which all subscribers share.
func (t *transport) Write(p []byte) error {
	if t.kind == centrifuge.ProtocolTypeJSON {
		return t.c.Send(ws.Text, p)
	}
	return t.c.Send(ws.Binary, join(t.kind, p))
}

// WriteMany sends messages as one.
func (t *transport) WriteMany(ps ...[]byte) error {
	typ := ws.Text
	if t.kind == centrifuge.ProtocolTypeProtobuf {
		typ = ws.Binary
	}
	return t.c.Send(typ, join(t.kind, ps...))
}

// join puts messages in one frame: JSON line by line, protocol buffers with their sizes.
func join(kind centrifuge.ProtocolType, ps ...[]byte) []byte {
	size := 0
	for _, p := range ps {
		size += len(p) + binary.MaxVarintLen32
	}
	b := make([]byte, 0, size)
	for i, p := range ps {
		if kind == centrifuge.ProtocolTypeProtobuf {
			b = binary.AppendUvarint(b, uint64(len(p)))
		} else if i > 0 {
			b = append(b, '\n')
		}
		b = append(b, p...)
	}
	return b
}

// Close ends the session. Centrifuge's codes are its clients' to read: up to 3499 they come
// back.
func (t *transport) Close(d centrifuge.Disconnect) error {
	t.once.Do(func() { closeConn(t.c, d) })
	return nil
}

func closeConn(c *ws.Conn, d centrifuge.Disconnect) {
	switch d.Code {
	case centrifuge.DisconnectConnectionClosed.Code:
		c.Close(ws.CloseNormal, "")
	case centrifuge.DisconnectSlow.Code:
		c.CloseSlow()
	case centrifuge.DisconnectShutdown.Code:
		c.Close(ws.CloseGoingAway, "server is going away")
	default:
		c.Close(int(d.Code), d.Reason)
	}
}
