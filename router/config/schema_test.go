package config_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/oneport-edge/oneport/router/config"
)

const schemaFile = "../../docs/oneport.schema.json"

// schema compiles what editors get.
func schema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(config.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("oneport.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("oneport.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// instance is a file as a validator sees it: texts, numbers, true and false.
func instance(t testing.TB, n *yaml.Node) any {
	t.Helper()
	switch n.Kind {
	case yaml.DocumentNode:
		return instance(t, n.Content[0])
	case yaml.MappingNode:
		m := make(map[string]any)
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = instance(t, n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i := range list {
			list[i] = instance(t, n.Content[i])
		}
		return list
	default:
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		if f, err := strconv.ParseFloat(n.Value, 64); err == nil {
			return f
		}
	case "!!bool":
		return n.Value == "true"
	case "!!null":
		return nil
	}
	return n.Value
}

// tree gives a text as a validator sees it; false if it is not YAML.
func tree(t testing.TB, text []byte) (any, bool) {
	t.Helper()
	var doc yaml.Node
	if yaml.Unmarshal(text, &doc) != nil || len(doc.Content) == 0 {
		return nil, false
	}
	return instance(t, &doc), true
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What Parse accepts the schema accepts: all good files, and the examples.
func TestSchemaAcceptsGoodFiles(t *testing.T) {
	s := schema(t)
	files := map[string][]byte{"../../examples/sidecar/oneport.yaml": read(t, "../../examples/sidecar/oneport.yaml")}
	for _, file := range corpus(t, "good/*.yaml") {
		files[file] = read(t, file)
	}
	for _, doc := range []string{"../../README.md", "../../docs/configuration.md"} {
		parts := strings.Split(string(read(t, doc)), "```yaml\n")
		if len(parts) < 2 {
			t.Fatalf("%s has no example", doc)
		}
		for i, part := range parts[1:] {
			example, _, _ := strings.Cut(part, "```")
			files[doc+" "+strconv.Itoa(i)] = []byte(example)
		}
	}
	for file, text := range files {
		if v, ok := tree(t, text); !ok {
			t.Errorf("%s is not YAML", file)
		} else if err := s.Validate(v); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// blind lists the bad files in which a schema can see nothing wrong: their problem
// is in how two places go together, in the text and not in its values, or in
// what only a walker knows.
var blind = []string{
	"admin-nowhere",
	"duplicate-key", "env", "env-number", "env-syntax", "listen-port-large", "listen-twice", "passthrough-alone",
	"route-grpc-http1", "route-name-twice", "route-to-unknown", "route-websocket-http2", "servers-mixed", "telemetry-ca", "tls-both", "tls-missing", "tls-nothing-in-it", "two-documents",
}

// The schema refuses each other bad file.
func TestSchemaRefusesBadFiles(t *testing.T) {
	s := schema(t)
	refused := 0
	for _, file := range corpus(t, "bad/*.bad.yaml") {
		name := strings.TrimSuffix(filepath.Base(file), ".bad.yaml")
		v, ok := tree(t, read(t, file))
		if !ok {
			continue
		}
		switch sees := s.Validate(v) != nil; {
		case !sees && !slices.Contains(blind, name):
			t.Errorf("%s: the schema accepts it", name)
		case sees && slices.Contains(blind, name):
			t.Errorf("%s: the schema refuses it: take it out of blind", name)
		case sees:
			refused++
		}
	}
	t.Logf("%d of %d refused", refused, len(corpus(t, "bad/*.bad.yaml")))
}

// The schema that ships is the one that "oneport schema" prints; "make docs" writes it.
func TestSchemaIsFresh(t *testing.T) {
	compare(t, string(config.Schema()), schemaFile)
}

// What Parse accepts the schema accepts, whatever it is.
func FuzzSchema(f *testing.F) {
	files, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	s := schema(f)
	capitals := regexp.MustCompile(`"[^"]*[A-Z][^"]*://`)
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := config.Parse("fuzz.yaml", text); err != nil {
			return
		}
		v, ok := tree(t, text)
		if !ok {
			t.Fatal("Parse accepts what is not YAML")
		}
		if err := s.Validate(v); err != nil && !capitals.MatchString(fmt.Sprintf("%q", v)) {
			t.Errorf("%v\n%s", err, text)
		}
	})
}
