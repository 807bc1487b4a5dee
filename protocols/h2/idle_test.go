package h2_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// pongs answers the PINGs that have come, the first n of which it has answered.
func (p *peer) pongs(n int) int {
	p.t.Helper()
	all := p.of(frame.Ping, 0)
	for _, g := range all[n:] {
		if !g.Flags.Has(frame.Ack) {
			p.send(frame.AppendPing(nil, true, [8]byte(g.payload)))
		}
	}
	return len(all)
}

// A stream that says nothing for ten minutes goes on, with the limits that a
// sidecar has: client and server give their signs of life.
func TestIdleStream(t *testing.T) {
	inBubble(t, onlyUp(h2.UpstreamLimits{}), func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.startFake(1, "/fake/bidi"), data(1, "one", false))
		s := e.backend()
		far := s.far("/fake/bidi")
		s.send(s.head(far, false, ":status", "200", "content-type", "application/grpc"), data(far, "eins", false))
		var asked, askedFar int
		for start := time.Now(); time.Since(start) < 10*time.Minute; time.Sleep(5 * time.Second) {
			asked, askedFar = c.pongs(asked), s.pongs(askedFar)
			if c.ended() != nil || s.ended() != nil {
				t.Fatalf("cut after %v: client %v, server %v", time.Since(start), c.ended(), s.ended())
			}
		}
		if asked < 15 || askedFar != 1 {
			t.Errorf("the client was asked %d times for a sign of life, the server %d times", asked, askedFar)
		}
		c.send(data(1, " two", false))
		synctest.Wait()
		s.send(data(far, " zwei", false))
		synctest.Wait()
		c.send(data(1, "", true))
		if a := s.answer(far); a.body != "one two" || !a.ended || a.reset != "" {
			t.Errorf("the server has got %v %q", a, a.body)
		}
		s.send(s.head(far, true, "grpc-status", "0"))
		if a := c.answer(1); a.body != "eins zwei" || a.trailer("grpc-status") != "0" || a.reset != "" {
			t.Errorf("the client has got %v %q", a, a.body)
		}
		c.wantOpen()
		e.wantPool(1, 0, 0)
	})
}

// Neither does a real server find that it is asked too often, nor the switch
// that a client asks too often, when nothing else is said for 40 minutes.
func TestIdleStreamOfGRPC(t *testing.T) {
	for name, params := range map[string]keepalive.ClientParameters{
		"a client that waits": {},
		"a client that asks":  {Time: 10 * time.Second, Timeout: 20 * time.Second, PermitWithoutStream: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, options{upstream: true}, func(t *testing.T, e *edge) {
				cc, err := grpc.NewClient("passthrough:///edge", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithKeepaliveParams(params),
					grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return e.ln.Dial(ctx) }))
				if err != nil {
					t.Fatal(err)
				}
				defer cc.Close()
				stream, err := echov1.NewEchoClient(cc).Bidi(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				say := func(what string) {
					t.Helper()
					if err := stream.Send(&echov1.BidiRequest{Message: what}); err != nil {
						t.Fatal(err)
					}
					if m, err := stream.Recv(); err != nil || m.GetMessage() != what {
						t.Fatalf("%v, %v", m, err)
					}
				}
				say("before")
				time.Sleep(40 * time.Minute)
				say("behind")
				if err := stream.CloseSend(); err != nil {
					t.Fatal(err)
				}
				if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
					t.Errorf("the end is %v", err)
				}
				if n := e.sw.Stats().Open; n != 1 {
					t.Errorf("%d connections of clients", n)
				}
				up, ok := e.rpc.(*h2.Upstream)
				if !ok {
					t.Fatalf("%T", e.rpc)
				}
				if st := up.Stats(); st.Conns != 1 || st.Failed != 0 {
					t.Errorf("upstream: %+v", st)
				}
			})
		})
	}
}
