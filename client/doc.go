// Package client calls one address in three ways, with one token: HTTP
// requests, gRPC calls and WebSockets that come back by themselves.
//
//	c, err := client.New(client.Options{Addr: "api.example.com:443", Token: fetch})
//	defer c.Close()
//
//	res, err := c.HTTP().Get("https://api.example.com/api/hello")
//	answer, err := pb.NewGreeterClient(c.GRPC()).Hello(ctx, &pb.HelloRequest{})
//
//	s := c.WebSocket("/ws", client.SocketOptions{})
//	go func() { ended <- s.Run(ctx) }()
//	err = s.Write(ctx, client.Text, []byte("hello"))
//	m, err := s.Read(ctx)
//
// A [Socket] is disconnected, connecting, connected, closing or failed, and tells
// of each change. When it loses its connection it waits for a random part of a
// time that doubles, and comes back; what is final (a close code that says so, a
// handshake that is refused) ends it. A [Subscription] is one that gets messages
// of channels, and what has been published while it was away.
//
// Nothing here needs a server of this module: any that speaks the protocols will
// do. What oneport says beyond them (why a credential ended, a newer token on an
// open connection) is used where it is said.
//
// Every goroutine belongs to Run, which waits for it. Nothing runs while nobody
// is in Run, but the connections that net/http and grpc-go keep until
// [Client.Close].
package client
