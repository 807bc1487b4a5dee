package config

import (
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// config reads all of a file.
func (w *walker) config(c *Config, root value) {
	o := root.object("")
	listen := o.get("listen")
	c.Listen = w.listen(listen)
	if !listen.given() {
		o.missing("listen", `say where to listen, as listen: ":443"`)
	}
	c.TLS = w.tls(o, c.Listen)
	c.Upstreams = w.upstreams(o.get("upstreams"))
	w.vague = w.vague || slices.Contains(o.meant, "upstreams")
	c.Auth = w.auth(o.get(keyAuth))
	c.Redis = w.redis(o.get(keyRedis))
	c.Broadcast = w.broadcast(o.get(keyBroadcast))
	w.limits(o.get("limits"), c)
	c.Routes = w.routes(o.get("routes"), c)
	w.warnOfCertificates(o, c)
	c.Admin = w.admin(o.get(keyAdmin))

	drain := o.get("drain").objectIfGiven("drain")
	c.Drain = Drain{
		Timeout:  drain.get(keyTimeout).duration(),
		Spread:   drain.get("spread").duration(),
		NotReady: drain.get("not_ready").duration(),
	}
	if d := c.Drain; d.NotReady+d.Spread > d.Timeout {
		w.drainWarning(drain, d)
	}

	log := o.get("log").objectIfGiven("log")
	c.Log = Log{
		Level:  log.get("level").word(),
		Format: log.get("format").word(),
	}
	c.Log.Access, c.Log.AccessLog = w.access(log.get("access"))
	c.Telemetry = w.telemetry(o.get(keyTelemetry))
}

// objectIfGiven is object for a mapping that may be missing.
func (v value) objectIfGiven(path string) object {
	if !v.given() {
		return object{value: v, may: mappingAt(path)}
	}
	return v.object(path)
}

func (w *walker) drainWarning(drain object, d Drain) {
	for _, key := range []string{"timeout", "spread", "not_ready"} {
		if v := drain.get(key); v.given() {
			v.warningf("not_ready and spread (%v and %v) take longer than timeout (%v): what is left then is cut off", d.NotReady, d.Spread, d.Timeout)
			return
		}
	}
}

// listen reads where to listen: one address, or a list.
func (w *walker) listen(v value) (list []Listener) {
	switch {
	case !v.given():
		return nil
	case v.node.Kind == yaml.ScalarNode:
		return []Listener{{Pos: v.pos(), Address: w.address(v)}}
	case v.node.Kind != yaml.SequenceNode:
		v.problemf("want an address, as \":443\", or a list, have %s", describe(v.node))
		return nil
	case len(v.node.Content) == 0:
		v.problemf("an empty list listens nowhere")
	}
	first := make(map[string]int)
	for _, item := range v.items() {
		l, at := Listener{Pos: item.pos()}, item
		if item.node.Kind != yaml.ScalarNode {
			o := item.object("listen[]")
			if at = o.get("address"); !at.given() {
				o.missing("address", "say where to listen")
			}
			l.Plaintext = o.get(keyTLS).off()
			l.Socket = o.get("socket").socket()
			l.ProxyProtocol = w.prefixes(o.get(keyProxyProtocol))
		}
		l.Address = w.address(at)
		if line, ok := first[l.Address]; ok && l.Address != "" && !anyPort(l.Address) {
			at.problemf("%s is in line %d already", shown(l.Address), line)
		}
		first[l.Address] = l.Pos.Line
		list = append(list, l)
	}
	return list
}

func anyPort(address string) bool {
	_, port, _ := net.SplitHostPort(address)
	return port == "0"
}

// off reads the tls of a listener. YAML 1.1, and what writes it, has false for off.
func (v value) off() bool {
	if !v.given() {
		return false
	}
	if v.node.Kind == yaml.ScalarNode {
		switch v.node.Value {
		case "off", no:
			return true
		case "on", yes:
			return false
		}
	}
	what := describe(v.node)
	if v.node.Kind == yaml.ScalarNode && v.node.Value != "" {
		what = shown(v.node.Value)
	}
	v.problemf("want on or off, have %s", what)
	return false
}

// socket reads the name of a socket of systemd.
func (v value) socket() string {
	s := v.text()
	if s != "" && !socketShape.MatchString(s) {
		v.problemf("want a FileDescriptorName= of systemd, as web, have %s", shown(s))
		return ""
	}
	return s
}

// hostName is what may stand before a port: a name, or an IPv4 address.
var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)

// address reads where to listen.
func (w *walker) address(v value) string {
	if v.given() && v.node.Kind == yaml.ScalarNode && v.node.ShortTag() == "!!int" {
		v.problemf("want host:port; a port alone is written \":%s\"", v.node.Value)
		return ""
	}
	return v.hostPort("want host:port, as \":443\" or \"127.0.0.1:8443\"", true, 0)
}

