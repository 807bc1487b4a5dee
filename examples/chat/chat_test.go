package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/oneport-edge/oneport/examples/chat/chatpb"
	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/router/auth"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	// Of centrifuge's and its Redis client's: nobody waits for them, and they end within seconds of their node's end.
	goleak.VerifyTestMain(
		m,
		goleak.IgnoreAnyFunction("github.com/centrifugal/centrifuge.(*Node).unsubscribeFromBrokerWhenEmpty.func1"),
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"),
	)
}

// chat is an instance for tests.
type chat struct {
	*oneporttest.Port
	t    *testing.T
	app  *app
	rest *http.Client
	grpc chatpb.FeedClient
}

func start(t *testing.T, redis ...string) chat {
	t.Helper()
	key, err := auth.GenerateKey("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	a, err := newApp(options{redis: strings.Join(redis, ""), key: key, log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	over, ended := make(chan struct{}), make(chan error)
	go func() { ended <- a.run(func() error { <-over; return nil }) }()
	t.Cleanup(func() { close(over); <-ended }) // after the port's own
	port := oneporttest.Start(t, a.srv)
	c := chat{port, t, a, port.HTTP2(), chatpb.NewFeedClient(port.GRPC())}
	c.rest.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

func (c chat) token(name string) string {
	c.t.Helper()
	res, body := c.do(http.MethodPost, "/api/token", jsonOf(c.t, map[string]string{"name": name}), http.Header{})
	if res.StatusCode != http.StatusOK {
		c.t.Fatalf("%d %s", res.StatusCode, body)
	}
	return body
}

// bearer is how a program brings its token, if it has one.
func bearer(token string) http.Header {
	if token == "" {
		return http.Header{}
	}
	return http.Header{"Authorization": {"Bearer " + token}}
}

// as is the same for gRPC.
func (c chat) as(token string) context.Context {
	if token == "" {
		return c.t.Context()
	}
	return metadata.AppendToOutgoingContext(c.t.Context(), "authorization", "Bearer "+token)
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// do asks by REST.
func (c chat) do(method, path, body string, header http.Header) (*http.Response, string) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.URL(path), strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(req.Header, header)
	res, err := c.rest.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return res, string(b)
}

// say says something by REST.
func (c chat) say(token, room, text string) (m message, status int) {
	c.t.Helper()
	res, body := c.do(http.MethodPost, "/api/rooms/"+room+"/messages", jsonOf(c.t, map[string]string{"text": text}), bearer(token))
	if err := json.Unmarshal([]byte(body), &m); err != nil && res.StatusCode == http.StatusCreated {
		c.t.Fatal(err)
	}
	return m, res.StatusCode
}

// said is what REST shows of a room.
func (c chat) said(token, room string) []string {
	c.t.Helper()
	var answer struct {
		Messages []message `json:"messages"`
	}
	res, body := c.do(http.MethodGet, "/api/rooms/"+room+"/messages", "", bearer(token))
	if err := json.Unmarshal([]byte(body), &answer); err != nil || res.StatusCode != http.StatusOK {
		c.t.Fatalf("%d %s", res.StatusCode, body)
	}
	var lines []string
	for _, m := range answer.Messages {
		lines = append(lines, m.line())
	}
	return lines
}

// line is what a test compares: everything but id and time.
func (m message) line() string {
	return strings.TrimSpace(m.Name + " " + m.Kind + " " + m.Text + " " + m.Via)
}

// person is somebody with centrifuge's protocol.
type person struct {
	t      *testing.T
	socket *websocket.Conn
	id     int
	pushes []push
}

type publication struct {
	Data   json.RawMessage `json:"data"`
	Info   *info           `json:"info"`
	Offset uint64          `json:"offset"`
}

type info struct {
	User string `json:"user"`
}

// push is what comes by itself: one of three.
type push struct {
	Pub   *publication `json:"pub"`
	Join  *presence    `json:"join"`
	Leave *presence    `json:"leave"`
}

type presence struct {
	Info info `json:"info"`
}

type subscribed struct {
	Recovered    bool          `json:"recovered"`
	Offset       uint64        `json:"offset"`
	Epoch        string        `json:"epoch"`
	Publications []publication `json:"publications"`
}

// connect opens a session with further header fields.
func (c chat) connect(header http.Header) *person {
	c.t.Helper()
	socket, _, err := c.DialWebSocket(c.t.Context(), "/connection/websocket", header)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = socket.Close() })
	p := &person{t: c.t, socket: socket}
	p.ask("connect", map[string]any{}, nil)
	return p
}

// join has somebody in a room, who has heard of that.
func (c chat) join(name, room string) *person {
	c.t.Helper()
	p := c.connect(bearer(c.token(name)))
	p.ask("subscribe", map[string]any{"channel": "room:" + room}, nil)
	if got := p.next(); got != name+" joined" {
		c.t.Fatalf("%s was told %q", name, got)
	}
	return p
}

// ask sends a command, and reads until it is answered.
func (p *person) ask(method string, params, answer any) {
	p.t.Helper()
	if err := p.try(method, params, answer); err != "" {
		p.t.Fatalf("%s: %s", method, err)
	}
}

func (p *person) try(method string, params, answer any) (problem string) {
	p.t.Helper()
	p.id++
	if err := p.socket.WriteJSON(map[string]any{"id": p.id, method: params}); err != nil {
		p.t.Fatal(err)
	}
	for {
		for _, m := range p.read() {
			if m["id"] == nil {
				continue
			}
			if e := m["error"]; e != nil {
				return string(e)
			}
			if answer != nil {
				if err := json.Unmarshal(m[method], answer); err != nil {
					p.t.Fatal(err)
				}
			}
			return ""
		}
	}
}

