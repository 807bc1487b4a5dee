//go:build unix

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take on a busy machine.
const patience = 30 * time.Second

// manager does to the program what systemd does: it holds the listening sockets,
// hands them on, and is told how the service is.
type manager struct {
	dir     string // the program's working directory
	program string
	files   []*os.File // the sockets
	names   []string
	addrs   []string
	env     []string
}

// newManager opens a socket for each name.
func newManager(t *testing.T, names ...string) *manager {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{dir: t.TempDir(), names: names}
	m.program = filepath.Join(m.dir, "oneport") // the name that makes a test binary the program
	if err := os.Symlink(self, m.program); err != nil {
		t.Fatal(err)
	}
	for range names {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		m.files, m.addrs = append(m.files, f), append(m.addrs, ln.Addr().String())
	}
	return m
}

// write writes a file of the program's.
func (m *manager) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// unit is one run of the program.
type unit struct {
	cmd    *exec.Cmd
	notify *net.UnixConn
	log    bytes.Buffer
	said   []string // the messages of notify so far
	done   chan error
}

// start starts the program as a service with all sockets.
func (m *manager) start(t *testing.T, args ...string) *unit {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") //nolint:usetesting // t.TempDir may be longer than the 108 bytes of a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	u := &unit{done: make(chan error, 1)}
	if u.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.notify.Close() })
	// The shell's pid becomes the program's.
	u.cmd = exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, m.program}, args...)...)
	u.cmd.Dir, u.cmd.ExtraFiles, u.cmd.Stderr = m.dir, m.files, &u.log
	u.cmd.Env = append(os.Environ(), append(m.env, "NOTIFY_SOCKET="+path,
		"LISTEN_FDS="+strconv.Itoa(len(m.files)), "LISTEN_FDNAMES="+strings.Join(m.names, ":"))...)
	if err := u.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { u.done <- u.cmd.Wait() }()
	t.Cleanup(func() {
		if u.cmd.ProcessState == nil {
			_ = u.cmd.Process.Kill()
		}
	})
	return u
}

// hears waits until the program has said a line, and gives all of its message.
func (u *unit) hears(t *testing.T, line string) []string {
	t.Helper()
	buf := make([]byte, 4096)
	if err := u.notify.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for {
		n, err := u.notify.Read(buf)
		if err != nil {
			_ = u.cmd.Process.Kill()
			<-u.done
			t.Fatalf("it never said %s, but %q; its log: %s", line, u.said, u.log.String())
		}
		message := strings.Split(string(buf[:n]), "\n")
		u.said = append(u.said, string(buf[:n]))
		if slices.Contains(message, line) {
			return message
		}
	}
}

func (u *unit) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := u.cmd.Process.Signal(sig); err != nil {
		t.Error(err)
	}
}

// ends waits for the program's end and gives its log.
func (u *unit) ends(t *testing.T, code int) string {
	t.Helper()
	select {
	case <-u.done:
	case <-time.After(patience):
		_ = u.cmd.Process.Kill()
		<-u.done
		t.Fatalf("it does not end:\n%s", u.log.String())
	}
	if got := u.cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d:\n%s", got, code, u.log.String())
	}
	return u.log.String()
}

// tls is what a client of the program's development certificate needs.
func (m *manager) tls(t *testing.T, protocols ...string) *tls.Config {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(m.dir, "certs", "dev", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: protocols}
}
