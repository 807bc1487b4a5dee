package oneport_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oneport-edge/oneport/protocols/conn"
)

const module = "github.com/oneport-edge/oneport"

// pkg is what go list says of one package.
type pkg struct {
	ImportPath   string   `json:"ImportPath"`
	Dir          string   `json:"Dir"`
	GoFiles      []string `json:"GoFiles"`
	Imports      []string `json:"Imports"`
	TestImports  []string `json:"TestImports"`
	XTestImports []string `json:"XTestImports"`
	Deps         []string `json:"Deps"`
}

// rel is the path within the module: "protocols/mux", "." for the root.
func (p pkg) rel() string {
	if r, ok := strings.CutPrefix(p.ImportPath, module+"/"); ok {
		return r
	}
	return "."
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-tags", "nomsgpack,suites,clients,bench", "-json", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// within reports whether path is one of the folders, or below one that ends in "/".
func within(path string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(f string) bool {
		return path == strings.TrimSuffix(f, "/") || strings.HasSuffix(f, "/") && strings.HasPrefix(path, f)
	})
}

// mayImport says which packages of this module a package may import. The first
// row that fits counts.
var mayImport = []struct {
	who    string
	whom   []string
	reason string
}{
	{"protocols", nil, "the vocabulary speaks of nobody"},
	{"protocols/conn", []string{"protocols", "protocols/nbio"}, "the registry keeps account, it does not route"},
	{"protocols/mux", []string{"protocols", "protocols/conn"}, "mux brings connections up; it alone holds the registry's side of them"},
	{"protocols/h2/frame", nil, "frames know nothing of connections"},
	{"protocols/h2/encode", nil, "HPACK knows nothing of connections"},
	{"protocols/h2/flow", []string{"protocols/h2/frame"}, "credit knows nothing of connections"},
	{"protocols/h2", []string{"protocols", "protocols/h2/"}, "the switch knows its own parts, and no server behind it"},
	{"protocols/ws/frame", nil, "frames know nothing of connections"},
	{"protocols/ws", []string{"protocols", "protocols/ws/"}, "sessions and tunnels know their own frames, and no other protocol"},
	{"protocols/nbio", nil, "a socket knows nothing of what is written to it"},
	{"protocols/", []string{"protocols"}, "siblings that know wires never import each other: a handler of one protocol must not depend on another's"},
	{"certs", nil, "certificates are for any server"},
	{"certs/acme", nil, "a certs.Source by its methods alone; nothing else is to link a CA's client"},
	{"proto/", nil, "generated code is for any client"},
	{"router/upstream", []string{"protocols", "protocols/h2", "protocols/nbio", "protocols/proxy"}, "it dials for the switch, and knows no client"},
	{"router/auth", []string{"protocols"}, "a guard knows calls, and neither wires nor routes"},
	{"router/auth/extauthz", []string{"protocols", "router/auth"}, "a guard's authority by its methods alone; nothing else of auth is to link a gRPC client"},
	{"router/admin/page", nil, "files, and how they are served: what it shows browsers ask the API for"},
	{"router/admin", []string{"protocols", "proto/", "router/admin/page"}, "what it shows others give it: it knows neither routers nor files"},
	{"router/config", []string{"router/upstream"}, "a file's meaning is for others to act on; what a server's URL may be, upstream says"},
	{"router/limit", []string{"protocols"}, "limits are of calls, and know no wire; a store that instances share comes from outside"},
	{"router/tracing", []string{"protocols"}, "an observer knows calls, and neither wires nor routes"},
	{"router/accesslog", []string{"protocols"}, "an observer knows calls, and neither wires nor routes"},
	{"router/redisstore", []string{"router/limit"}, "it implements the stores that policies declare; nothing else is to link a Redis client"},
	{"router/broadcast", []string{"protocols", "protocols/ws", "router/redisstore", "proto/oneport/broadcast/v1"}, "a handler of sessions, requests and calls; where Redis is, redisstore reads"},
	{"router/telemetry", []string{"protocols/", "certs", "router", "router/limit", "router/upstream"}, "it reads what they count; what links a library of its own, tokens, Redis, the broadcast, comes as plain numbers"},
	{"router", []string{"protocols/", "certs", "router/upstream"}, "router knows wires and policies both"},
	{"client", []string{"proto/"}, "a client needs no server: of this module it links what is generated, and nothing else"},
	{"oneporttest", []string{"router", "certs"}, "what an embedder's test needs, and no more"},
	{"internal/systemd", nil, "a service manager knows nothing of what the service serves"},
	{"internal/edge", []string{"internal/systemd", "router", "router/", "protocols/", "certs", "certs/", "proto/"}, "assembles everything for the binary"},
	{"internal/doctor", nil, "it knows nothing of the servers that it asks"},
	{"internal/console", []string{"proto/"}, "a client of the admin API, as others may be: it knows no server"},
	{"internal/textbook", nil, "a program as others write it: none of our code is to make it better"},
	{"internal/", []string{"internal/", "router", "router/", "protocols/", "certs", "proto/", "oneporttest"}, "test tools may look at everything"},
	{"cmd/oneport", []string{"internal/edge", "internal/systemd", "internal/doctor", "internal/console", "router", "router/accesslog", "protocols/rest", "certs", "router/config", "router/auth"}, "main only connects the process to the library"},
	{"examples/chat", []string{"router", "router/auth", "router/broadcast", "router/redisstore", "protocols/", "certs", "proto/", "oneporttest", "examples/chat/"}, "an embedder of the broadcast; tokens are its names, and Redis is where its instances meet"},
	{"examples/", []string{"router", "protocols/", "certs", "proto/", "oneporttest", "examples/"}, "an example uses what an embedder can use: nothing internal"},
	{"deploy", nil, "files for other programs: only its test looks at them"},
	{"bench", []string{"router", "router/config", "router/auth", "router/broadcast", "protocols/", "certs", "proto/", "internal/edge", "internal/testkit"}, "compares our handlers with the same ones on their own ports, and the edge with others"},
}

