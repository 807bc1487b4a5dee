package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// maxProblems bounds what a file that is something else altogether is told.
const maxProblems = 100

// YAML's names of types, and of truth.
const (
	tagText = "!!str"
	tagNull = "!!null"
	yes     = "true"
	no      = "false"
)

// walker goes through the tree of one file and collects what is wrong.
type walker struct {
	file     string
	dir      string // absolute
	lines    []string
	getenv   func(string) (string, bool)
	env      []string // what it gave
	problems []Problem
	warnings []Problem
	cut      bool // there were more problems than maxProblems
	vague    bool // upstreams could not be read; what names one may be right

	clientAuth value // of tls

	// read is told of each key that was given and asked for; nil outside of tests.
	read func(mapping, key string)
}

func (w *walker) line(n int) string {
	if n < 1 || n > len(w.lines) {
		return ""
	}
	return strings.TrimSuffix(w.lines[n-1], "\r")
}

func (w *walker) full() bool { return len(w.problems) >= maxProblems }

func (w *walker) problem(at Pos, path, text string) {
	p := Problem{w.file, at, path, text, w.line(at.Line)}
	switch n := len(w.problems); {
	case w.full():
		w.cut = true
	case n == 0 || w.problems[n-1] != p:
		w.problems = append(w.problems, p)
	}
}

func (w *walker) warning(at Pos, path, text string) {
	if len(w.warnings) < maxProblems {
		w.warnings = append(w.warnings, Problem{w.file, at, path, text, w.line(at.Line)})
	}
}

// value is what stands at one place of the file. Without a node it is what
// does not stand there; all it gives then is zero.
type value struct {
	w    *walker
	node *yaml.Node
	path string
	key  *key // what keys.go says of it, also for what stands in its list; nil for keys themselves
}

// is gives the type of a value that is no list.
func (v value) is() kind {
	if v.key == nil {
		return kind{}
	}
	return v.key.is.scalar()
}

// otherwise is the default, as the file would say it.
func (v value) otherwise() string {
	if v.key == nil {
		return ""
	}
	return v.key.otherwise
}

func (v value) given() bool { return v.node != nil }

func (v value) pos() Pos {
	if v.node == nil {
		return Pos{}
	}
	return Pos{v.node.Line, v.node.Column}
}

func (v value) problemf(format string, args ...any) {
	if v.w.full() {
		v.w.cut = true
		return
	}
	v.w.problem(v.pos(), v.path, fmt.Sprintf(format, args...))
}

func (v value) warningf(format string, args ...any) {
	v.w.warning(v.pos(), v.path, fmt.Sprintf(format, args...))
}

// isA reports whether v is given and of a kind, or else says what is wanted.
func (v value) isA(kind yaml.Kind, want string) bool {
	if v.node == nil {
		return false
	}
	if v.node.Kind != kind {
		v.problemf("want %s, have %s", want, describe(v.node))
		return false
	}
	return true
}

// describe says in words what a node is.
func describe(n *yaml.Node) string {
	if n.Kind == yaml.MappingNode {
		return "a mapping"
	}
	if n.Kind == yaml.SequenceNode {
		return "a list"
	}
	switch n.ShortTag() {
	case tagNull:
		return "nothing"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a date"
	}
	return labelText
}

// plainKey is one that needs no quotes in a path.
var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// shown is a text of the file as messages quote it.
func shown(s string) string {
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:60], "") + "..."
	}
	return strconv.Quote(s)
}

// below is the path of a key.
func (v value) below(key string) string {
	if !plainKey.MatchString(key) {
		key = shown(key)
	}
	if v.path == "" {
		return key
	}
	return v.path + "." + key
}

// entry is a key of a mapping and what it holds.
type entry struct {
	key   *yaml.Node
	value value
}

// entries gives what a mapping holds. Keys that are no text, or given twice,
// are problems and not among them.
func (v value) entries() []entry {
	if !v.isA(yaml.MappingNode, "a mapping") {
		return nil
	}
	var list []entry
	first := make(map[string]int)
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key := v.node.Content[i]
		at := value{w: v.w, node: key, path: v.path}
		if key.Kind != yaml.ScalarNode || key.ShortTag() != tagText && key.ShortTag() != "!!merge" {
			at.problemf("a key must be text, this is %s", describe(key))
			continue
		}
		at.path = v.below(key.Value)
		if line, ok := first[key.Value]; ok {
			at.problemf("given twice; first in line %d", line)
			continue
		}
		first[key.Value] = key.Line
		list = append(list, entry{key, value{v.w, v.node.Content[i+1], at.path, v.key}})
	}
	return list
}

// object is a mapping whose keys are known.
type object struct {
	value
	may    *mapping
	fields map[string]value
	meant  []string // what unknown keys are near to
}

// object reads one of mappings, and refuses what is not in it.
func (v value) object(path string) object {
	o := object{value: v, may: mappingAt(path), fields: make(map[string]value)}
	for _, e := range v.entries() {
		at := value{w: v.w, node: e.key, path: e.value.path}
		switch k := o.may.key(e.key.Value); {
		case k != nil:
			e.value.key = k
			o.fields[k.name] = e.value
		case v.w.full():
			v.w.cut = true
		default:
			near := nearest(e.key.Value, o.may.names())
			o.meant = append(o.meant, near)
			at.problemf("unknown key%s", question(near))
		}
	}
	return o
}

// complete reports whether a mapping has no keys that were refused, one of
// which may stand for what is missed.
func (o object) complete() bool {
	return o.node.Kind == yaml.MappingNode && len(o.fields) == len(o.node.Content)/2
}

// get gives the value of a key.
func (o object) get(key string) value {
	v, ok := o.fields[key]
	switch {
	case !ok:
		return value{w: o.w, path: o.below(key), key: o.may.key(key)}
	case o.w.read != nil:
		o.w.read(o.may.path, key)
	}
	return v
}

// missing reports a key that is not given, and not misspelt either. It stands
// where the mapping begins.
func (o object) missing(key, why string) {
	if o.given() && o.node.Kind == yaml.MappingNode && !slices.Contains(o.meant, key) {
		o.w.problem(o.pos(), o.below(key), "missing: "+why)
	}
}

// items gives what a list holds.
func (v value) items() []value {
	if !v.isA(yaml.SequenceNode, "a list") {
		return nil
	}
	list := make([]value, len(v.node.Content))
	for i, n := range v.node.Content {
		list[i] = value{v.w, n, fmt.Sprintf("%s[%d]", v.path, i), v.key}
	}
	return list
}

// itemsOrOne is items, or a single text as a list of it.
func (v value) itemsOrOne() []value {
	if v.node != nil && v.node.Kind == yaml.ScalarNode {
		return []value{v}
	}
	if !v.given() || !v.isA(yaml.SequenceNode, "text or a list of it") {
		return nil
	}
	list := v.items()
	if len(list) == 0 {
		v.problemf("an empty list would fit nothing; remove it")
	}
	return list
}
