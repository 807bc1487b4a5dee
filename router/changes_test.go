package router_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/upstream"
)

// teller answers what it has got of a request.
func teller(t *testing.T, name string) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Server", name)
		w.Header().Set("Access-Control-Allow-Origin", "https://evil.example.com")
		w.Header().Set("Got-Host", r.Host)
		w.Header().Set("Got-Fields", fmt.Sprint(r.Header.Values("X-Env"), r.Header.Values("X-Via"), r.Header.Values("X-Gone")))
		fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, body)
	}))
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.URL
}

// clientOf serves routes, and gives a client of that version.
func clientOf(t *testing.T, version string, routes ...router.Route) *http.Client {
	t.Helper()
	srv := newServer()
	srv.Routes = routes
	port := oneporttest.Start(t, srv)
	if version == "HTTP/1.1" {
		return port.HTTP1()
	}
	return port.HTTP2()
}

// both runs a test with servers that speak HTTP/1.1 and such that speak HTTP/2, and
// with clients of either version.
func both(t *testing.T, test func(t *testing.T, scheme string, client func(routes ...router.Route) *http.Client)) {
	t.Helper()
	for _, scheme := range []string{"http", "h2c"} {
		for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(version+" to "+scheme, func(t *testing.T) {
				test(t, scheme, func(routes ...router.Route) *http.Client {
					return clientOf(t, version, routes...)
				})
			})
		}
	}
}

