package edge_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// rawServer gives each of its connections to serve, and closes it then. Its
// connections end with the test.
func rawServer(t *testing.T, serve func(c net.Conn)) string {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	var mu sync.Mutex
	var all []net.Conn
	work.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			all = append(all, c)
			mu.Unlock()
			work.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range all {
			_ = c.Close()
		}
		mu.Unlock()
		work.Wait()
	})
	return ln.Addr().String()
}

// hang waits until the other side closes.
func hang(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// resetConn has the connection end with a reset.
func resetConn(c net.Conn) {
	if tc, ok := c.(*net.TCPConn); ok {
		_ = tc.SetLinger(0)
	}
}

// says is a server that reads the head of a request, says that, and then does this.
func says(text string, then func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		var head []byte
		for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, b...) {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
		_, _ = io.WriteString(c, text)
		if then != nil {
			then(c)
		}
	}
}

// frames is a server of HTTP/2 that does what answer says for each request. It
// closes the connection when answer gives false.
func frames(answer func(w *frameWriter, stream uint32) bool) func(net.Conn) {
	return func(c net.Conn) {
		w := &frameWriter{Conn: c}
		if _, err := io.ReadFull(c, make([]byte, len(frame.Preface))); err != nil {
			return
		}
		w.send(frame.AppendSettings(nil), frame.AppendSettingsAck(nil))
		for {
			var head [frame.HeaderLen]byte
			if _, err := io.ReadFull(c, head[:]); err != nil {
				return
			}
			h := frame.Parse(head[:])
			if _, err := io.CopyN(io.Discard, c, int64(h.Length)); err != nil {
				return
			}
			if h.Type == frame.Headers && !answer(w, h.Stream) {
				return
			}
		}
	}
}

type frameWriter struct{ net.Conn }

func (w *frameWriter) send(list ...[]byte) { _, _ = w.Write(bytes.Join(list, nil)) } // the test sees what came

// fields is a header block.
func fields(stream uint32, end bool, pairs ...string) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	enc.SetMaxDynamicTableSizeLimit(0)
	for i := 0; i < len(pairs); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1], Sensitive: true}) // never indexed
	}
	flags := frame.EndHeaders
	if end {
		flags |= frame.EndStream
	}
	return append(frame.Header{Length: b.Len(), Type: frame.Headers, Flags: flags, Stream: stream}.Append(nil), b.Bytes()...)
}

func chunk(stream uint32, end bool, text string) []byte {
	var flags frame.Flags
	if end {
		flags = frame.EndStream
	}
	return append(frame.Header{Length: len(text), Type: frame.Data, Flags: flags, Stream: stream}.Append(nil), text...)
}

// grpcMessage is one of a field: its number 1, a string.
func grpcMessage(text string) string {
	return string(append([]byte{0, 0, 0, 0, byte(len(text) + 2), 0x0a, byte(len(text))}, text...))
}

const (
	head200  = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
	settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00" // what a server of HTTP/2 says first
	alert    = "\x15\x03\x01\x00\x02\x02\x46"         // what one of TLS says to who speaks something else
	cut      = "cut off"
)

func badHTTP1() map[string]badServer {
	speak := func(text string, then func(net.Conn)) badServer { return badServer{serve: says(text, then)} }
	return map[string]badServer{
		"refuses":                  {want: "502"},
		"closes at once":           {serve: func(net.Conn) {}, want: "502"},
		"resets at once":           {serve: resetConn, want: "502"},
		"closes before its answer": speak("", nil).as("502"),
		"resets before its answer": speak("", resetConn).as("502"),
		"resets in its body":       speak(head200+"hello", resetConn).as(cut),
		"closes in its body":       speak(head200+"hello", nil).as(cut),
		"resets in its chunks":     speak("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", resetConn).as(cut),
		"hangs before its answer":  speak("", hang).as("504"),
		"hangs in its head":        speak("HTTP/1.1 200 OK\r\nContent-", hang).as("504"),
		"malformed: garbage":       speak("garbage\r\n\r\n", hang).as("502"),
		"malformed: no version":    speak("HTTP/9.9 200 OK\r\n\r\n", hang).as("502"),
		"malformed: no status":     speak("HTTP/1.1 2OO OK\r\n\r\n", hang).as("502"),
		"malformed: two lengths":   speak("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", hang).as("502"),
		"malformed: a length less": speak("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", hang).as("502"),
		"malformed: both":          speak("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", hang).as("502"),
		"malformed: a folded line": speak("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a\r\n b\r\n\r\nok", hang).as("502"),
		"malformed: no name":       speak("HTTP/1.1 200 OK\r\n: x\r\n\r\n", hang).as("502"),
		"malformed: a chunk":       speak("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", hang).as(cut),
		"speaks HTTP/2":            {serve: func(c net.Conn) { _, _ = io.WriteString(c, settings); hang(c) }, want: "502"},
		"speaks TLS":               {serve: speaksTLS, want: "502"},
		"says an alert":            speak(alert, nil).as("502"),
	}
}

