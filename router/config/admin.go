package config

import (
	"regexp"
	"strings"
)

// Admin is where an operator looks at the process, and changes it.
type Admin struct {
	Pos       Pos
	Listen    string   // host:port; "" for none
	Probes    string   // host:port; "" for none
	TokenFile string   // absolute; "" to make a token
	Hosts     []string // in lower case
	Plaintext bool     // Listen may be other than loopback
	PProf     bool
}

// adminHost is a name without a port, or an IPv4 address.
var adminHost = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)

// admin reads it; nil if there is none.
func (w *walker) admin(v value) *Admin {
	if !v.given() {
		return nil
	}
	const want = "want host:port, as \"127.0.0.1:9901\""
	o := v.object("admin")
	listen, probes := o.get("listen"), o.get("probes")
	a := &Admin{
		Pos:       v.pos(),
		Listen:    listen.hostPort(want, true, 0),
		Probes:    probes.hostPort(want, true, 0),
		TokenFile: o.get("token_file").file(),
		Plaintext: o.get("plaintext").boolean(),
		PProf:     o.get("pprof").boolean(),
	}
	if hosts := o.get("hosts"); hosts.given() {
		for _, item := range hosts.items() {
			s := item.text()
			if s != "" && !adminHost.MatchString(s) {
				item.problemf("want a host without a port, as admin.example.com, have %s", shown(s))
			}
			a.Hosts = append(a.Hosts, strings.ToLower(s))
		}
		if len(a.Hosts) == 0 && hosts.node.Content != nil {
			hosts.problemf("an empty list names nobody; remove it")
		}
	}
	if !listen.given() {
		for _, key := range []string{"token_file", "hosts", "plaintext", "pprof"} {
			o.get(key).refuse("goes with listen")
		}
		if !probes.given() && o.complete() {
			o.missing("listen", "say where, as listen: \"127.0.0.1:9901\"")
		}
	}
	at := Listener{Address: a.Listen}
	switch {
	case a.Listen == "" || at.local():
	case a.Plaintext:
		listen.warningf("%s is not this machine alone: tokens and users' names are sent unencrypted", shown(a.Listen))
	default:
		listen.problemf("%s is not loopback: tokens and users' names would be sent unencrypted; plaintext: true allows it", shown(a.Listen))
	}
	return a
}
