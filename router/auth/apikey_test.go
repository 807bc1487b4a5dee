package auth_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

// newAPIKey makes a key and the line for it.
func newAPIKey(t testing.TB, name string) (key, line string) {
	t.Helper()
	key, line, err := auth.NewAPIKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return key, line
}

func apiKeysOf(t testing.TB, opts auth.APIKeysOptions, lines ...string) *auth.APIKeys {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys.txt")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	k := auth.NewAPIKeys(opts)
	if err := k.Load(file); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestNewAPIKey(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		key, line := newAPIKey(t, "ci.deploy_2@example-x")
		if len(key) != 35 || !strings.HasPrefix(key, "op_") || strings.Contains(line, key[3:]) || seen[key] {
			t.Fatalf("key %q, line %q", key, line)
		}
		seen[key] = true
	}
	for _, name := range []string{"", "two words", "a:b", "näme", "a\n", strings.Repeat("a", 129)} {
		if _, _, err := auth.NewAPIKey(name); err == nil {
			t.Errorf("name %q is taken", name)
		}
	}
}

func TestAPIKeys(t *testing.T) {
	key, line := newAPIKey(t, "ci")
	other, otherLine := newAPIKey(t, "billing")
	const foreign = "0123456789-of-another-maker"
	// echo -n 0123456789-of-another-maker | sha256sum
	foreignLine := "old: " + strings.ToUpper("58ad8e02fb4b7430b4eb6d52b5251c43663afc75efa40eac6e804fdd6ad3411b")
	k := apiKeysOf(t, auth.APIKeysOptions{}, "# keys", "", line, otherLine+"\r", foreignLine)
	const jwt = "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"
	for name, tc := range map[string]struct {
		query  string
		fields []string
		want   string // who; "" refuses
		passed string // the Authorization that a server gets
	}{
		"bearer":              {fields: []string{"Authorization", "Bearer " + key}, want: "ci"},
		"scheme in any case":  {fields: []string{"authorization", "bEARER  " + other}, want: "billing"},
		"header":              {fields: []string{"X-Api-Key", key}, want: "ci"},
		"another maker's":     {fields: []string{"Authorization", "Bearer " + foreign}, want: "old"},
		"with a JWT beside":   {fields: []string{"Authorization", "Bearer " + jwt, "X-API-Key", key}, want: "ci", passed: "Bearer " + jwt},
		"none":                {},
		"a JWT":               {fields: []string{"Authorization", "Bearer " + jwt}, passed: "Bearer " + jwt},
		"basic":               {fields: []string{"Authorization", "Basic " + key}, passed: "Basic " + key},
		"no scheme":           {fields: []string{"Authorization", key}, passed: key},
		"unknown":             {fields: []string{"Authorization", "Bearer op_0000000000000000000000000000000"}},
		"a hash":              {fields: []string{"X-API-Key", strings.Split(line, ":")[1]}},
		"case differs":        {fields: []string{"X-API-Key", strings.ToUpper(key)}},
		"empty":               {fields: []string{"X-API-Key", ""}},
		"huge":                {fields: []string{"X-API-Key", key + strings.Repeat("x", 1<<20)}},
		"twice":               {fields: []string{"X-API-Key", key, "X-API-Key", key}},
		"two keys":            {fields: []string{"X-API-Key", key, "Authorization", "Bearer " + other}},
		"two bearers":         {fields: []string{"Authorization", "Bearer " + key, "Authorization", "Bearer " + other}},
		"in the query, never": {query: "?X-API-Key=" + key + "&key=" + key + "&token=" + key},
	} {
		t.Run(name, func(t *testing.T) {
			call := newCall(t, protocols.HTTP, "/"+tc.query, tc.fields...)
			err := askGuard(t, k, call)
			switch id := call.Identity(); {
			case tc.want == "":
				if r := wantRefusal(t, err, protocols.ReasonUnauthenticated); !strings.HasPrefix(r.Challenge, "Bearer") || strings.Contains(err.Error(), "op_") {
					t.Errorf("%v, challenge %q", err, r.Challenge)
				}
				if id != nil {
					t.Errorf("identity %v", id)
				}
			case err != nil || id == nil || id.Subject != tc.want || id.By != "keys" || !id.Expires.IsZero():
				t.Errorf("%v, %+v", err, id)
			}
			if got := serverGets(call, "X-API-Key"); got != "" {
				t.Errorf("a server gets the key %q", got)
			}
			if got := serverGets(call, "Authorization"); got != tc.passed {
				t.Errorf("a server gets Authorization %q, want %q", got, tc.passed)
			}
		})
	}
}

