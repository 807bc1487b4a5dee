package config

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// changes reads what a route does with its calls on the way.
func (w *walker) changes(r *Route, o object, d *destinations) {
	if own := keyRedirect; r.Redirect != "" || o.get(keyRedirect).given() || r.Tickets || r.Refresh || r.Broadcast {
		switch {
		case r.Tickets:
			own = keyTickets
		case r.Refresh:
			own = keyRefresh
		case r.Broadcast:
			own = keyBroadcast
		}
		for _, key := range []string{keyRewrite, keyRewriteHost, keyRequestHeaders, keyResponseHeaders, keyCORS, keyFallback, keyMirror, keyEncodedSlash, keyMaxBody, keyAnswerTimeout, keyCallTimeout} {
			o.get(key).refuse("has no place beside " + own)
		}
		return
	}
	if d.kind == keyGRPC {
		o.get(keyEncodedSlash).refuse("goes with path and websocket")
	}
	r.EncodedSlash = o.get(keyEncodedSlash).boolean()
	if d.kind != keyPath {
		for _, key := range []string{keyRewrite, keyCORS, keyMirror, keyMaxBody} {
			o.get(key).refuse("goes with path alone")
		}
		o.get(keyAnswerTimeout).refuse("goes with path; for a gRPC call there is call_timeout")
	}
	if d.kind != keyGRPC {
		o.get(keyCallTimeout).refuse("goes with grpc; for a path there is answer_timeout")
	}
	if d.kind == keyWebSocket {
		for _, key := range []string{keyRewriteHost, keyRequestHeaders, keyResponseHeaders, keyFallback} {
			o.get(key).refuse("is not for websocket")
		}
		return
	}
	r.Rewrite = w.rewrite(r, o.get(keyRewrite))
	if hosts := w.hosts(o.get(keyRewriteHost)); len(hosts) == 1 {
		if r.RewriteHost = hosts[0]; strings.HasPrefix(hosts[0], "*") {
			o.get(keyRewriteHost).problemf("a server is asked for one host, not for %s", shown(hosts[0]))
		}
	}
	r.Request, r.Response = w.edits(o.get(keyRequestHeaders), "routes[].request_headers"), w.edits(o.get(keyResponseHeaders), "routes[].response_headers")
	r.CORS = w.cors(o.get(keyCORS))
	r.Fallback = w.fallback(r, o.get(keyFallback), d)
	if d.kind == keyPath {
		r.Mirror = w.mirror(r, o.get(keyMirror), d)
		r.MaxBody = o.get(keyMaxBody).size()
		if v := o.get(keyAnswerTimeout); v.given() {
			r.AnswerTimeout = v.duration()
		}
	}
	if d.kind == keyGRPC {
		r.CallTimeout = o.get(keyCallTimeout).duration()
	}
}

// rewrite reads what the server gets instead of path.
func (w *walker) rewrite(r *Route, v value) string {
	s := w.path(v)
	if s != "" && r.Path != "" && strings.HasSuffix(s, "/") != strings.HasSuffix(r.Path, "/") {
		v.problemf("either both this and path end in \"/\", or neither does; path is %s", shown(r.Path))
	}
	return s
}

