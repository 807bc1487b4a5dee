package router_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router"
)

// silent answers nothing until its client goes.
type silent struct{ named }

func (silent) Bidi(stream echov1.Echo_BidiServer) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

// A gRPC client learns when to try again, from whichever server refuses it, also on a
// call that is open already.
func TestRefusalsTellGRPCClientsWhen(t *testing.T) {
	why := &protocols.Refusal{Reason: protocols.ReasonTooMany, RetryAfter: 1500 * time.Millisecond}
	refuse := protocols.GuardFunc(func(ctx context.Context, _ *protocols.Call) (context.Context, error) { return ctx, why })
	end := protocols.GuardFunc(func(ctx context.Context, call *protocols.Call) (context.Context, error) {
		time.AfterFunc(10*time.Millisecond, func() { call.End(why) })
		return ctx, nil
	})
	for name, tc := range map[string]struct {
		guard  protocols.Guard
		shared bool
	}{"refused": {refuse, false}, "refused by net/http": {refuse, true}, "ended": {end, false}} {
		t.Run(name, func(t *testing.T) {
			srv := &router.Server{
				Log:       slog.New(slog.DiscardHandler),
				Guards:    []protocols.Guard{tc.guard},
				Listeners: []router.Listener{{SharedH2: tc.shared}},
			}
			echov1.RegisterEchoServer(srv, silent{})
			port := oneporttest.Listen(t, srv)
			stream, err := echov1.NewEchoClient(port.GRPC()).Bidi(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, err = stream.Recv()
			s := status.Convert(err)
			if s.Code() != codes.ResourceExhausted || len(s.Details()) != 1 {
				t.Fatalf("%v, with %v", err, s.Details())
			}
			if info, ok := s.Details()[0].(*errdetails.RetryInfo); !ok || info.GetRetryDelay().AsDuration() != why.RetryAfter {
				t.Errorf("%v", s.Details()[0])
			}
		})
	}
}
