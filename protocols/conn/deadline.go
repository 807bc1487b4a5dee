package conn

import (
	"errors"
	"os"
	"sync"
	"time"
)

// deadline is the deadline of one direction. Servers set theirs far more often
// than one passes: net/http six times for each request, its HTTP/2 before each
// write. So what is wanted is only noted here. The socket is told when it would
// otherwise wait too long; that it then wakes too early, at a deadline that was
// put off or lifted meanwhile, is found out when it happens, and it goes on.
type deadline struct {
	mu    sync.Mutex // guards the fields below
	want  int64      // nanoseconds since the registry's epoch; 0 for none
	armed int64      // the same, as the socket has it
	spent bool       // armed has passed: the socket is of no use until it has another
	busy  int        // calls of the socket in progress
}

// late reports whether the socket would wait longer than wanted, or not at all.
func (d *deadline) late() bool {
	return d.spent || d.want != 0 && (d.armed == 0 || d.want < d.armed)
}

// setDeadline notes that d is wanted at t; zero for never.
func (c *Conn) setDeadline(d *deadline, t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.want = 0; !t.IsZero() {
		d.want = int64(t.Sub(c.reg.epoch))
	}
	if d.busy > 0 && d.late() {
		return c.armLocked(d)
	}
	return nil
}

// armLocked tells the socket.
func (c *Conn) armLocked(d *deadline) error {
	var t time.Time
	if d.want != 0 {
		t = c.reg.epoch.Add(time.Duration(d.want))
	}
	d.armed, d.spent = d.want, false
	if d == &c.writing {
		return c.raw.SetWriteDeadline(t)
	}
	return c.raw.SetReadDeadline(t)
}

// begin is called before each call of the socket. With exact set, the socket
// will wake at the time that is wanted, and never before.
func (c *Conn) begin(d *deadline, exact bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy++
	if d.late() || exact && d.armed != d.want {
		_ = c.armLocked(d) // a dead socket says so itself in a moment
	}
}

// end is called after each call of the socket.
func (c *Conn) end(d *deadline) {
	d.mu.Lock()
	d.busy--
	d.mu.Unlock()
}

// again reports whether a call of the socket that ended with err must be
// repeated, because it ended at a deadline that nobody wants any more.
func (c *Conn) again(d *deadline, err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.want != 0 && d.want <= int64(time.Since(c.reg.epoch)) {
		d.spent = true
		return false
	}
	return c.armLocked(d) == nil
}

// readRaw reads from the socket.
func (c *Conn) readRaw(p []byte) (n int, err error) {
	c.begin(&c.reading, false)
	for {
		n, err = c.sock.Read(p)
		if err == nil || n > 0 || !c.again(&c.reading, err) {
			break
		}
	}
	c.end(&c.reading)
	c.in.Add(int64(n))
	return n, err
}

// writeRaw writes to the socket.
func (c *Conn) writeRaw(p []byte) (int, error) {
	n, err := c.writeKept(p)
	c.out.Add(int64(n))
	return n, err
}

// writeKept writes what has been counted to the socket.
func (c *Conn) writeKept(p []byte) (n int, err error) {
	c.begin(&c.writing, false)
	for {
		var k int
		k, err = c.sock.Write(p[n:])
		n += k
		if err == nil || !c.again(&c.writing, err) {
			break
		}
	}
	c.end(&c.writing)
	return n, err
}

// SetDeadline sets both deadlines; before routing, none later than Deadline.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets the read deadline, as SetDeadline does.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.reading, c.clamp(t)) }

// SetWriteDeadline sets the write deadline, as SetDeadline does.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writing, c.clamp(t)) }

func (c *Conn) clamp(t time.Time) time.Time {
	if !c.deadline.IsZero() && (t.IsZero() || t.After(c.deadline)) {
		return c.deadline
	}
	return t
}
