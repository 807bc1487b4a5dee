package protocols_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/oneport-edge/oneport/protocols"
)

func begun(seq uint64) *protocols.Call {
	c := &protocols.Call{Conn: new(protocols.Conn)}
	c.Begin(context.Background(), protocols.NewID(1, seq), "")
	return c
}

// A call is listed from its guard to its end, wherever in the list it stands.
func TestCallsKnowWhatIsOpen(t *testing.T) {
	const n = 200 // more than there are locks, so that lists have middles
	for _, order := range []struct {
		name string
		at   func(i int) int
	}{{"first", func(i int) int { return i }}, {"last", func(i int) int { return n - 1 - i }}, {"mixed", func(i int) int { return i * 77 % n }}} {
		t.Run(order.name, func(t *testing.T) {
			open := protocols.NewCalls()
			calls := make([]*protocols.Call, n)
			for i := range calls {
				calls[i] = begun(uint64(i))
				for range 2 { // a guard of the server's and one of the route's: once counts
					if _, err := open.AdmitNow(t.Context(), calls[i]); err != nil {
						t.Fatal(err)
					}
				}
			}
			for i := range calls {
				gone := calls[order.at(i)]
				if !slices.Contains(open.List(), gone) {
					t.Fatalf("call %d is not listed", order.at(i))
				}
				gone.Finish(protocols.Result{})
				gone.Finish(protocols.Result{})
				if slices.Contains(open.List(), gone) || open.Len() != n-1-i || len(open.List()) != n-1-i {
					t.Fatalf("after %d ends %d are counted and %d listed", i+1, open.Len(), len(open.List()))
				}
			}
			if _, err := open.AdmitNow(t.Context(), calls[0]); err != nil || open.Len() != 0 {
				t.Error("a call that has ended is listed")
			}
		})
	}
}

// End ends what match takes, and no other.
func TestCallsEnd(t *testing.T) {
	open := protocols.NewCalls()
	var ended []string
	for i, user := range []string{"alice", "bob", "alice"} {
		c := begun(uint64(i))
		if _, err := open.AdmitNow(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		c.Identify(&protocols.Identity{Subject: user})
		if why := c.OnEnd(func(why *protocols.Refusal) { ended = append(ended, user+" "+why.Text) }); why != nil {
			t.Fatal(why)
		}
	}
	n := open.End(&protocols.Refusal{Text: "bye"}, func(c *protocols.Call) bool { return c.Identity().Subject == "alice" })
	if n != 2 || !slices.Equal(ended, []string{"alice bye", "alice bye"}) {
		t.Errorf("%d calls ended: %q", n, ended)
	}
}

func TestCallsConcurrently(t *testing.T) {
	open := protocols.NewCalls()
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 500 {
				c := begun(uint64(g*500 + i))
				_, _ = open.AdmitNow(t.Context(), c) // it refuses nothing
				if i%50 == 0 {
					open.End(&protocols.Refusal{}, func(*protocols.Call) bool { return true })
				}
				c.Finish(protocols.Result{})
			}
		})
	}
	all.Wait()
	if n := open.Len(); n != 0 || len(open.List()) != 0 {
		t.Errorf("%d calls are left", n)
	}
}

// What the list costs a call: compare with and without.
func BenchmarkCalls(b *testing.B) {
	for _, with := range []bool{false, true} {
		b.Run(map[bool]string{false: "without", true: "with"}[with], func(b *testing.B) {
			open := protocols.NewCalls()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for seq := uint64(0); pb.Next(); seq++ {
					c := begun(seq)
					if with {
						_, _ = open.AdmitNow(b.Context(), c)
					}
					c.Finish(protocols.Result{})
				}
			})
		})
	}
}
