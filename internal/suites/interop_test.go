//go:build suites

package suites

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // what the clients of the gzip runs send
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/oneport-edge/oneport/router"
)

// interopCases are all cases of grpc-go's interop client that need no Google
// credentials, no load balancer and no xDS.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
	"status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service",
}

func TestInterop(t *testing.T) {
	source := devCerts(t)
	srv := &router.Server{Certs: source}
	testgrpc.RegisterTestServiceServer(srv, interopServer{})
	secure, plaintext := start(t, srv)
	secureProxy, plaintextProxy := startProxy(t, source, plaintext)
	one, two := startInterop(t), startInterop(t)
	_, secureServe, plaintextServe := startServe(t, source, fmt.Sprintf(
		"upstreams: { interop: { servers: [\"grpc://127.0.0.1:%s\", \"grpc://127.0.0.1:%s\"] } }\nroutes: [ { grpc: \"*\", to: interop } ]", one.port, two.port))
	client, gzipClient := program(t, "client"), program(t, "client-gzip")
	for _, to := range []struct {
		name string
		port string
		tls  bool
	}{
		{"tls", secure, true},
		{"h2c", plaintext, false},
		{"tls, proxied", secureProxy, true},
		{"h2c, proxied", plaintextProxy, false},
		{"tls, served by a file", secureServe, true},
		{"h2c, served by a file", plaintextServe, false},
	} {
		args := []string{"--server_host=127.0.0.1", "--server_port=" + to.port}
		gzipArgs := []string{"--server=127.0.0.1:" + to.port}
		if to.tls {
			args = append(args, "--use_tls", "--use_test_ca", "--ca_file="+source.CACert(), "--server_host_override=localhost")
			gzipArgs = append(gzipArgs, "--ca_file="+source.CACert())
		}
		t.Run(to.name, func(t *testing.T) { interopRun(t, client, args) })
		t.Run(to.name+", gzip", func(t *testing.T) { interopRun(t, gzipClient, gzipArgs) })
	}
	if a, b := one.calls.Load(), two.calls.Load(); a < 20 || b < 20 {
		t.Errorf("the two servers of the pool have got %d and %d calls", a, b)
	} else {
		t.Logf("the two servers of the pool have got %d and %d calls", a, b)
	}
}

// interopBehind is a server of the interop service on a port of its own.
type interopBehind struct {
	port  string
	calls atomic.Int64
}

// startInterop serves the interop service with nothing but grpc-go until the test ends.
func startInterop(t *testing.T) *interopBehind {
	t.Helper()
	b := new(interopBehind)
	srv := grpc.NewServer(grpc.InTapHandle(func(ctx context.Context, _ *tap.Info) (context.Context, error) {
		b.calls.Add(1)
		return ctx, nil
	}))
	testgrpc.RegisterTestServiceServer(srv, interopServer{})
	b.port = startGRPC(t, srv)
	return b
}

func interopRun(t *testing.T, client string, args []string) {
	t.Helper()
	for _, name := range interopCases {
		t.Run(name, func(t *testing.T) {
			out, err := run(t.Context(), client, append(slices.Clip(args), "--test_case="+name)...)
			for again := 0; err != nil && again < 2 && strings.Contains(out, "CloseAndRecv() got error code 0, want 1"); again++ {
				// The client cancels, then says that it has sent all. On a busy machine the server's answer
				// to that may be there before the client looks.
				out, err = run(t.Context(), client, append(slices.Clip(args), "--test_case="+name)...)
			}
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// interopServer is the server side of the interop tests, by their description
// (grpc/grpc, doc/interop-test-descriptions.md). grpc-go's own would bring
// oauth2 and xDS into go.mod, and so into that of everybody who embeds us.
type interopServer struct {
	testgrpc.UnimplementedTestServiceServer
}

// Metadata under these keys is sent back, in the header and in the trailer.
const (
	echoInitial  = "x-grpc-test-echo-initial"
	echoTrailing = "x-grpc-test-echo-trailing-bin"
)

// echoed is what of a call's metadata is to be sent back under key.
func echoed(ctx context.Context, key string) metadata.MD {
	md := metadata.MD{}
	if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 {
		md.Set(key, values...)
	}
	return md
}

// asked is the status that a request asks for; nil for OK.
func asked(s *testgrpc.EchoStatus) error {
	return status.Error(codes.Code(s.GetCode()), s.GetMessage())
}

func payload(size int32) *testgrpc.Payload { return &testgrpc.Payload{Body: make([]byte, size)} }

func (interopServer) EmptyCall(context.Context, *testgrpc.Empty) (*testgrpc.Empty, error) {
	return new(testgrpc.Empty), nil
}

func (interopServer) UnaryCall(ctx context.Context, req *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	err := errors.Join(grpc.SetHeader(ctx, echoed(ctx, echoInitial)), grpc.SetTrailer(ctx, echoed(ctx, echoTrailing)))
	if err != nil {
		return nil, err
	}
	return &testgrpc.SimpleResponse{Payload: payload(req.GetResponseSize())}, asked(req.GetResponseStatus())
}

func (interopServer) StreamingOutputCall(req *testgrpc.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error {
	return answer(req, out)
}

// answer sends the responses that one request asks for.
func answer(req *testgrpc.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error {
	for _, p := range req.GetResponseParameters() {
		if err := out.Send(&testgrpc.StreamingOutputCallResponse{Payload: payload(p.GetSize())}); err != nil {
			return err
		}
	}
	return asked(req.GetResponseStatus())
}

func (interopServer) StreamingInputCall(in grpc.ClientStreamingServer[testgrpc.StreamingInputCallRequest, testgrpc.StreamingInputCallResponse]) error {
	var sum int
	for {
		req, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return in.SendAndClose(&testgrpc.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)})
		}
		if err != nil {
			return err
		}
		sum += len(req.GetPayload().GetBody())
	}
}

func (interopServer) FullDuplexCall(stream grpc.BidiStreamingServer[testgrpc.StreamingOutputCallRequest, testgrpc.StreamingOutputCallResponse]) error {
	if err := stream.SetHeader(echoed(stream.Context(), echoInitial)); err != nil {
		return err
	}
	stream.SetTrailer(echoed(stream.Context(), echoTrailing))
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := answer(req, stream); err != nil {
			return err
		}
	}
}