func TestAPIKeysOptions(t *testing.T) {
	key, line := newAPIKey(t, "ci")
	k := apiKeysOf(t, auth.APIKeysOptions{Header: "X-Secret", Prefix: "acme_", By: "partners"}, line)
	call := newCall(t, protocols.GRPC, "/", "x-secret", key)
	if err := askGuard(t, k, call); err != nil || call.Identity().By != "partners" {
		t.Errorf("%v, %v", err, call.Identity())
	}
	wantRefusal(t, askGuard(t, k, newCall(t, protocols.GRPC, "/", "X-API-Key", key)), protocols.ReasonUnauthenticated)
	call = newCall(t, protocols.GRPC, "/", "Authorization", "Bearer acme_x")
	wantRefusal(t, askGuard(t, k, call), protocols.ReasonUnauthenticated)
	if serverGets(call, "Authorization") != "" {
		t.Error("a bad key reaches a server")
	}
}

func TestAPIKeysFile(t *testing.T) {
	key, line := newAPIKey(t, "ci")
	hash := strings.Split(line, ":")[1]
	for name, tc := range map[string]struct{ file, want string }{
		"no colon":        {"ci\n", `keys.txt:1: want name:sha256`},
		"no name":         {"\n:" + hash, `keys.txt:2: the name: want`},
		"bad name":        {"c i:" + hash, `keys.txt:1: the name: want`},
		"short hash":      {"ci:abc", `keys.txt:1: the hash: want 64 hexadecimal digits, not 3 characters`},
		"no hash":         {"ci:" + strings.Repeat("g", 64), `keys.txt:1: the hash: want 64 hexadecimal digits`},
		"a key":           {"ci:" + key, `keys.txt:1: this is a key; the file has its SHA-256 instead`},
		"a key alone":     {key, `keys.txt:1: this is a key`},
		"twice":           {line + "\n# more\nother:" + strings.ToUpper(hash), `keys.txt:3: this key is in line 1 already`},
		"all problems":    {"a\nb\n", "keys.txt:1: want name:sha256\nkeys.txt:2: want name:sha256"},
		"a long line":     {line + "\n" + strings.Repeat("x", 2000), `keys.txt:2: more than 1024 bytes`},
		"bounded problem": {strings.Repeat("a\n", 1000), `keys.txt:20: want name:sha256`},
	} {
		t.Run(name, func(t *testing.T) {
			k := apiKeysOf(t, auth.APIKeysOptions{}, line)
			err := k.Read(strings.NewReader(tc.file), "keys.txt")
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), key) || len(err.Error()) > 2000 {
				t.Errorf("%v, want %s", err, tc.want)
			}
			if err := askGuard(t, k, newCall(t, protocols.HTTP, "/", "X-API-Key", key)); err != nil {
				t.Errorf("the keys before are gone: %v", err)
			}
		})
	}
	k := auth.NewAPIKeys(auth.APIKeysOptions{})
	wantRefusal(t, askGuard(t, k, newCall(t, protocols.HTTP, "/", "X-API-Key", key)), protocols.ReasonUnauthenticated)
	if err := k.Load(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there is read")
	}
	second, secondLine := newAPIKey(t, "ci") // a name may have two, so that one can go
	if err := k.Read(strings.NewReader(line+"\n"+secondLine), "keys.txt"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{key, second} {
		if err := askGuard(t, k, newCall(t, protocols.HTTP, "/", "X-API-Key", key)); err != nil {
			t.Error(err)
		}
	}
	if err := k.Read(strings.NewReader(secondLine), "keys.txt"); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, askGuard(t, k, newCall(t, protocols.HTTP, "/", "X-API-Key", key)), protocols.ReasonUnauthenticated)
}

