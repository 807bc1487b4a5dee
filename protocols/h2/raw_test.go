package h2_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// edge is a switch with real servers behind it, all of it in memory and in a
// synctest bubble: when wait returns, everything that can happen without time
// passing has happened.
type edge struct {
	t        *testing.T
	sw       *h2.Switch
	ln       *oneporttest.Listener
	web      h2.Backend // net/http
	rpc      h2.Backend // grpc-go
	fake     h2.Backend // whoever accepts from behind: see backend
	function h2.Backend // net/http's handler as a function of the switch's, for /function/...; nil unless servers are mixed
	behind   net.Listener
	upstream bool
	handler  bool
	http     *http.Server
	grpc     *grpc.Server

	echo     *echo
	running  atomic.Int64  // handlers of web that run
	most     atomic.Int64  // and the most there ever were
	canceled atomic.Int64  // handlers whose context has ended
	release  chan struct{} // lets go of handlers that heed nothing else
	calls    atomic.Int64  // OnDone functions that have run
	results  sync.Map      // request path: protocols.Result
}

// options are what tests want otherwise.
type options struct {
	inProcess bool // the test is about servers in this process alone
	upstream  bool // the servers are reached by connections upstream
	mixed     bool // grpc-go is in this process, the others upstream, and there is a function: what a connection mixes
	handler   bool // net/http's handler is a function of the switch's
	guards    []protocols.Guard
	upLimits  h2.UpstreamLimits
	upDial    dialer // to the fake server; nil dials e.behind
	limits    h2.Limits
	grpc      []grpc.ServerOption
	http      func(*http.Server)
}

// dialer is UpstreamConfig.Dial; next dials the fake server.
type dialer func(ctx context.Context, next func(context.Context) (net.Conn, error)) (net.Conn, error)

// inBubble runs a test with an edge: with servers in this process, once
// more with the same servers upstream, and with net/http's as a function.
func inBubble(t *testing.T, o options, test func(t *testing.T, e *edge)) {
	t.Helper()
	if o.mixed {
		synctest.Test(t, func(t *testing.T) { test(t, newEdge(t, o)) })
		return
	}
	if !o.upstream {
		t.Run("in process", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, newEdge(t, o)) })
		})
	}
	if o.inProcess {
		return
	}
	if !o.upstream {
		o.handler = true
		t.Run("handler", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, newEdge(t, o)) })
		})
		o.handler = false
	}
	o.upstream = true
	t.Run("upstream", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, newEdge(t, o)) })
	})
}

var webAddr = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}

