package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/oneport-edge/oneport/router/upstream"
)

// base is what a kind is before its bounds.
type base int

const (
	isText base = iota
	isDuration
	isSize
	isRate
	isByteRate
	isPercent
	isFraction
	isCount
	isBool
	isWords
	isOnOff
	isMapping   // has an entry of its own in mappings
	isNamed     // a mapping whose keys are names of the user's
	isList      // of kind.of[0]
	isOneOrMore // one of kind.of[0], or a list of it
	isEither    // one of kind.of
)

// What the page calls kinds of text that others speak of too.
const (
	labelText     = "text"
	labelHostPort = "`host:port`"
)

// kind is the type of a key's value.
type kind struct {
	base        base
	label       string         // of text, on the page
	shape       *regexp.Regexp // of text, as far as one expression can say it; of the names of isNamed
	empty       bool           // text may be empty
	words       []string       // of isWords; of text, allowed beside shape
	numbers     []int          // of a count: all that there are
	least, most int64          // of a count, a size, a duration (in nanoseconds); least of a list
	of          []kind
}

// text is text that is not empty; shape may be nil, words may be too.
func text(shape *regexp.Regexp, words ...string) kind {
	return kind{label: labelText, shape: shape, words: words}
}

func anyText() kind { return kind{label: labelText, empty: true} }

// file is the path of a file, relative to the folder of the configuration.
func file() kind { return kind{label: "file"} }

func cidr() kind { return kind{label: "CIDR range", shape: cidrShape} }

func serverURL() kind {
	return kind{label: "URL", shape: regexp.MustCompile(`^(` + strings.Join(upstream.Schemes(), "|") + `)(\+unix)?://.`)}
}

// hostPort is an address with a numeric port; from 0 for listening, where the host
// may be missing too.
func hostPort(leastPort int64) kind {
	shape := dialShape
	if leastPort == 0 {
		shape = listenShape
	}
	return kind{label: labelHostPort, shape: shape, least: leastPort}
}

func duration(least, most time.Duration) kind {
	return kind{base: isDuration, least: int64(least), most: int64(most)}
}

// size is a number of bytes with its unit: B, KiB, MiB, GiB.
func size(least, most int64) kind { return kind{base: isSize, least: least, most: most} }

// rate is how many in a time: 50/s, 100/m, 1000/h.
func rate() kind { return kind{base: isRate} }

// byteRate is how many bytes in a time: 64KiB/s.
func byteRate() kind { return kind{base: isByteRate} }

// percent is a share: 20%.
func percent() kind { return kind{base: isPercent} }

// fraction is a share: 0.1.
func fraction() kind { return kind{base: isFraction} }

// count is a whole number.
func count(least, most int64) kind { return kind{base: isCount, least: least, most: most} }

// oneNumber is one of some whole numbers.
func oneNumber(list ...int) kind { return kind{base: isCount, numbers: list} }

func boolean() kind { return kind{base: isBool} }

func enum(words ...string) kind { return kind{base: isWords, words: words} }

// onOff is on, off, true or false: YAML 1.1, and what writes it, has false for off.
func onOff() kind { return kind{base: isOnOff} }

// submapping is a mapping with an entry of its own in mappings.
func submapping() kind { return kind{base: isMapping} }

// named is a mapping of names that the user gives.
func named(shape *regexp.Regexp, of kind) kind {
	return kind{base: isNamed, shape: shape, of: []kind{of}}
}

// listOf may be empty.
func listOf(item kind) kind { return kind{base: isList, of: []kind{item}} }

// someOf is a list of at least one.
func someOf(item kind) kind { return kind{base: isList, least: 1, of: []kind{item}} }

func oneOrMore(item kind) kind { return kind{base: isOneOrMore, of: []kind{item}} }

func either(kinds ...kind) kind { return kind{base: isEither, of: kinds} }

