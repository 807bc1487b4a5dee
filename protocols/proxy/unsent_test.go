package proxy_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/oneport-edge/oneport/protocols/proxy"
)

// deaf is a connection that was reset before anything was written.
type deaf struct{ net.Conn }

func (deaf) Write([]byte) (int, error) { return 0, errors.New("connection reset by peer") }

// What no server has got, another one may have: with the body that was read already.
func TestUnsentBodyIsGivenBack(t *testing.T) {
	c := proxy.New(proxy.Config{Dial: func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		t.Cleanup(func() { _ = far.Close() })
		return deaf{near}, nil
	}})
	defer c.Close()
	x := ask("POST", "/").with("hello", 5)
	err := c.Do(t.Context(), x)
	fail, ok := errors.AsType[*proxy.Error](err)
	if !ok || fail.Sent || fail.Client || string(x.back) != "hello" {
		t.Errorf("%+v, %q given back", err, x.back)
	}
}
