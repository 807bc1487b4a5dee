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
)

// fields is the head of a request, of HTTP/1.1 or HTTP/2.
type fields interface {
	Get(name string) string
	Set(name, value string)
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
}

// Prepare is for a stream that is handed on: what Forward is for HTTP/1.1.
func Prepare(r *h2.Request, call *protocols.Call) { forward(r, r.Get(forwardedFor), call) }

// Forward is for a request of HTTP/1.1 that is handed on with the header out, as
// a WebSocket's handshake is.
func Forward(out http.Header, in *http.Request) {
	if call := protocols.CallFrom(in.Context()); call != nil {
		forward(out, strings.Join(in.Header.Values("X-Forwarded-For"), ", "), call)
	}
}
