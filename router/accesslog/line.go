package accesslog

import (
	"encoding/hex"
	"strconv"

	"github.com/oneport-edge/oneport/protocols"
)

// entry is a call that has ended.
type entry struct {
	call  *protocols.Call
	res   protocols.Result
	clock *clock
}

// append adds the entry's line, with its end.
func (e *entry) append(b []byte, form Form) []byte {
	switch form {
	case Common:
		b = e.common(b)
	case OTel:
		b = e.otel(b)
	case Text:
		f := fields{b: b, text: true}
		f.b = e.res.At.AppendFormat(append(f.b, "time="...), "2006-01-02T15:04:05.000Z07:00")
		f.b = append(f.b, " level=INFO msg=call"...)
		e.all(&f)
		b = f.b
	default:
		f := fields{b: b}
		f.b = e.clock.append(append(f.b, `{"time":"`...), e.res.At)
		f.b = append(f.b, `","level":"INFO","msg":"call"`...)
		e.all(&f)
		f.b = append(f.b, '}')
		b = f.b
	}
	return append(b, '\n')
}

// all adds what is known, by the names that log/slog's lines have for it.
func (e *entry) all(f *fields) {
	call := e.call
	f.plain(keyProtocol, call.Protocol.String())
	f.str(keyMethod, call.Method)
	f.str(keyHost, call.Host)
	f.str(keyPath, call.Path)
	f.str(keyVersion, call.Version)
	f.int(keyStatus, int64(e.res.Status))
	f.int(keySent, e.res.Sent)
	if took := e.res.At.Sub(call.Started); f.text {
		f.str(keyTook, took.String())
	} else {
		f.int(keyTook, int64(took))
	}
	f.open(keyRemote)
	f.b = e.remote(f.b)
	f.close()
	f.plain(keyConn, call.Conn.ID)
	f.open(keyRequest)
	f.b = e.request(f.b)
	f.close()
	f.open(keyTrace)
	f.b = e.trace(f.b)
	f.close()
	if id := call.SpanID(); id != "" {
		f.plain(keySpan, id)
	}
	if id := call.Identity(); id != nil {
		f.str(keyUser, id.Key())
	}
	if to := call.Destination(); to != nil {
		f.str(keyRoute, to.Route)
		f.str(keyUpstream, to.Upstream)
	}
	if why := call.Refusal(); why != nil {
		f.str(keyRefused, why.Reason.String())
	}
	if e.call.Agent() != "" {
		f.str(keyAgent, e.call.Agent())
	}
	if e.res.Err != nil {
		f.str(keyErr, e.res.Err.Error())
	}
}

// remote adds the client's address and port.
func (e *entry) remote(b []byte) []byte {
	if !e.call.Conn.Remote.IsValid() {
		return append(b, "invalid AddrPort"...) // as netip says
	}
	return e.call.Conn.Remote.AppendTo(b)
}

func (e *entry) request(b []byte) []byte {
	id := e.call.ID()
	return hex.AppendEncode(b, id[:])
}

func (e *entry) trace(b []byte) []byte {
	if e.call.Span() == nil && e.call.Parent() == "" {
		return e.request(b)
	}
	return append(b, e.call.TraceID()...)
}

// key is a name as it stands before a value.
type key struct{ json, text string }

func named(name string) key { return key{`,"` + name + `":`, " " + name + "="} }

// The names of what is known.
var (
	keyProtocol = named("protocol")
	keyMethod   = named("method")
	keyHost     = named("host")
	keyPath     = named("path")
	keyVersion  = named("version")
	keyStatus   = named("status")
	keySent     = named("sent")
	keyTook     = named("took")
	keyRemote   = named("remote")
	keyConn     = named("conn")
	keyRequest  = named("request")
	keyTrace    = named("trace")
	keySpan     = named("span")
	keyUser     = named("user")
	keyRoute    = named("route")
	keyUpstream = named("upstream")
	keyRefused  = named("refused")
	keyAgent    = named("agent")
	keyErr      = named("err")
)

// fields writes keys and values.
type fields struct {
	b    []byte
	text bool // key=value; else JSON
}

func (f *fields) key(k key) {
	if f.text {
		f.b = append(f.b, k.text...)
		return
	}
	f.b = append(f.b, k.json...)
}

func (f *fields) str(k key, value string) {
	f.key(k)
	if f.text {
		f.b = appendText(f.b, value)
		return
	}
	f.b = appendJSON(f.b, value)
}

// plain adds a value of ours, which needs no escapes.
func (f *fields) plain(k key, value string) {
	f.open(k)
	f.b = append(f.b, value...)
	f.close()
}

func (f *fields) int(k key, value int64) {
	f.key(k)
	f.b = strconv.AppendInt(f.b, value, 10)
}

// open begins a value that needs no escapes, which the caller adds to b; close ends it.
func (f *fields) open(k key) {
	f.key(k)
	if !f.text {
		f.b = append(f.b, '"')
	}
}

func (f *fields) close() {
	if !f.text {
		f.b = append(f.b, '"')
	}
}

