package mux

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacked makes the kernel end every connection accepted from ln whose
// client takes nothing for d (RFC 5482): no other timeout reaches a client
// that stops reading its answer. Accepted sockets inherit the option, so it
// costs nothing per connection.
func limitUnacked(ln syscall.Conn, d time.Duration) error {
	raw, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		inner = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
	if err == nil {
		err = inner
	}
	return err
}
