package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/examples/chat/chatpb"
	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols/ws"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	goleak.VerifyTestMain(m)
}

func start(t *testing.T) *oneporttest.Port {
	t.Helper()
	srv := newServer()
	srv.Log = slog.New(slog.DiscardHandler)
	return oneporttest.Start(t, srv)
}

// line is what a test compares: everything but the time.
func line(id int64, kind, name, text, via string) string {
	return fmt.Sprintf("%d %s %s %q by %s", id, kind, name, text, via)
}

func (m message) line() string { return line(m.ID, m.Kind, m.Name, m.Text, m.Via) }

// person is somebody with a WebSocket.
type person struct {
	t      *testing.T
	socket *websocket.Conn
}

// join enters the room and reads until the own arrival.
func join(t *testing.T, port *oneporttest.Port, name string) (p person, history []message) {
	t.Helper()
	p = person{t, port.WebSocket("/ws")}
	p.send(map[string]string{"name": name})
	for {
		m := p.next()
		if m.Kind == "joined" && m.Name == name {
			return p, history
		}
		history = append(history, m)
	}
}

func (p person) send(v any) {
	p.t.Helper()
	if err := p.socket.WriteJSON(v); err != nil {
		p.t.Fatal(err)
	}
}

func (p person) say(text string) {
	p.t.Helper()
	p.send(map[string]string{"text": text})
}

func (p person) next() (m message) {
	p.t.Helper()
	if err := p.socket.ReadJSON(&m); err != nil {
		p.t.Fatal(err)
	}
	return m
}

// closed reads until the end and gives the close code and reason.
func (p person) closed() (code int, reason string) {
	p.t.Helper()
	for {
		_, _, err := p.socket.ReadMessage()
		if err == nil {
			continue
		}
		ce, ok := errors.AsType[*websocket.CloseError](err)
		if !ok {
			p.t.Fatal(err)
		}
		return ce.Code, ce.Text
	}
}

func postREST(t *testing.T, port *oneporttest.Port, name, text string) (message, int) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"name": name, "text": text})
	if err != nil {
		t.Fatal(err)
	}
	res, err := port.HTTP2().Post(port.URL("/api/messages"), "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var m message
	if err := json.NewDecoder(res.Body).Decode(&m); err != nil {
		t.Fatal(err)
	}
	return m, res.StatusCode
}

