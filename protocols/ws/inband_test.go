package ws

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws/frame"
)

// aliceFor is a call of hers whose credential ends after d; zero for never. A token that reads as a
// duration ends so much later from when it is shown, "wait" takes until ctx ends, any other is refused.
func aliceFor(t testing.TB, d time.Duration) *protocols.Call {
	t.Helper()
	call := &protocols.Call{Protocol: protocols.WebSocket}
	call.Begin(t.Context(), protocols.NewID(1, 2), "")
	call.Identify(endsIn(d))
	call.OnRenew(func(ctx context.Context, token string) (time.Time, protocols.NotRenewed) {
		if token == "wait" {
			<-ctx.Done()
			return time.Time{}, protocols.NotRenewedUnknown
		}
		more, err := time.ParseDuration(token)
		if err != nil {
			return time.Time{}, protocols.NotRenewedToken
		}
		call.Identify(endsIn(more))
		return call.Identity().Expires, ""
	})
	call.Detach()
	return call
}

func endsIn(d time.Duration) *protocols.Identity {
	id := &protocols.Identity{Subject: "alice", By: "jwt"}
	if d != 0 {
		id.Expires = time.Now().Add(d)
	}
	return id
}

// spoken starts an aware tunnel in memory that speaks with its client, and gives what it says first.
func spoken(t *testing.T, s *Server, relay Relay, call *protocols.Call) (client, up *peer, first string) {
	t.Helper()
	c, c2 := net.Pipe()
	u, u2 := net.Pipe()
	tn := newAware(s, relay.withDefaults(), c2, u2, deflated{})
	tn.call = call
	tn.speak()
	s.admit()
	s.tunnels.Add(1)
	s.add(tn)
	go tn.run(nil, []byte("\x82\x05early"))
	client, up = newPeer(c), newPeer(u)
	got := client.frames(t)
	if len(got) != 2 || got[1] != "\x82early" {
		t.Fatalf("begins with %q", got)
	}
	return client, up, got[0]
}

const sessionID = `"id":"00000000000000010000000000000002"`

func asks(token string) string {
	return client(0x81, fmt.Sprintf(`{"oneport":"refresh","token":%q}`, token))
}

// The client is told when its credential ends, and may show another; the server notices
// nothing of it.
func TestInbandRefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		call := aliceFor(t, time.Hour)
		c, u, first := spoken(t, s, Relay{PingEvery: -1}, call)
		if want := "\x81" + `{"oneport":"session",` + sessionID + `,"expires_in":3600}`; first != want {
			t.Errorf("first %q, want %q", first, want)
		}
		time.Sleep(time.Hour - time.Minute - time.Second)
		c.want(t)
		time.Sleep(time.Second)
		c.want(t, "\x81"+`{"oneport":"token-expires","in":60}`)
		c.send(t, asks("bad"))
		c.want(t, "\x81"+`{"oneport":"refused","reason":"invalid-token"}`)
		c.send(t, asks("1h")) // too soon
		c.want(t, "\x81"+`{"oneport":"refused","reason":"too-many"}`)
		time.Sleep(time.Second)
		c.send(t, asks("100s"))
		c.want(t, "\x81"+`{"oneport":"refreshed","expires_in":100}`)
		time.Sleep(49 * time.Second)
		c.want(t)
		time.Sleep(time.Second)
		c.want(t, "\x81"+`{"oneport":"token-expires","in":50}`) // half of what it had

		// A request has moved the end meanwhile: what was told is told again for the new one.
		call.Identify(endsIn(time.Hour))
		time.Sleep(time.Hour - time.Minute)
		synctest.Wait()
		c.want(t, "\x81"+`{"oneport":"token-expires","in":60}`)
		time.Sleep(10 * time.Minute) // nobody ends this one here
		c.want(t)
		u.want(t)

		c.send(t, client(0x81, `{"oneport":17}`))
		c.want(t, "\x81"+`{"oneport":"refused","reason":"malformed"}`)
		time.Sleep(time.Second)
		c.send(t, asks("wait"))
		c.send(t, client(0x89, "hey"), client(0x81, "on we go")) // nobody waits for the check
		u.want(t, "\x89hey", "\x81on we go")
		time.Sleep(2 * time.Second)
		c.send(t, asks("1h"))
		c.want(t, "\x81"+`{"oneport":"refused","reason":"too-many"}`)
		time.Sleep(inbandCheck - 2*time.Second)
		c.want(t, "\x81"+`{"oneport":"refused","reason":"try-again-later"}`)
		c.send(t, asks("wait"))
		c.Close()
		over(t, s, "1006", "client_lost")
	})
}

