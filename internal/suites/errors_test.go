//go:build suites

package suites

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
)

// failing is a gRPC service whose calls end in the error that they ask for, as
// "code text", after Count messages.
type failing struct {
	echov1.UnimplementedEchoServer
	calls atomic.Int64
}

// fail is the error that a call asks for, with details and a trailer beside it.
func (s *failing) fail(ctx context.Context, asked string) error {
	s.calls.Add(1)
	var code codes.Code
	_, text, _ := strings.Cut(asked, " ")
	if _, err := fmt.Sscan(asked, (*uint32)(&code)); err != nil {
		return err
	}
	st, err := status.New(code, text).WithDetails(&echov1.UnaryRequest{Message: text})
	if err := errors.Join(err, grpc.SetTrailer(ctx, metadata.Pairs("x-text", fmt.Sprint(len(text))))); err != nil {
		return err
	}
	return st.Err()
}

func (s *failing) Unary(ctx context.Context, req *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	return nil, s.fail(ctx, req.GetMessage())
}

func (s *failing) ServerStream(req *echov1.ServerStreamRequest, out grpc.ServerStreamingServer[echov1.ServerStreamResponse]) error {
	for i := range req.GetCount() {
		if err := out.Send(&echov1.ServerStreamResponse{Message: req.GetMessage(), Index: i}); err != nil {
			return err
		}
	}
	return s.fail(out.Context(), req.GetMessage())
}

// Bidi fails at the first message, whether the client has more to say or not.
func (s *failing) Bidi(stream grpc.BidiStreamingServer[echov1.BidiRequest, echov1.BidiResponse]) error {
	req, err := stream.Recv()
	if err != nil {
		return err
	}
	return s.fail(stream.Context(), req.GetMessage())
}

// Sixteen thousand calls end in errors, and each client learns of its own:
// code, message, details, trailer, and all messages before.
func TestErrorReplies(t *testing.T) {
	const calls, conns, workers = 16_000, 4, 16
	var servers [2]failing
	var at [2]any
	for i := range servers {
		srv := grpc.NewServer()
		echov1.RegisterEchoServer(srv, &servers[i])
		at[i] = startGRPC(t, srv)
	}
	source := devCerts(t)
	_, secure, _ := startServe(t, source, fmt.Sprintf(`
upstreams: { rpc: { servers: ["grpc://127.0.0.1:%s", "grpc://127.0.0.1:%s"] } }
routes: [ { grpc: oneport.echo.v1.Echo, to: rpc } ]
`, at[:]...))
	creds, err := credentials.NewClientTLSFromFile(source.CACert(), "localhost")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var next, wrong atomic.Int64
	var work sync.WaitGroup
	for range conns {
		cc, err := grpc.NewClient("127.0.0.1:"+secure, grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cc.Close() })
		for range workers {
			work.Go(func() {
				for i := next.Add(1); i <= calls && wrong.Load() < 10; i = next.Add(1) {
					if err := failingCall(ctx, cc, int(i)); err != nil {
						wrong.Add(1)
						t.Errorf("call %d: %v", i, err)
					}
				}
			})
		}
	}
	work.Wait()
	// One kind of six has no route, and is answered by the edge.
	a, b := servers[0].calls.Load(), servers[1].calls.Load()
	if want := int64(calls - calls/6); a+b != want || a < calls/8 || b < calls/8 {
		t.Errorf("the two servers have answered %d and %d calls, want %d in all", a, b, want)
	}
}

// failingCall makes a call that is to fail, and says how its end differs from what it should be.
func failingCall(ctx context.Context, cc *grpc.ClientConn, i int) error {
	code := codes.Code(1 + i%16)
	text := fmt.Sprintf("%d: 100%% \u00fc\u4e16\n\x01 %s", i, strings.Repeat("x", i%50*20))
	asked := fmt.Sprintf("%d %s", code, text)
	client := echov1.NewEchoClient(cc)
	var trailer metadata.MD
	var err error
	switch kind := i % 6; kind {
	case 0: // no route
		err = cc.Invoke(ctx, "/none.Such/Method", &echov1.UnaryRequest{}, &echov1.UnaryResponse{}, grpc.Trailer(&trailer))
		if status.Code(err) != codes.Unimplemented {
			return fmt.Errorf("without a route: %w", err)
		}
		return nil
	case 1, 2:
		_, err = client.Unary(ctx, &echov1.UnaryRequest{Message: asked}, grpc.Trailer(&trailer))
	case 3, 4:
		count := int32(i % 5)
		var stream grpc.ServerStreamingClient[echov1.ServerStreamResponse]
		if stream, err = client.ServerStream(ctx, &echov1.ServerStreamRequest{Message: asked, Count: count}); err != nil {
			return err
		}
		for n := int32(0); ; n++ {
			var msg *echov1.ServerStreamResponse
			if msg, err = stream.Recv(); err != nil {
				if n != count {
					return fmt.Errorf("%d messages of %d, then %w", n, count, err)
				}
				break
			}
			if msg.GetIndex() != n || msg.GetMessage() != asked {
				return fmt.Errorf("message %d is %v", n, msg)
			}
		}
		trailer = stream.Trailer()
	default:
		var stream grpc.BidiStreamingClient[echov1.BidiRequest, echov1.BidiResponse]
		if stream, err = client.Bidi(ctx); err != nil {
			return err
		}
		// The second message may meet the end already.
		for range 2 {
			if err := stream.Send(&echov1.BidiRequest{Message: asked}); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		}
		_, err = stream.Recv()
		trailer = stream.Trailer()
	}
	st := status.Convert(err)
	if want := text; st.Code() != code || st.Message() != want {
		return fmt.Errorf("%v %q, want %v %q", st.Code(), st.Message(), code, want)
	}
	if len(st.Details()) != 1 || st.Details()[0].(interface{ GetMessage() string }).GetMessage() != text {
		return fmt.Errorf("details %v", st.Details())
	}
	if got := trailer.Get("x-text"); len(got) != 1 || got[0] != fmt.Sprint(len(text)) {
		return fmt.Errorf("trailer %q", got)
	}
	return nil
}
