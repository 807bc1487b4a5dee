package auth

import (
	"net/http"
	"strconv"
	"testing"
	"time"
)

// A clock that is set, forward or back, counts for tokens that are remembered too.
func TestJWTClockSteps(t *testing.T) {
	key, err := GenerateKey("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	mint, err := NewMint(key, "")
	if err != nil {
		t.Fatal(err)
	}
	set, err := NewKeySet(mint.Key())
	if err != nil {
		t.Fatal(err)
	}
	g, err := NewJWT(JWTOptions{Issuer: "i", Audience: []string{"a"}, Keys: set})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	token, err := mint.Sign(map[string]any{"iss": "i", "aud": "a", "sub": "s", "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Check(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	for step, want := range map[time.Duration]JWTReason{
		0: 0, -25 * time.Second: 0, -time.Minute: JWTNotYetValid, -24 * 365 * time.Hour: JWTNotYetValid,
		time.Hour: 0, time.Hour + time.Minute: JWTExpired, 10 * 365 * 24 * time.Hour: JWTExpired,
	} {
		if e, why := g.recall(token, now.Add(step)); why != want || (e != nil) != (want == 0) {
			t.Errorf("by %s: %q, want %q", step, why, want)
		}
	}
}

// Keys that are asked for by https come by https.
func TestJWKSStaysSecure(t *testing.T) {
	request := func(url string) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, tc := range []struct {
		from, to string
		ok       bool
	}{
		{"https://a/keys", "https://b/keys", true},
		{"https://a/keys", "http://b/keys", false},
		{"http://127.0.0.1/keys", "https://b/keys", true},
		{"http://127.0.0.1/keys", "http://b/keys", false},
		{"http://127.0.0.1/keys", "http://localhost/keys", true},
	} {
		if err := jwksRedirect(false, request(tc.to), []*http.Request{request(tc.from)}); (err == nil) != tc.ok {
			t.Errorf("%s to %s: %v", tc.from, tc.to, err)
		}
	}
}

// FillRevocations has as many revoked as there may be.
func FillRevocations(s *Sessions, until time.Time) {
	m := make(map[who]revocation)
	for i := range mostRevocations {
		m[who{"a", strconv.Itoa(i)}] = revocation{at: time.Now(), until: until}
	}
	s.revoked.Store(&m)
}