// A credential without an end, and one that is over but for leeway.
func TestInbandEnds(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration][]string{
		0:            {`{"oneport":"session",` + sessionID + `}`},
		-time.Second: {`{"oneport":"session",` + sessionID + `,"expires_in":0}`, `{"oneport":"token-expires","in":0}`},
		time.Second:  {`{"oneport":"session",` + sessionID + `,"expires_in":1}`, `{"oneport":"token-expires","in":1}`},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(nil)
			c, _, first := spoken(t, s, Relay{PingEvery: -1}, aliceFor(t, d))
			time.Sleep(time.Hour)
			got := append([]string{first}, c.frames(t)...)
			for i := range got {
				got[i] = got[i][1:]
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %q", d, got)
			}
			c.Close()
			over(t, s, "1006", "client_lost")
		})
	}
}

// What the tunnel says stands between messages, and its control frames between frames.
func TestInbandSaysNothingWithinMessages(t *testing.T) {
	t.Parallel()
	const warning = "\x81" + `{"oneport":"token-expires","in":5}`
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		c, u, _ := spoken(t, s, Relay{PingEvery: 7 * time.Second, PongWait: time.Minute}, aliceFor(t, 10*time.Second))
		u.send(t, "\x01\x03abc")
		time.Sleep(6 * time.Second)
		c.want(t, "\x01abc")
		u.send(t, "\x89\x02hi\x00\x03d")
		time.Sleep(5 * time.Second) // a ping waits as well
		u.send(t, "ef\x00\x01")
		if got, want := c.take(), "\x89\x02hi\x00\x03def\x89\x08"+string(s.mark[:])+"\x00\x01"; got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		u.send(t, "g\x80\x00\x81\x01x\x01\x01y") // the message ends within what comes at once
		if got, want := c.take(), "g\x80\x00"+server(0x81, warning[1:])+"\x81\x01x\x01\x01y"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		c.Close()
		over(t, s, "1006", "client_lost")
	})
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		c, u, _ := spoken(t, s, Relay{PingEvery: 7 * time.Second, PongWait: time.Minute}, aliceFor(t, 10*time.Second))
		u.send(t, "\x01\x03a")
		time.Sleep(10 * time.Second) // both wait for the frame to end
		c.take()
		u.send(t, "bc\x80\x01d")
		if got, want := c.take(), "bc\x89\x08"+string(s.mark[:])+"\x80\x01d"+server(0x81, warning[1:]); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		c.Close()
		over(t, s, "1006", "client_lost")
	})
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		c, u, _ := spoken(t, s, Relay{PingEvery: -1}, aliceFor(t, 10*time.Second))
		u.send(t, "\x01\x03abc")
		time.Sleep(6 * time.Second)
		u.send(t, "\x80\x01d\x81\x01x\x01\x01y")
		c.want(t, "\x01abc", "\x80d", warning, "\x81x", "\x01y")
		u.send(t, server(0x88, "\x03\xe8"))
		c.want(t, closing(1000, ""))
		c.send(t, asks("1h")) // it goes no way any more
		u.want(t)
		c.send(t, client(0x88, "\x03\xe8"))
		over(t, s, "1000", "closed")
	})
}

