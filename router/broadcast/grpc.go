package broadcast

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	broadcastv1 "github.com/oneport-edge/oneport/proto/oneport/broadcast/v1"
	"github.com/oneport-edge/oneport/protocols"
)

// Register serves oneport.broadcast.v1.Broadcast. Calls need a publisher's token, but Subscribe,
// which those may call as well whom the namespaces let subscribe.
func (h *Hub) Register(r grpc.ServiceRegistrar) { Register(r, func() *Hub { return h }) }

// Register serves the same with a Hub that may be another one for the next call.
func Register(r grpc.ServiceRegistrar, hub func() *Hub) {
	broadcastv1.RegisterBroadcastServer(r, &service{hub: hub})
}

type service struct {
	broadcastv1.UnimplementedBroadcastServer
	hub func() *Hub
}

// now gives the Hub, and whether the caller is a publisher.
func (s *service) now(ctx context.Context) (h *Hub, publisher bool, err error) {
	if h = s.hub(); h == nil {
		return nil, false, status.Error(codes.Unavailable, "there is no broadcast")
	}
	md, _ := metadata.FromIncomingContext(ctx)
	fields := md.Get("authorization")
	return h, len(fields) == 1 && h.publisher(fields[0]), nil
}

// admit gives the Hub to those who have a token.
func (s *service) admit(ctx context.Context) (*Hub, error) {
	h, publisher, err := s.now(ctx)
	if err == nil && !publisher {
		err = status.Error(codes.Unauthenticated, "credentials are missing or bad")
	}
	return h, err
}

// statusOf is err in gRPC's words.
func statusOf(err error) error {
	if err == nil {
		return nil
	}
	return status.Error(codeOf(err), text(err))
}

func codeOf(err error) codes.Code {
	switch {
	case errors.Is(err, ErrUnknownChannel):
		return codes.NotFound
	case errors.Is(err, ErrForbidden):
		return codes.PermissionDenied
	case errors.Is(err, ErrTooBig), errors.Is(err, errSlow):
		return codes.ResourceExhausted
	case errors.Is(err, ErrMalformed):
		return codes.InvalidArgument
	case errors.Is(err, ErrAway): // whatever Redis' client says of it: that it was waited for too long is one of the ways
		return codes.Unavailable
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	default:
		return codes.Unavailable
	}
}

func messageOf(r *broadcastv1.PublishRequest) Message {
	return Message{Channel: r.GetChannel(), Data: r.GetData(), IdempotencyKey: r.GetIdempotencyKey(), Tags: r.GetTags()}
}

// Publish implements the service.
func (s *service) Publish(ctx context.Context, r *broadcastv1.PublishRequest) (*broadcastv1.PublishResponse, error) {
	hub, err := s.admit(ctx)
	if err != nil {
		return nil, err
	}
	at, err := hub.Publish(ctx, messageOf(r))
	if err != nil {
		return nil, statusOf(err)
	}
	return &broadcastv1.PublishResponse{Position: positionOf(at)}, nil
}

// PublishBatch implements the service.
func (s *service) PublishBatch(ctx context.Context, r *broadcastv1.PublishBatchRequest) (*broadcastv1.PublishBatchResponse, error) {
	hub, err := s.admit(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Message, len(r.GetPublications()))
	for i, p := range r.GetPublications() {
		list[i] = messageOf(p)
	}
	res := new(broadcastv1.PublishBatchResponse)
	err = hub.batch(ctx, list, func(at Position, err error) {
		one := &broadcastv1.PublishResult{Position: positionOf(at)}
		if err != nil {
			one.Error = &broadcastv1.Error{Code: uint32(codeOf(err)), Message: text(err)}
		}
		res.Results = append(res.Results, one)
	})
	return res, statusOf(err)
}

// Subscribe implements the service.
func (s *service) Subscribe(r *broadcastv1.SubscribeRequest, out grpc.ServerStreamingServer[broadcastv1.SubscribeResponse]) error {
	ctx := out.Context()
	hub, publisher, err := s.now(ctx)
	if err != nil {
		return err
	}
	since := map[string]Position{}
	for channel, at := range r.GetSince() {
		if len(since) == mostStream || len(at.GetEpoch()) > mostEpoch {
			return statusOf(ErrMalformed)
		}
		since[channel] = Position{at.GetOffset(), at.GetEpoch()}
	}
	w, err := hub.want(ctx, publisher, r.GetChannels(), since)
	if err != nil {
		return statusOf(err)
	}
	f := hub.newFeed("grpc", w)
	done, err := f.open(ctx)
	if err != nil {
		return statusOf(err)
	}
	defer done()
	call := protocols.CallFrom(ctx)
	for {
		select {
		case <-f.ready:
		case <-ctx.Done():
			return statusOf(ctx.Err())
		}
		events, err := f.take()
		if err != nil {
			return statusOf(err)
		}
		if err := sendAll(call, out, events); err != nil {
			return err
		}
	}
}

// sendAll sends events. A client that takes nothing for writeFor loses its call: one that answers
// pings could hold it, and whoever waits for it, for ever.
func sendAll(call *protocols.Call, out grpc.ServerStreamingServer[broadcastv1.SubscribeResponse], events []*event) error {
	if len(events) == 0 {
		return nil
	}
	late := time.AfterFunc(writeFor, func() {
		if call != nil { // another server's call nobody can end from outside
			call.End(errStuck)
		}
	})
	defer late.Stop()
	for _, e := range events {
		if err := out.Send(e.message()); err != nil {
			return err
		}
		late.Reset(writeFor)
	}
	return nil
}

// errStuck is what a client gets that takes nothing, once it does again.
var errStuck = &protocols.Refusal{Reason: protocols.ReasonOverloaded, Text: "slow consumer"}

// Presence implements the service.
func (s *service) Presence(ctx context.Context, r *broadcastv1.PresenceRequest) (*broadcastv1.PresenceResponse, error) {
	hub, err := s.admit(ctx)
	if err != nil {
		return nil, err
	}
	list, err := hub.Presence(ctx, r.GetChannel())
	res := new(broadcastv1.PresenceResponse)
	for i := range list {
		res.Clients = append(res.Clients, clientOf(&list[i]))
	}
	return res, statusOf(err)
}

// History implements the service.
func (s *service) History(ctx context.Context, r *broadcastv1.HistoryRequest) (*broadcastv1.HistoryResponse, error) {
	hub, err := s.admit(ctx)
	if err != nil {
		return nil, err
	}
	o := HistoryOptions{Limit: int(min(r.GetLimit(), mostHistory+1)), Reverse: r.GetReverse()}
	if at := r.GetSince(); at != nil {
		o.Since = &Position{at.GetOffset(), at.GetEpoch()}
	}
	list, at, err := hub.History(ctx, r.GetChannel(), o)
	res := &broadcastv1.HistoryResponse{Position: positionOf(at)}
	for i := range list {
		res.Publications = append(res.Publications, publicationOf(&list[i]))
	}
	return res, statusOf(err)
}

// Disconnect implements the service.
func (s *service) Disconnect(ctx context.Context, r *broadcastv1.DisconnectRequest) (*broadcastv1.DisconnectResponse, error) {
	hub, err := s.admit(ctx)
	if err != nil {
		return nil, err
	}
	return &broadcastv1.DisconnectResponse{}, statusOf(hub.Disconnect(ctx, r.GetUser(), r.GetClient()))
}
