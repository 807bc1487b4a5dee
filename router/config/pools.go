package config

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/oneport-edge/oneport/router/upstream"
)

// only reports keys of a mapping of which exactly one must stand there, if
// another number does. It gives the one.
func (o object) only(keys ...string) string {
	var given []string
	for _, k := range keys {
		if o.get(k).given() {
			given = append(given, k)
		}
	}
	switch {
	case len(given) == 1:
		return given[0]
	case len(given) > 1:
		o.problemf("has %s: want one of them", strings.Join(given, " and "))
	case o.complete():
		o.problemf("want one of %s", strings.Join(keys, ", "))
	}
	return ""
}

// balance reads which server a call goes to.
func (w *walker) balance(u *Upstream, o object) {
	u.Options.Balance = map[string]upstream.Balance{"round_robin": upstream.RoundRobin, keyHash: upstream.Hash}[o.get("balance").word()]
	by := o.get(keyHash)
	if !by.given() {
		return
	}
	if u.Options.Balance != upstream.Hash && (!o.get("balance").given() || o.get("balance").node.Value != keyHash) {
		by.problemf("goes with balance: hash")
	}
	h := by.object("upstreams.*.hash")
	if h.node.Kind != yaml.MappingNode {
		return
	}
	kind := h.only(keyHeader, "cookie", keyClientIP)
	u.Options.HashBy = upstream.HashKey{Header: h.get(keyHeader).field(), Cookie: h.get("cookie").field(), ClientIP: h.get(keyClientIP).boolean()}
	if kind == keyClientIP && !u.Options.HashBy.ClientIP {
		h.get(keyClientIP).problemf("false is nothing to hash by; remove it, or give header or cookie")
	}
}

// field reads a name of a header field or a cookie.
func (v value) field() string {
	s := v.text()
	if s != "" && !token.MatchString(s) {
		v.problemf("%s is no name", shown(s))
	}
	return s
}

// resilience reads what happens when servers fail.
func (w *walker) resilience(u *Upstream, o object) {
	opt := &u.Options
	opt.Health = w.health(u, o.get("health"))
	e := o.get("eject").object("upstreams.*.eject")
	opt.Eject = upstream.Eject{Failures: orNegative(e.get("failures").count()), For: e.get("for").duration()}
	r := o.get("retries").object("upstreams.*.retries")
	opt.Retries = upstream.Retries{Most: orNegative(r.get("attempts").count()), Budget: r.get("budget").percent(), Backoff: r.get("backoff").duration()}
	if opt.Retries.Budget == 0 {
		opt.Retries.Most = -1
	}
	opt.SlowStart = o.get("slow_start").duration()
	if b := o.get("breaker"); b.given() {
		bo := b.object("upstreams.*.breaker")
		if !bo.get("failures").given() {
			bo.missing("failures", "the share of calls that must have failed, as 50%")
		}
		opt.Breaker = upstream.Breaker{
			Share: bo.get("failures").percent(), Calls: bo.get("calls").count(), Window: bo.get("window").duration(), Open: bo.get("open").duration(),
		}
		if share := bo.get("failures"); share.given() && share.node.Value == "0%" {
			bo.get("failures").problemf("0%% would never let a call through; remove breaker for none")
		}
	}
	l := o.get("limits").object("upstreams.*.limits")
	opt.Requests = l.get("requests").count()
	opt.Streams.Conns, opt.Streams.Waiting, opt.Streams.Wait = l.get(keyConnections).count(), l.get("pending").count(), l.get("wait").duration()
	opt.Streams.Warm = l.get("warm").count()
	opt.Streams.Ping = orNegative(l.get("ping").duration())
	for _, key := range []string{keyConnections, "warm", "pending", "wait", "ping"} {
		if len(u.Servers) > 0 && !u.http2 {
			l.get(key).refuse("is for servers that speak HTTP/2; requests bounds those that speak HTTP/1.1")
		}
	}
	opt.Connect = o.get("connect_timeout").duration()
	if v := o.get(keyProxyProtocol); v.given() {
		if opt.ProxyHeader = v.word() == "v2"; len(u.Servers) > 0 && u.http2 {
			v.problemf("names one client, and connections to servers that speak HTTP/2 are shared")
		}
	}
	if opt.Streams.Warm > opt.Streams.Conns {
		l.get("warm").problemf("more than connections, %d", opt.Streams.Conns)
	}
	opt.Resolve = orNegative(o.get("resolve").duration())
}

// orNegative is what the file's zero is to an option whose own zero is a default.
func orNegative[T ~int | ~int64](n T) T {
	if n == 0 {
		return -1
	}
	return n
}

// health reads how servers are asked.
func (w *walker) health(u *Upstream, v value) (h upstream.Health) {
	if !v.given() {
		return h
	}
	o := v.object("upstreams.*.health")
	if o.node.Kind != yaml.MappingNode {
		return h
	}
	kind := o.only(keyPath, keyGRPC, keyTCP)
	h = upstream.Health{
		Path: w.path(o.get(keyPath)), Host: o.get(keyHost).text(), Service: o.get(keyGRPC).text(), GRPC: kind == keyGRPC, TCP: o.get(keyTCP).boolean(),
		Every: o.get("every").duration(), Timeout: o.get(keyTimeout).duration(), Unhealthy: o.get("unhealthy").count(), Healthy: o.get("healthy").count(),
	}
	if h.Service == "*" {
		h.Service = ""
	}
	switch {
	case kind == keyTCP && !h.TCP:
		o.get(keyTCP).problemf("false asks for nothing; remove health")
	case kind == keyGRPC && len(u.Servers) > 0 && !u.http2:
		o.get(keyGRPC).problemf("gRPC needs HTTP/2, and the servers speak HTTP/1.1; give path, or tcp: true")
	case kind != keyPath:
		o.get(keyHost).refuse("goes with path")
	}
	if h.Timeout > h.Every && o.get(keyTimeout).given() {
		o.get(keyTimeout).warningf("longer than every: a server that hangs is asked less often than that")
	}
	return h
}

// upstreamTLS reads how servers with TLS are known.
func (w *walker) upstreamTLS(u *Upstream, v value) (t UpstreamTLS) {
	if !v.given() {
		return t
	}
	o := v.object("upstreams.*.tls")
	t = UpstreamTLS{
		Pos: v.pos(), CA: o.get("ca").file(), ServerName: o.get("server_name").text(), Cert: o.get(keyCert).file(), Key: o.get(keyKey).file(),
	}
	if cert, key := o.get(keyCert), o.get(keyKey); cert.given() != key.given() {
		o.problemf("cert and key go together")
	}
	if t.ServerName != "" && !hostPattern.MatchString(t.ServerName) {
		o.get("server_name").problemf("want a host's name, as app.example.com, have %s", shown(t.ServerName))
	}
	if !slices.ContainsFunc(u.Servers, secure) && len(u.Servers) > 0 {
		v.warningf("not used: no server has https or grpcs")
	}
	return t
}