// badServer is one that does something wrong, or is not there.
type badServer struct {
	serve func(net.Conn)
	want  string // how an answer ends
	plain string // and to clients of HTTP/1.1, if that differs
}

func (b badServer) as(want string) badServer { b.want = want; return b }

func (b badServer) start(t *testing.T, which int) string {
	t.Helper()
	if b.serve == nil {
		return fmt.Sprintf("127.0.0.%d:1", which) // where nobody listens
	}
	return rawServer(t, b.serve)
}

func speaksTLS(c net.Conn) {
	ca, err := certs.NewCA("test")
	if err != nil {
		return
	}
	cert, err := ca.Server("localhost")
	if err != nil {
		return
	}
	hang(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}))
}

func badHTTP2() map[string]badServer {
	h := func(answer func(w *frameWriter, stream uint32) bool) badServer {
		return badServer{serve: frames(answer)}
	}
	ok := func(stream uint32) []byte { return fields(stream, false, ":status", "200") }
	return map[string]badServer{
		"refuses":                  {want: "502"},
		"closes at once":           {serve: func(net.Conn) {}, want: "502"},
		"resets at once":           {serve: resetConn, want: "502"},
		"speaks HTTP/1":            {serve: says("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", nil), want: "502"},
		"speaks TLS":               {serve: speaksTLS, want: "502"},
		"closes before its answer": h(func(*frameWriter, uint32) bool { return false }).as("502"),
		"resets before its answer": h(func(w *frameWriter, _ uint32) bool { resetConn(w.Conn); return false }).as("502"),
		"hangs before its answer":  h(func(*frameWriter, uint32) bool { return true }).as("504"),
		"resets in its body": h(func(w *frameWriter, s uint32) bool {
			w.send(ok(s), chunk(s, false, "hello"))
			resetConn(w.Conn)
			return false
		}).as(cut),
		"resets the stream": h(func(w *frameWriter, s uint32) bool {
			w.send(ok(s), chunk(s, false, "hello"), frame.AppendReset(nil, s, frame.InternalError))
			return true
		}).as(cut),
		"ends before its length": h(func(w *frameWriter, s uint32) bool {
			w.send(fields(s, false, ":status", "200", "content-length", "10"), chunk(s, true, "hello"))
			return true
		}).as(cut),
		"malformed: no status": h(func(w *frameWriter, s uint32) bool { w.send(fields(s, true, "x", "y")); return true }).as("502"),
		"malformed: a line": h(func(w *frameWriter, s uint32) bool {
			w.send(fields(s, true, ":status", "200", "x", "y\r\nz: w"))
			return true
		}).as("502"),
		"malformed: upper case": h(func(w *frameWriter, s uint32) bool {
			w.send(fields(s, true, ":status", "200", "X-Y", "z"))
			return true
		}).as("502"),
		"malformed: a connection": {
			serve: frames(func(w *frameWriter, s uint32) bool {
				w.send(fields(s, true, ":status", "200", "transfer-encoding", "chunked"))
				return true
			}),
			want: "502", plain: "200 ", // net/http takes the field out
		},
		"malformed: DATA first": h(func(w *frameWriter, s uint32) bool { w.send(chunk(s, true, "hello")); return true }).as("502"),
		"malformed: another frame": h(func(w *frameWriter, s uint32) bool {
			w.send(frame.Header{Type: frame.PushPromise, Stream: s}.Append(nil))
			return true
		}).as("502"),
		"goes away, and answers": h(func(w *frameWriter, s uint32) bool {
			w.send(ok(s), chunk(s, false, "hello"), frame.AppendGoAway(nil, s, frame.NoError, ""))
			time.Sleep(50 * time.Millisecond) // the rest comes behind the news
			w.send(chunk(s, true, "hello"))
			hang(w) // a close beside an unread body would be a reset, which may cost the client the rest
			return false
		}).as("200 hellohello"),
		"goes away, and does not": h(func(w *frameWriter, s uint32) bool {
			w.send(ok(s), chunk(s, false, "hello"), frame.AppendGoAway(nil, s, frame.NoError, ""))
			return false
		}).as(cut),
		"goes away without it": h(func(w *frameWriter, _ uint32) bool {
			w.send(frame.AppendGoAway(nil, 0, frame.NoError, ""))
			return false
		}).as("503"),
	}
}

