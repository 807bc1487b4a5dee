// Command oneport serves REST, gRPC and WebSocket on one TLS port.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
