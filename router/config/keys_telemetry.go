package config

import "regexp"

// Keys of this part that more than one place speaks of.
const (
	keyTelemetry = "telemetry"
	keyOTLP      = "otlp"
)

const telemetryAbout = "See [tracing](tracing.md). A change takes effect at the next start."

var collectorShape = regexp.MustCompile(`^https?://[^/?#]`)

var telemetryKeys = []key{
	{name: keyOTLP, is: submapping(), need: true, about: "The collector."},
	{
		name: "service", is: text(nil), otherwise: "oneport",
		about: "`service.name` of what is exported.",
	},
	{
		name: "sample", is: fraction(), otherwise: "0.1",
		about: "The share of the calls that are traced; 1 for all, 0 for none. A client's `traceparent` is the parent of what is.",
	},
	{
		name: "follow_clients", is: boolean(), otherwise: "false",
		about: "`true` has the sampled flag of a client's `traceparent` decide instead of the share, where there is one: strangers can have each of their calls traced then.",
	},
	{
		name: "users", is: boolean(), otherwise: "false",
		about: "`true` has spans say whom a call is made for, as `enduser.id`.",
	},
	{
		name: "messages", is: count(0, 1_000_000), otherwise: "100",
		about: "Of how many messages of a traced WebSocket one is recorded, each way; 0 for none. Of all WebSockets at most 100 a second.",
	},
	{
		name: "metrics", is: boolean(), otherwise: "false",
		about: "`true` exports `http.server.request.duration` and `rpc.server.call.duration` once a minute.",
	},
}

var otlpKeys = []key{
	{name: "endpoint", is: text(collectorShape), need: true, about: "URL of the collector, of `http` or `https`: `http://127.0.0.1:4317`."},
	{
		name: "protocol", is: enum("grpc", "http/protobuf"), otherwise: "grpc",
		about: "How OTLP is spoken. For `http/protobuf` the port is 4318, as a rule, and `/v1/traces` comes behind the endpoint.",
	},
	{
		name: "headers_file", is: file(), without: "none",
		about: "File with header fields for the collector, one a line as `name: value`: credentials, as a rule. Read at the start.",
	},
	{name: "ca", is: file(), without: "the system's", about: "PEM file of the authorities that sign the collector's certificate; for `https`."},
}

var accessKeys = []key{
	{
		name: "form", is: enum("json", "text", "common", "otel"), without: "that of `log.format`",
		about: "`common` is what web servers call combined, with more fields behind it; `otel` has OpenTelemetry's names. See [tracing](tracing.md#the-access-log).",
	},
	{name: "file", is: file(), without: "standard error", about: "Where lines are added. A file that is renamed or removed is made anew."},
	{
		name: "buffer", is: size(4<<10, 1<<30), otherwise: "1MiB",
		about: "How much may wait to be written. Lines beyond are dropped, and counted: no call waits for its line.",
	},
}
