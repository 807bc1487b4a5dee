package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// The keys that say what a route takes.
var kinds = []string{keyGRPC, keyWebSocket, keyPath, keyPassthrough}

// routes reads what goes where.
func (w *walker) routes(v value, c *Config) (list []Route) {
	if !v.given() {
		w.unused(c)
		return nil
	}
	upstreams := make(map[string]*Upstream, len(c.Upstreams))
	for i := range c.Upstreams {
		upstreams[c.Upstreams[i].Name] = &c.Upstreams[i]
	}
	names := make(map[string]int)
	seen := make(covered)
	for _, item := range v.items() {
		o := item.object("routes[]")
		r := Route{Pos: item.pos(), Name: item.path}
		if name := o.get("name"); name.given() {
			r.Name = w.routeName(name, names)
		}
		if o.node.Kind == yaml.MappingNode {
			w.route(&r, o, c, upstreams)
			seen.warn(&r, o)
		}
		list = append(list, r)
	}
	c.Routes = list
	w.warnOfPassthrough(c)
	w.warnOfAnyHost(c)
	w.unused(c)
	return list
}

func (w *walker) routeName(v value, names map[string]int) string {
	name := v.text()
	if line, ok := names[name]; ok && name != "" {
		v.problemf("the route in line %d has that name", line)
	}
	names[name] = v.pos().Line
	return name
}

// route reads one route.
func (w *walker) route(r *Route, o object, c *Config, upstreams map[string]*Upstream) {
	var given []string
	for _, kind := range kinds {
		if o.get(kind).given() {
			given = append(given, kind)
		}
	}
	switch {
	case len(given) > 1:
		o.problemf("has %s: want one of them", strings.Join(given, " and "))
		return
	case len(given) == 0 && (o.get(keySNI).given() || o.get(keyALPN).given()):
		o.missing(keyPassthrough, "sni and alpn choose connections to pass through, say where to")
		return
	case len(given) == 0 && !o.complete():
		return // one of its keys may be misspelt
	case len(given) == 0:
		o.problemf("takes nothing: want one of grpc, websocket and path, or sni or alpn with passthrough")
		return
	case given[0] == keyPassthrough:
		w.passthrough(r, o)
		return
	}
	r.GRPC = w.grpc(o.get(keyGRPC))
	r.WebSocket = w.path(o.get(keyWebSocket))
	r.Path = w.path(o.get(keyPath))
	for _, key := range []string{keySNI, keyALPN, keyProxyProtocol} {
		o.get(key).refuse("goes with passthrough alone")
	}
	w.narrow(r, o, given[0])
	d := destinations{c, upstreams, given[0]}
	w.destination(r, o, &d)
	w.changes(r, o, &d)
	w.guarded(r, o, c, given[0])
	if r.Broadcast && r.WebSocket != "" {
		w.noTunnel(o)
		return
	}
	r.Tunnel = w.tunnel(o, given[0])
}

// refuse reports a key that has no place where it is.
func (v value) refuse(why string) {
	if v.given() {
		v.problemf("%s", why)
	}
}

