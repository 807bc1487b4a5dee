package h2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// fuzzEcho answers with what it is sent.
type fuzzEcho struct {
	echov1.UnimplementedEchoServer
}

func (fuzzEcho) Unary(_ context.Context, r *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	return &echov1.UnaryResponse{Message: r.GetMessage()}, nil
}

func (fuzzEcho) Bidi(st echov1.Echo_BidiServer) error {
	for {
		r, err := st.Recv()
		if err != nil {
			return err
		}
		if err := st.Send(&echov1.BidiResponse{Message: r.GetMessage()}); err != nil {
			return err
		}
	}
}

// realSwitch is a switch with a grpc.Server and a net/http server behind it.
type realSwitch struct {
	sw    *h2.Switch
	http  *http.Server
	grpc  *grpc.Server
	ups   []*h2.Upstream // the servers, if they are reached by connections upstream
	calls sync.WaitGroup // those that have begun and not ended
	work  sync.WaitGroup
}

func newRealSwitch(l h2.Limits, upstream bool) *realSwitch {
	r := &realSwitch{grpc: grpc.NewServer()}
	var web, rpc h2.Backend
	var webLn, rpcLn net.Listener
	if upstream {
		one, two := oneporttest.NewListener(), oneporttest.NewListener()
		u := h2.UpstreamLimits{Conns: 2, Streams: 5, Waiting: 5}
		r.ups = []*h2.Upstream{
			h2.NewUpstream(h2.UpstreamConfig{Dial: one.Dial, Limits: u}), h2.NewUpstream(h2.UpstreamConfig{Dial: two.Dial, Limits: u}),
		}
		web, rpc, webLn, rpcLn = r.ups[0], r.ups[1], one, two
	} else {
		one, two := h2.NewServer(webAddr, h2.ServerOptions{}), h2.NewServer(webAddr, h2.ServerOptions{Calls: true, Pings: true})
		web, rpc, webLn, rpcLn = one, two, one, two
	}
	r.sw = h2.New(h2.Config{
		Limits: l,
		Route: func(req *h2.Request, _ *protocols.Conn) h2.Backend {
			switch {
			case protocols.IsGRPC(req.Method, req.Get("content-type")):
				return rpc
			case req.Path == "/none":
				return nil
			}
			return web
		},
		Begun: func(c *protocols.Call) {
			r.calls.Add(1)
			c.OnDone(func(protocols.Result) { r.calls.Done() })
		},
	})
	echov1.RegisterEchoServer(r.grpc, fuzzEcho{})
	r.http = &http.Server{
		Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			_, _ = io.Copy(w, q.Body) // the client may be gone
		}),
	}
	r.http.Protocols.SetUnencryptedHTTP2(true)
	r.work.Go(func() { _ = r.http.Serve(webLn) })
	r.work.Go(func() { _ = r.grpc.Serve(rpcLn) })
	return r
}

// connect returns a client's end of a connection to the switch.
func (r *realSwitch) connect() (net.Conn, error) {
	ln := oneporttest.NewListener()
	defer ln.Close()
	r.work.Go(func() {
		if nc, err := ln.Accept(); err == nil {
			r.sw.Serve(nc)
		}
	})
	return ln.Dial(context.Background())
}

func (r *realSwitch) close() {
	r.sw.Close()
	for _, u := range r.ups {
		u.Close()
	}
	_ = r.http.Close()
	r.grpc.Stop()
	r.work.Wait()
}

// said is what a client says in a conversation.
type said struct {
	b   []byte
	enc *hpack.Encoder
	buf bytes.Buffer
}

func say() *said {
	s := new(said)
	s.enc = hpack.NewEncoder(&s.buf)
	return s
}

func (s *said) fields(pairs ...string) []byte {
	s.buf.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = s.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return s.buf.Bytes()
}

func (s *said) head(stream uint32, end bool, pairs ...string) *said {
	s.b = frame.AppendBlock(s.b, stream, s.fields(pairs...), end)
	return s
}

