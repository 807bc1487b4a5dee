package rest

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"

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
	late     bool // it has begun after the server's patience had ended
	server   *Server
	closes   bool // HTTP/1, whose clients learn of a drain by "Connection: close"; HTTP/2 connections end by themselves
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
	if !w.server.draining.Load() {
		return
	}
	w.late = w.server.base.Err() != nil
	if w.closes {
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

// whole reports whether an answer that has begun says by itself that nothing of it is missing, and
// not only by its end.
func (w *response) whole(call *protocols.Call) bool {
	switch {
	case w.hijacked, call.Method == http.MethodHead, w.status == http.StatusNoContent, w.status == http.StatusNotModified:
		return true
	case call.Protocol == protocols.GRPC:
		return w.Header().Get("Grpc-Status") != ""
	}
	length, err := strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64)
	return err == nil && w.sent == length
}

// result is the status to report: for gRPC the one in the trailers, which grpc-go leaves
// in the header map; -1 if the handler has said none.
func (w *response) result(p protocols.Protocol) int {
	if p == protocols.GRPC {
		if code, err := strconv.Atoi(w.Header().Get("Grpc-Status")); err == nil {
			return code
		}
		if w.status == http.StatusOK {
			return -1
		}
	}
	if w.status == 0 {
		return -1
	}
	return w.status
}
