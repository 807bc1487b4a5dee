package edge

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/config"
)

// Plan is what another file changes.
type Plan struct {
	Upstreams Changes
	Routes    Changes
	// Reordered says that routes of both files are in another order: the first that
	// fits counts.
	Reordered bool
	// Guards names the keys of guards that differ: auth.jwt, redis, limits.named.api.
	Guards []string
	// Restart names the keys whose change takes effect at a start only.
	Restart []string
}

// Changes are of the things of one kind, by their names. A route without a name
// is called by what it takes.
type Changes struct {
	Same, Added, Removed []string
	Changed              []Change
}

// Change names the keys that differ.
type Change struct {
	Name string
	Keys []string
}

// Compare says what is would change where was is served.
func Compare(was, is *config.Config) Plan {
	p := Plan{Restart: needRestart(was, is)}
	p.Guards = guardChanges(was, is)
	p.Upstreams, _ = compare(thingsOf(was.Upstreams, upstreamName), thingsOf(is.Upstreams, upstreamName))
	p.Routes, p.Reordered = compare(thingsOf(was.Routes, routeName), thingsOf(is.Routes, routeName))
	return p
}

// Nothing reports whether a file changes nothing at all.
func (p *Plan) Nothing() bool {
	return p.Upstreams.none() && p.Routes.none() && !p.Reordered && len(p.Guards) == 0 && len(p.Restart) == 0
}

func (c *Changes) none() bool { return len(c.Added)+len(c.Removed)+len(c.Changed) == 0 }

func upstreamName(u *config.Upstream) string { return u.Name }

// routeName is a name that stays when other routes come and go.
func routeName(r *config.Route) string {
	if strings.HasPrefix(r.Name, "routes[") {
		return takes(r)
	}
	return r.Name
}

// thing is an upstream or a route.
type thing struct {
	name string
	is   reflect.Value
}

func thingsOf[T any](list []T, name func(*T) string) (things []thing) {
	seen := make(map[string]int)
	for i := range list {
		n := name(&list[i])
		if seen[n]++; seen[n] > 1 { // a route that an earlier one hides
			n = fmt.Sprintf("%s (%d)", n, seen[n])
		}
		things = append(things, thing{n, reflect.ValueOf(list[i])})
	}
	return things
}

// compare compares what two files have of a kind; moved says that what both have is
// in another order.
func compare(was, is []thing) (c Changes, moved bool) {
	before := make(map[string]int, len(was))
	for i, t := range was {
		before[t.name] = i
	}
	last := -1
	for _, t := range is {
		i, ok := before[t.name]
		if !ok {
			c.Added = append(c.Added, t.name)
			continue
		}
		delete(before, t.name)
		moved, last = moved || i < last, i
		if keys := differing(was[i].is, t.is); len(keys) > 0 {
			c.Changed = append(c.Changed, Change{t.name, keys})
		} else {
			c.Same = append(c.Same, t.name)
		}
	}
	for _, t := range was {
		if _, left := before[t.name]; left {
			c.Removed = append(c.Removed, t.name)
		}
	}
	return c, moved
}

// differing names the fields of two structs that differ, as the file calls them.
// A route's name that is its place is no difference.
func differing(a, b reflect.Value) (keys []string) {
	for i := range a.NumField() {
		f := a.Type().Field(i)
		switch {
		case !f.IsExported() || f.Name == "Name" || content(a.Field(i)) == content(b.Field(i)):
		case f.Name == "Options":
			keys = append(keys, differing(a.Field(i), b.Field(i))...)
		case f.Name == "Tunnel" && !a.Field(i).IsNil() && !b.Field(i).IsNil():
			keys = append(keys, differing(a.Field(i).Elem(), b.Field(i).Elem())...)
		case !slices.Contains(keys, keyOf(f.Name)):
			keys = append(keys, keyOf(f.Name))
		}
	}
	return keys
}

// keyOf is the file's key for a field of config's: slow_start for SlowStart.
func keyOf(field string) string {
	const limits = "limits"
	known := map[string]string{
		"GRPC": "grpc", "WebSocket": "websocket", "SNI": "sni", "ALPN": "alpn", "TLS": "tls", "CORS": "cors",
		"PProf": "pprof", "TCP": "tcp", "ClientIP": "client_ip", "CA": "ca", "JWT": "jwt", "JWKS": "jwks", "URL": "url", "MTLS": "mtls",
		"ACME": "acme", "ClientCA": "client_ca", "CARoots": "ca_roots", "HTTP": protocols.HTTP.String(), "KeyID": "key_id", "MACKeyFile": "mac_key_file",
		"Hosts": "host", "Methods": "method", "Headers": "header", "RedirectStatus": "status", "Split": "to",
		"Request": "request_headers", "Response": "response_headers",
		"Connect": "connect_timeout", "Streams": limits, "Requests": limits, "HashBy": "hash",
		"ProxyHeader": "proxy_protocol", "AuthAll": "auth", "Tunnel": "mode", "Raw": "mode", "MessageBytes": "message_size",
	}
	if key, ok := known[field]; ok {
		return key
	}
	var b strings.Builder
	for i, c := range field {
		if i > 0 && 'A' <= c && c <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(c)
	}
	return strings.ToLower(b.String())
}

