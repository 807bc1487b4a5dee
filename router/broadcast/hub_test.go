package broadcast_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/broadcast"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, ignored()...) }

const token = "a-token-for-publishers"

// namespaces are those of most tests.
func namespaces() []broadcast.Namespace {
	anyone := []broadcast.Rule{broadcast.Anyone}
	return []broadcast.Namespace{
		{Name: "", Subscribe: anyone, Publish: anyone},
		{Name: "news", HistorySize: 1000, HistoryTTL: time.Minute, Recovery: true, Presence: true, JoinLeave: true, Subscribe: anyone, Publish: []broadcast.Rule{broadcast.Claim("role", "editor")}},
		{Name: "log", HistorySize: 1000, HistoryTTL: time.Minute, Recovery: true, Subscribe: anyone},
		{Name: "long", HistorySize: 2000, HistoryTTL: time.Minute, Recovery: true, Subscribe: anyone},
		{Name: "inbox", Subscribe: []broadcast.Rule{broadcast.Named}},
		{Name: "staff", Subscribe: []broadcast.Rule{broadcast.Authenticated}},
		{Name: "closed"},
	}
}

// port is a hub behind a port.
type port struct {
	*oneporttest.Port
	hub *broadcast.Hub
}

// identify takes the user from a field: who they are is not what is tested here.
func identify(ctx context.Context, call *protocols.Call) (context.Context, error) {
	if user := call.Header("x-user"); user != "" {
		id := &protocols.Identity{Subject: user, By: "test"}
		if user == "editor" {
			id.Claims = map[string]any{"role": []any{"editor"}}
		}
		call.Identify(id)
	}
	return ctx, nil
}

func newHub(t testing.TB, o broadcast.Options) *broadcast.Hub {
	t.Helper()
	if o.Namespaces == nil {
		o.Namespaces = namespaces()
	}
	o.Tokens = []string{token}
	hub, err := broadcast.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Close)
	return hub
}

func start(t testing.TB, o broadcast.Options) *port {
	t.Helper()
	return serve(t, newHub(t, o), oneporttest.Start)
}

func serve(t testing.TB, hub *broadcast.Hub, on func(testing.TB, *router.Server) *oneporttest.Port) *port {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/broadcast/stream", hub.Stream())
	mux.Handle("/broadcast/", hub.API())
	srv := &router.Server{
		HTTP: mux, Guards: []protocols.Guard{protocols.GuardFunc(identify)},
		Sockets: ws.Options{Subprotocols: broadcast.Subprotocols(), ReadLimit: hub.ReadLimit()},
	}
	srv.WebSocket("/connection/websocket", hub.WebSocket)
	srv.WebSocket("/broadcast/stream", hub.StreamSocket)
	hub.Register(srv)
	return &port{on(t, srv), hub}
}

// client speaks centrifuge's protocol, as far as tests need it.
type client struct {
	t  *testing.T
	c  *websocket.Conn
	id int
	in []reply // of a frame, not looked at yet
}

type reply struct {
	ID    int `json:"id"`
	Error *struct {
		Code int `json:"code"`
	} `json:"error"`
	Push struct {
		Channel string `json:"channel"`
		Pub     *struct {
			Data   json.RawMessage `json:"data"`
			Offset uint64          `json:"offset"`
		} `json:"pub"`
		Join        json.RawMessage `json:"join"`
		Leave       json.RawMessage `json:"leave"`
		Unsubscribe json.RawMessage `json:"unsubscribe"`
	} `json:"push"`
	Subscribe struct {
		Offset       uint64 `json:"offset"`
		Epoch        string `json:"epoch"`
		Recovered    bool   `json:"recovered"`
		Publications []struct {
			Data   json.RawMessage `json:"data"`
			Offset uint64          `json:"offset"`
		} `json:"publications"`
	} `json:"subscribe"`
	Presence json.RawMessage `json:"presence"`
	History  json.RawMessage `json:"history"`
}

func (p *port) client(t *testing.T, user string) *client {
	t.Helper()
	header := http.Header{}
	if user != "" {
		header.Set("X-User", user)
	}
	c, _, err := p.DialWebSocket(t.Context(), "/connection/websocket", header)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	cl := &client{t: t, c: c}
	if r := cl.do(`"connect":{}`); r.Error != nil {
		t.Fatalf("connect: error %d", r.Error.Code)
	}
	return cl
}