func newEdge(t *testing.T, o options) *edge {
	e := &edge{t: t, upstream: o.upstream, handler: o.handler, ln: oneporttest.NewListener(), release: make(chan struct{})}
	web, rpc, fake := e.servers(o)
	e.behind = fake
	o.limits.Pace = cmp.Or(o.limits.Pace, -1) // what was sent is to be taken when all is quiet
	e.sw = h2.New(h2.Config{
		Route: e.route, Guards: o.guards, Limits: o.limits, Log: slog.New(slog.DiscardHandler),
		Begun: func(c *protocols.Call) {
			c.OnDone(func(r protocols.Result) {
				e.calls.Add(1)
				e.results.Store(c.Path, r)
			})
		},
	})

	e.http = &http.Server{
		Handler: e.mux(), Protocols: new(http.Protocols), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	e.http.Protocols.SetUnencryptedHTTP2(true)
	if o.http != nil {
		o.http(e.http)
	}
	e.echo = &echo{release: e.release}
	e.grpc = grpc.NewServer(append([]grpc.ServerOption{grpc.MaxConcurrentStreams(100)}, o.grpc...)...)
	echov1.RegisterEchoServer(e.grpc, e.echo)

	var work sync.WaitGroup
	work.Go(func() { _ = e.http.Serve(web) })
	work.Go(func() { _ = e.grpc.Serve(rpc) })
	work.Go(func() {
		for {
			nc, err := e.ln.Accept()
			if err != nil {
				return
			}
			e.sw.Serve(nc)
		}
	})
	t.Cleanup(func() {
		_ = e.ln.Close()
		close(e.release)
		e.sw.Close()
		_ = e.behind.Close()
		for _, to := range []h2.Backend{e.web, e.rpc, e.fake, e.function} {
			switch to := to.(type) {
			case *h2.Upstream:
				to.Close()
			case *h2.Handler:
				to.Close()
			}
		}
		_ = e.http.Close()
		e.grpc.Stop()
		work.Wait()
	})
	return e
}

// servers makes what the edge and its servers know each other by.
func (e *edge) servers(o options) (web, rpc, fake net.Listener) {
	inRPC := h2.NewServer(webAddr, h2.ServerOptions{Calls: true, Pings: true, Batches: o.mixed})
	if o.upstream || o.mixed {
		dial := func(dial func(context.Context) (net.Conn, error)) *h2.Upstream {
			return h2.NewUpstream(h2.UpstreamConfig{Name: "test", Dial: dial, Limits: o.upLimits})
		}
		lns := [3]*oneporttest.Listener{oneporttest.NewListener(), oneporttest.NewListener(), oneporttest.NewListener()}
		dialFake := lns[2].Dial
		if o.upDial != nil {
			dialFake = func(ctx context.Context) (net.Conn, error) { return o.upDial(ctx, lns[2].Dial) }
		}
		e.web, e.fake = dial(lns[0].Dial), dial(dialFake)
		if o.mixed {
			e.rpc, e.function = inRPC, handled(http.StripPrefix("/function", e.mux()))
			return lns[0], inRPC, lns[2]
		}
		e.rpc = dial(lns[1].Dial)
		return lns[0], lns[1], lns[2]
	}
	inWeb := h2.NewServer(webAddr, h2.ServerOptions{})
	inFake := h2.NewServer(webAddr, h2.ServerOptions{})
	e.web, e.rpc, e.fake = inWeb, inRPC, inFake
	if o.handler {
		e.web = handled(e.mux())
	}
	return inWeb, inRPC, inFake
}

func (e *edge) route(r *h2.Request, _ *protocols.Conn) h2.Backend {
	switch {
	case strings.HasPrefix(r.Path, "/none"):
		return nil
	case strings.HasPrefix(r.Path, "/fake"):
		return e.fake
	case e.function != nil && strings.HasPrefix(r.Path, "/function/"):
		return e.function
	case protocols.IsGRPC(r.Method, r.Get("content-type")):
		return e.rpc
	}
	return e.web
}

func (e *edge) mux() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		p := make([]byte, 16<<10)
		for {
			n, err := r.Body.Read(p)
			if n > 0 {
				_, _ = w.Write(p[:n])
				_ = rc.Flush()
			}
			if err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/len", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		for k, v := range r.Trailer {
			w.Header().Set("Got-"+k, strings.Join(v, ","))
		}
		fmt.Fprint(w, n, err)
	})
	mux.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "no")
	})
	mux.HandleFunc("/wait", func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		e.canceled.Add(1)
	})
	mux.HandleFunc("/deaf", func(http.ResponseWriter, *http.Request) { // to its context
		<-e.release
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, r *http.Request) {
		var n int
		_, _ = fmt.Sscan(r.URL.RawQuery, &n)
		p := bytes.Repeat([]byte("0123456789abcdef"), 1024)
		for n > 0 {
			k, err := w.Write(p[:min(n, len(p))])
			if n -= k; err != nil {
				e.canceled.Add(1)
				return
			}
		}
	})
	mux.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, "hello")
	})
	mux.HandleFunc("/long", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Long", strings.Repeat("!", len(r.URL.RawQuery)*1000)) // not shorter when encoded
		_, _ = io.WriteString(w, "hello")
	})
	mux.HandleFunc("/long-trailers", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
		w.Header().Set(http.TrailerPrefix+"Long", strings.Repeat("!", 5000))
	})
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
		w.Header().Set(http.TrailerPrefix+"Sum", "42")
	})
	mux.HandleFunc("/abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := e.running.Add(1)
		for {
			if m := e.most.Load(); n <= m || e.most.CompareAndSwap(m, n) {
				break
			}
		}
		defer e.running.Add(-1)
		mux.ServeHTTP(w, r)
	})
}

// echo is the gRPC service. A message says what to do.
type echo struct {
	echov1.UnimplementedEchoServer

	release  chan struct{}
	running  atomic.Int64
	canceled atomic.Int64
}

