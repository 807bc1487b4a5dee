package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/proxy"
)

const (
	// answerTimeout is how long a server may take to the head of its answer, where
	// a route does not say.
	answerTimeout = 60 * time.Second
	idleTimeout   = 60 * time.Second
	mostIdle      = 256
)

// newTransport is net/http's way to a server.
func newTransport(at target, cfg *tls.Config) *http.Transport {
	t := &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return at.dial(ctx) },
		TLSClientConfig:     cfg,
		TLSHandshakeTimeout: at.timeout,
		IdleConnTimeout:     idleTimeout,
		MaxIdleConnsPerHost: mostIdle,
		DisableCompression:  true, // what the client asked for, and the server answers, goes through
		Protocols:           new(http.Protocols),
	}
	switch at.scheme {
	case schemeH2C, schemeGRPC:
		t.Protocols.SetUnencryptedHTTP2(true)
	case schemeGRPCS:
		t.Protocols.SetHTTP2(true)
	default:
		t.Protocols.SetHTTP1(true)
	}
	return t
}

// Changes are what a route does to the heads of a request and its answer, which may
// be nil, and how long the server may take to that: 0 for a minute.
type Changes struct {
	Request       func(*http.Request)
	Response      func(http.Header)
	AnswerTimeout time.Duration
}

// flushAfter is how long what a server has sent of an answer may wait for more of it.
const flushAfter = 20 * time.Millisecond

// newReverse hands requests on that came by HTTP/1 to a server that speaks HTTP/2
// alone. What is wrong is found in the request's context.
func newReverse(at target, transport http.RoundTripper, log *slog.Logger) *httputil.ReverseProxy {
	to := at.base()
	return &httputil.ReverseProxy{
		Transport:     transport,
		BufferPool:    &buffers,
		FlushInterval: flushAfter,
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(to)
			pr.Out.Host = pr.In.Host
			if call := protocols.CallFrom(pr.In.Context()); call != nil {
				for _, name := range []string{"X-Forwarded-Proto", "X-Forwarded-Host"} { // a trusted proxy's, or nothing
					if v := pr.In.Header[name]; v != nil {
						pr.Out.Header[name] = v
					}
				}
				before := strings.Join(pr.In.Header.Values("X-Forwarded-For"), ", ")
				forward(headerFields{pr.Out.Header}, before, call, spanOf(pr.In.Context(), call))
				if shown := call.Shown("?" + pr.Out.URL.RawQuery); pr.Out.URL.RawQuery != "" {
					pr.Out.URL.RawQuery = strings.TrimPrefix(shown, "?")
				}
			}
		},
	}
}

// DoHTTP is Do for servers that speak HTTP/2 alone, and a request that came by HTTP/1.
func (u *Upstream) DoHTTP(w http.ResponseWriter, r *http.Request, changes Changes) *proxy.Error {
	call := protocols.CallFrom(r.Context())
	a := asking{call, r.Header.Get, spanOf(r.Context(), call)}
	fail := &proxy.Error{Busy: true, Err: errNoServer}
	u.attempt(r.Context(), &a, func(s *server) (again bool) {
		fail = s.doHTTP(w, r, changes)
		return fail != nil && againHTTP(r, fail)
	})
	return fail
}

// againHTTP reports whether a request of which nothing was answered may be sent to
// another server.
func againHTTP(r *http.Request, fail *proxy.Error) bool {
	switch {
	case fail.Client:
		return false
	case !fail.Sent:
		return true
	}
	return !fail.Timeout && r.ContentLength == 0 && idempotent(r.Method)
}

// doHTTP hands a request on to one server, which has been chosen.
func (s *server) doHTTP(w http.ResponseWriter, r *http.Request, changes Changes) (fail *proxy.Error) {
	v := unknown
	defer func() { s.ended(v) }()
	p := *s.reverse
	p.Rewrite = func(pr *httputil.ProxyRequest) {
		s.reverse.Rewrite(pr)
		if changes.Request != nil {
			changes.Request(pr.Out)
		}
	}
	ctx, patience := wait(r.Context(), cmp.Or(changes.AnswerTimeout, answerTimeout))
	defer patience.end()
	p.ModifyResponse = func(res *http.Response) error {
		patience.answered()
		if v = fine; isBad(res.StatusCode) {
			v = bad
		}
		if changes.Response != nil {
			changes.Response(res.Header)
		}
		return nil
	}
	p.ErrorHandler = func(_ http.ResponseWriter, _ *http.Request, err error) {
		var ne net.Error
		_, dialing := errors.AsType[*net.OpError](err)
		if tooBig, ok := errors.AsType[*http.MaxBytesError](err); ok {
			fail = &proxy.Error{Client: true, Sent: true, Err: fmt.Errorf("%w: %w", ErrTooBig, tooBig)}
			return
		}
		fail = &proxy.Error{Client: r.Context().Err() != nil, Timeout: errors.As(err, &ne) && ne.Timeout() || errors.Is(context.Cause(ctx), errSlow), Sent: !dialing || r.ContentLength != 0, Err: err}
	}
	p.ServeHTTP(w, r.WithContext(ctx))
	if fail != nil && !fail.Client {
		v = bad
		s.up.opts.Log.Warn("upstream failed", "upstream", s.up.name, "server", s.name, "err", fail.Err)
	}
	return fail
}

// RefuseHTTP answers a request that DoHTTP has not.
func RefuseHTTP(w http.ResponseWriter, r *http.Request, fail *proxy.Error) {
	if fail == nil {
		return
	}
	x := proxy.FromHTTP(w, r)
	defer x.Release()
	if status, text := Refusal(r.Context(), x, fail); status != 0 {
		x.Reply(status, text)
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
