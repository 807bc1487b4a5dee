package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/protocols/proxy"
)

// canned is a connection whose server has sent all that it will, and that comes
// in pieces of a size.
type canned struct {
	net.Conn // nil

	says []byte
	step int
}

func (c *canned) Read(p []byte) (int, error) {
	if len(c.says) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.step)], c.says)
	c.says = c.says[n:]
	return n, nil
}

func (c *canned) Write(p []byte) (int, error)      { return len(p), nil }
func (c *canned) Close() error                     { return nil }
func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

// answers gives what comes of an answer.
func answers(t *testing.T, method string, says []byte, step int) (*asked, *proxy.Error) {
	t.Helper()
	c := proxy.New(proxy.Config{Dial: func(context.Context) (net.Conn, error) { return &canned{says: says, step: step}, nil }})
	defer c.Close()
	x := ask(method, "/")
	return x, errorOf(t, c.Do(t.Context(), x))
}

// FuzzAnswer: what is taken for a whole answer net/http takes for the same, and
// it is the same however it comes.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Sum\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nSum: 42\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nto the end",
		"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nConnection: x\r\nX: y\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
		"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
	} {
		f.Add([]byte(s), uint8(1), false)
		f.Add([]byte(s), uint8(255), true)
	}
	f.Fuzz(func(t *testing.T, says []byte, step uint8, head bool) {
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		x, fail := answers(t, method, says, 1<<20)
		y, again := answers(t, method, says, int(step)+1)
		if (fail == nil) != (again == nil) || x.status != y.status || x.whole != y.whole || x.aborted != y.aborted || fail == nil && x.got.String() != y.got.String() {
			t.Fatalf("%v, %+v\n%v, %+v", fail, x, again, y)
		}
		if x.whole != (fail == nil) || x.aborted && x.whole || fail != nil && fail.Answered != (x.status != 0) {
			t.Fatalf("%+v, %+v", fail, x)
		}
		if fail != nil {
			return
		}
		br := bufio.NewReader(bytes.NewReader(says))
		for {
			res, err := http.ReadResponse(br, &http.Request{Method: method})
			if err != nil {
				if strings.Contains(err.Error(), "bad trailer key") { // it minds what is announced
					return
				}
				t.Fatalf("net/http does not take it: %v", err)
			}
			if res.StatusCode < 200 {
				continue
			}
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != x.status || string(body) != x.got.String() {
				t.Fatalf("net/http has %d, %q, %v; this %d, %q", res.StatusCode, body, err, x.status, x.got.String())
			}
			for _, f := range x.trail {
				if len(res.Trailer.Values(f.Name)) == 0 {
					t.Fatalf("net/http has trailers %v; this %v", res.Trailer, x.trail)
				}
			}
			return
		}
	})
}
