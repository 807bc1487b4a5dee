package h2_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// HTTP requests upstream whose body stands still, or that are not answered,
// end; gRPC calls may rest, and so may answers.
func TestQuietStreams(t *testing.T) {
	inBubble(t, options{upstream: true}, func(t *testing.T, e *edge) {
		c := e.dial()
		grpcHead := request("POST", "/fake", "content-type", "application/grpc", "te", "trailers")
		c.send(c.post(1, "/fake"), c.post(3, "/fake"), c.get(5, "/fake"), c.get(7, "/fake"), c.head(9, false, grpcHead...), c.post(11, "/fake"))
		s := e.backend()
		s.send(s.head(7, false, ":status", "200"), s.head(11, false, ":status", "200"))
		keep := func(d time.Duration) { // the connection, and two of the bodies
			for range d / (10 * time.Second) {
				time.Sleep(10 * time.Second)
				c.send(data(3, strings.Repeat("x", 3000), false))
			}
		}
		keep(20 * time.Second)
		if a := c.answer(1); a.status != "" {
			t.Errorf("a body that has rested for 20 s: %v", a)
		}
		keep(20 * time.Second)
		if a := c.answer(1); a.status != "408" {
			t.Errorf("a body that has rested for 40 s: %v", a)
		}
		if a := c.answer(11); a.reset == "" {
			t.Errorf("the same with an answer that has begun: %v", a)
		}
		keep(30 * time.Second)
		if a := c.answer(5); a.status != "504" {
			t.Errorf("no answer for 70 s: %v", a)
		}
		keep(100 * time.Second)
		for id, status := range map[uint32]string{3: "", 7: "200", 9: ""} {
			if a := c.answer(id); a.status != status || a.ended || a.reset != "" {
				t.Errorf("stream %d: %v", id, a)
			}
		}
		if n := len(s.of(3, 1)) + len(s.of(3, 5)) + len(s.of(3, 11)); n != 3 { // RST_STREAM
			t.Errorf("%d of 3 streams were cancelled at the server", n)
		}
	})
}

// The same for functions: they learn of it.
func TestQuietFunctions(t *testing.T) {
	inBubble(t, options{inProcess: true}, func(t *testing.T, e *edge) {
		ended := make(chan string, 10)
		h := h2.NewHandler(func(x *h2.Exchange) {
			var head protocols.Head
			x.Head(&head)
			switch head.Path {
			case "/fake/reads":
				_, err := x.Read(make([]byte, 10))
				ended <- fmt.Sprint(head.Path, err)
			case "/fake/rests":
				_ = x.Respond(200, nil, -1)
				_ = x.Flush()
				<-x.Context().Done()
				ended <- head.Path
			}
		})
		e.fake = h
		c := e.dial()
		c.send(c.post(1, "/fake/reads"), c.get(3, "/fake/rests"), frame.AppendPing(nil, false, pingData))
		for range 12 {
			time.Sleep(10 * time.Second)
			c.send(frame.AppendPing(nil, false, pingData))
		}
		if a := c.answer(1); a.status != "408" || !a.ended {
			t.Errorf("a body that stands still: %v", a)
		}
		if s := <-ended; s != "/fake/readsh2: the stream has ended" {
			t.Errorf("the function got %s", s)
		}
		if a := c.answer(3); a.status != "200" || a.ended || a.reset != "" {
			t.Errorf("an answer that rests: %v", a)
		}
		c.send(rst(3, frame.Cancel))
		if s := <-ended; s != "/fake/rests" {
			t.Errorf("the function got %s", s)
		}
		e.sw.Close()
		h.Close()
	})
}

// What has been answered is not given up over and over.
func TestQuietBehindAnswers(t *testing.T) {
	inBubble(t, options{upstream: true}, func(t *testing.T, e *edge) {
		c := e.dial(frame.Setting{ID: frame.InitialWindowSize, Value: 0})
		c.send(c.post(1, "/fake/1"), c.post(3, "/fake/3"), c.post(5, "/fake/5"))
		s := e.backend()
		s.serve("/fake/1")
		s.serve("/fake/3")
		s.send(rst(3, frame.NoError), rst(5, frame.NoError))
		s.send(s.head(5, false, ":status", "200"))
		for range 8 {
			time.Sleep(10 * time.Second)
			c.wantOpen()
		}
		if n := len(s.of(frame.RSTStream, 1)); n != 1 {
			t.Errorf("%d resets of a stream that was answered", n)
		}
		if n := len(s.of(frame.RSTStream, 3)); n != 0 {
			t.Errorf("%d resets of a stream that the server has reset", n)
		}
		e.wantPool(1, 0, 0)
		c.send(window(1, 100), window(3, 100))
		c.wantBody(1, "200", "/fake/1")
		c.wantBody(3, "200", "/fake/3")
	})
}

// A body that comes, but too slowly, ends like one that stands still. Those of gRPC may
// take their time.
func TestTricklingBodies(t *testing.T) {
	inBubble(t, options{upstream: true, limits: h2.Limits{Window: 1000}}, func(t *testing.T, e *edge) {
		c := e.dial()
		c.send(c.post(1, "/fake/slow"), c.startFake(3, "/fake/grpc"), c.post(5, "/fake/fast"))
		s := e.backend()
		read := s.far("/fake/fast")
		slow, call := s.far("/fake/slow"), s.far("/fake/grpc")
		for range 10 {
			time.Sleep(10 * time.Second)
			c.send(data(3, "x", false))
			for range 3 {
				c.send(data(5, strings.Repeat("x", 900), false))
				s.send(window(read, 900), window(0, 900))
				s.seen()
				c.seen()
			}
			if c.answer(1).status == "" {
				c.send(data(1, "x", false))
			}
			s.send(window(slow, 1), window(call, 1), window(0, 2))
		}
		if a := c.answer(1); a.status != "408" {
			t.Errorf("a byte each ten seconds: %v", a)
		}
		for _, id := range []uint32{3, 5} {
			if a := c.answer(id); a.status != "" || a.reset != "" {
				t.Errorf("stream %d: %v", id, a)
			}
		}
	})
}
