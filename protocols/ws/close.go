package ws

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// Close codes (RFC 6455, 7.4.1).
const (
	CloseNormal        = 1000
	CloseGoingAway     = 1001 // the server drains: come back
	CloseProtocol      = 1002
	CloseNoStatus      = 1005 // never sent: the peer closed without a code
	CloseAbnormal      = 1006 // never sent: the connection broke
	CloseInvalidData   = 1007 // text that is not UTF-8
	ClosePolicy        = 1008 // not allowed: do not come back
	CloseTooBig        = 1009
	CloseInternal      = 1011
	CloseTryAgainLater = 1013 // overloaded, or too slow a consumer
)

// CloseError is how a session was closed. A handler returns one to close with
// a code of its choice.
type CloseError struct {
	Code   int
	Reason string // at most 123 bytes
}

func (e *CloseError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("ws: closed with %d", e.Code)
	}
	return fmt.Sprintf("ws: closed with %d (%s)", e.Code, e.Reason)
}

// CloseCode gives the close code in err, or -1 if there is none.
func CloseCode(err error) int {
	if ce, ok := errors.AsType[*CloseError](err); ok {
		return ce.Code
	}
	return -1
}

// closeFor is how a session is closed whose handler returned err.
func closeFor(err error) (code int, reason string) {
	var ce *CloseError
	switch {
	case err == nil:
		return CloseNormal, ""
	case errors.As(err, &ce) && sendable(ce.Code):
		return ce.Code, ce.Reason
	case ce != nil:
		return CloseNormal, ""
	}
	return CloseInternal, "internal error" // not err's text: it may tell too much
}

// sendable reports whether a close frame may carry code (RFC 6455, 7.4).
func sendable(code int) bool {
	switch code {
	case 1004, CloseNoStatus, CloseAbnormal, 1015:
		return false
	}
	return 1000 <= code && code < 1016 || 3000 <= code && code < 5000
}

// closePayload encodes a close frame's payload, of at most 125 bytes.
func closePayload(code int, reason string) []byte {
	if !sendable(code) {
		code = CloseInternal
	}
	const most = 123
	for len(reason) > most || !utf8.ValidString(reason) {
		reason = reason[:min(len(reason)-1, most)] // never cut within a rune
	}
	return websocket.FormatCloseMessage(code, reason)
}

// sessionError is what to report of a handler's error: a close is none.
func sessionError(err error) error {
	if CloseCode(err) >= 0 {
		return nil
	}
	return err
}

// closeCodes bounds what is counted: 1000 to 1015, and one for all others.
const closeCodes = 17

func codeIndex(code int) int {
	if code < 1000 || code > 1015 {
		return 0
	}
	return code - 999
}

func codeAt(i int) int {
	if i == 0 {
		return 0
	}
	return i + 999
}
