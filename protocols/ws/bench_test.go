package ws_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/protocols/ws"
)

var benchModes = []struct {
	name string
	mode ws.Mode
}{{"raw", ws.Raw}, {"aware", ws.Aware}}

// benchTunnel is a client with TLS before a plaintext server that sends bytes back:
// frames of the client's with their masks taken off, which is done in place.
func benchTunnel(b *testing.B, mode ws.Mode, message int) (open func() net.Conn) {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	reply := serverFrame(message)
	request := clientFrame(message)
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, switching(r.Header.Get("Sec-WebSocket-Key")))
		buf := make([]byte, len(request))
		for {
			if _, err := io.ReadFull(brw, buf); err != nil {
				return
			}
			if _, err := c.Write(reply); err != nil {
				return
			}
		}
	})}
	go srv.Serve(ln)
	b.Cleanup(func() { srv.Close() })

	sessions := ws.NewServer(nil)
	edge := httptest.NewTLSServer(sessions.Tunnel(ws.TunnelOptions{
		Relay: ws.Relay{Mode: mode, MessageBytes: 1 << 20},
		Dial: func(ctx context.Context, _ *http.Request) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
		},
	}))
	b.Cleanup(edge.Close)
	config := edge.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	return func() net.Conn {
		c, err := tls.Dial("tcp", edge.Listener.Addr().String(), config)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		io.WriteString(c, handshake)
		head := make([]byte, 0, 512)
		for one := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, one...) {
			if _, err := c.Read(one); err != nil {
				b.Fatal(err)
			}
		}
		return c
	}
}

func clientFrame(n int) []byte { return append(frameHead(n, 0x80), make([]byte, n+4)...) }
func serverFrame(n int) []byte { return append(frameHead(n, 0), make([]byte, n)...) }

func frameHead(n int, mask byte) []byte {
	switch {
	case n < 126:
		return []byte{0x82, byte(n) | mask}
	case n < 1<<16:
		return []byte{0x82, 126 | mask, byte(n >> 8), byte(n)}
	}
	return []byte{0x82, 127 | mask, 0, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// An echo through a tunnel: TLS on the client's side, none on the other. The client and
// the server are in the process, and the same in each mode. cpu-us/op is the process's.
func BenchmarkTunnelEcho(b *testing.B) {
	for _, size := range []int{64, 64 << 10} {
		for _, m := range benchModes {
			b.Run(fmt.Sprintf("%s/%dB", m.name, size), func(b *testing.B) {
				c := benchTunnel(b, m.mode, size)()
				request, reply := clientFrame(size), make([]byte, len(serverFrame(size)))
				b.ReportAllocs()
				before := cpuTime()
				for b.Loop() {
					if _, err := c.Write(request); err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadFull(c, reply); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-us/op")
			})
		}
	}
}

// The memory of tunnels that are idle, with their clients and servers, which are
// measured without a tunnel between them, too: "none".
func BenchmarkTunnelIdle(b *testing.B) {
	const tunnels = 2000
	for _, m := range benchModes {
		b.Run(m.name, func(b *testing.B) {
			open := benchTunnel(b, m.mode, 64)
			request, reply := clientFrame(64), make([]byte, len(serverFrame(64)))
			for b.Loop() {
				before := inUse()
				for range tunnels {
					c := open()
					c.Write(request)
					io.ReadFull(c, reply)
				}
				b.ReportMetric(float64(inUse()-before)/tunnels, "B/tunnel")
			}
		})
	}
}

func inUse() uint64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
