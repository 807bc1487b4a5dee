// Package extauthz asks a service that speaks Envoy's ext_authz over gRPC,
// envoy.service.auth.v3.Authorization/Check, whether calls are let in: Open Policy Agent
// and many others do.
//
//	service, err := extauthz.New(extauthz.Options{Target: "127.0.0.1:9191"})
//	if err != nil { ... }
//	defer service.Close()
//	guard, err := auth.NewForward(auth.ForwardOptions{Authority: service, Upstream: []string{"X-User-Id"}})
//
// It sends the call's attributes, without a body, and understands of the answer the status, the
// fields to set (those that auth.ForwardOptions names) and to remove, and a refusal's status,
// fields and text. Changed queries, dynamic metadata and fields of the response to the client
// are not understood, and ignored.
//
// The messages are read and written here, field by field. Envoy's generated Go code is 3 MB
// of a program, and registers its types' names in each program that embeds the port, which
// may have others of these names: that is a panic at start. internal/suites has a service on
// Envoy's types answer our questions.
package extauthz
