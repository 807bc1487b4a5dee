// Package rpc builds gRPC servers that run behind the port: health,
// reflection, gzip, keepalive limits, panic recovery, and credentials that
// tell handlers the real client and its TLS state.
//
//	var services rpc.Services
//	pb.RegisterGreeterServer(&services, greeter) // records, builds nothing yet
//	srv, err := services.Build()
//	err = srv.Serve(queue)                       // native: what the stream switch opens
//	srv.ServeHTTP(w, r)                          // or request by request, behind net/http alone
//
// An embedder's own server is built with [ServerOptions] and works the same:
//
//	own := grpc.NewServer(rpc.ServerOptions(srv, log)...)
//
// The rule: TLS was ended before gRPC. The credentials here never do a
// handshake; they report the one that happened, as [credentials.TLSInfo] with
// PrivacyAndIntegrity, and grpc's own peer.FromContext gives the client's
// address behind a PROXY header.
//
// What holds where: behind net/http, grpc-go neither pings nor enforces
// keepalive (net/http does both in its own way), and GracefulStop cuts calls
// off, so that whoever ends the port lets http.Server.Shutdown finish first and
// then calls Stop.
package rpc
