package ws_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/protocols/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// endpoint is one WebSocket route over pipes in memory.
type endpoint struct {
	server *ws.Server
	queue  *queue
}

// queue is a listener for pipes.
type queue struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }

func serve(t *testing.T, opts ws.Options, h ws.HandlerFunc) *endpoint {
	t.Helper()
	return serveBy(t, func(h http.Handler) http.Handler { return h }, opts, h)
}

// serveBy is serve with something before the handshakes.
func serveBy(t *testing.T, by func(http.Handler) http.Handler, opts ws.Options, h ws.HandlerFunc) *endpoint {
	t.Helper()
	e := &endpoint{server: ws.NewServer(nil), queue: &queue{conns: make(chan net.Conn), done: make(chan struct{})}}
	hs := &http.Server{Handler: by(e.server.Handler(h, opts))}
	done := make(chan struct{})
	go func() {
		hs.Serve(e.queue)
		close(done)
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := e.server.Drain(ctx, 0); err != nil {
			t.Errorf("drain: %v", err)
		}
		hs.Close()
		<-done
	})
	return e
}

// dial opens a raw connection, without a handshake.
func (e *endpoint) dial() net.Conn {
	a, b := net.Pipe()
	e.queue.conns <- b
	return a
}

// open is a gorilla client.
func (e *endpoint) open(t *testing.T, header http.Header) *websocket.Conn {
	t.Helper()
	c, res, err := e.try(t.Context(), header, false)
	if err != nil {
		t.Fatalf("handshake: %v, %v", err, res)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (e *endpoint) try(ctx context.Context, header http.Header, compress bool) (*websocket.Conn, *http.Response, error) {
	d := websocket.Dialer{
		NetDialContext:    func(context.Context, string, string) (net.Conn, error) { return e.dial(), nil },
		EnableCompression: compress,
		Subprotocols:      header["Sec-Websocket-Protocol"],
	}
	header.Del("Sec-WebSocket-Protocol")
	return d.DialContext(ctx, "ws://example.com/", header)
}

func echo(_ context.Context, c *ws.Conn) error {
	for {
		typ, msg, err := c.Read()
		if err != nil {
			return err
		}
		if err := c.Write(typ, msg); err != nil {
			return err
		}
	}
}

// raw opens a session and gives its bare connection, for frames that no
// client library sends. Extra is sent in the same packet as the handshake.
func (e *endpoint) raw(t *testing.T, headers string, extra []byte) (net.Conn, *bufio.Reader) {
	t.Helper()
	c := e.dial()
	t.Cleanup(func() { c.Close() })
	go c.Write(append([]byte("GET / HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+headers+"\r\n"), extra...))
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("handshake: %v", res)
	}
	return c, br
}

// frame builds a masked client frame; b0 is FIN, RSV and opcode.
func frame(b0 byte, payload []byte) []byte {
	f := []byte{b0}
	switch n := len(payload); {
	case n < 126:
		f = append(f, 0x80|byte(n))
	case n < 1<<16:
		f = binary.BigEndian.AppendUint16(append(f, 0x80|126), uint16(n))
	default:
		f = binary.BigEndian.AppendUint64(append(f, 0x80|127), uint64(n))
	}
	mask := [4]byte{1, 2, 3, 4}
	f = append(f, mask[:]...)
	for i, b := range payload {
		f = append(f, b^mask[i%4])
	}
	return f
}

// readFrame reads one unmasked server frame.
func readFrame(r io.Reader) (b0 byte, payload []byte, err error) {
	var h [2]byte
	if _, err = io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := uint64(h[1])
	switch n {
	case 126:
		var l [2]byte
		_, err = io.ReadFull(r, l[:])
		n = uint64(binary.BigEndian.Uint16(l[:]))
	case 127:
		var l [8]byte
		_, err = io.ReadFull(r, l[:])
		n = binary.BigEndian.Uint64(l[:])
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return h[0], payload, err
}

func code(payload []byte) int {
	if len(payload) < 2 {
		return ws.CloseNoStatus
	}
	return int(binary.BigEndian.Uint16(payload))
}

func closeCode(err error) int {
	if ce, ok := errors.AsType[*websocket.CloseError](err); ok {
		return ce.Code
	}
	return 0
}

func TestEcho(t *testing.T) {
	t.Parallel()
	e := serve(t, ws.Options{}, echo)
	c := e.open(t, nil)
	for _, msg := range []string{"", "x", "hällo", strings.Repeat("y", 64<<10)} {
		for _, typ := range []int{websocket.TextMessage, websocket.BinaryMessage} {
			written := make(chan error, 1)
			go func() { written <- c.WriteMessage(typ, []byte(msg)) }()
			gotTyp, got, err := c.ReadMessage()
			if err := <-written; err != nil {
				t.Fatal(err)
			}
			if err != nil || gotTyp != typ || string(got) != msg {
				t.Fatalf("%d bytes: got type %d, %d bytes, %v", len(msg), gotTyp, len(got), err)
			}
		}
	}
}

// The first frame may arrive in the same packet as the handshake.
func TestFrameRightBehindTheHandshake(t *testing.T) {
	t.Parallel()
	e := serve(t, ws.Options{}, echo)
	_, br := e.raw(t, "", append(frame(0x81, []byte("early")), frame(0x82, []byte("too"))...))
	for _, want := range []string{"early", "too"} {
		if _, got, err := readFrame(br); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
}

func TestHandshakeRefusals(t *testing.T) {
	t.Parallel()
	e := serve(t, ws.Options{Origins: []string{"https://app.example.org", "https://*.example.net"}}, echo)
	good := map[string]string{
		"Connection": "keep-alive, Upgrade", "Upgrade": "websocket",
		"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	}
	for _, tc := range []struct {
		name   string
		method string
		set    map[string]string
		want   int
	}{
		{"good", "GET", nil, 101},
		{"no upgrade", "GET", map[string]string{"Upgrade": ""}, 426},
		{"another upgrade", "GET", map[string]string{"Upgrade": "h2c"}, 426},
		{"POST", "POST", nil, 405},
		{"version 8", "GET", map[string]string{"Sec-WebSocket-Version": "8"}, 426},
		{"no version", "GET", map[string]string{"Sec-WebSocket-Version": ""}, 426},
		{"no key", "GET", map[string]string{"Sec-WebSocket-Key": ""}, 400},
		{"short key", "GET", map[string]string{"Sec-WebSocket-Key": "c2hvcnQ="}, 400},
		{"key is no base64", "GET", map[string]string{"Sec-WebSocket-Key": "!!!!!!!!!!!!!!!!!!!!!!=="}, 400},
		{"same origin", "GET", map[string]string{"Origin": "https://example.com"}, 101},
		{"same origin in capitals", "GET", map[string]string{"Origin": "https://EXAMPLE.com"}, 101},
		{"another origin", "GET", map[string]string{"Origin": "https://evil.example"}, 403},
		{"origin null", "GET", map[string]string{"Origin": "null"}, 403},
		{"origin that does not parse", "GET", map[string]string{"Origin": "http://[::1"}, 403},
		{"same host on another port", "GET", map[string]string{"Origin": "https://example.com:8443"}, 403},
		{"listed origin", "GET", map[string]string{"Origin": "https://app.example.org"}, 101},
		{"listed origin, other scheme", "GET", map[string]string{"Origin": "http://app.example.org"}, 403},
		{"origin by wildcard", "GET", map[string]string{"Origin": "https://a.b.example.net"}, 101},
		{"the wildcard's own domain", "GET", map[string]string{"Origin": "https://example.net"}, 403},
		{"a name that only ends alike", "GET", map[string]string{"Origin": "https://badexample.net"}, 403},
	} {
		c := e.dial()
		req := tc.method + " / HTTP/1.1\r\nHost: example.com\r\n"
		for k, v := range good {
			if set, ok := tc.set[k]; ok {
				v = set
			}
			if v != "" {
				req += k + ": " + v + "\r\n"
			}
		}
		if o := tc.set["Origin"]; o != "" {
			req += "Origin: " + o + "\r\n"
		}
		go io.WriteString(c, req+"\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
		} else if res.StatusCode != tc.want {
			t.Errorf("%s: got %d, want %d", tc.name, res.StatusCode, tc.want)
		} else if tc.want == 426 && res.Header.Get("Sec-WebSocket-Version") != "13" {
			t.Errorf("%s: 426 does not say which version", tc.name)
		}
		c.Close()
	}
	if st := e.server.Stats(); st.Refused["origin"] != 7 || st.Refused["key"] != 3 || st.Refused["ws_version"] != 2 {
		t.Errorf("counted %v", st.Refused)
	}
}

func TestSubprotocol(t *testing.T) {
	t.Parallel()
	e := serve(t, ws.Options{Subprotocols: []string{"b", "a"}}, func(_ context.Context, c *ws.Conn) error {
		return c.Write(ws.Text, []byte(c.Subprotocol()))
	})
	for offered, want := range map[string]string{"a": "a", "a, b": "b", "c": ""} {
		c := e.open(t, http.Header{"Sec-Websocket-Protocol": {offered}})
		if _, got, err := c.ReadMessage(); err != nil || string(got) != want || c.Subprotocol() != want {
			t.Errorf("offered %q: server has %q, client %q, %v", offered, got, c.Subprotocol(), err)
		}
	}
}

// The handshake is there until reading begins; who has it keeps it.
func TestRequest(t *testing.T) {
	t.Parallel()
	e := serve(t, ws.Options{}, func(_ context.Context, c *ws.Conn) error {
		r := c.Request()
		_, _, err := c.Read()
		if err != nil || c.Request() != nil {
			return fmt.Errorf("after Read: %v, %w", c.Request(), err)
		}
		return c.Write(ws.Text, []byte(r.Header.Get("X-Who")+" at "+r.URL.Path))
	})
	c := e.open(t, http.Header{"X-Who": {"eve"}})
	if err := c.WriteMessage(websocket.TextMessage, nil); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.ReadMessage(); err != nil || string(got) != "eve at /" {
		t.Errorf("got %q, %v", got, err)
	}
}

// Frames that break the protocol end the session with the right code, and the
// peer gets to see it.
func TestProtocolViolations(t *testing.T) {
	t.Parallel()
	e := serve(t, ws.Options{ReadLimit: 1000}, echo)
	unmasked := []byte{0x81, 1, 'x'}
	for name, tc := range map[string]struct {
		data []byte
		want int
	}{
		"unmasked":                         {unmasked, ws.CloseProtocol},
		"RSV1 without compression":         {frame(0xc1, []byte("x")), ws.CloseProtocol},
		"RSV2":                             {frame(0xa1, []byte("x")), ws.CloseProtocol},
		"RSV3":                             {frame(0x91, []byte("x")), ws.CloseProtocol},
		"unknown opcode":                   {frame(0x83, []byte("x")), ws.CloseProtocol},
		"unknown control opcode":           {frame(0x8b, nil), ws.CloseProtocol},
		"fragmented ping":                  {frame(0x09, []byte("x")), ws.CloseProtocol},
		"ping of 126 bytes":                {frame(0x89, make([]byte, 126)), ws.CloseProtocol},
		"continuation of nothing":          {frame(0x80, []byte("x")), ws.CloseProtocol},
		"a new message within another":     {append(frame(0x01, []byte("x")), frame(0x81, []byte("y"))...), ws.CloseProtocol},
		"text that is not UTF-8":           {frame(0x81, []byte{0xff, 0xfe}), ws.CloseInvalidData},
		"a surrogate in UTF-8":             {frame(0x81, []byte{0xed, 0xa0, 0x80}), ws.CloseInvalidData},
		"fragments that join to bad UTF-8": {append(frame(0x01, []byte{0xc3}), frame(0x80, []byte{0x28})...), ws.CloseInvalidData},
		"too big":                          {frame(0x82, make([]byte, 1001)), ws.CloseTooBig},
		"too big in fragments":             {append(frame(0x02, make([]byte, 600)), frame(0x80, make([]byte, 600))...), ws.CloseTooBig},
		"2^63 bytes announced":             {[]byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, 0},
		"2^62 bytes announced":             {[]byte{0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, ws.CloseTooBig},
		"close code 1005":                  {frame(0x88, []byte{0x03, 0xed}), ws.CloseProtocol},
		"close with half a code":           {frame(0x88, []byte{0x03}), -1},
	} {
		c, br := e.raw(t, "", nil)
		go c.Write(tc.data)
		b0, payload, err := readFrame(br)
		switch {
		case tc.want == -1: // any close will do
			if err == nil && b0 != 0x88 {
				t.Errorf("%s: got frame %x", name, b0)
			}
		case tc.want == 0: // closed, with or without a word
			if err == nil && b0 != 0x88 {
				t.Errorf("%s: got frame %x", name, b0)
			}
		case err != nil || b0 != 0x88 || code(payload) != tc.want:
			t.Errorf("%s: got frame %x %q (%d), %v, want close %d", name, b0, payload, code(payload), err, tc.want)
		}
		c.Close()
	}
}

// Text split in the middle of a character is one valid message; fragments may
// have control frames between them.
func TestFragments(t *testing.T) {
	t.Parallel()
	e := serve(t, ws.Options{}, echo)
	c, br := e.raw(t, "", nil)
	go c.Write(bytes.Join([][]byte{frame(0x01, []byte("h\xc3")), frame(0x89, []byte("p")), frame(0x00, []byte("\xa4")), frame(0x80, []byte("llo"))}, nil))
	if b0, got, err := readFrame(br); b0 != 0x8a || string(got) != "p" || err != nil {
		t.Errorf("pong: %x %q %v", b0, got, err)
	}
	if b0, got, err := readFrame(br); b0 != 0x81 || string(got) != "hällo" || err != nil {
		t.Errorf("message: %x %q %v", b0, got, err)
	}
}

// deflated gives n MiB of zeros as a compressed frame's payload (RFC 7692,
// 7.2.1). One MiB is compressed behind another and then repeated: it refers to
// nothing but zeros.
func deflated(t *testing.T, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	w.Write(zeros)
	w.Flush()
	first := b.Len()
	w.Write(zeros)
	w.Flush()
	all := append(bytes.Clone(b.Bytes()[:first]), bytes.Repeat(b.Bytes()[first:], n-1)...)
	return bytes.TrimSuffix(all, []byte{0, 0, 0xff, 0xff})
}

// A small message that inflates to 256 MB ends at the limit, not at 256 MB.
func TestInflationBomb(t *testing.T) {
	bomb := deflated(t, 256)
	const limit = 1 << 20 // the compressed bytes alone would pass
	if len(bomb) > limit/2 {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	e := serve(t, ws.Options{ReadLimit: limit, Compression: true}, echo)
	c, br := e.raw(t, "Sec-WebSocket-Extensions: permessage-deflate\r\n", nil)
	go c.Write(frame(0xc2, bomb))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b0, payload, err := readFrame(br)
	if err != nil || b0 != 0x88 || code(payload) != ws.CloseTooBig {
		t.Errorf("got frame %x (%d), %v", b0, code(payload), err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8*limit {
		t.Errorf("%d KiB were allocated for a limit of %d KiB", n>>10, limit>>10)
	}

	// What stays below the limit passes.
	c, br = e.raw(t, "Sec-WebSocket-Extensions: permessage-deflate\r\n", nil)
	go c.Write(frame(0xc2, deflated(t, 1)))
	if _, err := br.ReadByte(); err != nil {
		t.Errorf("a message of just the limit: %v", err)
	}
	c.Close()

	// Garbage in place of deflate data.
	c, br = e.raw(t, "Sec-WebSocket-Extensions: permessage-deflate\r\n", nil)
	go c.Write(frame(0xc2, []byte{0xff, 0xff, 0xff}))
	if b0, payload, err := readFrame(br); err != nil || b0 != 0x88 || code(payload) != ws.CloseInvalidData {
		t.Errorf("garbage: got frame %x (%d), %v", b0, code(payload), err)
	}
}

func TestHandlerResultBecomesCloseCode(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err    error
		code   int
		reason string
	}{
		"nil":               {nil, ws.CloseNormal, ""},
		"an error":          {errors.New("secret detail"), ws.CloseInternal, "internal error"},
		"a close error":     {&ws.CloseError{Code: 4001, Reason: "mine"}, 4001, "mine"},
		"wrapped":           {fmt.Errorf("because: %w", &ws.CloseError{Code: ws.ClosePolicy}), ws.ClosePolicy, ""},
		"a code not to say": {&ws.CloseError{Code: ws.CloseAbnormal}, ws.CloseNormal, ""},
		"too long a reason": {&ws.CloseError{Code: 4002, Reason: strings.Repeat("é", 100)}, 4002, strings.Repeat("é", 61)},
	} {
		e := serve(t, ws.Options{}, func(context.Context, *ws.Conn) error { return tc.err })
		_, _, err := e.open(t, nil).ReadMessage()
		if ce, ok := errors.AsType[*websocket.CloseError](err); !ok || ce.Code != tc.code || ce.Text != tc.reason {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestPeerCloses(t *testing.T) {
	t.Parallel()
	got := make(chan error, 1)
	e := serve(t, ws.Options{}, func(ctx context.Context, c *ws.Conn) error {
		_, _, err := c.Read()
		<-ctx.Done()
		got <- err
		if err := c.Write(ws.Text, nil); !errors.Is(err, ws.ErrClosed) {
			t.Errorf("write after close: %v", err)
		}
		return err
	})
	c := e.open(t, nil)
	go c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4242, "bye"), time.Now().Add(time.Second))
	if _, _, err := c.ReadMessage(); closeCode(err) != 4242 {
		t.Errorf("the answer to a close is %v", err)
	}
	if err := <-got; ws.CloseCode(err) != 4242 {
		t.Errorf("the handler saw %v", err)
	}
}

// A dead peer is found by ping, 25 s and 10 s after its last sign of life; a
// live one never is.
func TestDeadPeerIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan time.Duration, 2)
		e := serve(t, ws.Options{}, func(_ context.Context, c *ws.Conn) error {
			start := time.Now()
			_, _, err := c.Read()
			ended <- time.Since(start)
			return err
		})
		dead, _ := e.raw(t, "", nil)
		go io.Copy(io.Discard, dead) // takes everything, answers nothing

		live := e.open(t, nil)
		go live.ReadMessage() // answers pings
		if d := <-ended; d < 35*time.Second || d > 36*time.Second {
			t.Errorf("the dead peer was found after %v", d)
		}
		time.Sleep(10 * time.Minute)
		select {
		case d := <-ended:
			t.Errorf("the live peer was cut off after %v", d)
		default:
		}
		live.Close()
		<-ended
		synctest.Wait()
		if st := e.server.Stats(); st.Open != 0 || st.Closed[ws.CloseAbnormal] != 2 {
			t.Errorf("stats: %+v", st)
		}
	})
}

// Traffic is a sign of life: a peer that talks is not pinged.
func TestNoPingWhileThereIsTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := serve(t, ws.Options{}, echo)
		c, br := e.raw(t, "", nil)
		for range 20 {
			time.Sleep(10 * time.Second)
			go c.Write(frame(0x81, []byte("hi")))
			if b0, _, err := readFrame(br); err != nil || b0 != 0x81 {
				t.Fatalf("got frame %x, %v", b0, err)
			}
		}
	})
}

// A peer that does not read is closed when its queue is full, and costs the
// sender no time.
func TestSlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		result := make(chan error, 1)
		e := serve(t, ws.Options{SendQueue: 10_000}, func(ctx context.Context, c *ws.Conn) error {
			start := time.Now()
			var err error
			for err == nil {
				err = c.Send(ws.Binary, make([]byte, 1000))
			}
			if d := time.Since(start); d > 0 {
				t.Errorf("Send waited %v", d)
			}
			result <- err
			<-ctx.Done()
			return nil
		})
		c, br := e.raw(t, "", nil)
		if err := <-result; !errors.Is(err, ws.ErrSlowConsumer) {
			t.Errorf("got %v", err)
		}
		// Reading on within the second shows why.
		var last byte
		var payload []byte
		for {
			b0, p, err := readFrame(br)
			if err != nil {
				break
			}
			last, payload = b0, p
			if b0 == 0x88 {
				c.Close()
				break
			}
		}
		if last != 0x88 || code(payload) != ws.CloseTryAgainLater {
			t.Errorf("last frame %x (%d)", last, code(payload))
		}
		synctest.Wait()
		if st := e.server.Stats(); st.Slow != 1 {
			t.Errorf("stats: %+v", st)
		}
	})
}

// A peer that never reads is cut off by Write's timeout, too.
func TestWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		result := make(chan time.Duration, 1)
		e := serve(t, ws.Options{}, func(_ context.Context, c *ws.Conn) error {
			start := time.Now()
			err := c.Write(ws.Binary, make([]byte, 1<<20))
			result <- time.Since(start)
			return err
		})
		e.raw(t, "", nil)
		if d := <-result; d < 9*time.Second || d > 13*time.Second {
			t.Errorf("cut off after %v", d)
		}
	})
}

