package ws_test

import (
	"bufio"
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/oneport-edge/oneport/protocols/ws"
)

func wantFrame(t *testing.T, br *bufio.Reader, b0 byte, payload string) {
	t.Helper()
	got, p, err := readFrame(br)
	if err != nil || got != b0 || string(p) != payload {
		t.Fatalf("frame %#x of %d bytes, %v, want %#x of %d", got, len(p), err, b0, len(payload))
	}
}

// The last piece of a large message may look like a close frame: it is none.
func TestLargeMessageIsNoClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := strings.Repeat("x", 4<<10+16<<10+50)
		e := serve(t, ws.Options{}, func(ctx context.Context, c *ws.Conn) error {
			if err := c.Write(ws.Text, []byte(large)); err != nil {
				return err
			}
			if err := c.Write(ws.Text, []byte("next")); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		c, br := e.raw(t, "", nil)
		wantFrame(t, br, 0x81, large)
		wantFrame(t, br, 0x81, "next")
		_ = c.Close()
	})
}
