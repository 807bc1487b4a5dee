package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// asked is a request of a test, and the answer that it gets.
type asked struct {
	head     protocols.Head
	body     io.Reader
	trailers []protocols.Field // of the request

	mu      sync.Mutex
	informs []int
	status  int
	fields  []protocols.Field
	length  int64
	got     strings.Builder
	flushed int // bytes that were flushed
	trail   []protocols.Field
	whole   bool
	aborted bool
	stopped chan struct{}
	back    []byte
	fail    error // of Write
}

func ask(method, path string, fields ...protocols.Field) *asked {
	return &asked{
		head:    protocols.Head{Method: method, Authority: "app.test", Path: path, Fields: fields},
		body:    strings.NewReader(""),
		stopped: make(chan struct{}),
	}
}

func (x *asked) with(body string, length int64) *asked {
	x.body, x.head.Length = strings.NewReader(body), length
	return x
}

func (x *asked) Head(h *protocols.Head) {
	list := h.Fields[:0]
	list = append(list, x.head.Fields...)
	*h = x.head
	h.Fields = list
}

func (x *asked) Read(p []byte) (int, error) {
	if len(x.back) > 0 {
		n := copy(p, x.back)
		x.back = x.back[n:]
		return n, nil
	}
	return x.body.Read(p)
}

func (x *asked) Unread(p []byte) { x.back = append([]byte(nil), p...) }

func (x *asked) Trailers(list []protocols.Field) []protocols.Field {
	return append(list, x.trailers...)
}

func (x *asked) StopReading() {
	close(x.stopped)
	if c, ok := x.body.(io.Closer); ok {
		_ = c.Close()
	}
}

func (x *asked) Inform(status int, _ []protocols.Field) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.informs = append(x.informs, status)
	return nil
}

func (x *asked) Respond(status int, fields []protocols.Field, length int64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.status, x.fields, x.length = status, append([]protocols.Field(nil), fields...), length
	return x.fail
}

func (x *asked) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.got.Write(p)
}

func (x *asked) Flush() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.flushed = x.got.Len()
	return nil
}

func (x *asked) Finish(trailers []protocols.Field) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.trail, x.whole = append([]protocols.Field(nil), trailers...), true
	return nil
}

func (x *asked) Abort() { x.aborted = true }

// field is the answer's field of a name.
func (x *asked) field(name string) string {
	h := protocols.Head{Fields: x.fields}
	return h.Values(name)
}

// far is a server whose connections a test serves, one after the other.
type far struct {
	t  *testing.T
	ln *oneporttest.Listener
	c  *proxy.Client
}

// newFar gives a server that is a function of each connection, and its client.
func newFar(t *testing.T, cfg proxy.Config, serve func(n int, c net.Conn, br *bufio.Reader)) *far {
	t.Helper()
	f := &far{t: t, ln: oneporttest.NewListener()}
	cfg.Dial, cfg.Log = f.ln.Dial, slog.New(slog.DiscardHandler)
	f.c = proxy.New(cfg)
	var work sync.WaitGroup
	work.Go(func() {
		for n := 0; ; n++ {
			c, err := f.ln.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer func() { _ = c.Close() }()
				serve(n, c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		f.c.Close()
		_ = f.ln.Close()
		work.Wait()
	})
	return f
}

// says is a server that reads a request, answers so, and closes the connection.
func says(answer string) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, c net.Conn, br *bufio.Reader) {
		if _, err := http.ReadRequest(br); err == nil {
			_, _ = io.WriteString(c, answer)
		}
	}
}

// do asks, and gives what came of it.
func (f *far) do(x *asked) *proxy.Error {
	f.t.Helper()
	return errorOf(f.t, f.c.Do(f.t.Context(), x))
}

func errorOf(t *testing.T, err error) *proxy.Error {
	t.Helper()
	if err == nil {
		return nil
	}
	fail, ok := errors.AsType[*proxy.Error](err)
	if !ok {
		t.Fatalf("not an *Error: %v", err)
	}
	return fail
}

// bubble runs a test in a bubble in which time passes when nothing else can.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

