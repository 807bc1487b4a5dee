package h2_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
	"github.com/oneport-edge/oneport/protocols/nbio"
)

// On real sockets, with writes that do not wait: clients of net/http send and
// get bodies through a few connections upstream, beside clients that read nothing.
func TestUpstreamOnSockets(t *testing.T) {
	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	front, behind := listen(), listen()
	server := &http.Server{
		Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sum := sha256.New()
			_, _ = io.Copy(io.MultiWriter(w, sum), r.Body)
			w.Header().Set(http.TrailerPrefix+"Sum", fmt.Sprintf("%x", sum.Sum(nil)))
		}),
	}
	server.Protocols.SetUnencryptedHTTP2(true)
	up := h2.NewUpstream(h2.UpstreamConfig{
		Limits: h2.UpstreamLimits{Conns: 2, Streams: 20, Wait: time.Minute},
		Dial: func(ctx context.Context) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, "tcp", behind.Addr().String())
			if err != nil {
				return nil, err
			}
			return nbio.Wrap(nc), nil
		},
	})
	sw := h2.New(h2.Config{Route: func(*h2.Request, *protocols.Conn) h2.Backend { return up }})
	var work sync.WaitGroup
	work.Go(func() { _ = server.Serve(behind) })
	work.Go(func() {
		for {
			nc, err := front.Accept()
			if err != nil {
				return
			}
			sw.Serve(nbio.Wrap(nc))
		}
	})
	defer func() {
		_ = front.Close()
		sw.Close()
		up.Close()
		_ = server.Close()
		work.Wait()
	}()

	for range 2 { // clients that read nothing of what comes back
		nc, err := new(net.Dialer).DialContext(t.Context(), "tcp", front.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		s := say().settings(frame.Setting{ID: frame.InitialWindowSize, Value: 1 << 30}).window(0, 1<<30)
		for id := uint32(1); id < 20; id += 2 {
			s.post(id)
			for range 6 {
				s.data(id, make([]byte, 1<<14), false)
			}
		}
		_, _ = nc.Write(s.whole())
	}
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	want := fmt.Sprintf("%x", sha256.Sum256(body))
	var clients sync.WaitGroup
	for range 4 {
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetUnencryptedHTTP2(true)
		defer transport.CloseIdleConnections()
		for range 8 {
			clients.Go(func() {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+front.Addr().String()+"/", bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				res, err := transport.RoundTrip(r)
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				got, err := io.ReadAll(res.Body)
				if sum := res.Trailer.Get("Sum"); err != nil || !bytes.Equal(got, body) || sum != want {
					t.Errorf("%s, %d bytes, sum %q, %v", res.Status, len(got), sum, err)
				}
			})
		}
	}
	clients.Wait()
}
