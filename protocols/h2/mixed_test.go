package h2_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// A server that reads nothing more, for its handlers have not returned whose streams the
// client has reset, keeps PINGs unanswered. The client is the switch's, and is answered: it
// would take its connection for dead, and with it the streams of others.
func TestPingsBesideABlockedServer(t *testing.T) {
	inBubble(t, options{mixed: true, grpc: []grpc.ServerOption{grpc.MaxConcurrentStreams(2)}}, func(_ *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/wait"), c.call(3, "Unary", &echov1.UnaryRequest{Message: "hello"}))
		c.wantOpen()
		for id := uint32(5); id < 13; id += 2 {
			c.send(c.call(id, "Unary", &echov1.UnaryRequest{Message: "deaf"}))
			c.seen()
			c.send(rst(id, frame.Cancel))
			c.seen()
		}
		c.wantOpen()
		c.send(c.get(21, "/hello"))
		c.wantBody(21, "200", "hello")
		c.wantOpen()
		c.wantOpen()
	})
}

// A client that pings because it has streams elsewhere is not one without streams to a server that has none of them.
func TestPingsBesideAServerWithoutStreams(t *testing.T) {
	policy := grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second})
	inBubble(t, options{mixed: true, grpc: []grpc.ServerOption{policy}}, func(_ *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/wait"), c.call(3, "Unary", &echov1.UnaryRequest{Message: "hello"}))
		for range 20 {
			c.wantOpen()
			time.Sleep(time.Second + time.Millisecond)
		}
	})
	inBubble(t, options{mixed: true, grpc: []grpc.ServerOption{policy}}, func(_ *testing.T, e *edge) { // which is
		c := e.dial()
		c.send(c.call(3, "Unary", &echov1.UnaryRequest{Message: "hello"}))
		for range 3 {
			c.wantOpen()
			time.Sleep(time.Second + time.Millisecond)
		}
		_ = c.try(frame.AppendPing(nil, false, pingData), frame.AppendPing(nil, false, pingData))
		time.Sleep(3 * time.Second)
		c.wantGoAway(frame.EnhanceYourCalm)
	})
}

// Whoever waits for the connection's credit gets a turn at it, wherever the streams come from.
func TestTurnsAtTheConnectionsCredit(t *testing.T) {
	turns := func(function string) func(t *testing.T, e *edge) {
		return func(t *testing.T, e *edge) {
			c := e.dial(frame.Setting{ID: frame.InitialWindowSize, Value: 1 << 20})
			c.send(c.get(1, "/big?1000000"),
				c.call(3, "ServerStream", &echov1.ServerStreamRequest{Message: strings.Repeat("x", 10_000), Count: 100}),
				c.get(5, function+"/big?1000000"))
			var before [3]int
			for i := range before {
				before[i] = len(c.answer(uint32(1 + 2*i)).body)
			}
			for range 20 { // less than a frame for each
				c.send(window(0, 30_000))
				c.seen()
			}
			for i, n := range before {
				if got := len(c.answer(uint32(1+2*i)).body) - n; got < 100_000 {
					t.Errorf("stream %d has got %d bytes of 600,000", 1+2*i, got)
				}
			}
		}
	}
	inBubble(t, options{}, turns(""))
	t.Run("mixed", func(t *testing.T) { inBubble(t, options{mixed: true}, turns("/function")) })
}

// A server that takes fewer streams than clients were told refuses what is beyond that. Clients
// have done nothing wrong by then.
func TestRefusedByALowerLimit(t *testing.T) {
	inBubble(t, options{mixed: true, grpc: []grpc.ServerOption{grpc.MaxConcurrentStreams(1)}}, func(_ *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/wait"), c.call(3, "Unary", &echov1.UnaryRequest{Message: "wait"}))
		c.seen()
		for i := range uint32(h2.DefaultLimits().Nuisance + 100) {
			c.send(c.call(5+2*i, "Unary", &echov1.UnaryRequest{Message: "hello"}))
		}
		c.wantOpen()
	})
}

// What is refused is not abuse, however many streams it is: a client that had sent all of a request by then
// may have others open.
func TestManyRefused(t *testing.T) {
	no := protocols.GuardFunc(func(ctx context.Context, call *protocols.Call) (context.Context, error) {
		if call.Protocol == protocols.GRPC {
			return ctx, &protocols.Refusal{Reason: protocols.ReasonOverloaded}
		}
		return ctx, nil
	})
	inBubble(t, options{mixed: true, guards: []protocols.Guard{no}}, func(_ *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/wait"))
		for i := range uint32(100) {
			c.send(c.start(3+2*i, "Unary"))
			c.seen()
			for range 5 {
				c.send(data(3+2*i, strings.Repeat("x", 16<<10), false))
			}
		}
		c.wantOpen()
		// More than the stream's window, though, is.
		for range 1000 {
			if c.ended() == nil {
				_ = c.try(data(3, strings.Repeat("x", 16<<10), false))
			}
		}
		c.wantGoAway(frame.EnhanceYourCalm)
	})
	inBubble(t, options{mixed: true, guards: []protocols.Guard{no}}, func(_ *testing.T, e *edge) {
		c := e.dial()
		c.send(c.get(1, "/wait"))
		for i := range uint32(h2.DefaultLimits().Nuisance + 100) {
			c.send(c.start(3+2*i, "Unary"))
			c.seen()
			if i%2 == 0 {
				c.send(data(3+2*i, c.message(&echov1.UnaryRequest{Message: "hello"}), true))
			} else {
				c.send(rst(3+2*i, frame.Cancel))
			}
		}
		c.wantOpen()
	})
}

