// Package oneporttest serves a router.Server on a port in memory, with a CA of
// its own and a client for each protocol: for tests of programs that embed
// oneport, and for oneport's own.
//
//	func TestGreeter(t *testing.T) {
//		srv := &router.Server{HTTP: web}
//		pb.RegisterGreeterServer(srv, greeter{})
//		port := oneporttest.Start(t, srv)
//
//		res, err := port.HTTP2().Get(port.URL("/api/hello"))
//		answer, err := pb.NewGreeterClient(port.GRPC()).Hello(ctx, &pb.HelloRequest{})
//		socket := port.WebSocket("/ws")
//	}
//
// Everything is closed and drained when the test ends; a drain that is not
// clean fails the test. Nothing touches the network, so that a whole test may
// run in a testing/synctest bubble. What must be tried on real sockets is
// served with [Listen] instead: the same port on 127.0.0.1.
package oneporttest