// What is for the port, wherever it is cut, and what only looks like it.
func TestInbandTakesWhatIsForThePort(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300)
	for name, tc := range map[string]struct {
		sent   []string
		passes []string
		says   int
	}{
		"others":         {sent: []string{client(0x81, "hello"), client(0x81, ""), client(0x82, `{"oneport":1}`)}, passes: []string{"\x81hello", "\x81", "\x82" + `{"oneport":1}`}},
		"short":          {sent: []string{client(0x81, "{"), client(0x81, `{"oneport"`)}, passes: []string{"\x81{", "\x81" + `{"oneport"`}},
		"almost":         {sent: []string{client(0x81, `{"oneports":1}`), client(0x81, ` {"oneport":1}`)}, passes: []string{"\x81" + `{"oneports":1}`, "\x81" + ` {"oneport":1}`}},
		"almost, pieces": {sent: []string{client(1, `{"one`), client(0x89, "p"), client(0, ""), client(0x80, `ports"`+long)}, passes: []string{"\x89p", "\x01" + `{"one`, "\x00", "\x80" + `ports"` + long}},
		"short, pieces":  {sent: []string{client(1, `{"one`), client(0, "port"), client(0x80, "")}, passes: []string{"\x01" + `{"one`, "\x00port", "\x80"}},
		"ours":           {sent: []string{asks("bad"), client(0x81, "x")}, passes: []string{"\x81x"}, says: 1},
		"ours, pieces": {
			sent:   []string{client(1, ""), client(0, `{"onepo`), client(0x89, "p"), client(0, `rt":"refresh",`), client(0x80, `"token":"bad"}`), client(0x81, "x")},
			passes: []string{"\x89p", "\x81x"}, says: 1,
		},
	} {
		for _, step := range []int{1, 5, 7, 1 << 20} {
			t.Run(fmt.Sprint(name, " by ", step), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := NewServer(nil)
					c, u, _ := spoken(t, s, Relay{PingEvery: -1}, aliceFor(t, 0))
					for p := range slices.Chunk([]byte(strings.Join(tc.sent, "")), step) {
						c.send(t, string(p))
					}
					if got := wire(t, []byte(u.take())); !slices.Equal(got, tc.passes) {
						t.Errorf("passes %q, want %q", got, tc.passes)
					}
					if got := c.frames(t); len(got) != tc.says {
						t.Errorf("says %q", got)
					}
					c.Close()
					over(t, s, "1006", "client_lost")
				})
			})
		}
	}
}

// wire reads frames of any length, whose masks are taken off.
func wire(t *testing.T, p []byte) (got []string) {
	t.Helper()
	for len(p) > 0 {
		h, ok, err := frame.Parse(p)
		if !ok || int64(len(p)-h.Size) < h.Len {
			t.Fatalf("no frame: %x, %v", p, err)
		}
		payload := p[h.Size : int64(h.Size)+h.Len]
		if h.Masked {
			frame.Unmask(payload, h.Mask, 0)
		}
		got = append(got, string(p[:1])+string(payload))
		p = p[int64(h.Size)+h.Len:]
	}
	return got
}

// Messages to the port have bounds.
func TestInbandBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(nil)
		c, u, _ := spoken(t, s, Relay{PingEvery: -1}, aliceFor(t, 0))
		c.send(t, asks(strings.Repeat("a", inbandMost-len(`{"oneport":"refresh","token":""}`))))
		c.want(t, "\x81"+`{"oneport":"refused","reason":"invalid-token"}`)
		c.send(t, asks(strings.Repeat("a", inbandMost)))
		c.want(t, closing(1009, inbandTooBig))
		u.want(t, closing(1009, "the other side: "+inbandTooBig))
		c.Close()
		over(t, s, "1009", "client_too_big")

		s = NewServer(nil)
		c, _, _ = spoken(t, s, Relay{PingEvery: -1}, aliceFor(t, 0))
		c.send(t, client(0x81, "{\"oneport\":\xff}"))
		c.want(t, closing(1007, "text is not UTF-8"))
		c.Close()
		over(t, s, "1007", "client_invalid")

		// A server whose message does not end, and a client that asks and asks.
		s = NewServer(nil)
		c, u, _ = spoken(t, s, Relay{PingEvery: -1}, aliceFor(t, 0))
		u.send(t, "\x01\x01a")
		c.want(t, "\x01a")
		for range 100 {
			c.send(t, client(0x81, `{"oneport":1}`))
		}
		got := c.frames(t)
		if len(got) != 1 || got[0] != closing(1013, "messages to the port cannot be answered") {
			t.Errorf("got %q", got)
		}
		c.Close()
		over(t, s, "1013", "client_too_many")
	})
}

