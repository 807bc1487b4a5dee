package broadcast_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	broadcastv1 "github.com/oneport-edge/oneport/proto/oneport/broadcast/v1"
	"github.com/oneport-edge/oneport/router/broadcast"
)

// asPublisher adds the token to calls of gRPC.
func asPublisher(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// subscribeGRPC opens a stream, and waits until it is subscribed.
func subscribeGRPC(t *testing.T, p *port, r *broadcastv1.SubscribeRequest) grpc.ServerStreamingClient[broadcastv1.SubscribeResponse] {
	t.Helper()
	s, err := broadcastv1.NewBroadcastClient(p.GRPC()).Subscribe(asPublisher(t.Context()), r)
	if err != nil {
		t.Fatal(err)
	}
	for range r.GetChannels() {
		if m, err := s.Recv(); err != nil || m.GetSubscribed() == nil {
			t.Fatalf("%v, %v: want subscribed", m, err)
		}
	}
	return s
}

// receiver gives the data of the next publication, by one of the four ways out.
type receiver struct {
	name string
	next func() string
}

func data(t *testing.T, text string) string {
	t.Helper()
	var w struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return string(w.Data)
}

// receivers subscribe to a channel by all four ways.
func receivers(t *testing.T, p *port, channel string) []receiver {
	t.Helper()
	c := p.client(t, "")
	c.subscribe(channel)
	sse := p.stream(t, "channel="+channel, "")
	sse.of("subscribed")
	socket := p.WebSocket("/broadcast/stream?channel=" + channel)
	read := func() string {
		for {
			_ = socket.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, b, err := socket.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), `"subscribed"`) || strings.Contains(string(b), `"data"`) {
				return string(b)
			}
		}
	}
	if s := read(); !strings.Contains(s, `"subscribed"`) {
		t.Fatalf("%q: want subscribed first", s)
	}
	stream := subscribeGRPC(t, p, &broadcastv1.SubscribeRequest{Channels: []string{channel}})
	return []receiver{
		{"centrifuge", c.pub},
		{"events", func() string { return data(t, sse.of("").data) }},
		{"socket", func() string { return data(t, read()) }},
		{"grpc", func() string {
			for {
				m, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				if pub := m.GetPublication(); pub != nil {
					return string(pub.GetData())
				}
			}
		}},
	}
}

// publishers publish to a channel by all ways in.
func publishers(t *testing.T, p *port, channel string) []func(data string) {
	t.Helper()
	editor := p.client(t, "editor")
	api := broadcastv1.NewBroadcastClient(p.GRPC())
	return []func(string){
		func(data string) { p.publish(t, channel, data) },
		func(data string) {
			if _, err := api.Publish(asPublisher(t.Context()), &broadcastv1.PublishRequest{Channel: channel, Data: []byte(data)}); err != nil {
				t.Fatal(err)
			}
		},
		func(data string) {
			if r := editor.do(fmt.Sprintf(`"publish":{"channel":%q,"data":%s}`, channel, data)); r.code() != 0 {
				t.Fatalf("publish: error %d", r.code())
			}
		},
	}
}

// inOrder publishes by all ways in at one port, and looks whether all ways out of another
// have all of it in order.
func inOrder(t *testing.T, from, to *port, channel string, rounds int) {
	t.Helper()
	ins, outs := publishers(t, from, channel), receivers(t, to, channel)
	n := 0
	for range rounds {
		for _, in := range ins {
			in(fmt.Sprintf(`{"n":%d}`, n))
			n++
		}
	}
	for _, out := range outs {
		for i := range n {
			if got, want := out.next(), fmt.Sprintf(`{"n":%d}`, i); got != want {
				t.Fatalf("%s: message %d is %s, want %s", out.name, i, got, want)
			}
		}
	}
}

func TestFourWaysInOrder(t *testing.T) {
	for _, gather := range []time.Duration{0, 2 * time.Millisecond} {
		t.Run(gather.String(), func(t *testing.T) {
			p := start(t, broadcast.Options{Gather: gather})
			inOrder(t, p, p, "news:today", 10)
		})
	}
}

