package router_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
)

// ledger notes how calls end, as an Observer.
type ledger struct {
	begun chan *protocols.Call
	ended chan ending
}

// ending is how one has.
type ending struct {
	call *protocols.Call
	res  protocols.Result
}

func newLedger() *ledger {
	return &ledger{begun: make(chan *protocols.Call, 16), ended: make(chan ending, 16)}
}

func (l *ledger) Begin(call *protocols.Call)                     { l.begun <- call }
func (l *ledger) End(call *protocols.Call, res protocols.Result) { l.ended <- ending{call, res} }

// String is what is said of it.
func (e ending) String() string {
	s := fmt.Sprint(e.res.Status)
	if why := e.call.Refusal(); why != nil {
		s += " " + why.Reason.String()
	}
	if e.res.Err != nil {
		s += " " + e.res.Err.Error()
	}
	return s
}

// mayStand is a guard that waits for paths that say so, and a handler for all kinds of ends.
type mayStand struct {
	decides chan *protocols.Call // a call whose guard waits
	decide  chan error
	served  chan *protocols.Call // a call whose handler waits
}

func newMayStand() *mayStand {
	return &mayStand{make(chan *protocols.Call, 1), make(chan error, 1), make(chan *protocols.Call, 1)}
}

func (m *mayStand) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	switch call.Path {
	case "/guard/refuses":
		return ctx, &protocols.Refusal{Reason: protocols.ReasonForbidden}
	case "/guard/panics":
		panic("of a guard")
	case "/guard/waits":
		m.decides <- call
		return ctx, <-m.decide
	case "/guard/left":
		m.decides <- call
		<-ctx.Done()
	}
	return ctx, nil
}

func (m *mayStand) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/panics":
		panic("of a handler")
	case "/aborts":
		panic(http.ErrAbortHandler)
	case "/aborts/late":
		_, _ = io.WriteString(w, "begun")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case "/waits":
		m.served <- protocols.CallFrom(r.Context())
		<-r.Context().Done()
	case "/waits/late", "/waits/length":
		text := "begun"
		if r.URL.Path == "/waits/length" {
			w.Header().Set("Content-Length", "100000")
			text += strings.Repeat(" ", 16<<10) // more than the proxy to HTTP/2 keeps until it is full
		}
		_, _ = io.WriteString(w, text)
		_ = http.NewResponseController(w).Flush()
		m.served <- protocols.CallFrom(r.Context())
		<-r.Context().Done()
	default:
		_, _ = io.WriteString(w, "fine")
	}
}