func (s *said) get(stream uint32, path string) *said {
	return s.head(stream, true, ":method", "GET", ":scheme", "http", ":path", path, ":authority", "a.test")
}

func (s *said) post(stream uint32, more ...string) *said {
	return s.head(stream, false, slices.Concat([]string{":method", "POST", ":scheme", "http", ":path", "/echo", ":authority", "a.test"}, more)...)
}

func (s *said) call(stream uint32, method string) *said {
	return s.head(stream, false, ":method", "POST", ":scheme", "http", ":path", "/oneport.echo.v1.Echo/"+method,
		":authority", "a.test", "content-type", "application/grpc", "te", "trailers")
}

func (s *said) raw(typ frame.Type, flags frame.Flags, stream uint32, p []byte) *said {
	s.b = append(frame.Header{Length: len(p), Type: typ, Flags: flags, Stream: stream}.Append(s.b), p...)
	return s
}

func (s *said) data(stream uint32, p []byte, end bool) *said {
	s.b = frame.AppendData(s.b, stream, p, end)
	return s
}

func (s *said) message(stream uint32, text string, end bool) *said {
	return s.data(stream, grpcMessage(&echov1.UnaryRequest{Message: text}), end)
}

func (s *said) window(stream, n uint32) *said {
	s.b = frame.AppendWindowUpdate(s.b, stream, n)
	return s
}

func (s *said) reset(stream uint32, code frame.Code) *said {
	s.b = frame.AppendReset(s.b, stream, code)
	return s
}

func (s *said) settings(list ...frame.Setting) *said {
	s.b = frame.AppendSettings(s.b, list...)
	return s
}

