package edge

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
)

// echo is the demo's gRPC service.
type echo struct{ echov1.UnimplementedEchoServer }

const (
	echoMost  = 1000     // answers of one ServerStream
	echoBytes = 64 << 10 // joined by one ClientStream
)

func (echo) Unary(_ context.Context, req *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	return &echov1.UnaryResponse{Message: req.GetMessage()}, nil
}

func (echo) ServerStream(req *echov1.ServerStreamRequest, out grpc.ServerStreamingServer[echov1.ServerStreamResponse]) error {
	count := req.GetCount()
	if count == 0 {
		count = 3
	}
	if count < 0 || count > echoMost {
		return status.Errorf(codes.InvalidArgument, "count %d is not within 1 to %d", count, echoMost)
	}
	for i := range count {
		if err := out.Send(&echov1.ServerStreamResponse{Message: req.GetMessage(), Index: i}); err != nil {
			return err
		}
	}
	return nil
}

func (echo) ClientStream(in grpc.ClientStreamingServer[echov1.ClientStreamRequest, echov1.ClientStreamResponse]) error {
	var all strings.Builder
	for count := int32(0); ; count++ {
		req, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return in.SendAndClose(&echov1.ClientStreamResponse{Message: all.String(), Count: count})
		}
		if err != nil {
			return err
		}
		if count > 0 {
			all.WriteByte(' ')
		}
		if all.Len()+len(req.GetMessage()) > echoBytes {
			return status.Errorf(codes.ResourceExhausted, "more than %d bytes", echoBytes)
		}
		all.WriteString(req.GetMessage())
	}
}

func (echo) Bidi(stream grpc.BidiStreamingServer[echov1.BidiRequest, echov1.BidiResponse]) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&echov1.BidiResponse{Message: req.GetMessage()}); err != nil {
			return err
		}
	}
}

func (echo) Whoami(ctx context.Context, _ *echov1.WhoamiRequest) (*echov1.WhoamiResponse, error) {
	return whoami(ctx), nil
}