// Each end of a call is told once, to all who count calls, and says how it was.
func TestEnds(t *testing.T) {
	t.Parallel()
	killed := &protocols.Refusal{Reason: protocols.ReasonForbidden, Text: "ended by the operator"}
	kill := func(_ *mayStand, call *protocols.Call) { call.End(killed) }
	decides := func(err error) func(*mayStand, *protocols.Call) {
		return func(m *mayStand, call *protocols.Call) { call.End(killed); m.decide <- err }
	}
	const (
		aborted, left, cut    = "net/http: abort Handler", "the client has left", "ended from outside"
		resetBy, resetByPeer  = "reset: INTERNAL_ERROR", "reset by the client: CANCEL"
		goneLate, unreachable = "200 begun, cut off", "502 the server cannot be reached"
	)
	for name, tc := range map[string]struct {
		path string
		do   func(m *mayStand, call *protocols.Call) // once it waits; nil for what ends by itself
		late bool                                    // not before the client has a part of the answer
		left bool                                    // its client leaves then
		// What is said of it, and what its client sees, by server and version, or the one, or the other, or all.
		want, sees wants
	}{
		"returns":                {path: "/", want: all("200"), sees: all("200 fine")},
		"panics":                 {path: "/panics", want: wants{"own": "500 panic: of a handler", "": "502", "h2c/2": "502 " + resetBy}, sees: wants{"own": "500 Internal Server Error", "": unreachable, "h2c/2": "no answer"}},
		"aborts":                 {path: "/aborts", want: wants{"own": "500 " + aborted, "": "502", "h2c/2": "502 " + resetBy}, sees: wants{"own": "no answer", "": unreachable, "h2c/2": "no answer"}},
		"aborts late":            {path: "/aborts/late", want: wants{"": "200 " + aborted, "http/2": "200 " + resetBy, "h2c/2": "200 " + resetBy}, sees: all(goneLate)},
		"refused":                {path: "/guard/refuses", want: all("403 forbidden"), sees: all("403 not allowed")},
		"guard panics":           {path: "/guard/panics", want: wants{"": "500 panic: of a guard", "http/2": "500", "h2c/2": "500"}, sees: wants{"": "500 Internal Server Error", "http/2": "500 internal error", "h2c/2": "500 internal error"}},
		"killed, then let in":    {path: "/guard/waits", do: decides(nil), want: all("403 forbidden"), sees: all("403 " + killed.Text)},
		"killed, then refused":   {path: "/guard/waits", do: decides(&protocols.Refusal{Reason: protocols.ReasonOverloaded}), want: all("503 overloaded"), sees: all("503 overloaded")},
		"killed":                 {path: "/waits", do: kill, want: wants{"": "403 forbidden " + cut, "http/2": "403 forbidden", "h2c/2": "403 forbidden"}, sees: wants{"": "no answer", "http/2": "403 " + killed.Text, "h2c/2": "403 " + killed.Text}},
		"killed late":            {path: "/waits/late", do: kill, late: true, want: wants{"": "200 forbidden " + cut, "http/2": "200 forbidden " + resetBy, "h2c/2": "200 forbidden " + resetBy}, sees: all(goneLate)},
		"killed within a length": {path: "/waits/length", do: kill, late: true, want: wants{"": "200 forbidden " + cut, "http/2": "200 forbidden " + resetBy, "h2c/2": "200 forbidden " + resetBy}, sees: all(goneLate)},
		"left":                   {path: "/waits", left: true, want: wants{"": "499 " + left, "http/2": "499 " + resetByPeer, "h2c/2": "499 " + resetByPeer}, sees: all("no answer")},
		"left late":              {path: "/waits/late", late: true, left: true, want: wants{"1.1": "200 " + aborted, "own/1.1": "200", "own/2": "200 " + left, "2": "200 " + resetByPeer}, sees: all(goneLate)},
		"left its guard":         {path: "/guard/left", left: true, want: wants{"1.1": "499 " + left, "own/1.1": "200", "own/2": "200 " + left, "2": "499 " + resetByPeer}, sees: all("no answer")},
	} {
		for _, server := range []string{"own", "http", "h2c"} {
			for _, version := range []string{"1.1", "2"} {
				t.Run(name+"/"+server+"/"+version, func(t *testing.T) {
					t.Parallel()
					m := newMayStand()
					srv, l, lines := counted(m)
					if srv.HTTP = m; server != "own" {
						srv.Routes = []router.Route{{Path: "/", To: reach(t, server+"://"+serveHandler(t, m), nil)}}
					}
					port := oneporttest.Listen(t, srv)
					c := port.HTTP1()
					if version == "2" {
						c = port.HTTP2()
					}
					ctx, leave := context.WithCancel(t.Context())
					defer leave()
					saw, begun := make(chan string, 1), make(chan struct{}, 1)
					go func() { saw <- sees(ctx, c, http.MethodGet, port.URL(tc.path), begun) }()
					call := <-l.begun
					if tc.do != nil || tc.left {
						select {
						case <-m.decides:
						case <-m.served:
						}
						if tc.late {
							<-begun
						}
						if tc.do != nil {
							tc.do(m, call)
						} else {
							leave()
						}
					}
					e := <-l.ended
					if got, want := e.String(), pick(tc.want, server, version); e.call != call || got != want {
						t.Errorf("it is said to have ended with %q, want %q", got, want)
					}
					if got, want := <-saw, pick(tc.sees, server, version); got != want {
						t.Errorf("the client sees %q, want %q", got, want)
					}
					wantCounted(t, srv, l, lines, call)
				})
			}
		}
	}
}

// wants is what is wanted of servers and versions.
type wants = map[string]string

func all(want string) wants { return wants{"": want} }

func pick(w wants, server, version string) string {
	for _, key := range []string{server + "/" + version, server, version} {
		if want, ok := w[key]; ok {
			return want
		}
	}
	return w[""]
}

// counted is a Server whose calls all count that can.
func counted(guard protocols.Guard) (*router.Server, *ledger, lineWriter) {
	l, lines := newLedger(), make(lineWriter, 16)
	srv := newServer()
	srv.Meter, srv.Observers, srv.Calls = new(protocols.Meter), []protocols.Observer{l}, protocols.NewCalls()
	srv.Access = slog.New(slog.NewJSONHandler(lines, nil))
	srv.Guards = []protocols.Guard{srv.Calls, guard}
	return srv, l, lines
}

