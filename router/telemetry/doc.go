// Package telemetry shows what a port counts to Prometheus. It is the one importer of
// prometheus/client_golang; a program that does not import it links none.
//
//	srv := &router.Server{Addr: ":443", Certs: source, HTTP: web, Meter: new(protocols.Meter)}
//	metrics, err := telemetry.New(telemetry.Options{Server: srv})
//	mux.Handle("GET /metrics", metrics.Handler())
//
// Whoever has a registry of their own gives it as Options.Registerer, and serves that.
//
// Nothing here runs beside calls. What they count is counted where it happens, by
// [protocols.Meter] and others, and put together at each scrape. docs/metrics.md lists all names.
//
// The rule: a label's values come from the file, from this code, or from a standard, never
// from a client. A stranger makes no series.
package telemetry
