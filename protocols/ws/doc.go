// Package ws serves WebSockets (RFC 6455) on gorilla/websocket, with what a
// port open to strangers needs around it: an Origin check, a message limit
// that holds after inflating, dead-peer detection, a bounded send queue, one
// writer, close codes, and a drain.
//
//	s := ws.NewServer(log)
//	http.Handle("/echo", s.Handler(func(ctx context.Context, c *ws.Conn) error {
//		for {
//			typ, msg, err := c.Read()
//			if err != nil {
//				return err
//			}
//			if err := c.Write(typ, msg); err != nil {
//				return err
//			}
//		}
//	}, ws.Options{}))
//
// The rule: a handler reads. Pings, pongs and the peer's close arrive only
// while somebody reads; a handler that only sends calls [Conn.CloseRead]
// first. What it returns ends the session: nil closes with 1000, a
// *[CloseError] with its code, any other error with 1011, a panic with 1011
// and a stack in the log.
//
// [Conn.Write] waits for the peer, [Conn.Send] never does: a hub that sends to
// many uses Send, and a peer that does not keep up is closed with 1013 when
// its queue is full, instead of holding up everybody else.
//
// What Send leaves is written by a few goroutines for all sessions, by system calls that do not
// wait; a session whose socket is full gets one of its own until it has caught up.
//
// An idle session costs one goroutine (the handler's), a 256-byte read buffer
// and no write buffer: the handler runs in a goroutine of its own with a small
// stack, so that net/http's is given back after the handshake.
//
// [Server.Tunnel] hands upgrades on to a server elsewhere. A tunnel is a session
// among the others, drained and counted with them. [Relay] says how much of what goes
// through it is looked at; what passes is never changed.
//
// A client that offers [protocols.InBand] is told when its credential ends, and may show a newer
// one, over the session itself: neither handlers nor servers elsewhere notice.
//
// Locks: Server.mu, then Conn.mu, tunnel.mu or aware.mu, then pool.mu; no socket operation under any.
// lane.w, under which a tunnel's socket is written to, comes before aware.mu, and inband.mu before
// aware.mu and Conn.mu.
package ws