// Concurrent Write, Send and Close leave whole messages in order.
func TestConcurrentWriters(t *testing.T) {
	t.Parallel()
	const writers, each = 8, 100
	e := serve(t, ws.Options{}, func(_ context.Context, c *ws.Conn) error {
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					msg := fmt.Appendf(nil, "%d %d", w, i)
					var err error
					if i%2 == 0 {
						err = c.Write(ws.Text, msg)
					} else {
						err = c.Send(ws.Text, msg)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		return nil
	})
	c := e.open(t, nil)
	next := make([]int, writers)
	for n := 0; ; n++ {
		_, msg, err := c.ReadMessage()
		if err != nil {
			if closeCode(err) != ws.CloseNormal || n != writers*each {
				t.Errorf("after %d messages: %v", n, err)
			}
			return
		}
		var w, i int
		fmt.Sscanf(string(msg), "%d %d", &w, &i)
		if next[w] != i {
			t.Fatalf("writer %d: got message %d, want %d", w, i, next[w])
		}
		next[w]++
	}
}

func TestCloseRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{}, 3)
		e := serve(t, ws.Options{}, func(ctx context.Context, c *ws.Conn) error {
			c.CloseRead()
			if _, _, err := c.Read(); err == nil {
				t.Error("Read after CloseRead")
			}
			c.Send(ws.Text, []byte("feed"))
			<-ctx.Done()
			ended <- struct{}{}
			return nil
		})
		c := e.open(t, nil)
		if _, msg, err := c.ReadMessage(); err != nil || string(msg) != "feed" {
			t.Errorf("got %q, %v", msg, err)
		}
		go c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second))
		if _, _, err := c.ReadMessage(); closeCode(err) != 1000 {
			t.Errorf("got %v", err)
		}
		<-ended

		talker := e.open(t, nil)
		talker.ReadMessage()
		go talker.WriteMessage(websocket.TextMessage, []byte("but I want to say something"))
		if _, _, err := talker.ReadMessage(); closeCode(err) != ws.ClosePolicy {
			t.Errorf("a message where none is expected: %v", err)
		}
		<-ended
	})
}

