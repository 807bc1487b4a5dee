// Command chat is a chat room with three ways in and out, on one TLS port: a
// page that talks by WebSocket, a gRPC feed, and REST. All see the same
// messages in the same order.
//
//	go run ./examples/chat
//
// It makes a development certificate in certs/dev. Open https://127.0.0.1:8445/
// (trust certs/dev/ca.crt first, or accept the warning), and from another
// terminal:
//
//	curl --cacert certs/dev/ca.crt --json '{"name":"Cleo","text":"hi"}' https://127.0.0.1:8445/api/messages
//	grpcurl -cacert certs/dev/ca.crt 127.0.0.1:8445 chat.v1.Feed/Watch
//	grpcurl -cacert certs/dev/ca.crt -d '{"name":"Gus","text":"hi"}' 127.0.0.1:8445 chat.v1.Feed/Post
//	npx wscat --ca certs/dev/ca.crt -c wss://127.0.0.1:8445/ws
//
// A WebSocket says {"name":"Ann"} first and {"text":"hi"} then.
//
// What it shows: the room has no goroutine of its own. Whoever speaks hands
// the message to every listener, under one lock and without waiting: sockets
// take it with ws.Conn.Send, which closes one that does not keep up with 1013,
// and a feed has a bounded channel. The last 50 messages are kept in memory.
package main
