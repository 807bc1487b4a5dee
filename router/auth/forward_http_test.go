package auth_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

// newForwardTo gives a guard that asks h.
func newForwardTo(t testing.TB, opts auth.ForwardOptions, h http.HandlerFunc) *auth.Forward {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	authority, err := auth.NewHTTPAuthority(auth.HTTPAuthorityOptions{URL: server.URL + "/decide?v=1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(authority.Close)
	opts.Authority = authority
	return newForward(t, opts)
}

func TestForwardHTTPAsks(t *testing.T) {
	var got *http.Request
	f := newForwardTo(t, auth.ForwardOptions{Upstream: []string{"X-User-Id", "X-Groups", "X-Absent"}}, func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.Header().Set("X-User-Id", "alice")
		w.Header().Add("X-Groups", "one")
		w.Header().Add("X-Groups", "two")
		w.Header().Set("X-Other", "not listed")
		w.WriteHeader(http.StatusNoContent)
	})
	call := newCall(t, protocols.WebSocket, "/ä b/%?x=1&ticket=secret&y=2", "Authorization", "Bearer t", "Cookie", "a=1", "cookie", "b=2",
		"X-Secret", "s", "X-Forwarded-For", "6.6.6.6", "X-User-Id", "mallory", "X-Absent", "mallory", "X-Other", "client")
	call.Hide("ticket")
	if err := askGuard(t, f, call); err != nil {
		t.Fatal(err)
	}
	if got.Method != http.MethodGet || got.URL.String() != "/decide?v=1" {
		t.Errorf("asked %s %s", got.Method, got.URL)
	}
	for name, want := range map[string]string{
		"X-Forwarded-Method": "GET", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "example.com",
		"X-Forwarded-Uri": "/%C3%A4%20b/%25?x=1&y=2", "X-Forwarded-For": "", "X-Request-Id": call.RequestID(),
		"Authorization": "Bearer t", "Cookie": "a=1; b=2", "X-Secret": "", "X-User-Id": "",
	} {
		if v := strings.Join(got.Header[name], "|"); v != want {
			t.Errorf("it gets %s %q, want %q", name, v, want)
		}
	}
	if id := call.Identity(); id == nil || id.Subject != "alice" || id.By != "forward" {
		t.Errorf("identity %+v", id)
	}
	for name, want := range map[string]string{
		"X-User-Id": "alice", "X-Groups": "one, two", "X-Absent": "", "X-Other": "client", "Authorization": "", "Cookie": "a=1",
	} {
		if v := serverGets(call, name); v != want {
			t.Errorf("a server gets %s %q, want %q", name, v, want)
		}
	}
	if c := f.Counts(); c != (auth.ForwardCounts{Admitted: 1}) {
		t.Errorf("counts %+v", c)
	}
}

func TestForwardHTTPAnswers(t *testing.T) {
	const plain, again = "Content-Type: text/plain; charset=utf-8", time.Second
	for name, tc := range map[string]struct {
		status    int
		header    []string
		body      string
		want      protocols.Reason
		text      string
		challenge string
		retry     time.Duration
	}{
		"401":               {401, []string{plain, `WWW-Authenticate: Bearer realm="x"`}, "log\tin\nplease\n", protocols.ReasonUnauthenticated, "log in please", `Bearer realm="x"`, 0},
		"403":               {403, []string{plain}, "no", protocols.ReasonForbidden, "no", "", 0},
		"403 in JSON":       {403, []string{"Content-Type: application/json"}, `{"why":"no"}`, protocols.ReasonForbidden, `{"why":"no"}`, "", 0},
		"403 in HTML":       {403, []string{"Content-Type: text/html"}, "<b>", protocols.ReasonForbidden, "", "", 0},
		"403 of 10 MB":      {403, []string{plain}, strings.Repeat("é", 5<<20), protocols.ReasonForbidden, strings.Repeat("é", 512), "", 0},
		"403 cut in a rune": {403, []string{plain}, "x" + strings.Repeat("é", 5000), protocols.ReasonForbidden, "x" + strings.Repeat("é", 511), "", 0},
		"403 not UTF-8":     {403, []string{plain}, "a\xff\x00b", protocols.ReasonForbidden, "a b", "", 0},
		"429":               {429, []string{"Retry-After: 7"}, "", protocols.ReasonTooMany, "", "", 7 * time.Second},
		"429 for ever":      {429, []string{"Retry-After: 9223372036854775807"}, "", protocols.ReasonTooMany, "", "", time.Hour},
		"500":               {500, []string{plain}, "stack trace", protocols.ReasonOverloaded, "", "", again},
		"503":               {503, nil, "", protocols.ReasonOverloaded, "", "", again},
		"a redirect":        {302, []string{"Location: /elsewhere"}, "", protocols.ReasonOverloaded, "", "", again},
		"404":               {404, nil, "", protocols.ReasonOverloaded, "", "", again},
		"a field too long":  {200, []string{"X-User-Id: " + strings.Repeat("x", 5000)}, "", protocols.ReasonOverloaded, "", "", again},
		"fields by the ton": {200, []string{"X-A: " + strings.Repeat("x", 64<<10)}, "", protocols.ReasonOverloaded, "", "", again},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			f := newForwardTo(t, auth.ForwardOptions{Upstream: []string{"X-User-Id"}}, func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1); r.URL.Path != "/decide" {
					t.Errorf("a redirect was followed to %s", r.URL)
				}
				for _, field := range tc.header {
					field, value, _ := strings.Cut(field, ": ")
					w.Header().Set(field, value)
				}
				w.WriteHeader(tc.status)
				io.WriteString(w, tc.body)
			})
			call := newCall(t, protocols.HTTP, "/", "X-User-Id", "mallory", "Authorization", "Bearer t")
			r := wantRefusal(t, askGuard(t, f, call), tc.want)
			if r.Text != tc.text || r.Challenge != tc.challenge || r.RetryAfter != tc.retry {
				t.Errorf("text %.80q, challenge %q, again in %v", r.Text, r.Challenge, r.RetryAfter)
			}
			if asked.Load() != 1 || call.Identity() != nil || serverGets(call, "X-User-Id") != "" || serverGets(call, "Authorization") != "" {
				t.Errorf("asked %d, identity %v, handed %v", asked.Load(), call.Identity(), call.Handed())
			}
		})
	}
}

