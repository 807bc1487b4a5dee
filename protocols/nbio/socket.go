package nbio

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// Socket reads and writes a socket by system calls that Go's scheduler is not told
// of, where the system allows that. Go's sockets never block: a call takes as long
// as the kernel works, some microseconds. Telling the scheduler costs more than the
// bookkeeping: each such call of a process that was idle wakes the thread that looks
// for calls that block, which then looks every 20 us and takes the processor from
// those it sees twice, and their threads from them. That was 15 % of the CPU of
// small messages.
//
// The zero value is of no use: see Init. It is safe for concurrent use, as a net.Conn is.
type Socket struct {
	nc  net.Conn
	raw syscall.RawConn // nil if nc must do it itself
}

// Init names the connection. One that is no socket does all itself.
func (s *Socket) Init(nc net.Conn) {
	s.nc, s.raw = nc, nil
	if sc, ok := nc.(syscall.Conn); ok && supported {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
}

// Read is the connection's Read. It waits, within the read deadline.
func (s *Socket) Read(p []byte) (n int, err error) {
	if s.raw == nil {
		return s.nc.Read(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	a := reads.get(p)
	failed := s.raw.Read(a.run)
	n, err = reads.put(a)
	switch {
	case failed != nil:
		return 0, failed
	case err != nil:
		return 0, s.opError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write is the connection's Write. It waits, within the write deadline.
func (s *Socket) Write(p []byte) (n int, err error) {
	if s.raw == nil {
		return s.nc.Write(p)
	}
	a := writes.get(p)
	failed := s.raw.Write(a.run)
	n, err = writes.put(a)
	switch {
	case err != nil:
		return n, s.opError("write", err)
	default:
		return n, failed
	}
}

// try writes once, without waiting.
func (s *Socket) try(p []byte) (n int, err error) {
	if s == nil || s.raw == nil {
		return 0, errNoSocket
	}
	a := tries.get(p)
	failed := s.raw.Write(a.run)
	n, err = tries.put(a)
	switch {
	case err != nil:
		return n, s.opError("write", err)
	case errors.Is(failed, os.ErrDeadlineExceeded):
		return 0, nil // whoever waits finds out whether anybody still wants that deadline
	}
	return n, failed
}

// errNoSocket is returned by a Keeper without a socket.
var errNoSocket = errors.New("nbio: no socket")

// opError is what package net says of a call that failed.
func (s *Socket) opError(op string, err error) error {
	local, remote := s.nc.LocalAddr(), s.nc.RemoteAddr()
	network := "tcp"
	if local != nil {
		network = local.Network()
	}
	return &net.OpError{Op: op, Net: network, Source: local, Addr: remote, Err: os.NewSyscallError(op, err)}
}

// attempt is one call. Its function is made once: one for each call would be
// garbage.
type attempt struct {
	p   []byte
	n   int
	err error
	run func(fd uintptr) (done bool)
}

// attempts are those of one kind.
type attempts struct{ pool sync.Pool }

// newAttempts gives a kind: step makes its system call, and reports false if it has
// to wait.
func newAttempts(step func(a *attempt, fd uintptr) (done bool)) *attempts {
	return &attempts{sync.Pool{New: func() any {
		a := new(attempt)
		a.run = func(fd uintptr) bool { return step(a, fd) }
		return a
	}}}
}

func (l *attempts) get(p []byte) *attempt {
	a := l.pool.Get().(*attempt) //nolint:forcetypeassert // the pool has nothing else
	a.p = p
	return a
}

func (l *attempts) put(a *attempt) (int, error) {
	n, err := a.n, a.err
	a.p, a.n, a.err = nil, 0, nil
	l.pool.Put(a)
	return n, err
}

var (
	reads = newAttempts(func(a *attempt, fd uintptr) bool {
		n, err := call(fd, a.p, sysRead)
		if again(err) {
			return false
		}
		a.n, a.err = n, err
		return true
	})
	writes = newAttempts(func(a *attempt, fd uintptr) bool {
		for a.n < len(a.p) {
			n, err := call(fd, a.p[a.n:], sysWrite)
			if again(err) {
				return false
			}
			if a.err = err; err != nil {
				return true
			}
			a.n += n
		}
		return true
	})
	tries = newAttempts(func(a *attempt, fd uintptr) bool {
		n, err := call(fd, a.p, sysWrite)
		if again(err) {
			return true
		}
		a.n, a.err = n, err
		return true
	})
)

func again(err error) bool { return err == syscall.EAGAIN } //nolint:errorlint // a number, on the way of each call
