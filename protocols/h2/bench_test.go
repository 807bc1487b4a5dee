package h2_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols/h2"
)

// dialed returns a gRPC client of the switch.
func (r *realSwitch) dialed(b *testing.B) echov1.EchoClient {
	b.Helper()
	cc, err := grpc.NewClient("passthrough:///switch", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return r.connect() }))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cc.Close() })
	return echov1.NewEchoClient(cc)
}

func benched(b *testing.B) *realSwitch {
	b.Helper()
	r := newRealSwitch(h2.Limits{}, false)
	b.Cleanup(r.close)
	return r
}

// A gRPC call through the switch, client and server included.
func BenchmarkUnary(b *testing.B) {
	r := benched(b)
	client := r.dialed(b)
	req := &echov1.UnaryRequest{Message: "hello"}
	call := func() {
		if _, err := client.Unary(b.Context(), req); err != nil {
			b.Error(err)
		}
	}
	call()
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call()
		}
	})
	b.Run("64", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				call()
			}
		})
	})
}

// A message of 64 KiB there and back, on one stream.
func BenchmarkBidi64KiB(b *testing.B) {
	r := benched(b)
	st, err := r.dialed(b).Bidi(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	req := &echov1.BidiRequest{Message: string(bytes.Repeat([]byte("x"), 64<<10))}
	b.SetBytes(2 * 64 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if err := st.Send(req); err != nil {
			b.Fatal(err)
		}
		if _, err := st.Recv(); err != nil {
			b.Fatal(err)
		}
	}
}

// A request of net/http's, with a body of 64 KiB that comes back.
func BenchmarkREST64KiB(b *testing.B) {
	r := benched(b)
	tr := &http.Transport{
		Protocols:   new(http.Protocols),
		DialContext: func(context.Context, string, string) (net.Conn, error) { return r.connect() },
	}
	tr.Protocols.SetUnencryptedHTTP2(true)
	b.Cleanup(tr.CloseIdleConnections)
	body := bytes.Repeat([]byte("x"), 64<<10)
	b.SetBytes(int64(2 * len(body)))
	b.ReportAllocs()
	for b.Loop() {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://a.test/", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		res, err := tr.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, res.Body); err != nil || n != int64(len(body)) {
			b.Fatal(n, err)
		}
		_ = res.Body.Close()
	}
}
