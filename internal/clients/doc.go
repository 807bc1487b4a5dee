// Package clients proves that programs nobody here wrote just work on the
// port: curl, nghttp, h2load, node's own clients, ws, grpc-js, connect-node,
// Python's http.client, grpcio and Chromium. It has tests only, behind the
// build tag clients, because they need those programs:
//
//	make test-clients    # as root, with apt: installs what is missing
//
// One test builds the oneport binary, starts "oneport demo", sends everything
// against that one process, and ends it with SIGTERM while clients are
// connected. The scripts are in node and python; each is one program's, takes
// its settings from the environment and ends at the first wrong answer.
//
// Beside the demo, "oneport serve" stands before servers of the tests' own. One
// has guards: every way to be refused, in the words of each protocol, every place
// where a token may stand, and sessions that end with their tokens. Another is sent
// tokens wherever they fit, and neither what it prints nor what its servers
// get may have them. A third is ended and started again under client/js, in node and in
// Chromium, whose own tests run before.
//
// Two instances of examples/chat meet at a Redis, and two windows of Chromium see what happens when one
// of them is killed.
//
// A collector of the tests' own gets spans over gRPC and as http/protobuf: curl, grpcurl and ws each begin a
// trace, which must reach the collector and the server behind as one. No token may be among what it gets either, nor in
// access lines of any form.
//
// A real Prometheus scrapes a fourth, and all rules and panels of deploy must have data.
//
// The rule: a script that finds something wrong with oneport is not made to
// accept it.
package clients