func (s *echo) Unary(ctx context.Context, r *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	s.running.Add(1)
	defer s.running.Add(-1)
	switch r.GetMessage() {
	case "wait":
		<-ctx.Done()
		s.canceled.Add(1)
		return nil, ctx.Err()
	case "deaf":
		<-s.release
	case "sleep":
		select {
		case <-time.After(3 * time.Second):
		case <-s.release:
		}
	case "fail":
		return nil, status.Error(codes.DataLoss, "lost")
	case "fail at length":
		return nil, status.Error(codes.DataLoss, strings.Repeat("!", 5000))
	}
	return &echov1.UnaryResponse{Message: r.GetMessage()}, nil
}

func (s *echo) Bidi(st echov1.Echo_BidiServer) error {
	for {
		r, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := st.Send(&echov1.BidiResponse{Message: r.GetMessage()}); err != nil {
			return err
		}
	}
}

func (s *echo) ServerStream(r *echov1.ServerStreamRequest, st echov1.Echo_ServerStreamServer) error {
	for i := range r.GetCount() {
		if err := st.Send(&echov1.ServerStreamResponse{Message: r.GetMessage(), Index: i}); err != nil {
			return err
		}
	}
	return nil
}

// grpcClient is a real client of the edge.
func (e *edge) grpcClient() echov1.EchoClient {
	e.t.Helper()
	cc, err := grpc.NewClient("passthrough:///edge", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return e.ln.Dial(ctx) }))
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = cc.Close() })
	return echov1.NewEchoClient(cc)
}

// dial opens a connection and says hello.
func (e *edge) dial(settings ...frame.Setting) *peer {
	e.t.Helper()
	c := e.dialSilent()
	c.send([]byte(frame.Preface), frame.AppendSettings(nil, settings...), frame.AppendSettingsAck(nil))
	go c.read()
	return c
}

