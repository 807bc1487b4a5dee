package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Health says how servers are asked whether they are well. The zero value is not
// at all: only what calls meet counts then (Eject).
type Health struct {
	// Path is asked for with GET; any status from 200 to 399 is well.
	Path string
	// Host is the Host field of that; "" for the server's own.
	Host string
	// GRPC calls grpc.health.v1.Health/Check for Service instead; SERVING is well.
	GRPC    bool
	Service string
	// TCP only connects, and shakes hands if there is TLS.
	TCP bool
	// Every is how often a server is asked, give or take a tenth. Zero means 5 s.
	Every time.Duration
	// Timeout is how long it may take. Zero means 2 s, or Every if that is less.
	Timeout time.Duration
	// Unhealthy is after how many failures in a row a server gets no calls
	// any more, Healthy after how many successes it does again. The first time it is
	// asked, once is enough. Zero means 3 and 2.
	Unhealthy, Healthy int
}

func (h *Health) wanted() bool { return h.Path != "" || h.GRPC || h.TCP }

// watch asks a server again and again until ctx ends.
func (u *Upstream) watch(ctx context.Context, s *server) {
	h := &u.opts.Health
	transport := newTransport(s.target, s.tls.Clone())
	defer transport.CloseIdleConnections()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var row int // successes in a row, or failures if negative
	for first := true; ; first = false {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		err := s.ask(ctx, h, transport)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			row = max(row, 0) + 1
		default:
			row = min(row, 0) - 1
		}
		switch {
		case row > 0 && (first || row >= h.Healthy):
			u.setSick(s, false, nil)
		case row < 0 && (first || -row >= h.Unhealthy):
			u.setSick(s, true, err)
		}
		timer.Reset(h.Every*9/10 + rand.N(h.Every/5))
	}
}

// setSick takes note of what the health check says.
func (u *Upstream) setSick(s *server, sick bool, why error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s.sick == sick {
		return
	}
	s.sick = sick
	now := time.Now()
	if sick {
		u.opts.Log.Warn("server is not well", "upstream", u.name, "server", s.name, "err", why)
	} else {
		s.since.Store(now.UnixNano())
		u.opts.Log.Info("server is well again", "upstream", u.name, "server", s.name)
	}
	u.renewLocked(now)
}

// ask asks a server whether it is well.
func (s *server) ask(ctx context.Context, h *Health, transport http.RoundTripper) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	if h.TCP {
		return s.connects(ctx)
	}
	req, err := s.question(ctx, h)
	if err != nil {
		return err
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	const most = 64 << 10
	body, err := io.ReadAll(io.LimitReader(res.Body, most))
	if h.GRPC {
		return serving(res, body, err)
	}
	if res.StatusCode < 200 || res.StatusCode >= 400 {
		return fmt.Errorf("%s answers %d", h.Path, res.StatusCode)
	}
	return err
}

// connects opens a connection and closes it.
func (s *server) connects(ctx context.Context) error {
	dial := s.dialHTTP1
	if s.target.http2() {
		dial = s.target.dialH2(s.tls)
	}
	nc, err := dial(ctx)
	if err == nil {
		_ = nc.Close() // it has connected, that is all
	}
	return err
}

const grpcHealth = "/grpc.health.v1.Health/Check"

// question is the request that a server is asked with.
func (s *server) question(ctx context.Context, h *Health) (*http.Request, error) {
	to := s.target.base()
	if !h.GRPC {
		path, err := url.ParseRequestURI(h.Path)
		if err != nil {
			return nil, err
		}
		to.Path, to.RawPath, to.RawQuery = path.Path, path.RawPath, path.RawQuery
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
		if err == nil {
			req.Host = h.Host
			req.Header.Set("User-Agent", "oneport-health")
		}
		return req, err
	}
	to.Path = grpcHealth
	message := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), h.Service)
	prefixed := append([]byte{0, 0, 0, 0, byte(len(message))}, message...) // a service's name is shorter than 256 bytes
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(prefixed))
	if err == nil {
		req.Host = h.Host
		req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"oneport-health"}}
	}
	return req, err
}

// serving reads the answer of grpc.health.v1.Health/Check.
func serving(res *http.Response, body []byte, err error) error {
	status := res.Trailer.Get("Grpc-Status")
	if status == "" {
		status = res.Header.Get("Grpc-Status")
	}
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answers %d", grpcHealth, res.StatusCode)
	case status != "0":
		return fmt.Errorf("%s answers status %q %s", grpcHealth, status, res.Trailer.Get("Grpc-Message"))
	case len(body) < 5 || body[0] != 0:
		return errors.New(grpcHealth + " answers without a message")
	}
	for b := body[5:]; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if num == 1 && typ == protowire.VarintType {
			v, n := protowire.ConsumeVarint(b)
			if n > 0 && v == 1 {
				return nil
			}
			return fmt.Errorf("%s answers %d, not SERVING", grpcHealth, v)
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
	}
	return errors.New(grpcHealth + " answers UNKNOWN")
}