func TestImportsFollowTheLayout(t *testing.T) {
	for _, p := range list(t) {
		i := slices.IndexFunc(mayImport, func(r struct {
			who    string
			whom   []string
			reason string
		},
		) bool {
			return within(p.rel(), r.who)
		})
		if p.rel() == "." {
			continue
		}
		if i < 0 {
			t.Errorf("%s has no row in mayImport: say where it belongs, and why", p.rel())
			continue
		}
		for _, imp := range p.Imports {
			rel, ours := strings.CutPrefix(imp, module+"/")
			if ours && !within(rel, mayImport[i].whom...) && rel != p.rel() {
				t.Errorf("%s imports %s: %s", p.rel(), rel, mayImport[i].reason)
			}
		}
	}
}

// oneImporter says who alone imports a third-party library, tests included,
// so that it can be replaced in one place.
var oneImporter = []struct {
	library string
	who     []string
	reason  string
}{
	{"github.com/soheilhy/cmux", []string{"protocols/mux", "internal/textbook"}, "it has no safe defaults, and the fence stands there; textbook has its faults on purpose, for a test"},
	{"github.com/pires/go-proxyproto", []string{"protocols/mux"}, "a PROXY header is read before anything else"},
	{"github.com/gin-gonic/gin", []string{"protocols/rest", "router", "examples/", "bench"}, "a Gin engine is an http.Handler everywhere else; router's and examples' tests are embedders"},
	{"github.com/gorilla/websocket", []string{"protocols/ws", "client", "oneporttest", "router", "router/admin", "router/broadcast", "internal/", "examples/", "bench"}, "serving is ws's business; the others are clients in tests"},
	{"github.com/caddyserver/certmagic", []string{"certs/acme"}, "it opens listeners and has defaults of its own; the fence stands there"},
	{"github.com/mholt/acmez", []string{"certs/acme"}, "certmagic's ACME client; the two go together"},
	{"go.uber.org/zap", []string{"certs/acme"}, "certmagic logs with it; everybody else has log/slog"},
	{"github.com/golang-jwt/jwt/v5", []string{"router/auth"}, "it takes what is no date for a date, and any curve; what is checked before and after stands there"},
	{"go.yaml.in/yaml/v4", []string{"router/config", "deploy"}, "it is young; deploy's test reads manifests; and a file that others read would have rules of their own"},
	{"github.com/santhosh-tekuri/jsonschema/v6", []string{"router/config"}, "only a test asks whether the schema is one; the binary prints it and does not need it"},
	{"go.opentelemetry.io/otel", []string{"router/tracing"}, "what records calls is replaced in one place; nothing else is to link a collector's client"},
	{"go.opentelemetry.io/proto/otlp", []string{"router/tracing", "internal/"}, "only tests are collectors"},
	{"github.com/redis/rueidis", []string{"router/redisstore"}, "one Redis client: policies declare what they store, and link none"},
	{"github.com/centrifugal/centrifuge", []string{"router/broadcast"}, "it has a WebSocket of its own, and no 1.0: sessions are ws's, and what changes there is to change one package"},
	{"github.com/prometheus/client_golang", []string{"router/telemetry", "router/broadcast"}, "what is shown to Prometheus stands in one place; and centrifuge counts in a registry, which must not be the process's"},
	{"github.com/prometheus/client_model", []string{"router/telemetry"}, "client_golang's messages: the two go together"},
	{"golang.org/x/term", []string{"internal/console"}, "one place knows terminals, and cleans what they are given"},
	{"github.com/spf13/cobra", []string{"cmd/oneport"}, "flags belong to main"},
	{"golang.org/x/sys/unix", []string{"protocols/mux", "router", "router/upstream", "internal/", "bench"}, "system calls are rare, and each has its reason"},
}

