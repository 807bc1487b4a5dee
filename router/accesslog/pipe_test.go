//go:build unix

package accesslog_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/oneport-edge/oneport/router/accesslog"
)

// A named pipe that nobody reads does not hold up whoever opens it.
func TestNamedPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "calls.log")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	if _, err := accesslog.OpenFile(path); err == nil || !strings.Contains(err.Error(), "named pipe") {
		t.Errorf("opening it gives %v", err)
	}
}
