package router

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/proxy"
	"github.com/oneport-edge/oneport/router/upstream"
)

// What goes to a server that speaks HTTP/1.1 is a proxy.Exchange, whatever the client
// speaks. What goes to one that speaks HTTP/2 is a stream, see way.prepare, or
// for clients of HTTP/1 a request of net/http's.

// serveStream hands a stream on to a server that speaks HTTP/1.1.
func (d *dest) serveStream(x *h2.Exchange) {
	if status, text := d.do(x.Context(), x); status != 0 {
		x.Reply(status, text)
	}
}

// ServeHTTP hands a request on that net/http has taken.
func (d *dest) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.up.HTTP2() {
		d.serveReverse(w, r)
		return
	}
	x := proxy.FromHTTP(w, r)
	defer x.Release()
	if status, text := d.do(r.Context(), x); status != 0 {
		x.Reply(status, text)
	}
}

// do has a request answered, or says what is to be answered.
func (d *dest) do(ctx context.Context, x proxy.Exchange) (status int, text string) {
	w := d.way
	if call := protocols.CallFrom(ctx); call != nil {
		call.Goes(&d.goes)
	}
	if w.plain {
		return upstream.Refusal(ctx, x, d.up.Do(ctx, x))
	}
	if w.MaxBody > 0 {
		var h protocols.Head
		if x.Head(&h); h.Length > w.MaxBody {
			return upstream.RefuseBody(x)
		}
	}
	y := &exchange{Exchange: x, way: w, room: w.MaxBody}
	if w.Mirror != nil {
		y.copied = w.Mirror.Copy(ctx)
		defer y.copied.Send()
	}
	fail := d.up.Do(ctx, y)
	if f := w.Fallback; f != nil && fail != nil && !fail.Answered && !fail.Client {
		switch {
		case f.To == nil:
			f.answer(y)
			return 0, ""
		case !fail.Sent || y.whole:
			fail = f.To.Do(ctx, y)
		}
	}
	return upstream.Refusal(ctx, y, fail)
}

// exchange is one that the route changes.
type exchange struct {
	proxy.Exchange
	way    *way
	copied *upstream.Copied // for the mirror; nil without one
	origin string
	whole  bool  // there is no body, so it can be sent twice
	room   int64 // what may still come of the body, with a MaxBody
}

func (x *exchange) Head(h *protocols.Head) {
	x.Exchange.Head(h)
	x.whole = h.Length == 0
	if x.way.CORS != nil {
		x.origin = h.Get(fieldOrigin)
	}
	x.copied.Head(h)
}

// Prepare changes the request's head, once it says who asks.
func (x *exchange) Prepare(h *protocols.Head) {
	w := x.way
	if w.Rewrite != "" {
		h.Path = w.rewrite(h.Path)
	}
	if w.RewriteHost != "" {
		h.Authority = w.RewriteHost
	}
	w.request.apply((*requestHead)(h))
}

func (x *exchange) AnswerTimeout() time.Duration { return x.way.AnswerTimeout }

// OnLeave has f called when the client leaves, if it can be told.
func (x *exchange) OnLeave(f func()) {
	if l, ok := x.Exchange.(interface{ OnLeave(f func()) }); ok {
		l.OnLeave(f)
	}
}

func (x *exchange) Read(p []byte) (int, error) {
	n, err := x.Exchange.Read(p)
	if x.way.MaxBody > 0 {
		if x.room -= int64(n); x.room < 0 {
			return 0, upstream.ErrTooBig
		}
	}
	x.copied.Body(p[:n], err)
	return n, err
}

func (x *exchange) Unread(p []byte) {
	x.room += int64(len(p))
	x.copied.Unread(len(p))
	x.Exchange.Unread(p)
}

func (x *exchange) Respond(status int, fields []protocols.Field, length int64) error {
	h := fieldsHead(fields)
	x.way.change(&h, x.origin)
	return x.Exchange.Respond(status, h, length)
}

// change changes the head of an answer.
func (w *way) change(h head, origin string) {
	w.response.apply(h)
	if w.CORS != nil {
		w.CORS.answer(h, origin)
	}
}

// answer answers in the server's place.
func (f *Fallback) answer(x *exchange) {
	x.StopReading()
	fields := []protocols.Field{{Name: "Content-Length", Value: strconv.Itoa(len(f.Body))}}
	for _, p := range pairs(f.Headers) {
		fields = append(fields, protocols.Field{Name: p.name, Value: p.value})
	}
	if f.Status == http.StatusNoContent {
		fields = fields[1:]
	}
	err := x.Respond(f.Status, fields, int64(len(f.Body)))
	if err == nil && f.Body != "" {
		_, err = x.Write([]byte(f.Body))
	}
	if err == nil {
		err = x.Finish(nil)
	}
	if err != nil {
		x.Abort()
	}
}

