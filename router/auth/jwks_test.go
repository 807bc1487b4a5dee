package auth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

// issuer answers requests for keys, in memory.
type issuer struct {
	mu      sync.Mutex
	answer  func(*http.Request) (*http.Response, error)
	fetches atomic.Int64
	begun   []time.Time
}

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.fetches.Add(1)
	i.mu.Lock()
	answer := i.answer
	i.begun = append(i.begun, time.Now())
	i.mu.Unlock()
	return answer(r)
}

func (i *issuer) say(answer func(*http.Request) (*http.Response, error)) {
	i.mu.Lock()
	i.answer = answer
	i.mu.Unlock()
}

func answers(status int, body string, fields ...string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		h := http.Header{}
		for _, f := range fields {
			name, value, _ := strings.Cut(f, ": ")
			h.Add(name, value)
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
}

func hangs(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// minted is a key with a name, for a JWKS and for tokens.
func minted(tb testing.TB) *auth.Mint {
	tb.Helper()
	key, err := auth.GenerateKey("EdDSA")
	if err != nil {
		tb.Fatal(err)
	}
	m, err := auth.NewMint(key, "")
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func published(tb testing.TB, mints ...*auth.Mint) string {
	tb.Helper()
	b, err := auth.MarshalJWKS(mints...)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func tokenOf(tb testing.TB, m *auth.Mint) string {
	tb.Helper()
	token, err := m.Sign(jwtClaims(map[string]any{"exp": time.Now().Add(100 * time.Hour).Unix()}))
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

// jwksWith runs keys of an issuer in memory until the test ends.
func jwksWith(t *testing.T, i *issuer, log *slog.Logger) *auth.JWKS {
	t.Helper()
	keys, err := auth.NewJWKS(auth.JWKSOptions{URL: "https://id.example.com/jwks.json", Client: &http.Client{Transport: i}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { keys.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return keys
}

func withKeys(keys auth.Keys) func(*auth.JWTOptions) {
	return func(o *auth.JWTOptions) { o.Keys = keys }
}

// Keys are fetched again each hour, or as often as the answer says.
func TestJWKSRefresh(t *testing.T) {
	for cache, want := range map[string][2]time.Duration{
		"":                                    {54 * time.Minute, time.Hour},
		"Cache-Control: public, max-age=600":  {9 * time.Minute, 10 * time.Minute},
		"Cache-Control: max-age=0":            {54 * time.Second, time.Minute},
		"Cache-Control: max-age=99999999":     {21 * time.Hour, 24 * time.Hour},
		"Cache-Control: no-store, max-age=-5": {54 * time.Second, time.Minute},
		"Cache-Control: max-age=soon":         {54 * time.Minute, time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			i := &issuer{answer: answers(200, published(t, minted(t)), cache)}
			keys := jwksWith(t, i, nil)
			time.Sleep(5 * want[1])
			synctest.Wait()
			i.mu.Lock()
			defer i.mu.Unlock()
			for n := 1; n < len(i.begun); n++ {
				if d := i.begun[n].Sub(i.begun[n-1]); d < want[0] || d > want[1] {
					t.Errorf("%q: fetched again after %s, want %s to %s", cache, d, want[0], want[1])
				}
			}
			if len(i.begun) < 5 {
				t.Errorf("%q: fetched %d times", cache, len(i.begun))
			}
			if err := keys.Ready(); err != nil {
				t.Errorf("%q: %v", cache, err)
			}
		})
	}
}

// A new key is found at once, by the first token that names it, and by all that come
// meanwhile.
func TestJWKSRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := minted(t), minted(t)
		i := &issuer{answer: answers(200, published(t, old))}
		g := jwtGuard(t, withKeys(jwksWith(t, i, nil)))
		oldToken := tokenOf(t, old)
		if why := jwtTryToken(t, g, oldToken); why != "" {
			t.Fatalf("refused for %s", why)
		}
		time.Sleep(11 * time.Second)
		i.say(func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return answers(200, published(t, old, next))(r)
		})
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if _, err := g.Check(t.Context(), tokenOf(t, next)); err != nil {
					t.Errorf("the new key's token: %v", err)
				}
			})
		}
		all.Wait()
		if n := i.fetches.Load(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}

		// The old key is taken away: what was checked with it is not remembered.
		before := g.Stats().Remembered
		if why := jwtTryToken(t, g, oldToken); why != "" || g.Stats().Remembered != before+1 {
			t.Errorf("another key is there: %q, and the token is forgotten", why)
		}
		i.say(answers(200, published(t, next)))
		time.Sleep(time.Hour)
		if why := jwtTryToken(t, g, oldToken); why != "unknown-key" {
			t.Errorf("a token of a key that is gone: %q", why)
		}
	})
}

