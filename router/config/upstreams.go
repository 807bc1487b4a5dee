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
		if !o.get("servers").given() {
			o.missing("servers", "give a URL, as servers: [\"http://127.0.0.1:8080\"]")
		}
		u := Upstream{Pos: at.pos(), Name: e.key.Value}
		w.servers(&u, o.get("servers"))
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
	for i, item := range items {
		if i == 1 {
			item.problemf(notYet)
		}
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
		default:
			u.Servers, u.http2 = append(u.Servers, s), http2
			if scheme(s) != "https" && scheme(s) != "grpcs" && public(s) {
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

// scheme is what a URL begins with, with "+unix" or without.
func scheme(url string) string {
	s, _, _ := strings.Cut(url, ":")
	return strings.TrimSuffix(strings.ToLower(s), "+unix")
}

// unused warns of upstreams that no route names.
func (w *walker) unused(c *Config) {
	used := make(map[string]bool, len(c.Routes))
	for i := range c.Routes {
		used[c.Routes[i].To] = true
	}
	for _, u := range c.Upstreams {
		if !used[u.Name] {
			at := value{w: w, node: &yaml.Node{Line: u.Pos.Line, Column: u.Pos.Col}, path: value{path: "upstreams"}.below(u.Name)}
			at.warningf("no route leads here")
		}
	}
}
