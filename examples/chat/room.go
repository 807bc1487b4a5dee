package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/broadcast"
)

const (
	roomPrefix = "room" // a room is the channel room:NAME
	mostName   = 32     // characters
	mostText   = 1000   // characters
)

// message is something that happened in a room.
type message struct {
	ID   uint64    `json:"id,omitempty"` // counts what is said in a room: the order that everybody sees
	Time time.Time `json:"time,omitzero"`
	Kind string    `json:"kind"` // said, joined or left
	Name string    `json:"name"`
	Text string    `json:"text,omitempty"`
	Via  string    `json:"via,omitempty"` // the protocol it came by: http, grpc or websocket
}

// said is what is published. Name and Via are the server's to say, for REST and gRPC. Who has
// published by WebSocket centrifuge knows, and those two count for nothing there.
type said struct {
	Text string `json:"text"`
	Time int64  `json:"time"` // ms since 1970
	Name string `json:"name,omitempty"`
	Via  string `json:"via,omitempty"`
}

// invalidError is what a client did wrong, in words for it.
type invalidError string

func (e invalidError) Error() string { return string(e) }

var errUnknown = errors.New("nobody knows who you are")

// statusOf is an error's status by REST.
func statusOf(err error) int {
	if _, ok := errors.AsType[invalidError](err); ok {
		return http.StatusBadRequest
	}
	if errors.Is(err, errUnknown) {
		return http.StatusUnauthorized
	}
	return http.StatusServiceUnavailable
}

// words are an error's for clients: what the broker says stays here.
func words(err error) string {
	if statusOf(err) == http.StatusServiceUnavailable {
		return "the rooms cannot be reached now: try again"
	}
	return err.Error()
}

// channelOf is a room's channel.
func channelOf(room string) (string, error) {
	if room == "" || len(room) > mostName || strings.ContainsFunc(room, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	}) {
		return "", invalidError(`a room's name has 1 to 32 of a-z, 0-9 and "-"`)
	}
	return roomPrefix + ":" + room, nil
}

// say publishes what the call's caller says.
func (r rooms) say(ctx context.Context, room, text string) (message, error) {
	channel, err := channelOf(room)
	if err != nil {
		return message{}, err
	}
	if text, err = vet("text", text, mostText); err != nil {
		return message{}, err
	}
	id := protocols.IdentityFrom(ctx)
	if id == nil {
		return message{}, errUnknown
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	m := message{Time: now, Kind: "said", Name: id.Subject, Text: text, Via: protocols.CallFrom(ctx).Protocol.String()}
	data, err := json.Marshal(said{text, now.UnixMilli(), m.Name, m.Via})
	if err != nil {
		return message{}, err
	}
	at, err := r.hub.Publish(ctx, broadcast.Message{Channel: channel, Data: data})
	m.ID = at.Offset
	return m, err
}

// rooms are the hub, for those who are not connected to it.
type rooms struct{ hub *broadcast.Hub }

// last is what was said last in a room, the oldest first, and where the room stands.
func (r rooms) last(ctx context.Context, channel string) ([]message, broadcast.Position, error) {
	list, at, err := r.hub.History(ctx, channel, broadcast.HistoryOptions{Limit: mostShown, Reverse: true})
	messages := make([]message, 0, len(list))
	for _, p := range slices.Backward(list) {
		if m, ok := messageOf(&p); ok {
			messages = append(messages, m)
		}
	}
	return messages, at, err
}

// people are those who are in a room, by name.
func (r rooms) people(ctx context.Context, channel string) ([]string, error) {
	clients, err := r.hub.Presence(ctx, channel)
	names := make([]string, 0, len(clients))
	for _, c := range clients {
		names = append(names, c.User)
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// messageOf reads what was published. What a WebSocket has published nobody has looked at before.
func messageOf(p *broadcast.Publication) (message, bool) {
	var in said
	if json.Unmarshal(p.Data, &in) != nil {
		return message{}, false
	}
	if p.Publisher != nil {
		in.Name, in.Via = p.Publisher.User, protocols.WebSocket.String()
	}
	text, err := vet("text", in.Text, mostText)
	if err != nil {
		return message{}, false
	}
	at := time.UnixMilli(in.Time).UTC()
	if in.Time < 0 || at.Year() > 9999 { // JSON has no such times, and with one of them nobody could read the others
		at = time.Time{}
	}
	return message{p.Offset, at, "said", in.Name, text, in.Via}, true
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
