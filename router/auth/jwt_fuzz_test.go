package auth_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

// Whatever a stranger sends: it is let in or refused, counted once, and let in only with
// a token that was made for it.
func FuzzJWTAdmit(f *testing.F) {
	good := jwtGood(map[string]any{"exp": time.Now().Add(100 * time.Hour).Unix()})
	f.Add(uint8(0), "Bearer "+good, "", "", "", "")
	f.Add(uint8(1), "Bearer "+good, "Bearer x", "", "", "")
	f.Add(uint8(2), "Basic x", "", "a=b; session="+good, "v1, bearer, "+good, "a=b&token="+good)
	f.Add(uint8(2), "", "", `session="x"`, "bearer, bearer", "token=%zz&%74oken=")
	f.Add(uint8(0), "Bearer "+jwtB64([]byte(`{"alg":"none"}`))+"."+jwtB64([]byte(`{}`))+".", "", "", "", "")
	for _, head := range []string{`{"alg":"ES256","kid":"ec"}`, `{"alg":"RS256","alg":"none"}`, `{"alg":"EdDSA","crit":[]}`, `[[`} {
		f.Add(uint8(0), "Bearer "+jwtB64([]byte(head))+"."+strings.Split(good, ".")[1]+"."+jwtB64(make([]byte, 64)), "", "", "", "")
	}
	g := jwtGuard(f, func(o *auth.JWTOptions) {
		o.From = []auth.Source{auth.SourceHeader(), auth.SourceCookie("session"), auth.SourceSubprotocol(), auth.SourceQuery("token")}
	})
	f.Fuzz(func(t *testing.T, protocol uint8, authorization, second, cookie, subprotocol, query string) {
		fields := []string{"Origin: https://edge.example.com", "?" + query}
		for name, v := range map[string]string{"Authorization: ": authorization, "authorization: ": second, "Cookie: ": cookie, "Sec-WebSocket-Protocol: ": subprotocol} {
			if v != "" {
				fields = append(fields, name+v)
			}
		}
		call, ctx := jwtCall(protocols.Protocol(protocol%3), fields...)
		why := jwtTry(t, g, call, ctx)
		plain, _ := url.PathUnescape(query)
		if why == "" && !strings.Contains(authorization+second+cookie+subprotocol+query+plain, good[strings.LastIndexByte(good, '.')+1:]) &&
			!strings.Contains(query, "%") {
			t.Error("let in without the token")
		}
		call.Finish(protocols.Result{})
	})
}

// Whatever an issuer answers: keys of use, or an error.
func FuzzKeysFromJWKS(f *testing.F) {
	f.Add([]byte(published(f, minted(f))))
	f.Add([]byte(`{"keys":[{"kty":"RSA","e":"AQAB","n":"AQAB"},{"kty":"EC","crv":"P-256","x":"","y":""},{"kty":"oct"},null,1]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		set, err := auth.KeysFromJWKS(b)
		if err != nil {
			return
		}
		if n := len(set.Keys()); n < 1 || n > 100 {
			t.Errorf("%d keys", n)
		}
		for _, k := range set.Keys() {
			if k.Public == nil {
				t.Errorf("key %q has nothing to check with", k.ID)
			}
		}
	})
}
