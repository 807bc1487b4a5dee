package auth

import (
	"net/http"
	"testing"
)

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
