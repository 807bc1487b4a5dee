//go:build faults

package faults

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
)

// The kinds of calls, workers of each kind, and calls a second of each worker.
var kinds = []string{"REST h1", "REST h2", "gRPC"}

const (
	workers = 8
	rate    = 25
)

// patience is how long a caller waits.
const patience = 3 * time.Second

// load is callers that call at a steady rate, whatever happens.
type load struct {
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu    sync.Mutex // guards what follows
	calls map[string][]call
}

type call struct {
	at   time.Time
	took time.Duration
	err  error
}

func newLoad(t *testing.T, ca, addr string) *load {
	t.Helper()
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	cfg := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, calls: map[string][]call{}}
	t.Cleanup(l.stop)
	for range workers {
		h1 := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg.Clone()}}
		l.run(ctx, kinds[0], l.get(h1, "https://"+addr+"/api/hello"))
	}
	h2 := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg.Clone(), ForceAttemptHTTP2: true}}
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	echo := echov1.NewEchoClient(cc)
	for range workers {
		l.run(ctx, kinds[1], l.get(h2, "https://"+addr+"/api/hello"))
		l.run(ctx, kinds[2], func(ctx context.Context) error {
			_, err := echo.Unary(ctx, &echov1.UnaryRequest{Message: "hello"})
			return err
		})
	}
	return l
}

func (l *load) get(c *http.Client, url string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		res, err := c.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("%d %s", res.StatusCode, body)
		}
		return err
	}
}

// run calls again and again. Calls that are late are not made up for.
func (l *load) run(ctx context.Context, kind string, f func(context.Context) error) {
	l.work.Go(func() {
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			at := time.Now()
			one, cancel := context.WithTimeout(ctx, patience)
			err := f(one)
			cancel()
			if ctx.Err() != nil {
				return
			}
			l.mu.Lock()
			l.calls[kind] = append(l.calls[kind], call{at, time.Since(at), err})
			l.mu.Unlock()
		}
	})
}

func (l *load) stop() {
	l.cancel()
	l.work.Wait()
}

// sum is what calls that ended in some time came to.
type sum struct {
	calls, errors int
	took          []time.Duration
}

func (l *load) between(kind string, from, to time.Time) (s sum) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.calls[kind] {
		if end := c.at.Add(c.took); end.Before(from) || !end.Before(to) {
			continue
		}
		s.calls++
		if c.err != nil {
			s.errors++
		}
		s.took = append(s.took, c.took)
	}
	slices.Sort(s.took)
	return s
}

func (s sum) p99() time.Duration {
	if len(s.took) == 0 {
		return 0
	}
	return s.took[len(s.took)*99/100]
}

func (s sum) share() string {
	return fmt.Sprintf("%d of %d", s.errors, s.calls)
}

// example is the last error of a kind.
func (l *load) example(kind string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range slices.Backward(l.calls[kind]) {
		if c.err != nil {
			return fmt.Sprintf("after %v: %v", c.took, c.err)
		}
	}
	return ""
}