func TestLibrariesHaveOneImporter(t *testing.T) {
	for _, p := range list(t) {
		for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			for _, rule := range oneImporter {
				if (imp == rule.library || strings.HasPrefix(imp, rule.library+"/")) && !within(p.rel(), rule.who...) {
					t.Errorf("%s imports %s: %s", p.rel(), imp, rule.reason)
				}
			}
		}
		if slices.Contains(p.Imports, "github.com/gorilla/websocket") && within(p.rel(), "router") {
			t.Errorf("%s imports gorilla outside of a test", p.rel())
		}
	}
}

// An embedder links what it uses: no Redis, no ACME, no OpenTelemetry SDK.
func TestEmbeddingIsLean(t *testing.T) {
	forbidden := []string{"redis", "rueidis", "certmagic", "acmez", "go.uber.org/zap", "go.opentelemetry.io/otel/sdk", "centrifuge", "prometheus", "cobra", "yaml.in", "jsonschema", "golang-jwt"}
	for _, p := range list(t) {
		if p.rel() != "examples/embed" {
			continue
		}
		for _, dep := range p.Deps {
			for _, f := range forbidden {
				if strings.Contains(dep, f) {
					t.Errorf("examples/embed links %s", dep)
				}
			}
		}
	}
}

// sources parses every Go file that is not generated.
func sources(t *testing.T, visit func(path string, fset *token.FileSet, f *ast.File)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "node_modules" || path == "tools") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		if !ast.IsGenerated(f) {
			visit(filepath.ToSlash(path), fset, f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// onlyIn says where alone a function may be called.
var onlyIn = []struct {
	call   string
	who    []string
	reason string
}{
	{"os.Exit", []string{"cmd/", "bench/"}, "a library never ends its process"},
	{"os.Getenv", []string{"cmd/", "internal/"}, "the environment is the process's business"},
	{"os.LookupEnv", []string{"cmd/", "internal/", "router/config/"}, "the environment is the process's business; a file may ask for it by name"},
	{"signal.Notify", []string{"cmd/", "examples/"}, "signals are the process's business"},
	{"signal.NotifyContext", []string{"cmd/", "examples/"}, "signals are the process's business"},
	{"flag.Parse", []string{"cmd/", "bench/", "examples/"}, "flags are the process's business"},
	{"cm.MatchWithWriters", []string{"internal/textbook/"}, "a SETTINGS frame before the server's own breaks curl 10 times in 10"},
	{"certmagic.NewACMEIssuer", nil, "it opens listeners whenever it finds the port free; certs/acme has an issuer of its own"},
	{"certmagic.NewDefault", nil, "its configuration and cache are package state"},
	{"certmagic.HTTPS", nil, "it listens"},
	{"certmagic.Listen", nil, "it listens"},
	{"certmagic.TLS", nil, "its configuration is package state"},
	{"log.Fatal", []string{"examples/"}, "a library never ends its process"},
	{"http.ListenAndServe", nil, "the default server has no timeouts"},
	{"http.Handle", nil, "the default mux is package state"},
	{"http.HandleFunc", nil, "the default mux is package state"},
}

func TestProcessBelongsToMain(t *testing.T) {
	sources(t, func(path string, fset *token.FileSet, f *ast.File) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			for _, rule := range onlyIn {
				if x.Name+"."+sel.Sel.Name == rule.call && !within(filepath.Dir(path)+"/", rule.who...) && !underAny(path, rule.who) {
					t.Errorf("%s calls %s: %s", fset.Position(call.Pos()), rule.call, rule.reason)
				}
			}
			return true
		})
	})
}