// dialSilent opens a connection. Nothing is sent on it, and nothing read from it.
func (e *edge) dialSilent() *peer {
	e.t.Helper()
	nc, err := e.ln.Dial(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	return newPeer(e.t, nc)
}

// backend accepts the next connection to the fake server, and does what every
// server does first.
func (e *edge) backend(list ...frame.Setting) *peer {
	e.t.Helper()
	var nc net.Conn
	accepted := make(chan net.Conn, 1)
	go func() {
		if nc, err := e.behind.Accept(); err == nil {
			accepted <- nc
		}
	}()
	select {
	case nc = <-accepted:
	case <-time.After(time.Hour):
		e.t.Fatal("the server gets no connection")
	}
	s := newPeer(e.t, nc)
	if _, err := io.ReadFull(nc, make([]byte, len(frame.Preface))); err != nil {
		e.t.Fatal(err)
	}
	s.send(frame.AppendSettings(nil, list...), frame.AppendSettingsAck(nil))
	go s.read()
	synctest.Wait() // upstream, streams come when SETTINGS have
	return s
}

// alive checks that others are served, at once.
func (e *edge) alive() {
	e.t.Helper()
	c := e.dial()
	defer c.nc.Close()
	c.send(c.get(1, "/hello"), c.call(3, "Unary", &echov1.UnaryRequest{Message: "hi"}))
	before := time.Now()
	c.wantBody(1, "200", "hello")
	if a := c.answer(3); a.trailer("grpc-status") != "0" {
		e.t.Errorf("a bystander's call was answered %v", a)
	}
	if d := time.Since(before); d > 0 {
		e.t.Errorf("a bystander was answered after %v", d)
	}
}

// peer speaks frames: a client of the edge, or a server behind it.
type peer struct {
	t   *testing.T
	nc  net.Conn
	enc *hpack.Encoder
	buf bytes.Buffer // of enc

	mu    sync.Mutex // guards all below
	got   []got
	end   error // reading has ended
	block []byte
}

// got is a frame that was received; HEADERS with its CONTINUATIONs.
type got struct {
	frame.Header
	payload []byte
	fields  []hpack.HeaderField
}

func newPeer(t *testing.T, nc net.Conn) *peer {
	p := &peer{t: t, nc: nc}
	p.enc = hpack.NewEncoder(&p.buf)
	t.Cleanup(func() { _ = nc.Close() })
	return p
}

// read takes note of all frames that come.
func (p *peer) read() {
	dec := hpack.NewDecoder(4096, nil)
	err := p.frames(dec)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = err
}

func (p *peer) frames(dec *hpack.Decoder) error {
	var head [frame.HeaderLen]byte
	for {
		if _, err := io.ReadFull(p.nc, head[:]); err != nil {
			return err
		}
		g := got{Header: frame.Parse(head[:])}
		g.payload = make([]byte, g.Length)
		if _, err := io.ReadFull(p.nc, g.payload); err != nil {
			return err
		}
		p.mu.Lock()
		switch g.Type {
		case frame.Headers, frame.Continuation:
			p.block = append(p.block, g.payload...)
			if g.Type == frame.Headers {
				p.got = append(p.got, g)
			}
			if g.Flags.Has(frame.EndHeaders) {
				fields, err := dec.DecodeFull(p.block)
				if err != nil {
					p.mu.Unlock()
					return err
				}
				p.got[len(p.got)-1].fields, p.block = fields, nil
			}
		default:
			p.got = append(p.got, g)
		}
		p.mu.Unlock()
	}
}

// try sends, and gives up when the connection does not take any more.
func (p *peer) try(frames ...[]byte) error {
	_, err := p.nc.Write(bytes.Join(frames, nil))
	return err
}

func (p *peer) send(frames ...[]byte) {
	p.t.Helper()
	if err := p.try(frames...); err != nil {
		p.t.Fatalf("send: %v", err)
	}
}

// seen gives all frames so far, once nothing moves any more.
func (p *peer) seen() []got {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clip(p.got)
}

// ended gives the reason why nothing more will come; nil if something may.
func (p *peer) ended() error {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end
}

// latest is the last stream that the peer has got HEADERS of.
func (p *peer) latest() (id uint32) {
	for _, g := range p.seen() {
		if g.Type == frame.Headers {
			id = max(id, g.Stream)
		}
	}
	return id
}

// of gives all frames so far of a type, on a stream.
func (p *peer) of(typ frame.Type, stream uint32) []got {
	var list []got
	for _, g := range p.seen() {
		if g.Type == typ && g.Stream == stream {
			list = append(list, g)
		}
	}
	return list
}

// raw is a frame of any kind.
func raw(typ frame.Type, flags frame.Flags, stream uint32, payload []byte) []byte {
	h := frame.Header{Length: len(payload), Type: typ, Flags: flags, Stream: stream}
	return append(h.Append(nil), payload...)
}

func data(stream uint32, p string, end bool) []byte {
	return frame.AppendData(nil, stream, []byte(p), end)
}

func rst(stream uint32, code frame.Code) []byte { return frame.AppendReset(nil, stream, code) }

func window(stream, n uint32) []byte { return frame.AppendWindowUpdate(nil, stream, n) }

func settings(id uint16, v uint32) []byte {
	return frame.AppendSettings(nil, frame.Setting{ID: id, Value: v})
}

// encode gives a header block of names and values in turn.
func (p *peer) encode(pairs ...string) []byte {
	p.buf.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}) // Write never fails
	}
	return bytes.Clone(p.buf.Bytes())
}

// head is a HEADERS frame.
func (p *peer) head(stream uint32, end bool, pairs ...string) []byte {
	return frame.AppendBlock(nil, stream, p.encode(pairs...), end)
}

func (p *peer) get(stream uint32, path string, more ...string) []byte {
	return p.head(stream, true, request("GET", path, more...)...)
}

func (p *peer) post(stream uint32, path string, more ...string) []byte {
	return p.head(stream, false, request("POST", path, more...)...)
}

func request(method, path string, more ...string) []string {
	return append([]string{":method", method, ":scheme", "https", ":authority", "edge.test", ":path", path}, more...)
}

// start is the head of a gRPC call.
func (p *peer) start(stream uint32, method string) []byte {
	return p.post(stream, "/oneport.echo.v1.Echo/"+method, "content-type", "application/grpc", "te", "trailers")
}

// call is a whole call.
func (p *peer) call(stream uint32, method string, m proto.Message) []byte {
	p.t.Helper()
	return append(p.start(stream, method), data(stream, p.message(m), true)...)
}