// framed are fields by which messages are told apart, see router.Edits.
var framed = []string{
	"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// edits reads what is changed in a head.
func (w *walker) edits(v value, schema string) (e Edits) {
	if !v.given() {
		return e
	}
	o := v.object(schema)
	for _, item := range o.get("remove").items() {
		if s := item.field(); s != "" {
			item.editable(s)
			e.Remove = append(e.Remove, s)
		}
	}
	e.Set, e.Add = o.get("set").edited(), o.get("add").edited()
	if o.node.Kind == yaml.MappingNode && len(o.node.Content) == 0 {
		v.problemf("changes nothing; remove it")
	}
	return e
}

// editable reports a field that cannot be changed.
func (v value) editable(name string) {
	lower := strings.ToLower(name)
	switch {
	case slices.Contains(framed, lower), strings.HasPrefix(lower, "grpc-"), strings.HasPrefix(lower, "sec-websocket-"):
		v.problemf("messages are told apart by it: it cannot be changed")
	case lower == keyHost:
		v.problemf("the host has a key of its own: rewrite_host")
	}
}

// edited reads fields to set or add.
func (v value) edited() map[string]string {
	fields := v.w.headers(v, value.editable)
	for _, value := range fields {
		if strings.ContainsAny(value, "\r\n\x00") {
			v.problemf("a line break or NUL cannot stand in a field")
		}
	}
	return fields
}

// cors reads which pages of other origins may read answers.
func (w *walker) cors(v value) *CORS {
	if !v.given() {
		return nil
	}
	o := v.object("routes[].cors")
	if o.node.Kind != yaml.MappingNode {
		return nil
	}
	c := &CORS{Credentials: o.get("credentials").boolean(), MaxAge: o.get("max_age").duration()}
	if !o.get("origins").given() {
		o.missing("origins", "say which pages, as [\"https://app.example.com\"]")
	}
	for _, item := range o.get("origins").items() {
		switch s := item.text(); {
		case s == "":
		case s == "*" && c.Credentials:
			item.problemf("with credentials any page could act for the user: name the origins")
		case s != "*" && !originShape.MatchString(s):
			item.problemf("want scheme and host, as \"https://app.example.com\", have %s", shown(s))
		default:
			c.Origins = append(c.Origins, s)
		}
	}
	for _, item := range o.get("methods").items() {
		if s := item.text(); s != "" && !methodShape.MatchString(s) {
			item.problemf("want a method in capitals, have %s", shown(s))
		} else if s != "" {
			c.Methods = append(c.Methods, s)
		}
	}
	c.Headers, c.Expose = o.get(keyHeaders).fieldNames(), o.get("expose").fieldNames()
	return c
}

// fieldNames reads a list of names.
func (v value) fieldNames() (list []string) {
	for _, item := range v.items() {
		if s := item.field(); s != "" {
			list = append(list, s)
		}
	}
	return list
}

// fallback reads what calls get that no server can be reached for.
func (w *walker) fallback(r *Route, v value, d *destinations) *Fallback {
	if !v.given() {
		return nil
	}
	o := v.object("routes[].fallback")
	if o.node.Kind != yaml.MappingNode {
		return nil
	}
	f := &Fallback{To: o.get(keyTo).text()}
	switch o.only(keyTo, keyStatus) {
	case keyTo:
		w.same(r, o.get(keyTo), f.To, d)
		for _, key := range []string{keyHeaders, "body"} {
			o.get(key).refuse("goes with status")
		}
	case keyStatus:
		f.Status = o.get(keyStatus).count()
		f.Headers = o.get(keyHeaders).edited()
		if o.get("body").given() {
			f.Body, _ = o.get("body").anyText()
		}
	}
	return f
}

// same reads the name of a second upstream of a route, which must speak what the
// first does.
func (w *walker) same(r *Route, v value, name string, d *destinations) {
	if name == "" {
		return
	}
	u := w.upstream(v, name, d)
	first := r.To
	if len(r.Split) > 0 {
		first = r.Split[0].To
	}
	if one := d.upstreams[first]; u != nil && one != nil && len(u.Servers)*len(one.Servers) > 0 && u.http2 != one.http2 {
		v.problemf("upstream %s speaks %s, and %s does not", shown(name), spoken(u.http2), shown(first))
	}
}

// mirror reads who gets copies.
func (w *walker) mirror(r *Route, v value, d *destinations) string {
	name := v.text()
	w.same(r, v, name, d)
	if u := d.upstreams[name]; u != nil && len(u.Servers) > 0 && u.http2 {
		v.problemf("a mirror is for servers that speak HTTP/1.1, and upstream %s speaks HTTP/2", shown(name))
	}
	return name
}
