//go:build unix

package router_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/oneport-edge/oneport/protocols/conn"
	"github.com/oneport-edge/oneport/router"
)

// emfileChild names the variable that makes the test binary a port with few
// file descriptors: a limit cannot be lowered for one test of a process alone.
const emfileChild = "ONEPORT_EMFILE_CHILD"

// A port that is out of file descriptors waits instead of spinning, says so,
// and goes on when there are some again.
func TestOutOfFileDescriptors(t *testing.T) {
	if os.Getenv(emfileChild) != "" {
		serveWithFewFiles(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOutOfFileDescriptors$")
	cmd.Env = append(os.Environ(), emfileChild+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	lines.Scan()
	addr := lines.Text()

	var conns []net.Conn
	for range 100 {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	time.Sleep(200 * time.Millisecond)
	const watched = 1500 * time.Millisecond
	before := cpu(t, cmd.Process.Pid)
	time.Sleep(watched)
	if used := cpu(t, cmd.Process.Pid) - before; used > watched/5 {
		t.Errorf("used %v of CPU in %v with nothing to do", used, watched)
	}
	for _, c := range conns {
		c.Close()
	}
	c := &http.Client{Timeout: 5 * time.Second}
	defer c.CloseIdleConnections()
	if code, _ := get(t, c, "http://"+addr+"/conn"); code != http.StatusOK {
		t.Errorf("afterwards: got %d", code)
	}
	c.CloseIdleConnections()
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("child: %v\n%s", err, log.String())
	}
	if n := strings.Count(log.String(), "cannot accept, waiting"); n == 0 || n > 20 {
		t.Errorf("said %d times that it cannot accept", n)
	}
}

func serveWithFewFiles(t *testing.T) {
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 40, Max: 40}); err != nil {
		t.Fatal(err)
	}
	srv := newServer()
	srv.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	srv.Limits.Connections = conn.Bounds{PreRoute: -1}
	srv.Listeners = []router.Listener{{Addr: "127.0.0.1:0", Plaintext: true}}
	addrs, err := srv.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(addrs[0])
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		io.Copy(io.Discard, os.Stdin) // until the parent is done
		cancel()
	}()
	if err := srv.ListenAndServe(ctx); err != nil {
		t.Error(err)
	}
}

// cpu is how much CPU time a process has used.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("needs /proc, to see what another process uses")
	}
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name may hold anything
	fields := strings.Fields(rest)
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}
