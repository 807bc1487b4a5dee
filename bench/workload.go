package main

import (
	"context"
	"encoding/binary"
	"fmt"
)

// workload is one comparison.
type workload struct {
	group string // what -only calls it
	name  string
	own   string // the server with a port of its own
	ops   int    // operations of one slice
	most  limit
	open  opener
}

// opener opens a load of the server at addr.
type opener func(ctx context.Context, h *house, addr string) (load, error)

// limit is what a ratio may be at most.
type limit struct {
	ratio  float64 // 0 if nobody asked
	median bool    // the median; otherwise the interval must reach down to it
}

// load is a number of open connections that can be worked on.
type load interface {
	// run does n operations and waits for the last answer.
	run(ctx context.Context, n int) error
	close()
}

// connections is how many clients load a server at once over HTTP/1.1 and
// WebSocket; over HTTP/2 it is h2Conns with h2Streams calls each.
const (
	connections = 16
	h2Conns     = 4
	h2Streams   = 16
	handshakers = 4
)

const (
	helloAnswer = `{"message":"Hello from HTTP"}`
	// message is what REST and WebSocket echo, and what gRPC has in its one field.
	message = `{"type":"chat","room":"lobby","from":"alice","text":"the quick brown fox jumps over the lazy dog","seq":12345}`
)

func workloads() []workload {
	unary64 := openHTTP2(h2Streams, "POST", "/oneport.echo.v1.Echo/Unary", "application/grpc", grpcFrame(), grpcFrame())
	return []workload{
		{"rest", "REST, HTTP/1.1, GET", ownHTTP, 2500, limit{1.03, false}, openHTTP1("GET", "/api/hello", "", helloAnswer)},
		{"rest", "REST, HTTP/1.1, POST", ownHTTP, 2500, limit{1.03, false}, openHTTP1("POST", "/api/echo", message, message)},
		{"rest", "REST, HTTP/2, GET", ownHTTP, 2500, limit{1.05, true}, openHTTP2(h2Streams, "GET", "/api/hello", "application/json", "", helloAnswer)},
		{"rest", "REST, HTTP/2, POST", ownHTTP, 2500, limit{1.05, true}, openHTTP2(h2Streams, "POST", "/api/echo", "application/json", message, message)},
		{"grpc", "gRPC, unary, 64 in flight", ownGRPC, 2000, limit{1.15, true}, unary64},
		{"grpc", "gRPC, unary, 1 in flight", ownGRPC, 1000, limit{}, openUnary(1, message)},
		{"grpc", "gRPC, ping-pong stream", ownGRPC, 4000, limit{1.2, true}, openPingPong},
		{"grpc", "gRPC, unary, 64 KiB", ownGRPC, 400, limit{1.2, true}, openUnary(8, bigMessage)},
		{"ws", "WebSocket, echo", ownWS, 4000, limit{1.03, false}, openWebSocket("/ws", message)},
		{"handshake", "TLS handshake, full", ownHTTP, 150, limit{1.03, false}, openHandshakes},
	}
}

// grpcFrame is a message whose field 1 is message, behind gRPC's prefix.
func grpcFrame() string {
	m := append(binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(message))), message...)
	return string(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...))
}

// answerError is an answer other than the one expected.
type answerError struct{ got, want string }

func (e *answerError) Error() string {
	return fmt.Sprintf("the server answered %q, want %q", e.got, e.want)
}