// A drain closes everybody with 1001 over its window, refuses newcomers, and
// cuts off who does not answer.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := serve(t, ws.Options{}, echo)
		const n = 100
		start := time.Now()
		var mu sync.Mutex
		var at []time.Duration
		var wg sync.WaitGroup
		for range n {
			c := e.open(t, nil)
			wg.Go(func() {
				_, _, err := c.ReadMessage()
				if closeCode(err) != ws.CloseGoingAway {
					t.Errorf("got %v", err)
				}
				mu.Lock()
				at = append(at, time.Since(start))
				mu.Unlock()
				c.Close()
			})
		}
		synctest.Wait() // a client sees 101 before its session is one
		if err := e.server.Drain(t.Context(), 20*time.Second); err != nil {
			t.Error(err)
		}
		wg.Wait()
		early := 0
		for _, d := range at {
			if d < 10*time.Second {
				early++
			}
		}
		if early < n/2-2 || early > n/2+2 || at[n-1] > 20*time.Second {
			t.Errorf("%d of %d in the first half, the last after %v", early, n, at[n-1])
		}
		if _, res, err := e.try(t.Context(), nil, false); err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a newcomer: %v, %v", res, err)
		}
	})
}

func TestDrainCutsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := serve(t, ws.Options{}, func(_ context.Context, c *ws.Conn) error {
			_, _, err := c.Read()
			return err
		})
		c, _ := e.raw(t, "", nil) // neither reads nor answers
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start := time.Now()
		if err := e.server.Drain(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("cut off after %v", d)
		}
	})
}
