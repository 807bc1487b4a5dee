package broadcast_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	broadcastv1 "github.com/oneport-edge/oneport/proto/oneport/broadcast/v1"
	"github.com/oneport-edge/oneport/router/broadcast"
)

func TestAPIRefusals(t *testing.T) {
	p := start(t, broadcast.Options{MessageSize: 100})
	large := fmt.Sprintf("%q", strings.Repeat("x", 100))
	for _, tt := range []struct {
		name, method, body string
		edit               func(*http.Request)
		status             int
		code               string
	}{
		{"no token", "publish", `{}`, func(r *http.Request) { r.Header.Del("Authorization") }, 401, "unauthenticated"},
		{"a wrong token", "publish", `{}`, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token+"x") }, 401, "unauthenticated"},
		{"another scheme", "publish", `{}`, func(r *http.Request) { r.Header.Set("Authorization", "Basic "+token) }, 401, "unauthenticated"},
		{"no method", "shout", `{}`, nil, 404, "not_found"},
		{"GET", "publish", `{}`, func(r *http.Request) { r.Method = http.MethodGet }, 405, "method_not_allowed"},
		{"a form", "publish", `a=b`, func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, 415, "unsupported_media_type"},
		{"no JSON", "publish", `{"channel"`, nil, 400, "malformed"},
		{"more than one value", "publish", `{"channel":"log:a","data":1} {}`, nil, 400, "malformed"},
		{"an unknown name", "publish", `{"channel":"log:a","date":1}`, nil, 400, "malformed"},
		{"no data", "publish", `{"channel":"log:a"}`, nil, 400, "malformed"},
		{"no channel", "publish", `{"data":1}`, nil, 404, "unknown_channel"},
		{"an unknown namespace", "publish", `{"channel":"sport:a","data":1}`, nil, 404, "unknown_channel"},
		{"a channel that is no name", "publish", `{"channel":"log:a\u0000b","data":1}`, nil, 404, "unknown_channel"},
		{"a channel that is long", "publish", fmt.Sprintf(`{"channel":"log:%s","data":1}`, strings.Repeat("a", 300)), nil, 404, "unknown_channel"},
		{"a large message", "publish", fmt.Sprintf(`{"channel":"log:a","data":%s}`, large), nil, 413, "too_big"},
		{"a large body", "publish", strings.Repeat(" ", 100_000), nil, 413, "too_big"},
		{"a long key", "publish", fmt.Sprintf(`{"channel":"log:a","data":1,"idempotency_key":%q}`, strings.Repeat("k", 129)), nil, 400, "malformed"},
		{"two keys", "publish", `{"channel":"log:a","data":1,"idempotency_key":"a"}`, func(r *http.Request) { r.Header.Set("Idempotency-Key", "b") }, 400, "malformed"},
		{"an empty batch", "publish_batch", `{"publications":[]}`, nil, 400, "malformed"},
		{"presence without", "presence", `{"channel":"log:a"}`, nil, 400, "malformed"},
		{"history without", "history", `{"channel":"inbox:#a"}`, nil, 400, "malformed"},
		{"too much history", "history", `{"channel":"log:a","limit":1001}`, nil, 400, "malformed"},
		{"history of another epoch", "history", `{"channel":"log:a","since":{"offset":1,"epoch":"none"}}`, nil, 400, "malformed"},
		{"disconnect nobody", "disconnect", `{}`, nil, 400, "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			edit := tt.edit
			if edit == nil {
				edit = func(*http.Request) {}
			}
			status, answer, _ := p.post(t, tt.method, tt.body, edit)
			if status != tt.status || !strings.Contains(answer, `{"error":{"code":"`+tt.code+`"`) {
				t.Errorf("%d %s, want %d %s", status, answer, tt.status, tt.code)
			}
		})
	}
	// Of a batch each has a result of its own.
	_, answer, _ := p.post(t, "publish_batch", `{"publications":[{"channel":"log:b","data":1},{"channel":"sport:b","data":1},{"channel":"log:b","data":2}]}`)
	if !strings.Contains(answer, `{"results":[{"offset":1,`) || !strings.Contains(answer, `unknown_channel`) || !strings.Contains(answer, `{"offset":2,`) {
		t.Errorf("a batch: %s", answer)
	}
}

