package client

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"
	"time"
)

// inBandName is the subprotocol by which a client asks oneport to tell it when its
// token ends, and to take a newer one, by messages on the open connection. The
// server's first message says that it does; without that nothing here happens.
const inBandName = "oneport.auth.v1"

const (
	// inBandFetch bounds the fetch of a token: the server warns a minute before the end.
	inBandFetch = 20 * time.Second
	// inBandAgain is when one is shown again that could not be checked, or fetched again that could not be.
	inBandAgain = 5 * time.Second
)

// inBandMark is what the server's own messages begin with.
var inBandMark = []byte(`{"oneport":`)

// inband is what a connection knows of its token.
type inband struct {
	due chan time.Duration // how long from now a newer token is to be shown

	mu    sync.Mutex // guards the fields below
	on    bool       // the server has said that it speaks it
	holds string     // the token that the server has
	shown string     // the one that it was shown last
}

func (b *inband) begin(token string) {
	b.holds, b.due = token, make(chan time.Duration, 1)
}

func (b *inband) token() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.holds
}

// takes reports whether the server would keep a message for itself.
func (b *inband) takes(p []byte) bool {
	if !bytes.HasPrefix(p, inBandMark) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.on
}

// inBandMessage is one of the server's.
type inBandMessage struct {
	Oneport string `json:"oneport"`
	Reason  string `json:"reason"`
}

// own takes a message that is not the application's.
func (n *session) own(m Message, first bool) bool {
	b := &n.inband
	if m.Kind != Text || b.holds == "" || n.s.opts.NoInBand || !bytes.HasPrefix(m.Data, inBandMark) {
		return false
	}
	var said inBandMessage
	if json.Unmarshal(m.Data, &said) != nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case first && said.Oneport == "session":
		b.on = true
	case !b.on:
		return false
	case said.Oneport == "token-expires":
		b.soon(0)
	case said.Oneport == "refreshed":
		b.holds = b.shown
	case said.Oneport == "refused" && (said.Reason == "try-again-later" || said.Reason == "too-many"):
		b.soon(inBandAgain)
	case said.Oneport == "refused": // the connection ends with its token, and the socket comes back with another
	default:
		return false
	}
	return true
}

// soon has a token shown after d. What is due already stays so.
func (b *inband) soon(d time.Duration) {
	select {
	case b.due <- d:
	default:
	}
}

// refresh shows the server newer tokens when it wants them.
func (n *session) refresh() {
	b := &n.inband
	for {
		select {
		case d := <-b.due:
			if !wait(n.ctx, d) {
				return
			}
		case <-n.ctx.Done():
			return
		}
		old := b.token()
		ctx, cancel := context.WithTimeout(n.ctx, inBandFetch)
		token, err := n.s.c.tokens.renew(ctx, old)
		cancel()
		if err != nil || token == old {
			b.soon(inBandAgain) // until it comes, or the connection ends
			continue
		}
		b.mu.Lock()
		b.shown = token
		b.mu.Unlock()
		p, err := json.Marshal(map[string]string{"oneport": "refresh", "token": token})
		if err == nil { // strings
			_ = n.send(n.ctx, Text, p) // the connection has ended if it fails
		}
	}
}
