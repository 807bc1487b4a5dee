package main

import (
	"crypto"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/protocols/ws"
)

// login gives what a browser sends of the page's cookie.
func (c chat) login(name string) *http.Cookie {
	c.t.Helper()
	res, body := c.do(http.MethodPost, "/api/login", jsonOf(c.t, map[string]string{"name": name}), http.Header{"Sec-Fetch-Site": {"same-origin"}})
	if res.StatusCode != http.StatusNoContent || len(res.Cookies()) != 1 {
		c.t.Fatalf("login: %d %s, %d cookies", res.StatusCode, body, len(res.Cookies()))
	}
	return res.Cookies()[0]
}

// The cookie is the browser's own affair, and counts in the page's own requests.
func TestCookie(t *testing.T) {
	c := start(t)
	cookie := c.login("Ann <b>")
	if !cookie.HttpOnly || !cookie.Secure || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Domain != "" || cookie.MaxAge != int(keepName/time.Second) {
		t.Errorf("the cookie is %v", cookie)
	}
	with := func(pairs ...string) http.Header {
		h := http.Header{"Cookie": {cookie.Name + "=" + cookie.Value}}
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	own := strings.TrimSuffix(c.URL("/"), "/")

	res, page := c.do(http.MethodGet, "/room/lobby", "", with())
	if res.StatusCode != http.StatusOK || !strings.Contains(page, `data-name="Ann &lt;b&gt;"`) || strings.Contains(page, "Ann <b>") {
		t.Errorf("%d: the page does not have the name, or has it as markup", res.StatusCode)
	}
	if res.Header.Get("Cache-Control") != "no-store" {
		t.Error("others may get the page with this name")
	}
	if _, body := c.do(http.MethodGet, "/api/session", "", with()); !strings.HasPrefix(body, `{"name":"Ann `) {
		t.Errorf("session: %s", body)
	}

	for _, tt := range []struct {
		origin string
		want   int
	}{{own, http.StatusCreated}, {"https://evil.example", http.StatusUnauthorized}, {"null", http.StatusUnauthorized}, {"", http.StatusUnauthorized}} {
		h := with()
		if tt.origin != "" {
			h.Set("Origin", tt.origin)
		}
		if res, body := c.do(http.MethodPost, "/api/rooms/lobby/messages", `{"text":"hi"}`, h); res.StatusCode != tt.want {
			t.Errorf("POST from %q: %d %s", tt.origin, res.StatusCode, body)
		}
	}
	for _, origin := range []string{"https://evil.example", ""} {
		h := with()
		if origin != "" {
			h.Set("Origin", origin)
		}
		_, res, err := c.DialWebSocket(t.Context(), "/connection/websocket", h)
		if err == nil || res == nil || res.StatusCode != http.StatusUnauthorized && res.StatusCode != http.StatusForbidden {
			t.Errorf("a WebSocket from %q: %v", origin, err)
		}
	}
	ann := c.connect(with("Origin", own))
	ann.ask("subscribe", map[string]any{"channel": "room:lobby"}, nil)
	if got := ann.next(); got != "Ann <b> joined" {
		t.Errorf("by the cookie: %q", got)
	}

	for _, path := range []string{"/api/login", "/api/logout", "/api/token"} {
		if res, _ := c.do(http.MethodPost, path, `{"name":"Eve"}`, http.Header{"Sec-Fetch-Site": {"cross-site"}}); res.StatusCode != http.StatusForbidden || len(res.Cookies()) != 0 {
			t.Errorf("%s for another host's page: %d, %v", path, res.StatusCode, res.Cookies())
		}
	}
	if res, _ := c.do(http.MethodPost, "/api/logout", `{}`, with("Origin", own)); len(res.Cookies()) != 1 || res.Cookies()[0].MaxAge != -1 {
		t.Errorf("logout: %v", res.Cookies())
	}
}

// Nobody gets into a room without a name, and none can be made up.
func TestStrangers(t *testing.T) {
	c := start(t)
	other := start(t).token("Ann") // of another key
	for what, token := range map[string]string{"none": "", "nonsense": "x", "another key's": other} {
		for _, path := range []string{"/api/rooms/lobby/messages", "/api/rooms/lobby/people", "/api/rooms/../rooms/lobby/people"} {
			if res, body := c.do(http.MethodGet, path, "", bearer(token)); res.StatusCode != http.StatusUnauthorized {
				t.Errorf("token %s, %s: %d %s", what, path, res.StatusCode, body)
			}
		}
		if _, code := c.say(token, "lobby", "hi"); code != http.StatusUnauthorized {
			t.Errorf("token %s: REST says %d", what, code)
		}
		if _, err := c.post(token, "lobby", "hi"); status.Code(err) != codes.Unauthenticated {
			t.Errorf("token %s: gRPC says %v", what, err)
		}
		if _, res, err := c.DialWebSocket(t.Context(), "/connection/websocket", bearer(token)); err == nil || res == nil || res.StatusCode != http.StatusUnauthorized {
			t.Errorf("token %s: WebSocket says %v", what, err)
		}
	}
	eve := c.join("Eve", "lobby")
	eve.ask("publish", map[string]any{"channel": "room:lobby", "data": said{Text: "trust me", Name: "Ann", Via: "grpc"}}, nil)
	if got := c.said(c.token("Cleo"), "lobby"); fmt.Sprint(got) != "[Eve said trust me websocket]" {
		t.Errorf("REST shows %q", got)
	}
	if problem := eve.try("subscribe", map[string]any{"channel": "news:today"}, nil); problem == "" {
		t.Error("there are channels beside rooms")
	}
}

func TestWhatARoomDoesNotTake(t *testing.T) {
	c := start(t)
	ann := c.token("Ann")
	long := strings.Repeat("ü", mostText)
	for _, tt := range []struct{ room, text, why string }{
		{"lobby", "", "text is missing"},
		{"lobby", " \t", "text is missing"},
		{"lobby", long + "x", "text has 1001 characters, at most 1000 are allowed"},
		{"lobby", "a\x00b", "text has control characters"},
		{"Lobby", "hi", `a room's name has 1 to 32 of a-z, 0-9 and "-"`},
		{strings.Repeat("x", mostName+1), "hi", `a room's name has 1 to 32 of a-z, 0-9 and "-"`},
	} {
		if _, code := c.say(ann, tt.room, tt.text); code != http.StatusBadRequest {
			t.Errorf("REST %q %.20q: %d", tt.room, tt.text, code)
		}
		if _, err := c.post(ann, tt.room, tt.text); status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != tt.why {
			t.Errorf("gRPC %q %.20q: %v", tt.room, tt.text, err)
		}
	}
	// What centrifuge has taken is not shown.
	bob := c.join("Bob", "lobby")
	for _, data := range []any{7, "text", nil, said{}, said{Text: long + "x"}, said{Text: "a\x00b"}} {
		_ = bob.try("publish", map[string]any{"channel": "room:lobby", "data": data}, nil)
	}
	if got := c.said(ann, "lobby"); len(got) != 0 {
		t.Errorf("REST shows %q", got)
	}
	if m, code := c.say(ann, "lobby", long); code != http.StatusCreated || m.Text != long {
		t.Errorf("the longest text: %d", code)
	}
	for _, name := range []string{"", " ", strings.Repeat("ü", mostName+1), "A\x1b[2Jnn"} {
		if res, body := c.do(http.MethodPost, "/api/token", jsonOf(t, map[string]string{"name": name}), nil); res.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: %d %s", name, res.StatusCode, body)
		}
	}
	if _, body := c.do(http.MethodPost, "/api/token", `{"name":"`+strings.Repeat("ü", mostName)+`"}`, nil); strings.Count(body, ".") != 2 {
		t.Errorf("the longest name: %s", body)
	}
}

