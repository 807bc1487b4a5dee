package telemetry_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/telemetry"
)

// An embedder's port is counted by its Meter, and shown on an address of the embedder's own.
func Example() {
	srv := &router.Server{Addr: ":443", Meter: new(protocols.Meter)}
	metrics, err := telemetry.New(telemetry.Options{Server: srv, Version: "v1.0.0"})
	if err != nil {
		slog.Error("metrics", "err", err)
		return
	}
	mux := http.NewServeMux() // to be served on loopback, and not on the port itself
	mux.Handle("GET /metrics", metrics.Handler())

	scrape := httptest.NewRecorder()
	mux.ServeHTTP(scrape, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	for line := range strings.Lines(scrape.Body.String()) {
		if strings.HasPrefix(line, "oneport_calls_in_flight") || strings.HasPrefix(line, "oneport_ready") {
			fmt.Print(line)
		}
	}
	// Output:
	// oneport_calls_in_flight{protocol="grpc"} 0
	// oneport_calls_in_flight{protocol="http"} 0
	// oneport_calls_in_flight{protocol="websocket"} 0
	// oneport_ready 0
}