// A server that takes shorter heads than the port gets no longer ones: it might end the connection,
// as net/http's does, with the streams of other clients.
func TestHeadsTooLongForTheServer(t *testing.T) {
	inBubble(t, options{mixed: true, http: func(s *http.Server) { s.MaxHeaderBytes = 4 << 10 }}, func(_ *testing.T, e *edge) {
		other, c := e.dial(), e.dial()
		other.send(other.post(1, "/echo"), data(1, "one", false))
		other.seen()
		c.send(c.get(1, "/hello", "long", strings.Repeat("!", 12<<10)))
		c.wantBody(1, "431", "request header fields too large\n")
		c.send(c.get(3, "/hello", "long", strings.Repeat("!", 3<<10)))
		c.wantBody(3, "200", "hello")
		c.send(c.post(5, "/echo"), data(5, "x", false))
		c.seen()
		c.send(c.head(5, true, "long", strings.Repeat("!", 12<<10)))
		if a := c.answer(5); a.reset != "INTERNAL_ERROR" {
			c.t.Errorf("trailers that are too long: %v", a)
		}
		other.send(data(1, " two", true))
		other.wantBody(1, "200", "one two")
	})
	inBubble(t, options{mixed: true}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.startFake(1, "/fake/first"))
		s := e.backend(frame.Setting{ID: frame.MaxHeaderListSize, Value: 1000})
		c.send(c.post(3, "/fake/long", "content-type", "application/grpc", "te", "trailers", "long", strings.Repeat("x", 1000)))
		if a := c.answer(3); a.trailer("grpc-status") != "8" || s.latest() != 1 {
			t.Errorf("a head that is too long: %v", a)
		}
		c.send(c.startFake(5, "/fake/trailers"), c.head(5, true, "long", strings.Repeat("x", 1000)))
		if a, far := c.answer(5), s.far("/fake/trailers"); a.trailer("grpc-status") != "8" || len(s.of(frame.Headers, far)) != 1 || s.answer(far).reset != "CANCEL" {
			t.Errorf("trailers that are too long: %v, the server got %v", a, s.answer(far))
		}
		s.send(s.head(1, false, ":status", "200", "content-type", "application/grpc"), s.head(1, true, "grpc-status", "0"))
		if a := c.answer(1); a.trailer("grpc-status") != "0" {
			t.Errorf("the first call: %v", a)
		}
	})
}

// A client that takes shorter heads than servers send gets no longer ones, for the same reason.
func TestHeadsTooLongForTheClient(t *testing.T) {
	inBubble(t, options{mixed: true}, func(t *testing.T, e *edge) {
		c := e.dial(frame.Setting{ID: frame.MaxHeaderListSize, Value: 4 << 10})
		text := "the answer's header fields are larger than the client takes\n"
		c.send(c.get(1, "/long?."), c.get(3, "/function/long?."), c.get(5, "/long?....."), c.get(7, "/function/long?....."))
		c.wantBody(1, "200", "hello")
		c.wantBody(3, "200", "hello")
		c.wantBody(5, "502", text)
		c.wantBody(7, "502", text)
		c.send(c.get(9, "/long-trailers"), c.get(11, "/function/long-trailers"))
		c.wantReset(9, frame.InternalError)
		c.wantReset(11, frame.InternalError)
		c.send(c.call(13, "Unary", &echov1.UnaryRequest{Message: "fail at length"}), c.call(15, "Unary", &echov1.UnaryRequest{Message: "fail"}))
		if a := c.answer(13); a.trailer("grpc-status") != "8" {
			t.Errorf("a status that is too long: %v", a)
		}
		if a := c.answer(15); a.trailer("grpc-status") != "15" {
			t.Errorf("a status: %v", a)
		}
	})
}

// An answer whose head is far longer than the port takes costs its own stream, and not those
// of others that share the connection.
func TestHeadsTooLongFromAServer(t *testing.T) {
	inBubble(t, options{mixed: true}, func(t *testing.T, e *edge) {
		other, c := e.dial(), e.dial()
		other.send(other.startFake(1, "/fake/other"))
		s := e.backend()
		c.send(c.startFake(1, "/fake/long"))
		s.send(s.head(s.far("/fake/long"), true, ":status", "200", "long", strings.Repeat("!", 800<<10)))
		if a := c.answer(1); a.trailer("grpc-status") != "14" {
			t.Errorf("a head that is too long: %v", a)
		}
		s.send(s.head(1, false, ":status", "200", "content-type", "application/grpc"), s.head(1, true, "grpc-status", "0"))
		if a := other.answer(1); a.trailer("grpc-status") != "0" {
			t.Errorf("the other call: %v", a)
		}
	})
}
