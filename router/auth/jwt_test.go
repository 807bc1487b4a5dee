package auth_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

// Each algorithm works with its key, and with no other.
func TestJWTAlgorithms(t *testing.T) {
	for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"} {
		key, err := auth.GenerateKey(alg)
		if err != nil {
			t.Fatal(err)
		}
		mint, err := auth.NewMint(key, alg)
		if err != nil {
			t.Fatal(err)
		}
		set, err := auth.NewKeySet(mint.Key())
		if err != nil {
			t.Fatal(err)
		}
		g := jwtGuard(t, func(o *auth.JWTOptions) { o.Keys = set })
		token, err := mint.Sign(jwtClaims(map[string]any{"aud": []string{"x", "edge2"}, "n": 1}))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time from memory
			call, ctx := jwtCall(protocols.HTTP, "Authorization: bearer  "+token)
			if why := jwtTry(t, g, call, ctx); why != "" {
				t.Fatalf("%s: refused for %s", alg, why)
			}
			if id := call.Identity(); id.Subject != "alice" || id.Issuer != jwtIssuer || id.By != "jwt" ||
				id.Expires.Sub(time.Now().Add(time.Hour)).Abs() > 2*time.Second || id.Claims["n"] != 1.0 {
				t.Errorf("%s: identity %+v", alg, id)
			}
		}
		if st := g.Stats(); st.Admitted != 2 || st.Remembered != 1 || st.Cached != 1 {
			t.Errorf("%s: %+v", alg, st)
		}
		only := jwtGuard(t, func(o *auth.JWTOptions) {
			o.Keys, o.Algorithms = set, []string{map[bool]string{true: "ES256", false: "RS256"}[alg == "RS256"]}
		})
		if why := jwtTryToken(t, only, token); why != "algorithm" {
			t.Errorf("%s, which is not allowed: %q", alg, why)
		}
	}
}

