package protocols

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"
)

// GRPCDetails is what the refusal's grpc-status-details-bin has, in base64 without padding
// (gRPC over HTTP2, Binary-Header): a google.rpc.Status with a google.rpc.RetryInfo, by
// which clients learn when to try again. It is "" for a refusal that does not say when.
func (r *Refusal) GRPCDetails() string {
	if r.RetryAfter <= 0 {
		return ""
	}
	code, message := r.GRPC()
	var delay, info, detail, status []byte // google.protobuf.Duration, RetryInfo, google.protobuf.Any, Status
	delay = protoNumber(delay, 1, uint64(r.RetryAfter/time.Second))
	delay = protoNumber(delay, 2, uint64(r.RetryAfter%time.Second))
	info = protoBytes(info, 1, string(delay))
	detail = protoBytes(detail, 1, "type.googleapis.com/google.rpc.RetryInfo")
	detail = protoBytes(detail, 2, string(info))
	status = protoNumber(status, 1, uint64(code))
	status = protoBytes(status, 2, strings.ToValidUTF8(message, "\uFFFD"))
	status = protoBytes(status, 3, string(detail))
	return base64.RawStdEncoding.EncodeToString(status)
}

// protoNumber appends a varint field of protocol buffers, and nothing for zero, as
// everybody does who writes proto3.
func protoNumber(b []byte, field byte, v uint64) []byte {
	if v == 0 {
		return b
	}
	return binary.AppendUvarint(append(b, field<<3), v)
}

// protoBytes appends a field of protocol buffers that has a length.
func protoBytes(b []byte, field byte, v string) []byte {
	return append(binary.AppendUvarint(append(b, field<<3|2), uint64(len(v))), v...)
}
