//go:build unix && !(linux && (amd64 || arm64))

package nbio

import "syscall"

const (
	supported = true
	sysRead   = 0
	sysWrite  = 1
)

// call reads or writes what can be now, and gives EAGAIN if that is nothing.
func call(fd uintptr, p []byte, trap uintptr) (n int, err error) {
	for {
		if trap == sysRead {
			n, err = syscall.Read(int(fd), p)
		} else {
			n, err = syscall.Write(int(fd), p)
		}
		if err != syscall.EINTR { //nolint:errorlint // a number, on the way of each call
			return max(n, 0), err
		}
	}
}
