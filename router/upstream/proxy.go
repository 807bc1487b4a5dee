package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

const (
	// answerTimeout is how long a server may take to the head of its answer.
	answerTimeout = 60 * time.Second
	idleTimeout   = 60 * time.Second
	mostIdle      = 256
)

// newTransport is how net/http reaches a server that speaks HTTP/2 alone, for
// requests that came by HTTP/1.
func newTransport(at target, cfg *tls.Config) *http.Transport {
	t := &http.Transport{
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return at.dial(ctx) },
		TLSClientConfig:       cfg,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: answerTimeout,
		IdleConnTimeout:       idleTimeout,
		MaxIdleConnsPerHost:   mostIdle,
		DisableCompression:    true, // what the client asked for, and the server answers, goes through
		Protocols:             new(http.Protocols),
	}
	switch at.scheme {
	case schemeH2C, schemeGRPC:
		t.Protocols.SetUnencryptedHTTP2(true)
	case schemeGRPCS:
		t.Protocols.SetHTTP2(true)
	}
	return t
}

// newProxy hands requests on that net/http has taken.
func newProxy(name string, at target, transport http.RoundTripper, log *slog.Logger) http.Handler {
	to := &url.URL{Scheme: schemeHTTP, Host: at.addr}
	if at.scheme == schemeGRPCS {
		to.Scheme = schemeHTTPS
	}
	if at.network == networkUnix {
		to.Host = "localhost"
	}
	return &httputil.ReverseProxy{
		Transport:  transport,
		BufferPool: &buffers,
		ErrorLog:   slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(to)
			pr.Out.Host = pr.In.Host
			pr.Out.Header["X-Forwarded-For"] = pr.In.Header["X-Forwarded-For"] // a trusted proxy's, or nothing
			pr.SetXForwarded()
			if call := protocols.CallFrom(pr.In.Context()); call != nil {
				pr.Out.Header.Set("X-Request-ID", call.RequestID())
			}
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				panic(http.ErrAbortHandler) // the client has left
			}
			log.Warn("upstream failed", "upstream", name, "err", err)
			var timeout net.Error
			if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
				http.Error(w, textTimeout, http.StatusGatewayTimeout)
				return
			}
			http.Error(w, textUnreachable, http.StatusBadGateway)
		},
	}
}

// bufferPool lends buffers for bodies.
type bufferPool struct{ sync.Pool }

var buffers = bufferPool{sync.Pool{New: func() any { return new([32 << 10]byte) }}}

func (p *bufferPool) Get() []byte {
	b, _ := p.Pool.Get().(*[32 << 10]byte)
	return b[:]
}

func (p *bufferPool) Put(b []byte) { p.Pool.Put((*[32 << 10]byte)(b)) }