// A flood of names that there are not brings a fetch in ten seconds, and costs the flood
// nothing but a refusal.
func TestJWKSFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := minted(t)
		i := &issuer{answer: answers(200, published(t, m))}
		g := jwtGuard(t, withKeys(jwksWith(t, i, nil)))
		good := tokenOf(t, m)
		if why := jwtTryToken(t, g, good); why != "" {
			t.Fatalf("refused for %s", why)
		}
		for n := range 1000 {
			bad := jwtJunk(fmt.Sprintf("flood-%d", n))
			begin := time.Now()
			if why := jwtTryToken(t, g, bad); why != "unknown-key" {
				t.Fatalf("refused for %q", why)
			}
			if d := time.Since(begin); d != 0 {
				t.Fatalf("waited %s", d)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := i.fetches.Load(); n < 10 || n > 11 { // 1000 in 100 s
			t.Errorf("%d fetches", n)
		}
	})
}

// An issuer that hangs: tokens of known keys do not notice, those of unknown ones wait in
// bounded number and time.
func TestJWKSHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := minted(t)
		i := &issuer{answer: answers(200, published(t, m))}
		keys := jwksWith(t, i, nil)
		g := jwtGuard(t, withKeys(keys))
		good := tokenOf(t, m)
		if why := jwtTryToken(t, g, good); why != "" {
			t.Fatalf("refused for %s", why)
		}
		i.say(hangs)
		time.Sleep(time.Minute)
		var waited, refused atomic.Int64
		var all sync.WaitGroup
		for n := range 200 {
			all.Go(func() {
				begin := time.Now()
				_, err := g.Check(t.Context(), jwtJunk(fmt.Sprintf("x%d", n)))
				if e, ok := errors.AsType[*auth.JWTError](err); !ok || e.Reason != auth.JWTUnknownKey {
					t.Error(err)
				}
				switch d := time.Since(begin); {
				case d == 0:
					refused.Add(1)
				case d <= 5*time.Second:
					waited.Add(1)
				default:
					t.Errorf("waited %s", d)
				}
			})
		}
		synctest.Wait()
		begin := time.Now()
		if why := jwtTryToken(t, g, tokenOf(t, m)); why != "" || time.Since(begin) != 0 {
			t.Errorf("a known key's token: %q after %s", why, time.Since(begin))
		}
		all.Wait()
		if waited.Load() != 64 || refused.Load() != 136 {
			t.Errorf("%d waited, %d were refused at once", waited.Load(), refused.Load())
		}
		time.Sleep(5 * time.Hour)
		if why := jwtTryToken(t, g, tokenOf(t, m)); why != "" {
			t.Errorf("stale keys: %q", why)
		}
		if err := keys.Ready(); err == nil || !strings.Contains(err.Error(), "stale") {
			t.Errorf("five hours without an answer: %v", err)
		}
		i.say(answers(200, published(t, m)))
		time.Sleep(2 * time.Minute)
		if err := keys.Ready(); err != nil {
			t.Error(err)
		}
	})
}

