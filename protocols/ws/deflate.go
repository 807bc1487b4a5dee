package ws

import (
	"fmt"
	"net/http"
	"strings"
)

const (
	fieldExtensions = "Sec-Websocket-Extensions" // as net/http spells it
	deflateName     = "permessage-deflate"
)

// deflated is what was negotiated of permessage-deflate (RFC 7692).
type deflated struct {
	on                 bool
	fromClient, fromUp bool // takeover: messages refer to those before them
}

// offerExtensions leaves of what a client offers what an aware tunnel understands:
// frames of an extension that it does not know would break its rules.
func offerExtensions(h http.Header, compression bool) {
	var left []string
	for _, offer := range extensions(h) {
		name, _, _ := strings.Cut(offer, ";")
		if compression && strings.EqualFold(strings.TrimSpace(name), deflateName) {
			left = append(left, offer)
		}
	}
	if delete(h, fieldExtensions); len(left) > 0 {
		h[fieldExtensions] = []string{strings.Join(left, ", ")}
	}
}

// acceptedExtensions reads what the upstream has accepted of it.
func acceptedExtensions(h http.Header, offered bool) (d deflated, err error) {
	for _, ext := range extensions(h) {
		name, params, _ := strings.Cut(ext, ";")
		if d.on || !offered || !strings.EqualFold(strings.TrimSpace(name), deflateName) {
			return d, fmt.Errorf("%w: extension %.64q was not offered", errAnswer, ext)
		}
		d = deflated{on: true, fromClient: true, fromUp: true}
		for param := range strings.SplitSeq(params, ";") {
			switch strings.ToLower(strings.TrimSpace(param)) {
			case "client_no_context_takeover":
				d.fromClient = false
			case "server_no_context_takeover":
				d.fromUp = false
			}
		}
	}
	return d, nil
}

// extensions lists the elements of Sec-WebSocket-Extensions. Quoted strings in it
// are tokens (RFC 6455, 9.1): no comma is in them.
func extensions(h http.Header) (list []string) {
	for _, line := range h[fieldExtensions] {
		for ext := range strings.SplitSeq(line, ",") {
			if ext = strings.TrimSpace(ext); ext != "" {
				list = append(list, ext)
			}
		}
	}
	return list
}