// The corpus: what strangers may send. All is refused, each for its reason.
func TestJWTHostileTokens(t *testing.T) {
	k := jwtMade()
	der, err := x509.MarshalPKIXPublicKey(k.rsa.Public())
	if err != nil {
		t.Fatal(err)
	}
	pubPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	head := func(changes map[string]any) map[string]any {
		h := map[string]any{"alg": "RS256", "kid": "rsa"}
		maps.Copy(h, changes)
		return h
	}
	signed := func(h map[string]any, sign func(text string) []byte) string {
		text := jwtB64(jwtJSON(h)) + "." + jwtB64(jwtJSON(jwtClaims(nil)))
		return text + "." + jwtB64(sign(text))
	}
	now := time.Now().Unix()
	good := jwtGood(nil)
	parts := strings.Split(good, ".")
	foreign := jwtB64(jwtRS256(k.other, parts[0]+"."+parts[1]))
	plain := string(jwtJSON(jwtClaims(nil)))
	n := jwtB64(k.other.N.Bytes())
	own := map[string]any{"kty": "RSA", "n": n, "e": "AQAB"}
	byOther := func(text string) []byte { return jwtRS256(k.other, text) }
	corpus := []struct{ name, token, why string }{
		{"alg none", parts0(head(map[string]any{"alg": "none"})) + "." + parts[1] + ".", "algorithm"},
		{"alg None", parts0(head(map[string]any{"alg": "None"})) + "." + parts[1] + ".", "algorithm"},
		{"alg NONE", parts0(head(map[string]any{"alg": "NONE"})) + "." + parts[1] + ".", "algorithm"},
		{"alg nOnE", parts0(head(map[string]any{"alg": "nOnE"})) + "." + parts[1] + "." + parts[2], "algorithm"},
		{"alg none with a blank", jwtRaw(head(map[string]any{"alg": "none "}), jwtClaims(nil)), "algorithm"},
		{"alg empty", jwtRaw(head(map[string]any{"alg": ""}), jwtClaims(nil)), "algorithm"},
		{"alg null", jwtRaw(head(map[string]any{"alg": nil}), jwtClaims(nil)), "algorithm"},
		{"alg a number", jwtRaw(head(map[string]any{"alg": 256}), jwtClaims(nil)), "algorithm"},
		{"alg a list", jwtRaw(head(map[string]any{"alg": []string{"RS256"}}), jwtClaims(nil)), "algorithm"},
		{"alg in lower case", jwtRaw(head(map[string]any{"alg": "rs256"}), jwtClaims(nil)), "algorithm"},
		{"no alg", jwtRaw(`{"kid":"rsa"}`, jwtClaims(nil)), "algorithm"},
		{"ALG instead of alg", jwtRaw(`{"ALG":"RS256","kid":"rsa"}`, jwtClaims(nil)), "algorithm"},
		{"the public key as a secret", signed(head(map[string]any{"alg": "HS256"}), func(s string) []byte { return jwtHS256(pubPEM, s) }), "algorithm"},
		{"the public key's DER as a secret", signed(head(map[string]any{"alg": "HS256"}), func(s string) []byte { return jwtHS256(der, s) }), "algorithm"},
		{"an empty secret", signed(head(map[string]any{"alg": "HS256"}), func(s string) []byte { return jwtHS256(nil, s) }), "algorithm"},
		{"ES256 with an RSA key's name", signed(head(map[string]any{"alg": "ES256"}), func(string) []byte { return make([]byte, 64) }), "algorithm"},
		{"RS256 with an EC key's name", jwtRaw(head(map[string]any{"kid": "ec"}), jwtClaims(nil)), "algorithm"},
		{"RS256 with a key for PS256", jwtRaw(head(map[string]any{"kid": "ps"}), jwtClaims(nil)), "algorithm"},
		{"ES384 with a P-256 key", signed(head(map[string]any{"alg": "ES384", "kid": "ec"}), func(string) []byte { return make([]byte, 96) }), "algorithm"},
		{"ES256 with r = s = 0", signed(head(map[string]any{"alg": "ES256", "kid": "ec"}), func(string) []byte { return make([]byte, 64) }), "signature"},
		{"ES256 with r = s = the order", signed(head(map[string]any{"alg": "ES256", "kid": "ec"}), func(string) []byte {
			b := elliptic.P256().Params().N.Bytes()
			return append(b, b...)
		}), "signature"},
		{"ES256 in ASN.1", signed(head(map[string]any{"alg": "ES256", "kid": "ec"}), func(s string) []byte {
			sum := sha256.Sum256([]byte(s))
			sig, _ := ecdsa.SignASN1(rand.Reader, k.ec, sum[:])
			return sig
		}), "signature"},
		{"EdDSA with a signature of zeros", signed(head(map[string]any{"alg": "EdDSA", "kid": "ed"}), func(string) []byte { return make([]byte, 64) }), "signature"},
		{"EdDSA with S plus the order", signed(head(map[string]any{"alg": "EdDSA", "kid": "ed"}), func(s string) []byte { return malleate(ed25519.Sign(k.ed, []byte(s))) }), "signature"},
		{"PS256 signed by RS256", jwtRaw(head(map[string]any{"alg": "PS256"}), jwtClaims(nil)), "signature"},
		{"RS512 signed by RS256", jwtRaw(head(map[string]any{"alg": "RS512"}), jwtClaims(nil)), "signature"},
		{"another key's signature", parts[0] + "." + parts[1] + "." + foreign, "signature"},
		{"another token's signature", parts[0] + "." + parts[1] + "." + strings.Split(jwtGood(map[string]any{"sub": "bob"}), ".")[2], "signature"},
		{"no signature", parts[0] + "." + parts[1] + ".", "signature"},
		{"half a signature", good[:len(good)-86], "signature"},
		{"the body of another", parts[0] + "." + jwtB64(jwtJSON(jwtClaims(map[string]any{"sub": "admin"}))) + "." + parts[2], "signature"},
		{"an unknown kid", jwtRaw(head(map[string]any{"kid": "unknown"}), jwtClaims(nil)), "unknown-key"},
		{"a kid that is a path", jwtRaw(head(map[string]any{"kid": "../../dev/null"}), jwtClaims(nil)), "unknown-key"},
		{"a kid that is SQL", jwtRaw(head(map[string]any{"kid": "' UNION SELECT 'x"}), jwtClaims(nil)), "unknown-key"},
		{"a kid that is a number", jwtRaw(head(map[string]any{"kid": 1}), jwtClaims(nil)), "malformed"},
		{"a long kid", jwtRaw(head(map[string]any{"kid": strings.Repeat("k", 257)}), jwtClaims(nil)), "malformed"},
		{"its own jwk", signed(head(map[string]any{"jwk": own}), byOther), "signature"},
		{"its own jwk, with a new name", signed(head(map[string]any{"jwk": own, "kid": "mine"}), byOther), "unknown-key"},
		{"its own jku", signed(head(map[string]any{"jku": "https://evil.example.com/jwks.json"}), byOther), "signature"},
		{"its own x5u", signed(head(map[string]any{"x5u": "https://evil.example.com/x.pem"}), byOther), "signature"},
		{"its own x5c", signed(head(map[string]any{"x5c": []string{base64.StdEncoding.EncodeToString(der)}}), byOther), "signature"},
		{"crit", jwtRaw(head(map[string]any{"crit": []string{"exp"}}), jwtClaims(nil)), "critical"},
		{"crit of nothing", jwtRaw(head(map[string]any{"crit": []string{}}), jwtClaims(nil)), "critical"},
		{"b64", jwtRaw(head(map[string]any{"b64": false, "crit": []string{"b64"}}), jwtClaims(nil)), "critical"},
		{"b64 alone", jwtRaw(head(map[string]any{"b64": false}), jwtClaims(nil)), "critical"},
		{"a token for logging out", jwtRaw(head(map[string]any{"typ": "logout+jwt"}), jwtClaims(nil)), "type"},
		{"a proof of possession", jwtRaw(head(map[string]any{"typ": "dpop+jwt"}), jwtClaims(nil)), "type"},
		{"typ a list", jwtRaw(head(map[string]any{"typ": []string{"JWT"}}), jwtClaims(nil)), "type"},
		{"a JWE's header", jwtRaw(head(map[string]any{"enc": "A256GCM"}), jwtClaims(nil)), "malformed"},
		{"a JWE", good + ".x.y", "malformed"},
		{"two parts", parts[0] + "." + parts[1], "malformed"},
		{"one part", parts[0], "malformed"},
		{"dots", "..", "malformed"},
		{"many dots", strings.Repeat(".", 16<<10), "malformed"},
		{"swapped parts", parts[1] + "." + parts[0] + "." + parts[2], "algorithm"},
		{"padding", parts[0] + "=." + parts[1] + "." + parts[2], "malformed"},
		{"standard base64", strings.Replace(good, ".", "+/.", 1), "malformed"},
		{"bits behind the signature", loose(good), "malformed"},
		{"a blank in it", parts[0] + ". " + parts[1] + "." + parts[2], "malformed"},
		{"a tab in it", parts[0] + ".\t" + parts[1] + "." + parts[2], "malformed"},
		{"a line end in it", parts[0] + ".\n" + parts[1] + "." + parts[2], "malformed"},
		{"NUL in it", parts[0] + ".\x00" + parts[1] + "." + parts[2], "malformed"},
		{"a second token", good + ", Bearer " + good, "malformed"},
		{"1 MiB", good + strings.Repeat("A", 1<<20), "too-long"},
		{"a header that is no JSON", jwtRaw(`{"alg":"RS256"`, jwtClaims(nil)), "malformed"},
		{"a header with something behind it", jwtRaw(`{"alg":"RS256","kid":"rsa"}{}`, jwtClaims(nil)), "malformed"},
		{"a header null", jwtRaw(`null`, jwtClaims(nil)), "malformed"},
		{"a header with alg twice", jwtRaw(`{"alg":"none","alg":"RS256","kid":"rsa"}`, jwtClaims(nil)), "malformed"},
		{"a header with alg twice, escaped", jwtRaw(`{"alg":"none","\u0061lg":"RS256","kid":"rsa"}`, jwtClaims(nil)), "malformed"},
		{"a header that is not UTF-8", jwtRaw("{\"alg\":\"RS256\",\"kid\":\"rsa\",\"x\":\"\xff\"}", jwtClaims(nil)), "malformed"},
		{"claims twice", jwtRaw(head(nil), `{"sub":"admin",`+plain[1:]), "malformed"},
		{"claims twice, deeper", jwtRaw(head(nil), `{"roles":{"a":1,"a":2},`+plain[1:]), "malformed"},
		{"claims that are deep", jwtRaw(head(nil), `{"x":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)+`,`+plain[1:]), "malformed"},
		{"claims that are a list", jwtRaw(head(nil), `[`+plain+`]`), "malformed"},
		{"claims that are a string", jwtRaw(head(nil), `"x"`), "malformed"},
		{"claims null", jwtRaw(head(nil), `null`), "malformed"},
		{"claims with something behind them", jwtRaw(head(nil), plain+`x`), "malformed"},
		{"a token in the token", jwtRaw(head(map[string]any{"cty": "JWT"}), good), "malformed"},
		{"expired", jwtGood(map[string]any{"exp": now - 31}), "expired"},
		{"exp 0", jwtGood(map[string]any{"exp": 0}), "expired"},
		{"exp negative", jwtGood(map[string]any{"exp": -1}), "expired"},
		{"exp a past fraction", jwtGood(map[string]any{"exp": float64(now) - 31.5}), "expired"},
		{"exp a string", jwtGood(map[string]any{"exp": fmt.Sprint(now + 3600)}), "malformed"},
		{"exp huge", jwtRaw(head(nil), strings.Replace(plain, `"exp":`, `"exp":1e30,"old":`, 1)), "malformed"},
		{"exp beyond numbers", jwtRaw(head(nil), strings.Replace(plain, `"exp":`, `"exp":1e999,"old":`, 1)), "malformed"},
		{"exp in milliseconds", jwtGood(map[string]any{"exp": now * 1000}), "malformed"},
		{"exp a list", jwtGood(map[string]any{"exp": []int64{now + 3600}}), "malformed"},
		{"exp true", jwtGood(map[string]any{"exp": true}), "malformed"},
		{"exp null", jwtRaw(head(nil), strings.Replace(plain, `"exp":`, `"exp":null,"old":`, 1)), "malformed"},
		{"no exp", jwtGood(map[string]any{"exp": nil}), "no-expiry"},
		{"EXP instead of exp", jwtRaw(head(nil), strings.Replace(plain, `"exp"`, `"EXP"`, 1)), "no-expiry"},
		{"nbf in the future", jwtGood(map[string]any{"nbf": now + 60}), "not-yet-valid"},
		{"nbf a string", jwtGood(map[string]any{"nbf": "0"}), "malformed"},
		{"iat in the future", jwtGood(map[string]any{"iat": now + 60}), "not-yet-valid"},
		{"another issuer", jwtGood(map[string]any{"iss": "https://evil.example.com"}), "issuer"},
		{"an issuer that begins like ours", jwtGood(map[string]any{"iss": jwtIssuer + "/"}), "issuer"},
		{"a list of issuers", jwtGood(map[string]any{"iss": []string{jwtIssuer}}), "issuer"},
		{"no issuer", jwtGood(map[string]any{"iss": nil}), "issuer"},
		{"another audience", jwtGood(map[string]any{"aud": "other"}), "audience"},
		{"an audience that begins like ours", jwtGood(map[string]any{"aud": "edge3"}), "audience"},
		{"audiences in one string", jwtGood(map[string]any{"aud": "edge edge2"}), "audience"},
		{"no audience", jwtGood(map[string]any{"aud": nil}), "audience"},
		{"an empty list of audiences", jwtGood(map[string]any{"aud": []string{}}), "audience"},
		{"an audience that is an object", jwtGood(map[string]any{"aud": map[string]any{"edge": 1}}), "audience"},
		{"audiences of several types", jwtGood(map[string]any{"aud": []any{"edge", 1}}), "audience"},
		{"no subject", jwtGood(map[string]any{"sub": nil}), "claims"},
		{"a subject that is a number", jwtGood(map[string]any{"sub": 1}), "claims"},
		{"a subject that would end a field", jwtGood(map[string]any{"sub": "a\r\nX-Admin: 1"}), "claims"},
		{"a subject that trims to another", jwtGood(map[string]any{"sub": " admin"}), "claims"},
		{"a long subject", jwtGood(map[string]any{"sub": strings.Repeat("a", 1025)}), "claims"},
	}
	g := jwtGuard(t, nil)
	for _, tc := range corpus {
		if why := jwtTryToken(t, g, tc.token); why != tc.why {
			t.Errorf("%s: refused for %q, want %q", tc.name, why, tc.why)
		}
	}
	if st := g.Stats(); st.Cached != 0 || st.Admitted != 0 {
		t.Errorf("%d remembered, %d admitted", st.Cached, st.Admitted)
	}
	if len(corpus) < 40 {
		t.Errorf("%d tokens", len(corpus))
	}
	if why := jwtTryToken(t, g, good); why != "" {
		t.Errorf("the good one is refused for %s", why)
	}
}

// parts0 is a token's first part.
func parts0(head map[string]any) string { return jwtB64(jwtJSON(head)) }

// loose sets a bit behind the end of the signature, which lax decoders overlook.
func loose(token string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(digits, token[len(token)-1])
	return token[:len(token)-1] + string(digits[last|1])
}

// malleate adds the group's order to S of an Ed25519 signature (RFC 8032, 5.1.7).
func malleate(sig []byte) []byte {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := make([]byte, 32)
	for i := range s {
		s[i] = sig[63-i]
	}
	new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(s)
	for i := range s {
		sig[32+i] = s[31-i]
	}
	return sig
}

// What is good although it looks odd.
func TestJWTGoodTokens(t *testing.T) {
	now := time.Now().Unix()
	g := jwtGuard(t, func(o *auth.JWTOptions) { o.Scopes, o.Require = []string{"read", "write"}, []string{"tenant"} })
	with := func(changes map[string]any) string {
		c := map[string]any{"scope": "write admin read", "tenant": "t1"}
		maps.Copy(c, changes)
		return jwtGood(c)
	}
	for name, tc := range map[string]struct{ token, why string }{
		"as it should be":        {with(nil), ""},
		"exp within the leeway":  {with(map[string]any{"exp": now - 20}), ""},
		"nbf within the leeway":  {with(map[string]any{"nbf": now + 20}), ""},
		"iat within the leeway":  {with(map[string]any{"iat": now + 20}), ""},
		"exp with a fraction":    {with(map[string]any{"exp": float64(now) + 60.5}), ""},
		"no iat":                 {with(map[string]any{"iat": nil}), ""},
		"scp":                    {with(map[string]any{"scope": nil, "scp": []string{"read", "write"}}), ""},
		"no kid":                 {jwtRaw(`{"alg":"RS256","typ":"at+jwt"}`, jwtClaims(map[string]any{"scope": "read write", "tenant": 1})), ""},
		"without a scope":        {with(map[string]any{"scope": "read writer"}), "scope"},
		"without scopes":         {with(map[string]any{"scope": nil}), "scope"},
		"without a needed claim": {with(map[string]any{"tenant": nil}), "claims"},
	} {
		if why := jwtTryToken(t, g, tc.token); why != tc.why {
			t.Errorf("%s: %q, want %q", name, why, tc.why)
		}
	}
}

// A token that names no key is tried with a few, and not with a hundred.
func TestJWTBoundsTries(t *testing.T) {
	set := func(n int) *auth.KeySet {
		keys := []auth.Key{{ID: "rsa", Public: jwtMade().rsa.Public()}}
		for i := range n - 1 {
			keys = append(keys, auth.Key{ID: fmt.Sprint(i), Public: jwtMade().other.Public()})
		}
		s, err := auth.NewKeySet(keys...)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	token := jwtRaw(`{"alg":"RS256"}`, jwtClaims(nil))
	for n, want := range map[int]string{4: "", 5: "unknown-key"} {
		if why := jwtTryToken(t, jwtGuard(t, func(o *auth.JWTOptions) { o.Keys = set(n) }), token); why != want {
			t.Errorf("%d keys: %q, want %q", n, why, want)
		}
	}
}

func TestJWTOptions(t *testing.T) {
	secret, err := auth.NewSecret(bytes.Repeat([]byte("s"), 32))
	if err != nil {
		t.Fatal(err)
	}
	base := auth.JWTOptions{Issuer: jwtIssuer, Audience: []string{"edge"}, Keys: jwtSet(t)}
	for name, tc := range map[string]struct {
		change func(*auth.JWTOptions)
		want   string
	}{
		"no issuer":              {func(o *auth.JWTOptions) { o.Issuer = "" }, "needs an issuer"},
		"no audience":            {func(o *auth.JWTOptions) { o.Audience = nil }, "needs an issuer, an audience"},
		"an empty audience":      {func(o *auth.JWTOptions) { o.Audience = []string{""} }, "an audience"},
		"no keys":                {func(o *auth.JWTOptions) { o.Keys = nil }, "and keys"},
		"none":                   {func(o *auth.JWTOptions) { o.Algorithms = []string{"none"} }, `algorithm "none": want some of RS256`},
		"HS256 with a set":       {func(o *auth.JWTOptions) { o.Algorithms = []string{"RS256", "HS256"} }, "goes with a secret alone"},
		"RS256 with a secret":    {func(o *auth.JWTOptions) { o.Keys, o.Algorithms = secret, []string{"RS256"} }, "want some of HS256"},
		"HS512 with a short one": {func(o *auth.JWTOptions) { o.Keys, o.Algorithms = secret, []string{"HS512"} }, "at least 64 bytes"},
	} {
		o := base
		tc.change(&o)
		if _, err := auth.NewJWT(o); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if _, err := auth.NewSecret(make([]byte, 31)); err == nil {
		t.Error("a secret of 31 bytes is taken")
	}
}

// A secret makes and checks tokens by HMAC, and by nothing else.
func TestJWTSecret(t *testing.T) {
	raw := bytes.Repeat([]byte("k"), 32)
	secret, err := auth.NewSecret(raw)
	if err != nil {
		t.Fatal(err)
	}
	g := jwtGuard(t, func(o *auth.JWTOptions) { o.Keys = secret })
	text := jwtB64([]byte(`{"alg":"HS256"}`)) + "." + jwtB64(jwtJSON(jwtClaims(nil)))
	if why := jwtTryToken(t, g, text+"."+jwtB64(jwtHS256(raw, text))); why != "" {
		t.Errorf("refused for %s", why)
	}
	if why := jwtTryToken(t, g, text+"."+jwtB64(jwtHS256(raw[1:], text))); why != "signature" {
		t.Errorf("another secret: %q", why)
	}
	if why := jwtTryToken(t, g, jwtGood(nil)); why != "algorithm" {
		t.Errorf("RS256: %q", why)
	}
}

func TestKeysFromPEM(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip("this Go makes no weak keys: ", err)
	}
	block := func(kind string, b []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	public := func(pub crypto.PublicKey) string {
		b, err := x509.MarshalPKIXPublicKey(pub)
		return block("PUBLIC KEY", b, err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(jwtMade().ed)
	p224, err224 := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err224 != nil {
		t.Fatal(err224)
	}
	for name, tc := range map[string]struct {
		pem  string
		keys int
		want string
	}{
		"three":         {public(jwtMade().rsa.Public()) + "text\n" + public(jwtMade().ec.Public()) + public(jwtMade().ed.Public()), 3, ""},
		"PKCS 1":        {block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&jwtMade().rsa.PublicKey), nil), 1, ""},
		"a private key": {block("PRIVATE KEY", private, err), 0, "needs no private key"},
		"a weak key":    {public(weak.Public()), 0, "1024 bits"},
		"a small curve": {public(p224.Public()), 0, "P-224"},
		"garbage":       {block("PUBLIC KEY", []byte("x"), nil), 0, "PUBLIC KEY: "},
		"nothing":       {"x", 0, "no public key"},
	} {
		set, err := auth.KeysFromPEM([]byte(tc.pem))
		if tc.want != "" {
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: %v, want %q", name, err, tc.want)
			}
		} else if err != nil || len(set.Keys()) != tc.keys {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Remembered tokens end when they end.
func TestJWTCacheExpires(t *testing.T) {
	jwtMade()
	synctest.Test(t, func(t *testing.T) {
		g := jwtGuard(t, nil)
		token := jwtGood(map[string]any{"exp": time.Now().Add(time.Minute).Unix(), "nbf": time.Now().Unix()})
		begin := time.Now()
		for _, tc := range []struct {
			at   time.Duration
			want string
		}{{0, ""}, {time.Second, ""}, {time.Minute + 29*time.Second, ""}, {time.Minute + 30*time.Second, "expired"}, {time.Hour, "expired"}} {
			time.Sleep(time.Until(begin.Add(tc.at)))
			if why := jwtTryToken(t, g, token); why != tc.want {
				t.Errorf("after %s: %q, want %q", tc.at, why, tc.want)
			}
		}
		if n := g.Stats().Remembered; n != 2 {
			t.Errorf("remembered %d times, want 2", n)
		}
	})
}

// More tokens than there is room for do not take more room.
func TestJWTCacheIsBounded(t *testing.T) {
	mint, err := auth.NewMint(jwtMade().ed, "")
	if err != nil {
		t.Fatal(err)
	}
	set, err := auth.NewKeySet(mint.Key())
	if err != nil {
		t.Fatal(err)
	}
	g := jwtGuard(t, func(o *auth.JWTOptions) { o.Cache, o.Keys = 20, set })
	for i := range 200 {
		changes := map[string]any{"sub": fmt.Sprint(i)}
		if i%10 == 0 {
			changes["pad"] = strings.Repeat("x", 10_000)
		}
		token, err := mint.Sign(jwtClaims(changes))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if why := jwtTryToken(t, g, token); why != "" {
				t.Fatalf("refused for %s", why)
			}
		}
		if n := g.Stats().Cached; n < 1 || n > 20 {
			t.Fatalf("%d tokens remembered", n)
		}
	}
	if n := g.Stats().Remembered; n != 200 {
		t.Errorf("%d of 200 tokens were remembered", n)
	}
}

// The log has the reason, and never the token.
func TestJWTLog(t *testing.T) {
	var out bytes.Buffer
	g := jwtGuard(t, func(o *auth.JWTOptions) {
		o.Log = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	token := jwtGood(map[string]any{"aud": "x"})
	jwtTryToken(t, g, token)
	if s := out.String(); !strings.Contains(s, "reason=audience") || strings.Contains(s, token[:20]) || strings.Contains(s, token[len(token)-20:]) {
		t.Errorf("the log says %s", s)
	}
	_, err := g.Check(t.Context(), token)
	if err == nil || err.Error() != "token refused: audience" {
		t.Errorf("Check: %v", err)
	}
}

// docs/jwt.md explains every reason for which a token may be refused.
func TestJWTReasonsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/jwt.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, why := range auth.JWTReasons() {
		if !strings.Contains(string(b), "`"+why.String()+"`") {
			t.Errorf("docs/jwt.md does not explain `%s`", why)
		}
	}
}
