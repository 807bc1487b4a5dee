// Package edge assembles what the oneport binary serves: it is the one place,
// besides router, that knows wires and policies both.
//
//	srv, err := edge.Demo(edge.DemoOptions{Listen: "127.0.0.1:8443", CertDir: "certs/dev"})
//	err = srv.ListenAndServe(ctx)
package edge
