package config

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// There is one such flag for the tests inside and outside of the package.
func updating() bool { return flag.Lookup("update").Value.String() == "true" }

// Every mapping has a key that leads to it, and every key that leads to one finds it.
func TestMappingsAreReached(t *testing.T) {
	reached := map[string]bool{"": true}
	for _, m := range mappings {
		for _, k := range m.keys {
			lead(k.is, m.below(k.name), reached)
		}
	}
	for _, m := range mappings {
		if !reached[m.path] {
			t.Errorf("no key leads to the mapping %q", m.path)
		}
		delete(reached, m.path)
	}
	for path := range reached {
		t.Errorf("there is no mapping %q, and a key leads to it", path)
	}
}

// lead collects the mappings that a kind leads to.
func lead(k kind, path string, reached map[string]bool) {
	switch k.base {
	case isMapping:
		reached[path] = true
	case isList:
		path += "[]"
	case isNamed:
		path += ".*"
	default:
	}
	for _, of := range k.of {
		lead(of, path, reached)
	}
}

// Each entry says what it has to.
func TestKeysAreWhole(t *testing.T) {
	for _, m := range mappings {
		names := m.names()
		for i, k := range m.keys {
			at := m.below(k.name)
			switch {
			case slices.Contains(names[:i], k.name):
				t.Errorf("%s is there twice", at)
			case !strings.HasSuffix(k.about, ".") || strings.Contains(k.about+k.without, "\n") || strings.Contains(k.about+k.without, "|"):
				t.Errorf("%s: about is no paragraph of whole sentences: %q", at, k.about)
			case k.need && k.otherwise+k.without != "", k.otherwise != "" && k.without != "":
				t.Errorf("%s: want one of need, otherwise and without", at)
			}
			checkDefault(t, at, k)
			for _, name := range slices.Concat(k.with, slices.Concat(m.oneOf...)) {
				if m.key(name) == nil {
					t.Errorf("%s speaks of %s, which there is not", at, name)
				}
			}
		}
	}
}

// checkDefault reads a default as if it stood in a file.
func checkDefault(t *testing.T, at string, k key) {
	t.Helper()
	if k.otherwise == "" {
		return
	}
	w := &walker{getenv: os.LookupEnv}
	node := w.decode([]byte(k.otherwise))
	if node == nil {
		t.Fatalf("%s: the default %q is not YAML: %v", at, k.otherwise, w.problems)
	}
	v := value{w: w, node: node, key: &k}
	got := "?"
	switch k.is.base {
	case isDuration:
		got = shortDuration(v.duration())
	case isCount:
		got = fmt.Sprint(v.count())
	case isSize:
		got = sizeText(v.size())
	case isRate:
		got = k.otherwise
		v.rate()
	case isPercent:
		got = fmt.Sprintf("%.0f%%", 100*v.percent())
	case isFraction:
		got = fmt.Sprint(v.fraction())
	case isBool:
		got = fmt.Sprint(v.boolean())
	case isWords:
		got = v.word()
	case isOnOff:
		if got = "on"; v.off() {
			got = "off"
		}
	case isText:
		got = v.text()
	default:
		t.Errorf("%s: a %v has no default", at, k.is)
	}
	if got != k.otherwise || len(w.problems) > 0 {
		t.Errorf("%s: the default %q reads as %q: %v", at, k.otherwise, got, w.problems)
	}
}

// Each key is in a file of testdata/good, and a walker reads it.
func TestEveryKeyIsRead(t *testing.T) {
	read := make(map[string]bool)
	files, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		w := &walker{getenv: func(string) (string, bool) { return "1", true }}
		w.read = func(mapping, key string) { read[mapping+" "+key] = true }
		w.config(&Config{}, value{w: w, node: w.decode(text)})
	}
	for _, m := range mappings {
		for _, k := range m.keys {
			if !read[m.path+" "+k.name] {
				t.Errorf("%s: no file of testdata/good has it, or no walker reads it", m.below(k.name))
			}
		}
	}
}

