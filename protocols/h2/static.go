package h2

import (
	"net/http"
	"strconv"

	"golang.org/x/net/http2/hpack"
)

// Static is a Backend that answers every HTTP request alike, and refuses gRPC
// calls with UNAVAILABLE. It must not be changed once it is in use.
type Static struct {
	Status int
	// Fields are the head of the answer, with names in lower case. Content-Length
	// is added, but for 204.
	Fields []hpack.HeaderField
	// Body is the answer's, but for HEAD.
	Body []byte
}

func (*Static) tells() bool { return true }

// take answers a stream.
func (a *Static) take(s *stream, _ *Request, _ bool) {
	if s.grpc {
		s.reply(unavailable)
		return
	}
	s.started, s.status = true, a.Status
	fields := append([]hpack.HeaderField{{Name: fieldStatus, Value: strconv.Itoa(a.Status)}}, a.Fields...)
	if a.Status != http.StatusNoContent { // which must not have one (RFC 9110, 8.6)
		fields = append(fields, hpack.HeaderField{Name: fieldLength, Value: strconv.Itoa(len(a.Body))})
	}
	if s.bare || len(a.Body) == 0 {
		s.down.ended, s.down.closed = true, true
		s.c.head(s.id, fields, true, 0)
	} else {
		s.c.head(s.id, fields, false, 0)
		s.down.data(a.Body, true)
	}
	if !s.gone {
		s.stop()
	}
}