func TestParseInband(t *testing.T) {
	t.Parallel()
	for p, want := range map[string]string{
		`{"oneport":"refresh","token":"a.b.c"}`:               "a.b.c",
		` { "token" : "a\u002eb" , "oneport" : "refresh" } `:  "a.b",
		`{"oneport":"refresh","token":""}`:                    "",
		`{"oneport":"refresh"}`:                               "",
		`{"oneport":"refresh","token":"a","token":"a"}`:       "",
		`{"oneport":"refresh","Token":"a"}`:                   "",
		`{"oneport":"refresh","token":"a","more":"b"}`:        "",
		`{"oneport":"refresh","token":7}`:                     "",
		`{"oneport":"refresh","token":["a"]}`:                 "",
		`{"oneport":"refresh","token":null}`:                  "",
		`{"oneport":"session","token":"a"}`:                   "",
		`{"oneport":"refresh","token":"a"}{}`:                 "",
		`{"oneport":"refresh","token":"a",}`:                  "",
		`{"oneport":"refresh" "token":"a"}`:                   "",
		`{"oneport":"refresh","token":"a"`:                    "",
		`["oneport","refresh","token","a"]`:                   "",
		``:                                                    "",
		`{"oneport":"refresh","token":"` + "\x00" + `"}`:      "",
		strings.Repeat(" ", inbandMost) + `{"oneport":"refr"`: "",
	} {
		got, ok := parseInband([]byte(p))
		if got != want || ok != (want != "") {
			t.Errorf("%.60q: %q, %t", p, got, ok)
		}
	}
}