// grpcName is a service, or one method of it.
var grpcName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*(/[A-Za-z_][A-Za-z0-9_]*)?$`)

func (w *walker) grpc(v value) string {
	s := v.text()
	switch {
	case s == "" || s == "*" || grpcName.MatchString(s):
	case strings.HasPrefix(s, "/") && grpcName.MatchString(s[1:]):
		v.problemf("a gRPC service has no slash before it; did you mean %q?", s[1:])
	case strings.HasSuffix(s, "/*") && grpcName.MatchString(strings.TrimSuffix(s, "/*")):
		v.problemf("a service takes all its methods; did you mean %q?", strings.TrimSuffix(s, "/*"))
	default:
		v.problemf("want pkg.Service, pkg.Service/Method or \"*\", have %s", shown(s))
	}
	return s
}

// longestPath is longer than a request's head may be.
const longestPath = 16 << 10

// path reads what router compares with a request's path, decoded and normalised:
// what can never be equal to one is a mistake.
func (w *walker) path(v value) string {
	s := v.text()
	switch {
	case s == "":
	case s[0] != '/':
		v.problemf("a path begins with \"/\", have %s", shown(s))
	case len(s) > longestPath:
		v.problemf("a path has at most 16 KiB")
	case strings.ContainsAny(s, "?#"):
		v.problemf("a path alone: a query and a fragment have no place here")
	case strings.Contains(s, "//") || strings.Contains(s+"/", "/./") || strings.Contains(s+"/", "/../"):
		v.problemf("never fits: requests are compared without empty, \".\" and \"..\" elements")
	case strings.ContainsAny(s, "\\\x00"):
		v.problemf("never fits: requests with a backslash or NUL in the path are refused")
	case strings.ContainsAny(s, "*{}"):
		v.warningf("taken as it stands: there are no wildcards; a path that ends in \"/\" takes everything below it")
	case strings.Contains(s, "%"):
		v.warningf("taken as it stands: requests are compared decoded")
	}
	return s
}

// narrow reads host, method and header.
func (w *walker) narrow(r *Route, o object, kind string) {
	r.Hosts = w.hosts(o.get(keyHost))
	method := o.get("method")
	for _, item := range method.itemsOrOne() {
		switch s := item.text(); {
		case s == "":
		case !token.MatchString(s):
			item.problemf("%s is no method", shown(s))
		case strings.ToUpper(s) != s:
			item.problemf("methods are compared as they stand; did you mean %q?", strings.ToUpper(s))
		default:
			r.Methods = append(r.Methods, s)
		}
	}
	always := map[string]string{keyGRPC: "POST", keyWebSocket: "GET"}[kind]
	if len(r.Methods) > 0 && always != "" && !slices.Contains(r.Methods, always) {
		method.warningf("never fits: the method is always %s", always)
	}
	r.Headers = w.headers(o.get(keyHeader), func(at value, name string) {
		if strings.EqualFold(name, keyHost) {
			at.problemf("the host has a key of its own: host")
		}
	})
}

// token is RFC 9110's, section 5.6.2.
var token = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}$")

// hostPattern is a name, or any one label before one.
var hostPattern = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)

func (w *walker) hosts(v value) (list []string) {
	for _, item := range v.itemsOrOne() {
		s := item.text()
		bare := s
		bracketed := strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]")
		if bracketed {
			bare = s[1 : len(s)-1]
		}
		addr, err := netip.ParseAddr(bare)
		switch {
		case s == "":
			continue
		case err == nil && addr.Is6() && !bracketed:
			item.problemf("an IPv6 address stands in brackets; did you mean %q?", "["+s+"]")
		case err == nil && addr.Is6() == bracketed || hostPattern.MatchString(s):
		case strings.Contains(s, ":"):
			item.problemf("a host without scheme and port, as api.example.com, have %s", shown(s))
		default:
			item.problemf("want a host, as api.example.com or \"*.example.com\", have %s", shown(s))
		}
		list = append(list, s)
	}
	return list
}

// headers reads names of fields and their values; allowed reports a name that has
// no place there.
func (w *walker) headers(v value, allowed func(at value, name string)) map[string]string {
	if !v.given() {
		return nil
	}
	fields := make(map[string]string)
	first := make(map[string]int)
	for _, e := range v.entries() {
		name := e.key.Value
		at := value{w: w, node: e.key, path: e.value.path}
		line, again := first[strings.ToLower(name)]
		switch {
		case !token.MatchString(name):
			at.problemf("no name of a header field")
		case again:
			at.problemf("given twice, upper or lower case; first in line %d", line)
		default:
			allowed(at, name)
		}
		if lower := strings.ToLower(name); lower == "forwarded" || lower == "x-real-ip" || strings.HasPrefix(lower, "x-forwarded-") {
			at.warningf("never fits: what clients say of where they come from is taken out before")
		}
		first[strings.ToLower(name)] = e.key.Line
		fields[name], _ = e.value.anyText()
	}
	if len(fields) == 0 && v.node.Kind == yaml.MappingNode {
		v.problemf("names no field; remove it")
	}
	return fields
}

// destinations is where a route of some kind may lead.
type destinations struct {
	c         *Config
	upstreams map[string]*Upstream
	kind      string
}

// upstream reads the name of an upstream that v stands for.
func (w *walker) upstream(v value, name string, d *destinations) *Upstream {
	u := d.upstreams[name]
	switch {
	case u == nil && !w.full() && !w.vague:
		names := make([]string, len(d.c.Upstreams))
		for i := range names {
			names[i] = d.c.Upstreams[i].Name
		}
		v.problemf("no upstream %s%s", shown(name), didYouMean(name, names))
	case u == nil || len(u.Servers) == 0:
	case d.kind == keyWebSocket && u.http2:
		v.problemf("WebSocket needs HTTP/1.1, and upstream %s speaks HTTP/2: want http:// or https://", shown(name))
	case d.kind == keyGRPC && !u.http2:
		v.problemf("gRPC needs HTTP/2, and upstream %s speaks HTTP/1.1: want grpc://, grpcs:// or h2c://", shown(name))
	}
	return u
}

// destination reads to, or redirect.
func (w *walker) destination(r *Route, o object, d *destinations) {
	to, redirect, status := o.get(keyTo), o.get(keyRedirect), o.get(keyStatus)
	switch {
	case to.given() && redirect.given():
		redirect.problemf("leads to an upstream too: want to or redirect")
	case redirect.given() && d.kind != keyPath:
		redirect.problemf("goes with path alone")
	case redirect.given():
		r.Redirect = w.redirect(redirect)
		r.RedirectStatus = status.count()
		return
	case o.get(keyTickets).given() && o.get(keyRefresh).given():
		o.get(keyRefresh).problemf("answers too: want tickets or refresh")
		return
	case o.get(keyTickets).given():
		r.Tickets = w.own(keyTickets, "who gets tickets: nobody is known without", o, d.kind)
		return
	case o.get(keyRefresh).given():
		r.Refresh = w.own(keyRefresh, "whose sessions they are: nobody is known without", o, d.kind)
		return
	case o.get(keyBroadcast).given():
		w.hub(r, o, d.c, d.kind)
		return
	case !to.given():
		o.missing(keyTo, "say where it leads: to an upstream, or for a path with redirect")
	}
	status.refuse("goes with redirect")
	r.ToPos = to.pos()
	if to.given() && to.node.Kind == yaml.MappingNode {
		w.split(r, to, d)
		return
	}
	if r.To = to.text(); r.To != "" {
		w.upstream(to, r.To, d)
	}
}

// split reads upstreams and their weights.
func (w *walker) split(r *Route, v value, d *destinations) {
	var first *Upstream
	for _, e := range v.entries() {
		at := value{w: w, node: e.key, path: e.value.path}
		e.value.key = &key{is: v.is().of[1].of[0]}
		r.Split = append(r.Split, Share{e.key.Value, e.value.count()})
		u := w.upstream(at, e.key.Value, d)
		switch {
		case u == nil || len(u.Servers) == 0:
		case first == nil:
			first = u
		case u.http2 != first.http2:
			at.problemf("speaks %s, and upstream %s does not", spoken(u.http2), shown(first.Name))
		}
	}
	if len(r.Split) == 0 {
		v.problemf("names no upstream")
	}
}

func (w *walker) redirect(v value) string {
	s := v.text()
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || strings.ContainsAny(s, "\r\n") || s[0] != '/' && (u.Scheme != "http" && u.Scheme != "https" || u.Host == ""):
		v.problemf("want a URL or a path, as https://www.example.com/ or /new/, have %s", shown(s))
	case strings.Contains(u.Host, "*"):
		v.problemf("the request would choose the host: the \"*\" belongs behind the host's slash")
	case strings.Count(s, "*") > 1:
		v.problemf("one \"*\" stands for the rest of the request's path, not two")
	}
	return s
}

// passthrough reads a route of connections that are not terminated here.
func (w *walker) passthrough(r *Route, o object) {
	for name, v := range o.fields {
		if slices.Contains([]string{"name", keySNI, keyALPN, keyPassthrough, keyProxyProtocol}, name) {
			continue
		}
		v.refuse("has no place beside passthrough: the connection goes on as it came, and nobody sees what is in it")
	}
	r.Passthrough = o.get(keyPassthrough).hostPort("want host:port, as \"127.0.0.1:9443\"", false, 1)
	if v := o.get(keyProxyProtocol); v.given() {
		r.ProxyHeader = v.word() == "v2"
	}
	sni, alpn := o.get(keySNI), o.get(keyALPN)
	if !sni.given() && !alpn.given() {
		o.get(keyPassthrough).problemf("needs sni or alpn: without them every connection would be passed through")
	}
	if r.SNI = sni.text(); r.SNI != "" {
		if _, err := netip.ParseAddr(r.SNI); err == nil || !hostPattern.MatchString(r.SNI) {
			sni.problemf("want a host's name, as legacy.example.com or \"*.example.com\", have %s", shown(r.SNI))
		}
	}
	if r.ALPN = alpn.text(); len(r.ALPN) > 255 {
		alpn.problemf("a protocol's name has at most 255 bytes (RFC 7301, 3.1)")
	}
}

// warnOfPassthrough reports routes of connections where none has TLS, and routes
// of requests whose connections are all passed through.
func (w *walker) warnOfPassthrough(c *Config) {
	if len(c.Listen) == 0 {
		return
	}
	encrypted := slices.ContainsFunc(c.Listen, func(l Listener) bool { return !l.Plaintext })
	plain := slices.ContainsFunc(c.Listen, func(l Listener) bool { return l.Plaintext })
	through := make(map[string]int) // by SNI, in lower case
	for i := range c.Routes {
		r := &c.Routes[i]
		switch {
		case r.Passthrough != "" && !encrypted:
			w.warning(r.Pos, fmt.Sprintf("routes[%d]", i), "never fits: passthrough needs TLS, and every listener has tls: off")
		case r.Passthrough != "" && r.SNI != "" && r.ALPN == "":
			through[strings.ToLower(r.SNI)] = r.Pos.Line
		}
	}
	for i := range c.Routes {
		r := &c.Routes[i]
		line, all := 0, len(r.Hosts) > 0 && !plain
		for _, host := range r.Hosts {
			host = strings.ToLower(host)
			_, parent, _ := strings.Cut(host, ".")
			if line = max(through[host], through["*."+parent]); line == 0 {
				all = false
			}
		}
		if all {
			w.warning(r.Pos, fmt.Sprintf("routes[%d]", i),
				fmt.Sprintf("hardly ever fits: the route in line %d passes connections for %s through", line, strings.Join(r.Hosts, ", ")))
		}
	}
}

// warnOfAnyHost reports hosts that say nothing of who asks.
func (w *walker) warnOfAnyHost(c *Config) {
	for i := range c.Routes {
		if r := &c.Routes[i]; c.TLS.AnyHost && len(r.Hosts) > 0 {
			w.warning(r.Pos, fmt.Sprintf("routes[%d]", i),
				"tls.any_host: a connection opened for one host reaches the routes of all others; its certificate is not asked for again")
			return
		}
	}
}

// covered is what earlier routes take whatever host, method and header are:
// a kind and a pattern, and the line.
type covered map[[2]string]int

// warn reports a route that can never match because an earlier one takes it all.
func (c covered) warn(r *Route, o object) {
	var keys [][2]string // what would cover r, itself first
	switch {
	case r.GRPC != "":
		service, _, _ := strings.Cut(r.GRPC, "/")
		keys = [][2]string{{keyGRPC, r.GRPC}, {keyGRPC, service}, {keyGRPC, "*"}}
	case r.WebSocket != "":
		keys = prefixes(keyWebSocket, r.WebSocket)
	case r.Path != "":
		keys = prefixes(keyPath, r.Path)
	case r.Passthrough != "":
		sni := strings.ToLower(r.SNI)
		keys = [][2]string{{keyPassthrough, sni + " " + r.ALPN}, {keyPassthrough, sni + " "}, {keyPassthrough, " " + r.ALPN}}
	default:
		return
	}
	for _, k := range keys {
		if line, ok := c[k]; ok && k != [2]string{keyPassthrough, " "} {
			o.warningf("never fits: the route in line %d takes all of it", line)
			return
		}
	}
	if len(r.Hosts)+len(r.Methods)+len(r.Headers) == 0 {
		c[keys[0]] = r.Pos.Line
	}
}

// prefixes is a path and every pattern that takes it.
func prefixes(kind, path string) [][2]string {
	list := [][2]string{{kind, path}}
	for i := range len(path) {
		if path[i] == '/' && len(path) <= longestPath {
			list = append(list, [2]string{kind, path[:i+1]})
		}
	}
	return list
}
