package accesslog

import (
	"encoding/hex"
	"strconv"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// entry is a call that has ended.
type entry struct {
	call  *protocols.Call
	res   protocols.Result
	agent string
	now   time.Time
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
		f.b = e.now.AppendFormat(append(f.b, "time="...), "2006-01-02T15:04:05.000Z07:00")
		f.b = append(f.b, " level=INFO msg=call"...)
		e.all(&f)
		b = f.b
	default:
		f := fields{b: b}
		f.b = e.clock.append(append(f.b, `{"time":"`...), e.now)
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
	f.str("protocol", call.Protocol.String())
	f.str("method", call.Method)
	f.str("host", call.Host)
	f.str("path", call.Path)
	f.str("version", call.Version)
	f.int("status", int64(e.res.Status))
	f.int("sent", e.res.Sent)
	if took := e.now.Sub(call.Started); f.text {
		f.str("took", took.String())
	} else {
		f.int("took", int64(took))
	}
	f.open("remote")
	f.b = e.remote(f.b)
	f.close()
	f.str("conn", call.Conn.ID)
	f.open("request")
	f.b = e.request(f.b)
	f.close()
	f.open("trace")
	f.b = e.trace(f.b)
	f.close()
	if id := call.SpanID(); id != "" {
		f.str("span", id)
	}
	if id := call.Identity(); id != nil {
		f.str("user", id.Key())
	}
	if to := call.Destination(); to != nil {
		f.str("route", to.Route)
		f.str("upstream", to.Upstream)
	}
	if why := call.Refusal(); why != nil {
		f.str("refused", why.Reason.String())
	}
	if e.agent != "" {
		f.str("agent", e.agent)
	}
	if e.res.Err != nil {
		f.str("err", e.res.Err.Error())
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

// fields writes keys and values.
type fields struct {
	b    []byte
	text bool // key=value; else JSON
}

func (f *fields) key(name string) {
	if f.text {
		f.b = append(append(append(f.b, ' '), name...), '=')
		return
	}
	f.b = append(append(append(f.b, ',', '"'), name...), '"', ':')
}

func (f *fields) str(name, value string) {
	f.key(name)
	if f.text {
		f.b = appendText(f.b, value)
		return
	}
	f.b = appendJSON(f.b, value)
}

func (f *fields) int(name string, value int64) {
	f.key(name)
	f.b = strconv.AppendInt(f.b, value, 10)
}

// open begins a value that needs no escapes, which the caller adds to b; close ends it.
func (f *fields) open(name string) {
	f.key(name)
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
	b = e.now.AppendFormat(append(b, " ["...), "02/Jan/2006:15:04:05 -0700")
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
	if e.agent == "" {
		b = append(b, '-')
	}
	b = appendQuoted(b, e.agent)
	b = append(b, `" protocol=`...)
	b = append(b, call.Protocol.String()...)
	b = append(b, " host="...)
	b = appendWord(b, call.Host)
	b = append(b, " took="...)
	b = strconv.AppendFloat(b, e.now.Sub(call.Started).Seconds(), 'f', 6, 64)
	b = append(append(b, " conn="...), call.Conn.ID...)
	b = e.request(append(b, " request="...))
	b = e.trace(append(b, " trace="...))
	if id := call.SpanID(); id != "" {
		b = append(append(b, " span="...), id...)
	}
	return b
}

// otel adds a line of OpenTelemetry's names.
func (e *entry) otel(b []byte) []byte {
	call := e.call
	f := fields{b: append(b, `{"timestamp":"`...)}
	f.b = e.clock.append(f.b, e.now)
	f.b = append(f.b, `","severity_text":"INFO","severity_number":9,"body":"call"`...)
	f.open("trace_id")
	f.b = e.trace(f.b)
	f.close()
	if id := call.SpanID(); id != "" {
		f.str("span_id", id)
	}
	f.b = append(f.b, `,"attributes":{"network.protocol.name":"http"`...)
	version := call.Version
	if len(version) > len("HTTP/") {
		version = version[len("HTTP/"):]
	}
	f.str("network.protocol.version", version)
	f.str("oneport.protocol", call.Protocol.String())
	switch call.Protocol {
	case protocols.GRPC:
		f.str("rpc.system.name", "grpc")
		f.str("rpc.method", trimSlash(call.Path))
		f.str("rpc.response.status_code", protocols.CodeName(e.res.Status))
	default:
		f.str("http.request.method", call.Method)
		f.str("url.path", call.Path)
		if call.Detached() {
			f.int("oneport.session.close_code", int64(e.res.Status))
		} else {
			f.int("http.response.status_code", int64(e.res.Status))
		}
	}
	f.str("server.address", call.Host)
	f.int("http.response.body.size", e.res.Sent)
	f.int("oneport.duration_ns", int64(e.now.Sub(call.Started)))
	if call.Conn.Remote.IsValid() {
		f.open("client.address")
		f.b = call.Conn.Remote.Addr().AppendTo(f.b)
		f.close()
		f.int("client.port", int64(call.Conn.Remote.Port()))
	}
	f.str("oneport.connection_id", call.Conn.ID)
	f.open("oneport.request_id")
	f.b = e.request(f.b)
	f.close()
	if id := call.Identity(); id != nil {
		f.str("enduser.id", id.Key())
	}
	if to := call.Destination(); to != nil {
		f.str("http.route", to.Route)
		f.str("oneport.upstream", to.Upstream)
	}
	if why := call.Refusal(); why != nil {
		f.str("oneport.refused", why.Reason.String())
	}
	if e.agent != "" {
		f.str("user_agent.original", e.agent)
	}
	if e.res.Err != nil {
		f.str("exception.message", e.res.Err.Error())
	}
	return append(f.b, "}}"...)
}

func trimSlash(path string) string {
	if path != "" && path[0] == '/' {
		return path[1:]
	}
	return path
}
