package admin_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/oneporttest"
	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/admin"
	"github.com/oneport-edge/oneport/router/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "0123456789abcdef"

// echo has one stream that stays open.
type echo struct{ echov1.UnimplementedEchoServer }

func (echo) Bidi(s grpc.BidiStreamingServer[echov1.BidiRequest, echov1.BidiResponse]) error {
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		if err := s.Send(&echov1.BidiResponse{Message: m.GetMessage()}); err != nil {
			return err
		}
	}
}

// streams serves what stays open, in all three protocols.
func streams() *router.Server {
	srv := &router.Server{Log: slog.New(slog.DiscardHandler)}
	srv.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: hello\n\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-srv.Draining():
		}
	})
	echov1.RegisterEchoServer(srv, echo{})
	srv.WebSocket("/ws", func(_ context.Context, c *ws.Conn) error {
		for {
			typ, msg, err := c.Read()
			if err != nil {
				return err
			}
			if err := c.Write(typ, msg); err != nil {
				return err
			}
		}
	})
	return srv
}

// whoever takes the token for the name.
func whoever(ctx context.Context, call *protocols.Call) (context.Context, error) {
	name, ok := strings.CutPrefix(call.Header("Authorization"), "Bearer ")
	if !ok {
		return ctx, &protocols.Refusal{Reason: protocols.ReasonUnauthenticated}
	}
	call.Identify(&protocols.Identity{Subject: name, Issuer: "test", By: "jwt"})
	return ctx, nil
}

// house is a port and its admin API.
type house struct {
	port *oneporttest.Port
	url  string // of the API
	grpc adminv1.AdminClient
}

func (h *house) serve(t *testing.T, srv *router.Server, more func(*admin.Options)) {
	t.Helper()
	open := protocols.NewCalls()
	srv.Guards = append(srv.Guards, open)
	h.port = oneporttest.Listen(t, srv)

	rules, err := admin.NewRules(admin.RulesOptions{Token: token, Hosts: []string{"Admin.Example"}})
	if err != nil {
		t.Fatal(err)
	}
	own := &router.Server{Guards: []protocols.Guard{rules}, Log: slog.New(slog.DiscardHandler), Drain: router.Drain{Timeout: time.Second}}
	o := admin.Options{Port: srv, Calls: open, Ending: own.Draining(), Profiles: true, Level: new(slog.LevelVar), Log: slog.New(slog.DiscardHandler)}
	if more != nil {
		more(&o)
	}
	api, err := admin.New(o)
	if err != nil {
		t.Fatal(err)
	}
	own.HTTP = api.HTTP()
	adminv1.RegisterAdminServer(own, api)
	addr := listen(t, own)
	h.url = "http://" + addr
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	h.grpc = adminv1.NewAdminClient(conn)
}

// listen serves in plaintext on loopback until the test ends.
func listen(t *testing.T, srv *router.Server) (addr string) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv.Listeners = []router.Listener{{Listener: ln, Plaintext: true}}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.ListenAndServe(ctx) }()
	t.Cleanup(func() {
		stop()
		<-done // calls that a test has left open may be cut off
	})
	<-srv.Serving()
	return ln.Addr().String()
}

// ask makes a request of the API, and gives its status and its answer.
func (h *house) ask(t *testing.T, method, path, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, h.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range header {
		name, value, _ := strings.Cut(field, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

const bearer = "Authorization: Bearer " + token

func (h *house) list(t *testing.T, query string) (list struct {
	Connections []struct {
		ID   string `json:"id"`
		Kind string `json:"kind"`
		SNI  string `json:"sni"`
		TLS  struct {
			ALPN string `json:"alpn"`
		} `json:"tls"`
		Calls []struct {
			Upstream string `json:"upstream"`
		} `json:"calls"`
	} `json:"connections"`
	Total    int    `json:"total"`
	NextPage string `json:"next_page"`
},
) {
	t.Helper()
	code, body := h.ask(t, http.MethodGet, "/api/v1/connections"+query, "")
	if err := json.Unmarshal([]byte(body), &list); err != nil || code != 200 {
		t.Fatal(code, body, err)
	}
	return list
}

// user has something open in each protocol.
type user struct {
	events *bufio.Reader
	stream echov1.Echo_BidiClient
	socket *websocket.Conn
}

func (h *house) user(t *testing.T, name string) *user {
	t.Helper()
	u := new(user)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.port.URL("/events"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+name)
	res, err := h.port.HTTP1().Do(req)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res, err)
	}
	t.Cleanup(func() { res.Body.Close() })
	u.events = bufio.NewReader(res.Body)
	if line, err := u.events.ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	if u.stream, err = echov1.NewEchoClient(h.port.GRPC()).Bidi(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+name)); err != nil {
		t.Fatal(err)
	}
	if u.socket, _, err = h.port.DialWebSocket(t.Context(), "/ws", http.Header{"Authorization": {"Bearer " + name}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.socket.Close() })
	u.works(t)
	return u
}

