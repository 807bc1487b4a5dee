package h2

import (
	"cmp"
	"math/rand/v2"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols"
)

// Relay is a Backend that sends each stream to one of several upstreams, and may
// change what goes there and what comes back. It must not be changed once it is
// in use.
type Relay struct {
	// Pick chooses where a stream goes. tried are the members that could not be
	// reached for it. Nil sends it to Otherwise. It must not wait, and keeps
	// nothing of the request. Required.
	Pick func(r *Request, call *protocols.Call, tried []Member) Member
	// Otherwise takes streams that no member could be had for, or reached. Nil
	// refuses them: with 503 or 502, or UNAVAILABLE.
	Otherwise Backend
	// Prepare may change a request before it is sent, once. What it returns,
	// Answer gets. It must not wait.
	Prepare func(*Request, *protocols.Call) (note string)
	// Trailer reports whether a trailer of a request, whose name is in lower case, is
	// sent. Nil sends all. It must not wait.
	Trailer func(name string, call *protocols.Call) bool
	// Answer may change the head of an answer, but for 1xx. It must not wait.
	Answer func(res *Response, call *protocols.Call, note string)
	// Retries is how many further members a stream is tried at that none of it
	// was sent to: whose upstream could not be reached. Zero means none.
	Retries int
	// Backoff is how long the second retry waits at most, a random share of it;
	// the third twice as long, and so on, up to 16 times. The first, which goes
	// elsewhere, does not wait. Zero means 25 ms.
	Backoff time.Duration
	// AnswerTimeout is how long an HTTP request may wait for the head of its
	// answer. Zero means Limits.Answer.
	AnswerTimeout time.Duration
	// MaxBody is how long the body of a request may be: with more it is answered 413, or
	// RESOURCE_EXHAUSTED. Zero means no bound.
	MaxBody int64
	// Timeout is how long a gRPC call may take in all: it ends with
	// DEADLINE_EXCEEDED. Zero means no limit.
	Timeout time.Duration
}

// Member is one of the upstreams that a Relay chooses from.
type Member interface {
	// Upstream is where the stream goes.
	Upstream() *Upstream
	// Done is called once for each stream that was sent to the member, when it
	// has ended there. It must not wait.
	Done(Outcome)
}

// Outcome is how a stream ended for the upstream that it was sent to.
type Outcome struct {
	// Status is the HTTP status or, of a gRPC call, its code; -1 if there was none.
	Status int
	GRPC   bool
	// Fault is what the upstream has done wrong.
	Fault Fault
}

// Fault is what an upstream may do wrong with a stream.
type Fault uint8

// The faults.
const (
	NoFault     Fault = iota
	Unreachable       // nothing was sent: it could not be reached
	Broken            // the connection broke, or what came was no answer
	Slow              // the answer did not come in time
)

// Response is the head of an answer. It is valid until the function that it was
// given to returns.
type Response struct {
	Status string // three digits
	Fields []hpack.HeaderField
}

// Get returns the first field of that name, which is in lower case; "" if
// there is none.
func (r *Response) Get(name string) string { return field(r.Fields, name) }

// Set makes value the only one of that name.
func (r *Response) Set(name, value string) { r.Fields = setField(r.Fields, name, value) }

// Add adds a field.
func (r *Response) Add(name, value string) {
	r.Fields = append(r.Fields, hpack.HeaderField{Name: name, Value: value})
}

// Drop takes out the fields whose name drop accepts. Pseudo-header fields stay.
func (r *Response) Drop(drop func(name string) bool) { r.Fields = removeFields(r.Fields, drop) }

func (w *Relay) tells() bool { return true }

// take sends a new stream to a member.
func (w *Relay) take(s *stream, r *Request, end bool) {
	if w.MaxBody > 0 && max(r.length, s.up.Received()) > w.MaxBody {
		s.reply(bodyTooLarge)
		return
	}
	if w.Prepare != nil {
		s.noted = w.Prepare(r, s.call)
	}
	s.relay = w
	if !w.send(s, r, end) {
		w.otherwise(s, r, end, unavailable)
	}
}

// otherwise is for streams that no member takes.
func (w *Relay) otherwise(s *stream, r *Request, end bool, why *refusal) {
	if w.Otherwise == nil {
		s.reply(why)
		return
	}
	s.relay, s.tried = nil, nil // whom it was tried at is nothing to the next
	w.Otherwise.take(s, r, end)
}

// send sends a stream to a member that is chosen for it, and reports whether
// there was one.
func (w *Relay) send(s *stream, r *Request, end bool) bool {
	m := w.Pick(r, s.call, s.tried)
	if m == nil {
		return false
	}
	s.member, s.fault = m, NoFault
	m.Upstream().take(s, r, end)
	return true
}

// retry has a stream that could not be sent to its member go to another one, or
// to Otherwise, and reports whether it does. The stream's client is locked.
func (tk *ticket) retry() bool {
	s := tk.s
	w := s.relay
	if w == nil {
		return false
	}
	more := len(s.tried) < w.Retries
	if !more && w.Otherwise == nil {
		return false
	}
	tk.leave()
	s.c.leavePool(s.pool)
	s.pool = nil
	s.tried = append(s.tried, s.member)
	s.leaveMember(Outcome{Status: -1, GRPC: s.grpc, Fault: Unreachable})
	wait := w.backoff(len(s.tried))
	switch {
	case !more:
		r := tk.request()
		w.otherwise(s, &r, tk.end, unreachable)
	case wait == 0:
		tk.resend()
	default:
		s.wait = tk
		s.c.work.Add(1)
		tk.timer = time.AfterFunc(wait, func() {
			defer s.c.work.Done()
			s.c.mu.Lock()
			if s.wait == tk {
				s.wait = nil
				tk.resend()
			}
			s.c.unlock()
			s.c.kick()
		})
	}
	return true
}

// backoff is how long a retry waits.
func (w *Relay) backoff(retry int) time.Duration {
	if retry <= 1 {
		return 0
	}
	return rand.N(cmp.Or(w.Backoff, 25*time.Millisecond) << min(retry-2, 4))
}

// resend sends the stream to a member once more.
func (tk *ticket) resend() {
	r, w := tk.request(), tk.s.relay
	if !w.send(tk.s, &r, tk.end) {
		w.otherwise(tk.s, &r, tk.end, unreachable)
	}
}

// request is what the ticket was written for.
func (tk *ticket) request() Request {
	return Request{
		Method: field(tk.fields, ":method"), Scheme: field(tk.fields, ":scheme"), Authority: field(tk.fields, ":authority"),
		Path: field(tk.fields, ":path"), Fields: tk.fields, length: tk.s.length, grpc: tk.s.grpc,
	}
}

// leaveMember tells the member that the stream has ended there.
func (s *stream) leaveMember(out Outcome) {
	if m := s.member; m != nil {
		s.member = nil
		m.Done(out)
	}
}

// passed are a half's trailers: of a request those that the relay lets go on.
func (s *stream) passed(h *half) []hpack.HeaderField {
	if h != &s.up || s.relay == nil || s.relay.Trailer == nil {
		return h.trailers
	}
	return removeFields(h.trailers, func(name string) bool { return !s.relay.Trailer(name, s.call) })
}

// answered lets the relay change the head of an answer.
func (s *stream) answered(fields []hpack.HeaderField) []hpack.HeaderField {
	if s.relay == nil || s.relay.Answer == nil {
		return fields
	}
	r := Response{Status: field(fields, fieldStatus), Fields: fields}
	s.relay.Answer(&r, s.call, s.noted)
	return r.Fields
}
