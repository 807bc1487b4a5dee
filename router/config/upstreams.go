package config

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// schemes are what a server may speak; router/upstream explains them.
var schemes = []string{"http", "https", schemeH2C, schemeGRPC, "grpcs"}

const (
	schemeH2C  = "h2c"
	schemeGRPC = "grpc"
	unixSuffix = "+unix"
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
		at := value{w, e.key, e.value.path}
		if !upstreamName.MatchString(e.key.Value) {
			at.problemf("a name has letters, digits, \"-\", \"_\" and \".\", at most 64")
		}
		o := e.value.object("upstreams.*")
		if !o.get("servers").given() {
			o.missing("servers", "give a URL, as servers: [\"http://127.0.0.1:8080\"]")
		}
		list = append(list, Upstream{Pos: at.pos(), Name: e.key.Value, Servers: w.servers(o.get("servers"))})
	}
	return list
}

// servers reads the URLs of an upstream.
func (w *walker) servers(v value) (list []string) {
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
		if why := badServer(s); why != "" {
			item.problemf("%s", why)
			continue
		}
		list = append(list, s)
	}
	return list
}

// badServer says what is wrong with a server's URL, by the rules of
// router/upstream. It never quotes all of it: there may be a password inside.
func badServer(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		return "want a URL, as http://127.0.0.1:8080 or grpc://127.0.0.1:50051"
	}
	scheme, socket := strings.CutSuffix(u.Scheme, unixSuffix)
	switch {
	case !slices.Contains(schemes, scheme):
		return shown(u.Scheme) + " is none of http, https, h2c, grpc, grpcs, alone or with +unix" + didYouMean(scheme, schemes)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "credentials, a query and a fragment have no place here"
	case socket && (u.Host != "" || len(u.Path) < 2):
		return "want three slashes before the path of a socket, as grpc+unix:///run/app.sock"
	case socket:
		return ""
	case u.Path != "" && u.Path != "/":
		return "a path has no place here: requests bring their own"
	case u.Hostname() == "":
		return "the host is missing"
	case u.Port() != "" && !isPort(u.Port()):
		return "the port is a number from 1 to 65535"
	case u.Port() == "" && (scheme == schemeH2C || scheme == schemeGRPC):
		return "the port is missing"
	}
	return ""
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// speaksHTTP2 reports whether an upstream speaks HTTP/2 alone.
func (u *Upstream) speaksHTTP2() bool {
	return slices.ContainsFunc(u.Servers, func(s string) bool {
		scheme, _, _ := strings.Cut(s, ":")
		switch strings.ToLower(strings.TrimSuffix(scheme, unixSuffix)) {
		case schemeH2C, schemeGRPC, "grpcs":
			return true
		}
		return false
	})
}

// unused warns of upstreams that no route names.
func (w *walker) unused(c *Config) {
	used := make(map[string]bool, len(c.Routes))
	for i := range c.Routes {
		used[c.Routes[i].To] = true
	}
	for _, u := range c.Upstreams {
		if !used[u.Name] {
			at := value{w, &yaml.Node{Line: u.Pos.Line, Column: u.Pos.Col}, value{path: "upstreams"}.below(u.Name)}
			at.warningf("no route leads here")
		}
	}
}
