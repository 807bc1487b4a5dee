package proxy

import (
	"errors"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// Exchange is one request of a client, and its answer. [Client.Do] calls one
// method after the other, but for Read, Unread and Trailers, which may be called by another
// goroutine than the rest. Slices belong to the caller again when a method returns.
type Exchange interface {
	// Head fills in the request's head. h.Fields has capacity to be used again.
	Head(h *protocols.Head)

	// Read reads the request's body: io.EOF at its end. It waits for the client.
	Read(p []byte) (int, error)
	// Unread gives back what was read and not sent: it is read again next.
	Unread(p []byte)
	// Trailers appends the request's trailers to list, once Read has returned io.EOF.
	Trailers(list []protocols.Field) []protocols.Field
	// StopReading ends a Read that waits, and all later ones: nobody wants the
	// rest of the body. The client is told so behind its answer.
	StopReading()

	// Inform sends an interim answer (1xx), if the client understands it.
	Inform(status int, fields []protocols.Field) error
	// Respond begins the answer. length is how long its body is: 0 without one,
	// also where fields have a Content-Length (HEAD), -1 if nobody knows.
	Respond(status int, fields []protocols.Field, length int64) error
	// Write sends some of the body, or keeps it until Flush. It waits for the client.
	Write(p []byte) (int, error)
	// Flush sends what was kept.
	Flush() error
	// Finish ends an answer that is whole.
	Finish(trailers []protocols.Field) error
	// Abort ends an answer that is not whole, so that the client notices.
	Abort()
}

// Ruled is an Exchange with rules of its own.
type Ruled interface {
	Exchange
	// Prepare may change the request's head once more, after Config.Prepare. It must
	// not wait.
	Prepare(h *protocols.Head)
	// AnswerTimeout is used instead of Config.Answer, unless it is zero.
	AnswerTimeout() time.Duration
}

// leaver is an Exchange that says at once when its client has left. Of others the
// sweeper learns it by their context.
type leaver interface {
	// OnLeave has f called then, or at once.
	OnLeave(f func())
}

// Error is why [Client.Do] has not brought a whole answer.
type Error struct {
	// Sent says that some of the request was written to a connection that was
	// open: the server may have acted on it. Without it the request, with its whole body, may
	// be given to another server.
	Sent bool
	// Answered says that the client has a head of an answer, and that the rest of it
	// was cut off. Without it the client waits for one.
	Answered bool
	// Timeout says that somebody took too long: the client if Client is set, else the server.
	Timeout bool
	// Client says that it is the client's fault, or that it has left.
	Client bool
	// Busy says that the server has all the connections that it may have, and
	// that none was free in time.
	Busy bool
	// Err is what went wrong.
	Err error
}

func (e *Error) Error() string { return "proxy: " + e.Err.Error() }

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

var (
	// ErrMalformed is what the server's answer was, or its trailers.
	ErrMalformed = errors.New("malformed answer")
	// ErrTooLarge is what the head of the server's answer was, or its trailers.
	ErrTooLarge = errors.New("the head of the answer is too large")
	// ErrCut is how an answer ended before its end.
	ErrCut = errors.New("the server closed the connection")
	// ErrClosed is returned once a Client is closed.
	ErrClosed = errors.New("the client is closed")
	// ErrRequest is a request that cannot be written as HTTP/1.1.
	ErrRequest = errors.New("the request cannot be sent on")

	errLeft       = errors.New("the client has left")
	errNoAnswer   = errors.New("the server does not answer in time")
	errAnswerIdle = errors.New("the server's answer stands still")
	errSendIdle   = errors.New("the server takes nothing of the request")
	errBusy       = errors.New("no connection to the server is free")
)