// A good answer with 10 MB behind it is a good answer, and costs 4 KiB.
func TestForwardHTTPBigBody(t *testing.T) {
	var sent atomic.Int64
	f := newForwardTo(t, auth.ForwardOptions{}, func(w http.ResponseWriter, _ *http.Request) {
		for range 160 {
			n, err := w.Write(make([]byte, 64<<10))
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	if err := askGuard(t, f, newCall(t, protocols.HTTP, "/")); err != nil {
		t.Error(err)
	}
}

// What comes back is written to a raw socket: fields that net/http's server would not send.
func TestForwardHTTPHostileAnswers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var answer atomic.Pointer[string]
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 4096))
			io.WriteString(c, *answer.Load())
			c.Close()
		}
	})
	t.Cleanup(done.Wait)
	t.Cleanup(func() { ln.Close() })
	authority, err := auth.NewHTTPAuthority(auth.HTTPAuthorityOptions{URL: "http://" + ln.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(authority.Close)
	f := newForward(t, auth.ForwardOptions{Authority: authority, Upstream: []string{"X-User-Id"}})
	for name, s := range map[string]string{
		"a NUL":             "HTTP/1.1 200 OK\r\nX-User-Id: a\x00b\r\nContent-Length: 0\r\n\r\n",
		"a carriage return": "HTTP/1.1 200 OK\r\nX-User-Id: a\rX-Admin: 1\r\nContent-Length: 0\r\n\r\n",
		"a folded line":     "HTTP/1.1 200 OK\r\nX-User-Id: a\r\n\x01X-Admin: 1\r\nContent-Length: 0\r\n\r\n",
		"no HTTP":           "SSH-2.0-x\r\n",
		"nothing":           "",
		"half a head":       "HTTP/1.1 200 OK\r\nX-User",
		"half a body":       "HTTP/1.1 200 OK\r\nX-User-Id: a\r\nContent-Length: 10\r\n\r\nabc",
		"1xx only":          "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"a strange status":  "HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n",
	} {
		answer.Store(&s)
		call := newCall(t, protocols.HTTP, "/")
		err := askGuard(t, f, call)
		if err == nil || protocols.RefusalOf(err).Reason != protocols.ReasonOverloaded || call.Identity() != nil || serverGets(call, "X-User-Id") != "" {
			t.Errorf("%s: %v, identity %v, handed %v", name, err, call.Identity(), call.Handed())
		}
	}
}

func TestForwardHTTPUnreachable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	var log bytes.Buffer
	authority, err := auth.NewHTTPAuthority(auth.HTTPAuthorityOptions{URL: "http://" + ln.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(authority.Close)
	f := newForward(t, auth.ForwardOptions{Authority: authority, Log: slog.New(slog.NewTextHandler(&log, nil))})
	for range 3 {
		wantRefusal(t, askGuard(t, f, newCall(t, protocols.HTTP, "/x?token=planted", "Authorization", "Bearer planted", "Cookie", "planted")), protocols.ReasonOverloaded)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || strings.Contains(log.String(), "planted") {
		t.Errorf("%d lines:\n%s", n, &log)
	}
}

// A service that switches protocols, and then says nothing, does not keep a call.
func TestForwardHTTPUpgrade(t *testing.T) {
	stop := make(chan struct{})
	f := newForwardTo(t, auth.ForwardOptions{Timeout: time.Minute}, func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		<-stop
	})
	t.Cleanup(func() { close(stop) })
	wantRefusal(t, askGuard(t, f, newCall(t, protocols.HTTP, "/")), protocols.ReasonOverloaded)
}

// A service that hangs costs a call its time and no more, and its slot is free again.
func TestForwardHTTPHangs(t *testing.T) {
	stop := make(chan struct{})
	f := newForwardTo(t, auth.ForwardOptions{Timeout: 20 * time.Millisecond, Concurrency: 1}, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-stop:
		}
	})
	t.Cleanup(func() { close(stop) })
	for range 3 {
		wantRefusal(t, askGuard(t, f, newCall(t, protocols.HTTP, "/")), protocols.ReasonOverloaded)
	}
}

