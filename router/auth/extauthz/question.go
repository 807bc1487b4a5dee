package extauthz

import (
	"net/netip"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

// Fields of the messages that are sent: envoy/service/auth/v3/attribute_context.proto, and
// for addresses envoy/config/core/v3/address.proto.
const (
	requestAttributes = 1 // CheckRequest

	attributesSource      = 1 // AttributeContext
	attributesDestination = 2
	attributesRequest     = 4
	attributesTLS         = 12

	peerAddress   = 1 // AttributeContext.Peer
	peerPrincipal = 4

	addressSocket = 1 // Address
	socketAddress = 2 // SocketAddress
	socketPort    = 3

	requestTime = 1 // AttributeContext.Request
	requestHTTP = 2

	httpID       = 1 // AttributeContext.HttpRequest
	httpMethod   = 2
	httpHeaders  = 3
	httpPath     = 4
	httpHost     = 5
	httpScheme   = 6
	httpProtocol = 10

	tlsSNI = 1 // AttributeContext.TLSSession

	timeSeconds = 1 // google.protobuf.Timestamp
	timeNanos   = 2

	mapKey   = 1
	mapValue = 2
)

// appendQuestion appends a CheckRequest.
func appendQuestion(b []byte, q *auth.Question, now time.Time) []byte {
	call := q.Call
	return appendMessage(b, requestAttributes, func(b []byte) []byte {
		b = appendMessage(b, attributesSource, func(b []byte) []byte {
			return appendString(appendAddress(b, call.Conn.Remote), peerPrincipal, principal(call.Conn))
		})
		b = appendMessage(b, attributesDestination, func(b []byte) []byte { return appendAddress(b, call.Conn.Local) })
		b = appendMessage(b, attributesRequest, func(b []byte) []byte {
			b = appendMessage(b, requestTime, func(b []byte) []byte {
				return appendVarint(appendVarint(b, timeSeconds, uint64(now.Unix())), timeNanos, uint64(now.Nanosecond()))
			})
			return appendMessage(b, requestHTTP, func(b []byte) []byte { return appendHTTP(b, q) })
		})
		if call.Conn.SNI != "" {
			b = appendMessage(b, attributesTLS, func(b []byte) []byte { return appendString(b, tlsSNI, call.Conn.SNI) })
		}
		return b
	})
}

func appendHTTP(b []byte, q *auth.Question) []byte {
	call := q.Call
	scheme, version := "http", call.Version
	if call.Conn.TLS != nil {
		scheme = "https"
	}
	if version == "HTTP/2.0" {
		version = "HTTP/2" // as Envoy calls it
	}
	b = appendString(b, httpID, call.RequestID())
	b = appendString(b, httpMethod, call.Method)
	for _, fd := range joined(q) {
		b = appendMessage(b, httpHeaders, func(b []byte) []byte {
			return appendString(appendString(b, mapKey, fd.Name), mapValue, fd.Value)
		})
	}
	b = appendString(b, httpPath, q.Target)
	b = appendString(b, httpHost, call.Host)
	b = appendString(b, httpScheme, scheme)
	return appendString(b, httpProtocol, version)
}

// joined gives the fields in lower case, each once, as the message's map has them, and the
// pseudo-fields as Envoy sends them.
func joined(q *auth.Question) []protocols.Field {
	fields := []protocols.Field{
		{Name: ":authority", Value: q.Call.Host}, {Name: ":method", Value: q.Call.Method}, {Name: ":path", Value: q.Target},
	}
next:
	for _, fd := range q.Fields {
		name := strings.ToLower(fd.Name)
		for i := range fields {
			if fields[i].Name == name {
				fields[i].Value += "," + fd.Value
				continue next
			}
		}
		fields = append(fields, protocols.Field{Name: name, Value: fd.Value})
	}
	return fields
}

// principal is the client's name by its certificate, as Envoy takes it: a URI, else a DNS
// name, else the subject.
func principal(c *protocols.Conn) string {
	if c.TLS == nil || len(c.TLS.VerifiedChains) == 0 || len(c.TLS.VerifiedChains[0]) == 0 {
		return ""
	}
	leaf := c.TLS.VerifiedChains[0][0]
	switch {
	case len(leaf.URIs) > 0:
		return leaf.URIs[0].String()
	case len(leaf.DNSNames) > 0:
		return leaf.DNSNames[0]
	}
	return leaf.Subject.String()
}

func appendAddress(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return b
	}
	return appendMessage(b, peerAddress, func(b []byte) []byte {
		return appendMessage(b, addressSocket, func(b []byte) []byte {
			return appendVarint(appendString(b, socketAddress, a.Addr().Unmap().String()), socketPort, uint64(a.Port()))
		})
	})
}

// appendMessage appends a field that has what fill appends.
func appendMessage(b []byte, field protowire.Number, fill func([]byte) []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), fill(nil))
}

// appendString leaves out what is empty, and what protocol buffers cannot have in a string.
func appendString(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), strings.ToValidUTF8(s, "\uFFFD"))
}

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}
