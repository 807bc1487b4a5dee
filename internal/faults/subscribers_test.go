//go:build faults

package faults

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// backOffMost is how long subscribers wait at most before they come back.
const backOffMost = 2 * time.Second

// subscribers are those that speak centrifuge's protocol.
type subscribers struct {
	trust      *tls.Config
	ports      [2]string
	work       sync.WaitGroup
	all        []*subscriber
	subscribed atomic.Int64 // times
}

// subscriber comes back, at the other instance, where it has left off.
type subscriber struct {
	crowd   *subscribers
	channel int
	at      int // instance

	mu     sync.Mutex // guards the fields below
	last   int64      // message
	offset uint64
	epoch  string
	moved  time.Time // when it was last subscribed
	wrong  []string
}

type fromServer struct {
	ID    int             `json:"id"`
	Error json.RawMessage `json:"error"`
	Push  *struct {
		Pub         *publication    `json:"pub"`
		Unsubscribe json.RawMessage `json:"unsubscribe"`
	} `json:"push"`
	Subscribe *struct {
		Offset        uint64        `json:"offset"`
		Epoch         string        `json:"epoch"`
		Recovered     bool          `json:"recovered"`
		WasRecovering bool          `json:"was_recovering"`
		Publications  []publication `json:"publications"`
	} `json:"subscribe"`
}

type publication struct {
	Data   json.RawMessage `json:"data"`
	Offset uint64          `json:"offset"`
}

func (s *subscriber) run(ctx context.Context) {
	wait := 100 * time.Millisecond
	for ctx.Err() == nil {
		if s.session(ctx) {
			wait = 100 * time.Millisecond
		}
		pause(ctx, wait/2+rand.N(wait/2))
		wait = min(2*wait, backOffMost)
		s.at = 1 - s.at
	}
}

// session is one connection; it reports whether it was subscribed.
func (s *subscriber) session(ctx context.Context) (was bool) {
	d := websocket.Dialer{TLSClientConfig: s.crowd.trust, HandshakeTimeout: 10 * time.Second, ReadBufferSize: 1 << 10, WriteBufferSize: 256}
	c, res, err := d.DialContext(ctx, "wss://"+s.crowd.ports[s.at]+"/connection/websocket", nil)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	send := func(command string) bool { return c.WriteMessage(websocket.TextMessage, []byte(command)) == nil }
	if !send(`{"id":1,"connect":{}}`) || !send(s.command()) {
		return false
	}
	for {
		_, p, err := c.ReadMessage()
		if err != nil {
			return was
		}
		for line := range bytes.Lines(p) {
			var m fromServer
			if json.Unmarshal(line, &m) != nil {
				s.notef("not JSON: %q", line)
				return was
			}
			switch {
			case m.Error != nil:
				return was // Redis is away, or it is its own fault: it tries again
			case m.Subscribe != nil:
				was = true
				s.began(&m)
			case m.Push != nil && m.Push.Pub != nil:
				s.got(m.Push.Pub)
			case m.Push != nil && m.Push.Unsubscribe != nil:
				if !send(s.command()) { // what it has missed it gets from the history
					return was
				}
			}
		}
	}
}

// command subscribes, from where it stands.
func (s *subscriber) command() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch == "" {
		return fmt.Sprintf(`{"id":2,"subscribe":{"channel":%q}}`, channelOf(s.channel))
	}
	return fmt.Sprintf(`{"id":2,"subscribe":{"channel":%q,"recover":true,"offset":%d,"epoch":%q}}`, channelOf(s.channel), s.offset, s.epoch)
}

func (s *subscriber) began(m *fromServer) {
	s.mu.Lock()
	again := s.epoch != ""
	if !again {
		s.offset, s.epoch = m.Subscribe.Offset, m.Subscribe.Epoch
	}
	s.moved = time.Now()
	s.mu.Unlock()
	if again && !m.Subscribe.Recovered {
		s.notef("not recovered from %d", s.offset)
	}
	for i := range m.Subscribe.Publications {
		s.got(&m.Subscribe.Publications[i])
	}
	s.crowd.subscribed.Add(1)
}

// got takes a message: the one that follows the last.
func (s *subscriber) got(p *publication) {
	var n int64
	err := json.Unmarshal(p.Data, &n)
	s.mu.Lock()
	last, offset := s.last, s.offset
	s.last, s.offset = n, p.Offset
	s.mu.Unlock()
	if err != nil || n != last+1 || p.Offset != offset+1 {
		s.notef("message %s at %d behind message %d at %d", p.Data, p.Offset, last, offset)
	}
}

func (s *subscriber) notef(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
}

// caughtUp waits until all have what was acknowledged, and looks whether they have it once and
// in order.
func (c *subscribers) caughtUp(t *testing.T, p *publishersOf) {
	t.Helper()
	end := time.Now().Add(60 * time.Second)
	bad := 0
	for i, s := range c.all {
		want := p.last[s.channel].Load()
		for s.behind(want) && time.Now().Before(end) {
			time.Sleep(10 * time.Millisecond)
		}
		s.mu.Lock()
		if s.last < want || len(s.wrong) > 0 { // one that was not acknowledged may have got there
			if bad++; bad <= 10 {
				t.Errorf("subscriber %d has %d of %d; %q", i, s.last, want, s.wrong)
			}
		}
		s.mu.Unlock()
	}
	if bad > 0 {
		t.Errorf("%d subscribers in all", bad)
	}
}

func (s *subscriber) behind(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last < n
}

// lastBack is how long after a moment the last of those came back that had to.
func (c *subscribers) lastBack(from time.Time) (most time.Duration) {
	for _, s := range c.all {
		s.mu.Lock()
		most = max(most, s.moved.Sub(from))
		s.mu.Unlock()
	}
	return most
}