func underAny(path string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return strings.HasPrefix(path, f) })
}

// No package state: no init, and no package variable that starts empty, which
// could only be meant to change. Tables and errors are fine.
func TestNoPackageState(t *testing.T) {
	sources(t, func(path string, fset *token.FileSet, f *ast.File) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s: func init: what a package does when it is imported nobody sees", fset.Position(d.Pos()))
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					v, ok := s.(*ast.ValueSpec)
					if !ok || d.Tok != token.VAR || len(v.Values) > 0 || d.Doc != nil && strings.Contains(comments(d.Doc), "//go:embed") {
						continue
					}
					t.Errorf("%s: package variable %s starts empty: state belongs to a value", fset.Position(v.Pos()), v.Names[0])
				}
			}
		}
	})
}

func comments(g *ast.CommentGroup) string {
	var b strings.Builder
	for _, c := range g.List {
		b.WriteString(c.Text)
	}
	return b.String()
}

// Every package tells what it is for, in one doc.go.
func TestEveryPackageHasADoc(t *testing.T) {
	for _, p := range list(t) {
		if len(p.GoFiles) == 0 || strings.HasPrefix(p.rel(), "proto/") || strings.HasSuffix(p.rel(), "pb") {
			continue // tests alone, or generated
		}
		var with []string
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				with = append(with, name)
			}
		}
		if !slices.Equal(with, []string{"doc.go"}) {
			t.Errorf("%s: the package comment is in %v, want it in doc.go alone", p.rel(), with)
		}
	}
}

func TestMainIsShort(t *testing.T) {
	b, err := os.ReadFile("cmd/oneport/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, []byte("\n")); n > 20 {
		t.Errorf("cmd/oneport/main.go has %d lines, want at most 20: what can be tested belongs in run.go", n)
	}
}

// ARCHITECTURE.md names every package, and no other.
func TestArchitectureIsTrue(t *testing.T) {
	b, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for line := range strings.Lines(string(b)) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			if path, ok := strings.CutPrefix(strings.TrimSpace(cells[1]), "`"); ok {
				named[strings.TrimSuffix(path, "`")] = true
			}
		}
	}
	for _, p := range list(t) {
		if p.rel() != "." && !named[p.rel()] {
			t.Errorf("ARCHITECTURE.md has no row for `%s`", p.rel())
		}
		delete(named, p.rel())
	}
	for path := range named {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("ARCHITECTURE.md names `%s`, which does not exist", path)
		}
	}
}

// The program in the README is the one in examples/embed, which is compiled
// and tested.
func TestReadmeShowsTheExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("examples/embed/main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```go\n")
	block, _, ok := strings.Cut(rest, "```")
	if !ok || !strings.Contains(string(program), block) {
		t.Errorf("README.md's first Go block is not in examples/embed/main.go:\n%s", block)
	}
}

// docs/operations.md explains every reason a connection may end for.
func TestReasonsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, why := range conn.Reasons() {
		if !strings.Contains(string(b), "`"+why.String()+"`") {
			t.Errorf("docs/operations.md does not explain `%s`", why)
		}
	}
}
