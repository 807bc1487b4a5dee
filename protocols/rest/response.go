package rest

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/oneport-edge/oneport/protocols"
)

// response is a ResponseWriter that remembers whether and how the answer
// began. It passes on everything that Gin, grpc-go and gorilla ask a
// ResponseWriter for.
type response struct {
	http.ResponseWriter
	status   int   // 0 until the final header is written
	sent     int64 // bytes of body
	hijacked bool
	draining *atomic.Bool // of the server; nil for HTTP/2, whose connections end by themselves
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
		if status >= 200 {
			w.last()
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) begin() {
	if w.status == 0 {
		w.status = http.StatusOK
		w.last()
	}
}

// last says, while the port drains, that the connection ends with this answer. The
// request may have come before.
func (w *response) last() {
	if w.draining != nil && w.draining.Load() {
		w.Header().Set("Connection", "close")
	}
}

func (w *response) Write(p []byte) (int, error) {
	w.begin()
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	return n, err
}

func (w *response) WriteString(s string) (int, error) {
	w.begin()
	n, err := io.WriteString(w.ResponseWriter, s)
	w.sent += int64(n)
	return n, err
}

// ReadFrom keeps sendfile on plaintext connections.
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	w.begin()
	n, err := io.Copy(w.ResponseWriter, r)
	w.sent += n
	return n, err
}

func (w *response) Flush() {
	w.begin()
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h, ok := w.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, http.ErrNotSupported
	}
	c, brw, err := h.Hijack()
	if t, ok := c.(*http1Conn); ok {
		c = t.Conn
	}
	if err == nil {
		w.hijacked = true
		if w.status == 0 {
			w.status = http.StatusSwitchingProtocols
		}
	}
	return c, brw, err
}

func (w *response) Push(target string, opts *http.PushOptions) error {
	if p, ok := w.ResponseWriter.(http.Pusher); ok {
		return p.Push(target, opts)
	}
	return http.ErrNotSupported
}

// CloseNotify is there for Gin, which asserts it in Context.Stream.
func (w *response) CloseNotify() <-chan bool {
	if cn, ok := w.ResponseWriter.(http.CloseNotifier); ok { //nolint:staticcheck // deprecated, and Gin needs it
		return cn.CloseNotify()
	}
	return nil
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// refuse answers with an error if the answer has not begun, and reports
// whether it had not.
func (w *response) refuse(status int) bool {
	if w.status != 0 || w.hijacked {
		return false
	}
	h := w.Header()
	closing := h.Get("Connection")
	clear(h) // what the handler meant to say belongs to another answer
	if closing != "" {
		h.Set("Connection", closing)
	}
	http.Error(w, http.StatusText(status), status)
	return true
}

// result is the status to report: for gRPC the one in the trailers, which
// grpc-go leaves in the header map.
func (w *response) result(p protocols.Protocol) int {
	if p == protocols.GRPC {
		if code, err := strconv.Atoi(w.Header().Get("Grpc-Status")); err == nil {
			return code
		}
	}
	if w.status == 0 {
		return http.StatusOK // net/http sends it when a handler wrote nothing
	}
	return w.status
}