// wantCounted checks that there was one call, which has ended once.
func wantCounted(t *testing.T, srv *router.Server, l *ledger, lines lineWriter, call *protocols.Call) {
	t.Helper()
	line, why := string(<-lines), ""
	if r := call.Refusal(); r != nil {
		why = r.Reason.String()
	}
	if !strings.Contains(line, `"request":"`+call.RequestID()) || strings.Contains(line, `"refused":"`+why+`"`) != (why != "") {
		t.Errorf("refused for %q, and the line is %s", why, line)
	}
	var counted uint64
	waitFor(t, func() bool { // it is counted last
		counted = 0
		for _, st := range srv.Meter.Stats() {
			counted += st.Calls
		}
		return counted > 0
	})
	flight := int64(0)
	for p := protocols.HTTP; p <= protocols.WebSocket; p++ {
		flight += srv.Meter.InFlight(p)
	}
	if counted != 1 || flight != 0 || srv.Calls.Len() != 0 || len(l.ended) > 0 || len(lines) > 0 {
		t.Errorf("%d calls counted, %d in flight, %d open, %d more ends, %d more lines", counted, flight, srv.Calls.Len(), len(l.ended), len(lines))
	}
}

// serveHandler is a server of HTTP/1.1 and h2c elsewhere.
func serveHandler(t *testing.T, h http.Handler) string {
	t.Helper()
	ln := localhost(t)
	protos := new(http.Protocols)
	protos.SetHTTP1(true)
	protos.SetUnencryptedHTTP2(true)
	srv := &http.Server{Protocols: protos, Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return ln.Addr().String()
}

// sees is what a client gets.
func sees(ctx context.Context, c *http.Client, method, url string, begun chan<- struct{}) string {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return err.Error()
	}
	res, err := c.Do(req)
	if err != nil {
		return "no answer"
	}
	defer res.Body.Close()
	var b []byte
	for err == nil {
		p := make([]byte, 512)
		var n int
		n, err = res.Body.Read(p)
		b = append(b, p[:n]...)
		select {
		case begun <- struct{}{}:
		default:
		}
	}
	s := strings.TrimSpace(fmt.Sprint(res.StatusCode, " ", string(b)))
	if !errors.Is(err, io.EOF) {
		s += ", cut off"
	}
	return s
}

// slowAnswer begins an answer as its path says, and ends it when its context does.
func slowAnswer(w http.ResponseWriter, r *http.Request) {
	path, length := r.URL.Path, ""
	switch path {
	case "/length":
		length = "5"
	case "/length/late", "/length/cut":
		length = "15"
	}
	if length != "" {
		w.Header().Set("Content-Length", length)
	}
	switch path {
	case "/answers", "/nothing":
	case "/no-content":
		w.WriteHeader(http.StatusNoContent)
	case "/head":
		w.WriteHeader(http.StatusOK)
	default:
		_, _ = io.WriteString(w, "begun")
	}
	if path == "/flushed" || length != "" {
		_ = http.NewResponseController(w).Flush()
	}
	<-r.Context().Done()
	switch path {
	case "/answers":
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "of the handler")
		_ = http.NewResponseController(w).Flush()
	case "/length/late":
		_, _ = io.WriteString(w, " and ended")
	}
}

