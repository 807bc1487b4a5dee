package telemetry

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Family is one metric: what docs/metrics.md says of it.
type Family struct {
	Name, Type string // Type is "counter", "gauge" or "histogram"
	Labels     []string
	Help       string
}

// family is one of our own, with what the registry knows of it.
type family struct {
	Family
	desc  *prometheus.Desc
	value prometheus.ValueType
}

func counter(name, help string, labels ...string) Family {
	return Family{prefix + name, "counter", labels, help}
}

func gauge(name, help string, labels ...string) Family {
	return Family{prefix + name, "gauge", labels, help}
}

func histogram(name, help string, labels ...string) Family {
	return Family{prefix + name, "histogram", labels, help}
}

// prefix begins the name of every metric of ours.
const prefix = "oneport_"

// The labels. Their values are of bounded sets.
const (
	labelProtocol  = "protocol"
	labelRoute     = "route"
	labelUpstream  = "upstream"
	labelCode      = "code"
	labelReason    = "reason"
	labelListener  = "listener"
	labelState     = "state"
	labelKind      = "kind"
	labelDirection = "direction"
	labelServer    = "server"
	labelGuard     = "guard"
	labelLimit     = "limit"
	labelOutcome   = "outcome"
	labelResult    = "result"
	labelName      = "name"
	labelKey       = "key"
)