// grpcMessage is a message as it is on the wire.
func grpcMessage(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

func conversations() map[string][]byte {
	ping := [8]byte{1, 2, 3}
	block := slices.Clone(say().fields(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a.test"))
	return map[string][]byte{
		"rest":    say().get(1, "/x?y=z").get(3, "/none").b,
		"post":    say().post(1, "content-length", "5").data(1, []byte("hello"), true).b,
		"length":  say().post(1, "content-length", "5").data(1, []byte("hell"), true).b,
		"unary":   say().call(1, "Unary").message(1, "hi", true).b,
		"bidi":    say().call(1, "Bidi").message(1, "a", false).message(1, "b", false).data(1, nil, true).b,
		"unknown": say().call(1, "Nothing").message(1, "hi", true).b,
		"trailers": say().post(1, "trailer", "x-end").data(1, []byte("body"), false).head(1, true, "x-end", "1").
			post(3).head(3, true, ":path", "/").b,
		"padding": say().post(1).raw(frame.Data, frame.Padded, 1, []byte("\x03abc\x00\x00\x00")).raw(frame.Data, frame.Padded|frame.EndStream, 1, []byte("\x00")).b,
		"continuation": say().raw(frame.Headers, frame.EndStream, 1, block[:2]).raw(frame.Continuation, 0, 1, block[2:5]).
			raw(frame.Continuation, frame.EndHeaders, 1, block[5:]).b,
		"interrupted": say().raw(frame.Headers, frame.EndStream, 1, block[:2]).raw(frame.Ping, 0, 0, ping[:]).b,
		"priority": say().raw(frame.Headers, frame.EndStream|frame.EndHeaders|frame.HasPriority, 1, append([]byte{0, 0, 0, 0, 16}, block...)).
			raw(frame.Priority, 0, 3, []byte{0, 0, 0, 1, 16}).b,
		"window": say().settings(frame.Setting{ID: frame.InitialWindowSize, Value: 0}).post(1).data(1, bytes.Repeat([]byte("x"), 3000), true).
			window(1, 1000).window(0, 1<<20).settings(frame.Setting{ID: frame.InitialWindowSize, Value: 1 << 16}).b,
		"overflow": say().get(1, "/").window(0, 1<<31-1).b,
		"reset":    say().call(1, "Bidi").message(1, "a", false).reset(1, frame.Cancel).message(1, "late", true).post(3).reset(3, frame.NoError).b,
		"ping": say().raw(frame.Ping, 0, 0, ping[:]).call(1, "Bidi").raw(frame.Ping, 0, 0, ping[:]).
			raw(frame.Ping, frame.Ack, 0, ping[:]).data(1, nil, true).b,
		"goaway":        say().get(1, "/").raw(frame.GoAway, 0, 0, make([]byte, 8)).get(3, "/").b,
		"unknown frame": say().raw(0xbe, 0xff, 7, []byte("?")).get(1, "/").b,
		"table": say().settings(frame.Setting{ID: frame.HeaderTableSize, Value: 0}).get(1, "/").
			settings(frame.Setting{ID: frame.HeaderTableSize, Value: 1 << 20}).get(3, "/").b,
		"stray":   say().get(1, "/").data(1, []byte("x"), true).data(5, nil, true).b,
		"cookie":  say().head(1, true, ":method", "GET", ":scheme", "http", ":path", "/", "cookie", "a=b", "cookie", "c=d").b,
		"nothing": {},
	}
}

// FuzzConversation: whatever a client says to real servers through the switch,
// in this process or upstream, nothing panics, nothing hangs, a bystander is
// served, and when the client has gone nothing of it is left.
func FuzzConversation(f *testing.F) {
	for _, b := range conversations() {
		f.Add(true, false, b)
		f.Add(true, true, b)
	}
	f.Add(false, false, append([]byte(frame.Preface), conversations()["rest"]...))
	f.Add(false, true, []byte("GET / HTTP/1.1\r\n\r\n"))
	l := h2.Limits{Streams: 8, Window: 4 << 10, ConnWindow: 64 << 10, HeaderBytes: 2 << 10, HeaderFields: 20, Nuisance: 50}
	f.Fuzz(func(t *testing.T, polite, upstream bool, b []byte) {
		if len(b) > 64<<10 {
			return
		}
		if polite {
			b = append(frame.AppendSettings([]byte(frame.Preface)), b...)
		}
		// In a bubble that something hangs in is an error, and so is one that a
		// goroutine does not leave.
		synctest.Test(t, func(t *testing.T) { converse(t, newRealSwitch(l, upstream), b) })
	})
}

func converse(t *testing.T, r *realSwitch, b []byte) {
	defer r.close()
	nc, err := r.connect()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, nc)
	}()
	_, _ = nc.Write(b) // the switch may end it
	synctest.Wait()

	other, err := r.connect()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = other.Write(say().get(1, "/").call(3, "Unary").message(3, "hi", true).whole())
	ends := make(chan int)
	go func() { ends <- countEnds(other) }()
	synctest.Wait()
	_ = other.(interface{ CloseWrite() error }).CloseWrite()
	if n := <-ends; n != 2 {
		t.Fatalf("a bystander gets %d of 2 answers", n)
	}
	_ = other.Close()

	begun := time.Now()
	_ = nc.Close()
	<-ended
	r.calls.Wait()
	for r.sw.Stats().Open > 0 && time.Since(begun) < time.Minute {
		time.Sleep(100 * time.Millisecond)
	}
	if d := time.Since(begun); d > 2*time.Second {
		t.Fatalf("the connection ends %v behind its client", d)
	}
}

// whole is a whole conversation, with the preface.
func (s *said) whole() []byte { return append(frame.AppendSettings([]byte(frame.Preface)), s.b...) }

// countEnds counts streams that have ended well.
func countEnds(r io.Reader) int {
	var n int
	var head [frame.HeaderLen]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return n
		}
		h := frame.Parse(head[:])
		if (h.Type == frame.Data || h.Type == frame.Headers) && h.Flags.Has(frame.EndStream) {
			n++
		}
		if _, err := io.CopyN(io.Discard, r, int64(h.Length)); err != nil {
			return n
		}
	}
}
