package redisstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/router/limit"
)

var tenPerHour = limit.Rate{Calls: 10, Every: time.Hour}

// take takes one call, with a second to do it.
func take(t *testing.T, s *Store, key string, rate limit.Rate, burst, n int) (bool, time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	ok, retry, err := s.Take(ctx, key, rate, burst, n)
	if err != nil {
		t.Fatal(err)
	}
	return ok, retry
}

func TestTake(t *testing.T) {
	r := startRedis(t)
	a, b := r.open(t), r.open(t)
	for i := range 3 {
		if ok, retry := take(t, []*Store{a, b}[i%2], "api id alice", tenPerHour, 3, 1); !ok || retry != 0 {
			t.Fatalf("%d: %v, %s", i, ok, retry)
		}
	}
	for _, s := range []*Store{a, b} {
		if ok, retry := take(t, s, "api id alice", tenPerHour, 3, 1); ok || retry > 6*time.Minute || retry < 6*time.Minute-10*time.Second {
			t.Errorf("%v, %s", ok, retry)
		}
	}
	if ok, _ := take(t, a, "api id bob", tenPerHour, 3, 3); !ok {
		t.Error("three at once are refused")
	}
	if ok, retry := take(t, a, "api id bob", tenPerHour, 3, 2); ok || retry > 6*time.Minute {
		t.Errorf("%v, %s", ok, retry)
	}
	if ok, _ := take(t, a, "api id bob", tenPerHour, 3, 0); !ok {
		t.Error("a look is refused")
	}
	// One that it may have, and three that it has had: those are owed.
	if ok, _ := take(t, a, "api id carol", tenPerHour, 3, 4); !ok {
		t.Error("refused")
	}
	if ok, retry := take(t, a, "api id carol", tenPerHour, 3, 1); ok || retry <= 6*time.Minute || retry > 12*time.Minute {
		t.Errorf("%v, %s", ok, retry)
	}

	// A key goes when it owes nothing any more.
	if ttl := time.Duration(r.number(t, `PTTL "oneport:limit:api id alice"`)) * time.Millisecond; ttl > 18*time.Minute || ttl < 18*time.Minute-10*time.Second {
		t.Errorf("kept for %s", ttl)
	}
	if ok, _ := take(t, a, "looked at", tenPerHour, 3, 0); !ok || r.number(t, `EXISTS "oneport:limit:looked at"`) != 0 {
		t.Error("a look leaves a key")
	}

	// Under another limit nobody owes more than that allows.
	if ok, retry := take(t, a, "api id alice", limit.Rate{Calls: 10, Every: time.Second}, 3, 1); ok || retry > 400*time.Millisecond {
		t.Errorf("%v, %s", ok, retry)
	}
	// What is no number, nobody knows from where, is as if it was not there.
	r.ask(t, `SET "oneport:limit:odd" x`)
	if ok, _ := take(t, a, "odd", tenPerHour, 1, 1); !ok {
		t.Error("refused")
	}
	for _, bad := range []struct{ burst, n int }{{0, 0}, {1, 3}, {1, -1}} {
		if _, _, err := a.Take(t.Context(), "k", tenPerHour, bad.burst, bad.n); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
	if _, _, err := a.Take(t.Context(), "k", limit.Rate{}, 1, 1); err == nil {
		t.Error("no rate, no error")
	}
}

// Fractions of a microsecond count: an interval that was cut would let in more.
func TestTakeIsExact(t *testing.T) {
	r := startRedis(t)
	s := r.open(t)
	const burst = 10_000
	rate := limit.Rate{Calls: 300_000, Every: time.Second} // 3.33 us
	before := time.Now()
	for range 2 { // they owe a burst when they have had one
		for ok, _ := take(t, s, "k", rate, burst, burst); !ok; ok, _ = take(t, s, "k", rate, burst, burst) {
		}
	}
	_, retry := take(t, s, "k", rate, burst, 1)
	owed, passed := burst*time.Second/300_000, time.Since(before)
	if retry > owed+time.Millisecond || retry < owed-passed-time.Millisecond {
		t.Errorf("retry after %s, %s are owed, and %s have passed", retry, owed, passed)
	}
}

func TestScriptIsForgotten(t *testing.T) {
	r := startRedis(t)
	s := r.open(t)
	for i := range 3 {
		if ok, _ := take(t, s, "k", tenPerHour, 3, 1); !ok {
			t.Errorf("%d: refused", i)
		}
		if got := r.ask(t, "SCRIPT FLUSH"); got != "+OK" {
			t.Fatal(got)
		}
	}
	if ok, _ := take(t, s, "k", tenPerHour, 3, 1); ok {
		t.Error("one too many")
	}
}

func TestPasswords(t *testing.T) {
	const good, bad = "right-horse", "wrong-horse"
	r := startRedis(t, "--requirepass", good)
	for _, o := range []Options{
		{URL: "unix://" + r.socket, Password: good},
		{URL: "unix://:" + good + "@" + r.socket},
		{URL: "unix://default:" + bad + "@" + r.socket + "?db=3", Password: good},
	} {
		if ok, _ := take(t, open(t, o), "k", limit.Rate{Calls: 1000, Every: time.Second}, 1000, 1); !ok {
			t.Error("refused")
		}
	}
	for _, o := range []Options{
		{URL: "unix://" + r.socket},
		{URL: "unix://" + r.socket, Password: bad},
		{URL: "unix://:" + bad + "@" + r.socket},
	} {
		s := open(t, o)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, _, err := s.Take(ctx, "k", tenPerHour, 1, 1)
			cancel()
			if err == nil || strings.Contains(err.Error(), "horse") || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
		}
	}
}

