// Package mux brings a connection from accept to the server that speaks its
// protocol: bounds, PROXY header, first bytes, TLS, passthrough, ALPN.
//
//	m := &mux.Mux{
//		Registry: conn.NewRegistry(conn.Options{}),
//		TLS:      certs.Config(source, certs.Options{}),
//		HTTP1:    h1.Deliver,
//		HTTP2:    h2.Deliver,
//	}
//	go m.Serve(listener)
//
// The rule: nothing is decided for a whole connection but how its bytes are
// framed. A connection that selected "h2" goes to HTTP2 whatever its first
// request will be, one that selected "http/1.1" or nothing goes to HTTP1; what
// a request is, the servers behind decide request by request.
//
// The first bytes are read by soheilhy/cmux, on the plaintext side of TLS
// only, and at most [FirstBytes] of them. cmux has no safe defaults, so it is
// fenced: own matchers, a byte budget, a deadline it cannot lift, an accept
// loop below it that backs off, sub-listeners whose Close closes nothing else,
// no MatchWithWriters (a SETTINGS frame written before the server's own breaks
// curl), and its MuxConn never leaves this package.
//
// What a connection can cost before it is routed: one socket, two goroutines
// one after the other, 24 bytes, a ClientHello of at most [HelloBytes], and
// one slot among Handshakes from the complete hello to the first write of the
// answer. All of it ends at the connection's absolute deadline.
package mux
