// Package conn keeps account of every client connection, from accept to
// close: the [Registry] counts and bounds them, lists them, closes one or all,
// and tells an observer each step of their state machine.
//
//	reg := conn.NewRegistry(conn.Options{Bounds: conn.Bounds{Total: 10000}})
//	c, reason := reg.Add(socket, conn.Origin{Listener: ":443"})
//	if c == nil {
//		socket.Close() // over a bound; reason says which, and it is counted
//	}
//
// A [Conn] is the raw side of a connection: the socket below TLS. It is the
// one owner of bytes that were read ahead ([Conn.Unread]), so that what goes
// out to the next layer is what came in; it counts bytes; and as long as the
// connection is not routed it holds every deadline that anybody sets to the
// absolute one it was accepted with.
//
// The rule: a Conn leaves the registry by its own Close, never otherwise.
// Whoever holds a wrapper of it (a *tls.Conn, a hijacked net.Conn) closes the
// wrapper, and the Close arrives here.
//
// Locks: Registry.mu may be held while Conn's atomics are read; no callback
// and no socket operation runs under it.
package conn
