package nbio_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/protocols/nbio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a connection over loopback: the end that is wrapped, and the other one.
func pair(t *testing.T) (*nbio.Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	_ = b.(*net.TCPConn).SetReadBuffer(16 << 10)
	_ = a.(*net.TCPConn).SetWriteBuffer(16 << 10)
	c := nbio.Wrap(a)
	if !c.Keep() {
		t.Skip("writes to sockets wait on this system")
	}
	return c, b
}

// number is a piece that tells where in a stream it belongs.
func number(i int) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 1000) }

// fill writes until something is kept, and returns how many pieces that took.
func fill(t *testing.T, c *nbio.Conn) (pieces int) {
	t.Helper()
	for !c.Kept() {
		p := number(pieces)
		if n, err := c.Write(p); n != len(p) || err != nil {
			t.Fatalf("piece %d: %d, %v", pieces, n, err)
		}
		if pieces++; pieces > 1<<16 {
			t.Fatal("the socket takes everything")
		}
	}
	return pieces
}

// What the socket does not take is kept, and leaves in order: behind a Flush
// that is at work, too.
func TestWriteKeepsTheOrder(t *testing.T) {
	c, peer := pair(t)
	pieces := fill(t, c)
	flushed := make(chan error)
	go func() { flushed <- c.Flush() }()
	for range 100 { // some of it while Flush waits
		if _, err := c.Write(number(pieces)); err != nil {
			t.Fatal(err)
		}
		pieces++
	}
	got := make([]byte, pieces*2000)
	if _, err := io.ReadFull(peer, got); err != nil {
		t.Fatal(err)
	}
	for i := range pieces {
		if !bytes.Equal(got[i*2000:(i+1)*2000], number(i)) {
			t.Fatalf("piece %d of %d is not what was written", i, pieces)
		}
	}
	if err := <-flushed; err != nil || c.Kept() {
		t.Errorf("Flush: %v, kept %v", err, c.Kept())
	}
	if _, err := c.Write([]byte("more")); err != nil || c.Kept() {
		t.Errorf("behind that: %v, kept %v", err, c.Kept())
	}
}

// What is kept is bounded.
func TestTooMuch(t *testing.T) {
	c, _ := pair(t)
	for pieces := fill(t, c); ; pieces++ {
		_, err := c.Write(number(pieces))
		if errors.Is(err, nbio.ErrTooMuch) {
			return
		}
		if err != nil || pieces > 1<<16 {
			t.Fatalf("piece %d: %v", pieces, err)
		}
	}
}

// A deadline and Close end Flush.
func TestFlushEnds(t *testing.T) {
	c, _ := pair(t)
	fill(t, c)
	_ = c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if err := c.Flush(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("behind a deadline: %v", err)
	}
	if _, err := c.Write([]byte("x")); err != nil { // whoever flushes hears of it
		t.Errorf("Write behind a deadline: %v", err)
	}
	if err := c.Flush(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("behind a deadline: %v", err)
	}

	c, _ = pair(t)
	fill(t, c)
	flushed := make(chan error)
	go func() { flushed <- c.Flush() }()
	time.Sleep(10 * time.Millisecond)
	_ = c.Close()
	if err := <-flushed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("behind Close: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write behind Close: %v", err)
	}
}

// A connection that is no socket stays what it is.
func TestNoSocket(t *testing.T) {
	a, b := net.Pipe()
	_ = b.Close()
	c := nbio.Wrap(a)
	if c.Keep() {
		t.Error("writes to a pipe do not wait")
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("Read: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Write: %v", err)
	}
	_ = a.Close()
	if _, err := new(nbio.Keeper).Write([]byte("x")); err == nil {
		t.Error("a Keeper without a socket writes")
	}
}
