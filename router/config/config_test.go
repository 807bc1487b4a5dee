package config_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/oneport-edge/oneport/router/config"
)

var update = flag.Bool("update", false, "write the files that outputs are compared with")

// environment is what the files of the corpus may ask for.
func environment(t *testing.T) {
	t.Helper()
	t.Setenv("ONEPORT_HOST", "127.0.0.1")
	t.Setenv("ONEPORT_DIR", "/etc/oneport")
	t.Setenv("ONEPORT_AUTH", "required")
	t.Setenv("ONEPORT_NUMBER", "45")
	if _, ok := os.LookupEnv("ONEPORT_UNSET"); ok {
		t.Fatal("ONEPORT_UNSET is set")
	}
}

// corpus lists the files of a folder, by their names.
func corpus(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files at %s: %v", pattern, err)
	}
	return files
}

// compare compares what was got with a file, or writes that.
func compare(t *testing.T, got, file string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant, as in %s,\n%s", got, file, want)
	}
}

// Each wrong file gives exactly the output beside it, as a user will read it.
func TestBad(t *testing.T) {
	environment(t)
	for _, file := range corpus(t, "bad/*.bad.yaml") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".bad.yaml"), func(t *testing.T) {
			c, err := config.Load(file)
			problems, ok := errors.AsType[*config.Error](err)
			if !ok || c != nil {
				t.Fatalf("got %v, %v, want nothing and a *config.Error", c, err)
			}
			for _, p := range problems.Problems {
				if p.File != file || p.Pos.Line < 1 || p.Pos.Col < 1 || p.Text == "" {
					t.Errorf("incomplete: %#v", p)
				}
			}
			got := strings.ReplaceAll(err.Error(), file, filepath.Base(file))
			compare(t, got+"\n", strings.TrimSuffix(file, ".bad.yaml")+".want")
		})
	}
}

// Each good file gives exactly the value beside it. Only those called warnings warn.
func TestGood(t *testing.T) {
	environment(t)
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range corpus(t, "good/*.yaml") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			c, err := config.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			if warns := strings.Contains(file, "warnings"); warns != (len(c.Warnings) > 0) {
				t.Errorf("warnings: %v", c.Warnings)
			}
			got, err := json.MarshalIndent(c, "", "  ") //nolint:musttag,staticcheck // it is only compared, and has no function in it
			if err != nil {
				t.Fatal(err)
			}
			compare(t, strings.ReplaceAll(string(got), dir, "DIR")+"\n", strings.TrimSuffix(file, ".yaml")+".json")
		})
	}
}

func TestLoadOfNoFile(t *testing.T) {
	_, err := config.Load(filepath.Join(t.TempDir(), "oneport.yaml"))
	if _, wrong := errors.AsType[*config.Error](err); wrong || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that there is no such file", err)
	}
}

// A file that is something else altogether neither takes long nor says much.
func TestHostileFiles(t *testing.T) {
	for name, text := range map[string]string{
		"too large":      "# " + strings.Repeat("x", 1<<20),
		"unknown keys":   numbered("key%: 1\n"),
		"deep":           strings.Repeat("[", 1<<19),
		"one line":       "listen: [" + numbered("%, ") + "]",
		"routes":         "listen: \":1\"\nroutes:\n" + numbered("- {path: /%, to: a%}\n"),
		"upstreams":      "listen: \":1\"\nupstreams:\n" + numbered("  a%: {servers: [x]}\n"),
		"long path":      "listen: \":1\"\nroutes:\n- {path: " + strings.Repeat("/a", 400_000) + ", to: a}\n",
		"long key":       strings.Repeat("k", 900_000) + ": 1\n",
		"long value":     "log: {level: " + strings.Repeat("v", 900_000) + "}\n",
		"slashes":        "listen: \":1\"\nroutes:\n" + strings.Repeat("- {path: "+strings.Repeat("/a", 8000)+", to: a}\n", 60),
		"many variables": "listen: \"" + strings.Repeat("${ONEPORT_NOT_SET}", 50_000) + "\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Parse("hostile.yaml", []byte(text))
			problems, ok := errors.AsType[*config.Error](err)
			if !ok {
				t.Fatalf("got %v, want a *config.Error", err)
			}
			if n := len(problems.Problems); n > 101 {
				t.Errorf("%d problems", n)
			}
			if n := len(err.Error()); n > 100_000 {
				t.Errorf("%d bytes of output", n)
			}
		})
	}
}

// numbered repeats a text with numbers for its "%", to about half of what a file may have.
func numbered(text string) string {
	var b strings.Builder
	for i := 0; b.Len() < 1<<19; i++ {
		b.WriteString(strings.ReplaceAll(text, "%", strconv.Itoa(i)))
	}
	return b.String()
}

// Windows' line ends and byte order mark change nothing.
func TestLineEnds(t *testing.T) {
	text := "\ufefflisten: \":443\"\r\ntls: { dev: tru }\r\n"
	_, err := config.Parse("oneport.yaml", []byte(text))
	const want = `oneport.yaml:2:13: tls.dev: want true or false, have "tru"
    tls: { dev: tru }
                ^`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// Whatever bytes a file has, Parse ends, and what it accepts holds together.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := config.Parse("fuzz.yaml", text)
		if err != nil {
			wrong, ok := errors.AsType[*config.Error](err)
			if !ok || len(wrong.Problems) == 0 {
				t.Fatalf("%T without problems: %v", err, err)
			}
			checkPrinted(t, err.Error())
			return
		}
		for _, p := range c.Warnings {
			checkPrinted(t, p.Error())
		}
		checkConfig(t, c)
	})
}

// checkPrinted fails for what a terminal would obey.
func checkPrinted(t *testing.T, s string) {
	t.Helper()
	for _, r := range s {
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' && r != utf8.RuneError {
			t.Fatalf("%U in %q", r, s)
		}
	}
}

// checkConfig fails for what the caller need not expect.
func checkConfig(t *testing.T, c *config.Config) {
	t.Helper()
	if len(c.Listen) == 0 {
		t.Error("listens nowhere")
	}
	names := make(map[string]bool)
	for _, u := range c.Upstreams {
		if names[u.Name] = true; len(u.Servers) == 0 {
			t.Errorf("upstream %q has servers %q", u.Name, u.Servers)
		}
	}
	for _, r := range c.Routes {
		kinds := 0
		for _, k := range []string{r.GRPC, r.WebSocket, r.Path, r.Passthrough} {
			if k != "" {
				kinds++
			}
		}
		leads := names[r.To] || len(r.Split) > 0 && names[r.Split[0].To] || r.Redirect != "" && r.RedirectStatus >= 301 || r.Tickets || r.Refresh || r.Broadcast && c.Broadcast != nil || r.Passthrough != "" && r.SNI+r.ALPN != ""
		if kinds != 1 || !leads || r.Name == "" || r.Pos.Line < 1 {
			t.Errorf("route %+v", r)
		}
	}
}
