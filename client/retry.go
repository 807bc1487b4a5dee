package client

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Errors of a socket. Run returns one that wraps them.
var (
	// ErrGaveUp is that of a socket that has tried as often as Backoff.Tries says.
	ErrGaveUp = errors.New("client: gave up")
	// ErrSilent is that of a connection on which nothing came after a ping.
	ErrSilent = errors.New("client: the server has gone silent")
	// ErrClosed is what calls of a socket give that has ended without an error.
	ErrClosed = errors.New("client: the socket is closed")
)

// Close codes that mean something here. Others are in RFC 6455, section 7.4.1.
const (
	closeNormal      = 1000
	closeGoingAway   = 1001
	closeProtocol    = 1002
	closeNoStatus    = 1005 // a close frame without a code
	closeAbnormal    = 1006 // no close frame came
	closeInvalidData = 1007
	closePolicy      = 1008
	closeTooBig      = 1009
	closeInternal    = 1011
	closeRestart     = 1012
	closeTryLater    = 1013

	// reasonExpired comes with closePolicy when a credential has ended.
	reasonExpired = "token-expired"
)

// CloseError says how a connection ended. Code is 1006 if no close frame came,
// and Err says what happened instead.
type CloseError struct {
	Code   int
	Reason string
	Err    error
}

func (e *CloseError) Error() string {
	s := fmt.Sprintf("client: closed with %d", e.Code)
	if e.Reason != "" {
		s += " (" + e.Reason + ")"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives Err.
func (e *CloseError) Unwrap() error { return e.Err }

// HandshakeError is a server's answer to a handshake that is no WebSocket.
type HandshakeError struct {
	Status     int
	RetryAfter time.Duration // how long the server wants to be left alone, at most 5 min; 0 if it does not say
	Body       string        // its first 1,024 bytes
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("client: the handshake was answered with %d %s", e.Status, http.StatusText(e.Status))
}

// action is what follows the end of a try.
type action uint8

const (
	actRetry  action = iota // wait, and come back
	actRenew                // wait, and come back with a newer token
	actAgain                // come back at once with a newer token, which is done once
	actFinal                // fail
	actClosed               // the server is done with us, and says so: no error
)

// afterClose says what follows a close code: RFC 6455's and IANA's below 3000,
// above it centrifuge's ranges (disconnect.go of v0.40): 3000 to 3499 and
// 4000 to 4499 come back, 3500 to 3999 and 4500 to 4999 do not.
func afterClose(code int, reason string) action {
	switch {
	case code == closeNormal, code == closeNoStatus: // node's close() says nothing
		return actClosed
	case code == closePolicy && reason == reasonExpired:
		return actRenew
	case code == closeGoingAway, code == closeAbnormal, code == closeInternal, code == closeRestart, code == closeTryLater:
		return actRetry
	case code >= 3000 && code < 3500, code >= 4000 && code < 4500:
		return actRetry
	}
	return actFinal
}

// afterHandshake says what follows a handshake's status.
func afterHandshake(status int) action {
	switch {
	case status == http.StatusUnauthorized:
		return actAgain
	case status == http.StatusTooManyRequests, status >= 500:
		return actRetry
	}
	return actFinal
}

// decide says what follows err, which ended a try.
func decide(err error) action {
	var handshake *HandshakeError
	var closed *CloseError
	switch {
	case errors.Is(err, ErrNoToken):
		return actFinal
	case errors.As(err, &handshake):
		return afterHandshake(handshake.Status)
	case errors.As(err, &closed):
		return afterClose(closed.Code, closed.Reason)
	}
	return actRetry // the network
}

// mostRetryAfter bounds how long a server may send clients away for.
const mostRetryAfter = 5 * time.Minute

// retryAfter reads the field of RFC 9110, section 10.2.3: seconds, or a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	d := time.Duration(0)
	if n, err := strconv.ParseUint(v, 10, 64); err == nil {
		d = time.Duration(min(n, uint64(mostRetryAfter/time.Second))) * time.Second
	} else if errors.Is(err, strconv.ErrRange) {
		d = mostRetryAfter
	} else if at, err := http.ParseTime(v); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), mostRetryAfter)
}

// Backoff is how a socket comes back. The n-th time in a row it waits for a random
// part of Base * 2^n, or of Max if that is less: the whole is random ("full
// jitter"), so that clients that a server has lost together do not return together.
type Backoff struct {
	Base  time.Duration // 0 is 1 s
	Max   time.Duration // 0 is 30 s
	Tries int           // how many in a row without a connection that lasts; 0 is 10, negative is no bound
	// Healthy is how long a connection has to last for the count to begin again; 0 is 10 s.
	Healthy time.Duration
}

func (b Backoff) withDefaults() Backoff {
	b.Base = either(b.Base, time.Second)
	b.Max = either(b.Max, 30*time.Second)
	b.Healthy = either(b.Healthy, 10*time.Second)
	if b.Tries == 0 {
		b.Tries = 10
	}
	return b
}

// window is how long the wait is at most after n failures, from 1.
func (b Backoff) window(n int) time.Duration {
	d := b.Base
	for ; n > 1 && d < b.Max; n-- {
		d *= 2
	}
	return min(d, b.Max)
}

// either is d, or what it is by default.
func either(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}