// known are all metrics of ours.
var known = [...]Family{
	counter("calls_total", "Calls that have ended, by status.", labelProtocol, labelRoute, labelUpstream, labelCode),
	gauge("calls_in_flight", "Calls that have begun and not ended.", labelProtocol),
	histogram("call_duration_seconds", "Time of HTTP requests and gRPC calls, from their head to the end of the answer.", labelProtocol, labelRoute, labelUpstream),
	counter("call_sent_bytes_total", "Bytes of answers' bodies and of messages.", labelProtocol, labelRoute, labelUpstream),
	counter("calls_refused_total", "Calls that guards have refused, by reason.", labelProtocol, labelReason),

	gauge("connections", "Open connections, by state.", labelListener, labelState),
	gauge("connections_limit", "How many connections may be open; missing without a bound."),
	counter("connections_accepted_total", "Connections that were accepted and not over a bound.", labelListener),
	counter("connections_ended_total", "Connections that were closed, or refused at once, by reason.", labelReason),
	counter("connections_relieved_total", "Idle connections closed because of overload.", labelKind),
	counter("relief_episodes_total", "Times that closing idle connections began."),
	counter("received_bytes_total", "Bytes read from clients' sockets, TLS included."),
	counter("sent_bytes_total", "Bytes written to clients' sockets, TLS included."),
	counter("tls_handshakes_total", "TLS handshakes that succeeded; those that failed are in connections_ended_total.", labelKind),
	histogram("tls_handshake_duration_seconds", "Time of TLS handshakes that succeeded, from the first byte of the hello."),
	gauge("http2_connections", "Open HTTP/2 connections."),
	counter("http2_errors_total", "HTTP/2 connections ended for what the client did, by the error code's name.", labelCode),

	gauge("websocket_sessions", "Open WebSockets: sessions in this process, and tunnels to servers elsewhere.", labelKind),
	counter("websocket_sessions_opened_total", "WebSockets opened, tunnels among them."),
	histogram("websocket_session_duration_seconds", "Time of WebSockets, and of handshakes that were refused.", labelRoute, labelUpstream),
	counter("websocket_handshakes_refused_total", "WebSocket handshakes refused, by reason.", labelReason),
	counter("websocket_closed_total", "WebSockets ended, by close code.", labelCode),
	counter("websocket_tunnels_ended_total", "Tunnels ended, by reason.", labelReason),
	histogram("websocket_message_size_bytes", "Messages by their payload, but for those of raw tunnels.", labelDirection),
	histogram("websocket_ping_rtt_seconds", "Time between a ping of the port's and the client's pong."),
	counter("websocket_slow_consumers_total", "WebSockets closed because their queue was full."),
	counter("websocket_dropped_messages_total", "Messages that waited in a full queue and were thrown away."),

	gauge("upstream_up", "Whether a server of the upstream is well: 1 or 0.", labelUpstream),
	gauge("upstream_connections", "Open connections to the upstream, but for WebSockets.", labelUpstream),
	gauge("upstream_requests_in_flight", "Requests and streams on connections to the upstream.", labelUpstream),
	gauge("upstream_requests_waiting", "Requests and streams that wait for a connection.", labelUpstream),
	counter("upstream_connection_failures_total", "Connections to the upstream that could not be opened, or broke.", labelUpstream),
	counter("upstream_retries_total", "Calls tried again.", labelUpstream),
	counter("upstream_retries_denied_total", "Calls not tried again because the budget was spent.", labelUpstream),
	counter("upstream_ejections_total", "Servers left out for errors.", labelUpstream),
	gauge("upstream_breaker_open", "Whether the circuit breaker lets no call through: 1 or 0.", labelUpstream),
	gauge("upstream_server_up", "Whether the server's health check is well: 1 or 0.", labelUpstream, labelServer),
	gauge("upstream_server_ejected", "Whether the server is left out for errors: 1 or 0.", labelUpstream, labelServer),
	gauge("upstream_server_calls_in_flight", "Calls in flight at the server, WebSockets among them.", labelUpstream, labelServer),
	counter("upstream_server_calls_total", "Calls that have ended at the server.", labelUpstream, labelServer),
	counter("upstream_server_faults_total", "Calls that the server did wrong: unreachable, broken, too late, 502 to 504, UNAVAILABLE.", labelUpstream, labelServer),

	counter("auth_tokens_admitted_total", "Calls let in for a good token.", labelGuard),
	counter("auth_tokens_remembered_total", "Tokens that did not have to be checked again.", labelGuard),
	counter("auth_tokens_refused_total", "Tokens refused, by reason.", labelGuard, labelReason),
	gauge("auth_sessions", "Open gRPC calls and WebSockets of who is known."),
	counter("auth_sessions_ended_total", "Those ended because a credential was revoked, or an operator said so."),
	counter("auth_sessions_refreshed_total", "Those that got a newer credential."),
	counter("auth_revoked_calls_total", "Calls refused because their credential was revoked."),

	counter("limit_calls_total", "Calls by what a limit did with them.", labelLimit, labelOutcome),
	gauge("limit_calls_in_flight", "Calls that hold a place of a limit.", labelLimit),
	gauge("limit_calls_waiting", "Calls that wait for one.", labelLimit),
	gauge("limit_keys", "Callers that a limit remembers.", labelLimit),
	counter("limit_evicted_total", "Callers that were forgotten although they owed something.", labelLimit),
	gauge("shedding", "Whether calls are refused because the process has enough: 1 or 0."),
	counter("shed_calls_total", "Calls refused for that, by reason.", labelReason),

	gauge("redis_up", "Whether limits that instances share are counted in Redis now: 1 or 0."),
	counter("redis_failures_total", "Calls that had an error or no answer in time from Redis."),
	gauge("broadcast_up", "Whether the broadcast runs: 0 until Redis was reached once."),
	gauge("broadcast_clients", "Connections of the broadcast, of all kinds."),
	gauge("broadcast_channels", "Channels with subscribers here."),
	gauge("broadcast_subscriptions", "Subscriptions here."),
	counter("broadcast_slow_clients_total", "Connections closed because they did not keep up, but those of WebSockets."),

	counter("config_loads_total", "Times that the file was loaded, the start included.", labelResult),
	gauge("config_last_load_success", "Whether the last time was one: 1 or 0."),
	gauge("config_last_load_timestamp_seconds", "When that was."),
	counter("access_log_lines_total", "Lines of the access log, by what became of them.", labelResult),
	counter("trace_spans_total", "Spans of traces, by what became of them.", labelResult),
	gauge("certificate_expiry_timestamp_seconds", "When a certificate ends that clients are shown; the earliest of those with that name.", labelName, labelKey),
	gauge("ready", "Whether the port serves, and does not drain: 1 or 0."),
	gauge("draining", "Whether the port drains: 1 or 0."),
	gauge("build_info", "Always 1.", "version", "commit", "goversion"),
}

// Families lists the metrics of this package, by name. The Go runtime's and the process's
// are client_golang's, and not among them.
func Families() []Family {
	list := slices.Clone(known[:])
	slices.SortFunc(list, func(a, b Family) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return list
}

// describe makes families ready, by name without the prefix.
func describe() map[string]*family {
	all := make(map[string]*family, len(known))
	for _, f := range known {
		value := prometheus.CounterValue
		if f.Type == "gauge" {
			value = prometheus.GaugeValue
		}
		all[f.Name[len(prefix):]] = &family{f, prometheus.NewDesc(f.Name, f.Help, f.Labels, nil), value}
	}
	return all
}