// An answer of unknown length that had begun when a drain's patience ended is not whole, even if its
// handler returns; one that begins only then is. Streams of HTTP/2 the switch ends by itself.
func TestDrainCutsAnswersOff(t *testing.T) {
	const going, cut = "503 the server is going away", "200 begun, cut off"
	for path, want := range map[string][2]string{ // of net/http, and of the switch
		"/flushed":     {cut, cut},
		"/kept":        {"no answer", going},
		"/answers":     {"503 of the handler", going},
		"/nothing":     {going, going},
		"/length":      {"200 begun", cut},
		"/length/late": {"200 begun and ended", cut},
		"/length/cut":  {cut, cut},
		"/no-content":  {"204", going},
		"/head":        {"200", "503"},
	} {
		for i, by := range []string{"HTTP/1.1", "SharedH2", "switch"} {
			want := want[i/2]
			t.Run(path[1:]+"/"+by, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLedger()
					srv := newServer()
					srv.Observers, srv.Drain.Timeout = []protocols.Observer{l}, 3*time.Second
					srv.HTTP = http.HandlerFunc(slowAnswer)
					ln := oneporttest.NewListener()
					srv.Listeners = []router.Listener{{Listener: ln, SharedH2: by == "SharedH2", Plaintext: true}}
					ctx, drain := context.WithCancel(t.Context())
					served := make(chan error, 1)
					go func() { served <- srv.ListenAndServe(ctx) }()
					tr := &http.Transport{
						DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return ln.Dial(ctx) },
						Protocols:   new(http.Protocols),
					}
					defer tr.CloseIdleConnections()
					tr.Protocols.SetHTTP1(by == "HTTP/1.1")
					tr.Protocols.SetUnencryptedHTTP2(by != "HTTP/1.1")
					saw := make(chan string, 1)
					go func() {
						method := http.MethodGet
						if path == "/head" {
							method = http.MethodHead
						}
						saw <- sees(context.Background(), &http.Client{Transport: tr}, method, "http://oneport.test"+path, nil)
					}()
					synctest.Wait()
					drain()
					if err := <-served; !errors.Is(err, router.ErrDrainTimeout) {
						t.Errorf("Serve: %v", err)
					}
					if got := <-saw; got != want {
						t.Errorf("the client sees %q, want %q", got, want)
					}
					e, begun := <-l.ended, want == cut || want == "no answer"
					if by != "switch" && (begun != (e.res.Err != nil) || !begun && fmt.Sprint(e.res.Status) != want[:3]) ||
						path == "/flushed" && e.res.Err == nil {
						t.Errorf("it is said to have ended with %v", e)
					}
				})
			})
		}
	}
}

// session is one that lasts, as its client has it.
type session struct {
	say   func(string)
	leave func()
}

// endsAsTold is a WebSocket that does what a message says, or sends it back.
func endsAsTold(_ context.Context, c *ws.Conn) error {
	for {
		typ, msg, err := c.Read()
		switch {
		case err != nil:
			return err
		case string(msg) == "leave":
			return nil
		case string(msg) == "panic":
			panic("of a session")
		}
		if err := c.Write(typ, msg); err != nil {
			return err
		}
	}
}

// begin opens one.
func begin(t *testing.T, srv *router.Server, kind string) (*oneporttest.Port, session) {
	t.Helper()
	if kind == "grpc" {
		port := oneporttest.Listen(t, srv)
		ctx, leave := context.WithCancel(t.Context())
		stream, err := echov1.NewEchoClient(port.GRPC()).Bidi(ctx)
		if err != nil {
			t.Fatal(err)
		}
		s := session{func(text string) {
			if text == "leave" {
				_ = stream.CloseSend()
				return
			}
			_ = stream.Send(&echov1.BidiRequest{Message: text})
		}, leave}
		s.say("hello")
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = stream.Recv() }()
		return port, s
	}
	switch kind {
	case "own":
		srv.Routes = []router.Route{{WebSocket: "/", Session: endsAsTold}}
	case "raw":
		srv.Routes = []router.Route{{WebSocket: "/", To: reach(t, echoServer(t), nil), Tunnel: ws.Relay{Mode: ws.Raw}}}
	case "aware":
		srv.Routes = []router.Route{{WebSocket: "/", To: reach(t, echoServer(t), nil)}}
	}
	port := oneporttest.Listen(t, srv)
	c, _ := socketTo(t, port, false)
	s := session{func(text string) { _ = c.WriteMessage(websocket.TextMessage, []byte(text)) }, func() { _ = c.Close() }}
	s.say("hello")
	if _, _, err := c.ReadMessage(); err != nil {
		t.Fatal(err)
	}
	go func() { _, _, _ = c.ReadMessage() }() // answers a close
	return port, s
}

