//go:build linux && (amd64 || arm64)

package nbio

import (
	"syscall"
	"unsafe"
)

// recv and send are less work for the kernel than read and write, which serve
// files too.
const (
	supported = true
	sysRead   = syscall.SYS_RECVFROM
	sysWrite  = syscall.SYS_SENDTO
)

// call reads or writes what can be now, and gives EAGAIN if that is nothing.
func call(fd uintptr, p []byte, trap uintptr) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), //nolint:gosec // the one use of unsafe: see Socket
			syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, syscall.EAGAIN
		default:
			return 0, errno
		}
	}
}