func TestBodiesThatAreRefused(t *testing.T) {
	c := start(t)
	for _, tt := range []struct {
		contentType, body string
		want              int
	}{
		{"text/plain", `{"text":"hi"}`, http.StatusUnsupportedMediaType}, // any page can send this
		{"application/x-www-form-urlencoded", "text=hi", http.StatusUnsupportedMediaType},
		{"application/json", `{"text":`, http.StatusBadRequest},
		{"application/json", `[]`, http.StatusBadRequest},
		{"application/json", `{"text":"` + strings.Repeat("x", mostMessage) + `"}`, http.StatusRequestEntityTooLarge},
		{"application/json; charset=utf-8", `{"text":"hi"}`, http.StatusCreated},
	} {
		h := bearer(c.token("Ann"))
		h.Set("Content-Type", tt.contentType)
		if res, body := c.do(http.MethodPost, "/api/rooms/lobby/messages", tt.body, h); res.StatusCode != tt.want {
			t.Errorf("%q %.30q: %d %s, want %d", tt.contentType, tt.body, res.StatusCode, body, tt.want)
		}
	}
}

func TestNewcomersSeeTheLast(t *testing.T) {
	c := start(t)
	ann := c.token("Ann")
	for i := range mostShown + 7 {
		if _, code := c.say(ann, "lobby", fmt.Sprint(i)); code != http.StatusCreated {
			t.Fatal(code)
		}
	}
	list := c.said(ann, "lobby")
	if len(list) != mostShown || list[0] != "Ann said 7 http" || list[mostShown-1] != "Ann said 56 http" {
		t.Errorf("%d messages: %q", len(list), list)
	}
	feed := c.feed(ann, "lobby")
	for i := range list {
		if got := nextOf(t, feed); got != list[i] {
			t.Fatalf("the feed's %d. is %s, want %s", i, got, list[i])
		}
	}
}

