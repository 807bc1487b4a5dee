package config

import (
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/oneport-edge/oneport/router/upstream"
)

// upstreamName keeps names fit for logs, metrics and paths of problems.
var upstreamName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// upstreams reads the servers elsewhere.
func (w *walker) upstreams(v value) (list []Upstream) {
	if !v.given() {
		return nil
	}
	w.vague = v.node.Kind != yaml.MappingNode
	for _, e := range v.entries() {
		at := value{w: w, node: e.key, path: e.value.path}
		if !upstreamName.MatchString(e.key.Value) {
			at.problemf("a name has letters, digits, \"-\", \"_\" and \".\", at most 64")
		}
		o := e.value.object("upstreams.*")
		if !o.get(keyServers).given() {
			o.missing(keyServers, "give a URL, as servers: [\"http://127.0.0.1:8080\"]")
		}
		u := Upstream{Pos: at.pos(), Name: e.key.Value}
		w.servers(&u, o.get(keyServers))
		w.balance(&u, o)
		w.resilience(&u, o)
		u.TLS = w.upstreamTLS(&u, o.get(keyTLS))
		list = append(list, u)
	}
	return list
}

// servers reads the URLs of an upstream.
func (w *walker) servers(u *Upstream, v value) {
	items := v.items()
	if v.given() && v.node.Kind == yaml.SequenceNode && len(items) == 0 {
		v.problemf("an upstream without servers")
	}
	first := make(map[string]int)
	for _, item := range items {
		s := item.text()
		if s == "" {
			continue
		}
		http2, err := upstream.Check(s)
		switch known := upstream.Schemes(); {
		case err != nil && strings.Contains(s, "://") && !slices.Contains(known, scheme(s)):
			item.problemf("%v%s", err, didYouMean(scheme(s), known))
		case err != nil:
			item.problemf("%v", err)
		case first[s] > 0:
			item.problemf("given twice; first in line %d", first[s])
		case len(u.Servers) > 0 && http2 != u.http2:
			item.problemf("speaks %s, and %s does not: make them two upstreams", spoken(http2), shown(u.Servers[0]))
		default:
			u.Servers, u.http2 = append(u.Servers, s), http2
			first[s] = item.pos().Line
			if !secure(s) && public(s) {
				item.warningf("in plaintext, to an address of the Internet: want https:// or grpcs://")
			}
		}
	}
}

// public reports whether the host of a URL is an address that anybody may be
// on the way to.
func public(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && a.IsGlobalUnicast() && !a.IsPrivate()
}

// secure reports whether a URL is of a server with TLS.
func secure(url string) bool { return scheme(url) == "https" || scheme(url) == "grpcs" }

// scheme is what a URL begins with, with "+unix" or without.
func scheme(url string) string {
	s, _, _ := strings.Cut(url, ":")
	return strings.TrimSuffix(strings.ToLower(s), "+unix")
}

// spoken is what a server speaks.
func spoken(http2 bool) string {
	if http2 {
		return "HTTP/2"
	}
	return "HTTP/1.1"
}

// unused warns of upstreams that no route names.
func (w *walker) unused(c *Config) {
	used := make(map[string]bool, len(c.Routes))
	for i := range c.Routes {
		r := &c.Routes[i]
		used[r.To], used[r.Mirror] = true, true
		for _, s := range r.Split {
			used[s.To] = true
		}
		if r.Fallback != nil {
			used[r.Fallback.To] = true
		}
	}
	for _, u := range c.Upstreams {
		if !used[u.Name] {
			at := value{w: w, node: &yaml.Node{Line: u.Pos.Line, Column: u.Pos.Col}, path: value{path: "upstreams"}.below(u.Name)}
			at.warningf("no route leads here")
		}
	}
}
