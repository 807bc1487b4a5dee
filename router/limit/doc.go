// Package limit says how much of a server its callers get, once for HTTP, gRPC and
// WebSocket: how often, how many at a time, and when the process has enough.
//
//	rate, err := limit.ParseRate("50/s")
//	api, err := limit.New(limit.Options{Name: "api", Rate: rate, Burst: 100, Concurrency: 64, Queue: 128})
//	srv := &router.Server{
//		Guards: []protocols.Guard{
//			limit.NewShed(limit.ShedOptions{}),
//			limit.NewBulkheads(limit.Bounds{WebSocket: 50_000, GRPC: 2_000}),
//			api,
//		},
//	}
//
// The rule: one count for a caller, whatever it speaks. A user's REST calls, gRPC calls and
// WebSocket handshakes are of one rate. Guards that find out who calls come before.
//
// A [Limiter] counts for each identity or address, in bounded memory. With a [Shared] store
// several instances count together; a store that is dead or slow costs a call at most 5 ms, and
// soon nothing. [Bulkheads] bound each protocol's calls in flight, so that none starves another.
// [Shed] refuses new calls while memory or the scheduler is at its end.
//
// The limits: what a WebSocket sends is for its session or its tunnel to bound
// (router.Route.Tunnel has MessageRate); here its handshake is a call, and its session holds a place for as
// long as it lives.
package limit
