package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/protocols/conn"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/broadcast"
)

// The servers that send one message to many.
const (
	fanLoop     = "loop"     // gorilla: a loop that writes to each connection
	fanPrepared = "prepared" // the same with gorilla's PreparedMessage
	fanStream   = "stream"   // router/broadcast, to one-way subscribers
	fanSDK      = "sdk"      // router/broadcast, to subscribers that speak centrifuge's protocol
)

const (
	fanAll  = "bench:all"  // the channel that all subscribe to
	fanSlow = "bench:slow" // that of those who do not read
	fanSize = 128          // bytes of a message
)

// fanout is a server of that kind.
type fanout interface {
	serve(ctx context.Context, source certs.Source, ln net.Listener) error
	say(ctx context.Context, channel string, message []byte) error
	stats() (clients int, slow int64)
}

// newFanout gives the server of a name; nil if it is none of these.
func newFanout(name string) (fanout, error) {
	switch name {
	case fanLoop, fanPrepared:
		return &loop{prepared: name == fanPrepared, conns: map[*websocket.Conn]struct{}{}}, nil
	case fanStream, fanSDK:
		hub, err := broadcast.New(broadcast.Options{
			Namespaces: []broadcast.Namespace{{Name: "bench", Subscribe: []broadcast.Rule{broadcast.Anyone}}}, Log: quiet(),
		})
		return &channels{hub: hub}, err
	}
	return nil, nil //nolint:nilnil // most servers are none
}

// loop has a goroutine for each connection that reads, and writes to one after the other.
type loop struct {
	prepared bool

	mu    sync.Mutex // guards conns
	conns map[*websocket.Conn]struct{}
}

func (l *loop) serve(_ context.Context, source certs.Source, ln net.Listener) error {
	var up websocket.Upgrader
	srv := &http.Server{TLSConfig: certs.Config(source, certs.Options{}), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		l.mu.Lock()
		l.conns[c] = struct{}{}
		l.mu.Unlock()
		for err == nil {
			_, _, err = c.ReadMessage()
		}
		l.mu.Lock()
		delete(l.conns, c)
		l.mu.Unlock()
	})}
	return srv.ServeTLS(ln, "", "")
}

func (l *loop) say(_ context.Context, _ string, message []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.prepared {
		for c := range l.conns {
			if err := c.WriteMessage(websocket.TextMessage, message); err != nil {
				return err
			}
		}
		return nil
	}
	p, err := websocket.NewPreparedMessage(websocket.TextMessage, message)
	if err != nil {
		return err
	}
	for c := range l.conns {
		if err := c.WritePreparedMessage(p); err != nil {
			return err
		}
	}
	return nil
}

func (l *loop) stats() (clients int, slow int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns), 0
}

// channels is the port with a hub, as it comes.
type channels struct {
	hub *broadcast.Hub
	srv router.Server
}

func (c *channels) serve(ctx context.Context, source certs.Source, ln net.Listener) error {
	c.srv.Certs, c.srv.Log = source, quiet()
	c.srv.HTTP = http.NotFoundHandler()
	c.srv.Limits.Connections = conn.Bounds{Total: 20_000}
	c.srv.Sockets = ws.Options{ReadLimit: c.hub.ReadLimit()}
	c.srv.WebSocket("/ws", c.hub.Socket)
	return c.srv.Serve(ctx, ln)
}

func (c *channels) say(ctx context.Context, channel string, message []byte) error {
	_, err := c.hub.Publish(ctx, broadcast.Message{Channel: channel, Data: message})
	return err
}

// stats counts subscriptions, which come after connections.
func (c *channels) stats() (clients int, slow int64) {
	st := c.hub.Stats()
	return st.Subscriptions, st.Slow + c.srv.Stats().Sessions.Slow
}

// A question to such a server: how many messages of how many bytes to say in a channel.
const askSay = "say "

// asking tells how to say it.
func asking(n int, channel string, size int) string {
	return fmt.Sprintf("%s%d %s %d", askSay, n, channel, size)
}

// answerSay says messages, all of which tell when the first was to be said: a burst comes at once.
func answerSay(ctx context.Context, f fanout, question string) error {
	fields := strings.Fields(question)
	if f == nil || len(fields) != 4 {
		return fmt.Errorf("no such question: %q", question)
	}
	n, err := strconv.Atoi(fields[1])
	if err != nil {
		return err
	}
	size, err := strconv.Atoi(fields[3])
	if err != nil {
		return err
	}
	message := stamped(time.Now(), size)
	var all error
	for range n {
		all = errors.Join(all, f.say(ctx, fields[2], message))
	}
	return all
}

// stamp begins a message; 19 digits of nanoseconds follow.
const stamp = `{"at":"`

func stamped(at time.Time, size int) []byte {
	m := fmt.Appendf(nil, stamp+`%019d","text":"`, at.UnixNano())
	return append(append(m, strings.Repeat("x", size-len(m)-2)...), `"}`...)
}
