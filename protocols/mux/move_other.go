//go:build !linux

package mux

import "net"

// move copies src to dst until src ends.
func move(dst, src net.Conn, count func(int64)) error { return moveAny(dst, src, count) }
