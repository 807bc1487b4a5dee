package auth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

const (
	jwtIssuer   = "https://id.example.com"
	jwtAudience = "edge"
)

// jwtKeys are private keys that all tests share.
type jwtKeys struct {
	rsa, other *rsa.PrivateKey
	ec         *ecdsa.PrivateKey
	ed         ed25519.PrivateKey
}

var jwtMade = sync.OnceValue(func() (k jwtKeys) {
	var errs [4]error
	k.rsa, errs[0] = rsa.GenerateKey(rand.Reader, 2048)
	k.other, errs[1] = rsa.GenerateKey(rand.Reader, 2048)
	k.ec, errs[2] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, k.ed, errs[3] = ed25519.GenerateKey(rand.Reader)
	for _, err := range errs {
		if err != nil {
			panic(err)
		}
	}
	return k
})

func jwtSet(tb testing.TB) *auth.KeySet {
	tb.Helper()
	k := jwtMade()
	set, err := auth.NewKeySet(
		auth.Key{ID: "rsa", Public: k.rsa.Public()},
		auth.Key{ID: "ec", Public: k.ec.Public()},
		auth.Key{ID: "ed", Public: k.ed.Public()},
		auth.Key{ID: "ps", Algorithm: "PS256", Public: k.rsa.Public()},
	)
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// jwtGuard makes a guard of the test's issuer; change changes its options.
func jwtGuard(tb testing.TB, change func(*auth.JWTOptions)) *auth.JWT {
	tb.Helper()
	opts := auth.JWTOptions{Issuer: jwtIssuer, Audience: []string{jwtAudience, "edge2"}}
	if change != nil {
		change(&opts)
	}
	if opts.Keys == nil {
		opts.Keys = jwtSet(tb)
	}
	g, err := auth.NewJWT(opts)
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

// jwtClaims are good ones, with changes; nil takes a claim out.
func jwtClaims(changes map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"iss": jwtIssuer, "aud": jwtAudience, "sub": "alice",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func jwtB64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwtJSON is v in JSON; strings are taken for JSON that is there already.
func jwtJSON(v any) []byte {
	if s, ok := v.(string); ok {
		return []byte(s)
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// jwtRaw makes a token of any header and body, signed with the RSA key whatever the
// header says.
func jwtRaw(head, body any) string {
	text := jwtB64(jwtJSON(head)) + "." + jwtB64(jwtJSON(body))
	return text + "." + jwtB64(jwtRS256(jwtMade().rsa, text))
}

// jwtJunk is a token that names a key, and costs nothing to make.
func jwtJunk(kid string) string {
	return jwtB64(jwtJSON(map[string]any{"alg": "EdDSA", "kid": kid})) + "." + jwtB64([]byte(`{}`)) + "." + jwtB64(make([]byte, 64))
}

func jwtRS256(key *rsa.PrivateKey, text string) []byte {
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return sig
}

func jwtHS256(secret []byte, text string) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// jwtGood is a good token, with changes.
func jwtGood(changes map[string]any) string {
	return jwtRaw(map[string]any{"alg": "RS256", "typ": "JWT", "kid": "rsa"}, jwtClaims(changes))
}

// jwtAsked is a request's head.
type jwtAsked struct {
	header http.Header
	query  string
}

func (a jwtAsked) Get(name string) string      { return a.header.Get(name) }
func (a jwtAsked) Values(name string) []string { return a.header.Values(name) }
func (a jwtAsked) Query() string               { return a.query }

// jwtCall is a call with header fields, as "Name: value" or "?query".
func jwtCall(p protocols.Protocol, fields ...string) (*protocols.Call, context.Context) {
	call := &protocols.Call{
		Protocol: p, Method: http.MethodGet, Host: "edge.example.com", Path: "/x",
		Conn: protocols.Conn{TLS: &tls.ConnectionState{}}.WithLive(nil, protocols.NewCalls()),
	}
	if p == protocols.GRPC {
		call.Method = http.MethodPost
	}
	ctx := call.Begin(context.Background(), protocols.NewID(1, 2), "")
	a := jwtAsked{header: http.Header{}}
	for _, f := range fields {
		if q, ok := strings.CutPrefix(f, "?"); ok {
			a.query = q
			continue
		}
		name, value, _ := strings.Cut(f, ": ")
		a.header.Add(name, value)
	}
	call.Ask(a)
	return call, ctx
}

// jwtTry admits a call as the port does: from memory, and else with a goroutine of its
// own. It gives the reason that was counted; "" if the call was let in.
func jwtTry(tb testing.TB, g *auth.JWT, call *protocols.Call, ctx context.Context) string {
	tb.Helper()
	before := g.Stats()
	_, err := g.AdmitNow(ctx, call)
	if err == protocols.ErrMustWait { //nolint:errorlint // never wrapped
		if after := g.Stats(); after.Admitted != before.Admitted || !maps.Equal(after.Refused, before.Refused) || call.Identity() != nil {
			tb.Error("AdmitNow has done something, and must wait")
		}
		_, err = g.Admit(ctx, call)
	}
	after := g.Stats()
	var reasons []string
	for name, n := range after.Refused {
		for range n - before.Refused[name] {
			reasons = append(reasons, name)
		}
	}
	let := after.Admitted - before.Admitted
	if let+uint64(len(reasons)) != 1 || (let == 1) != (err == nil) || (let == 1) != (call.Identity() != nil) {
		tb.Fatalf("admitted %d, refused for %v, error %v, identity %v", let, reasons, err, call.Identity())
	}
	if err == nil {
		return ""
	}
	if reasons[0] != "keys-unavailable" && reasons[0] != "scope" {
		if r := protocols.RefusalOf(err); r.Reason != protocols.ReasonUnauthenticated || !strings.HasPrefix(r.Challenge, "Bearer realm=") ||
			strings.Contains(r.Challenge, "invalid_token") != !slices.Contains([]string{"missing"}, reasons[0]) {
			tb.Errorf("refused for %s with %+v", reasons[0], r)
		}
	}
	return reasons[0]
}

// jwtTryToken tries a token in the Authorization field.
func jwtTryToken(tb testing.TB, g *auth.JWT, token string) string {
	tb.Helper()
	call, ctx := jwtCall(protocols.HTTP, "Authorization: Bearer "+token)
	return jwtTry(tb, g, call, ctx)
}
