// Package broadcast sends messages to those who are connected, to any instance: channels
// with history, recovery and presence, on centrifuge as the engine.
//
//	hub, err := broadcast.New(broadcast.Options{
//		Namespaces: []broadcast.Namespace{{
//			Name: "news", HistorySize: 100, HistoryTTL: time.Minute, Recovery: true,
//			Subscribe: []broadcast.Rule{broadcast.Anyone}, Publish: []broadcast.Rule{broadcast.Nobody},
//		}},
//	})
//	defer hub.Close()
//	srv.WebSocket("/connection/websocket", hub.WebSocket)
//	res, err := hub.Publish(ctx, broadcast.Message{Channel: "news:today", Data: []byte(`{"rain":true}`)})
//
// The rule: a channel "news:today" belongs to the namespace "news", one without a colon to the
// namespace "". What is in no namespace is unknown, and what no rule of it allows is refused.
//
// There are four ways in and out: centrifuge's protocol over WebSocket ([Hub.WebSocket], for
// its SDKs), messages one way over a plain WebSocket ([Hub.StreamSocket]) or as Server-Sent Events
// ([Hub.Stream]), REST ([Hub.API]) and gRPC ([Hub.Register]). Sockets are sessions of
// protocols/ws: its pings, limits, drain and 1013 for slow consumers hold. Who a subscriber is, the
// call's identity says.
//
// Without Redis the channels are this process's own. With Redis, what one instance publishes all
// of them deliver; while it is away, publishing fails with [ErrAway] within some seconds, and
// subscribers keep their connections: what they have missed they get when it is back, from the history.
package broadcast