// What may come of an answer, by what the server sends.
func TestAnswers(t *testing.T) {
	const h = "HTTP/1.1 200 OK\r\n"
	for name, tc := range map[string]struct {
		method, answer string
		status         int
		body           string
		length         int64
		informs        int
		trailer        string
	}{
		"length":               {answer: h + "Content-Length: 5\r\n\r\nhello", status: 200, body: "hello", length: 5},
		"the same twice":       {answer: h + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", length: 5},
		"no body":              {answer: h + "Content-Length: 0\r\n\r\n", status: 200},
		"to the end":           {answer: h + "\r\nhello", status: 200, body: "hello", length: -1},
		"HTTP/1.0":             {answer: "HTTP/1.0 200 OK\r\n\r\nhello", status: 200, body: "hello", length: -1},
		"chunks":               {answer: h + "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", status: 200, body: "hello", length: -1},
		"Chunked":              {answer: h + "transfer-encoding: Chunked\r\n\r\n05 \r\nhello\r\n000\r\n\r\n", status: 200, body: "hello", length: -1},
		"trailers":             {answer: h + "Transfer-Encoding: chunked\r\nTrailer: Sum\r\n\r\n5\r\nhello\r\n0\r\nSum: 42\r\nContent-Length: 3\r\n\r\n", status: 200, body: "hello", length: -1, trailer: "42"},
		"HEAD":                 {method: "HEAD", answer: h + "Content-Length: 5\r\n\r\n", status: 200},
		"HEAD in chunks":       {method: "HEAD", answer: h + "Transfer-Encoding: chunked\r\n\r\n", status: 200},
		"204":                  {answer: "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", status: 204},
		"304":                  {answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", status: 304},
		"no reason":            {answer: "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", status: 200},
		"103 before":           {answer: "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + h + "Content-Length: 2\r\n\r\nok", status: 200, body: "ok", length: 2, informs: 1},
		"100 that nobody asks": {answer: "HTTP/1.1 100 Continue\r\n\r\n" + h + "Content-Length: 2\r\n\r\nok", status: 200, body: "ok", length: 2},
		"418 and an odd field": {answer: "HTTP/1.1 418 I'm a teapot\r\nX!#$: \t a\tb \xff \r\nContent-Length: 0\r\n\r\n", status: 418},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFar(t, proxy.Config{}, says(tc.answer))
				if tc.method == "" {
					tc.method = http.MethodGet
				}
				x := ask(tc.method, "/")
				if fail := f.do(x); fail != nil {
					t.Fatal(fail)
				}
				sum := ""
				if len(x.trail) > 0 {
					sum = x.trail[0].Value
				}
				if x.status != tc.status || x.got.String() != tc.body || x.length != tc.length || len(x.informs) != tc.informs ||
					sum != tc.trailer || len(x.trail) > 1 || !x.whole || x.aborted {
					t.Errorf("%+v", x)
				}
				if strings.Contains(tc.answer, "X!#$") && x.field("x!#$") != "a\tb \xff" {
					t.Errorf("the odd field: %+v", x.fields)
				}
				if tc.status == 204 && x.field("Content-Length") != "" || tc.status == 304 && x.field("Content-Length") != "5" {
					t.Errorf("%d: %+v", tc.status, x.fields)
				}
			})
		})
	}
}