// ask gives how an answer ended: its status, its body if it is 200, or that it was cut off.
func ask(t *testing.T, c *http.Client, method, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader("hello")
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return err.Error()
		}
		return cut
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	switch {
	case ctx.Err() != nil:
		return ctx.Err().Error()
	case err != nil:
		return cut
	case res.StatusCode == http.StatusOK:
		return "200 " + string(b)
	}
	return fmt.Sprint(res.StatusCode)
}

// What clients see of bad servers, in pools of two that are alike: an answer that
// says so, or one that is visibly not whole. Never one that looks whole.
func TestBadServers(t *testing.T) {
	t.Parallel()
	for scheme, list := range map[string]map[string]badServer{"http": badHTTP1(), "h2c": badHTTP2()} {
		delete(list, "goes away without it") // clients try again, see TestBadServerBesideAGoodOne
		for name, bad := range list {
			t.Run(scheme+" "+name, func(t *testing.T) {
				t.Parallel()
				_, port := sidecar(t, fmt.Sprintf(`
listen: "127.0.0.1:8443"
tls: { dev: true }
upstreams: { app: { servers: ["%s://%s", "%[1]s://%[3]s"] } }
routes: [ { path: /, to: app, answer_timeout: 1s } ]
`, scheme, bad.start(t, 1), bad.start(t, 2)))
				for version, c := range clients(port) {
					want := bad.want
					if bad.plain != "" && version == "HTTP/1.1" {
						want = bad.plain
					}
					for _, method := range []string{http.MethodGet, http.MethodPost} {
						got := ask(t, c, method, port.URL("/"))
						if got == "502" && want == cut && scheme == "h2c" && version == "HTTP/1.1" {
							continue // net/http's transport may have the error before it hands the head on: nothing of it looks whole
						}
						if got != want {
							t.Errorf("%s %s: %s, want %s", version, method, got, want)
						}
					}
				}
			})
		}
	}
}

// A server that takes nothing costs nobody a call: the other one of its pool is tried.
func TestBadServerBesideAGoodOne(t *testing.T) {
	for scheme, list := range map[string]map[string]badServer{"http": badHTTP1(), "h2c": badHTTP2()} {
		for _, name := range []string{
			"refuses", "closes at once", "resets at once", "speaks TLS", "speaks HTTP/1", "speaks HTTP/2", "goes away without it",
			"closes before its answer", "resets before its answer",
		} {
			bad, ok := list[name]
			if !ok {
				continue
			}
			t.Run(scheme+" "+name, func(t *testing.T) {
				t.Parallel()
				_, port := sidecar(t, fmt.Sprintf(`
listen: "127.0.0.1:8443"
tls: { dev: true }
upstreams: { app: { servers: ["%s://%s", "%[1]s://%[3]s"], balance: round_robin } }
routes: [ { path: /, to: app, answer_timeout: 1s } ]
`, scheme, bad.start(t, 1), behind(t)))
				for version, c := range clients(port) {
					if version == "HTTP/2.0" && scheme == "h2c" && strings.HasSuffix(name, "before its answer") {
						continue // a stream that was sent is not sent again
					}
					for range 10 {
						if got := ask(t, c, http.MethodGet, port.URL("/api/hello")); got != `200 {"message":"Hello from HTTP"}` {
							t.Errorf("%s: %s", version, got)
						}
					}
				}
			})
		}
	}
}

