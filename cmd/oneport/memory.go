package main

import (
	"io/fs"
	"log/slog"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// boundMemory tells Go's garbage collector of the cgroup's limit, so that it
// works harder before the kernel ends the process: 90 % of it, as
// stacks of threads and the kernel's buffers count as well. GOMEMLIMIT comes first.
func boundMemory(log *slog.Logger) {
	if _, given := os.LookupEnv("GOMEMLIMIT"); given {
		return
	}
	if limit, file := cgroupMemory(os.DirFS("/")); limit > 0 {
		debug.SetMemoryLimit(limit / 10 * 9)
		log.Info("memory is bounded by the cgroup", "limit", limit, "goal", limit/10*9, "file", "/"+file)
	}
}

// noLimit is what cgroup v1 means by none: the largest number of pages, a little below 1<<63.
const noLimit = 1 << 60

// cgroupMemory is the smallest memory limit of this process's cgroup and those
// above it, and the file that says it; 0 without one. Version 2 has memory.max, where
// the kernel ends processes, and memory.high, where it slows them down. A container
// that sees the host's path but its own files finds its limit at the root.
func cgroupMemory(root fs.FS) (limit int64, file string) {
	self, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, ""
	}
	for line := range strings.Lines(string(self)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		switch {
		case part[0] == "0" && part[1] == "":
			for _, base := range []string{"sys/fs/cgroup", "sys/fs/cgroup/unified"} {
				limit, file = smallest(root, base, part[2], limit, file, "memory.max", "memory.high")
			}
		case part[1] == "memory":
			limit, file = smallest(root, "sys/fs/cgroup/memory", part[2], limit, file, "memory.limit_in_bytes")
		}
	}
	return limit, file
}

// smallest looks for a smaller limit than the one so far from a cgroup up to base.
func smallest(root fs.FS, base, group string, limit int64, file string, names ...string) (least int64, at string) {
	for group = path.Clean("/" + group); ; group = path.Dir(group) {
		for _, name := range names {
			candidate := path.Join(base, group, name)
			text, err := fs.ReadFile(root, candidate)
			if err != nil {
				continue
			}
			n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is none
			if err == nil && n > 0 && n < noLimit && (limit == 0 || n < limit) {
				limit, file = n, candidate
			}
		}
		if group == "/" {
			return limit, file
		}
	}
}