// What is no answer is an error before anything was said to the client, and what
// stops being one cuts the client's off.
func TestMalformedAnswers(t *testing.T) {
	const h = "HTTP/1.1 200 OK\r\n"
	chunked := h + "Transfer-Encoding: chunked\r\n\r\n"
	for name, tc := range map[string]struct {
		answer   string
		answered bool
	}{
		"nothing":                    {"", false},
		"garbage":                    {"\x00\x01\x02\r\n\r\n", false},
		"TLS alert":                  {"\x15\x03\x01\x00\x02\x02\x46", false},
		"HTTP/2":                     {"HTTP/2 200\r\n\r\n", false},
		"HTTP/1.2":                   {"HTTP/1.2 200 OK\r\n\r\n", false},
		"HTTP/0.9":                   {"<html>hello</html>\r\n\r\n", false},
		"a status of two digits":     {"HTTP/1.1 20 OK\r\n\r\n", false},
		"a status of four digits":    {"HTTP/1.1 2000 OK\r\n\r\n", false},
		"status 099":                 {"HTTP/1.1 099 OK\r\n\r\n", false},
		"two spaces":                 {"HTTP/1.1  200 OK\r\n\r\n", false},
		"101":                        {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", false},
		"bare LF":                    {"HTTP/1.1 200 OK\nContent-Length: 0\n\n", false},
		"bare LF within":             {h + "X: a\nContent-Length: 0\r\n\r\n", false},
		"bare CR":                    {h + "X: a\rb\r\nContent-Length: 0\r\n\r\n", false},
		"NUL in a value":             {h + "X: a\x00b\r\n\r\n", false},
		"NUL in a name":              {h + "X\x00: a\r\n\r\n", false},
		"obs-fold":                   {h + "X: a\r\n b\r\n\r\n", false},
		"obs-fold first":             {h + " X: a\r\n\r\n", false},
		"blank before the colon":     {h + "X : a\r\n\r\n", false},
		"no colon":                   {h + "X\r\n\r\n", false},
		"no name":                    {h + ": a\r\n\r\n", false},
		"two lengths":                {h + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", false},
		"a list of lengths":          {h + "Content-Length: 5, 5\r\n\r\nhello", false},
		"a negative length":          {h + "Content-Length: -5\r\n\r\nhello", false},
		"a length with a sign":       {h + "Content-Length: +5\r\n\r\nhello", false},
		"an empty length":            {h + "Content-Length: \r\n\r\nhello", false},
		"a length that overflows":    {h + "Content-Length: 99999999999999999999\r\n\r\nhello", false},
		"length and chunks":          {h + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false},
		"chunks twice":               {h + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
		"gzip, chunked":              {h + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", false},
		"identity":                   {h + "Transfer-Encoding: identity\r\n\r\nhello", false},
		"chunks in HTTP/1.0":         {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
		"17 interim answers":         {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 17) + h + "\r\n", false},
		"a large head":               {h + "X: " + strings.Repeat("x", 70_000) + "\r\n\r\n", false},
		"many fields":                {h + strings.Repeat("X: y\r\n", 600) + "\r\n", false},
		"cut off in its head":        {h + "Content-Le", false},
		"cut off in its body":        {h + "Content-Length: 50\r\n\r\nhello", true},
		"cut off in a chunk":         {chunked + "50\r\nhello", true},
		"cut off after a chunk":      {chunked + "5\r\nhello\r\n", true},
		"cut off in its trailers":    {chunked + "5\r\nhello\r\n0\r\nX: y\r\n", true},
		"a chunk without a size":     {chunked + "\r\nhello", true},
		"a chunk size that is none":  {chunked + "5x\r\nhello\r\n0\r\n\r\n", true},
		"a chunk size with a sign":   {chunked + "+5\r\nhello\r\n0\r\n\r\n", true},
		"0x5":                        {chunked + "0x5\r\nhello\r\n0\r\n\r\n", true},
		"a chunk size that is long":  {chunked + "1000000000000000\r\nhello", true},
		"a chunk longer than said":   {chunked + "3\r\nhello\r\n0\r\n\r\n", true},
		"bare LF behind a chunk":     {chunked + "5\nhello\r\n0\r\n\r\n", true},
		"bare LF in a chunk's end":   {chunked + "5\r\nhello\n0\r\n\r\n", true},
		"a long extension":           {chunked + "5;" + strings.Repeat("x", 300) + "\r\nhello\r\n0\r\n\r\n", true},
		"NUL in an extension":        {chunked + "5;a\x00b\r\nhello\r\n0\r\n\r\n", true},
		"an extension without ;":     {chunked + "5 a\r\nhello\r\n0\r\n\r\n", true},
		"bad trailers":               {chunked + "0\r\nX : y\r\n\r\n", true},
		"bare LF in trailers":        {chunked + "0\r\nX: y\n\r\n", true},
		"trailers that do not end":   {chunked + "0\r\n" + strings.Repeat("X: y\r\n", 20_000) + "\r\n", true},
		"more trailers than allowed": {chunked + "0\r\n" + strings.Repeat("X: y\r\n", 600) + "\r\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFar(t, proxy.Config{}, says(tc.answer))
				x := ask(http.MethodGet, "/")
				fail := f.do(x)
				if fail == nil || !fail.Sent || fail.Client || fail.Timeout || fail.Answered != tc.answered || x.whole || x.aborted != tc.answered || tc.answered != (x.status != 0) {
					t.Errorf("%+v, %+v", fail, x)
				}
				if st := f.c.Stats(); st.Open != 0 || st.Active != 0 {
					t.Errorf("the connection is kept: %+v", st)
				}
			})
		})
	}
}

// Fields of the connection go no further, those that Connection names included.
func TestFieldsOfTheConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		heads := make(chan *http.Request, 1)
		f := newFar(t, proxy.Config{Prepare: func(_ context.Context, h *protocols.Head) { h.Set("x-forwarded-for", "192.0.2.9") }},
			func(_ int, c net.Conn, br *bufio.Reader) {
				r, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				heads <- r
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: X-Mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nX-Yours: 2\r\n"+
					"Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nSet-Cookie: a=b\r\nset-cookie: c=d\r\nContent-Length: 0\r\n\r\n")
			})
		x := ask(http.MethodGet, "/a%2Fb?c d"[:8], []protocols.Field{
			{Name: "Connection", Value: "close, X-Drop, x-forwarded-for, Host, Content-Length"},
			{Name: "X-Drop", Value: "1"},
			{Name: "keep-alive", Value: "1"},
			{Name: "Upgrade", Value: "h2c"},
			{Name: "HTTP2-Settings", Value: "x"},
			{Name: "Proxy-Authorization", Value: "x"},
			{Name: "Proxy-Connection", Value: "x"},
			{Name: "Transfer-Encoding", Value: "gzip"},
			{Name: "TE", Value: "gzip, trailers;q=0.5"},
			{Name: "cookie", Value: "a=b"},
			{Name: "x-keep", Value: "1"},
			{Name: "cookie", Value: "c=d"},
			{Name: "host", Value: "evil.test"},
			{Name: "content-length", Value: "77"},
			{Name: "expect", Value: "100-continue"},
		}...)
		if fail := f.do(x); fail != nil {
			t.Fatal(fail)
		}
		r := <-heads
		want := http.Header{"Te": {"trailers"}, "Connection": {"TE"}, "Cookie": {"a=b; c=d"}, "X-Keep": {"1"}, "X-Forwarded-For": {"192.0.2.9"}}
		if len(r.Header) != len(want) || r.Host != "app.test" || r.ContentLength != 0 || r.RequestURI != "/a%2Fb?c" {
			t.Errorf("%v %v %d %v", r.Host, r.RequestURI, r.ContentLength, r.Header)
		}
		for name, values := range want {
			if strings.Join(r.Header[name], "|") != values[0] {
				t.Errorf("%s: %q", name, r.Header[name])
			}
		}
		if x.field("X-Mine")+x.field("Keep-Alive")+x.field("Connection")+x.field("Upgrade")+x.field("Proxy-Authenticate") != "" ||
			x.field("X-Yours") != "2" || x.field("Set-Cookie") != "a=b, c=d" {
			t.Errorf("%+v", x.fields)
		}
	})
}

