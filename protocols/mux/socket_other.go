//go:build !linux

package mux

import (
	"errors"
	"syscall"
	"time"
)

func limitUnacked(syscall.Conn, time.Duration) error { return errors.ErrUnsupported }
