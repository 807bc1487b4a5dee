package nbio

import (
	"syscall"
	"unsafe"
)

const (
	supported = true
	sysRead   = syscall.SYS_READ
	sysWrite  = syscall.SYS_WRITE
)

// call reads or writes what can be now, and gives EAGAIN if that is nothing.
func call(fd uintptr, p []byte, trap uintptr) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p))) //nolint:gosec // the one use of unsafe: see Socket
		switch errno {
		case 0:
			return int(n), nil //nolint:gosec // no more than len(p)
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, syscall.EAGAIN
		default:
			return 0, errno
		}
	}
}
