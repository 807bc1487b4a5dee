package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/oneport-edge/oneport/protocols"
)

// streamField is the metadata by which the stream switch says which of its
// streams a call is (protocols/h2, StreamField).
const streamField = "oneport-stream"

// withCall puts the Call of a natively served call into its context. The
// switch has begun it; the local address of the connection finds it.
func withCall(ctx context.Context) context.Context {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ctx
	}
	at, ok := p.LocalAddr.(interface {
		TakeCall(stream string) *protocols.Call
	})
	if !ok {
		return ctx // not behind the switch
	}
	values := metadata.ValueFromIncomingContext(ctx, streamField)
	if len(values) != 1 {
		return ctx
	}
	if call := at.TakeCall(values[0]); call != nil {
		return call.In(ctx)
	}
	return ctx
}

// stream is a ServerStream with another context.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }
