package router_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/upstream"
)

// A request to a server of HTTP/1.1 before which the port stands, client and server
// included.
func BenchmarkHTTP1Upstream(b *testing.B) {
	answer := bytes.Repeat([]byte("x"), 64<<10)
	far := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/large" {
			_, _ = w.Write(answer)
			return
		}
		_, _ = io.WriteString(w, "hello")
	})}
	ln := localhost(b)
	go func() { _ = far.Serve(ln) }()
	b.Cleanup(func() { _ = far.Close() })
	up, err := upstream.New("http://"+ln.Addr().String(), upstream.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(up.Close)
	port := oneporttest.Listen(b, &router.Server{Log: slog.New(slog.DiscardHandler), Routes: []router.Route{{Path: "/", To: up}}})
	for name, c := range map[string]*http.Client{"1.1": port.HTTP1(), "2": port.HTTP2()} {
		if tr, ok := c.Transport.(*http.Transport); ok {
			tr.MaxIdleConnsPerHost = 100
		}
		for path, size := range map[string]int{"/small": 5, "/large": 5 + len(answer)} {
			b.Run("HTTP "+name+path, func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.SetParallelism(16)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						res, err := c.Post(port.URL(path), "text/plain", bytes.NewReader([]byte("hello")))
						if err != nil {
							b.Error(err)
							return
						}
						_, _ = io.Copy(io.Discard, res.Body)
						_ = res.Body.Close()
					}
				})
			})
		}
	}
}
