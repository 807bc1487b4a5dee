package ws_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/oneport-edge/oneport/protocols/ws"
)

// What waits in the queue leaves together, up to 16 KiB at once, and in order.
func TestQueueLeavesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := serve(t, ws.Options{}, func(_ context.Context, c *ws.Conn) error {
			burst := make([][]byte, 8)
			for i := range burst {
				burst[i] = fmt.Appendf(nil, "message %d", i)
			}
			if err := c.SendAll(ws.Text, burst...); err != nil {
				return err
			}
			return c.SendAll(ws.Binary, make([]byte, 10<<10), make([]byte, 10<<10), make([]byte, 1<<10))
		})
		c, br := e.raw(t, "", nil)
		if n := br.Buffered(); n != 0 {
			t.Fatalf("%d bytes behind the handshake", n)
		}
		// A pipe's Read has what one Write had.
		buf := make([]byte, 64<<10)
		var writes []int
		var all []byte
		for len(writes) == 0 || writes[len(writes)-1] != 4 {
			n, err := c.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			writes, all = append(writes, n), append(all, buf[:n]...)
		}
		_ = c.Close()
		r := bytes.NewReader(all)
		for i := range 11 {
			_, p, err := readFrame(r)
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("message %d", i); i < 8 && string(p) != want {
				t.Errorf("%q, want %q", p, want)
			}
		}
		// Eight small ones, perhaps with the first large one; then 16 KiB at most; the close frame alone.
		if first := 8 * len("..message 0"); writes[0] < first {
			t.Errorf("the first write has %d bytes, want at least the first eight messages' %d", writes[0], first)
		}
		for _, n := range writes {
			if n > 16<<10 {
				t.Errorf("a write has %d bytes", n)
			}
		}
		// The handler's two bursts may leave together; then the close frame, by itself.
		if len(writes) > 4 {
			t.Errorf("%d writes, %v", len(writes), writes)
		}
	})
}
