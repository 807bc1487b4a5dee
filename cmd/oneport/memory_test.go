package main

import (
	"bytes"
	"log/slog"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func TestCgroupMemory(t *testing.T) {
	const self = "proc/self/cgroup"
	for name, tc := range map[string]struct {
		files map[string]string
		want  int64
		file  string
	}{
		"version 2": {map[string]string{
			self: "0::/system.slice/oneport.service\n",
			"sys/fs/cgroup/system.slice/oneport.service/memory.max": "536870912\n",
		}, 512 << 20, "sys/fs/cgroup/system.slice/oneport.service/memory.max"},
		"version 2, memory.high": {map[string]string{
			self: "0::/a\n", "sys/fs/cgroup/a/memory.max": "1000", "sys/fs/cgroup/a/memory.high": "900",
		}, 900, "sys/fs/cgroup/a/memory.high"},
		"version 2, above": {map[string]string{
			self: "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "1000\n",
		}, 1000, "sys/fs/cgroup/a/memory.max"},
		"version 2, the least": {map[string]string{
			self: "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "2000\n", "sys/fs/cgroup/a/memory.max": "1000\n",
		}, 1000, "sys/fs/cgroup/a/memory.max"},
		"version 2, in a namespace":  {map[string]string{self: "0::/\n", "sys/fs/cgroup/memory.max": "1000\n"}, 1000, "sys/fs/cgroup/memory.max"},
		"version 2, the host's path": {map[string]string{self: "0::/docker/1234\n", "sys/fs/cgroup/memory.max": "1000\n"}, 1000, "sys/fs/cgroup/memory.max"},
		"version 2, outside of it":   {map[string]string{self: "0::/../b\n", "sys/fs/cgroup/b/memory.max": "1000\n"}, 1000, "sys/fs/cgroup/b/memory.max"},
		"version 2, none":            {map[string]string{self: "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, 0, ""},
		"version 1":                  {map[string]string{self: "3:cpu:/x\n2:memory:/a\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1000\n"}, 1000, "sys/fs/cgroup/memory/a/memory.limit_in_bytes"},
		"version 1, the host's path": {map[string]string{self: "2:memory:/docker/1\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n"}, 1000, "sys/fs/cgroup/memory/memory.limit_in_bytes"},
		"version 1, none":            {map[string]string{self: "2:memory:/a\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n"}, 0, ""},
		"both, memory in version 1":  {map[string]string{self: "4:memory:/a\n0::/\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1000\n"}, 1000, "sys/fs/cgroup/memory/a/memory.limit_in_bytes"},
		"nonsense":                   {map[string]string{self: "x\n0::/a\n", "sys/fs/cgroup/a/memory.max": "-5\n", "sys/fs/cgroup/memory.max": "lots\n"}, 0, ""},
		"no cgroups":                 {map[string]string{}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := fstest.MapFS{}
			for path, text := range tc.files {
				root[path] = &fstest.MapFile{Data: []byte(text)}
			}
			if got, file := cgroupMemory(root); got != tc.want || file != tc.file {
				t.Errorf("got %d of %q, want %d of %q", got, file, tc.want, tc.file)
			}
		})
	}
}

// Who sets GOMEMLIMIT knows better.
func TestGOMEMLIMITComesFirst(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "off")
	before := debug.SetMemoryLimit(-1)
	var log bytes.Buffer
	boundMemory(slog.New(slog.NewTextHandler(&log, nil)))
	if after := debug.SetMemoryLimit(-1); after != before || log.Len() > 0 {
		t.Errorf("%d became %d: %s", before, after, log.String())
	}
}
