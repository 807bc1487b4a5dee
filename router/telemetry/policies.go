package telemetry

import (
	"cmp"
	"slices"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/router/limit"
	"github.com/oneport-edge/oneport/router/upstream"
)

// pools are the upstreams.
func (m *Metrics) pools() (list []*upstream.Upstream) {
	add := func(up *upstream.Upstream) {
		if up != nil && !slices.ContainsFunc(list, func(u *upstream.Upstream) bool { return u.String() == up.String() }) {
			list = append(list, up)
		}
	}
	if m.opts.Upstreams != nil {
		for _, up := range m.opts.Upstreams() {
			add(up)
		}
		return list
	}
	for i := range m.opts.Server.Routes {
		r := &m.opts.Server.Routes[i]
		add(r.To)
		for _, share := range r.Split {
			add(share.To)
		}
		if r.Fallback != nil {
			add(r.Fallback.To)
		}
		add(r.Mirror)
	}
	return list
}

func (s *scrape) upstreams() {
	for _, up := range s.pools() {
		name, st, tries, well := up.String(), up.Stats(), up.Tries(), false
		put(s, "upstream_connections", st.Conns, name)
		put(s, "upstream_requests_in_flight", st.Streams, name)
		put(s, "upstream_requests_waiting", st.Waiting, name)
		put(s, "upstream_connection_failures_total", st.Failed, name)
		put(s, "upstream_retries_total", tries.Retries, name)
		put(s, "upstream_retries_denied_total", tries.Denied, name)
		put(s, "upstream_ejections_total", tries.Ejections, name)
		flag(s, "upstream_breaker_open", tries.Open, name)
		for _, srv := range up.Servers() {
			well = well || !srv.Sick
			flag(s, "upstream_server_up", !srv.Sick, name, srv.Name)
			flag(s, "upstream_server_ejected", srv.Ejected, name, srv.Name)
			put(s, "upstream_server_calls_in_flight", srv.Active, name, srv.Name)
			put(s, "upstream_server_calls_total", srv.Calls, name, srv.Name)
			put(s, "upstream_server_faults_total", srv.Faults, name, srv.Name)
		}
		flag(s, "upstream_up", well, name)
	}
}

func (s *scrape) limits() {
	var all map[string]limit.Stats
	if s.opts.Limits != nil {
		all = s.opts.Limits()
	}
	for name, st := range all {
		for outcome, n := range st.Calls {
			put(s, "limit_calls_total", n, name, outcome)
		}
		put(s, "limit_calls_in_flight", st.InFlight, name)
		put(s, "limit_calls_waiting", st.Waiting, name)
		put(s, "limit_keys", st.Keys, name)
		put(s, "limit_evicted_total", st.Evicted, name)
	}
	if shed := s.opts.Shed; shed != nil {
		shedding, memory, latency := shed.Stats()
		flag(s, "shedding", shedding)
		put(s, "shed_calls_total", memory, "memory")
		put(s, "shed_calls_total", latency, "latency")
	}
}

func (s *scrape) details(d *Details) {
	for _, t := range d.Tokens {
		put(s, "auth_tokens_admitted_total", t.Admitted, t.Guard)
		put(s, "auth_tokens_remembered_total", t.Remembered, t.Guard)
		for why, n := range t.Refused {
			put(s, "auth_tokens_refused_total", n, t.Guard, why)
		}
	}
	if a := d.Sessions; a != nil {
		put(s, "auth_sessions", a.Open)
		put(s, "auth_sessions_ended_total", a.Ended)
		put(s, "auth_sessions_refreshed_total", a.Refreshed)
		put(s, "auth_revoked_calls_total", a.Refused)
	}
	if r := d.Redis; r != nil {
		flag(s, "redis_up", r.Up)
		put(s, "redis_failures_total", r.Failures)
	}
	if b := d.Broadcast; b != nil {
		flag(s, "broadcast_up", b.Up)
		put(s, "broadcast_clients", b.Clients)
		put(s, "broadcast_channels", b.Channels)
		put(s, "broadcast_subscriptions", b.Subscriptions)
		put(s, "broadcast_slow_clients_total", b.Slow)
	}
	if l := d.Loads; l != nil {
		put(s, "config_loads_total", l.Good, "ok")
		put(s, "config_loads_total", l.Failed, "failed")
		flag(s, "config_last_load_success", l.OK)
		put(s, "config_last_load_timestamp_seconds", float64(l.At.UnixMilli())/1000)
	}
	for name, w := range map[string]*Written{"access_log_lines_total": d.Lines, "trace_spans_total": d.Spans} {
		if w != nil {
			put(s, name, w.Good, "ok")
			put(s, name, w.Dropped, "dropped")
			put(s, name, w.Failed, "failed")
		}
	}
}

// certificates are shown by their first name and kind of key: a renewal is no new series.
func (s *scrape) certificates() {
	type shown struct{ name, key string }
	ends := make(map[shown]int64)
	for _, c := range certs.Shown(s.opts.Server.Certs) {
		name := c.Subject.CommonName
		switch {
		case len(c.DNSNames) > 0:
			name = c.DNSNames[0]
		case len(c.IPAddresses) > 0:
			name = cmp.Or(name, c.IPAddresses[0].String())
		}
		at := shown{name, c.PublicKeyAlgorithm.String()}
		if was, ok := ends[at]; !ok || c.NotAfter.Unix() < was {
			ends[at] = c.NotAfter.Unix()
		}
	}
	for at, end := range ends {
		put(s, "certificate_expiry_timestamp_seconds", end, at.name, at.key)
	}
}