// Without any keys calls wait for the first fetch, and then no more; the client is not
// told that its token is bad.
func TestJWKSFirstFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := minted(t)
		i := &issuer{answer: hangs}
		keys := jwksWith(t, i, nil)
		g := jwtGuard(t, withKeys(keys))
		token := tokenOf(t, m)
		for _, want := range []time.Duration{5 * time.Second, 0} {
			begin := time.Now()
			call, ctx := jwtCall(protocols.HTTP, "Authorization: Bearer "+token)
			if why := jwtTry(t, g, call, ctx); why != "keys-unavailable" || time.Since(begin) != want {
				t.Errorf("%q after %s, want %s", why, time.Since(begin), want)
			}
			_, err := g.Admit(ctx, call)
			if r := protocols.RefusalOf(err); r.Reason != protocols.ReasonOverloaded || r.RetryAfter == 0 {
				t.Errorf("refused with %+v", r)
			}
		}
		if err := keys.Ready(); !errors.Is(err, auth.ErrKeysUnavailable) {
			t.Error(err)
		}
		i.say(answers(200, published(t, m)))
		time.Sleep(10 * time.Second)
		if why := jwtTryToken(t, g, token); why != "" {
			t.Errorf("refused for %s", why)
		}
		if err := keys.Ready(); err != nil {
			t.Error(err)
		}
	})
	synctest.Test(t, func(t *testing.T) { // a call that ends does not wait
		g := jwtGuard(t, withKeys(jwksWith(t, &issuer{answer: hangs}, nil)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := g.Check(ctx, tokenOf(t, minted(t))); err == nil || time.Since(begin) != time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}

// An issuer that lies on a real connection: the keys are what they were, and the
// log says so once for each kind.
func TestJWKSLies(t *testing.T) {
	m := minted(t)
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal([]byte(published(t, m)), &set); err != nil {
		t.Fatal(err)
	}
	with := func(name string, v any) string {
		k := map[string]any{}
		maps.Copy(k, set.Keys[0])
		k[name] = v
		return string(jwtJSON(map[string]any{"keys": []any{k}}))
	}
	many := make([]any, 101)
	for n := range many {
		many[n] = set.Keys[0]
	}
	good := published(t, m)
	var body atomic.Value
	body.Store(good)
	var status atomic.Int64
	status.Store(200)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, body.Load().(string))
	}))
	defer srv.Close()
	var out bytes.Buffer
	keys, err := auth.NewJWKS(auth.JWKSOptions{URL: srv.URL + "/keys?secret=x", Log: slog.New(slog.NewTextHandler(&out, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	g := jwtGuard(t, withKeys(keys))
	for _, tc := range []struct {
		name   string
		status int
		body   string
		want   string
	}{
		{"500", 500, good, "the answer is 500"},
		{"503", 503, good, "the answer is 503"},
		{"204", 204, "", "the answer is 204"},
		{"HTML", 200, "<html>", "no JWK set"},
		{"nothing", 200, "", "no JWK set"},
		{"no keys", 200, `{"keys":[]}`, "without keys"},
		{"null", 200, `null`, "without keys"},
		{"too many keys", 200, string(jwtJSON(map[string]any{"keys": many})), "101 keys"},
		{"2 MiB", 200, strings.Replace(good, "{", "{"+strings.Repeat(" ", 2<<20), 1), "longer than 1048576 bytes"},
		{"a secret", 200, `{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`, "not for signatures"},
		{"a key for encryption", 200, with("use", "enc"), "not for signatures"},
		{"a key that signs", 200, with("key_ops", []string{"sign"}), "not for signatures"},
		{"a private key", 200, with("d", "AAAA"), "a private key"},
		{"an unknown curve", 200, with("crv", "Ed448"), "not for signatures"},
		{"a short key", 200, with("x", "AAAA"), "bad size"},
		{"a long name", 200, with("kid", strings.Repeat("k", 300)), "kid of 300 bytes"},
		{"a name that is none", 200, with("kid", 5), "no JWK"},
		{"a weak RSA key", 200, `{"keys":[{"kty":"RSA","e":"AQAB","n":"` + jwtB64(bytes.Repeat([]byte{0xff}, 128)) + `"}]}`, "1024 bits"},
		{"a huge RSA key", 200, `{"keys":[{"kty":"RSA","e":"AQAB","n":"` + jwtB64(bytes.Repeat([]byte{0xff}, 2048)) + `"}]}`, "bad member"},
		{"an RSA key with e = 1", 200, `{"keys":[{"kty":"RSA","e":"AQ","n":"` + jwtB64(bytes.Repeat([]byte{0xff}, 256)) + `"}]}`, "bad exponent"},
		{"a point off the curve", 200, `{"keys":[{"kty":"EC","crv":"P-256","x":"` + jwtB64(make([]byte, 32)) + `","y":"` + jwtB64(make([]byte, 32)) + `"}]}`, "without a key of use"},
		{"a point of another size", 200, `{"keys":[{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}]}`, "bad coordinate"},
	} {
		status.Store(int64(tc.status))
		body.Store(tc.body)
		if err := keys.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if why := jwtTryToken(t, g, tokenOf(t, m)); why != "" {
			t.Errorf("%s: tokens are refused for %s", tc.name, why)
		}
	}
	status.Store(200)
	body.Store(good)
	if err := keys.Fetch(t.Context()); err != nil {
		t.Error(err)
	}
	log := out.String()
	if n := strings.Count(log, "level=WARN"); n != 4 { // status, content, size, content
		t.Errorf("%d warnings:\n%s", n, log)
	}
	if strings.Count(log, "can be fetched again") != 1 || strings.Contains(log, "secret") {
		t.Errorf("the log:\n%s", log)
	}
	// A broken key beside a good one costs the good one nothing.
	body.Store(strings.Replace(good, `"keys": [`, `"keys": [{"kty":"RSA"}, 5, `, 1))
	if err := keys.Fetch(t.Context()); err != nil || keys.Stats().Keys != 1 {
		t.Errorf("%v, %d keys", err, keys.Stats().Keys)
	}
}

// Redirects never leave https.
func TestJWKSRedirects(t *testing.T) {
	m := minted(t)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/keys" {
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, published(t, m))
	}))
	defer plain.Close()
	keys, err := auth.NewJWKS(auth.JWKSOptions{URL: plain.URL + "/loop"})
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "more than 3 redirects") {
		t.Error(err)
	}
}

