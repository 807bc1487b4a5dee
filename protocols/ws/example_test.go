package ws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/protocols/ws"
)

// A handler reads until the session ends, and returns what ended it.
func Example() {
	s := ws.NewServer(nil)
	web := httptest.NewServer(s.Handler(func(_ context.Context, c *ws.Conn) error {
		for {
			typ, msg, err := c.Read()
			if err != nil {
				return err
			}
			if string(msg) == "bye" {
				return nil // closes with 1000
			}
			if err := c.Write(typ, msg); err != nil {
				return err
			}
		}
	}, ws.Options{}))
	defer web.Close()

	client, res, err := websocket.DefaultDialer.Dial(strings.Replace(web.URL, "http", "ws", 1), nil)
	if err != nil {
		log.Print(err)
		return
	}
	_ = res.Body.Close()
	defer client.Close()
	for _, msg := range []string{"hello", "bye"} {
		if err := client.WriteMessage(websocket.TextMessage, []byte(msg)); err != nil {
			log.Print(err)
			return
		}
		_, echo, err := client.ReadMessage()
		fmt.Printf("%q %v\n", echo, err)
	}
	if err := s.Drain(context.Background(), 0); err != nil { // net/http does not wait for sessions
		log.Print(err)
	}
	// Output:
	// "hello" <nil>
	// "" websocket: close 1000 (normal)
}

// A hub sends one message to many and waits for none of them: a session that
// does not keep up is closed with 1013, and its handler's Read ends.
func ExampleConn_Send() {
	var mu sync.Mutex
	members := make(map[*ws.Conn]bool)

	s, web := ws.NewServer(nil), http.NewServeMux()
	web.Handle("/hub", s.Handler(func(_ context.Context, c *ws.Conn) error {
		mu.Lock()
		members[c] = true
		mu.Unlock()
		defer func() {
			mu.Lock()
			delete(members, c)
			mu.Unlock()
		}()
		for {
			typ, msg, err := c.Read()
			if err != nil {
				return err
			}
			mu.Lock()
			for m := range members {
				_ = m.Send(typ, msg) // one that fails is being closed already
			}
			mu.Unlock()
		}
	}, ws.Options{SendQueue: 256 << 10}))
}

// A handler that only sends says so, so that pings and the peer's close are
// taken care of.
func ExampleConn_CloseRead() {
	s, web := ws.NewServer(nil), http.NewServeMux()
	web.Handle("/time", s.Handler(func(ctx context.Context, c *ws.Conn) error {
		c.CloseRead()
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				b, err := json.Marshal(map[string]time.Time{"now": now})
				if err != nil {
					return err
				}
				if err := c.Write(ws.Text, b); err != nil {
					return err
				}
			case <-ctx.Done(): // the session has ended, or begins to
				return nil
			}
		}
	}, ws.Options{}))
}

// A close code of the handler's choice.
func ExampleCloseError() {
	s, web := ws.NewServer(nil), http.NewServeMux()
	web.Handle("/private", s.Handler(func(_ context.Context, c *ws.Conn) error {
		if c.Subprotocol() != "chat.v2" {
			return &ws.CloseError{Code: ws.ClosePolicy, Reason: "speak chat.v2"}
		}
		_, _, err := c.Read()
		fmt.Println(ws.CloseCode(err)) // how the peer closed, or -1
		return err
	}, ws.Options{Subprotocols: []string{"chat.v2"}}))
}
