package mux

import (
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// move copies src to dst until src ends. Between two TCP sockets the kernel
// splices, and only what has arrived already: net's splice holds a pipe while
// it waits, and an idle tunnel would cost four file descriptors more.
func move(dst, src net.Conn, count func(int64)) error {
	tcpDst, ok1 := dst.(*net.TCPConn)
	tcpSrc, ok2 := src.(*net.TCPConn)
	if !ok1 || !ok2 {
		return moveAny(dst, src, count)
	}
	for {
		n, err := arrived(tcpSrc)
		if err != nil || n == 0 {
			return err
		}
		moved, err := tcpDst.ReadFrom(&io.LimitedReader{R: tcpSrc, N: int64(n)})
		count(moved)
		if err != nil {
			return err
		}
	}
}

// arrived waits for data and returns how much can be read at once; 0 at the end.
func arrived(c *net.TCPConn) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var inner error
	err = raw.Read(func(fd uintptr) bool {
		n, inner = waiting(int(fd))
		return !errors.Is(inner, unix.EAGAIN) // not yet: wait until readable
	})
	return n, errors.Join(err, inner)
}

// waiting says how many bytes can be read from fd: 0 at the end of the stream,
// EAGAIN when there is neither data nor an end.
func waiting(fd int) (int, error) {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil || n > 0 {
		return n, err
	}
	for {
		var peek [1]byte
		n, _, err = unix.Recvfrom(fd, peek[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}