// A key that goes ends what it has opened, and nothing else.
func TestAPIKeysEndWhatTheyHaveOpened(t *testing.T) {
	key, line := newAPIKey(t, "ci")
	other, otherLine := newAPIKey(t, "other")
	k := apiKeysOf(t, auth.APIKeysOptions{}, line, otherLine)
	ended := make(map[string]*protocols.Refusal)
	open := func(name string, protocol protocols.Protocol, key string) *protocols.Call {
		call := newCall(t, protocol, "/", "X-API-Key", key)
		if err := askGuard(t, k, call); err != nil {
			t.Fatal(err)
		}
		call.OnEnd(func(why *protocols.Refusal) { ended[name] = why })
		return call
	}
	open("ws", protocols.WebSocket, key)
	open("grpc", protocols.GRPC, key)
	open("http", protocols.HTTP, key)
	open("other", protocols.WebSocket, other)
	open("finished", protocols.GRPC, key).Finish(protocols.Result{})
	for _, file := range []string{line + "\n" + otherLine, "# moved\n" + otherLine + "\n" + line, "nonsense"} {
		_ = k.Read(strings.NewReader(file), "keys.txt")
		if len(ended) != 0 {
			t.Fatalf("%s: ended %v", file, ended)
		}
	}
	if err := k.Read(strings.NewReader(otherLine), "keys.txt"); err != nil {
		t.Fatal(err)
	}
	if len(ended) != 2 || ended["ws"] == nil || ended["grpc"] == nil {
		t.Fatalf("ended %v", ended)
	}
	if code, reason := ended["ws"].Close(); code != 1008 || reason != "the key is no longer good" {
		t.Errorf("closed with %d %s", code, reason)
	}
	// Another's now.
	if err := k.Read(strings.NewReader("new"+strings.TrimPrefix(otherLine, "other")), "keys.txt"); err != nil || ended["other"] == nil {
		t.Errorf("%v, %v", err, ended)
	}
}

// Keys come and go while calls do.
func TestAPIKeysReloadRace(t *testing.T) {
	key, line := newAPIKey(t, "ci")
	k := apiKeysOf(t, auth.APIKeysOptions{}, line)
	var all sync.WaitGroup
	calls := make([]*protocols.Call, 200)
	var ended [200]atomic.Bool
	for i := range calls {
		calls[i] = newCall(t, protocols.WebSocket, "/", "X-API-Key", key)
	}
	all.Go(func() {
		for range 50 {
			_ = k.Read(strings.NewReader(""), "keys.txt")
			_ = k.Read(strings.NewReader(line), "keys.txt")
		}
		_ = k.Read(strings.NewReader(""), "keys.txt")
	})
	var admitted atomic.Int64
	for i, call := range calls {
		all.Go(func() {
			call.OnEnd(func(*protocols.Refusal) { ended[i].Store(true) })
			if _, err := k.Admit(t.Context(), call); err == nil {
				admitted.Add(1)
			} else {
				ended[i].Store(true)
			}
		})
	}
	all.Wait()
	for i := range calls {
		if !ended[i].Load() {
			t.Errorf("call %d goes on without its key; %d were let in", i, admitted.Load())
		}
	}
}

func FuzzAPIKeysFile(f *testing.F) {
	_, line := newAPIKey(f, "ci")
	f.Add(line + "\n# x\n\n" + line)
	f.Add("a:b:c\r\n:\n")
	f.Fuzz(func(t *testing.T, file string) {
		if err := auth.NewAPIKeys(auth.APIKeysOptions{}).Read(strings.NewReader(file), "f"); err != nil && len(err.Error()) > 10_000 {
			t.Errorf("%d bytes of errors", len(err.Error()))
		}
	})
}
