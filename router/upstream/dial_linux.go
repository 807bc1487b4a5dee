package upstream

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// control makes the kernel give a connection up when its host takes nothing of
// what was sent for that long (RFC 5482): keep-alive looks only when nothing
// is on its way.
func control(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacked/time.Millisecond))
	})
	if err == nil {
		err = failed
	}
	return err
}
