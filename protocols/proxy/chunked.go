package proxy

// chunked decodes a body of that transfer coding (section 7.1), where it was
// read to. The zero value is at the beginning.
type chunked struct {
	state   chunkState
	left    int64  // of the chunk
	digits  int    // of the chunk's size so far
	line    int    // bytes of the line so far that are no digits
	trailer []byte // the section behind the last chunk, with its empty line
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkPad
	chunkExtension
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer
	chunkEnd
)

const (
	// mostDigits bounds a chunk's size: 2^60.
	mostDigits = 15
	// mostExtension bounds what is behind it: nobody looks at that.
	mostExtension = 256
)

// decode decodes as much of b as has come: n bytes of content are at its front
// then, and used bytes of it are done with. most bounds the trailers.
func (c *chunked) decode(b []byte, most int) (n, used int, err error) {
	for used < len(b) && c.state != chunkEnd {
		if c.state == chunkData {
			part := int(min(c.left, int64(len(b)-used)))
			copy(b[n:], b[used:used+part])
			n, used, c.left = n+part, used+part, c.left-int64(part)
			if c.left == 0 {
				c.state = chunkDataCR
			}
			continue
		}
		at := b[used]
		used++
		if err := c.step(at, most); err != nil {
			return n, used, err
		}
	}
	return n, used, nil
}

// step takes a byte that is no content.
func (c *chunked) step(b byte, most int) error {
	switch c.state {
	case chunkSize:
		return c.size(b)
	case chunkPad, chunkExtension:
		c.line++
		switch {
		case b == '\r':
			c.state = chunkSizeLF
		case c.line > mostExtension:
			return malformed("a chunk extension that is too long")
		case b == ';':
			c.state = chunkExtension
		case class[b]&byteValue == 0 || c.state == chunkPad && b != ' ' && b != '\t':
			return malformed("a bad chunk extension")
		}
	case chunkSizeLF:
		if b != '\n' {
			return malformed("a chunk's size without LF")
		}
		if c.state = chunkData; c.left == 0 {
			c.state = chunkTrailer
		}
		c.digits, c.line = 0, 0
	case chunkDataCR:
		if b != '\r' {
			return malformed("a chunk that is longer than it says")
		}
		c.state = chunkDataLF
	case chunkDataLF:
		if b != '\n' {
			return malformed("a chunk without LF")
		}
		c.state = chunkSize
	case chunkTrailer:
		return c.end(b, most)
	case chunkData, chunkEnd:
	}
	return nil
}

// size takes a byte of the line with a chunk's size.
func (c *chunked) size(b byte) error {
	var digit int64
	switch {
	case '0' <= b && b <= '9':
		digit = int64(b - '0')
	case 'a' <= b && b <= 'f':
		digit = int64(b-'a') + 10
	case 'A' <= b && b <= 'F':
		digit = int64(b-'A') + 10
	case c.digits == 0:
		return malformed("a chunk without a size")
	case b == '\r':
		c.state = chunkSizeLF
		return nil
	case b == ';':
		c.state = chunkExtension
		return nil
	case b == ' ', b == '\t':
		c.state = chunkPad
		return nil
	default:
		return malformed("a bad chunk size")
	}
	if c.digits++; c.digits > mostDigits {
		return malformed("a chunk size that is too long")
	}
	c.left = c.left<<4 | digit
	return nil
}

// end takes a byte of the trailer section.
func (c *chunked) end(b byte, most int) error {
	if len(c.trailer) >= most {
		return ErrTooLarge
	}
	c.trailer = append(c.trailer, b)
	if b != '\n' {
		return nil
	}
	n := len(c.trailer)
	if n < 2 || c.trailer[n-2] != '\r' {
		return malformed("a line without CR")
	}
	if n == 2 || c.trailer[n-3] == '\n' {
		c.state = chunkEnd
	}
	return nil
}
