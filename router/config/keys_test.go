package config

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

const page = "../../docs/configuration.md"

// reference gives the rows of the reference page, by section and key. The
// sections are called as in schema; the first is called The file.
func reference(t *testing.T) map[string]map[string]string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]map[string]string)
	section := "none"
	for line := range strings.Lines(string(text)) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.Trim(strings.TrimSpace(title), "`")
			if section == "The file" {
				section = ""
			}
			all[section] = make(map[string]string)
		}
		if row, ok := strings.CutPrefix(line, "| `"); ok {
			key, _, _ := strings.Cut(row, "`")
			all[section][key] = row
		}
	}
	return all
}

// docs/configuration.md explains every key, and no other.
func TestReferenceIsComplete(t *testing.T) {
	rows := reference(t)
	for name, may := range schema {
		all := slices.Concat(may.keys, may.later)
		for _, key := range all {
			row, ok := rows[name][key]
			switch later := strings.Contains(row, "not yet"); {
			case !ok:
				t.Errorf("%s: section %q has no row for `%s`", page, name, key)
			case later != slices.Contains(may.later, key):
				t.Errorf("%s: %q, `%s`: whether it is there yet is wrong", page, name, key)
			}
		}
		for key := range rows[name] {
			if !slices.Contains(all, key) {
				t.Errorf("%s: section %q explains `%s`, which there is not", page, name, key)
			}
		}
		delete(rows, name)
	}
	for name := range maps.Keys(rows) {
		if len(rows[name]) > 0 {
			t.Errorf("%s: section %q is about nothing", page, name)
		}
	}
}

// Each default stands in its row, as the last column says it.
func TestReferenceHasTheDefaults(t *testing.T) {
	rows := reference(t)
	for _, d := range []struct{ section, key, value string }{
		{"routes[]", "status", "308"},
		{"limits", "connections", "10,000"},
		{"drain", "timeout", defaultTimeout.String()},
		{"drain", "spread", defaultSpread.String()},
		{"drain", "not_ready", defaultNotReady.String()},
		{"log", "level", defaultLevel},
		{"log", "format", defaultFormat},
		{"log", "access", "true"},
	} {
		cells := strings.Split(strings.TrimSpace(rows[d.section][d.key]), "|")
		if len(cells) < 3 || !strings.Contains(cells[len(cells)-2], "`"+d.value+"`") {
			t.Errorf("%s: %s.%s: the default is not %s", page, d.section, d.key, d.value)
		}
	}
}

// The example is a file without problems and warnings.
func TestReferenceExample(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```yaml\n")
	example, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("no example")
	}
	c, err := Parse("oneport.yaml", []byte(example))
	if err != nil || len(c.Warnings) > 0 {
		t.Errorf("got %v, and warnings %v", err, c)
	}
}
