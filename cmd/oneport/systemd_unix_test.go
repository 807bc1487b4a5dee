//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// behind is a server that others are sent to; /slow answers once it is let go.
func behind(t *testing.T) (url string, entered, letGo chan struct{}) {
	t.Helper()
	entered, letGo = make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		select {
		case <-letGo:
		case <-r.Context().Done():
		}
		io.WriteString(w, "late")
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.URL, entered, letGo
}

const twoListeners = `
listen:
  - %q
  - { address: "127.0.0.1:0", socket: plain, tls: off }
tls: { dev: true }
upstreams: { app: { servers: [%q] } }
routes: [{ path: /, to: app }]
drain: { timeout: 20s, not_ready: 100ms, spread: 0s }
log: { format: text }
`

// client makes each call on a connection of its own.
func (m *manager) client(t *testing.T, http2 bool) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: m.tls(t), Protocols: protocols, DisableKeepAlives: true,
	}}
}

func get(ctx context.Context, c *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || string(body) != "hello" {
		return fmt.Errorf("%s, %q, %w", resp.Status, body, err)
	}
	return nil
}

// Restarts refuse no connection and fail no call, while clients come all the time,
// each with a new connection: with a gap between the two processes, in which
// connections wait, and without, as two units with the same socket.
func TestRestart(t *testing.T) {
	url, _, _ := behind(t)
	m := newManager(t, "tls.socket", "plain")
	m.write(t, "oneport.yaml", fmt.Sprintf(twoListeners, m.addrs[0], url))
	now := m.start(t, "serve")
	now.hears(t, "READY=1")

	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var calls atomic.Int64
	var slowest atomic.Int64
	for name, call := range map[string]func() error{
		"h1":    func() error { return get(context.WithoutCancel(ctx), m.client(t, false), "https://"+m.addrs[0]) },
		"h2":    func() error { return get(context.WithoutCancel(ctx), m.client(t, true), "https://"+m.addrs[0]) },
		"plain": func() error { return get(context.WithoutCancel(ctx), m.client(t, false), "http://"+m.addrs[1]) },
	} {
		clients.Go(func() {
			for ctx.Err() == nil {
				begun := time.Now()
				if err := call(); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				calls.Add(1)
				slowest.Store(max(slowest.Load(), int64(time.Since(begun))))
			}
		})
	}
	for range 4 {
		now.signal(t, syscall.SIGTERM)
		now.ends(t, exitOK)
		now = m.start(t, "serve")
		now.hears(t, "READY=1")
	}
	t.Logf("with a gap: %d calls, the slowest took %v", calls.Swap(0), time.Duration(slowest.Swap(0)))
	for range 4 {
		next := m.start(t, "serve")
		next.hears(t, "READY=1")
		now.signal(t, syscall.SIGTERM)
		now.ends(t, exitOK)
		now = next
	}
	t.Logf("without: %d calls, the slowest took %v", calls.Load(), time.Duration(slowest.Load()))
	stop()
	clients.Wait()
	if calls.Load() == 0 {
		t.Error("nobody called")
	}
	now.signal(t, syscall.SIGTERM)
	now.ends(t, exitOK)
}

