package config

import (
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// variable is a reference to the environment, one that is escaped, or what
// looks like the beginning of one.
var variable = regexp.MustCompile(`\$?\$\{(?:([A-Za-z_][A-Za-z0-9_]*)\})?`)

// expand replaces ${NAME} in a scalar; $${ stands for a plain ${. It reports
// false after a problem.
func (v value) expand() (text string, ok bool) {
	ok = true
	text = variable.ReplaceAllStringFunc(v.node.Value, func(ref string) string {
		name := strings.TrimSuffix(strings.TrimPrefix(ref, "${"), "}")
		switch set, found := v.w.getenv(name); {
		case ref[1] == '$':
			return ref[1:]
		case name == "":
			v.problemf("want ${NAME} for a variable of the environment, or $${ for a plain ${")
			ok = false
		case !found:
			v.problemf("%s is not set in the environment", name)
			ok = false
		default:
			return set
		}
		return ref
	})
	return text, ok
}

// anyText gives a text, which may be empty.
func (v value) anyText() (string, bool) {
	if !v.is(yaml.ScalarNode, "text") {
		return "", false
	}
	switch v.node.ShortTag() {
	case tagText:
		return v.expand()
	case tagNull:
		v.problemf("want text, have nothing")
	default:
		v.problemf("want text, have %s: put it in quotes", describe(v.node))
	}
	return "", false
}

// text gives a text that is not empty; "" after a problem, or if none is given.
func (v value) text() string {
	s, ok := v.anyText()
	if ok && s == "" {
		v.problemf("want text, have an empty one")
	}
	return s
}

// file gives a path, made absolute.
func (v value) file() string {
	s := v.text()
	if s == "" || filepath.IsAbs(s) {
		return s
	}
	return filepath.Join(v.w.dir, s)
}

// oneOf gives one of some words.
func (v value) oneOf(otherwise string, words ...string) string {
	s := v.text()
	switch {
	case s == "":
		return otherwise
	case !slices.Contains(words, s):
		v.problemf("%s is none of %s%s", shown(s), strings.Join(words, ", "), didYouMean(s, words))
	}
	return s
}

// scalar gives what stands for a number, a duration or true and false: as it is,
// or out of the environment. It reports false after a problem, or if none is given.
func (v value) scalar(want string) (string, bool) {
	switch {
	case !v.is(yaml.ScalarNode, want):
		return "", false
	case v.node.ShortTag() == tagNull:
		v.problemf("want %s, have nothing", want)
		return "", false
	case v.node.ShortTag() == tagText:
		return v.expand()
	}
	return v.node.Value, true
}

// quoted reports whether a scalar is text and not out of the environment.
func (v value) quoted() bool {
	return v.node.ShortTag() == tagText && !strings.Contains(v.node.Value, "${")
}

// boolean gives true or false.
func (v value) boolean(otherwise bool) bool {
	const want = "true or false"
	s, ok := v.scalar(want)
	switch {
	case !ok:
		return otherwise
	case v.quoted() && (s == yes || s == no):
		v.problemf("want %s, have text: remove the quotes", want)
		return otherwise
	case v.quoted() || s != yes && s != no:
		v.problemf("want %s, have %s", want, shown(s))
		return otherwise
	}
	return s == yes
}

// number gives a whole number within bounds.
func (v value) number(otherwise, least, most int) int {
	s, ok := v.scalar("a number")
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err == nil && v.quoted() {
		v.problemf("want a number, have text: remove the quotes")
		return otherwise
	}
	if err != nil || n < least || n > most {
		v.problemf("want a number from %d to %d, have %s", least, most, shown(s))
		return otherwise
	}
	return n
}

// duration gives a time with its unit, from least to a day.
func (v value) duration(otherwise, least time.Duration) time.Duration {
	const want = "a duration, as 30s, 1m30s or 500ms"
	s, ok := v.scalar(want)
	if !ok {
		return otherwise
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		v.problemf("a duration needs a unit, as 30s: have %s", shown(s))
		return otherwise
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		v.problemf("want %s, have %s", want, shown(s))
	case d < least || d > 24*time.Hour:
		v.problemf("want a duration from %v to 24h, have %s", least, shown(s))
	default:
		return d
	}
	return otherwise
}