// read reads a frame; pushes wait for next.
func (p *person) read() (lines []map[string]json.RawMessage) {
	p.t.Helper()
	_, frame, err := p.socket.ReadMessage()
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range bytes.Lines(frame) {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(line, &m); err != nil {
			p.t.Fatalf("%s: %v", line, err)
		}
		if m["push"] != nil {
			var one push
			if err := json.Unmarshal(m["push"], &one); err != nil {
				p.t.Fatal(err)
			}
			p.pushes = append(p.pushes, one)
		}
		lines = append(lines, m)
	}
	return lines
}

func (p *publication) line() string {
	var data said
	if err := json.Unmarshal(p.Data, &data); err != nil {
		return err.Error()
	}
	if p.Info != nil {
		return p.Info.User + " said " + data.Text + " websocket"
	}
	return data.Name + " said " + data.Text + " " + data.Via
}

// next is what happens next in the rooms.
func (p *person) next() string {
	p.t.Helper()
	for len(p.pushes) == 0 {
		p.read()
	}
	one := p.pushes[0]
	p.pushes = p.pushes[1:]
	switch {
	case one.Pub != nil:
		return one.Pub.line()
	case one.Join != nil:
		return one.Join.Info.User + " joined"
	case one.Leave != nil:
		return one.Leave.Info.User + " left"
	}
	return "?"
}

func (p *person) say(room, text string) {
	p.t.Helper()
	p.ask("publish", map[string]any{"channel": "room:" + room, "data": said{Text: text, Time: time.Now().UnixMilli()}}, nil)
}

// feed is Watch in a room, which listens when this returns.
func (c chat) feed(token, room string) grpc.ServerStreamingClient[chatpb.WatchResponse] {
	c.t.Helper()
	stream, err := c.grpc.Watch(c.as(token), &chatpb.WatchRequest{Room: room})
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		c.t.Fatal(err)
	}
	return stream
}

func nextOf(t *testing.T, stream grpc.ServerStreamingClient[chatpb.WatchResponse]) string {
	t.Helper()
	res, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	m := res.GetMessage()
	return message{Kind: m.GetKind(), Name: m.GetName(), Text: m.GetText(), Via: m.GetVia()}.line()
}

// post says something by gRPC.
func (c chat) post(token, room, text string) (*chatpb.PostResponse, error) {
	return c.grpc.Post(c.as(token), &chatpb.PostRequest{Room: room, Text: text})
}

// What is said by each protocol is seen by each, in one order, and stays in its room.
func TestThreeWaysInAndOut(t *testing.T) {
	c := start(t)
	cleo, gus := c.token("Cleo"), c.token("Gus")
	ann := c.join("Ann", "lobby")
	if m, code := c.say(cleo, "lobby", "by REST"); code != http.StatusCreated || m.ID != 1 || m.line() != "Cleo said by REST http" {
		t.Errorf("POST: %d, %d %s", code, m.ID, m.line())
	}
	c.say(cleo, "kitchen", "elsewhere")
	feed := c.feed(gus, "lobby") // begins with history; who watches is there
	bob := c.join("Björn", "lobby")
	res, err := c.post(gus, "lobby", "by gRPC")
	if err != nil || res.GetMessage().GetId() != 2 || time.Since(res.GetMessage().GetTime().AsTime()) > time.Minute {
		t.Errorf("Post: %v, %v", res, err)
	}
	bob.say("lobby", "by WebSocket")

	tail := []string{"Björn joined", "Gus said by gRPC grpc", "Björn said by WebSocket websocket"}
	for who, tt := range map[string]struct {
		next func() string
		want []string
	}{
		"Ann":   {ann.next, append([]string{"Cleo said by REST http", "Gus joined"}, tail...)},
		"Björn": {bob.next, tail[1:]},
		"Gus":   {func() string { return nextOf(t, feed) }, append([]string{"Cleo said by REST http", "Gus joined"}, tail...)},
	} {
		var got []string
		for range tt.want {
			got = append(got, tt.next())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s saw %q\nwant %q", who, got, tt.want)
		}
	}
	if got, want := c.said(cleo, "lobby"), []string{"Cleo said by REST http", tail[1], tail[2]}; !slices.Equal(got, want) {
		t.Errorf("REST shows %q", got)
	}
	if _, body := c.do(http.MethodGet, "/api/rooms/lobby/people", "", bearer(cleo)); body != `{"people":["Ann","Björn","Gus"]}` {
		t.Errorf("people: %s", body)
	}
	_ = bob.socket.Close()
	if got := ann.next(); got != "Björn left" {
		t.Errorf("after Björn went Ann saw %q", got)
	}
	if got := nextOf(t, feed); got != "Björn left" {
		t.Errorf("after Björn went Gus saw %q", got)
	}
}

// Who comes back gets what was said meanwhile.
func TestRecovery(t *testing.T) {
	c := start(t)
	cleo := c.token("Cleo")
	c.say(cleo, "lobby", "before")
	ann := c.connect(bearer(c.token("Ann")))
	var was, is subscribed
	ann.ask("subscribe", map[string]any{"channel": "room:lobby"}, &was)
	_ = ann.socket.Close()
	c.say(cleo, "lobby", "one")
	if _, err := c.post(cleo, "lobby", "two"); err != nil {
		t.Fatal(err)
	}
	ann = c.connect(bearer(c.token("Ann")))
	ann.ask("subscribe", map[string]any{"channel": "room:lobby", "recover": true, "offset": was.Offset, "epoch": was.Epoch}, &is)
	var got []string
	for i := range is.Publications {
		got = append(got, is.Publications[i].line())
	}
	if want := []string{"Cleo said one http", "Cleo said two grpc"}; !is.Recovered || !slices.Equal(got, want) {
		t.Errorf("recovered: %v, %q", is.Recovered, got)
	}
}
