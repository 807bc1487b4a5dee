package config

import (
	"net"
	"net/netip"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Broadcast is what is sent to those who are connected. Paths are absolute.
type Broadcast struct {
	Pos         Pos
	Namespaces  []Namespace // in the file's order
	TokenFile   string      // "" if only clients publish
	Listen      string      // where publishers are served, with TokenFile
	MessageSize int64
	Channels    int
	Queue       int64
	Gather      time.Duration
	Origins     []string
}

// Namespace is what channels of one prefix have in common.
type Namespace struct {
	Pos         Pos
	Name        string // "" for channels without a prefix
	HistorySize int
	HistoryTTL  time.Duration
	Recovery    bool
	Presence    bool
	JoinLeave   bool
	Publish     []string // rules, as the file has them
	Subscribe   []string
}

// broadcast reads who gets messages, and of whom.
func (w *walker) broadcast(v value) *Broadcast {
	if !v.given() {
		return nil
	}
	o := v.object(keyBroadcast)
	b := &Broadcast{
		Pos: v.pos(), TokenFile: o.get(keyTokenFile).file(), MessageSize: o.get("message_size").size(), Channels: o.get("channels").count(),
		Queue: o.get("queue").size(), Gather: o.get("gather").duration(), Origins: w.texts(o.get("origins")),
	}
	listen := o.get(keyListen)
	if b.Listen = w.address(listen); listen.given() && b.TokenFile == "" {
		listen.problemf("goes with token_file: nobody could publish there")
	}
	if b.Listen == "" {
		b.Listen = listen.otherwise()
	}
	host, _, err := net.SplitHostPort(b.Listen)
	if ip, bad := netip.ParseAddr(host); listen.given() && err == nil && host != "localhost" && (bad != nil || !ip.IsLoopback()) {
		listen.warningf("publishers' tokens go there in plaintext: want loopback, or a network of your own")
	}
	for _, e := range o.get(keyNamespaces).entriesIfGiven() {
		b.Namespaces = append(b.Namespaces, w.namespace(e))
	}
	if len(b.Namespaces) == 0 && o.node.Kind == yaml.MappingNode && o.complete() {
		if names := o.get(keyNamespaces); names.given() {
			names.problemf("without a namespace there is no channel")
		} else {
			o.missing(keyNamespaces, "without one there is no channel")
		}
	}
	return b
}

func (w *walker) namespace(e entry) Namespace {
	if !limitName.MatchString(e.key.Value) {
		e.value.problemf("a name has letters, digits, \"-\", \"_\" and \".\", at most 64")
	}
	o := e.value.object("broadcast.namespaces.*")
	size, ttl, recovery := o.get(keyHistory), o.get(keyHistoryTTL), o.get("recovery")
	n := Namespace{
		Pos: e.value.pos(), Name: e.key.Value, HistorySize: size.count(), HistoryTTL: ttl.duration(), Recovery: recovery.boolean(),
		Presence: o.get("presence").boolean(), JoinLeave: o.get("join_leave").boolean(),
		Publish: w.rules(o.get("publish")), Subscribe: w.rules(o.get("subscribe")),
	}
	if n.Name == "default" {
		n.Name = ""
	}
	switch {
	case size.given() && !ttl.given():
		o.missing(keyHistoryTTL, "for how long history_size messages are remembered")
	case ttl.given() && !size.given():
		o.missing(keyHistory, "how many messages are remembered for history_ttl")
	case n.Recovery && !size.given():
		recovery.problemf("goes with history_size and history_ttl: what is not remembered cannot be given again")
	}
	if e.value.node.Kind == yaml.MappingNode && n.Subscribe == nil && o.complete() {
		e.value.warningf("nobody may subscribe: want subscribe, as [authenticated]")
	}
	return n
}

func (w *walker) rules(v value) (list []string) {
	for _, item := range v.texts() {
		s := item.text()
		if s != "" && !ruleShape.MatchString(s) {
			item.problemf("want anyone, authenticated, nobody, named, \"claim:NAME\" or \"claim:NAME=VALUE\", have %s%s", shown(s), didYouMean(s, []string{"anyone", "authenticated", "nobody", "named"}))
		}
		if strings.HasPrefix(s, "claim:") && strings.Contains(s, "|") {
			item.warningf("taken as one value: several values are several rules")
		}
		list = append(list, s)
	}
	return list
}

// hub reads a route that the broadcast answers.
func (w *walker) hub(r *Route, o object, c *Config, kind string) {
	v := o.get(keyBroadcast)
	switch r.Broadcast = v.boolean(); {
	case kind == keyGRPC:
		v.problemf("goes with path and websocket; publishers use gRPC at broadcast.listen")
	case o.get(keyTo).given() || o.get(keyRedirect).given() || o.get(keyTickets).given():
		v.problemf("leads elsewhere too: want to, redirect, tickets or broadcast")
	case !r.Broadcast:
		v.problemf("false is what holds without; remove it, and say where the route leads")
	case c.Broadcast == nil:
		v.problemf("there is no broadcast in the file")
	}
	r.Broadcast = true
}