// told makes a request, and gives the answer and its body.
func told(t *testing.T, c *http.Client, method, path, body string, fields ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+oneporttest.Name+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		req.Header.Add(fields[i], fields[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(got)
}

func TestRewrite(t *testing.T) {
	both(t, func(t *testing.T, scheme string, client func(...router.Route) *http.Client) {
		to := reach(t, strings.Replace(teller(t, "app"), "http", scheme, 1), nil)
		c := client(
			router.Route{Path: "/api/", To: to, Rewrite: "/v1/", RewriteHost: "app.internal"},
			router.Route{Path: "/old", To: to, Rewrite: "/new"},
			router.Route{Path: "/files/", To: to, Rewrite: "/"},
		)
		for asked, want := range map[string]string{
			"/api/users?x=1&y=%20":  "/v1/users?x=1&y=%20",
			"/api/":                 "/v1/",
			"/api/?q":               "/v1/?q",
			"/api/a%20b/%C3%A4":     "/v1/a%20b/%C3%A4",
			"/api/x/../users":       "/v1/users",
			"/%61pi/users":          "/v1/users",
			"/old?x":                "/new?x",
			"/files/a//b":           "/a/b",
			"/files/%2e%2e/files/c": "/c",
		} {
			if _, got := told(t, c, "GET", asked, ""); got != "GET "+want+" " {
				t.Errorf("%s gets there as %q; want %q", asked, got, want)
			}
		}
		if res, _ := told(t, c, "GET", "/api/x", ""); res.Header.Get("Got-Host") != "app.internal" {
			t.Errorf("the server was asked for %q", res.Header.Get("Got-Host"))
		}
		if res, _ := told(t, c, "GET", "/old", ""); res.Header.Get("Got-Host") != oneporttest.Name {
			t.Errorf("the server was asked for %q", res.Header.Get("Got-Host"))
		}
	})
}

// A slash that is encoded is refused, but where a route takes it: then the server gets
// it as it came.
func TestEncodedSlash(t *testing.T) {
	both(t, func(t *testing.T, scheme string, client func(...router.Route) *http.Client) {
		to := reach(t, strings.Replace(teller(t, "app"), "http", scheme, 1), nil)
		c := client(
			router.Route{Path: "/npm/", To: to, EncodedSlash: true},
			router.Route{Path: "/git/", To: to, EncodedSlash: true, Rewrite: "/"},
			router.Route{Path: "/", To: to},
		)
		for asked, want := range map[string]string{
			"/npm/@a%2Fb":           "/npm/@a%2Fb",
			"/npm/@a%2fb%20c?x=%2F": "/npm/@a%2fb%20c?x=%2F",
			"/git/a%2Fb":            "/a%2Fb",
			"/%67it/a%2Fb%20c":      "/a%2Fb%20c",
			"/other?x=%2F":          "/other?x=%2F",
		} {
			if _, got := told(t, c, http.MethodGet, asked, ""); got != "GET "+want+" " {
				t.Errorf("%s gets there as %q; want %q", asked, got, want)
			}
		}
		for _, path := range []string{"/other/a%2Fb", "/npm%2Fa", "/npm/..%2Fadmin", "/npm/a%2F..%2Fadmin", "/npm/%2e%2e%2Fadmin", "/npm/%2Fa", "/npm/a%5Cb"} {
			if res, body := told(t, c, http.MethodGet, path, ""); res.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: %d %q; want 400", path, res.StatusCode, body)
			}
		}
	})
}

func TestEdits(t *testing.T) {
	both(t, func(t *testing.T, scheme string, client func(...router.Route) *http.Client) {
		c := client(router.Route{
			Path: "/", To: reach(t, strings.Replace(teller(t, "app"), "http", scheme, 1), nil),
			Request:  router.Edits{Remove: []string{"x-gone"}, Set: map[string]string{"X-Env": "prod"}, Add: map[string]string{"x-via": "edge"}},
			Response: router.Edits{Remove: []string{"SERVER"}, Set: map[string]string{"Got-Host": "hidden"}, Add: map[string]string{"X-Served-By": "edge"}},
		})
		res, _ := told(t, c, "GET", "/", "", "X-Env", "test", "X-Env", "dev", "X-Via", "client", "X-Gone", "1")
		if got := res.Header.Get("Got-Fields"); got != "[prod] [client edge] []" {
			t.Errorf("the server got %s", got)
		}
		for name, want := range map[string]string{"Server": "", "Got-Host": "hidden", "X-Served-By": "edge"} {
			if got := strings.Join(res.Header.Values(name), ","); got != want {
				t.Errorf("%s: %q; want %q", name, got, want)
			}
		}
	})
}

func TestCORS(t *testing.T) {
	const page = "https://app.example.com"
	both(t, func(t *testing.T, scheme string, client func(...router.Route) *http.Client) {
		to := reach(t, strings.Replace(teller(t, "app"), "http", scheme, 1), nil)
		c := client(
			router.Route{
				Path: "/", To: to, Methods: []string{"GET", "PUT"},
				CORS: &router.CORS{Origins: []string{page}, Credentials: true, Expose: []string{"X-Total"}, MaxAge: time.Minute, Methods: []string{"PUT"}},
			},
			router.Route{Path: "/", To: to},
		)
		want := func(res *http.Response, what string, fields map[string]string) {
			t.Helper()
			for name, value := range fields {
				if got := strings.Join(res.Header.Values(name), ","); got != value {
					t.Errorf("%s: %s: %q; want %q", what, name, got, value)
				}
			}
		}
		res, body := told(t, c, "OPTIONS", "/x", "", "Origin", page, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "x-a, x-b")
		if res.StatusCode != http.StatusNoContent || body != "" {
			t.Errorf("preflight: %d %q", res.StatusCode, body)
		}
		want(res, "preflight", map[string]string{
			"Access-Control-Allow-Origin": page, "Access-Control-Allow-Methods": "PUT", "Access-Control-Allow-Headers": "x-a, x-b",
			"Access-Control-Allow-Credentials": "true", "Access-Control-Max-Age": "60", "Content-Length": "",
		})
		res, _ = told(t, c, "OPTIONS", "/x", "", "Origin", "https://evil.example.com", "Access-Control-Request-Method", "PUT")
		want(res, "strange preflight", map[string]string{"Access-Control-Allow-Origin": "", "Access-Control-Allow-Methods": ""})

		res, _ = told(t, c, "GET", "/x", "", "Origin", page)
		want(res, "answer", map[string]string{"Access-Control-Allow-Origin": page, "Access-Control-Allow-Credentials": "true", "Access-Control-Expose-Headers": "X-Total", "Vary": "Origin"})
		res, _ = told(t, c, "GET", "/x", "", "Origin", "https://evil.example.com")
		want(res, "answer to a strange page", map[string]string{"Access-Control-Allow-Origin": "", "Vary": "Origin"})
		res, _ = told(t, c, "GET", "/x", "")
		want(res, "answer to no page", map[string]string{"Access-Control-Allow-Origin": "", "Vary": "Origin"})
		// The route without CORS leaves it to the server.
		res, _ = told(t, c, "POST", "/x", "", "Origin", page)
		want(res, "the server's own", map[string]string{"Access-Control-Allow-Origin": "https://evil.example.com"})
		if _, body := told(t, c, "OPTIONS", "/x", "", "Origin", page, "Access-Control-Request-Method", "POST"); !strings.HasPrefix(body, "OPTIONS") {
			t.Errorf("a preflight that is the server's: %q", body)
		}
	})
}

func TestSplit(t *testing.T) {
	both(t, func(t *testing.T, scheme string, client func(...router.Route) *http.Client) {
		one := reach(t, strings.Replace(teller(t, "one"), "http", scheme, 1), nil)
		two := reach(t, strings.Replace(teller(t, "two"), "http", scheme, 1), nil)
		c := client(router.Route{Path: "/", Split: []router.Share{{To: one, Weight: 90}, {To: two, Weight: 10}}})
		got := map[string]int{}
		for range 500 {
			res, _ := told(t, c, "GET", "/", "")
			got[res.Header.Get("Server")]++
		}
		if got["two"] < 20 || got["two"] > 90 || got["one"]+got["two"] != 500 {
			t.Errorf("%v; want about 450 and 50", got)
		}
	})
}

// nobody is the URL of a server that is not there.
func nobody(t *testing.T, scheme string) string {
	t.Helper()
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	return strings.Replace(srv.URL, "http", scheme, 1)
}

func TestFallback(t *testing.T) {
	both(t, func(t *testing.T, scheme string, client func(...router.Route) *http.Client) {
		gone := reach(t, nobody(t, scheme), nil)
		spare := reach(t, strings.Replace(teller(t, "spare"), "http", scheme, 1), nil)
		c := client(
			router.Route{Path: "/static", To: gone, Fallback: &router.Fallback{Status: 503, Headers: map[string]string{"Retry-After": "7"}, Body: "back soon"}},
			router.Route{Path: "/empty", To: gone, Fallback: &router.Fallback{Status: 204}},
			router.Route{Path: "/spare", To: gone, Fallback: &router.Fallback{To: spare}},
			router.Route{Path: "/none", To: gone},
		)
		for range 2 { // on the same connection
			res, body := told(t, c, "POST", "/static", "some body")
			if res.StatusCode != http.StatusServiceUnavailable || body != "back soon" || res.Header.Get("Retry-After") != "7" || res.ContentLength != 9 {
				t.Errorf("static: %d %q %v", res.StatusCode, body, res.Header)
			}
		}
		if res, body := told(t, c, "GET", "/empty", ""); res.StatusCode != http.StatusNoContent || body != "" || res.Header.Get("Content-Length") != "" {
			t.Errorf("empty: %d %q %v", res.StatusCode, body, res.Header)
		}
		if res, body := told(t, c, "HEAD", "/static", ""); res.StatusCode != http.StatusServiceUnavailable || body != "" {
			t.Errorf("HEAD: %d %q", res.StatusCode, body)
		}
		for i := range 30 { // more than may be tried again at once
			if _, body := told(t, c, "GET", "/spare?x=1", ""); body != "GET /spare?x=1 " {
				t.Fatalf("spare, call %d: %q", i, body)
			}
		}
		if res, body := told(t, c, "GET", "/none", ""); res.StatusCode != http.StatusBadGateway {
			t.Errorf("none: %d %q", res.StatusCode, body)
		}
	})
}

// A body that nobody has taken yet goes to the spare server as well.
func TestFallbackTakesTheBody(t *testing.T) {
	both(t, func(t *testing.T, scheme string, client func(...router.Route) *http.Client) {
		if scheme == "h2c" {
			t.Log("net/http's transport does not say whether it has read the body: over HTTP/1.1 the body goes nowhere")
		}
		c := client(router.Route{
			Path: "/", To: reach(t, nobody(t, scheme), nil),
			Fallback: &router.Fallback{To: reach(t, strings.Replace(teller(t, "spare"), "http", scheme, 1), nil)},
		})
		big := strings.Repeat("x", 200_000)
		res, body := told(t, c, "POST", "/", big)
		switch {
		case res.StatusCode == http.StatusBadGateway && scheme == "h2c" && res.ProtoMajor == 1:
		case body != "POST / "+big:
			t.Errorf("%d, %d bytes", res.StatusCode, len(body))
		}
	})
}

func TestMirror(t *testing.T) {
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(version, func(t *testing.T) {
			copies := make(chan string, 10)
			shadow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				copies <- fmt.Sprintf("%s %s %s %s %d", r.Method, r.RequestURI, r.Header.Get("X-A"), r.Header.Get("X-Request-ID")[:1], len(body))
				w.WriteHeader(http.StatusInternalServerError)
			}))
			t.Cleanup(shadow.Close)
			c := clientOf(t, version, router.Route{Path: "/", To: reach(t, teller(t, "app"), nil), Mirror: reach(t, shadow.URL, nil)})
			told(t, c, "GET", "/a?x", "", "X-A", "1")
			told(t, c, "POST", "/b", strings.Repeat("b", 60_000))
			if res, body := told(t, c, "POST", "/too-long", strings.Repeat("b", 70_000)); res.StatusCode != http.StatusOK || len(body) < 70_000 {
				t.Errorf("%d, %d bytes", res.StatusCode, len(body))
			}
			told(t, c, "PUT", "/c", "c")
			var got []string
			for range 3 {
				select {
				case s := <-copies:
					got = append(got, s[:strings.LastIndex(s, " ")-2]+s[strings.LastIndex(s, " "):])
				case <-time.After(10 * time.Second):
					t.Fatalf("only %q", got)
				}
			}
			slices.Sort(got)
			if want := []string{"GET /a?x 1 0", "POST /b  60000", "PUT /c  1"}; !slices.Equal(got, want) {
				t.Errorf("the mirror got %q; want %q", got, want)
			}
		})
	}
}

