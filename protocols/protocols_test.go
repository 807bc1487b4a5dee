package protocols_test

import (
	"context"
	"slices"
	"testing"

	"github.com/oneport-edge/oneport/protocols"
)

func TestIsGRPC(t *testing.T) {
	for _, tc := range []struct {
		method, contentType string
		want                bool
	}{
		{"POST", "application/grpc", true},
		{"POST", "application/grpc+proto", true},
		{"POST", "application/grpc+json", true},
		{"POST", "application/grpc;charset=utf-8", true},
		{"POST", "APPLICATION/GRPC+proto", true},
		{"POST", "application/grpc-web", false},
		{"POST", "application/grpc-web+proto", false},
		{"POST", "application/grpc-web-text", false},
		{"POST", "application/grpcx", false},
		{"POST", "application/grp", false},
		{"POST", "application/json", false},
		{"POST", "", false},
		{"GET", "application/grpc", false},
		{"post", "application/grpc", false},
	} {
		if got := protocols.IsGRPC(tc.method, tc.contentType); got != tc.want {
			t.Errorf("IsGRPC(%q, %q) = %t", tc.method, tc.contentType, got)
		}
	}
}

// Every state can be closed, nothing leaves closed, and the pre-route states
// cannot be entered again.
func TestStates(t *testing.T) {
	for _, s := range protocols.States() {
		if got := s.To(protocols.StateClosed); got != (s != protocols.StateClosed) {
			t.Errorf("%v to closed: %t", s, got)
		}
		for _, next := range protocols.States() {
			if s == protocols.StateClosed && s.To(next) {
				t.Errorf("closed goes to %v", next)
			}
			if !s.PreRoute() && next.PreRoute() && s.To(next) {
				t.Errorf("%v goes back to %v", s, next)
			}
			if s == next && s.To(next) {
				t.Errorf("%v goes to itself", s)
			}
		}
		if s.String() == "invalid" {
			t.Errorf("state %d has no name", s)
		}
	}
	if bad := protocols.NumStates; bad.To(protocols.StateClosed) || bad.String() != "invalid" {
		t.Error("an invalid state takes part")
	}
}

func TestTraceID(t *testing.T) {
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	id := protocols.NewID(0x0123456789abcdef, 42)
	const own = "0123456789abcdef000000000000002a"
	for header, want := range map[string]string{
		"00-" + trace + "-00f067aa0ba902b7-01":                    trace,
		"cc-" + trace + "-00f067aa0ba902b7-01":                    trace, // a later version
		"cc-" + trace + "-00f067aa0ba902b7-01-more":               trace,
		"00-" + trace + "-00f067aa0ba902b7-01-more":               own, // version 00 ends there
		"ff-" + trace + "-00f067aa0ba902b7-01":                    own,
		"00-" + trace + "-0000000000000000-01":                    own,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01": own,
		"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01": own, // upper case
		"00-" + trace + "_00f067aa0ba902b7-01":                    own,
		"00-" + trace:                                             own,
		"":                                                        own,
	} {
		call := new(protocols.Call)
		call.Begin(t.Context(), id, header)
		if got := call.TraceID(); got != want {
			t.Errorf("traceparent %q: trace id %s, want %s", header, got, want)
		}
	}
	call := new(protocols.Call)
	call.Begin(t.Context(), id, "")
	if call.RequestID() != own {
		t.Errorf("request id %s", call.RequestID())
	}
}

func TestCallInContext(t *testing.T) {
	conn := &protocols.Conn{ID: "c"}
	parent, cancel := context.WithCancel(protocols.WithConn(t.Context(), conn))
	if protocols.CallFrom(parent) != nil || protocols.ConnFrom(parent) != conn {
		t.Fatal("a connection's context has a call, or no connection")
	}
	call := new(protocols.Call)
	ctx := call.Begin(parent, protocols.ID{}, "")
	call.Conn = conn
	child, stop := context.WithCancel(ctx)
	defer stop()
	if protocols.CallFrom(child) != call || protocols.ConnFrom(child) != conn {
		t.Error("the call is not found below its context")
	}
	cancel()
	<-child.Done() // the call's context passes the end of its parent on
	if protocols.ConnFrom(context.Background()) != nil {
		t.Error("a connection out of nothing")
	}
}

// A call that outlives its request lets go of the request's context, but not
// of what it is.
func TestDetachedCall(t *testing.T) {
	type key struct{}
	parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	call := new(protocols.Call)
	ctx := call.Begin(parent, protocols.ID{}, "")
	call.Conn = &protocols.Conn{ID: "c"}
	below := context.WithValue(ctx, key{}, "below") // a middleware's
	if ctx.Value(key{}) != "value" || ctx.Done() == nil {
		t.Error("the call's context is not its parent's")
	}
	call.Detach()
	cancel()
	if !call.Detached() || ctx.Err() != nil || ctx.Value(key{}) != nil {
		t.Errorf("detached %t, ended %v, with the parent's %v", call.Detached(), ctx.Err(), ctx.Value(key{}))
	}
	if protocols.CallFrom(below) != call || protocols.ConnFrom(below) != call.Conn || below.Value(key{}) != "below" {
		t.Error("the call, its connection or a middleware's value is lost")
	}
}

func TestCallFinishRunsOnceInReverse(t *testing.T) {
	call := new(protocols.Call)
	call.Begin(t.Context(), protocols.ID{}, "")
	var ran []int
	for i := range 3 {
		call.OnDone(func(res protocols.Result) { ran = append(ran, i*10+res.Status) })
	}
	call.Finish(protocols.Result{Status: 7})
	call.Finish(protocols.Result{Status: 8})
	call.OnDone(func(protocols.Result) { ran = append(ran, -1) }) // late: at once
	if want := []int{27, 17, 7, -1}; !slices.Equal(ran, want) {
		t.Errorf("ran %v, want %v", ran, want)
	}
}

func TestConnWithoutLive(t *testing.T) {
	c := new(protocols.Conn)
	if in, out := c.Bytes(); c.State() != protocols.StateClosed || in != 0 || out != 0 {
		t.Error("a connection that never was is open")
	}
}