func TestRecovery(t *testing.T) {
	p := start(t, broadcast.Options{})
	sse := p.stream(t, "channel=log:a&channel=plain&channel=log:b", "")
	for range 3 {
		sse.of("subscribed")
	}
	p.publish(t, "log:a", `1`)
	first := sse.of("")
	_ = sse.res.Body.Close()
	for _, d := range []string{"2", "3"} {
		p.publish(t, "log:a", d)
	}
	p.publish(t, "log:b", `"b"`)

	again := p.stream(t, "channel=log:a&channel=plain&channel=log:b", first.id)
	got := map[string][]string{}
	recovered := 0
	for range 6 {
		s := again.next()
		var w struct {
			Channel    string          `json:"channel"`
			Data       json.RawMessage `json:"data"`
			Subscribed *struct {
				Recovered bool `json:"recovered"`
			} `json:"subscribed"`
		}
		if err := json.Unmarshal([]byte(s.data), &w); err != nil {
			t.Fatal(err)
		}
		if w.Subscribed == nil {
			got[w.Channel] = append(got[w.Channel], string(w.Data))
		} else if w.Subscribed.Recovered {
			recovered++
		}
	}
	if a, b := strings.Join(got["log:a"], " "), strings.Join(got["log:b"], " "); a != "2 3" || b != `"b"` || recovered != 2 {
		t.Errorf("log:a has %s, log:b %s, %d recovered; want 2 3, \"b\" and 2", a, b, recovered)
	}

	// Nor is more than a client may be given at once: a part of it would be a gap.
	for i := range 1001 {
		if _, err := p.hub.Publish(t.Context(), broadcast.Message{Channel: "long:a", Data: strconv.AppendInt(nil, int64(i), 10)}); err != nil {
			t.Fatal(err)
		}
	}
	_, at, err := p.hub.History(t.Context(), "long:a", broadcast.HistoryOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	for offset, want := range map[int]bool{0: false, 1: true} {
		s := p.stream(t, "channel=long:a", fmt.Sprintf("%d:%s", offset, at.Epoch)).of("subscribed")
		if got := strings.Contains(s.data, `"recovered":true`); got != want {
			t.Errorf("%d of 1001 missed: %s", 1001-offset, s.data)
		}
	}

	// A position of another epoch cannot be recovered, and says so.
	lost := p.stream(t, "channel=log:a", "1:none")
	if s := lost.of("subscribed"); strings.Contains(s.data, "recovered") {
		t.Errorf("%s: want nothing recovered", s.data)
	}

	// Centrifuge's protocol does the same.
	c := p.client(t, "")
	offset, epoch, _ := strings.Cut(strings.Split(first.id, ",")[0], ":")
	r := c.do(fmt.Sprintf(`"subscribe":{"channel":"log:a","recover":true,"offset":%s,"epoch":%q}`, offset, epoch))
	if len(r.Subscribe.Publications) != 2 || !r.Subscribe.Recovered {
		t.Errorf("%+v: want two publications recovered", r.Subscribe)
	}

	// And gRPC.
	s := subscribeGRPC(t, p, &broadcastv1.SubscribeRequest{Channels: []string{"log:a"}, Since: map[string]*broadcastv1.Position{"log:a": {Offset: 2, Epoch: epoch}}})
	if m, err := s.Recv(); err != nil || string(m.GetPublication().GetData()) != "3" {
		t.Errorf("%v, %v: want 3", m, err)
	}
}

func TestIdempotency(t *testing.T) {
	p := start(t, broadcast.Options{})
	c := p.client(t, "")
	c.subscribe("log:a")
	body := `{"channel":"log:a","data":1,"idempotency_key":"k"}`
	_, one, _ := p.post(t, "publish", body)
	_, two, _ := p.post(t, "publish", `{"channel":"log:a","data":1}`, func(r *http.Request) { r.Header.Set("Idempotency-Key", "k") })
	if one != two || !strings.Contains(one, `"offset":1`) {
		t.Errorf("%s, then %s: want the same position", one, two)
	}
	p.publish(t, "log:a", `2`)
	if a, b := c.pub(), c.pub(); a != "1" || b != "2" {
		t.Errorf("%s %s: want 1 2", a, b)
	}
}

func TestPresenceJoinLeaveHistoryDisconnect(t *testing.T) {
	p := start(t, broadcast.Options{})
	watch := p.stream(t, "channel=news:today", "")
	watch.of("subscribed")
	alice := p.client(t, "alice")
	alice.subscribe("news:today")
	if s := watch.of("join"); !strings.Contains(s.data, `"user":"alice"`) && !strings.Contains(watch.of("join").data, `"user":"alice"`) {
		t.Errorf("%s: want alice", s.data)
	}
	if _, answer, _ := p.post(t, "presence", `{"channel":"news:today"}`); !strings.Contains(answer, `"user":"alice"`) {
		t.Errorf("presence: %s", answer)
	}
	if r := alice.do(`"presence":{"channel":"news:today"}`); !strings.Contains(string(r.Presence), "alice") {
		t.Errorf("presence: %s", r.Presence)
	}
	p.publish(t, "news:today", `"one"`)
	p.publish(t, "news:today", `"two"`)
	if _, answer, _ := p.post(t, "history", `{"channel":"news:today","limit":1,"reverse":true}`); !strings.Contains(answer, `[{"offset":2,"data":"two"}],"offset":2,"epoch"`) {
		t.Errorf("history: %s", answer)
	}
	if r := alice.do(`"history":{"channel":"news:today","limit":10}`); !strings.Contains(string(r.History), `"one"`) {
		t.Errorf("history: %s", r.History)
	}
	if status, answer, _ := p.post(t, "disconnect", `{"user":"alice"}`); status != http.StatusOK {
		t.Fatalf("disconnect: %d %s", status, answer)
	}
	for {
		if _, err := alice.next(); err != nil {
			if !websocket.IsCloseError(err, 3503) {
				t.Errorf("%v: want 3503", err)
			}
			break
		}
	}
	if s := watch.of("leave"); !strings.Contains(s.data, `"user":"alice"`) {
		t.Errorf("%s: want alice", s.data)
	}
}

func TestProtobufAndPing(t *testing.T) {
	p := start(t, broadcast.Options{})
	c, res, err := p.DialWebSocket(t.Context(), "/connection/websocket", http.Header{"Sec-Websocket-Protocol": {"centrifuge-protobuf"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := res.Header.Get("Sec-WebSocket-Protocol"); got != "centrifuge-protobuf" {
		t.Errorf("the subprotocol is %q", got)
	}
	// Command{id: 1, connect: {}} and its length.
	if err := c.WriteMessage(websocket.BinaryMessage, []byte{4, 0x08, 1, 0x22, 0}); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	typ, b, err := c.ReadMessage()
	if err != nil || typ != websocket.BinaryMessage || int(b[0]) != len(b)-1 || b[1] != 0x08 || b[2] != 1 {
		t.Errorf("%d %x, %v: want a reply with its length", typ, b, err)
	}
}
