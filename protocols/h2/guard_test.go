package h2_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// patient is a guard that takes a second for calls that say so, and does to
// them what they ask for.
func patient(ctx context.Context, call *protocols.Call) (context.Context, error) {
	switch what := call.Header("X-Guard"); what {
	case "":
		return ctx, nil
	case "for ever":
		<-ctx.Done()
		return ctx, ctx.Err()
	case "panic":
		panic("on demand")
	case "fail":
		return ctx, errors.New("a secret")
	default:
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx, ctx.Err()
		}
		if what == "refuse" {
			return ctx, &protocols.Refusal{Reason: protocols.ReasonTooMany, Text: "50% too many", RetryAfter: 1500 * time.Millisecond}
		}
		return ctx, nil
	}
}

// guarded is the head of a call that the guard looks at.
func guarded(method, what string) []string {
	return request("POST", "/oneport.echo.v1.Echo/"+method, "content-type", "application/grpc", "te", "trailers", "x-guard", what)
}

// A guard that waits on one stream delays no other of that connection; what
// comes meanwhile waits, and is all there in the end.
func TestGuardWaits(t *testing.T) {
	inBubble(t, options{guards: []protocols.Guard{protocols.GuardFunc(patient)}}, func(t *testing.T, e *edge) {
		c := e.dial()
		msg := strings.Repeat("x", 100_000)
		whole := c.message(&echov1.UnaryRequest{Message: msg})
		begun := time.Now()
		c.send(c.head(1, false, guarded("Unary", "wait")...))
		for rest := whole; len(rest) > 0; {
			n := min(len(rest), 16<<10)
			c.send(data(1, rest[:n], n == len(rest)))
			rest = rest[n:]
		}
		c.send(c.get(3, "/hello"), c.call(5, "Unary", &echov1.UnaryRequest{Message: "hi"}))
		c.wantBody(3, "200", "hello")
		if a := c.answer(5); a.trailer("grpc-status") != "0" {
			t.Errorf("another call: %v", a)
		}
		if d := time.Since(begun); d > 0 {
			t.Errorf("others were answered after %v", d)
		}
		if a := c.answer(1); a.status != "" {
			t.Errorf("answered before the guard has decided: %v", a)
		}
		time.Sleep(time.Second)
		c.send(window(0, 1<<20), window(1, 1<<20))
		a := c.answer(1)
		if a.trailer("grpc-status") != "0" || len(a.body) != 5+proto.Size(&echov1.UnaryResponse{Message: msg}) {
			t.Errorf("the call that waited: %v", a)
		}
		e.alive()
	})
}

func TestGuardRefuses(t *testing.T) {
	inBubble(t, options{guards: []protocols.Guard{protocols.GuardFunc(patient)}}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.head(1, false, guarded("Unary", "refuse")...), c.head(3, true, guarded("Unary", "fail")...), c.head(5, true, guarded("Unary", "panic")...))
		time.Sleep(time.Second)
		for id, want := range map[uint32][2]string{1: {"8", "50%25 too many"}, 3: {"13", "internal error"}, 5: {"13", "internal error"}} {
			if a := c.answer(id); a.status != "200" || a.trailer("grpc-status") != want[0] || a.trailer("grpc-message") != want[1] {
				t.Errorf("stream %d: %v, want %q", id, a, want)
			}
		}
		if e.upstream {
			c.send(c.get(7, "/hello", "x-guard", "refuse"))
			time.Sleep(time.Second)
			c.wantBody(7, "429", "50% too many\n")
			if a := c.answer(7); field(a.fields, "retry-after") != "2" {
				t.Errorf("%v", a)
			}
		}
		if n := e.echo.running.Load(); n != 0 {
			t.Errorf("%d handlers run", n)
		}
		e.alive()
	})
}

// A stream that ends before its guard has decided ends the guard's context; so
// does its connection.
func TestGuardIsCutShort(t *testing.T) {
	inBubble(t, options{guards: []protocols.Guard{protocols.GuardFunc(patient)}}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.head(1, false, guarded("Unary", "for ever")...), c.head(3, true, guarded("Unary", "wait")...), c.head(5, true, guarded("Unary", "for ever")...))
		synctest.Wait()
		c.send(rst(1, frame.Cancel), rst(3, frame.Cancel))
		synctest.Wait()
		if n := e.calls.Load(); n != 2 {
			t.Errorf("%d calls have ended", n)
		}
		time.Sleep(2 * time.Second)
		c.wantOpen()
		_ = c.nc.Close()
		synctest.Wait()
		if n := e.calls.Load(); n != 3 {
			t.Errorf("%d calls have ended", n)
		}
		if n := e.echo.running.Load(); n != 0 {
			t.Errorf("%d handlers run", n)
		}
		e.alive()
	})
}

// As many gRPC calls as may wait for guards refuse further ones of their kind, and no other
// requests whose guards must wait.
func TestGuardsOfAFlood(t *testing.T) {
	// Of servers in this process the guards of other requests are net/http's business.
	inBubble(t, options{upstream: true, guards: []protocols.Guard{protocols.GuardFunc(patient)}}, func(t *testing.T, e *edge) {
		const clients, streams = 100, 100
		for range clients {
			c := e.dial()
			for id := range uint32(streams) {
				c.send(c.head(2*id+1, true, guarded("Unary", "for ever")...))
			}
		}
		synctest.Wait()
		c := e.dial()
		c.send(c.head(1, true, guarded("Unary", "wait")...), c.get(3, "/hello", "x-guard", "wait"))
		time.Sleep(time.Second)
		if a := c.answer(1); a.trailer("grpc-status") != "14" {
			t.Errorf("one more gRPC call: %v, want UNAVAILABLE", a)
		}
		c.wantBody(3, "200", "hello")
	})
}
