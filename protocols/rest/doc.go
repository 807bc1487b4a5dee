// Package rest serves HTTP requests: it configures net/http as a server for
// strangers, makes a [protocols.Call] of every request, and knows Gin.
//
//	s := rest.NewServer(rest.Options{Handler: app, Log: log})
//	go s.Serve(queue) // a net.Listener of routed connections, see protocols/mux
//	...
//	s.Drain(patience) // answers say "Connection: close" from here on
//	s.Shutdown(ctx)
//
// The rule: connections arrive routed. A TLS connection is a *tls.Conn whose
// handshake is done and nothing else, because net/http fills Request.TLS and
// speaks HTTP/2 only then.
//
// What it does for every request, before the handler: bounds the number of
// header fields, refuses names that would turn into a trusted header once "_"
// reads "-", takes away forwarding headers that a stranger sent, bounds how
// long a body may stand still, recovers panics, and writes the access line.
//
// The limits: a request's head (bytes and time) is bounded by net/http; a
// client that takes nothing of its answer is ended by the kernel (see
// protocols/mux).
package rest