// hostPort reads an address with a numeric port.
func (v value) hostPort(want string, mayBeEmpty bool, leastPort int) string {
	s := v.text()
	if s == "" {
		return ""
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		v.problemf("%s, have %s", want, shown(s))
		return ""
	}
	if _, err := netip.ParseAddr(host); err != nil && !hostName.MatchString(host) && (host != "" || !mayBeEmpty) {
		v.problemf("%s: %s is no host", want, shown(host))
		return ""
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || int(n) < leastPort {
		v.problemf("%s: the port is a number from %d to 65535, not %s", want, leastPort, shown(port))
		return ""
	}
	return s
}

// prefixes reads peers.
func (w *walker) prefixes(v value) (list []netip.Prefix) {
	if !v.given() {
		return nil
	}
	items := v.items()
	if v.node.Kind == yaml.SequenceNode && len(items) == 0 {
		v.problemf("an empty list trusts nobody; remove it")
	}
	for _, item := range items {
		s := item.text()
		if s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if a, aerr := netip.ParseAddr(s); aerr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil:
			item.problemf("want a range of addresses, as 10.0.0.0/8, have %s", shown(s))
			continue
		case p.Masked() != p:
			item.problemf("%s has bits set behind the prefix; did you mean %q?", shown(s), p.Masked())
			continue
		case p.Bits() == 0:
			item.warningf("anybody can claim any address with a PROXY header; name your load balancers alone")
		}
		list = append(list, p)
	}
	return list
}

// tls reads how the listeners identify themselves.
func (w *walker) tls(root object, listeners []Listener) (t TLS) {
	secure := slices.IndexFunc(listeners, func(l Listener) bool { return !l.Plaintext })
	wanted := secure >= 0
	v := root.get(keyTLS)
	if !v.given() {
		if wanted && !slices.Contains(root.meant, keyTLS) {
			root.w.problem(listeners[secure].Pos, keyTLS, "missing: give certificates, acme, or dev: true, or listen with tls: off")
		}
		return t
	}
	o := v.object(keyTLS)
	t = TLS{
		Pos:          v.pos(),
		Certificates: w.certificates(o.get("certificates")),
		Dev:          o.get("dev").boolean(),
		ClientCA:     o.get(keyClientCA).file(),
		ClientAuth:   o.get("client_auth").word(),
		AnyHost:      o.get("any_host").boolean(),
		ACME:         w.acme(o.get("acme")),
	}
	certs, dev, ca, auth := o.get("certificates"), o.get("dev"), o.get(keyClientCA), o.get("client_auth")
	switch {
	case certs.given() && t.Dev:
		dev.problemf("certificates are given too: want one of them")
	case t.ACME != nil && t.Dev:
		dev.problemf("acme is given too: want one of them")
	case wanted && !certs.given() && t.ACME == nil && (!dev.given() || dev.node.Value == no) && o.complete():
		v.problemf("want certificates, acme, or dev: true")
	case len(listeners) > 0 && !wanted:
		v.warningf("not used: every listener has tls: off")
	}
	if !ca.given() {
		o.get("any_host").refuse("goes with " + keyClientCA)
	}
	if ca.given() && !auth.given() {
		ca.problemf("goes with client_auth: optional or required")
	}
	if auth.given() && !ca.given() {
		auth.problemf("goes with %s", keyClientCA)
	}
	w.warnOfDev(t, o, listeners)
	w.warnOfClients(t, o, listeners)
	return t
}

// warnOfClients reports certificates that clients are asked for in vain.
func (w *walker) warnOfClients(t TLS, o object, listeners []Listener) {
	w.clientAuth = o.get("client_auth")
	for _, l := range listeners {
		if l.Plaintext && t.ClientAuth == "required" && !l.local() {
			o.get("client_auth").warningf("%s has tls: off: who comes there is asked for no certificate", shown(l.Address))
			return
		}
	}
}

// local reports whether a listener is for this machine alone.
func (l *Listener) local() bool {
	host, _, _ := net.SplitHostPort(l.Address)
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func (w *walker) warnOfDev(t TLS, o object, listeners []Listener) {
	if !t.Dev {
		return
	}
	for _, l := range listeners {
		if l.Address == "" || l.Plaintext || l.local() {
			continue
		}
		o.get("dev").warningf("a development certificate, and %s is not this machine alone", shown(l.Address))
		return
	}
}

// certificates reads pairs of files.
func (w *walker) certificates(v value) (list []Certificate) {
	items := v.items()
	if v.given() && v.node.Kind == yaml.SequenceNode && len(items) == 0 {
		v.problemf("an empty list gives no certificate")
	}
	for _, item := range items {
		o := item.object("tls.certificates[]")
		for _, key := range []string{keyCert, keyKey} {
			if !o.get(key).given() {
				o.missing(key, "a certificate is a pair of files, cert and key")
			}
		}
		list = append(list, Certificate{Pos: item.pos(), Cert: o.get(keyCert).file(), Key: o.get(keyKey).file()})
	}
	return list
}
