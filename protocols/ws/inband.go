package ws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

const (
	// inbandMost bounds a message of a client to the port: a token has 16 KiB at most.
	inbandMost = 16 << 10
	// inbandWarning is how long before the end of its credential a client is told, or half of
	// the time that it has.
	inbandWarning = time.Minute
	// inbandEvery is how often a client may show a credential.
	inbandEvery = time.Second
	// inbandCheck bounds how long one may take to check: keys may have to be fetched.
	inbandCheck = 5 * time.Second
	// inbandLook is how often the clock is looked at: timers do not notice that it is set.
	inbandLook = 10 * time.Minute
	// inbandAgain is how often that is while the end is due, which leeway may put off.
	inbandAgain = 10 * time.Second
)

const inbandTooBig = "message to the port is larger than 16384 bytes"

// inbandMark is what a client's messages to the port begin with.
var inbandMark = []byte(`{"oneport":`)

// inband speaks with the client of a session about its credential, see
// [protocols.InBand]. Sessions whose clients did not ask for it have none.
type inband struct {
	call   *protocols.Call
	say    func(p []byte) // sends the client a message of text, and does not wait
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // the check of a credential

	mu     sync.Mutex  // guards the fields below; held over say, and so before Conn.mu and aware.mu
	timer  *time.Timer // nil if the credential has no end
	until  time.Time   // the end that is waited for
	warn   time.Time   // when to tell the client of it; zero once it was told
	busy   bool        // a credential is being checked
	tried  time.Time   // when the last one came
	silent bool        // the session is over
}

func newInband(ctx context.Context, call *protocols.Call, say func([]byte)) *inband {
	b := &inband{call: call, say: say}
	b.ctx, b.cancel = context.WithCancel(ctx)
	return b
}

// asksInband takes [protocols.InBand] out of what a handshake offers, if it is there and
// the port is to speak it.
func asksInband(r *http.Request, call *protocols.Call) bool {
	fields := r.Header[fieldSubprotocol]
	return len(fields) > 0 && call != nil && protocols.OffersInBand(fields)
}

// withoutInband takes the name out of a list of subprotocols.
func withoutInband(h http.Header) {
	rest := protocols.WithoutInBand(h[fieldSubprotocol])
	if delete(h, fieldSubprotocol); rest != "" {
		h[fieldSubprotocol] = []string{rest}
	}
}

// inbandMessage is one of the port's.
type inbandMessage struct {
	Oneport   string `json:"oneport"`
	ID        string `json:"id,omitempty"`
	ExpiresIn *int64 `json:"expires_in,omitempty"`
	In        *int64 `json:"in,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

func (b *inband) tellLocked(m inbandMessage) {
	if b.silent {
		return
	}
	p, err := json.Marshal(m)
	if err == nil { // strings and numbers
		b.say(p)
	}
}

// start tells the client that it is understood, before anything else is said, and when
// its credential ends.
func (b *inband) start() {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := inbandMessage{Oneport: "session", ID: b.call.RequestID()}
	end, now := b.ends(), time.Now()
	if !end.IsZero() {
		m.ExpiresIn = seconds(end.Sub(now), 0)
	}
	b.tellLocked(m)
	if !end.IsZero() {
		b.timer = time.AfterFunc(inbandLook, b.look)
		b.awaitLocked(end, now)
	}
}

// ends is when the credential does; zero for never.
func (b *inband) ends() (end time.Time) {
	if id := b.call.Identity(); id != nil {
		end = id.Expires
	}
	return end
}

// seconds is for a message: d and a part of a second more, in whole ones.
func seconds(d, more time.Duration) *int64 {
	s := max(0, int64((d+more)/time.Second))
	return &s
}

// awaitLocked has the client told before the end of its credential.
func (b *inband) awaitLocked(end, now time.Time) {
	b.until = end
	b.warn = end.Add(-min(inbandWarning, max(0, end.Sub(now)/2)))
	b.resetLocked(now)
}

func (b *inband) resetLocked(now time.Time) {
	next := b.warn
	if next.IsZero() {
		next = b.until // it may have been moved by then
	}
	wait := min(next.Sub(now), inbandLook)
	if wait <= 0 {
		wait = inbandAgain
		if !b.warn.IsZero() {
			wait = time.Millisecond
		}
	}
	b.timer.Reset(wait)
}

// look runs on the timer.
func (b *inband) look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.silent {
		return
	}
	now, end := time.Now(), b.ends()
	if !end.Equal(b.until) { // moved by a request, or another session's client
		b.awaitLocked(end, now)
		return
	}
	if !b.warn.IsZero() && !now.Before(b.warn) {
		b.warn = time.Time{}
		b.tellLocked(inbandMessage{Oneport: "token-expires", In: seconds(end.Sub(now), time.Second/2)})
	}
	b.resetLocked(now)
}

// take has a message of the client's answered. It does not wait.
func (b *inband) take(p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.silent {
		return
	}
	now := time.Now()
	token, ok := parseInband(p)
	switch {
	case b.busy || now.Sub(b.tried) < inbandEvery && !b.tried.IsZero():
		b.refuseLocked("too-many")
	case !ok:
		b.tried = now
		b.refuseLocked("malformed")
	default:
		b.busy, b.tried = true, now
		b.work.Go(func() { b.renew(token) })
	}
}

func (b *inband) refuseLocked(reason string) {
	b.tellLocked(inbandMessage{Oneport: "refused", Reason: reason})
}

// renew has a credential checked, and tells the client what became of it.
func (b *inband) renew(token string) {
	ctx, cancel := context.WithTimeout(b.ctx, inbandCheck)
	defer cancel()
	end, why := b.call.Renew(ctx, token)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = false
	if b.silent {
		return
	}
	if why != "" {
		b.refuseLocked(string(why))
		return
	}
	now := time.Now()
	b.tellLocked(inbandMessage{Oneport: "refreshed", ExpiresIn: seconds(end.Sub(now), 0)})
	if b.timer != nil {
		b.awaitLocked(end, now)
	}
}

// stop ends it with the session.
func (b *inband) stop() {
	b.mu.Lock()
	b.silent = true
	if b.timer != nil {
		b.timer.Stop()
	}
	b.mu.Unlock()
	b.cancel()
	b.work.Wait()
}

// parseInband reads {"oneport":"refresh","token":"..."}: these two, once each, and nothing
// behind. That names are compared as they are, and none may be there twice, encoding/json
// does not do for structs.
func parseInband(p []byte) (token string, ok bool) {
	if len(p) > inbandMost {
		return "", false
	}
	dec := json.NewDecoder(bytes.NewReader(p))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return "", false
	}
	said := make(map[string]string, 2)
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return "", false
		}
		value, err := dec.Token()
		key, _ := name.(string) // More and Token see to it that it is one
		text, isText := value.(string)
		if _, twice := said[key]; err != nil || !isText || twice || key != "oneport" && key != "token" {
			return "", false
		}
		said[key] = text
	}
	if t, err := dec.Token(); err != nil || t != json.Delim('}') {
		return "", false
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return "", false
	}
	if said["oneport"] != "refresh" || said["token"] == "" {
		return "", false
	}
	return said["token"], true
}