// The same of gRPC, which has codes of its own.
func TestBadServersOfGRPC(t *testing.T) {
	t.Parallel()
	list := badHTTP2()
	hello := func(w *frameWriter, s uint32) {
		w.send(fields(s, false, ":status", "200", "content-type", "application/grpc"), chunk(s, false, grpcMessage("hello")))
	}
	trailers := func(w *frameWriter, s uint32) { w.send(fields(s, true, "grpc-status", "0")) }
	for name, serve := range map[string]func(w *frameWriter, s uint32) bool{
		"resets in its body": func(w *frameWriter, s uint32) bool { hello(w, s); resetConn(w.Conn); return false },
		"resets the stream": func(w *frameWriter, s uint32) bool {
			hello(w, s)
			w.send(frame.AppendReset(nil, s, frame.InternalError))
			return true
		},
		"goes away, and does not": func(w *frameWriter, s uint32) bool {
			hello(w, s)
			w.send(frame.AppendGoAway(nil, s, frame.NoError, ""))
			return false
		},
		"goes away, and answers": func(w *frameWriter, s uint32) bool {
			hello(w, s)
			w.send(frame.AppendGoAway(nil, s, frame.NoError, ""))
			time.Sleep(50 * time.Millisecond) // the rest comes behind the news
			trailers(w, s)
			hang(w)
			return false
		},
		"no trailers": func(w *frameWriter, s uint32) bool { hello(w, s); w.send(chunk(s, true, "")); return true },
	} {
		list[name] = badServer{serve: frames(serve)}
	}
	delete(list, "ends before its length") // nothing gRPC knows
	for name, bad := range list {
		want := map[string]string{
			"goes away, and answers": "OK", "hangs before its answer": "DeadlineExceeded",
			"resets the stream": "Internal", "no trailers": "Internal",
		}[name]
		if want == "" {
			want = "Unavailable"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, port := sidecar(t, fmt.Sprintf(`
listen: "127.0.0.1:8443"
tls: { dev: true }
upstreams: { rpc: { servers: ["grpc://%s", "grpc://%s"] } }
routes: [ { grpc: "*", to: rpc, call_timeout: 1s } ]
`, bad.start(t, 1), bad.start(t, 2)))
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			res, err := echov1.NewEchoClient(port.GRPC()).Unary(ctx, &echov1.UnaryRequest{Message: "hello"})
			if got := status.Code(err).String(); got != want || err == nil && res.GetMessage() != "hello" {
				t.Errorf("%v, %v, want %s", res, err, want)
			}
		})
	}
}

const upgraded = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

// The same of WebSockets.
func TestBadServersOfWebSockets(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]badServer{
		"refuses":                      {want: "502"},
		"closes before its answer":     {serve: says("", nil), want: "502"},
		"malformed":                    {serve: says("garbage\r\n\r\n", hang), want: "502"},
		"speaks HTTP/2":                {serve: says(settings, nil), want: "502"},
		"speaks TLS":                   {serve: speaksTLS, want: "502"},
		"says no":                      {serve: says("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", nil), want: "403"},
		"is no WebSocket server":       {serve: says(head200+"hellohello", nil), want: "200"}, // which is no session
		"closes without a close frame": {serve: says(upgraded+"\x81\x05hello", nil), want: "hello 1011"},
		"resets without one":           {serve: says(upgraded+"\x81\x05hello", resetConn), want: "hello 1011"},
		"closes within a frame":        {serve: says(upgraded+"\x81\x05hello\x81\x05he", nil), want: "hello 1006"},
		"breaks the protocol":          {serve: says(upgraded+"\x81\x05hello\x83\x00", hang), want: "hello 1002"},
		"closes as it should":          {serve: says(upgraded+"\x81\x05hello\x88\x02\x03\xe8", hang), want: "hello 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, port := sidecar(t, fmt.Sprintf(`
listen: "127.0.0.1:8443"
tls: { dev: true }
upstreams: { app: { servers: ["http://%s", "http://%s"] } }
routes: [ { websocket: /, to: app } ]
`, bad.start(t, 1), bad.start(t, 2)))
			if got := talk(t, port, "/ws"); got != bad.want {
				t.Errorf("%s, want %s", got, bad.want)
			}
		})
	}
}

// talk gives what a WebSocket says until it ends, and how it does. The key is that of the
// answer in upgraded, so that no client of gorilla's would do.
func talk(t *testing.T, port *oneporttest.Port, path string) string {
	t.Helper()
	c := port.DialTLS("http/1.1")
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: "+oneporttest.Name+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		return err.Error()
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Sprint(res.StatusCode)
	}
	text := ""
	for {
		var head [2]byte
		if _, err := io.ReadFull(br, head[:]); err != nil {
			return fmt.Sprint(text, " ", websocket.CloseAbnormalClosure)
		}
		payload := make([]byte, head[1]) // short, and not masked
		if _, err := io.ReadFull(br, payload); err != nil {
			return fmt.Sprint(text, " ", websocket.CloseAbnormalClosure)
		}
		if head[0] == 0x88 && len(payload) >= 2 {
			return fmt.Sprint(text, " ", binary.BigEndian.Uint16(payload))
		}
		text += string(payload)
	}
}
