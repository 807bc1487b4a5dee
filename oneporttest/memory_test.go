package oneporttest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/oneporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	ln := oneporttest.NewListener()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := ln.Accept()
		accepted <- c
	}()
	client, err := ln.DialFrom(t.Context(), net.IPv4(203, 0, 113, 7))
	if err != nil {
		t.Fatal(err)
	}
	server = <-accepted
	t.Cleanup(func() {
		client.Close()
		server.Close()
		ln.Close()
	})
	return client, server
}

// A connection in memory carries both directions at once, however much, and
// has half-closes.
func TestMemoryConn(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	if got := server.RemoteAddr().(*net.TCPAddr).IP.String(); got != "203.0.113.7" || server.LocalAddr().String() != client.RemoteAddr().String() {
		t.Errorf("addresses: %v, %v", server.RemoteAddr(), server.LocalAddr())
	}
	big := bytes.Repeat([]byte("0123456789"), 100_000)
	var wg sync.WaitGroup
	for _, c := range []net.Conn{client, server} {
		wg.Go(func() {
			if n, err := c.Write(big); n != len(big) || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
			c.(interface{ CloseWrite() error }).CloseWrite()
		})
		wg.Go(func() {
			if got, err := io.ReadAll(c); !bytes.Equal(got, big) || err != nil {
				t.Errorf("read %d, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if _, err := client.Write([]byte("x")); err == nil {
		t.Error("wrote behind the half-close")
	}
}

func TestMemoryDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t)
		start := time.Now()
		client.SetDeadline(start.Add(time.Second))
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("read: %v after %v", err, time.Since(start))
		}
		if _, err := client.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %v", err)
		}
		client.SetDeadline(time.Time{})
		go server.Write([]byte("x"))
		if _, err := client.Read(make([]byte, 1)); err != nil {
			t.Errorf("after the deadline was lifted: %v", err)
		}
		time.AfterFunc(time.Minute, func() { client.Close() })
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("own close: %v", err)
		}
		for { // what was sent before, and then the end
			if _, err := server.Read(make([]byte, 1<<20)); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("the other's close: %v", err)
				}
				break
			}
		}
	})
}

func TestListenerCloses(t *testing.T) {
	t.Parallel()
	ln := oneporttest.NewListener()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ln.Dial(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody accepts: %v", err)
	}
	ln.Close()
	ln.Close()
	if _, err := ln.Dial(t.Context()); err == nil {
		t.Error("dialed a closed listener")
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
}