// content writes a value of a file without its places in the file: what is
// equal is configured alike.
func content(v reflect.Value) string {
	if v.Type() == reflect.TypeFor[config.Pos]() {
		return ""
	}
	switch v.Kind() {
	case reflect.Struct:
		var b strings.Builder
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				fmt.Fprintf(&b, "%s{%s}", f.Name, content(v.Field(i)))
			}
		}
		if b.Len() > 0 {
			return b.String()
		}
	case reflect.Slice, reflect.Array:
		var b strings.Builder
		for i := range v.Len() {
			fmt.Fprintf(&b, "[%s]", content(v.Index(i)))
		}
		return b.String()
	case reflect.Map:
		var list []string
		for _, key := range v.MapKeys() {
			list = append(list, content(key)+":"+content(v.MapIndex(key)))
		}
		slices.Sort(list)
		return strings.Join(list, ",")
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return "nil"
		}
		return content(v.Elem())
	case reflect.String:
		return fmt.Sprintf("%q", v.String())
	default:
	}
	return fmt.Sprintf("%v", v)
}

// poolKey is what makes an upstream another one, with connections of its own.
func poolKey(u *config.Upstream) string { return content(reflect.ValueOf(*u)) }

// fixedLimits are those that take effect at a start only.
func fixedLimits(cfg *config.Config) config.Limits {
	l := cfg.Limits
	l.Named = nil
	return l
}

// guardChanges names what differs of who is let in, and how much callers get.
func guardChanges(was, is *config.Config) (keys []string) {
	for _, k := range []struct {
		name    string
		was, is any
	}{
		{"auth.jwt", was.Auth.JWT, is.Auth.JWT},
		{"auth.mtls", was.Auth.MTLS, is.Auth.MTLS},
		{"auth.keys", was.Auth.Keys, is.Auth.Keys},
		{"auth.forward", was.Auth.Forward, is.Auth.Forward},
		{"redis", was.Redis, is.Redis},
		{"broadcast", was.Broadcast, is.Broadcast},
	} {
		if content(reflect.ValueOf(k.was)) != content(reflect.ValueOf(k.is)) {
			keys = append(keys, k.name)
		}
	}
	all := map[string][2]string{}
	for i, list := range [][]config.Limit{was.Limits.Named, is.Limits.Named} {
		for _, l := range list {
			both := all[l.Name]
			both[i] = content(reflect.ValueOf(l))
			all[l.Name] = both
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if both := all[name]; both[0] != both[1] {
			keys = append(keys, "limits.named."+name)
		}
	}
	return keys
}

// needRestart names the keys that differ and take effect at a start only.
func needRestart(was, is *config.Config) (keys []string) {
	for _, k := range []struct {
		name    string
		was, is any
	}{
		{"listen", was.Listen, is.Listen},
		{"tls", was.TLS, is.TLS},
		{"routes with passthrough", passthrough(was), passthrough(is)},
		{"limits", fixedLimits(was), fixedLimits(is)},
		{"drain", was.Drain, is.Drain},
		{"log", was.Log, is.Log},
		{"admin", was.Admin, is.Admin},
		{keyTelemetry, was.Telemetry, is.Telemetry},
		{"broadcast.listen", publishersAt(was), publishersAt(is)},
	} {
		if content(reflect.ValueOf(k.was)) != content(reflect.ValueOf(k.is)) {
			keys = append(keys, k.name)
		}
	}
	return keys
}

// mostNames bounds what a line names of each kind.
const mostNames = 20

func names(list []string) string {
	if n := len(list) - mostNames; n > 0 {
		return strings.Join(list[:mostNames], ", ") + fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(list, ", ")
}

func changes(list []Change) string {
	all := make([]string, len(list))
	for i, c := range list {
		all[i] = c.Name + " (" + strings.Join(c.Keys, ", ") + ")"
	}
	return names(all)
}

// Attrs is the plan as a line of a log has it: what is not the same, by its names.
func (p *Plan) Attrs() (attrs []any) {
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, key, value)
		}
	}
	for _, k := range []struct {
		name string
		c    *Changes
	}{{"upstreams", &p.Upstreams}, {"routes", &p.Routes}} {
		add(k.name+"_added", names(k.c.Added))
		add(k.name+"_changed", changes(k.c.Changed))
		add(k.name+"_removed", names(k.c.Removed))
	}
	if p.Reordered {
		attrs = append(attrs, "routes_reordered", true)
	}
	add("guards_changed", names(p.Guards))
	return attrs
}

// Text is the plan for people.
func (p *Plan) Text() string {
	var b strings.Builder
	for _, k := range []struct {
		name string
		c    *Changes
	}{{"upstreams", &p.Upstreams}, {"routes", &p.Routes}} {
		fmt.Fprintf(&b, "%s: %d untouched, %d changed, %d removed, %d added\n",
			k.name, len(k.c.Same), len(k.c.Changed), len(k.c.Removed), len(k.c.Added))
		for _, name := range k.c.Same {
			fmt.Fprintf(&b, "    %s\n", name)
		}
		for _, c := range k.c.Changed {
			fmt.Fprintf(&b, "  ~ %s: %s\n", c.Name, strings.Join(c.Keys, ", "))
		}
		for _, name := range k.c.Removed {
			fmt.Fprintf(&b, "  - %s\n", name)
		}
		for _, name := range k.c.Added {
			fmt.Fprintf(&b, "  + %s\n", name)
		}
	}
	if p.Reordered {
		b.WriteString("routes are in another order: the first that fits counts\n")
	}
	if len(p.Guards) > 0 {
		fmt.Fprintf(&b, "guards: %s changed\n", strings.Join(p.Guards, ", "))
	}
	if len(p.Restart) > 0 {
		fmt.Fprintf(&b, "at the next start only: %s\n", strings.Join(p.Restart, ", "))
	}
	return b.String()
}
