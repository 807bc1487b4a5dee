package upstream

import (
	"maps"
	"net/http"
	"net/netip"
	"slices"
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

// fields is the head of a request, of HTTP/1.1 or HTTP/2. Names are in lower case.
type fields interface {
	Get(name string) string
	Values(name string) string // all, behind one another with ", "
	Set(name, value string)    // as the only one
	Remove(name string)
	// Unlike takes out those whose names read, once "_" is "-", as one that is ours.
	Unlike(handed []protocols.Field)
}

// forward tells the server who asks, behind those that a trusted proxy says
// it asks for. What an untrusted client said of itself has been taken out before.
// span records that way; nil for nothing.
func forward(out fields, before string, call *protocols.Call, span protocols.Span) {
	handed := call.Handed()
	out.Unlike(handed)
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
	handTrace(out, call, span)
	if out.Get(baggage) != "" && len(out.Values(baggage)) > mostBaggage {
		out.Remove(baggage)
	}
	if id := call.Identity(); id != nil {
		out.Set(userID, id.Subject)
	}
	for _, f := range handed {
		name := strings.ToLower(f.Name)
		if f.Value == "" {
			out.Remove(name)
		} else {
			out.Set(name, f.Value)
		}
	}
}

// handTrace tells the server which trace the call belongs to.
func handTrace(out fields, call *protocols.Call, span protocols.Span) {
	if span != nil {
		parent, state := span.Upstream()
		out.Set(traceParent, parent)
		if state != "" {
			out.Set(traceState, state)
		} else {
			out.Remove(traceState)
		}
		return
	}
	const flags = 52 // what stands before them says which trace it is
	parent, got := call.Traceparent(), out.Get(traceParent)
	if len(got) < flags || parent[:flags] != got[:flags] {
		out.Remove(traceState) // of another trace, or of none
	}
	out.Set(traceParent, parent)
}

// ours reports whether a name is one that only this port, or a guard, says something
// under: servers of CGI's kind read "x_user_id" as "x-user-id".
func ours(name string, handed []protocols.Field) bool {
	switch name {
	case userID, requestID, "x-real-ip":
		return true
	}
	return strings.HasPrefix(name, "x-forwarded-") ||
		slices.ContainsFunc(handed, func(f protocols.Field) bool { return strings.EqualFold(strings.ReplaceAll(f.Name, "_", "-"), name) })
}

// Prepare is for a stream that is handed on: what Forward is for HTTP/1.1.
func Prepare(r *h2.Request, call *protocols.Call) {
	fields := requestFields{r}
	forward(fields, fields.Values(forwardedFor), call, call.Span())
	// Some servers read a "#" as the end of the path, which the route was not chosen by.
	if shown := strings.ReplaceAll(call.Shown(r.Path), "#", "%23"); shown != r.Path {
		r.Path = shown
		r.Set(":path", shown)
	}
}

// requestFields are those of a stream, whose names are in lower case.
type requestFields struct{ *h2.Request }

func (f requestFields) Remove(name string) { f.Drop(func(n string) bool { return n == name }) }

func (f requestFields) Values(name string) (all string) {
	for i := range f.Fields {
		switch {
		case f.Fields[i].Name != name:
		case all == "":
			all = f.Fields[i].Value
		default:
			all += ", " + f.Fields[i].Value
		}
	}
	return all
}

func (f requestFields) Unlike(handed []protocols.Field) {
	f.Drop(func(name string) bool { return likeOurs(name, handed) })
}

// likeOurs reports whether a name with "_" is ours with "-".
func likeOurs(name string, handed []protocols.Field) bool {
	return strings.IndexByte(name, '_') >= 0 && ours(strings.ToLower(strings.ReplaceAll(name, "_", "-")), handed)
}

// claims reports whether a trailer's name says, or reads as if it said, what only this
// port or a guard says: servers that merge trailers into the header would believe it,
// whoever has sent it.
func claims(name string, handed []protocols.Field) bool {
	name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	switch name {
	case "forwarded", traceParent, traceState, baggage:
		return true
	}
	return ours(name, handed)
}

// headFields are those of a proxy.Exchange.
type headFields struct{ *protocols.Head }

func (f headFields) Unlike(handed []protocols.Field) {
	f.Fields = slices.DeleteFunc(f.Fields, func(f protocols.Field) bool { return likeOurs(f.Name, handed) })
}

// headerFields are those that net/http has.
type headerFields struct{ http.Header }

func (f headerFields) Remove(name string)        { f.Del(name) }
func (f headerFields) Values(name string) string { return strings.Join(f.Header.Values(name), ", ") }

func (f headerFields) Unlike(handed []protocols.Field) {
	maps.DeleteFunc(f.Header, func(name string, _ []string) bool { return likeOurs(name, handed) })
}

// Forward is for a request of HTTP/1.1 that is handed on with the header out, as
// a WebSocket's handshake is.
func Forward(out http.Header, in *http.Request) {
	if call := protocols.CallFrom(in.Context()); call != nil {
		forward(headerFields{out}, strings.Join(in.Header.Values("X-Forwarded-For"), ", "), call, spanOf(in.Context(), call))
	}
}
