package upstream

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
)

// The names under which a server learns of the client and the call.
const (
	forwardedFor   = "x-forwarded-for"
	forwardedProto = "x-forwarded-proto"
	forwardedHost  = "x-forwarded-host"
	requestID      = "x-request-id"
	userID         = "x-user-id"
	traceParent    = "traceparent"
	traceState     = "tracestate"
	baggage        = "baggage"
)

// mostBaggage is how long a baggage may be (W3C Baggage, 4.2): a longer one is not handed on.
const mostBaggage = 8192

// fields is the head of a request, of HTTP/1.1 or HTTP/2.
type fields interface {
	Get(name string) string
	Set(name, value string)
	Remove(name string)
}

// forward tells the server who asks, behind those that a trusted proxy says
// it asks for. What an untrusted client said of itself has been taken out before.
func forward(out fields, before string, call *protocols.Call) {
	from := call.Conn.Remote.Addr().String()
	if !call.Conn.Remote.IsValid() {
		from = netip.IPv4Unspecified().String()
	}
	if before != "" {
		from = before + ", " + from
	}
	out.Set(forwardedFor, from)
	if out.Get(forwardedProto) == "" {
		proto := "http"
		if call.Conn.TLS != nil {
			proto = "https"
		}
		out.Set(forwardedProto, proto)
	}
	if out.Get(forwardedHost) == "" && call.Host != "" {
		out.Set(forwardedHost, call.Host)
	}
	out.Set(requestID, call.RequestID())
	if parent := call.Traceparent(); parent != out.Get(traceParent) {
		out.Set(traceParent, parent)
		out.Remove(traceState) // of another trace, or of none
	}
	if len(out.Get(baggage)) > mostBaggage {
		out.Remove(baggage)
	}
	if id := call.Identity(); id != nil {
		out.Set(userID, id.Subject)
	}
	for _, f := range call.Handed() {
		if f.Value == "" {
			out.Remove(f.Name)
		} else {
			out.Set(f.Name, f.Value)
		}
	}
}

// Prepare is for a stream that is handed on: what Forward is for HTTP/1.1.
func Prepare(r *h2.Request, call *protocols.Call) {
	forward(requestFields{r}, r.Get(forwardedFor), call)
	if shown := call.Shown(r.Path); shown != r.Path {
		r.Path = shown
		r.Set(":path", shown)
	}
}

// requestFields are those of a stream, whose names are in lower case.
type requestFields struct{ *h2.Request }

func (f requestFields) Get(name string) string { return f.Request.Get(strings.ToLower(name)) }
func (f requestFields) Set(name, value string) { f.Request.Set(strings.ToLower(name), value) }
func (f requestFields) Remove(name string) {
	name = strings.ToLower(name)
	f.Drop(func(n string) bool { return n == name })
}

// headerFields are those that net/http has.
type headerFields struct{ http.Header }

func (f headerFields) Remove(name string) { f.Del(name) }

// Forward is for a request of HTTP/1.1 that is handed on with the header out, as
// a WebSocket's handshake is.
func Forward(out http.Header, in *http.Request) {
	if call := protocols.CallFrom(in.Context()); call != nil {
		forward(headerFields{out}, strings.Join(in.Header.Values("X-Forwarded-For"), ", "), call)
	}
}