func TestForwardHTTPS(t *testing.T) {
	var version atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		version.Store(int64(r.ProtoMajor))
		w.Header().Set("X-User-Id", r.Header.Get("X-Forwarded-Host"))
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of the handshake that fails
	server.StartTLS()
	t.Cleanup(server.Close)
	for _, good := range []bool{true, false} {
		opts := auth.HTTPAuthorityOptions{URL: server.URL}
		if good {
			opts.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
			opts.TLS.RootCAs.AddCert(server.Certificate())
		}
		authority, err := auth.NewHTTPAuthority(opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(authority.Close)
		call := newCall(t, protocols.HTTP, "/")
		err = askGuard(t, newForward(t, auth.ForwardOptions{Authority: authority}), call)
		if !good {
			wantRefusal(t, err, protocols.ReasonOverloaded)
		} else if err != nil || call.Identity().Subject != "example.com" || version.Load() != 1 {
			t.Errorf("%v, %v, HTTP/%d", err, call.Identity(), version.Load())
		}
	}
}

func TestHTTPAuthorityURL(t *testing.T) {
	for _, url := range []string{"", "x", "ftp://h/", "http://", "http://user:planted@h/", "http://h/#f", "http://h:planted/", "//h/", "unix:///x"} {
		if _, err := auth.NewHTTPAuthority(auth.HTTPAuthorityOptions{URL: url}); err == nil || strings.Contains(err.Error(), "planted") {
			t.Errorf("%q: %v", url, err)
		}
	}
}