func getREST(t *testing.T, port *oneporttest.Port) []message {
	t.Helper()
	res, err := port.HTTP1().Get(port.URL("/api/messages"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct {
		Messages []message `json:"messages"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer.Messages
}

type watch struct {
	t      *testing.T
	stream grpc.ServerStreamingClient[chatpb.WatchResponse]
}

func startWatch(t *testing.T, c chatpb.FeedClient) watch {
	t.Helper()
	stream, err := c.Watch(t.Context(), &chatpb.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil { // it listens now
		t.Fatal(err)
	}
	return watch{t, stream}
}

func (w watch) next() message {
	w.t.Helper()
	res, err := w.stream.Recv()
	if err != nil {
		w.t.Fatal(err)
	}
	m := res.GetMessage()
	return message{m.GetId(), m.GetTime().AsTime(), m.GetKind(), m.GetName(), m.GetText(), m.GetVia()}
}

// ended reads until the end.
func (w watch) ended() error {
	for {
		if _, err := w.stream.Recv(); err != nil {
			return err
		}
	}
}

func lines(ms []message) []string {
	out := make([]string, len(ms))
	for i, m := range ms {
		out[i] = m.line()
	}
	return out
}

// What is posted by each protocol is seen by each, in one order.
func TestThreeWaysInAndOut(t *testing.T) {
	port := start(t)
	client := chatpb.NewFeedClient(port.GRPC())
	ann, _ := join(t, port, "Ann")
	if m, code := postREST(t, port, "Cleo", "by REST"); code != http.StatusCreated || m.line() != line(2, "said", "Cleo", "by REST", "http") {
		t.Errorf("POST: %d, %s", code, m.line())
	}
	feed := startWatch(t, client) // begins with history
	first := feed.next()
	if first.line() != line(2, "said", "Cleo", "by REST", "http") {
		t.Errorf("the feed begins with %s", first.line())
	}
	bob, history := join(t, port, "Bob")
	if !slices.Equal(lines(history), []string{first.line()}) {
		t.Errorf("history: %q", lines(history))
	}
	res, err := client.Post(t.Context(), &chatpb.PostRequest{Name: "Gus", Text: "by gRPC"})
	if err != nil || res.GetMessage().GetId() != 4 {
		t.Errorf("Post: %v, %v", res, err)
	}
	bob.say("by WebSocket") // its echo comes to all, himself included

	want := []string{
		line(2, "said", "Cleo", "by REST", "http"),
		line(3, "joined", "Bob", "", "websocket"),
		line(4, "said", "Gus", "by gRPC", "grpc"),
		line(5, "said", "Bob", "by WebSocket", "websocket"),
	}
	var annSaw, bobSaw []message
	feedSaw := []message{first}
	for range 4 {
		annSaw = append(annSaw, ann.next())
	}
	for range 3 {
		feedSaw = append(feedSaw, feed.next())
	}
	for range 2 {
		bobSaw = append(bobSaw, bob.next())
	}
	if got := lines(annSaw); !slices.Equal(got, want) {
		t.Errorf("Ann saw %q\nwant %q", got, want)
	}
	if got := lines(feedSaw); !slices.Equal(got, want) {
		t.Errorf("the feed saw %q\nwant %q", got, want)
	}
	if got := lines(bobSaw); !slices.Equal(got, want[2:]) {
		t.Errorf("Bob saw %q\nwant %q", got, want[2:])
	}
	if got := lines(getREST(t, port)); !slices.Equal(got, []string{want[0], want[2], want[3]}) {
		t.Errorf("REST shows %q", got)
	}
	for i := range annSaw {
		if !annSaw[i].Time.Equal(feedSaw[i].Time) || time.Since(annSaw[i].Time) > time.Minute {
			t.Errorf("message %d: %v by WebSocket, %v by gRPC", i, annSaw[i].Time, feedSaw[i].Time)
		}
	}

	// Who goes is told to those who stay.
	if err := bob.socket.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(ws.CloseNormal, ""), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, next := range []func() message{ann.next, feed.next} {
		if m := next(); m.line() != line(6, "left", "Bob", "", "websocket") {
			t.Errorf("after Bob went: %s", m.line())
		}
	}
}

// Many at once, in all protocols: everybody sees all of it in one order.
func TestOneOrderForAll(t *testing.T) {
	port := start(t)
	client := chatpb.NewFeedClient(port.GRPC())
	const each = 40
	feed := startWatch(t, client)
	ann, _ := join(t, port, "Ann")
	bob, _ := join(t, port, "Bob")
	ann.next() // Bob joined
	feed.next()
	feed.next()

	var all sync.WaitGroup
	for i := range each {
		all.Go(func() {
			if _, err := client.Post(t.Context(), &chatpb.PostRequest{Name: "Gus", Text: fmt.Sprint(i)}); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if _, code := postREST(t, port, "Cleo", fmt.Sprint(i)); code != http.StatusCreated {
				t.Error(code)
			}
		})
		ann.say(fmt.Sprint(i))
	}
	all.Wait()
	var byFeed, byAnn, byBob []string
	for range 3 * each {
		byFeed = append(byFeed, feed.next().line())
		byAnn = append(byAnn, ann.next().line())
		byBob = append(byBob, bob.next().line())
	}
	if !slices.Equal(byFeed, byAnn) || !slices.Equal(byAnn, byBob) {
		t.Errorf("feed %q\nAnn %q\nBob %q", byFeed, byAnn, byBob)
	}
	for i, l := range byFeed {
		if want := fmt.Sprint(i+3, " said "); !strings.HasPrefix(l, want) {
			t.Fatalf("place %d: %s", i, l)
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	port := start(t)
	c := port.HTTP1()
	for i := range mostHistory + 7 {
		res, err := c.Post(port.URL("/api/messages"), "application/json", strings.NewReader(fmt.Sprintf(`{"name":"Cleo","text":"%d"}`, i)))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	_, history := join(t, port, "Ann")
	rest := getREST(t, port)
	if len(history) != mostHistory || history[0].Text != "7" || history[mostHistory-1].Text != "56" {
		t.Errorf("%d messages: %q", len(history), lines(history))
	}
	if !slices.Equal(lines(history), lines(rest)) {
		t.Errorf("by WebSocket %q\nby REST %q", lines(history), lines(rest))
	}
}

func TestWhatTheRoomDoesNotTake(t *testing.T) {
	port := start(t)
	client := chatpb.NewFeedClient(port.GRPC())
	ann, _ := join(t, port, "Ann")
	long := strings.Repeat("ü", mostText)
	for _, tt := range []struct{ name, text, why string }{
		{"", "hi", "name is missing"},
		{" \t", "hi", "name is missing"},
		{"Ann", "", "text is missing"},
		{strings.Repeat("ü", mostName+1), "hi", "name has 33 characters, at most 32 are allowed"},
		{"Ann", long + "x", "text has 1001 characters, at most 1000 are allowed"},
		{"A\x1b[2Jnn", "hi", "name has control characters"},
		{"Ann", "a\x00b", "text has control characters"},
	} {
		if m, code := postREST(t, port, tt.name, tt.text); code != http.StatusBadRequest || m.ID != 0 {
			t.Errorf("REST %q %.20q: %d, %v", tt.name, tt.text, code, m)
		}
		_, err := client.Post(t.Context(), &chatpb.PostRequest{Name: tt.name, Text: tt.text})
		if status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != tt.why {
			t.Errorf("gRPC %q %.20q: %v", tt.name, tt.text, err)
		}
		if tt.name == "Ann" {
			ann.say(tt.text)
			if m := ann.next(); m.Kind != "refused" || m.Text != tt.why {
				t.Errorf("WebSocket %.20q: %v", tt.text, m)
			}
			continue
		}
		p := person{t, port.WebSocket("/ws")}
		p.send(map[string]string{"name": tt.name})
		if code, why := p.closed(); code != ws.ClosePolicy || why != tt.why {
			t.Errorf("WebSocket as %q: closed with %d, %q", tt.name, code, why)
		}
	}
	if got := getREST(t, port); len(got) != 0 {
		t.Errorf("the room took %q", lines(got))
	}
	ann.say(long)
	if m := ann.next(); m.Text != long {
		t.Errorf("the longest text came as %d bytes", len(m.Text))
	}
}

func TestBodiesThatAreRefused(t *testing.T) {
	port := start(t)
	for _, tt := range []struct {
		contentType, body string
		want              int
	}{
		{"text/plain", `{"name":"Ann","text":"hi"}`, http.StatusUnsupportedMediaType}, // any page can send this
		{"application/x-www-form-urlencoded", "name=Ann&text=hi", http.StatusUnsupportedMediaType},
		{"", `{"name":"Ann","text":"hi"}`, http.StatusUnsupportedMediaType},
		{"application/json", `{"name":`, http.StatusBadRequest},
		{"application/json", `[]`, http.StatusBadRequest},
		{"application/json", `{"name":"Ann","text":"` + strings.Repeat("x", mostRequest) + `"}`, http.StatusRequestEntityTooLarge},
		{"application/json; charset=utf-8", `{"name":"Ann","text":"hi"}`, http.StatusCreated},
	} {
		res, err := port.HTTP1().Post(port.URL("/api/messages"), tt.contentType, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != tt.want {
			t.Errorf("%q %.30q: %d %s, want %d", tt.contentType, tt.body, res.StatusCode, body, tt.want)
		}
	}

	p := person{t, port.WebSocket("/ws")}
	if err := p.socket.WriteMessage(websocket.TextMessage, []byte("hello?")); err != nil {
		t.Fatal(err)
	}
	if code, _ := p.closed(); code != ws.ClosePolicy {
		t.Errorf("no JSON: closed with %d", code)
	}
	ann, _ := join(t, port, "Ann")
	if err := ann.socket.WriteMessage(websocket.TextMessage, make([]byte, mostRequest+1)); err != nil {
		t.Fatal(err)
	}
	if code, _ := ann.closed(); code != ws.CloseTooBig {
		t.Errorf("too much: closed with %d", code)
	}
}

func TestSocketWithoutAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		port := start(t)
		begin := time.Now()
		code, why := person{t, port.WebSocket("/ws")}.closed()
		if d := time.Since(begin); code != ws.ClosePolicy || why != "no name in time" || d != joinWait {
			t.Errorf("closed with %d, %q after %v", code, why, d)
		}
	})
}

// A socket that is not read is closed with 1013, and nobody waits for it.
func TestSlowSocketIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		port := start(t)
		client := chatpb.NewFeedClient(port.GRPC())
		slow, _ := join(t, port, "Sloth")
		ann, _ := join(t, port, "Ann")
		begin := time.Now()
		text := strings.Repeat("😀", mostText) // 4 kB
		posted := 0
		for port.Server.Stats().Sessions.Slow == 0 && posted < 1000 {
			if _, err := client.Post(t.Context(), &chatpb.PostRequest{Name: "Gus", Text: text}); err != nil {
				t.Fatal(err)
			}
			posted++
			if m := ann.next(); m.Kind != "said" || m.Text != text {
				t.Fatalf("Ann saw %s of %s", m.Kind, m.Name)
			}
			synctest.Wait()
		}
		if d := time.Since(begin); d > 0 {
			t.Errorf("Ann waited %v for the sloth", d)
		}
		if code, why := slow.closed(); code != ws.CloseTryAgainLater {
			t.Errorf("after %d messages the sloth was closed with %d, %q", posted, code, why)
		}
		if m := ann.next(); m.Kind != "left" || m.Name != "Sloth" {
			t.Errorf("then Ann saw %s", m.line())
		}
		if n := port.Server.Stats().Sessions.Slow; n != 1 {
			t.Errorf("%d sessions were slow", n)
		}
	})
}

// A feed that is not read ends, and nobody waits for it.
func TestSlowFeedIsDropped(t *testing.T) {
	port := start(t)
	client := chatpb.NewFeedClient(port.GRPC(grpc.WithInitialWindowSize(64 << 10))) // a fixed window
	slow := startWatch(t, client)
	ann, _ := join(t, port, "Ann")
	slow.next()
	text := strings.Repeat("😀", mostText)
	for range 2 * feedQueue {
		ann.say(text)
		if m := ann.next(); m.Text != text {
			t.Fatalf("Ann saw %s", m.line())
		}
	}
	if err := slow.ended(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the slow feed ended with %v", err)
	}
}

// When the port drains, sockets are closed with 1001 and feeds end, at once.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		port := start(t)
		feed := startWatch(t, chatpb.NewFeedClient(port.GRPC()))
		ann, _ := join(t, port, "Ann")
		bob, _ := join(t, port, "Bob")
		begin := time.Now()
		var all sync.WaitGroup
		for _, p := range []person{ann, bob} {
			all.Go(func() {
				if code, _ := p.closed(); code != ws.CloseGoingAway {
					t.Errorf("closed with %d", code)
				}
			})
		}
		all.Go(func() {
			if err := feed.ended(); status.Code(err) != codes.Unavailable {
				t.Errorf("the feed ended with %v", err)
			}
		})
		if err := port.Stop(); err != nil {
			t.Error(err)
		}
		all.Wait()
		if d := time.Since(begin); d > 3*time.Second {
			t.Errorf("the drain took %v", d)
		}
	})
}

// A reader that leaves is forgotten.
func TestFeedEndsWithItsClient(t *testing.T) {
	r := newRoom()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	draining := make(chan struct{})
	f := feed{room: r, draining: func() <-chan struct{} { return draining }}
	if err := f.Watch(nil, stream{ctx: ctx}); status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
	if len(r.listeners) != 0 {
		t.Errorf("%d listeners are left", len(r.listeners))
	}
}

// stream is a server stream that nothing is sent on.
type stream struct {
	grpc.ServerStreamingServer[chatpb.WatchResponse]
	ctx context.Context
}

func (s stream) SendHeader(metadata.MD) error { return nil }

func (s stream) Context() context.Context { return s.ctx }

func TestPage(t *testing.T) {
	port := start(t)
	for path, want := range map[string]string{"/": "text/html", "/chat.js": "javascript", "/chat.css": "text/css"} {
		res, err := port.HTTP2().Get(port.URL(path))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		csp := res.Header.Get("Content-Security-Policy")
		if res.StatusCode != http.StatusOK || len(body) == 0 || !strings.Contains(res.Header.Get("Content-Type"), want) || !strings.HasPrefix(csp, "default-src 'none'; script-src 'self'") {
			t.Errorf("%s: %d with %d bytes, %q, %q", path, res.StatusCode, len(body), res.Header.Get("Content-Type"), csp)
		}
	}
}