// While a process finishes its last call, who comes waits for the next one: not
// refused, and served as soon as that has started.
func TestConnectionsWaitForTheNext(t *testing.T) {
	url, entered, letGo := behind(t)
	m := newManager(t, "tls.socket", "plain")
	m.write(t, "oneport.yaml", fmt.Sprintf(twoListeners, m.addrs[0], url))
	first := m.start(t, "serve")
	first.hears(t, "READY=1")
	slow := make(chan string, 1)
	go func() {
		resp, err := m.client(t, false).Get("http://" + m.addrs[1] + "/slow")
		if err != nil {
			slow <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		slow <- string(body)
	}()
	<-entered
	first.signal(t, syscall.SIGTERM)
	message := first.hears(t, "STOPPING=1")
	if !slices.Contains(message, "EXTEND_TIMEOUT_USEC=25000000") { // drain.timeout, and 5 s
		t.Errorf("it said %q", message)
	}
	// New connections until one has got no answer in time: the port has closed.
	waiting := make(chan error, 1)
	for open := true; open; {
		conn, err := net.Dial("tcp", m.addrs[1])
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
		conn.SetReadDeadline(time.Now().Add(time.Second))
		answer, err := io.ReadAll(conn)
		if open = strings.HasSuffix(string(answer), "hello"); open {
			conn.Close()
			continue
		}
		if len(answer) > 0 {
			t.Fatalf("%q, %v", answer, err)
		}
		go func() { // the same connection is served later
			defer conn.Close()
			conn.SetReadDeadline(time.Now().Add(patience))
			answer, err := io.ReadAll(conn)
			if err == nil && !strings.HasSuffix(string(answer), "hello") {
				err = fmt.Errorf("answered %q", answer)
			}
			waiting <- err
		}()
	}
	close(letGo)
	if got := <-slow; got != "late" {
		t.Errorf("the call in flight: %s", got)
	}
	first.ends(t, exitOK)
	second := m.start(t, "serve")
	second.hears(t, "READY=1")
	if err := <-waiting; err != nil {
		t.Errorf("who waited: %v", err)
	}
	second.signal(t, syscall.SIGTERM)
	second.ends(t, exitOK)
}

// What systemd is told of a reload, of mistakes and of being alive.
func TestNotify(t *testing.T) {
	url, _, _ := behind(t)
	m := newManager(t, "plain", "nobody")
	m.env = []string{"WATCHDOG_USEC=400000"}
	config := strings.Replace(fmt.Sprintf(twoListeners, "127.0.0.1:0", url), "100ms", "0s", 1)
	m.write(t, "oneport.yaml", config)
	u := m.start(t, "serve")
	u.hears(t, "READY=1")
	u.hears(t, "WATCHDOG=1")
	for _, reload := range []struct{ text, status string }{
		{config, "STATUS=serving; configuration unchanged"},
		{config + "nonsense: 1\n", "STATUS=serving; the configuration has mistakes, the old one stays"},
		{config + "limits: { connections: 100 }\n", "STATUS=serving; configuration loaded"},
	} {
		m.write(t, "oneport.yaml", reload.text)
		u.signal(t, syscall.SIGHUP)
		usec := int64(0)
		for _, line := range u.hears(t, "RELOADING=1") {
			if text, ok := strings.CutPrefix(line, "MONOTONIC_USEC="); ok {
				usec, _ = strconv.ParseInt(text, 10, 64)
			}
		}
		if usec <= 0 {
			t.Errorf("no MONOTONIC_USEC: %q", u.said)
		}
		if message := u.hears(t, "READY=1"); !slices.Contains(message, reload.status) {
			t.Errorf("got %q, want %s", message, reload.status)
		}
	}
	u.signal(t, syscall.SIGTERM)
	u.hears(t, "STOPPING=1")
	log := u.ends(t, exitOK)
	for _, want := range []string{
		`msg="systemd has no socket for this address, opening it" address=127.0.0.1:0 socket=""`,
		`level=ERROR msg="systemd has a socket that no listener wants: its clients wait in vain" address=` + m.addrs[1] + " socket=nobody",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %s:\n%s", want, log)
		}
	}
}

// A start that fails never says that it serves.
func TestNotifyNoStart(t *testing.T) {
	m := newManager(t)
	m.write(t, "oneport.yaml", "listen: nonsense\n")
	u := m.start(t, "serve")
	u.ends(t, exitConfig)
	u.notify.SetReadDeadline(time.Now())
	if n, err := u.notify.Read(make([]byte, 100)); err == nil {
		t.Errorf("it said %d bytes", n)
	}
}

// The proxy without a file takes sockets as well.
func TestProxySocket(t *testing.T) {
	url, _, _ := behind(t)
	m := newManager(t, "oneport.socket")
	u := m.start(t, "proxy", "--listen", m.addrs[0], "--http", url)
	u.hears(t, "READY=1")
	if err := get(t.Context(), m.client(t, true), "https://"+m.addrs[0]); err != nil {
		t.Error(err)
	}
	u.signal(t, syscall.SIGTERM)
	u.ends(t, exitOK)
}
