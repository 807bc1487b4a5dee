package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const page = "../../docs/configuration.md"

// The generated part of the page is between these lines.
const (
	begin = "<!-- From router/config/keys.go, by \"make docs\": do not edit below. -->\n"
	end   = "<!-- End of what is generated. -->\n"
)

// reference writes the generated part.
func reference() string {
	var b strings.Builder
	for _, m := range mappings {
		title := "`" + m.path + "`"
		if m.path == "" {
			title = "The file"
		}
		fmt.Fprintf(&b, "\n## %s\n\n", title)
		if m.about != "" {
			fmt.Fprintf(&b, "%s\n\n", m.about)
		}
		b.WriteString("| key | type | without it | what |\n|---|---|---|---|\n")
		for _, k := range m.keys {
			without := k.without
			switch {
			case k.need:
				without = "an error"
			case k.otherwise != "":
				without = "`" + k.otherwise + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s |\n", k.name, strings.Join([]string{k.is.String(), without, k.about}, " | "))
		}
	}
	b.WriteByte('\n')
	return b.String()
}

// The reference on the page is what keys.go says; "make docs" writes it.
func TestReferenceIsFresh(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(text), begin)
	old, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		t.Fatalf("%s: the lines %q and %q are not there", page, begin, end)
	}
	switch now := reference(); {
	case now == old:
	case !updating():
		t.Errorf("%s is stale: make docs", page)
	default:
		if err := os.WriteFile(page, []byte(before+begin+now+end+after), 0o600); err != nil {
			t.Fatal(err)
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