func TestGRPCRefusals(t *testing.T) {
	p := start(t, broadcast.Options{MessageSize: 100})
	api := broadcastv1.NewBroadcastClient(p.GRPC())
	publish := func(channel, data string) error {
		_, err := api.Publish(asPublisher(t.Context()), &broadcastv1.PublishRequest{Channel: channel, Data: []byte(data)})
		return err
	}
	subscribe := func(ctx context.Context, channels ...string) error {
		s, err := api.Subscribe(ctx, &broadcastv1.SubscribeRequest{Channels: channels})
		if err == nil {
			_, err = s.Recv()
		}
		return err
	}
	_, unauthenticated := api.History(t.Context(), &broadcastv1.HistoryRequest{Channel: "log:a"})
	for _, tt := range []struct {
		name string
		err  error
		want codes.Code
	}{
		{"no token", unauthenticated, codes.Unauthenticated},
		{"an unknown namespace", publish("sport:a", "1"), codes.NotFound},
		{"no JSON", publish("log:a", "x"), codes.InvalidArgument},
		{"a large message", publish("log:a", `"`+strings.Repeat("x", 100)+`"`), codes.ResourceExhausted},
		{"no channel", subscribe(t.Context()), codes.InvalidArgument},
		{"a channel for nobody", subscribe(t.Context(), "closed:a"), codes.PermissionDenied},
		{"a publisher may", subscribe(asPublisher(t.Context()), "closed:a"), codes.OK},
		{"an unknown channel", subscribe(t.Context(), "sport:a"), codes.NotFound},
	} {
		if got := status.Code(tt.err); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, tt.err, tt.want)
		}
	}
}

func TestStreamRefusals(t *testing.T) {
	p := start(t, broadcast.Options{})
	many := "channel=log:0"
	for i := range 16 {
		many += fmt.Sprintf("&channel=log:%d", i+1)
	}
	for query, want := range map[string]int{
		"": 400, many: 400, "channel=log:a&channel=log:a": 400, "channel=sport:a": 404, "channel=": 404, "channel=closed:a": 403, "channel=staff:a": 403,
		"channel=inbox:%23alice": 403, "channel=log:a&since=1": 400, "channel=log:a&since=x:y": 400, "channel=log:a&since=1:a,2:b": 400,
		"channel=log:a&since=" + strings.Repeat("1", 5000): 400,
	} {
		res := p.stream(t, query, "").res
		if res.StatusCode != want {
			t.Errorf("%.40q: %d, want %d", query, res.StatusCode, want)
		}
	}
	// Over a WebSocket the session ends.
	c := p.WebSocket("/broadcast/stream?channel=closed:a")
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, 1008) {
		t.Errorf("%v, want 1008", err)
	}
}

