package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// HTTP is a request that net/http has taken, as an [Exchange].
type HTTP struct {
	w       http.ResponseWriter
	r       *http.Request
	target  string
	back    []byte
	left    int64       // of a body whose length is known
	read    atomic.Bool // all of the body has come
	aborted bool
	stopped bool // nobody has read the rest of the body
	toClose bool // the answer ends with the connection
}

var https = sync.Pool{New: func() any { return new(HTTP) }}

// FromHTTP gives a request as an Exchange. It is valid until Release, which must
// be called by the handler's goroutine, and last.
func FromHTTP(w http.ResponseWriter, r *http.Request) *HTTP {
	x := https.Get().(*HTTP) //nolint:forcetypeassert // the pool has nothing else
	x.w, x.r, x.left = w, r, r.ContentLength
	if r.Body == nil || r.Body == http.NoBody {
		x.left = 0
	}
	x.read.Store(x.left == 0)
	return x
}

// Release ends the exchange. It panics with [http.ErrAbortHandler], as net/http wants
// it, if the answer was cut off: only a broken connection tells the client so.
func (x *HTTP) Release() {
	x.linger()
	aborted := x.aborted
	if aborted && x.toClose {
		x.reset()
	}
	x.w, x.r, x.back, x.target = nil, nil, nil, ""
	x.aborted, x.stopped, x.toClose = false, false, false
	https.Put(x)
	if aborted {
		panic(http.ErrAbortHandler)
	}
}

// reset ends the connection of a client of HTTP/1.0, to whom its end is the
// answer's: by a reset, and without TLS's farewell.
func (x *HTTP) reset() {
	nc, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return // then it is net/http who closes
	}
	if inner, ok := nc.(interface{ NetConn() net.Conn }); ok { // *tls.Conn
		nc = inner.NetConn()
	}
	abort(nc)
	_ = nc.Close() // nothing is lost any more
}

// Head gives the request's head.
func (x *HTTP) Head(h *protocols.Head) {
	r := x.r
	h.Method, h.Authority, h.Path, h.Length = r.Method, r.Host, r.RequestURI, x.left
	if h.Path == "" || h.Path[0] != '/' && h.Path != "*" { // in absolute form, or made by a handler
		h.Path = r.URL.RequestURI()
	}
	h.Fields = h.Fields[:0]
	for name, values := range r.Header {
		if name == "Expect" && !r.ProtoAtLeast(1, 1) {
			continue // RFC 9110, 10.1.1
		}
		for _, v := range values {
			h.Fields = append(h.Fields, protocols.Field{Name: name, Value: v})
		}
	}
	if len(r.Trailer) > 0 {
		names := make([]string, 0, len(r.Trailer))
		for name := range r.Trailer {
			names = append(names, name)
		}
		h.Fields = append(h.Fields, protocols.Field{Name: fieldTrailer, Value: strings.Join(names, ", ")})
	}
}

// Read reads the body.
func (x *HTTP) Read(p []byte) (int, error) {
	if len(x.back) > 0 {
		n := copy(p, x.back)
		x.back = x.back[n:]
		return n, nil
	}
	if x.left == 0 {
		return 0, io.EOF
	}
	n, err := x.r.Body.Read(p)
	if x.left > 0 {
		x.left -= int64(n)
	}
	if x.left == 0 || errors.Is(err, io.EOF) {
		x.read.Store(true)
	}
	return n, err
}

// Unread gives some of the body back.
func (x *HTTP) Unread(p []byte) { x.back = append(append([]byte(nil), p...), x.back...) }

// Trailers appends the request's trailers.
func (x *HTTP) Trailers(list []protocols.Field) []protocols.Field {
	for name, values := range x.r.Trailer {
		for _, v := range values {
			list = append(list, protocols.Field{Name: name, Value: v})
		}
	}
	return list
}

// lingerTime is how long a client is listened to whose body nobody wants. Input
// that nobody has read would turn the close of the connection into a reset, and the client
// would lose its answer: net/http reads up to 256 KiB to avoid that. It cannot
// if a read of chunks was broken off, so that one which waits has as long.
const lingerTime = 500 * time.Millisecond

// StopReading ends reads of the body. The connection ends with the answer.
func (x *HTTP) StopReading() {
	if !x.read.Load() {
		x.stopped = true
		x.linger()
	}
}

func (x *HTTP) linger() {
	if x.stopped { // where that is not supported nothing reads from a client
		_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(lingerTime))
	}
}

// Reply answers in the port's own words, if nothing was answered.
func (x *HTTP) Reply(status int, text string) {
	x.linger()
	Reply(x.w, status, text)
}

// Reply answers in the port's own words. With a 503 it says when to try again.
func Reply(w http.ResponseWriter, status int, text string) {
	if status == http.StatusServiceUnavailable {
		later := &protocols.Refusal{Reason: protocols.ReasonOverloaded, RetryAfter: protocols.RetryLater}
		_, _ = later.HTTP(w.Header())
	}
	http.Error(w, text, status)
}

// Inform sends an interim answer to a client that knows them.
func (x *HTTP) Inform(status int, fields []protocols.Field) error {
	if !x.r.ProtoAtLeast(1, 1) {
		return nil
	}
	header := x.w.Header()
	set(header, fields)
	x.w.WriteHeader(status)
	for i := range fields {
		delete(header, canonical(fields[i].Name))
	}
	return nil
}

// Respond begins the answer.
func (x *HTTP) Respond(status int, fields []protocols.Field, length int64) error {
	header := x.w.Header()
	set(header, fields)
	if _, ok := header["Content-Type"]; !ok && length != 0 {
		header["Content-Type"] = nil // none is to be guessed
	}
	x.toClose = length < 0 && !x.r.ProtoAtLeast(1, 1)
	if !x.read.Load() {
		if x.r.ProtoMajor == 1 {
			// The server has not waited for the whole body. Nobody reads the rest of it
			// once the answer has ended.
			header["Connection"] = []string{"close"}
		}
		_ = http.NewResponseController(x.w).EnableFullDuplex() // HTTP/2 always has it
	}
	x.w.WriteHeader(status)
	return nil
}

// set puts fields into a header, in one allocation.
func set(header http.Header, fields []protocols.Field) {
	values := make([]string, len(fields))
	for i := range fields {
		name := canonical(fields[i].Name)
		if before := header[name]; len(before) > 0 {
			header[name] = append(before, fields[i].Value)
			continue
		}
		values[i] = fields[i].Value
		header[name] = values[i : i+1 : i+1]
	}
}

func canonical(name string) string { return textproto.CanonicalMIMEHeaderKey(name) }

// Write sends some of the answer's body.
func (x *HTTP) Write(p []byte) (int, error) { return x.w.Write(p) }

// Flush sends what net/http has kept.
func (x *HTTP) Flush() error {
	if f, ok := x.w.(http.Flusher); ok {
		f.Flush()
		return nil
	}
	return http.NewResponseController(x.w).Flush()
}

// Finish ends the answer.
func (x *HTTP) Finish(trailers []protocols.Field) error {
	header := x.w.Header()
	for _, f := range trailers {
		name := http.TrailerPrefix + canonical(f.Name)
		header[name] = append(header[name], f.Value)
	}
	return nil
}

// Abort takes note that the answer is not whole.
func (x *HTTP) Abort() { x.aborted = true }
