// Package protocols is the vocabulary that every other package shares: what a
// connection is ([Conn]), what a call is ([Call]), which of the three
// protocols a call speaks ([Protocol]), and which states a connection passes
// through ([State]).
//
// It holds types and pure functions only. Nothing here opens a socket, starts
// a goroutine or decides a policy, so that a package can speak of connections
// and calls without knowing who carries them.
//
//	func hello(w http.ResponseWriter, r *http.Request) {
//		call := protocols.CallFrom(r.Context())
//		fmt.Fprintf(w, "%s over %s, connection %s", call.Protocol, call.Conn.Kind, call.Conn.ID)
//	}
//
// The same two lines work in a gRPC handler and in a WebSocket handler: all
// three find their [Call] in their context.
package protocols