// One dead server of three costs no call: nothing was sent to it.
func TestPoolTriesAnother(t *testing.T) {
	both(t, func(t *testing.T, scheme string, client func(...router.Route) *http.Client) {
		urls := []string{nobody(t, scheme)}
		for _, name := range []string{"one", "two"} {
			urls = append(urls, strings.Replace(teller(t, name), "http", scheme, 1))
		}
		up, err := upstream.NewPool(urls, upstream.Options{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(up.Close)
		c := client(router.Route{Path: "/", To: up})
		for i := range 100 {
			if res, body := told(t, c, "GET", "/", ""); res.StatusCode != http.StatusOK {
				t.Errorf("call %d: %d %q", i, res.StatusCode, body)
			}
		}
		var left int
		for _, st := range up.Servers() {
			if st.Ejected {
				left++
			}
		}
		if left != 1 {
			t.Errorf("%d servers are left out; %+v", left, up.Servers())
		}
	})
}

func TestBadRoutes(t *testing.T) {
	app := reach(t, "http://127.0.0.1:1", nil)
	grpc := reach(t, "grpc://127.0.0.1:1", nil)
	for want, r := range map[string]router.Route{
		"leads nowhere":                    {Path: "/"},
		"want one":                         {Path: "/", To: app, Split: []router.Share{{To: app, Weight: 1}}},
		"the weight of http://127.0.0.1:1": {Path: "/", Split: []router.Share{{To: app}}},
		"different versions of HTTP":       {Path: "/", Split: []router.Share{{To: app, Weight: 1}, {To: grpc, Weight: 1}}},
		"gRPC needs HTTP/2":                {GRPC: "*", To: grpc, Fallback: &router.Fallback{To: app}},
		"has either To or Status":          {Path: "/", To: app, Fallback: &router.Fallback{}},
		"want 200 to 599":                  {Path: "/", To: app, Fallback: &router.Fallback{Status: 99}},
		"a mirror is for servers":          {Path: "/", To: app, Mirror: grpc},
		"for Path alone":                   {GRPC: "*", To: grpc, Rewrite: "/"},
		"ends in / if Path does":           {Path: "/a/", To: app, Rewrite: "/b"},
		"not for WebSocket":                {WebSocket: "/", To: app, Request: router.Edits{Remove: []string{"X"}}},
		"cannot be changed":                {Path: "/", To: app, Request: router.Edits{Set: map[string]string{"Content-Length": "1"}}},
		"line break":                       {Path: "/", To: app, Response: router.Edits{Add: map[string]string{"X": "a\r\nb"}}},
		"CORS without origins":             {Path: "/", To: app, CORS: &router.CORS{}},
		"any page could act":               {Path: "/", To: app, CORS: &router.CORS{Origins: []string{"*"}, Credentials: true}},
		"is no origin":                     {Path: "/", To: app, CORS: &router.CORS{Origins: []string{"https://a/b"}}},
		"below zero":                       {Path: "/", To: app, AnswerTimeout: -1},
	} {
		if err := r.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}
