// Package router serves REST, gRPC and WebSocket on one port.
//
//	web := gin.New()
//	web.GET("/api/hello", hello)
//	srv := &router.Server{
//		Addr:  ":443",
//		Certs: certs.Files("tls.crt", "tls.key"),
//		HTTP:  web,
//	}
//	pb.RegisterGreeterServer(srv, greeter{})
//	srv.WebSocket("/ws", func(ctx context.Context, c *ws.Conn) error { ... })
//	err := srv.ListenAndServe(ctx) // blocks; drains when ctx ends
//
// One connection carries any mix: ALPN decides how its bytes are framed, and
// each request what it is. A gRPC call is a POST of type application/grpc, a
// WebSocket an HTTP/1.1 upgrade, everything else goes to HTTP. All three find
// their call and their connection in the context, see package protocols.
//
// The rule: a Server serves once. Fill in the fields, register services and
// sockets, then call Serve; what is changed afterwards has no effect, and late
// registrations are errors.
//
// The limits: WebSocket over HTTP/2 (RFC 8441) is not offered, so that
// browsers open WebSockets over HTTP/1.1, which works everywhere. HTTP/3 is
// not served.
package router
