package router_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/oneport-edge/oneport/oneporttest"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
)

// h2client speaks REST and gRPC over one HTTP/2 connection, which neither
// net/http's client nor grpc-go's alone can: gRPC is framed by hand.
type h2client struct {
	http *http.Client
	url  func(string) string
}

// sharedH2 gives a client that fails the test if it ever needs a second connection.
func sharedH2(t *testing.T, port *oneporttest.Port) *h2client {
	t.Helper()
	c := port.HTTP2()
	tr, ok := c.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("transport is a %T", c.Transport)
	}
	dial := tr.DialContext
	var once sync.Mutex
	dialed := false
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		once.Lock()
		defer once.Unlock()
		if dialed {
			return nil, errors.New("a second connection")
		}
		dialed = true
		return dial(ctx, network, addr)
	}
	return &h2client{c, port.URL}
}

// frame puts a message behind gRPC's five-byte prefix.
func frame(m proto.Message) ([]byte, error) {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...), nil
}

// unframe reads one message.
func unframe(r io.Reader, m proto.Message) error {
	var prefix [5]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return err
	}
	b := make([]byte, binary.BigEndian.Uint32(prefix[1:]))
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return proto.Unmarshal(b, m)
}

func (c *h2client) post(ctx context.Context, method string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url("/oneport.echo.v1.Echo/"+method), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	return c.http.Do(req)
}

func code(res *http.Response) codes.Code {
	s := res.Trailer.Get("Grpc-Status")
	if s == "" {
		s = res.Header.Get("Grpc-Status") // trailers-only
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return codes.Unknown
	}
	return codes.Code(n)
}

func (c *h2client) unary(t *testing.T, msg string) (string, codes.Code) {
	body, err := frame(&echov1.UnaryRequest{Message: msg})
	if err != nil {
		t.Error(err)
		return "", codes.Unknown
	}
	res, err := c.post(t.Context(), "Unary", bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return "", codes.Unknown
	}
	defer res.Body.Close()
	var answer echov1.UnaryResponse
	err = unframe(res.Body, &answer)
	_, _ = io.Copy(io.Discard, res.Body) // to the trailers
	if err != nil && code(res) == codes.OK {
		t.Error(err)
	}
	return answer.GetMessage(), code(res)
}

// bidi has a ping-pong of n messages.
func (c *h2client) bidi(t *testing.T, n int) error {
	r, w := io.Pipe()
	turn := make(chan struct{}, 1) // the answer came: send the next
	turn <- struct{}{}
	go func() { // ends with the body, or with the pipe's reader
		for i := range n {
			<-turn
			body, err := frame(&echov1.BidiRequest{Message: fmt.Sprint("bidi ", i)})
			if err == nil {
				_, err = w.Write(body)
			}
			if err != nil {
				_ = w.CloseWithError(err) // a pipe's never fails
				return
			}
		}
		<-turn
		_ = w.Close()
	}()
	// grpc-go sends no header before its first message, so Do waits for that.
	res, err := c.post(t.Context(), "Bidi", r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	for i := range n {
		var answer echov1.BidiResponse
		if err := unframe(res.Body, &answer); err != nil {
			return err
		}
		if want := fmt.Sprint("bidi ", i); answer.GetMessage() != want {
			return fmt.Errorf("bidi: got %q, want %q", answer.GetMessage(), want)
		}
		turn <- struct{}{}
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if got := code(res); got != codes.OK {
		return fmt.Errorf("bidi: ended with %v", got)
	}
	return nil
}

// closeCode is the close code that a gorilla client saw, or 0.
func closeCode(err error) int {
	if ce, ok := errors.AsType[*websocket.CloseError](err); ok {
		return ce.Code
	}
	return 0
}