// Sizes and rates have their units.
func TestSizesAndRates(t *testing.T) {
	for text, want := range map[string]string{
		"64KiB":                    "65536 []",
		"1B":                       "1 []",
		"2GiB":                     "2147483648 []",
		"4GiB":                     "7 [want a size from 1B to 3GiB, have \"4GiB\"]",
		"0B":                       "7 [want a size from 1B to 3GiB, have \"0B\"]",
		"9223372036854775807GiB":   "7 [want a size, as 512B, 64KiB, 1MiB or 2GiB, have \"9223372036854775807GiB\"]",
		"99999999999999999999999B": "7 [want a size, as 512B, 64KiB, 1MiB or 2GiB, have \"99999999999999999999999B\"]",
		"64":                       "7 [a size needs a unit, as 64KiB: have \"64\"]",
		"64KB":                     "7 [want a size, as 512B, 64KiB, 1MiB or 2GiB, have \"64KB\"]",
		"-1B":                      "7 [want a size, as 512B, 64KiB, 1MiB or 2GiB, have \"-1B\"]",
		`""`:                       "7 [want a size, as 512B, 64KiB, 1MiB or 2GiB, have \"\"]",
		"[]":                       "7 [want a size, as 512B, 64KiB, 1MiB or 2GiB, have a list]",
	} {
		v := scalarOf(t, text, key{is: size(1, 3<<30), otherwise: "7B"})
		if got := fmt.Sprint(v.size(), texts(v.w)); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	const wrong = "{7 1m0s} [want a rate, as 50/s, 100/m or 1000/h, have %s]"
	for text, want := range map[string]string{
		"50/s": "{50 1s} []", "100/m": "{100 1m0s} []", "1000/h": "{1000 1h0m0s} []",
		"50": wrong, "0/s": wrong, "5/d": wrong, "1.5/s": wrong, "-1/s": wrong, "99999999999/s": wrong, `""`: wrong,
	} {
		v := scalarOf(t, text, key{is: rate(), otherwise: "7/m"})
		want := strings.ReplaceAll(want, "%s", shown(strings.Trim(text, `"`)))
		if got := fmt.Sprint(v.rate(), texts(v.w)); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	const notBytes = "{0 0s} [want a rate of bytes, as 64KiB/s or 10MiB/m, have %s]"
	for text, want := range map[string]string{
		"64KiB/s": "{65536 1s} []", "1GiB/h": "{1073741824 1h0m0s} []", "1024GiB/m": "{1099511627776 1m0s} []",
		"64/s": notBytes, "64KiB": notBytes, "64KB/s": notBytes, "-1B/s": notBytes, "1MiB/d": notBytes,
		"0B/s": "{0 0s} [want from 1B to 1024GiB, have \"0B/s\"]", "1025GiB/s": "{0 0s} [want from 1B to 1024GiB, have \"1025GiB/s\"]",
	} {
		v := scalarOf(t, text, key{is: byteRate()})
		want := strings.ReplaceAll(want, "%s", shown(text))
		if got := fmt.Sprint(v.byteRate(), texts(v.w)); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	none := value{w: &walker{}, key: &key{is: rate()}}
	if n, r := none.size(), none.rate(); n != 0 || r != (Rate{}) {
		t.Errorf("without a default: %v, %v", n, r)
	}
}

// scalarOf is a value of a key, read from text.
func scalarOf(t *testing.T, text string, k key) value {
	t.Helper()
	w := &walker{getenv: os.LookupEnv}
	node := w.decode([]byte(text))
	if node == nil {
		t.Fatalf("%q: %v", text, w.problems)
	}
	return value{w: w, node: node, key: &k}
}

func texts(w *walker) []string {
	list := []string{}
	for _, p := range w.problems {
		list = append(list, p.Text)
	}
	return list
}

func TestShortDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", day: "24h", 90 * time.Second: "1m30s", time.Minute: "1m", 10 * time.Minute: "10m", 10 * time.Second: "10s",
		time.Hour + time.Second: "1h0m1s", time.Millisecond: "1ms", 100 * time.Hour: "100h", time.Hour + time.Minute: "1h1m",
	} {
		if got := shortDuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