// Who may, namespaces say: rules by identity and claim.
func TestRules(t *testing.T) {
	p := start(t, broadcast.Options{})
	alice, editor, nobody := p.client(t, "alice"), p.client(t, "editor"), p.client(t, "")
	for _, tt := range []struct {
		who     *client
		command string
		want    int
	}{
		{nobody, `"subscribe":{"channel":"news:a"}`, 0},
		{nobody, `"subscribe":{"channel":"staff:a"}`, 103},
		{alice, `"subscribe":{"channel":"staff:a"}`, 0},
		{alice, `"subscribe":{"channel":"inbox:#alice"}`, 0},
		{alice, `"subscribe":{"channel":"inbox:#bob,alice"}`, 0},
		{alice, `"subscribe":{"channel":"inbox:#bob"}`, 103},
		{alice, `"subscribe":{"channel":"inbox:alice"}`, 103},
		{nobody, `"subscribe":{"channel":"inbox:#"}`, 103},
		{alice, `"subscribe":{"channel":"closed:a"}`, 103},
		{alice, `"subscribe":{"channel":"sport:a"}`, 102},
		{alice, `"publish":{"channel":"news:a","data":1}`, 103},
		{editor, `"publish":{"channel":"news:a","data":1}`, 0},
		{editor, `"publish":{"channel":"log:a","data":1}`, 103},
		{alice, `"publish":{"channel":"plain","data":1}`, 0},
		{alice, `"publish":{"channel":"sport:a","data":1}`, 102},
		{alice, `"presence":{"channel":"news:a"}`, 103}, // not subscribed
		{nobody, `"presence":{"channel":"news:a"}`, 0},
		{alice, `"presence":{"channel":"staff:a"}`, 108},
		{alice, `"history":{"channel":"staff:a","limit":1}`, 108},
		{alice, `"rpc":{"method":"x"}`, 108},
	} {
		if r := tt.who.do(tt.command); r.code() != tt.want {
			t.Errorf("%s: error %d, want %d", tt.command, r.code(), tt.want)
		}
	}
}

// What no client sends ends its session, and nobody else's.
func TestBadFrames(t *testing.T) {
	p := start(t, broadcast.Options{MessageSize: 1000})
	witness := p.client(t, "")
	witness.subscribe("log:a")
	for name, tt := range map[string]struct {
		frame string
		want  int
	}{
		"no JSON":        {`{"id":`, 3501},
		"no command":     {`{"id":1}`, 3501},
		"not connected":  {`{"id":1,"publish":{"channel":"plain","data":1}}`, 3501},
		"nothing":        {" ", 3501},
		"a large frame":  {`{"id":1,"connect":{"name":"` + strings.Repeat("x", 10_000) + `"}}`, 1009},
		"a deep command": {`{"id":1,"connect":{"data":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}}`, 0},
	} {
		c := p.WebSocket("/connection/websocket")
		if err := c.WriteMessage(websocket.TextMessage, []byte(tt.frame)); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, _, err := c.ReadMessage(); tt.want != 0 && !websocket.IsCloseError(err, tt.want) {
			t.Errorf("%s: %v, want %d", name, err, tt.want)
		}
	}
	p.publish(t, "log:a", "1")
	if got := witness.pub(); got != "1" {
		t.Errorf("the witness has %s", got)
	}
}

