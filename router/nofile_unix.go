//go:build unix

package router

import (
	"math"

	"golang.org/x/sys/unix"
)

// openFiles is how many files the process may open; 0 if unknown.
func openFiles() int {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil || lim.Cur > math.MaxInt {
		return 0
	}
	return int(lim.Cur)
}
