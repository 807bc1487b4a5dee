package broadcast_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/router/broadcast"
)

// do sends a command, and gives the first line of its answer.
func (r *redis) do(t *testing.T, command string) string {
	t.Helper()
	c, err := net.Dial("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// Redis has forgotten everything: the history begins anew, and whoever comes back is told
// that what it has missed is lost, and goes on.
func TestRedisFlushed(t *testing.T) {
	r := newRedis(t)
	r.start(t)
	p := r.instance(t)
	c := p.client(t, "")
	begun := c.do(`"subscribe":{"channel":"log:a"}`)
	sse := p.stream(t, "channel=log:a", "")
	sse.of("subscribed")
	p.publish(t, "log:a", "1")
	p.publish(t, "log:a", "2")
	if a, b := c.pub(), c.pub(); a != "1" || b != "2" {
		t.Fatalf("%s %s", a, b)
	}
	sse.of("")
	last := sse.of("").id
	if got := r.do(t, "FLUSHALL"); got != "+OK" {
		t.Fatal(got)
	}
	p.publish(t, "log:a", "3")

	// Both subscriptions end, for their places are none of this history.
	if s, err := sse.read(); err == nil {
		t.Errorf("%+v: want the end of the stream", s)
	}
	for {
		m, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if m.Push.Pub != nil {
			t.Fatalf("%s: that is of another history", m.Push.Pub.Data)
		}
		if len(m.Push.Unsubscribe) > 0 {
			break
		}
	}
	again := c.do(fmt.Sprintf(`"subscribe":{"channel":"log:a","recover":true,"offset":2,"epoch":%q}`, begun.Subscribe.Epoch))
	if again.Subscribe.Recovered || again.Subscribe.Epoch == begun.Subscribe.Epoch || again.Subscribe.Epoch == "" {
		t.Errorf("%+v behind epoch %s: want another one, and nothing recovered", again.Subscribe, begun.Subscribe.Epoch)
	}
	back := p.stream(t, "channel=log:a", last)
	if s := back.of("subscribed"); strings.Contains(s.data, "recovered") {
		t.Errorf("%s: want nothing recovered", s.data)
	}
	p.publish(t, "log:a", "4")
	if got := c.pub(); got != "4" {
		t.Errorf("got %s, want 4", got)
	}
	if got := data(t, back.of("").data); got != "4" {
		t.Errorf("got %s, want 4", got)
	}
}

// Clients that come back again and again, without a goodbye: nothing of them stays, and
// others have all messages.
func TestReconnectLoop(t *testing.T) {
	p := start(t, broadcast.Options{})
	watch := p.client(t, "")
	watch.subscribe("news:today")
	const times = 200
	for i := range times {
		c := p.client(t, "loop")
		c.subscribe("news:today")
		_ = c.c.NetConn().Close()
		p.publish(t, "news:today", fmt.Sprint(i))
		if got, want := watch.pub(), fmt.Sprint(i); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	eventually(t, "clients stay that have gone", func() bool {
		st := p.hub.Stats()
		return st.Clients == 1 && st.Subscriptions == 1
	})
	if _, answer, _ := p.post(t, "presence", `{"channel":"news:today"}`); strings.Contains(answer, "loop") {
		t.Errorf("presence: %s", answer)
	}
}
