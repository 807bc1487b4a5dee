package main

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/oneport-edge/oneport/examples/chat/chatpb"
	broadcastv1 "github.com/oneport-edge/oneport/proto/oneport/broadcast/v1"
	"github.com/oneport-edge/oneport/router/broadcast"
)

// feed is the rooms by gRPC.
type feed struct {
	chatpb.UnimplementedFeedServer
	rooms rooms
	hub   tap
}

// tap has the hub's own gRPC service: the feed follows rooms by it, and gives what it says in
// its own words.
type tap struct{ broadcastv1.BroadcastServer }

// RegisterService implements grpc.ServiceRegistrar.
func (t *tap) RegisterService(_ *grpc.ServiceDesc, impl any) {
	t.BroadcastServer, _ = impl.(broadcastv1.BroadcastServer)
}

func newFeed(hub *broadcast.Hub) *feed {
	f := &feed{rooms: rooms{hub}}
	hub.Register(&f.hub)
	return f
}

// Post implements chatpb.FeedServer.
func (f *feed) Post(ctx context.Context, req *chatpb.PostRequest) (*chatpb.PostResponse, error) {
	m, err := f.rooms.say(ctx, req.GetRoom(), req.GetText())
	if err != nil {
		return nil, grpcError(err)
	}
	return &chatpb.PostResponse{Message: toProto(m)}, nil
}

// Watch implements chatpb.FeedServer.
func (f *feed) Watch(req *chatpb.WatchRequest, out grpc.ServerStreamingServer[chatpb.WatchResponse]) error {
	channel, err := channelOf(req.GetRoom())
	if err != nil {
		return grpcError(err)
	}
	list, at, err := f.rooms.last(out.Context(), channel)
	if err != nil {
		return grpcError(err)
	}
	// From where the history ends, so that nothing is missing between the two.
	return f.hub.Subscribe(&broadcastv1.SubscribeRequest{
		Channels: []string{channel},
		Since:    map[string]*broadcastv1.Position{channel: {Offset: at.Offset, Epoch: at.Epoch}},
	}, &watcher{ServerStreamingServer: nil, out: out, history: list})
}

// watcher is what the hub's stream is for a client of Watch.
type watcher struct {
	grpc.ServerStreamingServer[broadcastv1.SubscribeResponse]
	out     grpc.ServerStreamingServer[chatpb.WatchResponse]
	history []message
}

// Context implements grpc.ServerStream.
func (w *watcher) Context() context.Context { return w.out.Context() }

// Send translates an event.
func (w *watcher) Send(e *broadcastv1.SubscribeResponse) error {
	switch {
	case e.GetSubscribed() != nil:
		// Sent at once, though nothing may happen for long: a client that has it
		// knows that it misses nothing from here on.
		if err := w.out.SendHeader(nil); err != nil {
			return err
		}
		for _, m := range w.history {
			if err := w.send(m); err != nil {
				return err
			}
		}
		w.history = nil
	case e.GetPublication() != nil:
		p := e.GetPublication()
		pub := broadcast.Publication{Offset: p.GetOffset(), Data: p.GetData()}
		if by := p.GetPublisher(); by != nil {
			pub.Publisher = &broadcast.Client{Client: by.GetClient(), User: by.GetUser()}
		}
		if m, ok := messageOf(&pub); ok {
			return w.send(m)
		}
	case e.GetJoin() != nil:
		return w.send(message{Kind: "joined", Name: e.GetJoin().GetUser()})
	case e.GetLeave() != nil:
		return w.send(message{Kind: "left", Name: e.GetLeave().GetUser()})
	}
	return nil
}

func (w *watcher) send(m message) error {
	return w.out.Send(&chatpb.WatchResponse{Message: toProto(m)})
}

// grpcError is an error's status by gRPC.
func grpcError(err error) error {
	code := codes.Unavailable
	if _, ok := errors.AsType[invalidError](err); ok {
		code = codes.InvalidArgument
	} else if errors.Is(err, errUnknown) {
		code = codes.Unauthenticated
	}
	return status.Error(code, words(err))
}

func toProto(m message) *chatpb.Message {
	p := &chatpb.Message{Id: m.ID, Kind: m.Kind, Name: m.Name, Text: m.Text, Via: m.Via}
	if !m.Time.IsZero() {
		p.Time = timestamppb.New(m.Time)
	}
	return p
}
