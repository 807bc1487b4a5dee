// Package suites runs other people's test suites against a real port: h2spec,
// the gRPC interop client and grpcurl, and has certificates of pebble, Let's
// Encrypt's test CA. They come from the Go module proxy (tools/suites). It has
// tests only, behind the build tag suites:
//
//	make suites
//
// Every case passes on the port, also on "oneport serve" by a file; what else is for
// the real binary alone is here too: calls that end in errors by the thousand, and
// memory while much goes through (make bulk).
//
// h2spec's cases are run against net/http as well, to see which of them it fails.
package suites