// Sessions and streams end once too, whatever ends them.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	killed := &protocols.Refusal{Reason: protocols.ReasonForbidden, Text: "ended by the operator"}
	for name, tc := range map[string]struct {
		do   func(p *oneporttest.Port, s session, call *protocols.Call)
		want wants
	}{
		"returns": {func(_ *oneporttest.Port, s session, _ *protocols.Call) { s.say("leave") }, wants{"own": "1000", "raw": "1006", "aware": "1011", "grpc": "0"}},
		"panics":  {func(_ *oneporttest.Port, s session, _ *protocols.Call) { s.say("panic") }, wants{"own": "1011", "grpc": "13"}},
		"left":    {func(_ *oneporttest.Port, s session, _ *protocols.Call) { s.leave() }, wants{"": "1006", "grpc": "1"}},
		"killed":  {func(_ *oneporttest.Port, _ session, call *protocols.Call) { call.End(killed) }, wants{"": "1008 forbidden", "grpc": "7 forbidden"}},
		"both": {func(_ *oneporttest.Port, s session, call *protocols.Call) {
			go s.leave()
			call.End(killed)
		}, nil},
		"connection": {func(p *oneporttest.Port, _ session, call *protocols.Call) { p.Server.CloseConn(call.Conn.ID) }, wants{"": "1006", "grpc": "1"}},
		"drained":    {func(p *oneporttest.Port, _ session, _ *protocols.Call) { _ = p.Stop() }, wants{"": "1001", "grpc": "14"}},
		"closed": {func(p *oneporttest.Port, _ session, _ *protocols.Call) {
			p.Server.Close()
			_ = p.Stop()
		}, wants{"": "1001", "grpc": "14"}},
	} {
		for _, kind := range []string{"own", "raw", "aware", "grpc"} {
			if name == "panics" && (kind == "raw" || kind == "aware") {
				continue // nobody here does
			}
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				srv, l, lines := counted(newMayStand())
				srv.Drain.Timeout = 100 * time.Millisecond
				port, s := begin(t, srv, kind)
				call := <-l.begun
				tc.do(port, s, call)
				e := <-l.ended
				e.res.Err = nil // whatever the system says
				if got, want := e.String(), pick(tc.want, kind, ""); tc.want != nil && got != want {
					t.Errorf("it is said to have ended with %q, want %q", got, want)
				}
				wantCounted(t, srv, l, lines, call)
			})
		}
	}
}

// A handshake that waits for its server when the drain's patience ends is answered as other requests are.
func TestDrainAnswersHandshakes(t *testing.T) {
	t.Parallel()
	silent := localhost(t)
	defer silent.Close()
	l := newLedger()
	srv := newServer()
	srv.Observers, srv.Drain.Timeout = []protocols.Observer{l}, 100*time.Millisecond
	srv.Routes = []router.Route{{WebSocket: "/", To: reach(t, "http://"+silent.Addr().String(), nil)}}
	port := oneporttest.Listen(t, srv)
	client := port.DialTLS("http/1.1")
	defer client.Close()
	_, _ = io.WriteString(client, "GET / HTTP/1.1\r\nHost: oneport.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	nc, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = port.Stop()
	if got, err := io.ReadAll(client); !strings.HasPrefix(string(got), "HTTP/1.1 503 ") {
		t.Errorf("the client sees %q, %v", got, err)
	}
	if e := <-l.ended; e.res.Status != http.StatusServiceUnavailable {
		t.Errorf("it is said to have ended with %v", e)
	}
}

// A call may be ended at any moment of its life.
func TestEndsAtOnce(t *testing.T) {
	t.Parallel()
	srv, l, lines := counted(protocols.GuardFunc(func(ctx context.Context, _ *protocols.Call) (context.Context, error) { return ctx, nil }))
	srv.HTTP = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") })
	srv.Routes = []router.Route{{Path: "/up/", To: reach(t, "http://"+fieldsServer(t), nil)}}
	port := oneporttest.Listen(t, srv)
	const each = 100
	var asking, ending sync.WaitGroup
	for _, c := range []*http.Client{port.HTTP1(), port.HTTP2()} {
		for _, path := range []string{"/", "/up/"} {
			asking.Go(func() {
				for range each {
					_ = sees(context.Background(), c, http.MethodGet, port.URL(path), nil)
				}
			})
		}
	}
	stop := make(chan struct{})
	ending.Go(func() {
		for n := 0; ; n++ {
			select {
			case call := <-l.begun:
				ending.Go(func() {
					for range n % 64 * 4 { // sooner or later
						runtime.Gosched()
					}
					call.End(&protocols.Refusal{Reason: protocols.ReasonForbidden})
				})
			case <-l.ended:
			case <-lines:
			case <-stop:
				return
			}
		}
	})
	asking.Wait()
	waitFor(t, func() bool { return srv.Meter.InFlight(protocols.HTTP) == 0 && srv.Calls.Len() == 0 })
	close(stop)
	ending.Wait()
	var calls, ended uint64
	for _, st := range srv.Meter.Stats() {
		calls += st.Calls
		ended += st.Codes["403"]
	}
	t.Logf("%d calls, %d of them ended before an answer", calls, ended)
	if calls < 4*each { // clients may ask again
		t.Errorf("%d calls, want %d", calls, 4*each)
	}
}
