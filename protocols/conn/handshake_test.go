package conn_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/protocols/conn"
)

func TestHandshakesAreCounted(t *testing.T) {
	r := conn.NewRegistry(conn.Options{})
	r.Handshook(3*time.Millisecond, false)
	r.Handshook(time.Minute, true)
	h := r.Stats().Handshakes
	if h.Full != 1 || h.Resumed != 1 || h.Took != time.Minute+3*time.Millisecond || len(h.Buckets) != len(conn.HandshakeBounds())+1 {
		t.Fatalf("%+v", h)
	}
	if h.Buckets[1] != 0 || h.Buckets[2] != 1 || h.Buckets[len(h.Buckets)-2] != 1 || h.Buckets[len(h.Buckets)-1] != 2 {
		t.Errorf("%v", h.Buckets)
	}
}

// Bytes count as they come, and stay counted when their connection is gone.
func TestBytesStayCounted(t *testing.T) {
	r := conn.NewRegistry(conn.Options{})
	for i := range int64(2) {
		client, server := net.Pipe()
		c, why := r.Add(server, conn.Origin{})
		if c == nil {
			t.Fatal(why)
		}
		go func() {
			_, _ = client.Write([]byte("12345"))
			_, _ = io.ReadFull(client, make([]byte, 3))
		}()
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("abc")); err != nil {
			t.Fatal(err)
		}
		want := func() {
			t.Helper()
			if st := r.Stats(); st.BytesIn != 5*(i+1) || st.BytesOut != 3*(i+1) {
				t.Errorf("%d in, %d out", st.BytesIn, st.BytesOut)
			}
		}
		want()
		_ = c.Close()
		_ = client.Close()
		want()
	}
}
