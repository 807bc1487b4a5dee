// Command oneport serves REST, gRPC and WebSocket on one TLS port.
//
//	oneport demo     # everything built in, with a development certificate
//	oneport serve    # stand before other servers, as a file says; check, explain, reload, schema
//	oneport proxy    # the same without a file
//	oneport certs    # a local CA and a certificate
//	oneport token    # make and check tokens for tests
//	oneport apikey   # an API key, and the line for the file of keys
//	oneport version
//
// This package connects the process to the library: flags, signals, systemd,
// the cgroup, exit codes. What the commands serve is assembled in internal/edge.
package main
