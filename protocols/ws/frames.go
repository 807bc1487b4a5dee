package ws

import "encoding/binary"

// frames finds the boundaries of frames (RFC 6455, 5.2) in bytes on their way
// from a server. It takes any bytes: what is no WebSocket has boundaries in odd
// places, and no more comes of it. The zero value stands before the first frame.
type frames struct {
	header [14]byte
	have   uint8  // bytes of header that are there; 0 between frames
	left   uint64 // bytes of payload still to come
	status uint8  // bytes of a close frame's code that are there
	code   uint16 // what the first close frame says; meaningful if closed
	closed bool   // a close frame has gone by whole
}

// between reports whether a frame may begin here.
func (f *frames) between() bool { return f.have == 0 }

// skip takes all of p.
func (f *frames) skip(p []byte) {
	for len(p) > 0 {
		p = p[f.rest(p):]
	}
}

// rest takes of p what belongs to the frame that it begins with, or continues,
// and returns how much that is: at least a byte, unless p is empty.
func (f *frames) rest(p []byte) (n int) {
	for size := f.size(); int(f.have) < size; size = f.size() {
		// Each turn takes what the header so far asks for.
		k := copy(f.header[f.have:size], p[n:])
		n += k
		if f.have += uint8(k); int(f.have) < size {
			return n
		}
		if int(f.have) == f.size() {
			f.begin()
			break
		}
	}
	k := uint64(len(p) - n)
	k = min(k, f.left)
	f.look(p[n : n+int(k)])
	n += int(k)
	if f.left -= k; f.left == 0 {
		f.end()
	}
	return n
}

// size is how long the header is, as far as it can be told.
func (f *frames) size() int {
	if f.have < 2 {
		return 2
	}
	size := 2
	switch f.header[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if f.masked() {
		size += 4
	}
	return size
}

func (f *frames) masked() bool { return f.header[1]&0x80 != 0 }

// begin reads a header that is whole.
func (f *frames) begin() {
	switch n := f.header[1] & 0x7f; n {
	case 126:
		f.left = uint64(binary.BigEndian.Uint16(f.header[2:]))
	case 127:
		f.left = binary.BigEndian.Uint64(f.header[2:])
	default:
		f.left = uint64(n)
	}
	f.status = 0
}

const opClose = 8

// look takes the code out of a close frame: its first two bytes. A server's
// frames are not masked; the code of one that is stays unknown.
func (f *frames) look(p []byte) {
	if f.closed || f.header[0]&0xf != opClose || f.masked() {
		return
	}
	for ; len(p) > 0 && f.status < 2; p = p[1:] {
		f.code = f.code<<8 | uint16(p[0])
		f.status++
	}
}

// end is the end of a frame.
func (f *frames) end() {
	if f.header[0]&0xf == opClose && !f.closed {
		f.closed = true
		if f.status < 2 {
			f.code = CloseNoStatus
		}
	}
	f.have = 0
}
