package frame

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"sync"
)

// window is how far back deflate refers (RFC 1951).
const window = 32 << 10

// Inflater measures the compressed messages of one direction (RFC 7692). It holds
// up to 32 KiB of what they inflate to if Takeover is set, and nothing else
// between messages. The zero value is ready.
type Inflater struct {
	// Takeover says that a message may refer to those before it.
	Takeover bool
	past     []byte
}

// decoder is what inflating one message takes: 45 KiB, shared by all.
type decoder struct {
	io.ReadCloser
	chunk [4 << 10]byte
}

var decoders = sync.Pool{New: func() any { return &decoder{ReadCloser: flate.NewReader(nil)} }}

// tail is what a sender takes away from the end of each message (RFC 7692, 7.2.1),
// and an empty block that ends the stream.
const tail = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"

// maxLast is how many blocks of a message may say that they are the last: starting
// again costs far more than the two bytes that make the decoder do so.
const maxLast = 64

// Measure says what is wrong with a message, of which packed is all payload without
// its masks: that it inflates to more than most bytes, or does not. It appends to packed.
func (f *Inflater) Measure(packed []byte, most int64) error {
	d, _ := decoders.Get().(*decoder)
	defer decoders.Put(d)
	src := bytes.NewReader(append(packed, tail...))
	var size int64
	// A block may say that it is the last though more follows. What decoders make
	// of that differs; here all of it counts.
	for last := 0; src.Len() > 0; last++ {
		if last > maxLast {
			return errInflate()
		}
		if err := d.ReadCloser.(flate.Resetter).Reset(src, f.past); err != nil { //nolint:forcetypeassert // flate says that it is one
			return errInflate()
		}
		for {
			n, err := d.Read(d.chunk[:])
			if size += int64(n); size > most {
				return tooBig(most)
			}
			if f.Takeover {
				f.remember(d.chunk[:n])
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return errInflate()
			}
		}
	}
	return nil
}

func errInflate() error { return &Error{codeInvalid, "message does not inflate"} }

// remember keeps the last 32 KiB.
func (f *Inflater) remember(p []byte) {
	if over := len(f.past) + len(p) - window; over > 0 {
		f.past = f.past[:copy(f.past, f.past[over:])]
	}
	f.past = append(f.past, p...)
}
