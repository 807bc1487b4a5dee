package telemetry

import (
	"strconv"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
)

// calls are those that the Meter has counted.
func (s *scrape) calls() {
	m := s.opts.Server.Meter
	if m == nil {
		return
	}
	var refused [protocols.WebSocket + 1]map[protocols.Reason]uint64
	for p := range refused {
		refused[p] = make(map[protocols.Reason]uint64)
		put(s, "calls_in_flight", m.InFlight(protocols.Protocol(p)), protocols.Protocol(p).String())
	}
	for _, st := range m.Stats() {
		p, bounds := st.Protocol.String(), st.Protocol.Bounds()
		for code, n := range st.Codes {
			put(s, "calls_total", n, p, st.Route, st.Upstream, code)
		}
		put(s, "call_sent_bytes_total", st.Sent, p, st.Route, st.Upstream)
		if st.Protocol == protocols.WebSocket {
			s.both("websocket_session_duration_seconds", bounds, st.Buckets, st.Native, st.Took, st.Route, st.Upstream)
		} else {
			s.both("call_duration_seconds", bounds, st.Buckets, st.Native, st.Took, p, st.Route, st.Upstream)
		}
		for why, n := range st.Refused {
			refused[st.Protocol][why] += n
		}
	}
	for p, list := range refused {
		for _, why := range protocols.Reasons() {
			put(s, "calls_refused_total", list[why], protocols.Protocol(p).String(), why.String())
		}
	}
}

// conns are connections, and what was done with them.
func (s *scrape) conns(st *router.Stats) {
	for listener, l := range st.Conns.Listeners {
		for _, state := range protocols.States() {
			if state != protocols.StateClosed {
				put(s, "connections", l.Open[state], listener, state.String())
			}
		}
		put(s, "connections_accepted_total", l.Accepted, listener)
	}
	if total := s.opts.Server.ConnBounds().Total; total >= 0 {
		put(s, "connections_limit", total)
	}
	for _, why := range conn.Reasons() {
		put(s, "connections_ended_total", st.Conns.Ended[why], why.String())
	}
	put(s, "connections_relieved_total", st.Relieved.HTTP1, "http1")
	put(s, "connections_relieved_total", st.Relieved.HTTP2, "http2")
	put(s, "connections_relieved_total", st.Relieved.WebSockets, "websocket")
	put(s, "relief_episodes_total", st.Relieved.Episodes)
	put(s, "received_bytes_total", st.Conns.BytesIn)
	put(s, "sent_bytes_total", st.Conns.BytesOut)
	h := &st.Conns.Handshakes
	put(s, "tls_handshakes_total", h.Full, "full")
	put(s, "tls_handshakes_total", h.Resumed, "resumed")
	s.timed("tls_handshake_duration_seconds", conn.HandshakeBounds(), h.Buckets, h.Took)
	put(s, "http2_connections", st.HTTP2.Open)
	for code, n := range st.HTTP2.Ended {
		put(s, "http2_errors_total", n, code)
	}
}

// sockets are WebSockets.
func (s *scrape) sockets(st *router.Stats) {
	put(s, "websocket_sessions", st.Sessions.Open-st.Sessions.Tunnels, "session")
	put(s, "websocket_sessions", st.Sessions.Tunnels, "tunnel")
	put(s, "websocket_sessions_opened_total", st.Sessions.Opened)
	for why, n := range st.Sessions.Refused {
		put(s, "websocket_handshakes_refused_total", n, why)
	}
	for code, n := range st.Sessions.Closed {
		label := "other"
		if code != 0 {
			label = strconv.Itoa(code)
		}
		put(s, "websocket_closed_total", n, label)
	}
	for why, n := range st.Tunnels.Ended {
		put(s, "websocket_tunnels_ended_total", n, why)
	}
	tr := &st.Traffic
	for direction, m := range map[string]*ws.Messages{"in": &tr.In, "out": &tr.Out} {
		bounds := make([]float64, 0, len(m.Sizes))
		for _, b := range ws.SizeBounds() {
			bounds = append(bounds, float64(b))
		}
		s.to <- s.classic("websocket_message_size_bytes", bounds, m.Sizes, float64(m.Bytes), []string{direction})
	}
	s.timed("websocket_ping_rtt_seconds", ws.RTTBounds(), tr.RTTs, tr.RTT)
	put(s, "websocket_slow_consumers_total", st.Sessions.Slow)
	put(s, "websocket_dropped_messages_total", tr.Dropped)
}
