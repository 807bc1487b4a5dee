package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/oneport-edge/oneport/examples/chat/chatpb"
	"github.com/oneport-edge/oneport/protocols"
)

// feedQueue is how many messages may wait for the reader of a feed. It is
// more than the history, which comes at once.
const feedQueue = 256

// feed is the room by gRPC.
type feed struct {
	chatpb.UnimplementedFeedServer
	room     *room
	draining func() <-chan struct{}
}

func (f feed) Post(ctx context.Context, req *chatpb.PostRequest) (*chatpb.PostResponse, error) {
	m, err := f.room.say(req.GetName(), req.GetText(), protocols.CallFrom(ctx).Protocol.String())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &chatpb.PostResponse{Message: toProto(m)}, nil
}

func (f feed) Watch(_ *chatpb.WatchRequest, out grpc.ServerStreamingServer[chatpb.WatchResponse]) error {
	events := make(chan event, feedQueue)
	stop := f.room.listen(func(e event) bool {
		select {
		case events <- e:
			return true
		default:
			close(events) // the room forgets us, so nothing is sent after this
			return false
		}
	})
	defer stop()
	// Sent at once, though nothing may happen for long: a client that has it
	// knows that it misses nothing from here on.
	if err := out.SendHeader(nil); err != nil {
		return err
	}
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return status.Error(codes.ResourceExhausted, "too slow a reader")
			}
			if err := out.Send(&chatpb.WatchResponse{Message: toProto(e.message)}); err != nil {
				return err
			}
		case <-f.draining():
			return status.Error(codes.Unavailable, "the server is going away")
		case <-out.Context().Done():
			return status.FromContextError(out.Context().Err()).Err()
		}
	}
}

func toProto(m message) *chatpb.Message {
	return &chatpb.Message{
		Id:   m.ID,
		Time: timestamppb.New(m.Time),
		Kind: m.Kind,
		Name: m.Name,
		Text: m.Text,
		Via:  m.Via,
	}
}
