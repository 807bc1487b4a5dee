package edge_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
)

func TestUnary(t *testing.T) {
	client := echov1.NewEchoClient(demo(t).GRPC())
	for _, msg := range []string{"hi", "", strings.Repeat("ü", 1<<20)} {
		res, err := client.Unary(t.Context(), &echov1.UnaryRequest{Message: msg})
		if err != nil || res.GetMessage() != msg {
			t.Errorf("%d bytes: %d bytes, %v", len(msg), len(res.GetMessage()), err)
		}
	}
}

func TestServerStream(t *testing.T) {
	client := echov1.NewEchoClient(demo(t).GRPC())
	for _, tt := range []struct {
		count int32
		want  int
		code  codes.Code
	}{
		{0, 3, codes.OK},
		{1, 1, codes.OK},
		{1000, 1000, codes.OK},
		{1001, 0, codes.InvalidArgument},
		{-1, 0, codes.InvalidArgument},
	} {
		stream, err := client.ServerStream(t.Context(), &echov1.ServerStreamRequest{Message: "again", Count: tt.count})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; ; n++ {
			res, e := stream.Recv()
			if err = e; err != nil {
				break
			}
			if res.GetMessage() != "again" || int(res.GetIndex()) != n {
				t.Errorf("count %d: answer %d is %v", tt.count, n, res)
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		if n != tt.want || status.Code(err) != tt.code {
			t.Errorf("count %d: %d answers, then %v; want %d, %v", tt.count, n, err, tt.want, tt.code)
		}
	}
}

func TestClientStream(t *testing.T) {
	client := echov1.NewEchoClient(demo(t).GRPC())
	half := strings.Repeat("x", 32<<10)
	for _, tt := range []struct {
		name string
		send []string
		want string
		code codes.Code
	}{
		{"three", []string{"a", "b", "c"}, "a b c", codes.OK},
		{"none", nil, "", codes.OK},
		{"one empty", []string{""}, "", codes.OK},
		{"as much as there may be", []string{half, half[1:]}, half + " " + half[1:], codes.OK},
		{"a byte more", []string{half, half}, "", codes.ResourceExhausted},
	} {
		stream, err := client.ClientStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, msg := range tt.send {
			if err := stream.Send(&echov1.ClientStreamRequest{Message: msg}); err != nil {
				break // CloseAndRecv has the reason
			}
		}
		res, err := stream.CloseAndRecv()
		if status.Code(err) != tt.code || res.GetMessage() != tt.want {
			t.Errorf("%s: %d bytes, %v", tt.name, len(res.GetMessage()), err)
		}
		if err == nil && int(res.GetCount()) != len(tt.send) {
			t.Errorf("%s: count %d, want %d", tt.name, res.GetCount(), len(tt.send))
		}
	}
}

func TestBidi(t *testing.T) {
	client := echov1.NewEchoClient(demo(t).GRPC())
	stream, err := client.Bidi(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, msg := range []string{"one", "", "three"} {
		if err := stream.Send(&echov1.BidiRequest{Message: msg}); err != nil {
			t.Fatal(err)
		}
		res, err := stream.Recv() // each answer before the next question
		if err != nil || res.GetMessage() != msg {
			t.Errorf("%q: %v, %v", msg, res, err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if res, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, %v", res, err)
	}
}

func TestBidiEndsWithItsClient(t *testing.T) {
	client := echov1.NewEchoClient(demo(t).GRPC())
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := client.Bidi(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&echov1.BidiRequest{Message: "hi"}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
	// The port's drain, when the test ends, finds no call left to wait for.
}

func TestUnknownMethodAndHealth(t *testing.T) {
	cc := demo(t).GRPC()
	err := cc.Invoke(t.Context(), "/oneport.echo.v1.Echo/Nothing", &echov1.UnaryRequest{}, &echov1.UnaryResponse{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("unknown method: %v", err)
	}
	for _, service := range []string{"", "oneport.echo.v1.Echo"} {
		res, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v", service, res, err)
		}
	}
}
