package limit

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/protocols"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newLimiter(t testing.TB, o Options) *Limiter {
	t.Helper()
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// begun is a call from an address, of a user or nobody.
func begun(p protocols.Protocol, remote, user string) *protocols.Call {
	c := &protocols.Call{Protocol: p, Conn: &protocols.Conn{}, Started: time.Now()}
	if remote != "" {
		c.Conn.Remote = netip.AddrPortFrom(netip.MustParseAddr(remote), 4711)
	}
	c.Begin(context.Background(), protocols.NewID(1, 1), "")
	if user != "" {
		c.Identify(&protocols.Identity{Subject: user, By: "test"})
	}
	return c
}

func byAlice() *protocols.Call { return begun(protocols.HTTP, "192.0.2.1", "alice") }

// now asks a guard that need not wait, and says whether the call is in.
func now(t testing.TB, g protocols.Quick, call *protocols.Call) *protocols.Refusal {
	t.Helper()
	_, err := g.AdmitNow(t.Context(), call)
	return refusal(t, err)
}

func refusal(t testing.TB, err error) *protocols.Refusal {
	t.Helper()
	if err == nil {
		return nil
	}
	r, ok := errors.AsType[*protocols.Refusal](err)
	if !ok {
		t.Fatalf("not a refusal: %v", err)
	}
	return r
}

func mustAdmit(t testing.TB, g protocols.Quick, call *protocols.Call) {
	t.Helper()
	if r := now(t, g, call); r != nil {
		t.Fatalf("refused: %v, retry after %s", r, r.RetryAfter)
	}
}

func mustRefuse(t testing.TB, g protocols.Quick, call *protocols.Call, reason protocols.Reason) *protocols.Refusal {
	t.Helper()
	r := now(t, g, call)
	if r == nil || r.Reason != reason {
		t.Fatalf("%v, want reason %d", r, reason)
	}
	return r
}

func addrPort(a [16]byte) netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom16(a), 4711) }
