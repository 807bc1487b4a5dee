package h2_test

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
)

// handled gives a handler of net/http's the streams of a Handler, so that all
// that is tried with servers is tried with functions, too.
func handled(handler http.Handler) *h2.Handler {
	return h2.NewHandler(func(x *h2.Exchange) {
		var h protocols.Head
		x.Head(&h)
		r := (&http.Request{
			Method: h.Method, Host: h.Authority, Proto: "HTTP/2.0", ProtoMajor: 2, RequestURI: h.Path,
			Header: http.Header{}, Trailer: http.Header{}, ContentLength: h.Length,
		}).WithContext(x.Context())
		r.URL, _ = url.ParseRequestURI(h.Path)
		for _, f := range h.Fields {
			if f.Is("trailer") {
				for name := range strings.SplitSeq(f.Value, ",") {
					r.Trailer[http.CanonicalHeaderKey(strings.TrimSpace(name))] = nil
				}
				continue
			}
			r.Header.Add(f.Name, f.Value)
		}
		r.Body = &handledBody{x, r}
		w := &handledAnswer{x: x, r: r, header: http.Header{"Date": {"Thu, 26 Nov 2026 13:00:00 GMT"}}}
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				x.Abort()
				return
			}
			w.finish()
		}()
		handler.ServeHTTP(w, r)
	})
}

type handledBody struct {
	x *h2.Exchange
	r *http.Request
}

func (b *handledBody) Close() error { return nil }

func (b *handledBody) Read(p []byte) (int, error) {
	if b.r.Header.Get("Expect") != "" {
		b.r.Header.Del("Expect")
		_ = b.x.Inform(http.StatusContinue, nil)
	}
	n, err := b.x.Read(p)
	if errors.Is(err, io.EOF) {
		for _, f := range b.x.Trailers(nil) {
			if name := http.CanonicalHeaderKey(f.Name); b.r.Trailer != nil {
				b.r.Trailer[name] = append(b.r.Trailer[name], f.Value)
			}
		}
	}
	return n, err
}

type handledAnswer struct {
	x      *h2.Exchange
	r      *http.Request
	header http.Header
	begun  bool
	bare   bool
}

func (w *handledAnswer) Header() http.Header { return w.header }

func (w *handledAnswer) fields() (list []protocols.Field) {
	for name, values := range w.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			continue
		}
		for _, v := range values {
			list = append(list, protocols.Field{Name: name, Value: v})
		}
	}
	return list
}

func (w *handledAnswer) WriteHeader(status int) {
	switch {
	case w.begun:
	case status < 200:
		_ = w.x.Inform(status, w.fields())
	default:
		w.begin(status, -1)
	}
}

func (w *handledAnswer) begin(status int, length int64) {
	w.begun = true
	if n, err := strconv.ParseInt(w.header.Get("Content-Length"), 10, 64); err == nil {
		length = n
	}
	if w.r.Method == http.MethodHead || status == http.StatusNoContent || status == http.StatusNotModified {
		length, w.bare = 0, true
	}
	_ = w.x.Respond(status, w.fields(), length)
}

func (w *handledAnswer) Write(p []byte) (int, error) {
	if !w.begun {
		w.begin(http.StatusOK, -1)
	}
	if w.bare {
		return len(p), nil
	}
	return w.x.Write(p)
}

func (w *handledAnswer) Flush() {
	if !w.begun {
		w.begin(http.StatusOK, -1)
	}
	_ = w.x.Flush()
}

func (w *handledAnswer) FlushError() error { w.Flush(); return nil }

func (w *handledAnswer) finish() {
	if !w.begun {
		w.begin(http.StatusOK, 0)
	}
	var list []protocols.Field
	for name, values := range w.header {
		if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			for _, v := range values {
				list = append(list, protocols.Field{Name: name, Value: v})
			}
		}
	}
	_ = w.x.Finish(list)
}