// common adds a line of the form that web servers call combined, with key=value behind it:
// what reads that form takes no notice of what comes behind.
func (e *entry) common(b []byte) []byte {
	call := e.call
	if call.Conn.Remote.IsValid() {
		b = call.Conn.Remote.Addr().AppendTo(b)
	} else {
		b = append(b, '-')
	}
	b = append(b, " - "...)
	if id := call.Identity(); id != nil {
		b = appendWord(b, id.Key())
	} else {
		b = append(b, '-')
	}
	b = e.res.At.AppendFormat(append(b, " ["...), "02/Jan/2006:15:04:05 -0700")
	b = append(b, `] "`...)
	b = appendWord(b, call.Method)
	b = append(b, ' ')
	b = appendWord(b, call.Path)
	b = append(b, ' ')
	b = appendWord(b, call.Version)
	b = append(b, `" `...)
	b = strconv.AppendInt(b, int64(e.res.Status), 10)
	b = append(b, ' ')
	if e.res.Sent < 0 {
		b = append(b, '-')
	} else {
		b = strconv.AppendInt(b, e.res.Sent, 10)
	}
	b = append(b, ` "-" "`...)
	if e.call.Agent() == "" {
		b = append(b, '-')
	}
	b = appendQuoted(b, e.call.Agent())
	b = append(b, `" protocol=`...)
	b = append(b, call.Protocol.String()...)
	b = append(b, " host="...)
	b = appendWord(b, call.Host)
	b = append(b, " took="...)
	b = strconv.AppendFloat(b, e.res.At.Sub(call.Started).Seconds(), 'f', 6, 64)
	b = append(append(b, " conn="...), call.Conn.ID...)
	b = e.request(append(b, " request="...))
	b = e.trace(append(b, " trace="...))
	if id := call.SpanID(); id != "" {
		b = append(append(b, " span="...), id...)
	}
	if why := call.Refusal(); why != nil {
		b = append(append(b, " refused="...), why.Reason.String()...)
	}
	return b
}

// The names of OpenTelemetry's semantic conventions, and of ours.
var (
	otelTraceID                 = named("trace_id")
	otelSpanID                  = named("span_id")
	otelNetworkProtocolVersion  = named("network.protocol.version")
	otelOneportProtocol         = named("oneport.protocol")
	otelRPCSystemName           = named("rpc.system.name")
	otelRPCMethod               = named("rpc.method")
	otelRPCResponseStatusCode   = named("rpc.response.status_code")
	otelHTTPRequestMethod       = named("http.request.method")
	otelURLPath                 = named("url.path")
	otelOneportSessionCloseCode = named("oneport.session.close_code")
	otelHTTPResponseStatusCode  = named("http.response.status_code")
	otelServerAddress           = named("server.address")
	otelHTTPResponseBodySize    = named("http.response.body.size")
	otelOneportDurationNs       = named("oneport.duration_ns")
	otelClientAddress           = named("client.address")
	otelClientPort              = named("client.port")
	otelOneportConnectionID     = named("oneport.connection_id")
	otelOneportRequestID        = named("oneport.request_id")
	otelEnduserID               = named("enduser.id")
	otelHTTPRoute               = named("http.route")
	otelOneportUpstream         = named("oneport.upstream")
	otelOneportRefused          = named("oneport.refused")
	otelUserAgentOriginal       = named("user_agent.original")
	otelExceptionMessage        = named("exception.message")
)

// otel adds a line of OpenTelemetry's names.
func (e *entry) otel(b []byte) []byte {
	call := e.call
	f := fields{b: append(b, `{"timestamp":"`...)}
	f.b = e.clock.append(f.b, e.res.At)
	f.b = append(f.b, `","severity_text":"INFO","severity_number":9,"body":"call"`...)
	f.open(otelTraceID)
	f.b = e.trace(f.b)
	f.close()
	if id := call.SpanID(); id != "" {
		f.str(otelSpanID, id)
	}
	f.b = append(f.b, `,"attributes":{"network.protocol.name":"http"`...)
	version := call.Version
	if len(version) > len("HTTP/") {
		version = version[len("HTTP/"):]
	}
	f.str(otelNetworkProtocolVersion, version)
	f.str(otelOneportProtocol, call.Protocol.String())
	switch call.Protocol {
	case protocols.GRPC:
		f.str(otelRPCSystemName, "grpc")
		f.str(otelRPCMethod, trimSlash(call.Path))
		f.str(otelRPCResponseStatusCode, protocols.CodeName(e.res.Status))
	default:
		f.str(otelHTTPRequestMethod, call.Method)
		f.str(otelURLPath, call.Path)
		if call.Detached() {
			f.int(otelOneportSessionCloseCode, int64(e.res.Status))
		} else {
			f.int(otelHTTPResponseStatusCode, int64(e.res.Status))
		}
	}
	f.str(otelServerAddress, call.Host)
	f.int(otelHTTPResponseBodySize, e.res.Sent)
	f.int(otelOneportDurationNs, int64(e.res.At.Sub(call.Started)))
	if call.Conn.Remote.IsValid() {
		f.open(otelClientAddress)
		f.b = call.Conn.Remote.Addr().AppendTo(f.b)
		f.close()
		f.int(otelClientPort, int64(call.Conn.Remote.Port()))
	}
	f.str(otelOneportConnectionID, call.Conn.ID)
	f.open(otelOneportRequestID)
	f.b = e.request(f.b)
	f.close()
	if id := call.Identity(); id != nil {
		f.str(otelEnduserID, id.Key())
	}
	if to := call.Destination(); to != nil {
		f.str(otelHTTPRoute, to.Route)
		f.str(otelOneportUpstream, to.Upstream)
	}
	if why := call.Refusal(); why != nil {
		f.str(otelOneportRefused, why.Reason.String())
	}
	if e.call.Agent() != "" {
		f.str(otelUserAgentOriginal, e.call.Agent())
	}
	if e.res.Err != nil {
		f.str(otelExceptionMessage, e.res.Err.Error())
	}
	return append(f.b, "}}"...)
}

func trimSlash(path string) string {
	if path != "" && path[0] == '/' {
		return path[1:]
	}
	return path
}
