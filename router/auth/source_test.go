package auth_test

import (
	"context"
	"strings"
	"testing"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

// The matrix of sources by protocol: each legal cell works, each other is refused.
func TestSourceMatrix(t *testing.T) {
	token := jwtGood(nil)
	const same = "Origin: https://edge.example.com"
	sources := []struct {
		source  string
		fields  []string
		allowed map[protocols.Protocol]bool
	}{
		{"header", []string{"Authorization: Bearer " + token}, map[protocols.Protocol]bool{protocols.HTTP: true, protocols.GRPC: true, protocols.WebSocket: true}},
		{"cookie:session", []string{"Cookie: a=b; session=" + token, same}, map[protocols.Protocol]bool{protocols.HTTP: true, protocols.WebSocket: true}},
		{"subprotocol", []string{"Sec-WebSocket-Protocol: bearer, " + token}, map[protocols.Protocol]bool{protocols.WebSocket: true}},
		{"query:token", []string{"?a=b&token=" + token}, map[protocols.Protocol]bool{protocols.WebSocket: true}},
	}
	for _, configured := range sources {
		src, err := auth.ParseSource(configured.source)
		if err != nil {
			t.Fatal(err)
		}
		if src.String() != configured.source {
			t.Errorf("%q reads back as %q", configured.source, src)
		}
		g := jwtGuard(t, func(o *auth.JWTOptions) { o.From = []auth.Source{src} })
		for _, p := range []protocols.Protocol{protocols.HTTP, protocols.GRPC, protocols.WebSocket} {
			if got := src.Allowed(p); got != configured.allowed[p] {
				t.Errorf("%s allowed for %s: %t", src, p, got)
			}
			for _, sent := range sources {
				call, ctx := jwtCall(p, sent.fields...)
				want := "missing"
				if sent.source == configured.source && configured.allowed[p] {
					want = ""
				}
				if why := jwtTry(t, g, call, ctx); why != want {
					t.Errorf("%s: token in %s, looked for in %s: %q, want %q", p, sent.source, src, why, want)
				}
			}
		}
	}
}

// Which requests may bring a cookie.
func TestSourceCookieOrigin(t *testing.T) {
	g := jwtGuard(t, func(o *auth.JWTOptions) { o.From = []auth.Source{auth.SourceCookie("session")} })
	const stream, here, site = "Accept: text/event-stream", "Origin: https://edge.example.com", "Sec-Fetch-Site: "
	ws, http1 := protocols.WebSocket, protocols.HTTP
	for _, tc := range []struct {
		protocol protocols.Protocol
		method   string
		fields   string // "|" between them
		want     bool
	}{
		{http1, "GET", "", true},
		{http1, "HEAD", "Origin: https://evil.example.com", true},
		{http1, "POST", "", false},
		{http1, "POST", here, true},
		{http1, "POST", "Origin: https://EDGE.example.com:443", true},
		{http1, "POST", "Origin: https://edge.example.com:8443", false},
		{http1, "POST", "Origin: http://edge.example.com", false},
		{http1, "POST", "Origin: https://edge.example.com.evil.example", false},
		{http1, "POST", "Origin: https://evil.example.com", false},
		{http1, "POST", "Origin: null", false},
		{http1, "POST", "Origin: ", false},
		{http1, "POST", here + "|" + here, false},
		{http1, "POST", site + "same-origin", true},
		{http1, "POST", site + "none", true},
		{http1, "POST", site + "same-site", false},
		{http1, "POST", site + "cross-site", false},
		{http1, "POST", here + "|" + site + "cross-site", false},
		{http1, "POST", site + "same-origin|" + site + "same-origin", false},
		{http1, "DELETE", "", false},
		{http1, "PROPFIND", "", false},
		{http1, "get", "", false},
		{http1, "GET", stream, false},
		{http1, "GET", "Accept: */*, TEXT/Event-Stream", false},
		{http1, "GET", stream + "|" + site + "same-origin", true},
		{http1, "GET", stream + "|" + here, true},
		{http1, "GET", stream + "|" + site + "cross-site", false},
		{ws, "GET", "", false},
		{ws, "GET", here, true},
		{ws, "GET", "Origin: https://evil.example.com", false},
		{ws, "GET", site + "same-origin", true},
		{ws, "GET", here + "|" + site + "same-site", false},
	} {
		fields := []string{"Cookie: session=" + jwtGood(nil)}
		for f := range strings.SplitSeq(tc.fields, "|") {
			if f != "" {
				fields = append(fields, f)
			}
		}
		call, ctx := jwtCall(tc.protocol, fields...)
		call.Method = tc.method
		want := "cross-origin"
		if tc.want {
			want = ""
		}
		if why := jwtTry(t, g, call, ctx); why != want {
			t.Errorf("%s %s with %q: %q, want %q", tc.protocol, tc.method, tc.fields, why, want)
		}
	}
	// Where a load balancer may have ended TLS, either scheme is the client's.
	for origin, want := range map[string]string{"http://edge.example.com": "", "https://edge.example.com": "", "http://edge.example.com:80": "", "ftp://edge.example.com": "cross-origin"} {
		call, ctx := jwtCall(ws, "Cookie: session="+jwtGood(nil), "Origin: "+origin)
		call.Conn = &protocols.Conn{}
		if why := jwtTry(t, g, call, ctx); why != want {
			t.Errorf("plaintext, from %s: %q, want %q", origin, why, want)
		}
	}
}

// Which credential counts, and what is none.
func TestSourceReading(t *testing.T) {
	token, expired := jwtGood(nil), jwtGood(map[string]any{"exp": 1})
	all := []auth.Source{auth.SourceHeader(), auth.SourceCookie("session"), auth.SourceSubprotocol(), auth.SourceQuery("token")}
	const same = "Origin: https://edge.example.com"
	for name, tc := range map[string]struct {
		fields []string
		want   string
	}{
		"nothing":                          {nil, "missing"},
		"another scheme":                   {[]string{"Authorization: Basic YTpi"}, "missing"},
		"another scheme, then a cookie":    {[]string{"Authorization: Basic YTpi", "Cookie: session=" + token, same}, ""},
		"a scheme that begins like ours":   {[]string{"Authorization: Bearerish " + token}, "missing"},
		"an empty field":                   {[]string{"Authorization: "}, "missing"},
		"a scheme alone":                   {[]string{"Authorization: Bearer"}, "malformed"},
		"a scheme and blanks":              {[]string{"Authorization: Bearer   "}, "malformed"},
		"an API key":                       {[]string{"Authorization: Bearer sk_123"}, "malformed"},
		"two fields":                       {[]string{"Authorization: Bearer " + token, "Authorization: Bearer " + token}, "duplicate"},
		"two fields of which one is empty": {[]string{"Authorization: ", "Authorization: Bearer " + token}, "duplicate"},
		"two schemes":                      {[]string{"Authorization: Basic YTpi", "Authorization: Bearer " + token}, "duplicate"},
		"a bad one before a good one":      {[]string{"Authorization: Bearer " + expired, "Cookie: session=" + token, same}, "expired"},
		"a good one before a bad one":      {[]string{"Authorization: Bearer " + token, "?token=" + expired}, ""},
		"a foreign page's cookie":          {[]string{"Cookie: session=" + token}, "cross-origin"},
		"a foreign page's own token":       {[]string{"Cookie: session=" + token, "Origin: https://evil.example", "Sec-WebSocket-Protocol: bearer, " + token}, ""},
		"a quoted cookie":                  {[]string{`Cookie: session="` + token + `"`, same}, ""},
		"cookies in two fields":            {[]string{"Cookie: a=b", "Cookie: session=" + token, same}, ""},
		"a cookie twice":                   {[]string{"Cookie: session=" + token + "; session=" + token, same}, ""},
		"two cookies of one name":          {[]string{"Cookie: session=" + token + "; session=" + expired, same}, "duplicate"},
		"a cookie in another case":         {[]string{"Cookie: Session=" + token, same}, "missing"},
		"a cookie that was taken back":     {[]string{"Cookie: session=", same}, "missing"},
		"a cookie that begins like ours":   {[]string{"Cookie: session2=" + token, same}, "missing"},
		"subprotocols in two fields":       {[]string{"Sec-WebSocket-Protocol: v1, bearer", "Sec-WebSocket-Protocol: " + token}, ""},
		"bearer alone":                     {[]string{"Sec-WebSocket-Protocol: v1, bearer"}, "malformed"},
		"bearer twice":                     {[]string{"Sec-WebSocket-Protocol: bearer, " + token + ", bearer, " + token}, "duplicate"},
		"other subprotocols":               {[]string{"Sec-WebSocket-Protocol: v1, v2"}, "missing"},
		"a parameter twice":                {[]string{"?token=" + token + "&token=" + token}, "duplicate"},
		"a parameter twice, escaped":       {[]string{"?token=" + token + "&%74oken=" + token}, "duplicate"},
		"a parameter, escaped":             {[]string{"?%74oken=" + strings.ReplaceAll(token, ".", "%2E")}, ""},
		"an empty parameter":               {[]string{"?token="}, "malformed"},
		"a broken parameter":               {[]string{"?token=%zz"}, "malformed"},
		"a broken other parameter":         {[]string{"?%zz=1&token=" + token}, ""},
		"a long parameter":                 {[]string{"?token=" + strings.Repeat("a", 1<<20)}, "too-long"},
		"a long cookie":                    {[]string{"Cookie: session=" + strings.Repeat("a", 16<<10+1), same}, "too-long"},
	} {
		g := jwtGuard(t, func(o *auth.JWTOptions) { o.From = all })
		call, ctx := jwtCall(protocols.WebSocket, tc.fields...)
		if why := jwtTry(t, g, call, ctx); why != tc.want {
			t.Errorf("%s: %q, want %q", name, why, tc.want)
		}
	}
}

// No server elsewhere sees a token in a URL or a list of subprotocols, not even one that
// did not count.
func TestSourceIsHidden(t *testing.T) {
	token := jwtGood(nil)
	g := jwtGuard(t, func(o *auth.JWTOptions) {
		o.From = []auth.Source{auth.SourceHeader(), auth.SourceSubprotocol(), auth.SourceQuery("token")}
	})
	for name, tc := range map[string]struct {
		fields    []string
		protocols string // "-" if nothing is handed on
	}{
		"a pair alone":        {[]string{"Sec-WebSocket-Protocol: bearer, " + token}, ""},
		"a pair among others": {[]string{"Sec-WebSocket-Protocol: v2, bearer, " + token + ", v1"}, "v2, v1"},
		"another one, broken": {[]string{"Authorization: Bearer " + token, "Sec-WebSocket-Protocol: v1, bearer", "?token=" + token + "&token="}, ""},
		"the URL":             {[]string{"?a=1&token=" + token + "&b=2"}, "-"},
		"all":                 {[]string{"Authorization: Bearer " + token, "Sec-WebSocket-Protocol: bearer, " + token, "?token=" + token}, ""},
	} {
		for range 2 {
			call, ctx := jwtCall(protocols.WebSocket, tc.fields...)
			if why := jwtTry(t, g, call, ctx); why != "" {
				t.Fatalf("%s: refused for %s", name, why)
			}
			if got := call.Shown("/ws?" + call.Query()); strings.Contains(got, "token") || got != "/ws?a=1&b=2" && strings.Contains(call.Query(), "b=2") {
				t.Errorf("%s: the path is %s", name, got)
			}
			handed := "-"
			for _, f := range call.Handed() {
				if f.Is("Sec-WebSocket-Protocol") {
					handed = f.Value
				}
			}
			if handed != tc.protocols {
				t.Errorf("%s: subprotocols %q, want %q", name, handed, tc.protocols)
			}
		}
	}
}

// A token where a request may not have it does not count, and
// goes no further all the same.
func TestSourceIsHiddenWhereItDoesNotCount(t *testing.T) {
	g := jwtGuard(t, func(o *auth.JWTOptions) {
		o.From = []auth.Source{auth.SourceHeader(), auth.SourceSubprotocol(), auth.SourceQuery("token")}
	})
	call, ctx := jwtCall(protocols.HTTP, "Authorization: Bearer "+jwtGood(nil), "?token=x&a=1", "Sec-WebSocket-Protocol: bearer, x")
	if why := jwtTry(t, g, call, ctx); why != "" || call.Shown("/x?"+call.Query()) != "/x?a=1" {
		t.Errorf("%q, the path is %s", why, call.Shown("/x?"+call.Query()))
	}
	if h := call.Handed(); len(h) != 1 || !h[0].Is("Sec-WebSocket-Protocol") || h[0].Value != "" || call.Selected() != "" {
		t.Errorf("the subprotocols are %v, %q is selected", h, call.Selected())
	}
}

// Nor does a token go further that was in the URL of the page which has made the request, or
// beside a credential of another guard that has let the call in.
func TestSourceIsHiddenFromServers(t *testing.T) {
	from := []auth.Source{auth.SourceHeader(), auth.SourceSubprotocol(), auth.SourceQuery("token")}
	g := jwtGuard(t, func(o *auth.JWTOptions) { o.From = from })
	other := protocols.GuardFunc(func(ctx context.Context, _ *protocols.Call) (context.Context, error) { return ctx, nil })
	bearer := "Authorization: Bearer " + jwtGood(nil)
	for name, tc := range map[string]struct {
		guard  protocols.Guard
		fields []string
	}{
		"a token":                   {g, []string{bearer}},
		"another guard, behind":     {auth.Any(g, other), nil},
		"another guard, before":     {auth.Any(other, g), nil},
		"both":                      {auth.All(other, g), []string{bearer}},
		"another guard, a good one": {auth.Any(other, g), []string{bearer}},
	} {
		fields := append([]string{"?a=1&token=x", "Sec-WebSocket-Protocol: v1, bearer, x", "Referer: https://edge.example.com/page?b=2&%74oken=x"}, tc.fields...)
		call, ctx := jwtCall(protocols.WebSocket, fields...)
		if _, err := tc.guard.Admit(ctx, call); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := call.Shown("/ws?" + call.Query())
		for _, f := range call.Handed() {
			got += " " + f.Name + ": " + f.Value
		}
		for _, want := range []string{"/ws?a=1 ", "Sec-WebSocket-Protocol: v1", "Referer: https://edge.example.com/page?b=2"} {
			if !strings.Contains(got+" ", want) {
				t.Errorf("%s: %s has no %s", name, got, want)
			}
		}
		if strings.Contains(got, "oken=") || call.Selected() != "bearer" {
			t.Errorf("%s: %s, selected %q", name, got, call.Selected())
		}
	}
}

func TestParseSource(t *testing.T) {
	for _, bad := range []string{"", "Header", "headers", "header:X", "header:", "cookie", "cookie:", "cookie:a b", "cookie:a=b", "subprotocol:x", "query", "query:", "query:a&b", "ticket", "cookie:" + strings.Repeat("a", 65)} {
		if s, err := auth.ParseSource(bad); err == nil {
			t.Errorf("%q is taken for %s", bad, s)
		}
	}
	if s := (auth.Source{}); s != auth.SourceHeader() || s.String() != "header" {
		t.Errorf("the zero value is %s", s)
	}
}
