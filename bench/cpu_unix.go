//go:build unix

package main

import "golang.org/x/sys/unix"

// cpu is the CPU time of this process so far, user and system, all threads.
func cpu() (int64, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return unix.TimevalToNsec(u.Utime) + unix.TimevalToNsec(u.Stime), nil
}
