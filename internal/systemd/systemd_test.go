//go:build unix

package systemd

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// env is an environment of pairs.
func env(pairs ...string) func(string) string {
	return func(key string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == key {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// What is not for this process, or nonsense, takes no descriptor. That real
// sockets are taken, cmd/oneport tests with processes.
func TestSocketsOfOthers(t *testing.T) {
	for name, tc := range map[string]struct {
		env  func(string) string
		fail bool
	}{
		"none":          {env(), false},
		"another's":     {env("LISTEN_PID", "1", "LISTEN_FDS", "2"), false},
		"no number":     {env("LISTEN_PID", "7", "LISTEN_FDS", "x"), true},
		"negative":      {env("LISTEN_PID", "7", "LISTEN_FDS", "-1"), true},
		"far too many":  {env("LISTEN_PID", "7", "LISTEN_FDS", "1025"), true},
		"zero":          {env("LISTEN_PID", "7", "LISTEN_FDS", "0"), false},
		"only a number": {env("LISTEN_FDS", "1"), false},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := Sockets(tc.env, 7)
			if len(list) > 0 || (err != nil) != tc.fail {
				t.Errorf("%v, %v", list, err)
			}
		})
	}
}

// What cannot be served is an error and closed; closing what can be leaves the
// socket itself open.
func TestListener(t *testing.T) {
	for want, typ := range map[string]int{"not a stream socket": unix.SOCK_DGRAM, "does not listen": unix.SOCK_STREAM} {
		fd, err := unix.Socket(unix.AF_INET, typ, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := listener(fd, "x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	f, err := held.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := listener(fd, "x")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	c, err := net.Dial("tcp", held.Addr().String())
	if err != nil {
		t.Fatalf("closing ours closed the socket: %v", err)
	}
	c.Close()
}

func TestNotifier(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	n, err := Dial(env("NOTIFY_SOCKET", path, "WATCHDOG_USEC", "3000000", "WATCHDOG_PID", strconv.Itoa(os.Getpid())), os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if n.Watchdog != 1500*time.Millisecond {
		t.Errorf("watchdog %v", n.Watchdog)
	}
	n.Reloading() // before READY=1 there is nothing to say
	n.Reloaded("x")
	n.Ready("two\nlines")
	n.Stopping(25*time.Second, "draining")
	n.Reloaded("x") // would undo STOPPING=1
	n.Alive()
	buf := make([]byte, 1024)
	for _, want := range []string{"READY=1\nSTATUS=two lines", "STOPPING=1\nEXTEND_TIMEOUT_USEC=25000000\nSTATUS=draining", "WATCHDOG=1"} {
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		k, err := conn.Read(buf)
		if err != nil || string(buf[:k]) != want {
			t.Errorf("got %q, %v, want %q", buf[:k], err, want)
		}
	}
}

func TestDial(t *testing.T) {
	if n, err := Dial(env(), 1); n != nil || err != nil {
		t.Errorf("without systemd: %v, %v", n, err)
	}
	for _, path := range []string{"relative", "/nowhere/at/all"} {
		if _, err := Dial(env("NOTIFY_SOCKET", path), 1); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
	var none *Notifier
	none.Ready("x") // tells nobody
	none.Close()
}
