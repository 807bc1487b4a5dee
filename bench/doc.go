// Command bench measures what sharing a port costs: REST, gRPC, WebSocket and
// TLS handshakes on a router.Server against the same handlers, each on a TLS
// port of its own.
//
//	go run -tags nomsgpack ./bench -rounds 15
//
// It runs itself again as the servers, one process each, and loads them over
// loopback with a fixed number of operations. What counts is the server's CPU
// time per operation, user and system, as getrusage(2) has it: wall-clock time
// on a shared machine says more about the neighbours.
//
// Every round starts the servers anew and measures them in random order, in
// several slices each, so that what the machine does meanwhile hits all alike.
// The ratio of a round is the port's CPU over the own port's of the same
// round; the interval is a 95 % bootstrap of the median of all rounds. Beside
// it stands the control: a second process of the very same own-port server, as
// if it were a candidate. What the control is away from 1 is noise.
//
// Memory is measured once for each server: the growth of the process by some
// thousand connections over TLS that do nothing: WebSockets, and HTTP/2
// connections 30 s after their last stream.
//
// With -only proxy the sidecar, the binary's "oneport serve -c FILE", is
// compared with nginx and HAProxy, which must be installed, before the same two
// servers: CPU of all processes of each edge for an operation, and the growth
// of their resident memory by idle WebSockets. All three take part in each round, in
// slices in random order. The ratio of a round is oneport's to that of the other
// edge whose median is less. Clients insist on TLS 1.3, AES-128-GCM and the
// key exchange of the row, and look at all answers: one that is wrong fails its row.
//
// With -only guards the binary is compared with itself: the same routes with a
// token to be checked (JWT, remembered) and a rate limit for each identity on
// each of them, and without. Clients bring the token to both. What counts is the
// difference of a round in microseconds, with the interval and the control of the
// first comparison: a second process without guards.
//
// With -only telemetry it is compared with itself once more: nothing that looks, and metrics that are
// scraped once for each second of load, an access line for each call to a file, and a hundredth of the
// calls exported by OTLP to a collector in the bench. What counts is all CPU from the first turn until
// the last spans are exported, for much of that work is done behind the calls.
//
// With -only fanout one message goes to thousands of WebSockets over TLS: from a hub of
// router/broadcast, one way and by centrifuge's protocol, and from a loop that writes to each of
// gorilla's connections. What counts is deliveries for each second of the server's CPU, and the time
// until subscribers have the message. Servers take turns, for the sockets of two are more
// than a process may have. Then 100 of the hub's do not read.
package main
