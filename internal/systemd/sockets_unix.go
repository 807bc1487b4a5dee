//go:build unix

package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// firstSocket is the descriptor of the first socket, SD_LISTEN_FDS_START.
	firstSocket = 3
	// mostSockets bounds what an environment can make us look at.
	mostSockets = 1024
)

// Sockets takes the sockets that were opened for this process, if any. The environment
// is asked by getenv, as [os.Getenv] is; pid is the process's own, as the
// variables may be meant for another. Call it once: descriptors 3 and on are taken
// over. What cannot be served is closed, and told in err beside the others.
func Sockets(getenv func(string) string, pid int) (list []Socket, err error) {
	if getenv("LISTEN_PID") != strconv.Itoa(pid) {
		return nil, nil
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n < 0 || n > mostSockets {
		return nil, fmt.Errorf("systemd: LISTEN_FDS=%q: want a number up to %d", getenv("LISTEN_FDS"), mostSockets)
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	var errs []error
	for i := range n {
		var name string
		if i < len(names) {
			name = names[i]
		}
		ln, err := listener(firstSocket+i, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("systemd: socket %d %q: %w", firstSocket+i, name, err))
			continue
		}
		list = append(list, Socket{Name: name, Listener: ln})
	}
	return list, errors.Join(errs...)
}

// listener makes a listener of a descriptor, and closes that: the listener has one of
// its own, which is not handed on to children. Closing either leaves the socket open in systemd.
func listener(fd int, name string) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), name)
	if f == nil {
		return nil, os.ErrInvalid
	}
	defer func() { _ = f.Close() }() // the listener has its own
	if typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	} else if typ != unix.SOCK_STREAM {
		return nil, errors.New("not a stream socket: want ListenStream=")
	}
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	} else if on == 0 {
		return nil, errors.New("it does not listen: want Accept=no")
	}
	return net.FileListener(f)
}
