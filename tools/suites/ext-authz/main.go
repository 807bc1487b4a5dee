// Command ext-authz is a service that decides on calls, on Envoy's own Go types: what it
// understands of a question, and others of its answers, are Envoy's. It lets in whoever
// has "Bearer good", as a name that says all it was asked.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	flag.Parse()
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	srv := grpc.NewServer()
	authv3.RegisterAuthorizationServer(srv, service{})
	fmt.Println("listening on", ln.Addr())
	log.Fatal(srv.Serve(ln))
}

type service struct {
	authv3.UnimplementedAuthorizationServer
}

func (service) Check(_ context.Context, q *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	switch q.GetAttributes().GetRequest().GetHttp().GetHeaders()["authorization"] {
	case "Bearer good":
		metadata, err := structpb.NewStruct(map[string]any{"unknown": []any{1, "two"}})
		if err != nil {
			return nil, err
		}
		return &authv3.CheckResponse{
			Status:          &rpcstatus.Status{Code: int32(codes.OK)},
			DynamicMetadata: metadata,
			HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
				Headers:              []*corev3.HeaderValueOption{option("x-user-id", summary(q))},
				HeadersToRemove:      []string{"x-internal"},
				ResponseHeadersToAdd: []*corev3.HeaderValueOption{option("x-user-id", "of the response")},
			}},
		}, nil
	case "Bearer raw":
		o := option("x-user-id", "")
		o.Header.RawValue = []byte("raw")
		return &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{o}}}}, nil
	case "Bearer poor":
		return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied), Message: "no"}}, nil
	case "Bearer broken":
		return &authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_ErrorResponse{ErrorResponse: &authv3.DeniedHttpResponse{}}}, nil
	case "Bearer empty":
		return &authv3.CheckResponse{}, nil
	}
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(codes.Unauthenticated)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode_Unauthorized},
			Headers: []*corev3.HeaderValueOption{option("www-authenticate", `Bearer realm="ext-authz"`)},
			Body:    "log in",
		}},
	}, nil
}

func option(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// summary is all that a question says, in one line.
func summary(q *authv3.CheckRequest) string {
	a := q.GetAttributes()
	h := a.GetRequest().GetHttp()
	var names []string
	for name := range h.GetHeaders() {
		names = append(names, name)
	}
	slices.Sort(names)
	return fmt.Sprintf("%s %s://%s%s %s from %s to port %d as %q sni %q at %d fields %s unknown %d",
		h.GetMethod(), h.GetScheme(), h.GetHost(), h.GetPath(), h.GetProtocol(),
		a.GetSource().GetAddress().GetSocketAddress().GetAddress(), a.GetDestination().GetAddress().GetSocketAddress().GetPortValue(),
		a.GetSource().GetPrincipal(), a.GetTlsSession().GetSni(), a.GetRequest().GetTime().GetSeconds()/1_000_000_000,
		strings.Join(names, ","), len(q.ProtoReflect().GetUnknown())+len(a.ProtoReflect().GetUnknown())+len(h.ProtoReflect().GetUnknown()))
}
