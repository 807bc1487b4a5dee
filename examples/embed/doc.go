// Command embed is the smallest program with oneport in it: a Gin route, a
// gRPC service and a WebSocket, on one TLS port.
//
//	go run ./examples/embed
//
// It makes a development certificate in certs/dev. From another terminal:
//
//	curl --cacert certs/dev/ca.crt https://127.0.0.1:8444/api/hello
//	grpcurl -cacert certs/dev/ca.crt -d '{"message":"hi"}' 127.0.0.1:8444 oneport.echo.v1.Echo/Unary
//	npx wscat --ca certs/dev/ca.crt -c wss://127.0.0.1:8444/ws
//
// Ctrl-C drains: calls in flight finish, WebSockets are closed with 1001. A
// second Ctrl-C ends the process at once.
package main