// serveReverse hands a request of HTTP/1 on to a server that speaks HTTP/2.
func (d *dest) serveReverse(rw http.ResponseWriter, r *http.Request) {
	w := d.way
	if call := protocols.CallFrom(r.Context()); call != nil {
		call.Goes(&d.goes)
	}
	if w.MaxBody > 0 {
		if r.ContentLength > w.MaxBody {
			x := proxy.FromHTTP(rw, r)
			defer x.Release()
			x.Reply(upstream.RefuseBody(x))
			return
		}
		r.Body = http.MaxBytesReader(rw, r.Body, w.MaxBody)
	}
	var body *incoming
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		// The server may answer before it has the body. Without this net/http takes the rest of that away from
		// the transport when the answer begins, and the transport gives the answer up.
		_ = http.NewResponseController(rw).EnableFullDuplex() // a client of HTTP/1 that cannot will say so
		body = &incoming{ReadCloser: r.Body}
		r.Body = body
	}
	changes := upstream.Changes{AnswerTimeout: d.way.AnswerTimeout}
	if !w.plain {
		origin := r.Header.Get("Origin")
		changes.Request = w.changeRequest
		changes.Response = func(h http.Header) { w.change(headerHead{h}, origin) }
	}
	if body != nil {
		change := changes.Response
		changes.Response = func(h http.Header) {
			if change != nil {
				change(h)
			}
			if !body.whole.Load() {
				h.Set("Connection", "close") // nobody reads the rest once the answer has ended
			}
		}
	}
	fail := d.up.DoHTTP(rw, r, changes)
	if body != nil && fail != nil && !body.whole.Load() {
		rw.Header().Set("Connection", "close") // where the next request begins is not known
		fail.Client = fail.Client || body.broken.Load()
	}
	if f := w.Fallback; f != nil && fail != nil && !fail.Client {
		switch {
		case f.To == nil:
			f.answerHTTP(rw)
			return
		case !fail.Sent || r.ContentLength == 0:
			fail = f.To.DoHTTP(rw, r, changes)
		}
	}
	upstream.RefuseHTTP(rw, r, fail)
}

// incoming is the body of a request, whose end is noted.
type incoming struct {
	io.ReadCloser
	whole, broken atomic.Bool
}

func (b *incoming) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.whole.Store(true)
	case err != nil && !errors.Is(err, http.ErrBodyReadAfterClose):
		b.broken.Store(true)
	}
	return n, err
}

// changeRequest changes the head of what goes to the server.
func (w *way) changeRequest(out *http.Request) {
	if w.Rewrite != "" {
		u, err := out.URL.Parse(w.rewrite(out.URL.EscapedPath()))
		if err == nil {
			out.URL.Path, out.URL.RawPath = u.Path, u.RawPath
		}
	}
	if w.RewriteHost != "" {
		out.Host = w.RewriteHost
	}
	w.request.apply(headerHead{out.Header})
}

// answerHTTP answers a request that net/http has taken in the server's place.
func (f *Fallback) answerHTTP(w http.ResponseWriter) {
	for name, value := range f.Headers {
		w.Header().Set(name, value)
	}
	w.WriteHeader(f.Status)
	_, _ = w.Write([]byte(f.Body)) // the client may have left
}

// The heads of messages, as edits have them.
type (
	requestHead protocols.Head
	fieldsHead  []protocols.Field
	headerHead  struct{ http.Header }
)

func (h *requestHead) Get(name string) string { return (*protocols.Head)(h).Get(name) }

func (h *requestHead) Add(name, value string) {
	h.Fields = append(h.Fields, protocols.Field{Name: name, Value: value})
}

func (h *requestHead) Drop(which func(name string) bool) { h.Fields = dropped(h.Fields, which) }

func (h *fieldsHead) Get(name string) string {
	return (&protocols.Head{Fields: *h}).Get(name)
}

func (h *fieldsHead) Add(name, value string) {
	*h = append(*h, protocols.Field{Name: name, Value: value})
}

func (h *fieldsHead) Drop(which func(name string) bool) { *h = dropped(*h, which) }

func dropped(fields []protocols.Field, which func(name string) bool) []protocols.Field {
	kept := make([]protocols.Field, 0, len(fields)+4)
	for _, f := range fields {
		if !which(f.Name) {
			kept = append(kept, f)
		}
	}
	return kept
}

func (h headerHead) Drop(which func(name string) bool) {
	for name := range h.Header {
		if which(name) {
			delete(h.Header, name)
		}
	}
}
