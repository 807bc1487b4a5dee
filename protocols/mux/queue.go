package mux

import (
	"net"
	"sync"
)

// Queue is a net.Listener whose connections are delivered to it: how a
// connection that has been routed reaches an http.Server.
type Queue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// NewQueue returns an open queue that calls itself addr.
func NewQueue(addr net.Addr) *Queue {
	return &Queue{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// Deliver hands c to whoever accepts from the queue, and waits until it is
// taken. A closed queue closes c.
func (q *Queue) Deliver(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.done:
		_ = c.Close()
	}
}

// Accept waits for the next connection.
func (q *Queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Deliver. It never closes the port.
func (q *Queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// Addr is the address the queue was given.
func (q *Queue) Addr() net.Addr { return q.addr }
