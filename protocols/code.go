package protocols

import "strconv"

// otherLabel is what a label says that is none of the known.
const otherLabel = "other"

// grpcCodes are the names of gRPC's status codes (its statuscodes.md).
var grpcCodes = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// codeOther and codeApp3, codeApp4 stand for codes that are not told apart.
const (
	codeOther = -1
	codeApp3  = 3000 // of libraries and frameworks, 3000-3999 (RFC 6455, 7.4.2)
	codeApp4  = 4000 // of applications, 4000-4999
)

// code is a status as it is counted: one of a bounded set.
func (p Protocol) code(status int) int {
	switch {
	case p == GRPC && status >= 0 && status < len(grpcCodes),
		p != GRPC && status >= 100 && status < 600,
		p == WebSocket && status >= 1000 && status <= 1015:
		return status
	case p == WebSocket && status >= 3000 && status < 4000:
		return codeApp3
	case p == WebSocket && status >= 4000 && status < 5000:
		return codeApp4
	}
	return codeOther
}

// label is the text of a code.
func (p Protocol) label(code int) string {
	switch {
	case code == codeOther:
		return otherLabel
	case p == GRPC:
		return grpcCodes[code]
	case code == codeApp3:
		return "3xxx"
	case code == codeApp4:
		return "4xxx"
	}
	return strconv.Itoa(code)
}

// Code is the [Result.Status] of a call as a label, one of a bounded set: an HTTP status
// from 100 to 599; the name of a gRPC code, as "NOT_FOUND"; of a WebSocket the close code
// from 1000 to 1015, "3xxx" or "4xxx", or the HTTP status with which its handshake was
// refused. Everything else is "other". What a client has left before it had an answer is 499, as nginx says it.
func (p Protocol) Code(status int) string { return p.label(p.code(status)) }

// CodeName is the name of a gRPC status code, as OpenTelemetry's conventions write it; "_OTHER" for
// a number that is none: servers may send any.
func CodeName(code int) string {
	if code < 0 || code >= len(grpcCodes) {
		return "_OTHER"
	}
	return grpcCodes[code]
}

// Failed reports whether a [Result.Status] says that the server's side has failed: 5xx; UNKNOWN,
// DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS; close code 1011, and 5xx of a
// handshake.
func (p Protocol) Failed(status int) bool {
	switch {
	case p == GRPC:
		return status == 2 || status == 4 || status == 13 || status == 14 || status == 15
	case p == WebSocket && status == 1011:
		return true
	}
	return status >= 500 && status < 600
}

// reasonNames are those of reasons, in their order.
var reasonNames = [numReasons]string{"internal", "unauthenticated", "forbidden", "too_many", "overloaded", "too_big", "misdirected", "expired"}

// numReasons is how many reasons there are.
const numReasons = int(ReasonExpired) + 1

// String gives the reason's name: a bounded set, fit for a label.
func (r Reason) String() string {
	if int(r) >= numReasons {
		return otherLabel
	}
	return reasonNames[r]
}

// Reasons lists all reasons in order, for tables and metrics.
func Reasons() []Reason {
	all := make([]Reason, numReasons)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}
