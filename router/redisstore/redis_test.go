package redisstore

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// A client of a cluster looks at its servers again a second later, closed or not.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}

// redis is a redis-server that lives as long as a test, on a socket of its own.
type redis struct {
	socket string
	args   []string
	cmd    *exec.Cmd
}

func startRedis(t *testing.T, args ...string) *redis {
	t.Helper()
	r := newRedis(t, args...)
	r.start(t)
	return r
}

// newRedis is one that has not been started.
func newRedis(t *testing.T, args ...string) *redis {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if asked {
			t.Fatal(err)
		}
		t.Skip("there is no redis-server here; make test-clients installs it")
	}
	dir, err := os.MkdirTemp("", "redis") //nolint:usetesting // t.TempDir's name may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	r := &redis{socket: filepath.Join(dir, "s"), args: append([]string{
		"--port", "0", "--unixsocket", filepath.Join(dir, "s"), "--dir", dir, "--save", "", "--appendonly", "no",
	}, args...)}
	t.Cleanup(func() {
		r.kill()
		_ = os.RemoveAll(dir)
	})
	return r
}

func (r *redis) start(t *testing.T) {
	t.Helper()
	r.cmd = exec.Command("redis-server", r.args...)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); ; <-tick.C {
		c, err := net.Dial("unix", r.socket)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("redis-server: %v", err)
		}
	}
}

func (r *redis) kill() {
	if r.cmd != nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		r.cmd = nil
	}
}

func (r *redis) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// ask sends a command, and gives the first line of its answer; for a string the second.
func (r *redis) ask(t *testing.T, command string) string {
	t.Helper()
	c, err := net.Dial("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	if err == nil && line[0] == '$' && line[1] != '-' {
		line, err = in.ReadString('\n')
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(line, "\r\n")
}

// number is an answer that is one: ":42".
func (r *redis) number(t *testing.T, command string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimPrefix(r.ask(t, command), ":"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func open(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func (r *redis) open(t *testing.T) *Store {
	t.Helper()
	return open(t, Options{URL: "unix://" + r.socket})
}