// 10,000 subscriptions of one connection: all but 128 are refused, and the rest go on.
func TestManySubscriptions(t *testing.T) {
	p := start(t, broadcast.Options{})
	c := p.client(t, "")
	const many = 10_000
	go func() {
		for i := range many {
			_ = c.c.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"id":%d,"subscribe":{"channel":"log:%d"}}`, i+2, i))
		}
	}()
	good, refused := 0, 0
	for good+refused < many {
		r, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		switch r.code() {
		case 0:
			good++
		case 106:
			refused++
		default:
			t.Fatalf("error %d", r.code())
		}
	}
	if good != 128 || refused != many-128 {
		t.Errorf("%d let in, %d refused", good, refused)
	}
	p.publish(t, "log:1", "1")
	if got := c.pub(); got != "1" {
		t.Errorf("got %s", got)
	}
}

// Who does not read is dropped with 1013 and counted; who does has everything.
func TestSlowReader(t *testing.T) {
	p := start(t, broadcast.Options{Queue: 64 << 10})
	slow := p.client(t, "")
	slow.subscribe("log:a")
	socket := p.WebSocket("/broadcast/stream?channel=log:a")
	quick := p.client(t, "")
	quick.subscribe("log:a")
	data := `"` + strings.Repeat("x", 30_000) + `"`
	const n = 100
	for range n {
		p.publish(t, "log:a", data)
		if got := quick.pub(); got != data {
			t.Fatal("the quick one has something else")
		}
	}
	for name, c := range map[string]*websocket.Conn{"centrifuge": slow.c, "socket": socket} {
		for {
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, _, err := c.ReadMessage()
			if err == nil {
				continue
			}
			if !websocket.IsCloseError(err, 1013) && !strings.Contains(err.Error(), "EOF") { // it has a second to take the close frame
				t.Errorf("%s: %v, want 1013", name, err)
			}
			break
		}
	}
	if got := p.Server.Stats().Sessions.Slow; got != 2 {
		t.Errorf("%d counted, want 2", got)
	}
}

// Data that has line breaks between its tokens is one line, for centrifuge's protocol and
// for events.
func TestLineBreaks(t *testing.T) {
	p := start(t, broadcast.Options{})
	c := p.client(t, "")
	c.subscribe("log:a")
	sse := p.stream(t, "channel=log:a", "")
	sse.of("subscribed")
	p.publish(t, "log:a", "{\n\t\"a\": \"b\\n\",\r\n \"c\": []\n}")
	const want = `{"a":"b\n","c":[]}`
	if got := c.pub(); got != want {
		t.Errorf("centrifuge: %s, want %s", got, want)
	}
	if got := data(t, sse.of("").data); got != want {
		t.Errorf("events: %s, want %s", got, want)
	}
}

func TestOptionsThatAreWrong(t *testing.T) {
	good := namespaces()
	for name, o := range map[string]broadcast.Options{
		"no namespace":        {},
		"twice":               {Namespaces: append(namespaces(), broadcast.Namespace{Name: "news"})},
		"a colon":             {Namespaces: []broadcast.Namespace{{Name: "a:b"}}},
		"half a history":      {Namespaces: []broadcast.Namespace{{HistorySize: 1}}},
		"recovery of nothing": {Namespaces: []broadcast.Namespace{{Recovery: true}}},
		"a short token":       {Namespaces: good, Tokens: []string{"secret"}},
		"below zero":          {Namespaces: good, Queue: -1},
		"no Redis":            {Namespaces: good, Redis: &broadcast.Redis{}},
	} {
		if hub, err := broadcast.New(o); err == nil {
			hub.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// Frames of strangers: whatever comes, the session answers or ends, and the next one works.
func FuzzFrames(f *testing.F) {
	for _, s := range []string{`{"id":1,"connect":{}}`, "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"log:a\",\"recover\":true,\"epoch\":\"x\",\"offset\":1}}", "{}", "\x04\x08\x01\x22\x00"} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	p := start(f, broadcast.Options{})
	f.Fuzz(func(t *testing.T, frame []byte, binary bool) {
		header := http.Header{}
		if binary {
			header.Set("Sec-WebSocket-Protocol", "centrifuge-protobuf")
		}
		c, _, err := p.DialWebSocket(t.Context(), "/connection/websocket", header)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		typ := websocket.TextMessage
		if binary {
			typ = websocket.BinaryMessage
		}
		for _, part := range bytes.SplitAfter(frame, []byte("\x1e")) {
			_ = c.WriteMessage(typ, part)
		}
		_ = c.WriteControl(websocket.CloseMessage, nil, time.Now().Add(time.Second))
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		for {
			if _, _, err := c.ReadMessage(); err != nil {
				if strings.Contains(err.Error(), "timeout") {
					t.Error(err)
				}
				return
			}
		}
	})
}

// Positions of strangers.
func FuzzStream(f *testing.F) {
	for _, s := range []string{"1:abcd", "1:abcd,2:efgh", "", ",", "18446744073709551615:x", "1:\x00"} {
		f.Add(s)
	}
	p := start(f, broadcast.Options{})
	web := p.HTTP2()
	f.Fuzz(func(t *testing.T, since string) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL("/broadcast/stream"), nil)
		if err != nil {
			t.Fatal(err)
		}
		q := req.URL.Query()
		q["channel"], q["since"] = []string{"log:a", "plain"}, []string{since}
		req.URL.RawQuery = q.Encode()
		res, err := web.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: %d", since, res.StatusCode)
		}
	})
}
