package limit_test

import (
	"context"
	"log"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/limit"
)

// Fifty calls a second for each caller, over REST, gRPC and WebSocket together, sixty-four at a
// time; at most 50,000 WebSockets in all; and nobody new while the process has enough.
func Example() {
	api, err := limit.New(limit.Options{
		Name:        "api",
		Rate:        limit.Rate{Calls: 50, Every: time.Second},
		Burst:       100,
		Concurrency: 64,
		Queue:       128,
	})
	if err != nil {
		log.Fatal(err)
	}
	srv := &router.Server{Guards: []protocols.Guard{
		limit.NewShed(limit.ShedOptions{}),
		limit.NewBulkheads(limit.Bounds{WebSocket: 50_000}),
		api,
	}}
	log.Fatal(srv.ListenAndServe(context.Background()))
}
