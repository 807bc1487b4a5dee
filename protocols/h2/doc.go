// Package h2 is the only HTTP/2 endpoint that a client sees. It switches
// streams: it decodes the head of each request, asks where it belongs, and
// hands the stream's frames on: to a server in this process, a native
// grpc.Server or net/http, each behind an HTTP/2 connection of its own, to
// one elsewhere, over connections that all clients share, or to a function.
// Header blocks are decoded and encoded again, DATA is copied and never
// understood, flow control, trailers, resets and cancellation go through.
//
// Where to look: switch.go has the life of the whole, client.go what a client
// sends (control.go: frames without a request in them; life.go: reading and the
// end), origin.go what a server sends, back.go and local.go servers in this
// process, upstream.go and trunk.go those elsewhere, handler.go and exchange.go
// functions, stream.go a stream and its two halves, guard.go who is let in,
// socket.go all writing, sweep.go all timeouts of clients, limits.go all numbers.
//
// RFC 9113 is meant wherever a section is named.
package h2
