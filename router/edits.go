package router

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Edits change the head of a request or an answer: first Remove, then Set, then
// Add. Names may be in any case.
type Edits struct {
	Remove []string          // fields to take out
	Set    map[string]string // fields to have with that value alone
	Add    map[string]string // fields to have besides those that are there
}

// edits are Edits as they are applied.
type edits struct {
	drop     map[string]bool // names in lower case, those of set among them
	set, add []pair
}

type pair struct{ name, value string }

// framed are fields that say where a message ends, or belong to a connection:
// who changes them has two readers disagree.
var framed = []string{
	"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// fixed reports whether edits must leave a field alone.
func fixed(name string) bool {
	name = strings.ToLower(name)
	return name == "" || name[0] == ':' || slices.Contains(framed, name) || strings.HasPrefix(name, "grpc-") || strings.HasPrefix(name, "sec-websocket-")
}

// validate says what is wrong with edits.
func (e *Edits) validate() error {
	for _, name := range slices.Concat(e.Remove, slices.Collect(maps.Keys(e.Set)), slices.Collect(maps.Keys(e.Add))) {
		if fixed(name) {
			return fmt.Errorf("the field %q cannot be changed: messages are told apart by it", name)
		}
	}
	for _, fields := range []map[string]string{e.Set, e.Add} {
		for name, value := range fields {
			if strings.ContainsAny(value, "\r\n\x00") {
				return fmt.Errorf("the field %q has a line break or NUL in its value", name)
			}
		}
	}
	return nil
}

// compile makes edits ready; nil if there are none.
func (e *Edits) compile() *edits {
	if len(e.Remove)+len(e.Set)+len(e.Add) == 0 {
		return nil
	}
	c := &edits{drop: map[string]bool{}, set: pairs(e.Set), add: pairs(e.Add)}
	for _, name := range e.Remove {
		c.drop[strings.ToLower(name)] = true
	}
	for _, p := range c.set {
		c.drop[p.name] = true
	}
	return c
}

// pairs are fields in a fixed order, with names in lower case.
func pairs(fields map[string]string) (list []pair) {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		list = append(list, pair{strings.ToLower(name), fields[name]})
	}
	return list
}

// head is the head of a message in any version of HTTP.
type head interface {
	Get(name string) string
	Add(name, value string)
	Drop(which func(name string) bool)
}

// apply changes a head.
func (e *edits) apply(h head) {
	if e == nil {
		return
	}
	if len(e.drop) > 0 {
		h.Drop(func(name string) bool { return e.drop[strings.ToLower(name)] })
	}
	for _, p := range e.set {
		h.Add(p.name, p.value)
	}
	for _, p := range e.add {
		h.Add(p.name, p.value)
	}
}
