package ws_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/protocols/ws"
)

// bucket gives the first bound that counts something, and how many there are in all.
func bucket(buckets []uint64) (first int, all uint64) {
	for i, n := range buckets {
		if n > 0 {
			return i, buckets[len(buckets)-1]
		}
	}
	return -1, 0
}

// Messages are counted by direction and size, and pings by the time until their pong.
func TestTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := serve(t, ws.Options{}, func(_ context.Context, c *ws.Conn) error {
			for {
				typ, msg, err := c.Read()
				if err != nil {
					return err
				}
				if err := c.Write(typ, msg); err != nil {
					return err
				}
				if err := c.Send(ws.Text, []byte("and one more")); err != nil {
					return err
				}
			}
		})
		c := e.open(t, nil)
		for _, n := range []int{5, 300, 5000} {
			if err := c.WriteMessage(websocket.BinaryMessage, make([]byte, n)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, _, err := c.ReadMessage(); err != nil {
					t.Fatal(err)
				}
			}
		}
		synctest.Wait()
		tr := e.server.Traffic()
		if tr.In.Count != 3 || tr.In.Bytes != 5305 || tr.In.Sizes[0] != 1 || tr.In.Sizes[2] != 2 || tr.In.Sizes[4] != 3 {
			t.Errorf("in: %+v", tr.In)
		}
		if tr.Out.Count != 6 || tr.Out.Bytes != 5305+3*12 || len(tr.RTTs) != len(ws.RTTBounds())+1 || len(tr.Out.Sizes) != len(ws.SizeBounds())+1 {
			t.Errorf("out: %+v", tr.Out)
		}
		c.SetPingHandler(func(data string) error {
			time.Sleep(30 * time.Millisecond)
			return c.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
		})
		go c.ReadMessage()
		time.Sleep(51 * time.Second) // in the first 25 s it was heard of
		tr = e.server.Traffic()
		if first, n := bucket(tr.RTTs); n != 1 || ws.RTTBounds()[first] != 50*time.Millisecond || tr.RTT != 30*time.Millisecond {
			t.Errorf("%d pings, in bucket %d, took %v", n, first, tr.RTT)
		}
		c.Close()
		synctest.Wait()
	})
}

// What waits for a peer that does not keep up is thrown away, and counted.
func TestDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := make(chan int, 1)
		e := serve(t, ws.Options{SendQueue: 10_000}, func(ctx context.Context, c *ws.Conn) error {
			for n := 0; ; n++ {
				if err := c.Send(ws.Binary, make([]byte, 1000)); errors.Is(err, ws.ErrSlowConsumer) {
					full <- n
					<-ctx.Done()
					return nil
				}
			}
		})
		c, _ := e.raw(t, "", nil)
		sent := <-full
		if n := e.server.Traffic().Dropped; n < 1 || n > int64(sent) {
			t.Errorf("%d of %d messages were dropped", n, sent)
		}
		c.Close()
		synctest.Wait()
	})
}
