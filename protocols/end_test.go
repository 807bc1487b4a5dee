package protocols_test

import (
	"context"
	"testing"

	"github.com/oneport-edge/oneport/protocols"
)

// Once who serves a call has settled it, nobody ends it: what it
// was answered with may be in use for another call by then.
func TestNobodyEndsWhatHasEnded(t *testing.T) {
	calls := protocols.NewCalls()
	call := &protocols.Call{Conn: protocols.Conn{}.WithLive(nil, calls)}
	call.Begin(context.Background(), protocols.NewID(1, 1), "")
	if _, err := calls.Admit(context.Background(), call); err != nil {
		t.Fatal(err)
	}
	call.OnEnd(func(*protocols.Refusal) { t.Error("its answer is cut off") })
	if call.Settle() {
		t.Error("it was cut off, and nobody has")
	}
	if n := calls.End(&protocols.Refusal{Reason: protocols.ReasonForbidden}, func(*protocols.Call) bool { return true }); n != 0 {
		t.Errorf("%d calls were ended", n)
	}
	if why := call.Refusal(); why != nil {
		t.Errorf("it is said to have been ended: %v", why)
	}
	call.Finish(protocols.Result{})
}