// works reports that the stream and the socket answer.
func (u *user) works(t *testing.T) {
	t.Helper()
	if err := u.stream.Send(&echov1.BidiRequest{Message: "x"}); err != nil {
		t.Fatal(err)
	}
	if m, err := u.stream.Recv(); err != nil || m.GetMessage() != "x" {
		t.Fatal(m, err)
	}
	if err := u.socket.WriteMessage(websocket.TextMessage, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, m, err := u.socket.ReadMessage(); err != nil || string(m) != "x" {
		t.Fatal(m, err)
	}
}

// ended says how all three have.
func (u *user) ended(t *testing.T) string {
	t.Helper()
	_, rest := io.ReadAll(u.events)
	_, grpcErr := u.stream.Recv()
	_ = u.socket.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, _, wsErr := u.socket.ReadMessage()
	return fmt.Sprintf("%v, %v, %v", rest != nil, status.Code(grpcErr), wsErr)
}

// A user's REST streams, gRPC streams and WebSockets are ended together, here and where
// the port leads elsewhere; another user's go on.
func TestKillUser(t *testing.T) {
	for _, far := range []bool{false, true} {
		t.Run(fmt.Sprint("elsewhere ", far), func(t *testing.T) {
			srv := streams()
			if far {
				addr := listen(t, srv)
				srv = &router.Server{Log: srv.Log}
				web, rpc := reach(t, "http://"+addr, "web"), reach(t, "grpc://"+addr, "rpc")
				srv.Routes = []router.Route{{GRPC: "*", To: rpc}, {Name: "pages", Path: "/", To: web}, {Name: "sockets", WebSocket: "/", To: web}}
			}
			srv.Guards = []protocols.Guard{protocols.GuardFunc(whoever)}
			var h house
			h.serve(t, srv, nil)
			alice, bob := h.user(t, "alice"), h.user(t, "bob")

			list := h.list(t, "?identity=alice")
			if list.Total != 3 {
				t.Fatalf("alice has %d connections: %+v", list.Total, list)
			}
			if far {
				if got := h.list(t, "?identity=bob&route=sockets&upstream=web&protocol=websocket&state=upgraded&remote=127.0.0.0/8"); got.Total != 1 || got.Connections[0].Calls[0].Upstream != "web" {
					t.Errorf("bob's socket: %+v", got)
				}
			}
			code, body := h.ask(t, http.MethodPost, "/api/v1/kill", `{"identity": {"subject": "alice", "issuer": "test"}}`, bearer)
			if code != 200 || !strings.Contains(body, `"calls": 3`) {
				t.Fatal(code, body)
			}
			if got, want := alice.ended(t), "true, PermissionDenied, websocket: close 1008 (policy violation): ended by an operator"; got != want {
				t.Errorf("alice: %s, want %s", got, want)
			}
			bob.works(t)
			ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
			if res, err := h.grpc.Kill(ctx, &adminv1.KillRequest{What: &adminv1.KillRequest_Identity{Identity: &adminv1.KillIdentity{Subject: "bob", Issuer: "other"}}}); err != nil || res.GetCalls() != 0 {
				t.Errorf("bob of another issuer: %v, %v", res, err)
			}
			if !far {
				return
			}
			for name, want := range map[string]int32{"web": 2, "rpc": 1} {
				res, err := h.grpc.Kill(ctx, &adminv1.KillRequest{What: &adminv1.KillRequest_Upstream{Upstream: name}})
				if err != nil || res.GetCalls() != want {
					t.Errorf("%s: %v, %v, want %d", name, res, err, want)
				}
			}
			if got, want := bob.ended(t), "true, Unavailable, websocket: close 1013: ended by an operator"; got != want {
				t.Errorf("bob: %s, want %s", got, want)
			}
		})
	}
}

func reach(t *testing.T, url, name string) *upstream.Upstream {
	t.Helper()
	up, err := upstream.New(url, upstream.Options{Name: name, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(up.Close)
	return up
}

// A connection is cut off with all that is on it.
func TestKillConnection(t *testing.T) {
	srv := streams()
	srv.Guards = []protocols.Guard{protocols.GuardFunc(whoever)}
	var h house
	h.serve(t, srv, nil)
	alice := h.user(t, "alice")
	list := h.list(t, "?protocol=grpc")
	if list.Total != 1 || list.Connections[0].TLS.ALPN != "h2" || list.Connections[0].Kind != "h2" || list.Connections[0].SNI != oneporttest.Name {
		t.Fatalf("%+v", list)
	}
	body := fmt.Sprintf(`{"connection": %q}`, list.Connections[0].ID)
	if code, got := h.ask(t, http.MethodPost, "/api/v1/kill", body, bearer); code != 200 || !strings.Contains(got, `"connections": 1`) {
		t.Fatal(code, got)
	}
	if _, err := alice.stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	if code, got := h.ask(t, http.MethodPost, "/api/v1/kill", body, bearer); code != 404 {
		t.Error(code, got)
	}
	if got := h.list(t, "?protocol=grpc"); got.Total != 0 {
		t.Errorf("%+v", got)
	}
}

// Lists are sorted, and come in pages.
func TestListConnections(t *testing.T) {
	srv := streams()
	var h house
	h.serve(t, srv, nil)
	for i := range 5 {
		c := h.port.DialTLS("http/1.1")
		if _, err := fmt.Fprintf(c, "GET /%s HTTP/1.1\r\n", strings.Repeat("x", 100*i)); err != nil { // no more than that
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); h.list(t, "").Total < 5; {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", h.list(t, ""))
		}
	}
	first := h.list(t, "?sort=accepted&limit=2")
	second := h.list(t, "?limit=2&page="+first.NextPage)
	third := h.list(t, "?limit=2&page="+second.NextPage)
	if first.Total != 5 || len(first.Connections) != 2 || len(second.Connections) != 2 || len(third.Connections) != 1 || third.NextPage != "" {
		t.Errorf("pages of %d, %d, %d", len(first.Connections), len(second.Connections), len(third.Connections))
	}
	if most := h.list(t, "?sort=bytes_in").Connections; ids(most)[0] != ids(third.Connections)[0] {
		t.Errorf("the one that has sent the most is not the first: %+v", most)
	}
	seen := map[string]bool{}
	for _, page := range [][]string{ids(first.Connections), ids(second.Connections), ids(third.Connections)} {
		for _, id := range page {
			seen[id] = true
		}
	}
	if len(seen) != 5 {
		t.Errorf("the pages have %v", seen)
	}
	for query, want := range map[string]string{
		"?sort=size": "want accepted", "?limit=1001": "at most 1000", "?limit=x": "int32", "?page=-1": "next_page", "?remote=here": "as 192.0.2.0/24",
		"?protocol=ftp": "want http", "?state=closed": "", "?state=open": "want opening", "?nothing=1": "unknown parameter", "?state=idle&state=active": "2 times",
		"?filter=x": "unknown parameter",
	} {
		code, body := h.ask(t, http.MethodGet, "/api/v1/connections"+query, "")
		if want != "" && (code != 400 || !strings.Contains(body, want)) {
			t.Errorf("%s: %d %s", query, code, body)
		}
	}
}

func ids[T any](list []T) (all []string) {
	for _, c := range list {
		b, _ := json.Marshal(c)
		var v struct {
			ID string `json:"id"`
		}
		_ = json.Unmarshal(b, &v)
		all = append(all, v.ID)
	}
	return all
}

// What a client has chosen breaks no answer, and makes none long.
func TestStrangeTexts(t *testing.T) {
	srv := streams()
	var h house
	h.serve(t, srv, nil)
	c := h.port.DialTLS("http/1.1")
	if _, err := fmt.Fprintf(c, "GET /%%ff<script>/%s HTTP/1.1\r\nHost: \"<b>\r\n\r\n", strings.Repeat("x", 2000)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_, body := h.ask(t, http.MethodGet, "/api/v1/connections", "")
	if len(body) > 2000 {
		t.Errorf("%d bytes", len(body))
	}
	if _, err := h.grpc.ListConnections(t.Context(), &adminv1.ListConnectionsRequest{}); err != nil {
		t.Error(err)
	}
}

// The bound of a text holds for what comes out: what is no UTF-8 gets longer.
func TestLongTexts(t *testing.T) {
	srv := streams()
	var h house
	h.serve(t, srv, nil)
	c := h.port.DialTLS("http/1.1")
	if _, err := fmt.Fprintf(c, "GET /wait/%s HTTP/1.1\r\nHost: a\r\n\r\n", strings.Repeat("%ffa", 500)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_, body := h.ask(t, http.MethodGet, "/api/v1/connections", "")
	if !strings.Contains(body, "/wait/") || strings.Count(body, "\ufffda") > 64 {
		t.Errorf("%d bytes: %s", len(body), body)
	}
}

// A watch sends lists until the API ends, and 16 are enough.
func TestWatch(t *testing.T) {
	srv := streams()
	var h house
	h.serve(t, srv, nil)
	var open []io.Closer
	client := &http.Client{Transport: new(http.Transport)}
	t.Cleanup(client.CloseIdleConnections)
	for i := range 17 {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+"/api/v1/connections/watch?every=0.5s&state=idle", nil)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, res.Body)
		want := 200
		if i == 16 {
			want = 429
		}
		if res.StatusCode != want {
			t.Errorf("watch %d: %d", i, res.StatusCode)
		}
		if i > 0 {
			continue
		}
		lines := bufio.NewReader(res.Body)
		for range 2 {
			if line, err := lines.ReadString('\n'); err != nil || !json.Valid([]byte(line)) {
				t.Errorf("%q, %v", line, err)
			}
		}
	}
	for _, c := range open {
		c.Close()
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		stream, err := h.grpc.WatchConnections(t.Context(), &adminv1.WatchConnectionsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = stream.Recv(); err == nil {
			break // those that left have made room
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	for _, every := range []string{"0.1s", "61s", "soon"} {
		if code, body := h.ask(t, http.MethodGet, "/api/v1/connections/watch?every="+every, ""); code != 400 {
			t.Error(every, code, body)
		}
	}
}
