package proxy

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
)

// upload sends a body that is not small, while the answer may come already.
type upload struct {
	done chan struct{} // closed when it has ended; nil if it has not begun
	read *atomic.Bool  // all of the body has come from the client

	// Valid once it has ended.
	whole  bool  // all of it was sent
	client error // what was wrong with the client's side
}

// startUpload starts it. endUpload waits for it.
func (e *exchange) startUpload() {
	e.sending = upload{done: make(chan struct{}), read: new(atomic.Bool)}
	go e.upload()
}

// endUpload waits for the upload, and reports whether all was sent. Once the
// client has its answer, or cannot have one, nothing more is read from it.
func (e *exchange) endUpload(answered bool) bool {
	if !answered || !e.sending.read.Load() {
		e.c.stop(e.cn, endStopped)
		if answered { // it must not wait for what is not read any more
			_ = e.x.Flush() // the client may have left: it has its answer
		}
		e.x.StopReading()
	}
	<-e.sending.done
	return e.sending.whole
}

// errUpload stands for upload.client until that may be read.
var errUpload = errors.New("the body has failed")

// blame says what was wrong with a body that made its request fail.
func (e *exchange) blame(fail *Error) {
	if fail != nil && errors.Is(fail.Err, errUpload) {
		fail.Err, fail.Timeout = e.sending.client, isTimeout(e.sending.client)
	}
}

func (e *exchange) upload() {
	defer close(e.sending.done)
	buf, _ := bigBuffers.Get().(*[bigBuffer]byte)
	defer bigBuffers.Put(buf)
	if err := e.send(buf[:]); err != nil {
		e.sending.client = err
		e.c.stop(e.cn, endStopped) // the server must not take it for whole
	}
}

const (
	// sizeRoom is what a chunk has before its data, and endRoom what it has behind.
	sizeRoom = len("ffffffff\r\n")
	endRoom  = len("\r\n")
)

// errLong is a body that is longer than its request says.
var errLong = fmt.Errorf("%w: its body is longer than it says", ErrRequest)

// send copies the body. What is wrong with the server's side the reader of the
// answer finds out: there may be one all the same.
func (e *exchange) send(buf []byte) (client error) {
	left := e.head.Length
	for {
		e.cn.writing.Store(phaseClient)
		n, err := e.x.Read(buf[sizeRoom : len(buf)-endRoom])
		e.cn.writing.Store(phaseNone)
		e.cn.moved.Add(1)
		end := errors.Is(err, io.EOF)
		if left >= 0 {
			left -= int64(n)
			switch {
			case left < 0:
				return errLong
			case left == 0:
				end = true
			case end:
				return io.ErrUnexpectedEOF
			}
		}
		if err != nil && !end {
			return err
		}
		if end && !e.chunking {
			e.sending.read.Store(true)
		}
		if !e.sendPart(buf, n) {
			return nil
		}
		if end {
			e.sending.whole = !e.chunking || e.sendEnd()
			return nil
		}
	}
}

// sendPart sends n bytes, which are behind sizeRoom.
func (e *exchange) sendPart(buf []byte, n int) bool {
	if n == 0 {
		return true
	}
	p := buf[sizeRoom : sizeRoom+n]
	if e.chunking {
		var size [sizeRoom]byte
		line := append(strconv.AppendInt(size[:0], int64(n), 16), "\r\n"...)
		copy(buf[sizeRoom-len(line):], line)
		copy(buf[sizeRoom+n:], "\r\n")
		p = buf[sizeRoom-len(line) : sizeRoom+n+endRoom]
	}
	_, err := e.cn.write(p)
	return err == nil
}

// sendEnd sends the last chunk, and the trailers.
func (e *exchange) sendEnd() bool {
	e.sending.read.Store(true)
	b := append(make([]byte, 0, 64), "0\r\n"...)
	for _, f := range e.x.Trailers(nil) {
		if nameOf(f.Name) == nameOther && (e.c.Trailer == nil || e.c.Trailer(e.ctx, f.Name)) {
			b, _ = appendField(b, &f)
		}
	}
	_, err := e.cn.write(append(b, "\r\n"...))
	return err == nil
}
