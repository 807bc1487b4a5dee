package proxy

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// mostInterim bounds the 1xx answers before an answer.
const mostInterim = 16

// receive reads the answer and gives it to the client. It reports whether the
// connection may be used again.
func (e *exchange) receive() (keep bool, err error) {
	if err := e.final(); err != nil {
		return false, err
	}
	a := &e.answer
	none := e.head.Method == http.MethodHead || a.status == http.StatusNoContent || a.status == http.StatusNotModified
	length := a.length
	if none {
		length = 0
	}
	if a.status == http.StatusNoContent { // which has no length (RFC 9110, 8.6)
		without(&a.fields, "content-length")
	}
	e.begun = true // whatever comes of it
	if err := e.x.Respond(a.status, a.fields, length); err != nil {
		return false, e.fault(err)
	}
	e.trail = e.trail[:0]
	switch {
	case none || length == 0:
	case a.chunked:
		err = e.copyChunks()
	case length > 0:
		err = e.copyLength(length)
	default:
		a.keep = false
		err = e.copyRest()
	}
	if err != nil {
		return false, err
	}
	e.whole = true
	if err := e.x.Finish(e.trail); err != nil {
		return false, e.fault(err)
	}
	return a.keep && e.r == e.w, nil
}

// fault takes note that it is the client who has failed.
func (e *exchange) fault(err error) error {
	e.faulty = true
	return err
}

// final reads heads until one is the answer's. Interim answers go to the client.
func (e *exchange) final() error {
	for n := 0; ; n++ {
		holds := e.expects && e.sending.done == nil && e.streams()
		if holds && n == 0 {
			_ = e.cn.nc.SetReadDeadline(time.Now().Add(e.c.Continue))
		}
		err := e.readHead()
		if holds && n == 0 {
			e.clearDeadline()
			if err != nil && isTimeout(err) && e.cn.end.Load() == endNone {
				e.startUpload()
				err = e.readHead()
			}
		}
		a := &e.answer
		switch {
		case err != nil:
			return err
		case a.status >= http.StatusOK:
			return nil
		case a.status == http.StatusSwitchingProtocols:
			return malformed("it switches protocols, and nobody has asked for that")
		case n >= mostInterim:
			return malformed("too many interim answers")
		case a.status == http.StatusContinue && !e.expects: // nobody waits for it
		case a.status == http.StatusContinue:
			if err := e.x.Inform(a.status, nil); err != nil {
				return e.fault(err)
			}
			if e.sending.done == nil && e.streams() {
				e.startUpload()
			}
		default:
			if err := e.x.Inform(a.status, a.fields); err != nil {
				return e.fault(err)
			}
		}
	}
}

// readHead reads a head into e.answer.
func (e *exchange) readHead() error {
	for scanned := e.r; ; {
		end, seen, err := headEnd(e.in[e.r:e.w], scanned-e.r)
		if err != nil {
			return err
		}
		if e.w > e.r && e.in[e.r] != 'H' { // TLS or HTTP/2: a line may never end
			return malformed("a bad status line")
		}
		if end > e.c.HeaderBytes {
			return ErrTooLarge
		}
		if end > 0 {
			head := string(e.in[e.r : e.r+end])
			e.r += end
			return e.answer.parse(head, e.c.HeaderFields)
		}
		if e.w == len(e.in) && len(e.in) > 0 {
			if err := e.room(); err != nil {
				return err
			}
		}
		if e.r == e.w {
			seen = 0
		}
		if err := e.fill(phaseHead); err != nil {
			return err
		}
		scanned = e.r + seen
	}
}

// pass gives the client content that has come.
func (e *exchange) pass(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if _, err := e.x.Write(p); err != nil {
		return e.fault(err)
	}
	return nil
}

// more reads more of a body. What has come before leaves first: the server may
// wait for what the client says to it.
func (e *exchange) more() error {
	if err := e.x.Flush(); err != nil {
		return e.fault(err)
	}
	full := e.w == len(e.in)
	if e.r == e.w && full {
		e.grow()
	}
	return e.fill(phaseBody)
}

// copyLength copies a body of n bytes.
func (e *exchange) copyLength(n int64) error {
	for {
		part := int(min(n, int64(e.w-e.r)))
		if err := e.pass(e.in[e.r : e.r+part]); err != nil {
			return err
		}
		e.r += part
		if n -= int64(part); n == 0 {
			return nil
		}
		if err := e.more(); err != nil {
			return err
		}
	}
}

// copyRest copies a body that ends with the connection.
func (e *exchange) copyRest() error {
	for {
		if err := e.pass(e.in[e.r:e.w]); err != nil {
			return err
		}
		e.r = e.w
		switch err := e.more(); {
		case errors.Is(err, ErrCut): // its end, and not the TLS layer's surprise
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return ErrCut
		case err != nil:
			return err
		}
	}
}

// copyChunks copies a body in chunks, and keeps its trailers.
func (e *exchange) copyChunks() error {
	e.chunks = chunked{trailer: e.chunks.trailer[:0]}
	for {
		n, used, err := e.chunks.decode(e.in[e.r:e.w], e.c.HeaderBytes)
		if bad := e.pass(e.in[e.r : e.r+n]); bad != nil {
			return bad
		}
		e.r += used
		if err != nil {
			return err
		}
		if e.chunks.state == chunkEnd {
			break
		}
		if err := e.more(); err != nil {
			return err
		}
	}
	if len(e.chunks.trailer) == len("\r\n") {
		return nil
	}
	var err error
	e.trail, err = parseTrailers(e.trail, string(e.chunks.trailer), e.c.HeaderFields)
	return err
}