// next gives the next reply; pings are left out.
func (c *client) next() (reply, error) {
	for len(c.in) == 0 {
		_ = c.c.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, p, err := c.c.ReadMessage()
		if err != nil {
			return reply{}, err
		}
		for line := range bytes.Lines(p) {
			var r reply
			if err := json.Unmarshal(line, &r); err != nil {
				return r, fmt.Errorf("%q: %w", line, err)
			}
			if string(bytes.TrimSpace(line)) != "{}" {
				c.in = append(c.in, r)
			}
		}
	}
	r := c.in[0]
	c.in = c.in[1:]
	return r, nil
}

func (c *client) send(command string) {
	c.t.Helper()
	c.id++
	if err := c.c.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"id":%d,%s}`, c.id, command)); err != nil {
		c.t.Fatal(err)
	}
}

// do sends a command, and gives the reply to it; pushes on the way wait.
func (c *client) do(command string) reply {
	c.t.Helper()
	c.send(command)
	var pushes []reply
	for {
		r, err := c.next()
		if err != nil {
			c.t.Fatalf("%s: %v", command, err)
		}
		if r.ID == c.id {
			c.in = append(pushes, c.in...)
			return r
		}
		pushes = append(pushes, r)
	}
}

// code is the error of a reply; 0 for none.
func (r *reply) code() int {
	if r.Error == nil {
		return 0
	}
	return r.Error.Code
}

// pub waits for the next publication.
func (c *client) pub() string {
	c.t.Helper()
	for {
		r, err := c.next()
		if err != nil {
			c.t.Fatal(err)
		}
		if r.Push.Pub != nil {
			return string(r.Push.Pub.Data)
		}
	}
}

func (c *client) subscribe(channel string) {
	c.t.Helper()
	if r := c.do(fmt.Sprintf(`"subscribe":{"channel":%q}`, channel)); r.code() != 0 {
		c.t.Fatalf("subscribe to %s: error %d", channel, r.code())
	}
}

// post calls the API.
func (p *port) post(t *testing.T, method, body string, edit ...func(*http.Request)) (status int, answer string, header http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL("/broadcast/"+method), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	for _, f := range edit {
		f(req)
	}
	res, err := p.HTTP2().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(b)), res.Header
}

func (p *port) publish(t *testing.T, channel, data string) {
	t.Helper()
	if status, answer, _ := p.post(t, "publish", fmt.Sprintf(`{"channel":%q,"data":%s}`, channel, data)); status != http.StatusOK {
		t.Fatalf("publish: %d %s", status, answer)
	}
}

// events reads Server-Sent Events, until the test ends.
type events struct {
	t   *testing.T
	res *http.Response
	in  *bufio.Reader
}

type sent struct{ event, id, data string }

func (p *port) stream(t *testing.T, query, last string) *events {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 90*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL("/broadcast/stream?"+query), nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	res, err := p.HTTP1().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return &events{t, res, bufio.NewReader(res.Body)}
}

// next gives the next event; comments and the advice to come back are left out.
func (e *events) next() sent {
	e.t.Helper()
	s, err := e.read()
	if err != nil {
		e.t.Fatal(err)
	}
	return s
}

func (e *events) read() (s sent, err error) {
	for {
		line, err := e.in.ReadString('\n')
		if err != nil {
			return s, err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "event":
			s.event = value
		case "id":
			s.id = value
		case "data":
			s.data = value
		case "":
			if s.data != "" {
				return s, nil
			}
		}
	}
}

// follow reads the data of n publications, and comes back with the last id when a stream ends.
func (p *port) follow(t *testing.T, query string, begun *events, last string, n int) (list []string) {
	t.Helper()
	e := begun
	for end := time.Now().Add(60 * time.Second); len(list) < n && time.Now().Before(end); {
		s, err := e.read()
		switch {
		case err != nil:
			_ = e.res.Body.Close()
			e = p.stream(t, query, last)
			continue
		case s.id != "":
			last = s.id
		}
		if s.event == "" {
			list = append(list, data(t, s.data))
		}
	}
	return list
}

// of waits for the next event of a name.
func (e *events) of(name string) sent {
	e.t.Helper()
	for {
		if s := e.next(); s.event == name {
			return s
		}
	}
}
