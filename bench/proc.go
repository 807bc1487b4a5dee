package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cpuOf is the CPU time so far of a process and its children, user and system,
// in nanoseconds (/proc/pid/task/tid/schedstat): what proc(5)'s utime and stime
// add up to, but those are in hundredths of a second. Threads that have ended
// are missing; neither edge ends any while it serves.
func cpuOf(pid int) (sum int64, err error) {
	err = eachProcess(pid, func(dir string) error {
		tasks, err := filepath.Glob(filepath.Join(dir, "task", "*", "schedstat"))
		for _, task := range tasks {
			b, err := os.ReadFile(task)
			if err != nil {
				return err
			}
			ran, _, _ := bytes.Cut(b, []byte(" "))
			n, err := strconv.ParseInt(string(ran), 10, 64)
			if err != nil {
				return err
			}
			sum += n
		}
		return err
	})
	return sum, err
}

// rssOf is the resident memory of a process and its children, in bytes.
func rssOf(pid int) (sum int64, err error) {
	err = eachProcess(pid, func(dir string) error {
		n, err := vmRSS(filepath.Join(dir, "status"))
		sum += n
		return err
	})
	return sum, err
}

// vmRSS is the resident memory that a file like /proc/self/status tells.
func vmRSS(status string) (n int64, err error) {
	b, err := os.ReadFile(status)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			_, err := fmt.Sscanf(rest, "%d kB", &n)
			return n << 10, err
		}
	}
	return 0, errors.New("no VmRSS in " + status)
}

// eachProcess visits the directories in /proc of a process and all that descend from it.
func eachProcess(pid int, visit func(dir string) error) error {
	dir := fmt.Sprintf("/proc/%d", pid)
	if err := visit(dir); err != nil {
		return err
	}
	lists, err := filepath.Glob(filepath.Join(dir, "task", "*", "children"))
	for _, list := range lists {
		children, err := os.ReadFile(list)
		if err != nil {
			return err
		}
		for child := range strings.FieldsSeq(string(children)) {
			id, err := strconv.Atoi(child)
			if err != nil {
				return err
			}
			if err := eachProcess(id, visit); err != nil {
				return err
			}
		}
	}
	return err
}