// Nothing that a client says ends a line, or begins another request.
func TestRequestsThatCannotBeSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(t, proxy.Config{}, says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
		for name, x := range map[string]*asked{
			"CR LF in the path":   ask("GET", "/ HTTP/1.1\r\nX: y"),
			"a blank in the path": ask("GET", "/a b"),
			"no path":             ask("GET", ""),
			"a URL as a path":     ask("GET", "http://other.test/"),
			"* and GET":           ask("GET", "*"),
			"CONNECT":             ask("CONNECT", "/"),
			"a bad method":        ask("GET /x", "/"),
			"CR LF in a value":    ask("GET", "/", protocols.Field{Name: "X", Value: "a\r\nY: z"}),
			"NUL in a value":      ask("GET", "/", protocols.Field{Name: "X", Value: "a\x00"}),
			"a colon in a name":   ask("GET", "/", protocols.Field{Name: "X: y\r\nZ", Value: "a"}),
			"no name":             ask("GET", "/", protocols.Field{Value: "a"}),
			"bad trailers' names": ask("GET", "/", protocols.Field{Name: "Trailer", Value: "a\r\nb"}).with("x", -1),
		} {
			if fail := f.do(x); fail == nil || !fail.Client || fail.Sent || fail.Answered || !errors.Is(fail, proxy.ErrRequest) {
				t.Errorf("%s: %+v", name, fail)
			}
		}
		x := ask("GET", "/")
		x.head.Authority = "app.test\r\nX: y"
		if fail := f.do(x); fail == nil || !fail.Client {
			t.Errorf("a bad host: %+v", fail)
		}
		if st := f.c.Stats(); st.Open != 0 {
			t.Errorf("connections for nothing: %+v", st)
		}
		x = ask("GET", "/\u00fc#x")
		x.head.Authority = ""
		if fail := f.do(x); fail != nil {
			t.Errorf("a path that is escaped: %v", fail)
		}
	})
}

