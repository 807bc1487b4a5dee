package tracing

import (
	"net"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"

	"github.com/oneport-edge/oneport/protocols"
)

// schema is the version of the semantic conventions whose names these are.
const schema = "https://opentelemetry.io/schemas/1.44.0"

// Names of the semantic conventions, and of ours.
const (
	httpMethod     = "http.request.method"
	httpOriginal   = "http.request.method_original"
	httpRoute      = "http.route"
	httpStatus     = "http.response.status_code"
	httpResend     = "http.request.resend_count"
	urlPath        = "url.path"
	urlScheme      = "url.scheme"
	protocolName   = "network.protocol.name"
	protocolVer    = "network.protocol.version"
	rpcSystem      = "rpc.system.name"
	rpcMethod      = "rpc.method"
	rpcStatus      = "rpc.response.status_code"
	serverAddress  = "server.address"
	serverPort     = "server.port"
	clientAddress  = "client.address"
	userAgent      = "user_agent.original"
	errorType      = "error.type"
	endUser        = "enduser.id"
	connectionID   = "oneport.connection_id"
	requestID      = "oneport.request_id"
	upstreamName   = "oneport.upstream"
	protocolSpoken = "oneport.protocol"
	refusedFor     = "oneport.refused"
)

// grpcSystem is gRPC's name as an RPC system, and that of spans whose method may be made up.
const grpcSystem = "grpc"

// schemeTLS is that of URLs with TLS.
const schemeTLS = "https"

// other stands for what a client has made up.
const other = "_OTHER"

// mostText bounds what a client can put into an attribute.
const mostText = 1 << 10

// text is what a client has said, as protocol buffers take it: one string that is not UTF-8
// would have all of a batch refused. It is a copy: a part of a head would keep all of that while
// the span waits.
func text(s string) string {
	if len(s) > mostText {
		s = s[:mostText]
	}
	if utf8.ValidString(s) {
		return strings.Clone(s)
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// method is a method that is known, or other.
func method(m string) string {
	for _, known := range [...]string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"} {
		if m == known {
			return known // not m, which is a part of a head
		}
	}
	return other
}

func grpcMethod(call *protocols.Call) string { return text(strings.TrimPrefix(call.Path, "/")) }

// nameOf is what a call's span is called until its route is known, or that its method is one.
func (t *Tracer) nameOf(call *protocols.Call) string {
	if call.Protocol == protocols.GRPC {
		if name := t.methods.name(call, false); name != other {
			return name
		}
		return grpcSystem
	}
	if m := method(call.Method); m != other {
		return m
	}
	return "HTTP"
}

func version(call *protocols.Call) string {
	switch v := strings.TrimPrefix(call.Version, "HTTP/"); v {
	case "2.0":
		return "2"
	case "1.1":
		return "1.1" // not v, which is a part of a head
	default:
		return strings.Clone(v)
	}
}

func scheme(call *protocols.Call) string {
	if call.Conn.TLS != nil {
		return schemeTLS
	}
	return "http"
}

// begun says what is known of a call when it begins. Its query is left out: tokens travel in it.
func (t *Tracer) begun(call *protocols.Call) []attribute.KeyValue {
	host, port := hostPort(call.Host)
	attrs := make([]attribute.KeyValue, 0, 16)
	attrs = append(attrs,
		attribute.String(urlScheme, scheme(call)),
		attribute.String(protocolName, "http"),
		attribute.String(protocolVer, version(call)),
		attribute.String(serverAddress, text(host)),
		attribute.String(protocolSpoken, call.Protocol.String()),
		attribute.String(connectionID, call.Conn.ID),
		attribute.String(requestID, call.RequestID()),
	)
	if port > 0 {
		attrs = append(attrs, attribute.Int(serverPort, port))
	}
	if call.Conn.Remote.IsValid() {
		attrs = append(attrs, attribute.String(clientAddress, call.Conn.Remote.Addr().String()))
	}
	if ua := call.Agent(); ua != "" {
		attrs = append(attrs, attribute.String(userAgent, text(ua)))
	}
	return append(attrs, of(call)...)
}

// of says what a call is.
func of(call *protocols.Call) []attribute.KeyValue {
	if call.Protocol == protocols.GRPC {
		return []attribute.KeyValue{attribute.String(rpcSystem, grpcSystem), attribute.String(rpcMethod, grpcMethod(call))}
	}
	m := method(call.Method)
	attrs := []attribute.KeyValue{attribute.String(httpMethod, m), attribute.String(urlPath, text(call.Path))}
	if m == other {
		attrs = append(attrs, attribute.String(httpOriginal, text(call.Method)))
	}
	return attrs
}

// sent says what is known of the way to a server elsewhere.
func sent(call *protocols.Call, attempt int) []attribute.KeyValue {
	attrs := of(call)
	if attempt > 0 {
		attrs = append(attrs, attribute.Int(httpResend, attempt))
	}
	return attrs
}

// serverOf says which server it is, by a name of router/upstream's: a URL, and perhaps an
// address behind it.
func serverOf(name string) []attribute.KeyValue {
	first, _, _ := strings.Cut(name, " ")
	u, err := url.Parse(first)
	if err != nil {
		return nil
	}
	host, port := hostPort(u.Host)
	if host == "" {
		host = u.Path // a socket
	}
	attrs := []attribute.KeyValue{attribute.String(serverAddress, text(host))}
	if port > 0 {
		attrs = append(attrs, attribute.Int(serverPort, port))
	}
	return attrs
}

func hostPort(s string) (host string, port int) {
	host, digits, err := net.SplitHostPort(s)
	if err != nil {
		return s, 0
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return host, 0
	}
	return host, int(n)
}

// known says what is known of a call once it has ended.
func (t *Tracer) known(call *protocols.Call) []attribute.KeyValue {
	attrs := make([]attribute.KeyValue, 0, 4)
	if to := call.Destination(); to != nil {
		attrs = append(attrs, attribute.String(upstreamName, to.Upstream), attribute.String(httpRoute, to.Route))
	}
	if t.opts.Users {
		if id := call.Identity(); id != nil {
			attrs = append(attrs, attribute.String(endUser, text(id.Key())))
		}
	}
	return attrs
}

// ended is how a call has ended.
type ended struct {
	attrs  []attribute.KeyValue
	fault  bool // of this side's
	status bool // an error for a client
}

// outcome says how a call has ended, without any text: what is in one nobody knows.
func outcome(call *protocols.Call, res protocols.Result) (e ended) {
	if call.Protocol == protocols.GRPC {
		code := protocols.CodeName(res.Status)
		e.attrs = append(e.attrs, attribute.String(rpcStatus, code))
		switch res.Status {
		case 2, 4, 12, 13, 14, 15: // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS
			e.fault = true
		}
		if e.status = res.Status != 0; e.status {
			e.attrs = append(e.attrs, attribute.String(errorType, code))
		}
		return e
	}
	if res.Status > 0 {
		e.attrs = append(e.attrs, attribute.Int(httpStatus, res.Status))
	}
	e.fault, e.status = res.Status >= 500, res.Status >= 400
	switch {
	case res.Err != nil:
		e.fault = true
		e.attrs = append(e.attrs, attribute.String(errorType, "aborted"))
	case e.fault:
		e.attrs = append(e.attrs, attribute.String(errorType, strconv.Itoa(res.Status)))
	}
	return e
}