// What the schema knows of texts whose walkers know more. An expression may take
// what its walker refuses, but not the other way round, except for capitals in the
// schemes of URLs.
var (
	pathShape     = regexp.MustCompile(`^/[^?#\\]*$`)
	hostShape     = regexp.MustCompile(`^((\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[^\]]+\])$`)
	methodShape   = regexp.MustCompile("^[A-Z0-9!#$%&'*+.^_`|~-]{1,256}$")
	redirectShape = regexp.MustCompile(`^(/|https?://.)`)
	originShape   = regexp.MustCompile(`^[a-z][a-z0-9+.-]*://[^/ *]+$`)
	cidrShape     = regexp.MustCompile(`^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$`)
	socketShape   = regexp.MustCompile(`^[A-Za-z0-9_.@-]{1,255}$`)
	listenShape   = regexp.MustCompile(`^(\[[^\]]*\]|[A-Za-z0-9_.-]*):[0-9]+$`)
	dialShape     = regexp.MustCompile(`^(\[[^\]]+\]|[A-Za-z0-9_.-]+):[0-9]+$`)
	durationShape = regexp.MustCompile(`^\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`)
	sizeShape     = regexp.MustCompile(`^([0-9]+)(B|KiB|MiB|GiB)$`)
	percentShape  = regexp.MustCompile(`^(100|[1-9]?[0-9])%$`)
	rateShape     = regexp.MustCompile(`^([0-9]+)/(s|m|h)$`)
	byteRateShape = regexp.MustCompile(`^([0-9]+(?:B|KiB|MiB|GiB))/(s|m|h)$`)
)

// scalar is the kind of what stands in lists and under names, or k itself.
func (k kind) scalar() kind {
	for k.base == isList || k.base == isOneOrMore || k.base == isNamed {
		k = k.of[0]
	}
	return k
}

// value gives a default, written as in the file, as JSON has it.
func (k kind) value(s string) any {
	switch k.base {
	case isCount:
		if n, err := strconv.Atoi(s); err == nil {
			return n
		}
	case isBool:
		return s == yes
	default:
	}
	return s
}

// String is what the page says of the kind.
func (k kind) String() string {
	switch k.base {
	case isText:
		return k.label
	case isDuration:
		return "duration" + k.bounds(func(n int64) string { return shortDuration(time.Duration(n)) })
	case isSize:
		return "size" + k.bounds(sizeText)
	case isRate:
		return "rate"
	case isByteRate:
		return "rate of bytes, as `64KiB/s`"
	case isPercent:
		return "share, `0%` to `100%`"
	case isFraction:
		return "number, `0` to `1`"
	case isCount:
		if k.numbers != nil {
			return numberList(k.numbers)
		}
		return "number" + k.bounds(func(n int64) string { return strconv.FormatInt(n, 10) })
	case isBool:
		return "`true` or `false`"
	case isWords:
		return "`" + strings.Join(k.words, "`, `") + "`"
	case isOnOff:
		return "`on` or `off`"
	case isMapping:
		return "mapping"
	case isNamed:
		return fmt.Sprintf("names, each with a %v", k.of[0])
	case isList:
		return "list of " + k.of[0].plural()
	case isOneOrMore:
		return fmt.Sprintf("%v, or list of %s", k.of[0], k.of[0].plural())
	case isEither:
		all := make([]string, len(k.of))
		for i, of := range k.of {
			all[i] = of.String()
		}
		return strings.Join(all, ", or ")
	}
	return "?"
}

// plural is String for many.
func (k kind) plural() string {
	switch {
	case k.base == isEither:
		all := make([]string, len(k.of))
		for i, of := range k.of {
			all[i] = of.plural()
		}
		return strings.Join(all, " and ")
	case k.base == isMapping, k.base == isText && k.label != labelHostPort:
		return k.String() + "s"
	}
	return k.String()
}

// numberList is numbers as a sentence has them: 1, 2 or 3.
func numberList(list []int) string {
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = strconv.Itoa(n)
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// bounds says least and most, as far as they say something.
func (k kind) bounds(show func(int64) string) string {
	switch {
	case k.least > 0 && k.most > 0:
		return fmt.Sprintf(", `%s` to `%s`", show(k.least), show(k.most))
	case k.most > 0:
		return fmt.Sprintf(", at most `%s`", show(k.most))
	}
	return ""
}

// shortDuration is a duration as people write it: 24h, not 24h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// units of sizes, the largest first.
var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// sizeText is a size in the largest unit that it is whole in.
func sizeText(n int64) string {
	for _, u := range units {
		if n%u.bytes == 0 && n > 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return "0B"
}
