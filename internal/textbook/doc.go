// Package textbook is REST, gRPC and WebSocket on one TLS port as tutorials of cmux have
// it, with the faults of that: internal/doctor must find them. Nobody else uses it.
//
// TLS is ended first, and cmux stands between it and the servers. So requests have no
// r.TLS; whoever asks for REST over HTTP/2 meets a server that has already said an empty
// SETTINGS frame in the name of another; the first call of a connection decides for all
// that follow; and clients that say nothing are waited for.
package textbook
