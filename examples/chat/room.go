package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	mostHistory = 50       // messages a newcomer sees
	mostName    = 32       // characters
	mostText    = 1000     // characters
	mostRequest = 16 << 10 // bytes of JSON from a client, even if it escapes all that is not ASCII
)

// message is something that happened in the room.
type message struct {
	ID   int64     `json:"id"` // counts from 1: the order that everybody sees
	Time time.Time `json:"time"`
	Kind string    `json:"kind"` // said, joined or left
	Name string    `json:"name"`
	Text string    `json:"text"`
	Via  string    `json:"via"` // the protocol it came by: http, grpc or websocket
}

// event is a message and its JSON, which is made once for all sockets.
type event struct {
	message
	json []byte
}

// listener is handed every event. It must not wait, and reports whether it
// could take the event; one that could not is forgotten.
type listener func(event) bool

// room is the chat room. Everything in it happens under mu, one thing after
// the other: that makes the order.
type room struct {
	mu        sync.Mutex // guards the fields below; ws.Conn's lock comes after it
	last      int64      // ID of the last message
	history   []event    // what was said last, the oldest first
	listeners map[*listener]struct{}
}

func newRoom() *room { return &room{listeners: make(map[*listener]struct{})} }

// invalidError is what a client did wrong, in words for it.
type invalidError string

func (e invalidError) Error() string { return string(e) }

// say takes a message into the room and hands it to everybody who listens.
// An error is an invalidError.
func (r *room) say(name, text, via string) (message, error) {
	name, err := vet("name", name, mostName)
	if err != nil {
		return message{}, err
	}
	if text, err = vet("text", text, mostText); err != nil {
		return message{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e, err := r.tellLocked(message{Kind: "said", Name: name, Text: text, Via: via})
	if err != nil {
		return message{}, err
	}
	if len(r.history) == mostHistory {
		r.history = append(r.history[:0], r.history[1:]...)
	}
	r.history = append(r.history, e)
	return e.message, nil
}

// listen hands l what was said last, and all that happens from then on, until
// stop is called.
func (r *room) listen(l listener) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listenLocked(&l)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.listeners, &l)
	}
}

// join is listen for somebody with a name, whose coming and going is told.
// An error is an invalidError.
func (r *room) join(name, via string, l listener) (leave func(), err error) {
	if name, err = vet("name", name, mostName); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listenLocked(&l)
	if _, err := r.tellLocked(message{Kind: "joined", Name: name, Via: via}); err != nil {
		return nil, err
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.listeners, &l)
		_, _ = r.tellLocked(message{Kind: "left", Name: name, Via: via}) // worked when joining
	}, nil
}

func (r *room) listenLocked(l *listener) {
	for _, e := range r.history {
		if !(*l)(e) {
			return // gone already
		}
	}
	r.listeners[l] = struct{}{}
}

// tellLocked numbers a message and hands it to everybody.
func (r *room) tellLocked(m message) (event, error) {
	m.ID, m.Time = r.last+1, time.Now().UTC()
	b, err := json.Marshal(m)
	if err != nil {
		return event{}, err
	}
	r.last = m.ID
	e := event{m, b}
	for l := range r.listeners {
		if !(*l)(e) {
			delete(r.listeners, l)
		}
	}
	return e, nil
}

// said is what was said last.
func (r *room) said() []message {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]message, len(r.history))
	for i, e := range r.history {
		list[i] = e.message
	}
	return list
}

// vet trims a name or a text, and says what is wrong with it.
func vet(what, s string, most int) (string, error) {
	s = strings.TrimSpace(s)
	switch n := utf8.RuneCountInString(s); {
	case n == 0:
		return "", invalidError(what + " is missing")
	case n > most:
		return "", invalidError(fmt.Sprintf("%s has %d characters, at most %d are allowed", what, n, most))
	case !utf8.ValidString(s):
		return "", invalidError(what + " is not UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		return "", invalidError(what + " has control characters")
	}
	return s, nil
}
