package mux

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/protocols/conn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// failing is a listener that answers with errors, until it is closed.
type failing struct {
	errs   []error
	at     []time.Duration
	start  time.Time
	closed chan struct{}
}

func (f *failing) Accept() (net.Conn, error) {
	select {
	case <-f.closed:
		return nil, net.ErrClosed
	default:
	}
	f.at = append(f.at, time.Since(f.start))
	if len(f.errs) == 0 {
		<-f.closed
		return nil, net.ErrClosed
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
}

func (f *failing) Close() error   { close(f.closed); return nil }
func (f *failing) Addr() net.Addr { return &net.TCPAddr{} }

func newFailing(errs ...error) *failing {
	return &failing{errs: errs, start: time.Now(), closed: make(chan struct{})}
}

func newMux() *Mux {
	return &Mux{Registry: conn.NewRegistry(conn.Options{}), HTTP1: func(c net.Conn) { c.Close() }, HTTP2: func(c net.Conn) { c.Close() }}
}

// Temporary errors are waited out, ever longer, up to a second.
func TestAcceptBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := make([]error, 12)
		for i := range errs {
			errs[i] = syscall.EMFILE
		}
		ln := newFailing(errs...)
		m := newMux()
		done := make(chan error, 1)
		go func() { done <- m.Serve(ln) }()
		time.Sleep(time.Minute)
		m.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		wait := 5 * time.Millisecond
		for i, at := range ln.at[1:] {
			if got := at - ln.at[i]; got != wait {
				t.Errorf("wait %d: %v, want %v", i, got, wait)
			}
			wait = min(2*wait, time.Second)
		}
		if len(ln.at) != 13 {
			t.Errorf("%d calls", len(ln.at))
		}
	})
}

// Closing does not wait for the end of a back-off.
func TestCloseDuringBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := make([]error, 100)
		for i := range errs {
			errs[i] = syscall.ENFILE
		}
		m := newMux()
		done := make(chan error, 1)
		go func() { done <- m.Serve(newFailing(errs...)) }()
		time.Sleep(10 * time.Second)
		start := time.Now()
		m.Close()
		if err := <-done; err != nil || time.Since(start) > 0 {
			t.Errorf("ended with %v after %v", err, time.Since(start))
		}
	})
}

// Any other error is the end of the listener, and Serve says so.
func TestAcceptFails(t *testing.T) {
	m := newMux()
	if err := m.Serve(newFailing(syscall.EBADF)); !errors.Is(err, syscall.EBADF) {
		t.Errorf("got %v", err)
	}
}

// A connection whose first bytes are on their way when the port closes is served:
// its client was let in.
func TestCloseDuringFirstBytes(t *testing.T) {
	q := NewQueue(&net.TCPAddr{})
	m := newMux()
	got := make(chan net.Conn, 1)
	m.HTTP1 = func(c net.Conn) { got <- c }
	done := make(chan error, 1)
	go func() { done <- m.Serve(q) }()
	client, server := net.Pipe()
	defer client.Close()
	q.Deliver(server)
	if _, err := client.Write([]byte("P")); err != nil { // the preface, or POST
		t.Fatal(err)
	}
	m.Close()
	if _, err := client.Write([]byte("O")); err != nil {
		t.Fatalf("closed: %v", err)
	}
	c := <-got
	defer c.Close()
	both := make([]byte, 2)
	if _, err := io.ReadFull(c, both); err != nil || string(both) != "PO" {
		t.Errorf("got %q, %v", both, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestServeAfterClose(t *testing.T) {
	m := newMux()
	m.Close()
	ln := newFailing()
	if err := m.Serve(ln); err != nil {
		t.Errorf("got %v", err)
	}
	<-ln.closed
}

// Closing a sub-listener, as http.Server.Shutdown does, closes nothing else,
// and its end is net.ErrClosed.
func TestSubListener(t *testing.T) {
	q := NewQueue(&net.TCPAddr{})
	sub := &subListener{Listener: q}
	sub.Close()
	go q.Deliver(&chunked{})
	if _, err := sub.Accept(); err != nil {
		t.Errorf("closed with its sub-listener: %v", err)
	}
	q.Close()
	q.Close()
	if _, err := sub.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	late := &chunked{}
	q.Deliver(late)
	if !late.closed {
		t.Error("a closed queue kept a connection")
	}
}

func TestPassthroughRules(t *testing.T) {
	for _, tc := range []struct {
		rule    Passthrough
		sni     string
		offered []string
		want    bool
	}{
		{Passthrough{SNI: "a.test"}, "a.test", nil, true},
		{Passthrough{SNI: "a.test"}, "A.Test", nil, true},
		{Passthrough{SNI: "a.test"}, "b.test", nil, false},
		{Passthrough{SNI: "a.test"}, "", nil, false},
		{Passthrough{SNI: "*.test"}, "a.test", nil, true},
		{Passthrough{SNI: "*.test"}, "a.b.test", nil, false},
		{Passthrough{SNI: "*.test"}, "test", nil, false},
		{Passthrough{SNI: "*.test"}, ".test", nil, false},
		{Passthrough{ALPN: "x"}, "any", []string{"h2", "x"}, true},
		{Passthrough{ALPN: "x"}, "any", []string{"h2"}, false},
		{Passthrough{SNI: "a.test", ALPN: "x"}, "a.test", []string{"h2"}, false},
		{Passthrough{SNI: "a.test", ALPN: "x"}, "a.test", []string{"x"}, true},
	} {
		if got := tc.rule.Matches(tc.sni, tc.offered); got != tc.want {
			t.Errorf("%+v for %q %v: %t", tc.rule, tc.sni, tc.offered, got)
		}
	}
	for rule, want := range map[Passthrough]bool{
		{SNI: "a", To: "host:1"}:  true,
		{ALPN: "a", To: ":1"}:     true,
		{To: "host:1"}:            false,
		{SNI: "a", To: "host"}:    false,
		{SNI: "a", To: "::1:443"}: false,
	} {
		if err := rule.Validate(); (err == nil) != want {
			t.Errorf("%+v: %v", rule, err)
		}
	}
}

// What the sniffing costs a connection.
func BenchmarkFirstBytes(b *testing.B) {
	p := newPlainPort(b)
	get := []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		p.queue.Deliver(&chunked{data: get})
		<-p.verdicts
	}
}
