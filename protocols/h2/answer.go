package h2

import (
	"math"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// answerTooLarge is tooLarge for an answer's head or its trailers.
func (k *link) answerTooLarge(fields []protocols.Field) bool {
	if k.most == math.MaxInt64 {
		return false
	}
	size := int64(len(fieldStatus) + len("200") + 32)
	for i := range fields {
		size += int64(len(fields[i].Name) + len(fields[i].Value) + 32)
	}
	return size > k.most
}

// answer appends the head of an answer.
func (k *link) answer(stream uint32, status int, fields []protocols.Field, end bool) {
	k.block = k.enc.Begin(k.block[:0])
	k.block = k.enc.Field(k.block, &hpack.HeaderField{Name: fieldStatus, Value: statusText(status)})
	for i := range fields {
		k.block = k.enc.Field(k.block, &hpack.HeaderField{Name: lowered(fields[i].Name), Value: fields[i].Value})
	}
	k.out = frame.AppendBlock(k.out, stream, k.block, end)
}

// statusText is a status in digits. Those that come up make no garbage.
func statusText(status int) string {
	switch status {
	case http.StatusOK:
		return "200"
	case http.StatusNoContent:
		return "204"
	case http.StatusNotModified:
		return "304"
	case http.StatusNotFound:
		return "404"
	}
	return strconv.Itoa(status)
}

// lowered is a field's name as HTTP/2 has it.
func lowered(name string) string {
	if s, ok := lowerNames[name]; ok {
		return s
	}
	return strings.ToLower(name)
}

// lowerNames are those that come up, as HTTP/1.1 servers write them.
var lowerNames = func() map[string]string {
	names := make(map[string]string)
	for _, s := range []string{
		"Accept-Ranges", "Access-Control-Allow-Credentials", "Access-Control-Allow-Headers", "Access-Control-Allow-Methods",
		"Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Access-Control-Max-Age", "Age", "Allow", "Cache-Control",
		"Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length", "Content-Range", "Content-Security-Policy",
		"Content-Type", "Date", "ETag", "Etag", "Expires", "Last-Modified", "Link", "Location", "Pragma", "Referrer-Policy", "Retry-After",
		"Server", "Set-Cookie", "Strict-Transport-Security", "Trailer", "Vary", "Via", "WWW-Authenticate", "Www-Authenticate",
		"X-Content-Type-Options", "X-Frame-Options", "X-Powered-By", "X-Request-Id", "X-Request-ID",
	} {
		names[s] = strings.ToLower(s)
	}
	return names
}()
