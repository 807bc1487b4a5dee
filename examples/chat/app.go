package main

import (
	"context"
	"crypto"
	"log/slog"
	"strings"
	"time"

	"github.com/oneport-edge/oneport/examples/chat/chatpb"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/auth"
	"github.com/oneport-edge/oneport/router/broadcast"
	"github.com/oneport-edge/oneport/router/redisstore"
)

const (
	mostHistory = 100       // messages that a room remembers
	keepHistory = time.Hour // and for how long after the last one
	mostShown   = 50        // messages that a newcomer sees
	mostMessage = 16 << 10  // bytes of JSON from a client, even if it escapes all that is not ASCII
	mostRooms   = 8         // of one WebSocket
)

// options are what differs between instances and tests.
type options struct {
	redis string // an URL; "" is for one instance
	key   crypto.Signer
	log   *slog.Logger
}

// app is the chat: rooms are channels of the hub, and the server gives three protocols to them.
type app struct {
	hub    *broadcast.Hub
	srv    *router.Server
	mint   *auth.Mint
	tokens *auth.JWT
}

func newApp(o options) (*app, error) {
	a := &app{}
	var err error
	if a.mint, a.tokens, err = newTokens(o.key); err != nil {
		return nil, err
	}
	opts := broadcast.Options{
		Namespaces: []broadcast.Namespace{{
			Name: roomPrefix, HistorySize: mostHistory, HistoryTTL: keepHistory,
			Recovery: true, Presence: true, JoinLeave: true,
			Subscribe: []broadcast.Rule{broadcast.Authenticated},
			Publish:   []broadcast.Rule{broadcast.Authenticated},
		}},
		MessageSize: mostMessage, Channels: mostRooms, Log: o.log,
	}
	if o.redis != "" {
		opts.Redis = &broadcast.Redis{Options: redisstore.Options{URL: o.redis}, Prefix: "oneport:chat"}
	}
	if a.hub, err = broadcast.New(opts); err != nil {
		return nil, err
	}
	web, err := newWeb(a)
	if err != nil {
		a.hub.Close()
		return nil, err
	}
	a.srv = &router.Server{
		HTTP: web, Guards: []protocols.Guard{gate{a.tokens}}, Log: o.log,
		Sockets: ws.Options{ReadLimit: a.hub.ReadLimit()}, // pages of this host only: the zero Origins
	}
	a.srv.WebSocket("/connection/websocket", a.hub.WebSocket)
	chatpb.RegisterFeedServer(a.srv, newFeed(a.hub))
	return a, nil
}

// gate is the guard of all three protocols. Everybody may have the page and say a name; for
// the rooms it must be known who asks.
type gate struct{ *auth.JWT }

func (gate) open(call *protocols.Call) bool {
	return call.Protocol == protocols.HTTP && !strings.HasPrefix(call.Path, "/api/rooms/")
}

// Admit implements protocols.Guard.
func (g gate) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	if g.open(call) {
		return ctx, nil
	}
	return g.JWT.Admit(ctx, call)
}

// AdmitNow implements protocols.Quick.
func (g gate) AdmitNow(ctx context.Context, call *protocols.Call) (context.Context, error) {
	if g.open(call) {
		return ctx, nil
	}
	return g.JWT.AdmitNow(ctx, call)
}