func TestURLs(t *testing.T) {
	for url, want := range map[string]string{
		"redis://127.0.0.1:6380/2":   "127.0.0.1:6380",
		"redis://redis":              "redis:6379",
		"redis://[::1]":              "[::1]:6379",
		"rediss://user:pw@redis.a/0": "redis.a:6379",
		"unix:///run/redis.sock":     "/run/redis.sock",
	} {
		c, err := (&Options{URL: url}).client()
		if err != nil || c.InitAddress[0] != want {
			t.Errorf("%s: %v, %v", url, c.InitAddress, err)
		}
		if strings.HasPrefix(url, "rediss") != (c.TLSConfig != nil) || c.TLSConfig != nil && c.TLSConfig.ServerName != "redis.a" {
			t.Errorf("%s: TLS %+v", url, c.TLSConfig)
		}
	}
	for _, url := range []string{
		"", "127.0.0.1:6379", "http://horse@redis", "redis://", "redis://:horse@/0", "redis://:horse@redis/x", "redis://:horse@redis/-1",
		"redis://:horse@redis:port", "redis://:horse@redis/0?addr=other", "unix://", "redis://:horse%zz@redis", "redis://:ho rse@redis",
	} {
		if s, err := Open(Options{URL: url}); err == nil || strings.Contains(err.Error(), "horse") {
			t.Errorf("%q: %v, %v", url, s, err)
		}
	}
	if _, err := Open(Options{URL: "redis://redis", TLS: &tls.Config{MinVersion: tls.VersionTLS13}}); err == nil {
		t.Error("TLS without rediss: no error")
	}
}

// Redis may be away when the port starts, and may go and come back.
func TestRedisComesLater(t *testing.T) {
	r := newRedis(t)
	s := r.open(t)
	for range 2 {
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, _, err := s.Take(ctx, "k", tenPerHour, 3, 1)
			cancel()
			if err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("nobody is there: %v", err)
			}
		}
		r.start(t)
		if ok, _ := take(t, s, "k", tenPerHour, 3, 1); !ok {
			t.Error("refused")
		}
		r.kill()
	}
}

// A call ends with its context, also while somebody connects.
func TestRedisHangs(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s := open(t, Options{URL: "redis://" + silent.Addr().String()})
	var work sync.WaitGroup
	for range 50 {
		work.Go(func() { late(t, s) })
	}
	work.Wait()
	if n := s.open.Load(); n > 50 {
		t.Errorf("%d commands are open", n)
	}

	r := startRedis(t)
	s = r.open(t)
	take(t, s, "k", tenPerHour, 3, 1)
	r.signal(t, syscall.SIGSTOP)
	for range 50 {
		work.Go(func() { late(t, s) })
	}
	work.Wait()
	r.signal(t, syscall.SIGCONT)
	take(t, s, "other", tenPerHour, 3, 1)
}

// late is a call that Redis does not answer.
func late(t *testing.T, s *Store) {
	t.Helper()
	const patience = 20 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	begun := time.Now()
	_, _, err := s.Take(ctx, "k", tenPerHour, 3, 1)
	if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took > 500*time.Millisecond {
		t.Errorf("%v after %s", err, took)
	}
}

// What Redis does not answer is bounded, and Close waits for it and not longer.
func TestNoMoreThanSomeWithoutAnAnswer(t *testing.T) {
	r := startRedis(t)
	s := r.open(t)
	s.most = 20
	take(t, s, "k", tenPerHour, 3, 1)
	r.signal(t, syscall.SIGSTOP)
	var busy atomic.Int64
	var work sync.WaitGroup
	for range 3 * s.most {
		work.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if _, _, err := s.Take(ctx, "k", tenPerHour, 3, 1); errors.Is(err, errBusy) {
				busy.Add(1)
			}
		})
	}
	work.Wait()
	if busy.Load() == 0 || s.open.Load() > s.most {
		t.Errorf("%d commands are open, %d were refused", s.open.Load(), busy.Load())
	}
	begun := time.Now()
	s.Close()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("closing took %s", took)
	}
	if _, _, err := s.Take(t.Context(), "k", tenPerHour, 3, 1); !errors.Is(err, errClosed) {
		t.Errorf("closed: %v", err)
	}
	r.signal(t, syscall.SIGCONT)
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca := certs.Dev(dir)
	if err := ca.Load(); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(ca.CACert())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close() // it is free a moment longer
	startRedis(t, "--tls-port", port, "--tls-auth-clients", "no", "--tls-ca-cert-file", ca.CACert(),
		"--tls-cert-file", filepath.Join(dir, "server.crt"), "--tls-key-file", filepath.Join(dir, "server.key"), "--requirepass", "horse")
	url := "rediss://default:horse@localhost:" + port + "/1"
	s := open(t, Options{URL: url, TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}})
	if ok, _ := take(t, s, "k", tenPerHour, 1, 1); !ok {
		t.Error("refused")
	}

	// A CA that nobody knows is an error that says so.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, _, err = open(t, Options{URL: url}).Take(ctx, "k", tenPerHour, 1, 1)
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok || strings.Contains(err.Error(), "horse") {
		t.Errorf("%v", err)
	}
}