// What is taken for a request means the same to any reader of JSON.
func FuzzParseInband(f *testing.F) {
	f.Add([]byte(`{"oneport":"refresh","token":"a.b.c"}`))
	f.Add([]byte(`{"token":"\ud83d\ude00","oneport":"refresh"}`))
	f.Add([]byte(`{"oneport":"refresh","token":"a","token":"b"}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		token, ok := parseInband(p)
		if !ok {
			return
		}
		var m map[string]any
		if err := json.Unmarshal(p, &m); err != nil || len(m) != 2 || m["oneport"] != "refresh" || m["token"] != token {
			t.Fatalf("%q: %v, %v", token, m, err)
		}
		again, err := json.Marshal(m)
		if back, ok := parseInband(again); err != nil || len(again) <= inbandMost && (!ok || back != token) {
			t.Fatalf("%s: %q, %t", again, back, ok)
		}
	})
}

// Whatever a client sends, cut anywhere: what gets through to the server is what gets there
// without the mode, but for messages to the port.
func FuzzInband(f *testing.F) {
	f.Add([]byte(client(1, `{"one`)+client(0x89, "p")+client(0x80, `port":`)+client(0x81, "x")), uint8(3))
	f.Add([]byte(client(0x81, `{"oneport":"refresh","token":"x"}`)+client(0x81, `{"oneports":1}`)), uint8(1))
	f.Add([]byte(client(1, "")+client(0, "{")+client(0x82, "")), uint8(7))
	f.Fuzz(func(t *testing.T, p []byte, step uint8) {
		plain, _ := throughTunnel(t, p, 1<<20, false)
		plain = slices.DeleteFunc(plain, func(m string) bool { return strings.HasPrefix(m, "\x01"+string(inbandMark)) })
		for _, n := range []int{1 << 20, int(step) + 1} {
			got, refused := throughTunnel(t, p, n, true)
			if whole := slices.Equal(got, plain); !whole && (!refused || len(got) > len(plain) || !slices.Equal(got, plain[:len(got)])) {
				t.Fatalf("in steps of %d: %q, want %q", n, got, plain)
			}
		}
	})
}

// Whatever a server sends, cut anywhere, and whenever the tunnel has something to say: what gets
// through to the client are whole messages of both.
func FuzzInbandSays(f *testing.F) {
	f.Add([]byte("\x01\x03abc\x80\x02de\x82\x01x\x89\x00\x81\x00"), uint8(2), uint8(0xaa))
	f.Add([]byte("\x01\x03abc\x89\x02hi\x00\x00\x80\x00\x01\x01x"), uint8(0), uint8(1))
	f.Add([]byte("\x81\x7e\x00\x80"+strings.Repeat("x", 128)+"\x88\x00"), uint8(60), uint8(0xff))
	f.Fuzz(func(t *testing.T, p []byte, step, when uint8) {
		plain, _, _ := toClient(t, p, 1<<20, 0)
		got, said, pending := toClient(t, p, int(step)+1, when)
		var theirs []string
		heard := 0
		for _, m := range got {
			switch {
			case m == "\x01"+sayingThis:
				heard++
			case m != "\x09"+pingingThis:
				theirs = append(theirs, m)
			}
		}
		if !slices.Equal(theirs, plain) {
			t.Fatalf("got %q, want %q", theirs, plain)
		}
		if heard != said && !pending {
			t.Fatalf("%d of %d were said", heard, said)
		}
	})
}

const sayingThis, pingingThis = "~this is ours~", "~so is this~"

// toClient gives the messages that get to the client while the tunnel says something at each
// set bit of when, one for each step, and how often; pending says that it may still wait.
func toClient(t *testing.T, p []byte, step int, when uint8) (messages []string, said int, pending bool) {
	t.Helper()
	s := NewServer(nil)
	_, u := net.Pipe()
	c := new(sink)
	tn := newAware(s, Relay{MessageBytes: 1 << 10}.withDefaults(), c, u, deflated{})
	tn.up.shut, tn.call = true, aliceFor(t, 0)
	tn.speak()
	var carried []byte
	for part := range slices.Chunk(p, step) {
		tn.mu.Lock()
		ended := tn.client.closed
		if when&1 != 0 && !ended && when&2 != 0 {
			tn.client.addLocked(frame.Ping, []byte(pingingThis))
			tn.client.pushLaterLocked()
		}
		tn.mu.Unlock()
		if when&1 != 0 && !ended {
			said++
			tn.say([]byte(sayingThis))
		}
		when = when>>1 | when<<7
		carried = append(carried, part...)
		carried = carried[tn.down.move(carried, s.now()):]
	}
	tn.inband.stop()
	tn.mu.Lock()
	tn.ended = true
	pending = tn.client.closed
	if tn.limit != nil {
		tn.limit.Stop()
	}
	tn.mu.Unlock()
	tn.work.Wait()
	tn.client.push(s.now())
	check := frame.Checker{MessageBytes: 1 << 16}
	var whole bytes.Buffer
	got := c.got
	for len(got) > 0 {
		h, ok, err := frame.Parse(got)
		if ok {
			err = check.Check(&h)
		}
		if err != nil {
			t.Fatalf("got through: %x, %v", got, err)
		}
		if !ok || int64(len(got)-h.Size) < h.Len {
			break
		}
		payload := string(got[h.Size : int64(h.Size)+h.Len])
		got = got[int64(h.Size)+h.Len:]
		switch {
		case h.Op == frame.Close:
			return messages, said, true
		case h.Control():
			messages = append(messages, string(rune(h.Op))+payload)
			continue
		case h.Op != frame.Continuation:
			whole.Reset()
			whole.WriteByte(h.Op)
		}
		whole.WriteString(payload)
		if h.Fin {
			messages = append(messages, whole.String())
		}
	}
	return messages, said, pending || len(got) > 0 || check.Within()
}

// throughTunnel gives the messages that get to the server, and whether a message to the port was bad enough to end it.
func throughTunnel(t *testing.T, p []byte, step int, speaks bool) (messages []string, refused bool) {
	t.Helper()
	s := NewServer(nil)
	_, c := net.Pipe()
	u := new(sink)
	tn := newAware(s, Relay{MessageBytes: 1 << 10}.withDefaults(), c, u, deflated{})
	tn.client.shut, tn.call = true, aliceFor(t, 0) // what it is told is not looked at here
	if speaks {
		tn.speak()
	}
	var carried []byte
	for part := range slices.Chunk(p, step) {
		carried = append(carried, part...)
		carried = carried[tn.rise.move(carried, s.now()):]
	}
	if speaks {
		tn.inband.stop()
	}
	tn.mu.Lock()
	tn.ended = true
	refused = tn.code == CloseInvalidData
	if tn.limit != nil {
		tn.limit.Stop()
	}
	tn.mu.Unlock()
	tn.work.Wait()
	var whole bytes.Buffer
	for got := u.got; len(got) > 0; {
		h, ok, err := frame.Parse(got)
		if err != nil {
			t.Fatalf("got through: %x, %v", got, err)
		}
		if !ok || int64(len(got)-h.Size) < h.Len {
			break
		}
		payload := got[h.Size : int64(h.Size)+h.Len]
		frame.Unmask(payload, h.Mask, 0)
		got = got[int64(h.Size)+h.Len:]
		if h.Control() {
			if h.Op != frame.Close {
				messages = append(messages, string(rune(h.Op))+string(payload))
			}
			continue
		}
		if h.Op != frame.Continuation {
			whole.Reset()
			whole.WriteByte(h.Op)
		}
		whole.Write(payload)
		if h.Fin {
			messages = append(messages, whole.String())
		}
	}
	return messages, refused
}
