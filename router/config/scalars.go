package config

import (
	"math"
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
			v.w.env = append(v.w.env, set)
			return set
		}
		return ref
	})
	return text, ok
}

// anyText gives a text, which may be empty.
func (v value) anyText() (string, bool) {
	if !v.isA(yaml.ScalarNode, "text") {
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
	if s == "" {
		s = v.otherwise()
	}
	if s == "" || filepath.IsAbs(s) {
		return s
	}
	return filepath.Join(v.w.dir, s)
}

// word gives one of the words that its key has.
func (v value) word() string {
	words := v.is().words
	s := v.text()
	switch {
	case s == "":
		return v.otherwise()
	case !slices.Contains(words, s):
		v.problemf("%s is none of %s%s", shown(s), strings.Join(words, ", "), didYouMean(s, words))
	}
	return s
}

// scalar gives what stands for a number, a duration or true and false: as it is,
// or out of the environment. It reports false after a problem, or if none is given.
func (v value) scalar(want string) (string, bool) {
	switch {
	case !v.isA(yaml.ScalarNode, want):
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
func (v value) boolean() bool {
	const want = "true or false"
	otherwise := v.otherwise() == yes
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

// count gives a whole number within the bounds of its key.
func (v value) count() int {
	is := v.is()
	otherwise, _ := strconv.Atoi(v.otherwise())
	s, ok := v.scalar("a number")
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err == nil && v.quoted() {
		v.problemf("want a number, have text: remove the quotes")
		return otherwise
	}
	switch {
	case is.numbers != nil && (err != nil || !slices.Contains(is.numbers, n)):
		v.problemf("want %s, have %s", numberList(is.numbers), shown(s))
	case is.numbers == nil && (err != nil || int64(n) < is.least || int64(n) > is.most):
		v.problemf("want a number from %d to %d, have %s", is.least, is.most, shown(s))
	default:
		return n
	}
	return otherwise
}

// duration gives a time with its unit, within the bounds of its key.
func (v value) duration() time.Duration {
	const want = "a duration, as 30s, 1m30s or 500ms"
	otherwise, _ := time.ParseDuration(v.otherwise())
	least, most := time.Duration(v.is().least), time.Duration(v.is().most)
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
	case d < least || d > most || s[0] == '-':
		v.problemf("want a duration from %s to %s, have %s", shortDuration(least), shortDuration(most), shown(s))
	default:
		return d
	}
	return otherwise
}

// size gives a number of bytes, within the bounds of its key.
func (v value) size() int64 {
	const want = "a size, as 512B, 64KiB, 1MiB or 2GiB"
	otherwise := max(0, parseSize(v.otherwise()))
	s, ok := v.scalar(want)
	if !ok {
		return otherwise
	}
	is, n := v.is(), parseSize(s)
	switch _, err := strconv.Atoi(s); {
	case err == nil:
		v.problemf("a size needs a unit, as 64KiB: have %s", shown(s))
	case n < 0:
		v.problemf("want %s, have %s", want, shown(s))
	case n < is.least || n > is.most:
		v.problemf("want a size from %s to %s, have %s", sizeText(is.least), sizeText(is.most), shown(s))
	default:
		return n
	}
	return otherwise
}

// parseSize gives the bytes of a size; negative if it is none.
func parseSize(s string) int64 {
	m := sizeShape.FindStringSubmatch(s)
	if m == nil {
		return -1
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	for _, u := range units {
		if u.name == m[2] && err == nil && n <= math.MaxInt64/u.bytes {
			return n * u.bytes
		}
	}
	return -1
}

// rate gives how many in a time.
func (v value) rate() Rate {
	const want = "a rate, as 50/s, 100/m or 1000/h"
	otherwise, _ := parseRate(v.otherwise())
	s, ok := v.scalar(want)
	if !ok {
		return otherwise
	}
	r, ok := parseRate(s)
	if !ok {
		v.problemf("want %s, have %s", want, shown(s))
		return otherwise
	}
	return r
}

// parseRate reports false for what is no rate, and for one of zero.
func parseRate(s string) (Rate, bool) {
	m := rateShape.FindStringSubmatch(s)
	if m == nil {
		return Rate{}, false
	}
	n, err := strconv.ParseInt(m[1], 10, 32)
	return Rate{int(n), perOf(m[2])}, err == nil && n > 0
}

// perOf is the time of a rate.
func perOf(unit string) time.Duration {
	switch unit {
	case "h":
		return time.Hour
	case "m":
		return time.Minute
	}
	return time.Second
}

// mostBytes is the largest number of bytes in a rate: more is no bound.
const mostBytes = 1 << 40

// byteRate gives how many bytes in a time.
func (v value) byteRate() Rate {
	const want = "a rate of bytes, as 64KiB/s or 10MiB/m"
	s, ok := v.scalar(want)
	if !ok {
		return Rate{}
	}
	m := byteRateShape.FindStringSubmatch(s)
	if m == nil {
		v.problemf("want %s, have %s", want, shown(s))
		return Rate{}
	}
	n := parseSize(m[1])
	if n < 1 || n > mostBytes {
		v.problemf("want from 1B to %s, have %s", sizeText(mostBytes), shown(s))
		return Rate{}
	}
	return Rate{int(n), perOf(m[2])}
}

// percent gives a share of 1.
func (v value) percent() float64 {
	const want = "a share from 0% to 100%, as 20%"
	n, _ := parsePercent(v.otherwise())
	s, ok := v.scalar(want)
	if !ok {
		return n
	}
	if got, ok := parsePercent(s); ok {
		return got
	}
	v.problemf("want %s, have %s", want, shown(s))
	return n
}

// fraction gives a share as a number from 0 to 1.
func (v value) fraction() float64 {
	const want = "a number from 0 to 1, as 0.1"
	otherwise, _ := strconv.ParseFloat(v.otherwise(), 64)
	s, ok := v.scalar(want)
	if !ok {
		return otherwise
	}
	n, err := strconv.ParseFloat(s, 64)
	switch {
	case err == nil && v.quoted():
		v.problemf("want %s, have text: remove the quotes", want)
	case err != nil || !(n >= 0 && n <= 1): // NaN too
		v.problemf("want %s, have %s", want, shown(s))
	default:
		return n
	}
	return otherwise
}

func parsePercent(s string) (float64, bool) {
	m := percentShape.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	n, err := strconv.Atoi(m[1])
	return float64(n) / 100, err == nil
}
