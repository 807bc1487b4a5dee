// Command chat is a chat with rooms, on one TLS port: a page that talks by WebSocket, REST, and a
// gRPC feed. All see the same messages in the same order, and who is there. With a Redis several
// instances are one chat.
//
//	go run ./examples/chat
//	go run ./examples/chat --redis redis://127.0.0.1:6379/0 --addr 127.0.0.1:8446
//
// It makes a development certificate, and a key for names, in certs/dev. Open
// https://127.0.0.1:8445/ in two windows (trust certs/dev/ca.crt first, or accept the warning).
// README.md has the commands for the other ways in, and for two instances.
//
// What it shows: rooms are channels of router/broadcast, so history, presence and recovery are the
// hub's, and the page speaks centrifuge's protocol. One guard, router/auth's, says for all three
// protocols who asks: by a token in the Authorization field, or by a cookie from the page, which
// counts in requests of the same origin alone.
package main
