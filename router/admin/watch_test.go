package admin

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
	"github.com/oneport-edge/oneport/protocols"
)

// nobody is a port without connections.
type nobody struct{}

func (nobody) Conns() []*protocols.Conn { return nil }
func (nobody) CloseConn(string) bool    { return false }

// A watcher that takes nothing gives its place back.
func TestWatcherTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Options{Port: nobody{}, Calls: protocols.NewCalls()})
		if err != nil {
			t.Fatal(err)
		}
		call := &protocols.Call{Conn: new(protocols.Conn)}
		ctx := call.Begin(t.Context(), protocols.NewID(1, 1), "")
		cut, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		if why := call.OnEnd(func(*protocols.Refusal) { cancel() }); why != nil {
			t.Fatal(why)
		}
		begun := time.Now()
		err = s.watch(ctx, new(adminv1.WatchConnectionsRequest), func(*adminv1.WatchConnectionsResponse) error {
			<-cut.Done()
			return io.ErrClosedPipe
		})
		if took := time.Since(begun); err == nil || took != sendFor || s.watching.Load() != 0 {
			t.Errorf("%v after %v, and %d watch", err, took, s.watching.Load())
		}
	})
}