// message puts a message behind gRPC's prefix.
func (p *peer) message(m proto.Message) string {
	p.t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...))
}

// answer is all that came on a stream.
type answer struct {
	status   string
	infos    []string // statuses before it
	fields   []hpack.HeaderField
	body     string
	trailers []hpack.HeaderField
	ended    bool
	reset    string // the code's name
}

func (a *answer) String() string {
	return fmt.Sprintf("{%v %s %d bytes, trailers %v, ended %v, reset %q}", a.infos, a.status, len(a.body), a.trailers, a.ended, a.reset)
}

func field(fields []hpack.HeaderField, name string) string {
	for _, f := range fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// trailer looks a trailer up, in an answer without a body in its head.
func (a *answer) trailer(name string) string {
	if a.trailers == nil && a.ended {
		return field(a.fields, name)
	}
	return field(a.trailers, name)
}

// answer gives what has come on a stream so far.
func (p *peer) answer(stream uint32) *answer {
	p.t.Helper()
	a := new(answer)
	for _, g := range p.seen() {
		if g.Stream != stream {
			continue
		}
		switch g.Type {
		case frame.Headers, frame.Data:
			if a.ended || a.reset != "" && a.reset != "NO_ERROR" {
				p.t.Errorf("stream %d: a frame of type %d behind its end", stream, g.Type)
			}
			a.ended = g.Flags.Has(frame.EndStream)
			if g.Type == frame.Data {
				a.body += string(g.payload)
				continue
			}
			switch status := field(g.fields, ":status"); {
			case status == "":
				a.trailers = g.fields
			case status[0] == '1':
				a.infos = append(a.infos, status)
			default:
				a.status, a.fields = status, g.fields
			}
		case frame.RSTStream:
			a.reset = frame.Code(binary.BigEndian.Uint32(g.payload)).String()
		default:
		}
	}
	return a
}

// wantBody checks a whole answer.
func (p *peer) wantBody(stream uint32, status, body string) {
	p.t.Helper()
	if a := p.answer(stream); a.status != status || a.body != body || !a.ended {
		p.t.Errorf("stream %d: %v; want %s with %q", stream, a, status, body)
	}
}

// wantReset checks that the stream was reset, and that the connection lives.
func (p *peer) wantReset(stream uint32, code frame.Code) {
	p.t.Helper()
	if a := p.answer(stream); a.reset != code.String() {
		p.t.Errorf("stream %d: %v; want a reset with %v", stream, a, code)
	}
	p.wantOpen()
}

// pingData is not that of any other PING.
var pingData = [8]byte{'p', 'e', 'e', 'r'}

// wantOpen checks that the connection lives: it answers a PING.
func (p *peer) wantOpen() {
	p.t.Helper()
	acks := func() int {
		n := 0
		for _, g := range p.of(frame.Ping, 0) {
			if g.Flags.Has(frame.Ack) && [8]byte(g.payload) == pingData {
				n++
			}
		}
		return n
	}
	before := acks()
	if err := p.try(frame.AppendPing(nil, false, pingData)); err != nil {
		p.t.Errorf("the connection is closed: %v, %s", err, p.goAways())
		return
	}
	if acks() != before+1 {
		p.t.Errorf("a PING is not answered: %v, %s", p.ended(), p.goAways())
	}
}

// goAways writes down all GOAWAY frames so far: "NO_ERROR 2147483647, ...".
func (p *peer) goAways() string {
	var list []string
	for _, g := range p.of(frame.GoAway, 0) {
		last, code := binary.BigEndian.Uint32(g.payload), frame.Code(binary.BigEndian.Uint32(g.payload[4:]))
		list = append(list, fmt.Sprint(code, " ", last))
	}
	return strings.Join(list, ", ")
}

// wantGoAway checks that the connection has ended, and why.
func (p *peer) wantGoAway(code frame.Code) {
	p.t.Helper()
	all := p.goAways()
	if words := strings.Fields(all); len(words) < 2 || words[len(words)-2] != code.String() {
		p.t.Errorf("GOAWAY: %q; want %v", all, code)
	}
	if err := p.ended(); !errors.Is(err, io.EOF) {
		p.t.Errorf("the connection ended with %v; want EOF", err)
	}
}
