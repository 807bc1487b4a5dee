package protocols

import "strings"

// Protocol is what one call speaks. A connection has none: an HTTP/2
// connection may carry HTTP and gRPC side by side, an HTTP/1.1 connection may
// serve HTTP and then become a WebSocket.
type Protocol uint8

// The protocols of a call.
const (
	HTTP      Protocol = iota // an ordinary HTTP request, gRPC-Web and Connect included
	GRPC                      // a gRPC call, unary or streaming
	WebSocket                 // a WebSocket handshake and the session behind it
)

// String gives "http", "grpc" or "websocket": a bounded set, fit for a label.
func (p Protocol) String() string {
	switch p {
	case GRPC:
		return "grpc"
	case WebSocket:
		return "websocket"
	default:
		return "http"
	}
}

const grpcType = "application/grpc"

// IsGRPC reports whether a request with this method and Content-Type is a
// gRPC call: POST, and "application/grpc" alone or followed by "+" or ";", in
// any case (gRPC over HTTP/2, "Requests"). "application/grpc-web" and its
// variants are ordinary HTTP: a prefix test, as in grpc-go's own example,
// would hand them to a server that answers 415.
func IsGRPC(method, contentType string) bool {
	if method != "POST" || len(contentType) < len(grpcType) {
		return false
	}
	if !strings.EqualFold(contentType[:len(grpcType)], grpcType) {
		return false
	}
	return len(contentType) == len(grpcType) ||
		contentType[len(grpcType)] == '+' || contentType[len(grpcType)] == ';'
}
