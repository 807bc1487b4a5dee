package systemd

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Socket is one that systemd has opened.
type Socket struct {
	Name     string // FileDescriptorName=, or else the name of the socket unit
	Listener net.Listener
}

// writeTime bounds a message to a service manager that does not read.
const writeTime = time.Second

// Notifier tells systemd how the service is. A nil one tells nobody. Its methods
// may be called concurrently. What cannot be told is lost: a service does not end for that.
type Notifier struct {
	// Watchdog is how often [Notifier.Alive] is to be called: half the time after
	// which systemd ends a silent service. Zero means never.
	Watchdog time.Duration

	mu    sync.Mutex // guards the fields below
	conn  net.Conn
	ready bool
}

// Dial opens the socket that systemd listens on. It gives nil if there is none. The
// environment is asked by getenv; pid is the process's own.
func Dial(getenv func(string) string, pid int) (*Notifier, error) {
	path := getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, nil //nolint:nilnil // nil tells nobody, as documented
	}
	if path[0] != '/' && path[0] != '@' {
		return nil, fmt.Errorf("systemd: NOTIFY_SOCKET=%q: want a path, or @ and an abstract name", path)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("systemd: %w", err)
	}
	n := &Notifier{conn: conn}
	if usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 {
		if who := getenv("WATCHDOG_PID"); who == "" || who == strconv.Itoa(pid) {
			n.Watchdog = time.Duration(usec) * time.Microsecond / 2
		}
	}
	return n, nil
}

// Ready says that the service serves: READY=1.
func (n *Notifier) Ready(status string) {
	n.tell(func() []string {
		n.ready = true
		return []string{"READY=1", "STATUS=" + status}
	})
}

// Reloading says that the service loads its configuration again: RELOADING=1.
// [Notifier.Reloaded] must follow.
func (n *Notifier) Reloading() {
	n.tell(func() []string {
		if !n.ready {
			return nil // it has not said READY=1 yet: there is nothing to come back to
		}
		return []string{"RELOADING=1", "MONOTONIC_USEC=" + strconv.FormatInt(monotonic().Microseconds(), 10), "STATUS=loading the configuration"}
	})
}

// Reloaded says that it has done so, or that it could not: READY=1 in either case.
func (n *Notifier) Reloaded(status string) {
	n.tell(func() []string {
		if !n.ready {
			return nil
		}
		return []string{"READY=1", "STATUS=" + status}
	})
}

// Stopping says that the service ends, within the time: STOPPING=1. Systemd waits so
// long, whatever TimeoutStopSec= says. Afterwards only Status and Alive are told.
func (n *Notifier) Stopping(within time.Duration, status string) {
	n.tell(func() []string {
		n.ready = false
		return []string{"STOPPING=1", "EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(within.Microseconds(), 10), "STATUS=" + status}
	})
}

// Status is the line that systemctl status shows.
func (n *Notifier) Status(status string) {
	n.tell(func() []string { return []string{"STATUS=" + status} })
}

// Alive keeps the watchdog quiet: WATCHDOG=1.
func (n *Notifier) Alive() {
	n.tell(func() []string { return []string{"WATCHDOG=1"} })
}

// Close closes the socket.
func (n *Notifier) Close() {
	if n != nil {
		_ = n.conn.Close() // on the way out
	}
}

func (n *Notifier) tell(lines func() []string) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	say := lines()
	if len(say) == 0 {
		return
	}
	for i, line := range say {
		say[i] = strings.ReplaceAll(line, "\n", " ") // a line is a variable
	}
	_ = n.conn.SetWriteDeadline(time.Now().Add(writeTime)) // a socket of ours that is open: cannot fail
	_, _ = n.conn.Write([]byte(strings.Join(say, "\n")))   // nobody listens: systemd says so by itself
}