// Every timeout that the sweeper looks after.
func TestTimeouts(t *testing.T) {
	for name, tc := range map[string]struct {
		answer   string
		cfg      proxy.Config
		want     time.Duration
		answered bool
	}{
		"no answer":        {want: 60 * time.Second},
		"half a head":      {answer: "HTTP/1.1 200 OK\r\nX:", want: 60 * time.Second},
		"interim, then no": {answer: "HTTP/1.1 103 Early Hints\r\n\r\n", want: 60 * time.Second},
		"body stands":      {answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", cfg: proxy.Config{AnswerIdle: 7 * time.Second}, want: 7 * time.Second, answered: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFar(t, tc.cfg, func(_ int, c net.Conn, br *bufio.Reader) {
					_, _ = http.ReadRequest(br)
					_, _ = io.WriteString(c, tc.answer)
					_, _ = io.Copy(io.Discard, br)
				})
				start := time.Now()
				x := ask(http.MethodGet, "/")
				fail := f.do(x)
				if took := time.Since(start); took < tc.want || took > tc.want+time.Second {
					t.Errorf("took %v", took)
				}
				if fail == nil || !fail.Timeout || fail.Client || fail.Answered != tc.answered || x.aborted != tc.answered {
					t.Errorf("%+v", fail)
				}
			})
		})
	}
	t.Run("events rest", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			f := newFar(t, proxy.Config{}, func(_ int, c net.Conn, br *bufio.Reader) {
				_, _ = http.ReadRequest(br)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nfirst ")
				time.Sleep(time.Hour)
				_, _ = io.WriteString(c, "second")
			})
			x := ask(http.MethodGet, "/")
			go func() {
				time.Sleep(time.Minute)
				x.mu.Lock()
				defer x.mu.Unlock()
				if x.flushed != len("first ") {
					t.Errorf("%d bytes have reached the client", x.flushed)
				}
			}()
			if fail := f.do(x); fail != nil || x.got.String() != "first second" {
				t.Errorf("%v, %q", fail, x.got.String())
			}
		})
	})
	t.Run("the server takes nothing", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			f := newFar(t, proxy.Config{}, func(_ int, _ net.Conn, br *bufio.Reader) {
				_, _ = http.ReadRequest(br)
				time.Sleep(time.Hour)
			})
			start := time.Now()
			fail := f.do(ask(http.MethodPost, "/").with(strings.Repeat("x", 1<<20), 1<<20))
			if took := time.Since(start); fail == nil || !fail.Timeout || fail.Client || took < 30*time.Second || took > 31*time.Second {
				t.Errorf("%+v after %v", fail, took)
			}
		})
	})
	t.Run("the client leaves", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			f := newFar(t, proxy.Config{}, func(_ int, _ net.Conn, br *bufio.Reader) { _, _ = io.Copy(io.Discard, br) })
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			start := time.Now()
			fail := errorOf(t, f.c.Do(ctx, ask(http.MethodGet, "/")))
			if took := time.Since(start); fail == nil || !fail.Client || fail.Answered || took > 1200*time.Millisecond {
				t.Errorf("%+v after %v", fail, took)
			}
		})
	})
}
