// Command client-gzip runs the cases of grpc-go's interop client that need no
// credentials with every message compressed, which that client has no flag for.
package main

import (
	"context"
	"flag"
	"log"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/stats"
)

var cases = map[string]func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption){
	"empty_unary":                 interop.DoEmptyUnaryCall,
	"large_unary":                 interop.DoLargeUnaryCall,
	"client_streaming":            interop.DoClientStreaming,
	"server_streaming":            interop.DoServerStreaming,
	"ping_pong":                   interop.DoPingPong,
	"empty_stream":                interop.DoEmptyStream,
	"timeout_on_sleeping_server":  interop.DoTimeoutOnSleepingServer,
	"cancel_after_begin":          interop.DoCancelAfterBegin,
	"cancel_after_first_response": interop.DoCancelAfterFirstResponse,
	"status_code_and_message":     interop.DoStatusCodeAndMessage,
	"special_status_message":      interop.DoSpecialStatusMessage,
	"custom_metadata":             interop.DoCustomMetadata,
}

func main() {
	server := flag.String("server", "", "host:port")
	ca := flag.String("ca_file", "", "CA of the server's certificate; none for plaintext")
	name := flag.String("test_case", "", "one of the interop client's")
	flag.Parse()
	creds := insecure.NewCredentials()
	if *ca != "" {
		var err error
		if creds, err = credentials.NewClientTLSFromFile(*ca, "localhost"); err != nil {
			log.Fatal(err)
		}
	}
	sizes := new(sizes)
	cc, err := grpc.NewClient("passthrough:///"+*server, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)), grpc.WithStatsHandler(sizes))
	if err != nil {
		log.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	switch do := cases[*name]; {
	case do != nil:
		do(ctx, testgrpc.NewTestServiceClient(cc))
	case *name == "unimplemented_method":
		interop.DoUnimplementedMethod(ctx, cc)
	case *name == "unimplemented_service":
		interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(cc))
	default:
		log.Fatalf("no case is called %q", *name)
	}
	if strings.HasPrefix(*name, "large") && (sizes.out.Load() == 0 || sizes.in.Load() == 0) {
		log.Fatalf("%d messages were compressed on their way, %d on the way back", sizes.out.Load(), sizes.in.Load())
	}
}

// sizes counts messages that compression has made smaller.
type sizes struct{ in, out atomic.Int64 }

func (s *sizes) HandleRPC(_ context.Context, e stats.RPCStats) {
	switch e := e.(type) {
	case *stats.OutPayload:
		if e.CompressedLength < e.Length {
			s.out.Add(1)
		}
	case *stats.InPayload:
		if e.CompressedLength < e.Length {
			s.in.Add(1)
		}
	}
}

func (*sizes) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*sizes) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*sizes) HandleConn(context.Context, stats.ConnStats)                       {}