// Whoever answers by https must be who the URL names.
func TestJWKSCertificate(t *testing.T) {
	m := minted(t)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, published(t, m)) }))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	for client, want := range map[*http.Client]string{nil: "certificate", srv.Client(): ""} {
		keys, err := auth.NewJWKS(auth.JWKSOptions{URL: srv.URL, Client: client})
		if err != nil {
			t.Fatal(err)
		}
		if err := keys.Fetch(t.Context()); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestJWKSOptions(t *testing.T) {
	for url, want := range map[string]string{
		"":                             "needs a URL",
		"/keys":                        "needs a URL",
		"ftp://id.example.com/keys":    "want https",
		"http://id.example.com/keys":   "come by https",
		"https://id.example.com/keys":  "",
		"http://127.0.0.1:9000/keys":   "",
		"http://[::1]/keys":            "",
		"http://localhost:9000/keys":   "",
		"http://localhost.example.com": "come by https",
	} {
		if _, err := auth.NewJWKS(auth.JWKSOptions{URL: url}); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", url, err, want)
		}
	}
	if _, err := auth.NewJWKS(auth.JWKSOptions{URL: "http://id.example.com/keys", Insecure: true}); err != nil {
		t.Error(err)
	}
}

// What a URL's query has may be a secret, and readiness is anybody's to ask for.
func TestJWKSErrorsHaveNoURL(t *testing.T) {
	keys, err := auth.NewJWKS(auth.JWKSOptions{URL: "http://127.0.0.1:1/jwks.json?key=hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Fetch(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Fetch: %v", err)
	}
	if err := keys.Ready(); !errors.Is(err, auth.ErrKeysUnavailable) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Ready: %v", err)
	}
}
