package broadcast

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/centrifugal/centrifuge"

	"github.com/oneport-edge/oneport/protocols"
)

// Namespace is what channels of one prefix have in common. A zero value has no history,
// and lets nobody in.
type Namespace struct {
	// Name is what stands before the colon: "news" for "news:today". "" is for channels
	// without one.
	Name string
	// HistorySize is how many messages a channel remembers; HistoryTTL, for how long. Both
	// are zero, or none is.
	HistorySize int
	HistoryTTL  time.Duration
	// Recovery gives those who come back what they have missed, from the history. With it
	// subscribers may read the history too.
	Recovery bool
	// Presence keeps who is subscribed, for subscribers and publishers to ask.
	Presence bool
	// JoinLeave tells subscribers who comes and goes.
	JoinLeave bool
	// Publish says which clients may publish, Subscribe who may listen: those whom one of
	// the rules allows. Publishers with a token may always.
	Publish, Subscribe []Rule
}

// Rule allows some identities.
type Rule struct {
	who    who
	claim  string
	values []string
}

type who uint8

const (
	whoNobody who = iota
	whoAnyone
	whoKnown
	whoNamed
	whoClaim
)

// The rules without parameters. The zero value is Nobody.
var (
	Nobody        = Rule{who: whoNobody}
	Anyone        = Rule{who: whoAnyone} // also those of whom nothing is known
	Authenticated = Rule{who: whoKnown}
	// Named is for channels that name their users: "inbox:#alice" is alice's alone, and
	// "chat:#alice,bob" theirs.
	Named = Rule{who: whoNamed}
)

// Claim allows those whose credential has a claim with one of the values, or at all if there
// are none. A claim that is a list must contain one. "sub" is the identity's subject.
func Claim(name string, values ...string) Rule {
	return Rule{who: whoClaim, claim: name, values: values}
}

// allows reports whether the rule allows id, which may be nil, in a channel.
func (r *Rule) allows(id *protocols.Identity, channel string) bool {
	switch r.who {
	case whoAnyone:
		return true
	case whoKnown:
		return id != nil
	case whoNamed:
		_, names, ok := strings.Cut(channel, "#")
		return ok && id != nil && id.Subject != "" && slices.Contains(strings.Split(names, ","), id.Subject)
	case whoClaim:
		return id != nil && r.claimIn(id)
	default:
		return false
	}
}

func (r *Rule) claimIn(id *protocols.Identity) bool {
	var claim any = id.Subject
	if r.claim != "sub" {
		var ok bool
		if claim, ok = id.Claims[r.claim]; !ok {
			return false
		}
	}
	if len(r.values) == 0 {
		return true
	}
	switch c := claim.(type) {
	case string:
		return slices.Contains(r.values, c) || r.claim == "scope" && slices.ContainsFunc(strings.Fields(c), r.has)
	case []any:
		return slices.ContainsFunc(c, func(v any) bool { s, ok := v.(string); return ok && r.has(s) })
	case bool, float64:
		return r.has(fmt.Sprint(c))
	default:
		return false
	}
}

func (r *Rule) has(s string) bool { return slices.Contains(r.values, s) }

func allowed(rules []Rule, id *protocols.Identity, channel string) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool { return r.allows(id, channel) })
}

// mostChannel bounds a channel's name, in bytes.
const mostChannel = 255

// namespaces finds a channel's.
type namespaces map[string]*Namespace

func newNamespaces(list []Namespace) (namespaces, error) {
	all := namespaces{}
	var errs []error
	for i := range list {
		n := list[i]
		switch {
		case strings.ContainsAny(n.Name, ":#{}") || !valid(n.Name):
			errs = append(errs, fmt.Errorf("broadcast: %q is no name of a namespace", n.Name))
		case all[n.Name] != nil:
			errs = append(errs, fmt.Errorf("broadcast: the namespace %q is there twice", n.Name))
		case n.HistorySize < 0 || n.HistoryTTL < 0 || (n.HistorySize == 0) != (n.HistoryTTL == 0):
			errs = append(errs, fmt.Errorf("broadcast: the namespace %q: a history has a size and a time", n.Name))
		case n.HistorySize > 0 && n.HistoryTTL < time.Second:
			errs = append(errs, fmt.Errorf("broadcast: the namespace %q: a history lasts a second or more", n.Name))
		case n.Recovery && n.HistorySize == 0:
			errs = append(errs, fmt.Errorf("broadcast: the namespace %q: recovery needs a history", n.Name))
		}
		all[n.Name] = &n
	}
	if len(list) == 0 {
		errs = append(errs, errors.New("broadcast: without a namespace there is no channel"))
	}
	return all, errors.Join(errs...)
}

// of gives a channel's namespace; nil if there is none.
func (n namespaces) of(channel string) *Namespace {
	if channel == "" || len(channel) > mostChannel || !valid(channel) || channel[0] == '}' {
		return nil
	}
	name, _, ok := strings.Cut(channel, ":")
	if !ok {
		name = ""
	}
	return n[name]
}

// valid reports whether a name has only printable ASCII without spaces: it ends up in keys,
// logs and URLs.
func valid(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// subscription is how centrifuge treats a subscription.
func (n *Namespace) subscription() centrifuge.SubscribeOptions {
	return centrifuge.SubscribeOptions{
		EmitPresence: n.Presence, EmitJoinLeave: n.JoinLeave, PushJoinLeave: n.JoinLeave,
		EnableRecovery: n.Recovery, EnablePositioning: n.Recovery,
	}
}