// What a WebSocket gives as the time is its own affair: JSON has no year beyond 9999, and one message
// must not keep a room's others from being read.
func TestTimesThatAreNone(t *testing.T) {
	c := start(t)
	ann := c.token("Ann")
	p := c.join("Ann", "lobby")
	for _, at := range []int64{math.MaxInt64, math.MinInt64, 253402300800000, -62167219200001} {
		p.ask("publish", map[string]any{"channel": "room:lobby", "data": said{Text: "hi", Time: at}}, nil)
	}
	p.say("lobby", "there")
	if list := c.said(ann, "lobby"); len(list) == 0 || list[len(list)-1] != "Ann said there websocket" {
		t.Errorf("%q", list)
	}
	feed := c.feed(ann, "lobby")
	for {
		got, err := feed.Recv()
		if err != nil {
			t.Fatal(err)
		}
		m := got.GetMessage()
		if m.GetTime() != nil && m.GetTime().CheckValid() != nil {
			t.Errorf("time %v", m.GetTime())
		}
		if m.GetText() == "there" {
			return
		}
	}
}

// Without its Redis the chat stands, and says when to try again, not where Redis is.
func TestRedisIsAway(t *testing.T) {
	c := start(t, "unix:///nowhere/redis.sock")
	cleo := c.token("Cleo")
	res, body := c.do(http.MethodPost, "/api/rooms/lobby/messages", `{"text":"hi"}`, bearer(cleo))
	if want := `{"error":"the rooms cannot be reached now: try again"}`; res.StatusCode != http.StatusServiceUnavailable || body != want {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if _, err := c.post(cleo, "lobby", "hi"); status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "nowhere") {
		t.Errorf("gRPC says %v", err)
	}
	if res, _ := c.do(http.MethodGet, "/room/lobby", "", nil); res.StatusCode != http.StatusOK {
		t.Errorf("the page: %d", res.StatusCode)
	}
}

// When the port drains, sockets are closed with 1001 and feeds end, at once.
func TestDrain(t *testing.T) {
	c := start(t)
	feed := c.feed(c.token("Gus"), "lobby")
	ann := c.join("Ann", "lobby")
	begin := time.Now()
	drained := make(chan error, 1)
	go func() { drained <- c.Stop() }()
	for {
		_, _, err := ann.socket.ReadMessage()
		if err == nil {
			continue
		}
		if !websocket.IsCloseError(err, ws.CloseGoingAway) {
			t.Errorf("closed with %v", err)
		}
		break
	}
	for {
		_, err := feed.Recv()
		if err == nil {
			continue
		}
		if status.Code(err) != codes.Unavailable {
			t.Errorf("the feed ended with %v", err)
		}
		break
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if d := time.Since(begin); d > 20*time.Second { // a drain that waits takes 30 s
		t.Errorf("the drain took %v", d)
	}
}

// A session ends with its name.
func TestNameEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		begin := time.Now()
		token, err := c.app.mint.Sign(map[string]any{"iss": issuer, "aud": issuer, "sub": "Ann", "exp": begin.Add(time.Minute).Unix()})
		if err != nil {
			t.Fatal(err)
		}
		ann := c.connect(bearer(token))
		for {
			_, _, err := ann.socket.ReadMessage()
			if err == nil {
				continue
			}
			if !websocket.IsCloseError(err, ws.ClosePolicy) || !strings.Contains(err.Error(), "token-expired") {
				t.Errorf("closed with %v", err)
			}
			break
		}
		if d := time.Since(begin); d < 59*time.Second || d > 2*time.Minute {
			t.Errorf("after %v", d)
		}
	})
}

func TestPage(t *testing.T) {
	c := start(t)
	for path, want := range map[string]string{"/room/attic": "text/html", "/chat.js": "javascript", "/centrifuge.js": "javascript", "/chat.css": "text/css"} {
		res, body := c.do(http.MethodGet, path, "", nil)
		csp := res.Header.Get("Content-Security-Policy")
		if res.StatusCode != http.StatusOK || body == "" || !strings.Contains(res.Header.Get("Content-Type"), want) || !strings.HasPrefix(csp, "default-src 'none'; script-src 'self'") {
			t.Errorf("%s: %d with %d bytes, %q, %q", path, res.StatusCode, len(body), res.Header.Get("Content-Type"), csp)
		}
	}
	if res, _ := c.do(http.MethodGet, "/", "", nil); res.Header.Get("Location") != "/room/lobby" {
		t.Errorf("/ is at %q", res.Header.Get("Location"))
	}
	if res, _ := c.do(http.MethodGet, "/room/No%20Room", "", nil); res.StatusCode != http.StatusNotFound {
		t.Errorf("a room that cannot be: %d", res.StatusCode)
	}
}

// Instances that start at once have one key, which others on the machine cannot read.
func TestKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "certs", "chat.key")
	keys := make([]crypto.Signer, 8)
	var all sync.WaitGroup
	for i := range keys {
		all.Go(func() {
			var err error
			if keys[i], err = loadKey(path); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, k := range keys[1:] {
		if k == nil || !keys[0].Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(k.Public()) {
			t.Fatal("two keys")
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadKey(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a broken key: %v", err)
	}
}
