// Package suites runs other people's test suites against a real port: h2spec,
// the gRPC interop client and grpcurl, which come from the Go module proxy
// (tools/suites). It has tests only, behind the build tag suites:
//
//	make suites
//
// The rule: what a suite says of us is compared with what it says of net/http
// or grpc-go, never with a list of expected failures. A case that the standard
// library fails as well is nobody's promise; one that it passes is ours.
package suites
